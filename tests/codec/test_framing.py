import itertools
import tracemalloc

import pytest

from zrs_core.codec.framing import MAX_PAYLOAD_SIZE, FrameReader, prefix
from zrs_core.errors import LimitExceeded

from .helpers import bytewise, framed, pieces


def read_all(reader, limit=100):
    payloads = []
    while (payload := reader.take(limit)) is not None:
        payloads.append(payload)
    return payloads


def test_a_prefix_is_the_size_in_four_bytes_big_endian():
    assert prefix(0) == b"\0\0\0\0"
    assert prefix(0x01020304) == b"\1\2\3\4"
    assert prefix(MAX_PAYLOAD_SIZE) == b"\xff\xff\xff\xff"


@pytest.mark.parametrize("payloads", [[b""], [b"x"], [b"", b"", b""], [b"one", b"", b"three"]])
def test_payloads_are_the_same_however_they_arrive(payloads):
    stream = framed(*payloads)
    whole = FrameReader()
    whole.feed(stream)
    assert read_all(whole) == payloads
    reader, found = FrameReader(), []
    for byte in bytewise(stream):
        reader.feed(byte)
        found += read_all(reader, 1 << 20)
    assert found == payloads
    assert reader.waiting == whole.waiting == 0


def test_a_payload_is_none_until_its_last_byte():
    reader = FrameReader()
    *most, last = bytewise(framed(b"payload"))
    for byte in most:
        reader.feed(byte)
        assert reader.take(7) is None
    reader.feed(last + b"junk")
    assert reader.take(7) == b"payload"
    assert reader.waiting == 4


def test_the_size_of_the_next_payload_is_known_once_its_prefix_is_there():
    reader = FrameReader()
    reader.feed(b"\0\0\1")
    assert reader.announced() is None
    reader.feed(b"\0")
    assert reader.announced() == 256


def test_a_payload_above_the_limit_is_refused_before_it_arrives():
    reader = FrameReader()
    reader.feed(framed(b"12345678", b"123456789")[:16])
    assert reader.take(8) == b"12345678"
    with pytest.raises(LimitExceeded, match="a message of 9 bytes, where at most 8 are allowed"):
        reader.take(8)
    assert reader.offset == 12


def test_the_offset_is_that_of_the_message_that_was_tried_last():
    reader = FrameReader()
    assert reader.offset == 0
    reader.feed(framed(b"one", b"two") + b"\0\0")
    reader.take(3)
    assert reader.offset == 0
    reader.take(3)
    assert reader.offset == 7
    reader.take(3)
    assert reader.offset == 14


def test_discarding_drops_what_waits():
    reader = FrameReader()
    reader.feed(framed(b"one") + b"half")
    reader.take(3)
    reader.discard()
    assert reader.waiting == 0
    reader.feed(framed(b"two"))
    assert reader.take(3) == b"two"


def test_an_announced_size_costs_no_memory():
    reader = FrameReader()
    tracemalloc.start()
    reader.feed(b"\xff\xff\xff\xff" + bytes(1000))
    assert reader.take(MAX_PAYLOAD_SIZE) is None
    assert tracemalloc.get_traced_memory()[1] < 100_000
    tracemalloc.stop()


@pytest.mark.parametrize("size", [1, 7, 1000, 1 << 16])
def test_what_is_left_of_a_read_is_copied_once(size, monkeypatch):
    """Not again with each read that follows: that would be quadratic for a large record."""
    copied = []
    replace = FrameReader._replace
    monkeypatch.setattr(
        FrameReader, "_replace", lambda self, data: (copied.append(len(data)), replace(self, data))
    )
    stream = framed(b"", bytes(300_000), *[b"tiny"] * 1000)
    reader = FrameReader()
    found = []
    for piece in pieces(stream, range(size, len(stream), size)):
        reader.feed(piece)
        found += read_all(reader, 1 << 20)
    assert found == [b"", bytes(300_000), *[b"tiny"] * 1000]
    assert sum(copied) <= 3 * len(stream)


def test_a_burst_of_empty_messages_is_cut_where_it_lies():
    reader = FrameReader()
    data = bytes(64 * 1024)
    for _ in range(3):
        reader.feed(data)
        assert reader.buffer is data
        assert read_all(reader) == [b""] * (16 * 1024)


def test_what_follows_a_message_that_was_cut_in_two_is_cut_where_it_lies():
    reader = FrameReader()
    stream = framed(b"first", b"second", b"third", b"fourth")
    reader.feed(stream[:14])
    assert read_all(reader) == [b"first"]
    rest = stream[14:-3]
    reader.feed(rest)
    assert reader.waiting == len(stream) - 9 - 3
    assert reader.take(6) == b"second"
    assert reader.offset == 9
    assert reader.take(6) == b"third"
    assert reader.buffer is rest
    assert reader.offset == 19
    reader.feed(stream[-3:])
    assert reader.take(6) == b"fourth"
    assert reader.offset == 28
    assert reader.waiting == 0


def test_more_may_be_fed_before_it_is_taken():
    stream = framed(b"first", b"second", b"third", b"fourth", b"fifth")
    for cuts in itertools.combinations(range(1, len(stream)), 3):
        reader, found = FrameReader(), []
        for number, piece in enumerate(pieces(stream, cuts)):
            reader.feed(piece)
            if not number:
                found += read_all(reader)
        found += read_all(reader)
        assert found == [b"first", b"second", b"third", b"fourth", b"fifth"]
        assert reader.waiting == 0
        reader.feed(framed(b"x"))
        assert reader.take(1) == b"x"
        assert reader.offset == len(stream)


def test_discarding_drops_what_follows():
    reader = FrameReader()
    reader.feed(framed(b"one")[:5])
    assert reader.take(3) is None
    reader.feed(framed(b"one")[5:] + framed(b"two"))
    reader.discard()
    assert reader.waiting == 0
    assert reader.take(3) is None


def test_the_size_of_the_next_payload_is_known_between_two():
    """A reader may stop after any payload, also where the next ones were fed with its end."""
    reader = FrameReader()
    stream = framed(b"one", b"four", b"")
    reader.feed(stream[:5])
    assert reader.take(10) is None
    reader.feed(stream[5:])
    sizes = []
    while reader.take(10) is not None:
        sizes.append(reader.announced())
    assert sizes == [4, 0, None]


def test_what_has_come_of_a_payload_that_is_not_complete():
    stream = framed(b"whole", b"0123456789")
    for cut in range(len(framed(b"whole")) + 4, len(stream)):
        for first in range(1, cut):
            reader = FrameReader()
            reader.feed(stream[:first])
            while reader.take(10) is not None:
                pass
            reader.feed(stream[first:cut])
            while reader.take(10) is not None:
                pass
            assert reader.partial(4) == stream[13:cut][:4]
            assert reader.partial(100) == stream[13:cut]
