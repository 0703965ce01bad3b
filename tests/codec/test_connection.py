import traceback

import pytest

from zrs_core.codec.connection import CONNECTION_CLOSED, NEED_DATA, Connection
from zrs_core.codec.machine import State
from zrs_core.codec.primary import PrimaryConnection
from zrs_core.codec.secondary import SecondaryConnection
from zrs_core.errors import LocalProtocolError, RemoteProtocolError, TruncatedStream
from zrs_core.messages import (
    NO_TID,
    BlobBlock,
    Commit,
    Hello,
    KeepAlive,
    Start,
    Store,
    StoreBlob,
    Transaction,
)

from .helpers import (
    OID,
    TID,
    bytewise,
    encode,
    framed,
    outcome,
    primary,
    refuse,
    secondary,
    take_all,
)

BLOCKS = [BlobBlock(b"x" * 65536), BlobBlock(b"end")]
MESSAGES = [
    Transaction(TID, "p", b"user", b"text"),
    Store(OID, TID, b"data"),
    StoreBlob(OID, TID, b"data", None, 2),
    *BLOCKS,
    Commit(),
]
STREAM = encode(MESSAGES)
END = (MESSAGES, None)


def test_a_connection_is_one_end_or_the_other():
    with pytest.raises(TypeError, match="abstract"):
        Connection()


def test_messages_are_taken_one_by_one_or_all_at_once():
    connection = secondary()
    connection.receive_data(STREAM)
    assert connection.next_message() == MESSAGES[0]
    assert list(connection.messages()) == MESSAGES[1:]
    assert connection.next_message() is NEED_DATA
    assert list(connection.messages()) == []


def test_the_reasons_for_no_message_are_named():
    connection = secondary()
    assert repr(connection.next_message()) == "NEED_DATA"
    connection.receive_eof()
    assert repr(connection.next_message()) == "CONNECTION_CLOSED"


def test_no_bytes_are_neither_an_end_nor_a_message():
    connection = primary()
    for piece in (b"", *bytewise(framed(b"")), b""):
        connection.receive_data(piece)
        connection.receive_data(b"")
    assert list(connection.messages()) == [KeepAlive()]
    connection.receive_data(b"")
    assert connection.next_message() is NEED_DATA
    assert not connection.at_eof


def test_each_end_knows_the_state_of_the_other():
    ours, theirs = SecondaryConnection(), PrimaryConnection()
    assert (ours.our_state, ours.their_state) == (State.EXPECT_HELLO, State.SILENT)
    for message, state in (
        (Hello("zrs2.1"), State.EXPECT_START),
        (Start(NO_TID), State.LISTENING),
        (KeepAlive(), State.LISTENING),
    ):
        theirs.receive_data(ours.send(message))
        assert theirs.next_message() == message
        assert ours.our_state is theirs.their_state is state
        assert ours.their_state is theirs.our_state
    assert ours.their_state is State.BETWEEN_TRANSACTIONS


def test_their_state_is_closed_after_the_end():
    connection = primary()
    connection.receive_eof()
    assert connection.their_state is State.LISTENING
    assert list(connection.messages()) == []
    assert connection.their_state is State.CLOSED
    assert connection.our_state is State.BETWEEN_TRANSACTIONS


def test_their_state_is_in_error_after_an_error_and_ours_goes_on():
    connection = primary()
    connection.receive_data(framed(b"no sign of life"))
    assert connection.their_state is State.LISTENING
    assert take_all(connection) == []
    assert connection.their_state is State.ERROR
    connection.send(Transaction(TID))
    assert connection.our_state is State.IN_TRANSACTION


def test_messages_are_the_same_however_their_bytes_arrive():
    assert outcome(secondary(), [STREAM]) == END
    assert outcome(secondary(), [b"", STREAM, b""]) == END
    small = encode([Transaction(TID), Store(OID, TID, b"data"), Commit()])
    assert outcome(secondary(), bytewise(small)) == outcome(secondary(), [small])


def test_bytes_may_come_in_any_buffer():
    connection = secondary()
    connection.receive_data(bytearray(STREAM[:50]))
    connection.receive_data(memoryview(STREAM)[50:])
    assert list(connection.messages()) == MESSAGES


@pytest.mark.parametrize("fed", [0, 2, 100])
@pytest.mark.parametrize("data", [None, 5, "text"])
def test_data_of_another_type_have_no_effect(fed, data):
    connection = secondary()
    for piece in bytewise(STREAM[:fed]):
        connection.receive_data(piece)
    with pytest.raises(TypeError):
        connection.receive_data(data)
    connection.receive_data(STREAM[fed:])
    assert list(connection.messages()) == MESSAGES


def test_the_end_after_all_is_read_is_an_end_without_error():
    connection = primary()
    assert not connection.at_eof
    connection.receive_data(framed(b""))
    connection.receive_eof()
    assert not connection.at_eof
    assert connection.next_message() == KeepAlive()
    assert not connection.at_eof
    assert connection.next_message() is CONNECTION_CLOSED
    assert connection.at_eof
    connection.receive_eof()
    assert connection.next_message() is CONNECTION_CLOSED
    assert connection.at_eof


def test_nothing_may_be_fed_after_the_end():
    connection = secondary()
    connection.receive_data(STREAM)
    connection.receive_eof()
    with pytest.raises(LocalProtocolError) as caught:
        connection.receive_data(b"x")
    assert str(caught.value) == "data after the end of the stream"
    assert list(connection.messages()) == MESSAGES
    assert connection.at_eof


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        (b"\0", "the stream ended 1 bytes into a message, length prefix included"),
        (b"\0\0\0\1", "the stream ended 4 bytes into a message of 1 bytes, length prefix included"),
        (framed(b"bytes")[:-1], "the stream ended 8 bytes into a message of 5 bytes, length"),
    ],
)
def test_an_end_within_a_message_is_an_error(end, reason):
    connection = primary()
    messages, error = refuse(connection, framed(b"") + end, eof=True)
    assert messages == [KeepAlive()]
    assert type(error) is TruncatedStream
    assert error.reason.startswith(reason)
    assert (error.offset, error.tid) == (len(framed(b"zrs2.1", NO_TID, b"")), None)


def test_an_error_comes_after_the_messages_before_it_and_stays():
    connection = secondary()
    bad = framed(b"no pickle")
    messages, error = refuse(connection, STREAM + bad + STREAM)
    assert messages == MESSAGES
    assert type(error) is RemoteProtocolError
    assert connection.error is error
    assert error.reason == "bad pickle: opcode 0x6e is unknown or not allowed"
    assert (error.offset, error.tid) == (len(STREAM), None)
    assert isinstance(error.__cause__, ValueError)


def test_the_traceback_of_an_error_does_not_grow():
    connection = secondary()
    connection.receive_data(framed(b"no pickle"))
    connection.receive_eof()
    depths = []
    for _ in range(4):
        assert take_all(connection) == []
        depths.append(len([*traceback.walk_tb(connection.error.__traceback__)]))
    assert len({*depths[1:]}) == 1


def test_an_error_names_the_transaction_under_way():
    start = framed(*STREAM_PAYLOADS[:3])
    messages, error = refuse(secondary(), start + framed(b"no pickle"))
    assert messages == MESSAGES[:2]
    assert (error.offset, error.tid) == (len(start), TID)


def payloads(stream):
    while stream:
        end = 4 + int.from_bytes(stream[:4], "big")
        yield stream[4:end]
        stream = stream[end:]


STREAM_PAYLOADS = list(payloads(STREAM))


def test_an_error_stands_at_the_same_place_however_its_bytes_arrive():
    limited = framed(*STREAM_PAYLOADS[:2]) + framed(b"x" * 11)
    wholes = outcome(secondary(max_record_size=10), [limited])
    assert wholes == outcome(secondary(max_record_size=10), bytewise(limited))
    offset = len(framed(*STREAM_PAYLOADS[:2]))
    assert wholes[1][3] == offset


def test_what_is_fed_after_an_error_is_discarded():
    connection = secondary()
    connection.receive_data(framed(b"no pickle"))
    assert take_all(connection) == []
    connection.receive_data(STREAM)
    assert connection._frames.waiting == 0
    assert take_all(connection) == []
