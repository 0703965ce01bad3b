import random
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zrs_core.codec import templates
from zrs_core.codec.checksum import RunningChecksum
from zrs_core.codec.pickles import WRITERS
from zrs_core.messages import (
    BLOB_BLOCK_SIZE,
    MAX_TID,
    NO_TID,
    BlobBlock,
    Commit,
    Store,
    StoreBlob,
    Transaction,
)

from .helpers import OID, OID_2, TID, TID_2, encode, framed, outcome, pieces, primary, secondary

WRITER = WRITERS[3]
PLAIN = [
    Transaction(TID, " ", b"somebody", b"x" * 255),
    Store(OID, TID, b"data"),
    Store(OID_2, TID),
    Commit(),
    Transaction(TID_2, "p"),
    Store(OID, TID_2, bytes(70_000)),
    Commit(),
    Transaction(MAX_TID, "u"),
    Commit(),
]
ODD = [
    Transaction(TID, " ", b"", b"", b"\x80\x03}q\0X\x01\0\0\0aK\x01s."),
    Store(OID, TID, b"data", TID_2),
    StoreBlob(OID_2, TID, b"blob", None, 1),
    BlobBlock(b"x"),
    Commit(),
    Transaction(TID_2, " ", b"x" * 256),
    Commit(),
    *PLAIN[7:],
]


def read_run(stream, begin=0, tid=None, last_tid=NO_TID, start=NO_TID, **options):
    options = {"check": True, "max_record_size": 1 << 20, **options}
    return templates.read_run(stream, begin, tid, last_tid, RunningChecksum(start), **options)


def without_templates(monkeypatch):
    """From here on connections go the long way."""
    monkeypatch.setattr(
        templates,
        "read_run",
        lambda buffer, begin, tid, last_tid, *args, **options: templates.Run(
            [], begin, tid, last_tid, 0
        ),
    )
    monkeypatch.setattr(
        templates,
        "write_run",
        lambda messages, begin, tid, last_tid, *args: templates.Written(begin, tid, last_tid),
    )
    monkeypatch.setattr(templates, "read_blocks", lambda buffer, begin, *args: ([], begin))
    monkeypatch.setattr(templates, "write_blocks", lambda *args: 0)


def test_a_run_is_read_as_a_whole():
    stream = encode(PLAIN)
    run = read_run(stream)
    assert run == (PLAIN, len(stream), None, MAX_TID, 3, False)
    assert all(type(message.checksum) is bytes for message in run.messages if message == Commit())


def test_a_run_may_begin_and_end_anywhere():
    stream = encode(PLAIN)
    whole = read_run(stream).messages
    for end in range(700):
        part = read_run(stream[:end])
        assert part.messages == whole[: len(part.messages)]
        assert part.end <= end
    connection = primary()
    first = encode(PLAIN[:2], connection)
    rest = encode(PLAIN[2:], connection)
    checksum = RunningChecksum(NO_TID)
    options = {"check": True, "max_record_size": 1 << 20}
    run = templates.read_run(first, 0, None, NO_TID, checksum, **options)
    again = templates.read_run(b"??" + rest, 2, run.tid, run.last_tid, checksum, **options)
    assert run.messages + again.messages == PLAIN
    assert again.end == len(rest) + 2


def changed(data, place, byte):
    return data[:place] + bytes([byte]) + data[place + 1 :]


@pytest.mark.parametrize(
    ("message", "tid", "size"), [(PLAIN[0], None, 297), (PLAIN[1], TID, 42), (Commit(), TID, 36)]
)
def test_what_has_not_the_shape_is_left(message, tid, size):
    connection = primary()
    if tid is not None:
        encode(PLAIN[:1], connection)
    stream = encode([message], connection)
    assert read_run(stream, tid=tid, check=False).messages == [message]
    left = 0
    for place in range(size):
        for byte in (0, ord("?"), 255):
            run = read_run(changed(stream, place, byte), tid=tid, check=False)
            if run.messages:
                # It was in a field.
                assert run.end == len(stream)
            else:
                assert (run.end, run.tid, run.last_tid) == (0, tid, NO_TID)
                left += 1
    assert left > 40


@pytest.mark.parametrize(
    ("payload", "tid", "last_tid", "options"),
    [
        pytest.param(WRITER.transaction(Transaction(TID)), None, TID, {}, id="a tid again"),
        pytest.param(WRITER.transaction(Transaction(TID)), TID, NO_TID, {}, id="T in T"),
        pytest.param(WRITER.record(Store(OID, TID)), None, NO_TID, {}, id="S outside"),
        pytest.param(WRITER.record(Store(OID, TID_2)), TID, NO_TID, {}, id="another's serial"),
        pytest.param(WRITER.record(Store(OID, TID)), TID, NO_TID, {}, id="no record yet"),
        pytest.param(WRITER.commit(b"x" * 16), TID, NO_TID, {}, id="a wrong checksum"),
        pytest.param(WRITER.commit(b"x" * 16), None, NO_TID, {"check": False}, id="C outside"),
        pytest.param(WRITER.transaction(ODD[0]), None, NO_TID, {}, id="an extension"),
        pytest.param(WRITER.transaction(ODD[5]), None, NO_TID, {}, id="a long user"),
        pytest.param(WRITER.record(ODD[1]), TID, NO_TID, {}, id="a data_txn"),
        pytest.param(WRITER.record(ODD[2]), TID, NO_TID, {}, id="a blob"),
        pytest.param(b"", None, NO_TID, {}, id="nothing"),
    ],
)
def test_what_is_not_legal_or_plain_is_left(payload, tid, last_tid, options):
    stream = framed(payload)
    assert read_run(stream, 0, tid, last_tid, **options) == (
        [],
        0,
        tid,
        last_tid,
        0,
        False,
    )


def test_a_record_that_is_too_large_or_not_complete_is_left():
    stream = framed(WRITER.record(Store(OID, TID)), b"12345")
    assert read_run(stream, tid=TID).end == len(stream)
    assert read_run(stream, tid=TID, max_record_size=4).end == 0
    assert read_run(stream[:-1], tid=TID).end == 0


def test_a_checksum_may_be_of_no_interest():
    stream = framed(WRITER.commit(b"x" * 16))
    assert read_run(stream, tid=TID, check=False).messages[0].checksum == b"x" * 16


def test_a_tid_that_is_no_time_is_left():
    payload = WRITER.transaction(Transaction(TID)).replace(TID, b"\x80" + bytes(7))
    assert read_run(framed(payload)).messages == []


def write_run(messages, begin=0, tid=None, last_tid=NO_TID):
    """The bytes, and what `templates.write_run` returned; the checksum of both is compared."""
    chunks, checksum = [], RunningChecksum(NO_TID)
    written = templates.write_run(messages, begin, tid, last_tid, checksum, chunks)
    stream, expected = b"".join(chunks), RunningChecksum(NO_TID)
    pos = 0
    while pos < len(stream):
        (size,) = struct.unpack_from(">I", stream, pos)
        expected.update(stream[pos + 4 : pos + 4 + size])
        pos += 4 + size
    assert checksum.digest() == expected.digest()
    return stream, written, chunks


def test_a_run_is_written_as_the_writer_does():
    stream, written, chunks = write_run(PLAIN)
    assert stream == encode(PLAIN)
    assert written == (len(PLAIN), None, MAX_TID)
    # What is large is not copied, and what is small goes together.
    assert len(chunks) == 3
    assert chunks[1] is PLAIN[5].data


def test_a_run_may_be_written_in_parts():
    stream = encode(PLAIN)
    for end in range(len(PLAIN) + 1):
        connection = primary()
        first = connection.send_all(PLAIN[:end])
        assert b"".join(first + connection.send_all(PLAIN[end:])) == stream


@pytest.mark.parametrize(
    ("message", "tid", "last_tid"),
    [
        pytest.param(ODD[0], None, NO_TID, id="an extension"),
        pytest.param(Transaction(TID, " ", b"x" * 256), None, NO_TID, id="a long user"),
        pytest.param(Transaction(TID, " ", b"", b"x" * 256), None, NO_TID, id="a long description"),
        pytest.param(Transaction(TID), None, TID, id="a tid again"),
        pytest.param(Transaction(TID_2), TID, NO_TID, id="T in T"),
        pytest.param(Store(OID, TID, b"data"), None, NO_TID, id="S outside"),
        pytest.param(Store(OID, TID_2, b"data"), TID, NO_TID, id="another's serial"),
        pytest.param(ODD[1], TID, NO_TID, id="a data_txn"),
        pytest.param(ODD[2], TID, NO_TID, id="a blob"),
        pytest.param(ODD[3], TID, NO_TID, id="a blob block"),
        pytest.param(Commit(), None, NO_TID, id="C outside"),
    ],
)
def test_what_is_not_legal_or_plain_is_not_written(message, tid, last_tid):
    assert write_run([message], 0, tid, last_tid) == (b"", (0, tid, last_tid), [])
    before = [Store(OID, TID, b"data")] if tid else []
    _, written, chunks = write_run([*before, message, *PLAIN], 0, tid, last_tid)
    assert written == (len(before), tid, last_tid)
    assert len(chunks) == len(before)


def test_a_record_that_no_prefix_can_announce_is_not_written(monkeypatch):
    monkeypatch.setattr(templates, "MAX_PAYLOAD_SIZE", 3)
    assert write_run([Store(OID, TID, b"1234")], 0, TID)[1].next == 0


@pytest.mark.parametrize("messages", [PLAIN, ODD])
def test_the_stream_is_the_same_with_and_without(messages, monkeypatch):
    whole = b"".join(primary().send_all(messages))
    assert whole == encode(messages)
    without_templates(monkeypatch)
    assert b"".join(primary().send_all(messages)) == whole


@settings(deadline=None, max_examples=150)
@given(st.integers(0, 2**32), st.sampled_from([PLAIN, ODD, PLAIN[:2] + PLAIN[3:]]), st.booleans())
def test_what_comes_out_is_the_same_with_and_without(seed, messages, damaged):
    chance = random.Random(seed)
    stream = bytearray(encode(messages))
    if damaged:
        stream[chance.randrange(len(stream))] ^= chance.randrange(1, 256)
    stream = bytes(stream)
    policy = chance.choice(["require", "verify", "ignore"])
    cuts = chance.sample(range(len(stream)), chance.choice([0, 1, 5, 40]))
    fed = pieces(stream, cuts)
    with pytest.MonkeyPatch.context() as patch:
        found = outcome(secondary(checksums=policy), fed)
        without_templates(patch)
        assert outcome(secondary(checksums=policy), fed) == found


BLOCKS = [BlobBlock(bytes([number]) * BLOB_BLOCK_SIZE) for number in range(3)]


def read_blocks(stream, left, begin=0):
    return templates.read_blocks(stream, begin, left, RunningChecksum(NO_TID))


def test_whole_blocks_are_read_together():
    stream = framed(*(block.data for block in BLOCKS), b"short")
    assert read_blocks(stream, 4) == (BLOCKS, 3 * (4 + BLOB_BLOCK_SIZE))
    assert read_blocks(b"??" + stream, 3, 2) == (BLOCKS, 2 + 3 * (4 + BLOB_BLOCK_SIZE))
    assert read_blocks(stream, 2) == (BLOCKS[:2], 2 * (4 + BLOB_BLOCK_SIZE))
    assert read_blocks(stream[: 2 * (4 + BLOB_BLOCK_SIZE) - 1], 3) == (
        BLOCKS[:1],
        4 + BLOB_BLOCK_SIZE,
    )


@pytest.mark.parametrize("left", [b"short", b"", bytes(BLOB_BLOCK_SIZE + 1)])
def test_a_block_of_another_size_is_left(left):
    assert read_blocks(framed(left), 2) == ([], 0)


@pytest.mark.parametrize(
    ("messages", "left", "written"),
    [
        (BLOCKS, 3, 3),
        (BLOCKS, 2, 2),
        ([BLOCKS[0], BlobBlock(b"short")], 2, 1),
        ([BLOCKS[0], Commit()], 2, 1),
    ],
)
def test_whole_blocks_are_written_together(messages, left, written):
    chunks, checksum, expected = [], RunningChecksum(NO_TID), RunningChecksum(NO_TID)
    assert templates.write_blocks(["?", *messages], 1, left, checksum, chunks) == written
    for block in BLOCKS[:written]:
        expected.update(block.data)
    assert checksum.digest() == expected.digest()
    assert b"".join(chunks) == framed(*(block.data for block in BLOCKS[:written]))
    assert [chunk for chunk in chunks if len(chunk) > 4] == [each.data for each in BLOCKS[:written]]


@pytest.mark.parametrize("size", [1000, 65_540, 100_000, 1 << 20])
def test_blobs_are_the_same_with_and_without(size, monkeypatch):
    blob = [StoreBlob(OID, TID, b"blob", None, 4), *BLOCKS, BlobBlock(b"last")]
    whole = [StoreBlob(OID_2, TID, b"blob", None, 3), *BLOCKS]
    messages = [Transaction(TID), *blob, Store(OID, TID, b"data"), *whole, Commit()]
    stream = encode(messages)
    found, error = outcome(secondary(), pieces(stream, range(size, len(stream), size)))
    assert (found, error) == (messages, None)
    without_templates(monkeypatch)
    assert encode(messages) == stream
    assert outcome(secondary(), [stream]) == (found, error)


def test_the_layouts_are_those_that_are_written_down():
    record = framed(WRITER.record(Store(OID, TID)))
    assert len(record) == templates._S_DATA - 4
    assert struct.unpack(">I", record[:4]) == (templates._S_SIZE,)


def test_a_text_ends_within_its_message():
    assert templates._text_end(b"_C\1x", 1, 4) == 4
    assert templates._text_end(b"_C\0", 1, 3) == 3
    assert templates._text_end(b"_C\0", 1, 2) == 0
    assert templates._text_end(b"_C", 3, 2) == 0
    assert templates._text_end(b"_X\0", 1, 3) == 0
    assert templates._text_end(b"C\1x", 0, 3) == 0
