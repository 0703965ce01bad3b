"""The published strategies: what they promise, and that they reach what they are for."""

import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st

from zrs_core.codec import PrimaryConnection
from zrs_core.messages import NO_TID, BlobBlock, Commit, Hello, Start, Store, Transaction
from zrs_core.testing import strategies
from zrs_core.testing.outcomes import committed, listening, outcome, speaking
from zrs_core.testing.peer_pickles import SPELLINGS
from zrs_core.testing.streams import split

# An example of `search` is written out, however long it is.
pytestmark = pytest.mark.filterwarnings("ignore:Generating overly large repr")

START = bytes((3, 0, 0, 0, 0, 0, 0, 1))
TID = bytes((3, 0, 0, 0, 0, 0, 0, 2))


def read(stream, **options):
    return outcome(listening(**options), [stream])


def search(strategy, condition):
    """Find an example, or fail. It is not reduced: that takes seconds."""
    unreduced = settings(max_examples=5000, database=None, phases=[Phase.generate])
    find(strategy, condition, settings=unreduced)


@pytest.mark.parametrize("protocol", ["zrs2.1", "zrs2.0"])
@pytest.mark.parametrize("start", [NO_TID, START])
def test_streams_of_a_primary_are_valid(protocol, start):
    @settings(max_examples=50)
    @given(strategies.from_primary(blobs=protocol == "zrs2.1", start=start))
    def check(stream):
        messages, error = read(stream, protocol=protocol, start=start)
        assert error is None
        assert committed(messages) == messages

    check()


@given(st.data(), st.booleans())
def test_streams_of_a_secondary_are_valid_in_pieces(data, blobs):
    stream = data.draw(strategies.from_secondary(blobs=blobs, start=START))
    pieces = data.draw(strategies.pieces(stream))
    messages, error = outcome(PrimaryConnection(blobs=blobs), pieces)
    assert error is None
    assert [type(each) for each in messages[:2]] == [Hello, Start]
    assert messages[1].tid == START


@pytest.mark.parametrize("name", SPELLINGS)
def test_every_peer_occurs(name):
    begin, _, _ = SPELLINGS[name](("T", ())).partition(b")")
    search(
        strategies.from_primary(),
        lambda stream: any(payload.startswith(begin) for payload in split(stream)),
    )


def test_both_record_dialects_occur():
    inline = SPELLINGS["Python 3"](("C", ()))
    search(strategies.from_primary(), lambda stream: inline in split(stream))
    separate = SPELLINGS["Python 3"](("C", (bytes(16),)))[:10]
    search(
        strategies.from_primary(),
        lambda stream: any(
            payload.startswith(separate) and payload != inline for payload in split(stream)
        ),
    )


def test_blobs_occur():
    search(
        strategies.from_primary(),
        lambda stream: any(isinstance(each, BlobBlock) for each in read(stream).messages),
    )


@pytest.mark.parametrize("word", [b"zrs2.0", b"zrs2.1"])
def test_both_protocol_words_occur(word):
    search(strategies.from_secondary(blobs=False), lambda stream: word in stream)


def test_a_mutated_stream_is_refused_or_has_another_meaning():
    messages = [Transaction(TID), Store(bytes(8), TID, b"a record"), Commit()]
    mutated = strategies.mutated(st.just(b"".join(speaking().send_all(messages))))
    search(mutated, lambda stream: read(stream).error is not None)
    search(mutated, lambda stream: len(read(stream).messages) == 2)
    # A change in the record is accepted, since the checksum is made right.
    search(mutated, lambda stream: read(stream).error is None and len(read(stream).messages) == 3)
    search(mutated, lambda stream: read(stream) == ([messages[0], messages[2]], None))


@given(st.data())
def test_pieces_are_not_empty_and_make_the_whole(data):
    whole = data.draw(st.binary())
    pieces = data.draw(strategies.pieces(whole))
    assert b"".join(pieces) == whole
    assert all(pieces)
