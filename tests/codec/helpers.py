"""What the tests of the codec share: streams, the two ends, peers' spellings of pickles."""

import contextlib
import io
import itertools
import pathlib
import pickle
import struct
import sys

import pytest

import zrs_core
from zrs_core.codec import PrimaryConnection, SecondaryConnection
from zrs_core.errors import RemoteProtocolError
from zrs_core.messages import NO_TID, Hello, Start

TID = b"\x03tid-one"
TID_2 = b"\x03tid-two"
OID = b"oid-one!"
OID_2 = b"oid-two!"


def framed(*payloads):
    return b"".join(struct.pack(">I", len(payload)) + payload for payload in payloads)


def secondary(word="zrs2.1", start=NO_TID, **options):
    """A secondary's end that has said hello and listens."""
    connection = SecondaryConnection(**options)
    connection.send(Hello(word))
    connection.send(Start(start))
    return connection


def primary(word="zrs2.1", start=NO_TID, **options):
    """A primary's end that has heard a hello and may speak."""
    connection = PrimaryConnection(**options)
    connection.receive_data(framed(word.encode(), start))
    heard = list(connection.messages())
    assert heard == [Hello(word), Start(start)]
    return connection


def encode(messages, connection=None):
    """The stream of a primary's messages."""
    connection = connection or primary()
    return b"".join(connection.send(message) for message in messages)


def pieces(data, cuts):
    """`data` cut at the offsets `cuts`."""
    edges = [0, *sorted(cuts), len(data)]
    return [data[begin:end] for begin, end in itertools.pairwise(edges)]


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


def fast_pickle(value, protocol=1):
    """A pickle without a memo: with protocol 1 what Python 3 peers write."""
    buffer = io.BytesIO()
    pickler = pickle.Pickler(buffer, protocol)
    pickler.fast = True
    pickler.dump(value)
    return buffer.getvalue()


def python2_pickle(value, *, memo=False):
    """A pickle as Python 2 peers write it: bytes are its `str`, integers its `long`.

    With `memo`, texts and containers are stored, and equal texts are fetched, as cPickle does
    with equal objects.
    """
    stored = {}

    def put(opcodes, key=None):
        if not memo:
            return opcodes
        index = len(stored) + 1
        stored[key if key is not None else index] = index
        return opcodes + b"q" + bytes((index,))

    def write(value):
        if value is None:
            return b"N"
        if isinstance(value, bool):
            return b"I01\n" if value else b"I00\n"
        if isinstance(value, float):
            return b"G" + struct.pack(">d", value)
        if isinstance(value, int):
            return b"L%dL\n" % value
        if isinstance(value, bytes):
            if value in stored:
                return b"h" + bytes((stored[value],))
            if len(value) < 256:
                return put(b"U" + bytes((len(value),)) + value, value)
            return put(b"T" + struct.pack("<i", len(value)) + value, value)
        if isinstance(value, tuple):
            if not value:
                return b")"
            return put(b"(" + b"".join(map(write, value)) + b"t")
        if isinstance(value, list):
            return put(b"]") + b"(" + b"".join(map(write, value)) + b"e"
        opcodes = put(b"}")
        if value:
            items = b"".join(write(key) + write(item) for key, item in value.items())
            opcodes += b"(" + items + b"u"
        return opcodes

    return write(value) + b"."


def in_python_2(value):
    """`value` as Python 2 has it: its texts are bytes."""
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, (tuple, list)):
        return type(value)(map(in_python_2, value))
    if isinstance(value, dict):
        return {in_python_2(key): in_python_2(item) for key, item in value.items()}
    return value
