"""Streams to entries, whole and damaged."""

from __future__ import annotations

import json
import random

import pytest

from tests.codec.vectors import VECTORS
from zrs_core.codec import PrimaryConnection, SecondaryConnection
from zrs_core.codec.framing import prefix
from zrs_core.codec.pickles import WRITERS
from zrs_core.messages import (
    NO_TID,
    BlobBlock,
    Commit,
    Hello,
    Start,
    Store,
    StoreBlob,
    Transaction,
)
from zrs_core.tools.dump import Analyser, as_json, as_text

TID = bytes.fromhex("036c6b90f3333333")
LATER = bytes.fromhex("036c6b90f7777777")
OID = bytes(7) + b"\1"
RECORD = b"\x80\x03cmodule\nName\nq\x01.\x80\x03}."
KEEP_ALIVE = prefix(0)


def analysed(data, *starts, size=None):
    """The entries of a stream that is fed in pieces of so many bytes."""
    analyser = Analyser(*starts)
    entries = []
    for begin in range(0, len(data), size or len(data) or 1):
        entries += analyser.feed(data[begin : begin + (size or len(data))])
    return analyser, [*entries, *analyser.end()]


def greeting(word="zrs2.1", start=NO_TID):
    connection = SecondaryConnection()
    return connection.send(Hello(word)) + connection.send(Start(start))


def pieces(*messages, start=NO_TID):
    """The bytes of each message."""
    connection = PrimaryConnection()
    connection.receive_data(greeting(start=start))
    list(connection.messages())
    return [connection.send(message) for message in messages]


def whole(tid=TID):
    return [
        Transaction(tid, user=b"jim"),
        Store(OID, tid, RECORD, LATER),
        StoreBlob(OID, tid, RECORD, None, 2),
        BlobBlock(bytes(65_536)),
        BlobBlock(b"rest"),
        Commit(),
    ]


def kinds(entries):
    return [each.kind for each in entries]


@pytest.mark.parametrize("name", VECTORS)
@pytest.mark.parametrize("size", [997, 100_000])
def test_a_capture_is_told_as_it_is(name, size):
    vector = VECTORS[name]
    analyser, entries = analysed(vector.stream, vector.start, size=size)
    assert not analyser.faults
    names = {"T": "transaction", "S": "store", "B": "blob", "C": "commit"}
    plain = [each for each in entries if each.kind != "block"]
    assert kinds(plain) == [names[line["type"]] for line in vector.expected]
    # Each begins where the one before it ends.
    ends = [each.offset + each.length for each in entries]
    assert [each.offset for each in entries] == [0, *ends[:-1]]
    assert ends[-1] == len(vector.stream)
    for entry, line in zip(plain, vector.expected, strict=True):
        for key in ("tid", "oid", "data_txn"):
            if line.get(key) is not None:
                assert entry.fields[key].hex() == line[key]
        if "data_size" in line:
            assert entry.fields["size"] == (line["data_size"] or 0)
            assert entry.fields["class"] in (
                "persistent.mapping.PersistentMapping",
                "ZODB.blob.Blob",
                None if not line["data_size"] else "",
            )
        if line["type"] == "B":
            assert entry.fields["blocks"] == line["blocks"]
        if line["type"] == "C":
            assert entry.fields["checksum_is"] == ("missing" if "inline" in name else "verified")


def test_both_directions_of_a_capture():
    vector = VECTORS["py3-resume"]
    data = vector.hello + KEEP_ALIVE + vector.stream + KEEP_ALIVE
    analyser, entries = analysed(data)
    assert analyser.start == vector.start
    assert kinds(entries)[:4] == ["hello", "start", "keep-alive", "transaction"]
    assert kinds(entries)[-1] == "keep-alive"
    assert analyser.verified
    assert not analyser.faults


def test_a_secondary_alone():
    _, entries = analysed(greeting("zrs2.0", TID) + 2 * KEEP_ALIVE)
    assert kinds(entries) == ["hello", "start", "keep-alive", "keep-alive"]
    assert entries[0].fields == {"protocol": "zrs2.0"}
    assert entries[1].fields == {"tid": TID}


def test_the_start_is_one_of_those_that_may_be():
    data = b"".join(pieces(*whole(), start=bytes(7) + b"\1"))
    assert analysed(data, NO_TID, bytes(7) + b"\1")[0].faults == 0
    analyser, entries = analysed(data, NO_TID)
    assert (analyser.faults, analyser.verified, analyser.wrong) == (1, False, True)
    assert entries[-1].fields["checksum_is"] == "wrong"
    assert analyser.first_fault == entries[-1].offset


def test_an_empty_record_is_no_sign_of_life():
    _, entries = analysed(
        greeting()
        + b"".join(pieces(Transaction(TID), Store(OID, TID), Store(OID, TID), Commit()))
        + KEEP_ALIVE
    )
    assert kinds(entries)[2:] == ["transaction", "store", "store", "commit", "keep-alive"]


DAMAGES = {
    # What is left out, and the words of what was expected then.
    "no T": (0, "T, the beginning of a transaction"),
    "no B": (2, "S, B or C, for a record, a blob or the commit"),
    "no first block": (3, "block 1 of 2 of a blob, 65,536 bytes"),
    "no last block": (4, "block 2 of 2 of a blob, 1 to 65,536 bytes"),
    "no C": (5, "S, B or C, for a record, a blob or the commit"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_message_that_is_missing(name):
    left_out, expected = DAMAGES[name]
    sent = pieces(*whole(), *whole(LATER))
    before = sum(map(len, sent[:left_out]))
    del sent[left_out]
    analyser, entries = analysed(b"".join(sent))
    fault = next(each for each in entries if each.kind == "error")
    if name == "no last block":
        # The commit passes for it, and the next transaction is what does not fit.
        before += len(sent[4])
        expected = DAMAGES["no B"][1]
    assert (fault.offset, fault.length) == (before, 0)
    assert fault.fields["expected"] == expected
    assert analyser.first_fault == before
    # The second transaction is there whole.
    assert kinds(entries)[-6:] == ["transaction", "store", "blob", "block", "block", "commit"]
    assert entries[-1].fields["checksum_is"] == "wrong"


def test_a_length_that_is_wrong_costs_no_more_than_its_transaction():
    sent = pieces(*whole(), *whole(LATER))
    sent[1] = prefix(2**31) + sent[1][4:]
    analyser, entries = analysed(b"".join(sent), size=1000)
    assert kinds(entries)[:4] == ["transaction", "error", "skipped", "transaction"]
    assert "a message of 2147483648 bytes" in entries[1].fields["reason"]
    assert entries[2].fields == {"messages": None}
    assert entries[2].length == sum(map(len, sent[1:6]))
    assert entries[-1].fields["checksum_is"] == "unverifiable"
    assert analyser.faults == 1


def test_what_is_skipped_counts_for_the_checksum():
    broken = prefix(4) + b"what"
    connection = PrimaryConnection()
    connection.receive_data(greeting())
    list(connection.messages())
    first = [connection.send(message) for message in whole()]
    # As one would send it that has taken it for a message.
    connection._checksum.update(b"what")
    second = [connection.send(message) for message in whole(LATER)]
    analyser, entries = analysed(b"".join([*first, broken, *second]))
    assert kinds(entries)[6:9] == ["error", "skipped", "transaction"]
    assert entries[7].fields == {"messages": 1}
    assert entries[-1].fields["checksum_is"] == "verified"
    assert analyser.faults == 1


def test_a_damaged_record_is_a_wrong_checksum():
    data = b"".join(pieces(*whole(), *whole(LATER))).replace(b"Name", b"Nome", 1)
    analyser, entries = analysed(data)
    verdicts = [each.fields["checksum_is"] for each in entries if each.kind == "commit"]
    assert verdicts == ["wrong", "wrong"]
    assert analyser.faults == 1


def test_a_transaction_that_never_can_be_read_is_left():
    payload = WRITERS[3].transaction(Transaction(NO_TID))
    frame = prefix(len(payload)) + payload
    _, entries = analysed(frame * 3 + b"".join(pieces(*whole())))
    assert kinds(entries)[-6:] == kinds(analysed(b"".join(pieces(*whole())))[1])
    assert sum(each.length for each in entries if each.kind == "skipped") == 3 * len(frame)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\0\0", "the stream ends 2 bytes into a length prefix"),
        (prefix(100) + b"(", "the stream ends 5 bytes into a message of 104 bytes"),
        (pieces(Transaction(TID))[0], "the stream ends here"),
        (greeting()[:10] + b"\0\0\0\x08abc", "the stream ends 7 bytes into a message of 12 bytes"),
    ],
)
def test_a_stream_that_ends_in_the_midst(data, reason):
    analyser, entries = analysed(data)
    assert entries[-1].kind == "error"
    assert entries[-1].fields["reason"] == reason
    assert analyser.faults == 1


def test_a_greeting_that_no_primary_takes():
    _, entries = analysed(prefix(6) + b"zrs9.9" + greeting()[10:])
    assert kinds(entries) == ["error", "skipped"]
    assert entries[0].fields["reason"] == "Invalid protocol 'zrs9.9'"
    assert "zrs2.0 or zrs2.1" in entries[0].fields["expected"]
    assert kinds(analysed(prefix(11) + b"zrs2.1-long")[1]) == ["error", "skipped"]


@pytest.mark.parametrize("seed", range(3))
def test_no_damage_stops_it(seed):
    random_ = random.Random(seed)
    names = sorted(VECTORS)
    for _ in range(12):
        data = bytearray(VECTORS[random_.choice(names)].stream[:20_000])
        for _ in range(random_.choice((1, 2, 5))):
            place, chance = random_.randrange(len(data)), random_.random()
            if chance < 0.5:
                data[place] = random_.randrange(256)
            elif chance < 0.7:
                del data[place : place + random_.randrange(1, 200)]
            else:
                data[place:place] = random_.randbytes(random_.randrange(1, 100))
        _, entries = analysed(bytes(data))
        assert analysed(bytes(data), size=random_.randrange(1, 500))[1] == entries
        end = 0
        for entry in entries:
            assert entry.offset >= end or entry.kind == "error"
            end = max(end, entry.offset + entry.length)
            assert as_text(entry).isprintable()
            assert json.loads(as_json(entry))["kind"] == entry.kind
        if entries[-1].kind != "error":
            assert sum(each.length for each in entries) == len(data)
