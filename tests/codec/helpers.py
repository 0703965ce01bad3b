"""What the tests of the codec share: streams, the two ends, peers' spellings of pickles."""

import contextlib
import pathlib
import sys

import pytest

import zrs_core
from zrs_core.errors import RemoteProtocolError
from zrs_core.testing import outcomes, peer_pickles, streams

TID = b"\x03tid-one"
TID_2 = b"\x03tid-two"
OID = b"oid-one!"
OID_2 = b"oid-two!"


fast_pickle = peer_pickles.fast_pickle
framed = streams.framed
in_python_2 = peer_pickles.in_python_2
pieces = streams.pieces
primary = outcomes.speaking
python2_pickle = peer_pickles.python2_pickle
secondary = outcomes.listening


def encode(messages, connection=None):
    """The stream of a primary's messages."""
    connection = connection or primary()
    return b"".join(connection.send(message) for message in messages)


def bytewise(data):
    return [data[i : i + 1] for i in range(len(data))]


def outcome(connection, pieces):
    """All that can be seen of a stream fed in pieces: to compare two ways of feeding it."""
    messages = []
    for piece in pieces:
        connection.receive_data(piece)
        messages += take_all(connection)
    connection.receive_eof()
    messages += take_all(connection)
    error = connection.error
    return messages, error and (type(error), str(error), error.tid, error.offset)


def take_all(connection):
    """The messages that are complete; an error after them stays in `connection.error`."""
    messages = []
    with contextlib.suppress(RemoteProtocolError):
        for message in connection.messages():
            messages.append(message)
    return messages


def refuse(connection, stream, *, eof=False):
    """The messages before the error and the error, which sticks and stops all reading."""
    connection.receive_data(stream)
    if eof:
        connection.receive_eof()
    messages = take_all(connection)
    error = connection.error
    assert isinstance(error, RemoteProtocolError)
    if not eof:
        connection.receive_data(b"\0" * 1000)
        connection.receive_eof()
    with pytest.raises(RemoteProtocolError) as again:
        connection.next_message()
    assert again.value is error
    assert connection._frames.waiting == 0
    assert not connection.at_eof
    return messages, error


PACKAGE = str(pathlib.Path(zrs_core.__file__).parent)


def interleavings(prepare):
    """Call an operation with another one before each of its lines, as a second thread may.

    :param prepare: returns a new pair of operations.
    :returns: how often the second one came before the end of the first.
    """
    number = 0
    while _interleave(*prepare(), number):
        number += 1
    return number


def _interleave(operation, other, number):
    """Call `other` before the line `number` of `operation`; return False if it has fewer."""
    left = number

    def trace(frame, kind, _):
        nonlocal left
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        if kind == "line":
            if left == 0:
                other()
            left -= 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        operation()
    finally:
        sys.settrace(before)
    return left < 0
