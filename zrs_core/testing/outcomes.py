"""The outcome of a stream: what one end of a connection makes of bytes, however they come."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, TypeAlias

from ..codec import PrimaryConnection, SecondaryConnection
from ..errors import RemoteProtocolError
from ..messages import NO_TID, Commit, Hello, PrimaryMessage, Start
from .streams import framed

AnyConnection: TypeAlias = PrimaryConnection | SecondaryConnection


class Fault(Exception):
    """A fuzz target has found a bug."""


def check(condition: object, expected: str, *values: object) -> None:
    """Check that `condition` is true.

    :param expected: what has to be true, for the text of the error.
    :param values: more for that text.
    :raises Fault: `condition` is false.
    """
    if not condition:
        raise Fault("; ".join((expected, *map(repr, values))))


class Refusal(NamedTuple):
    """A `RemoteProtocolError` in a form that can be compared."""

    kind: type[RemoteProtocolError]
    text: str
    tid: bytes | None
    offset: int | None


class Outcome(NamedTuple):
    """The result of a stream: the messages in it, and the error that ended it, if any."""

    messages: list[Any]
    error: Refusal | None


def listening(
    protocol: str = "zrs2.1", start: bytes = NO_TID, **options: Any
) -> SecondaryConnection:
    """Return a secondary's end that has sent its greeting and listens.

    :param protocol: the protocol word, ``zrs2.1`` or ``zrs2.0``.
    :param start: the tid after which it has asked for transactions.
    :param options: those of `SecondaryConnection`.
    """
    connection = SecondaryConnection(**options)
    connection.send(Hello(protocol))
    connection.send(Start(start))
    return connection


def speaking(protocol: str = "zrs2.1", start: bytes = NO_TID, **options: Any) -> PrimaryConnection:
    """Return a primary's end that has received a greeting and may send transactions.

    :param protocol: the protocol word in the greeting, ``zrs2.1`` or ``zrs2.0``.
    :param start: the tid in the greeting.
    :param options: those of `PrimaryConnection`; ``blobs=False`` goes with ``zrs2.0``.
    """
    connection = PrimaryConnection(**options)
    connection.receive_data(framed(protocol.encode(), start))
    list(connection.messages())
    return connection


def committed(messages: Sequence[PrimaryMessage]) -> list[PrimaryMessage]:
    """Return the messages up to the last commit: those of whole transactions."""
    end = max((at for at, each in enumerate(messages, 1) if type(each) is Commit), default=0)
    return list(messages[:end])


def outcome(connection: AnyConnection, pieces: Iterable[bytes]) -> Outcome:
    """Feed a stream to one end of a connection, end it, and return all that comes out.

    :param connection: a new connection, see `listening`; ``PrimaryConnection()`` is the other end.
    :param pieces: the stream, cut at any places.
    :raises Fault: the connection reads on after an error, or keeps bytes then.
    """
    messages: list[Any] = []
    for piece in pieces:
        connection.receive_data(piece)
        if not take(connection, messages):
            break
    else:
        connection.receive_eof()
        take(connection, messages)
    error = connection.error
    check(connection.at_eof is (error is None), "a stream ends well or with an error")
    if error is None:
        return Outcome(messages, None)
    _check_that_it_stays(connection, error)
    return Outcome(messages, Refusal(type(error), str(error), error.tid, error.offset))


def take(connection: AnyConnection, messages: list[Any]) -> bool:
    """Add the messages that are complete to `messages`; return False after an error.

    :raises Fault: the error is not kept in the connection.
    """
    try:
        messages.extend(connection.messages())
    except RemoteProtocolError as error:
        check(connection.error is error, "the error is kept")
        return False
    return True


def _check_that_it_stays(connection: AnyConnection, error: RemoteProtocolError) -> None:
    if not connection._eof:
        connection.receive_data(b"\0\0\0\0 and more")
    check(connection._frames.waiting == 0, "nothing is kept after an error")
    try:
        connection.next_message()
    except RemoteProtocolError as again:
        check(again is error, "the first error stays")
    else:
        raise Fault("nothing is read after an error")


def in_pieces(stream: bytes, seed: int) -> list[bytes]:
    """Return `stream` cut at random places, or byte by byte if it is short.

    :param seed: decides the places. 0 cuts up to 4,096 bytes into single bytes.
    """
    if len(stream) <= 64 or (seed == 0 and len(stream) <= 4096):
        return [stream[at : at + 1] for at in range(len(stream))]
    chance = random.Random(seed)  # noqa: S311
    pieces = []
    begin = 0
    while begin < len(stream):
        end = begin + chance.choice((1, 3, 4, 5, 30, 400, 70_000))
        pieces.append(stream[begin:end])
        begin = end
    return pieces


def compare(connect: Callable[[], AnyConnection], stream: bytes, seed: int) -> Outcome:
    """Return the outcome of a stream that comes whole, and check that pieces give the same.

    :param connect: makes a new connection, as for `outcome`.
    :param seed: as for `in_pieces`.
    :raises Fault: the outcomes differ.
    """
    whole = outcome(connect(), [stream])
    pieces = outcome(connect(), in_pieces(stream, seed))
    check(whole == pieces, "a stream gives the same whole and in pieces", whole, pieces)
    return whole
