"""What the two ends of a connection share: bytes in, messages out, the end, errors."""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import ClassVar, Final, Generic, TypeVar

from ..errors import LocalProtocolError, RemoteProtocolError, TruncatedStream
from .framing import FrameReader
from .machine import Machine, Role, State

Received = TypeVar("Received")


class NoMessage(enum.Enum):
    """The reason why `Connection.next_message` has no message to return."""

    #: The next message is not complete: feed more with `receive_data`, or call `receive_eof`.
    NEED_DATA = enum.auto()
    #: The peer's stream has ended between two messages, and every message was returned.
    CONNECTION_CLOSED = enum.auto()

    def __repr__(self) -> str:
        return self.name


NEED_DATA: Final = NoMessage.NEED_DATA
CONNECTION_CLOSED: Final = NoMessage.CONNECTION_CLOSED


class Connection(ABC, Generic[Received]):
    """One end of a connection.

    Feed the bytes of the peer with `receive_data`, and call `receive_eof` when the peer sends no
    more. Read the peer's messages with `next_message` or `messages`. The messages do not depend on
    how the bytes are divided into calls.

    The first violation of the protocol by the peer raises `RemoteProtocolError`, after the messages
    that precede it were returned. Each later read raises the same error, and later input is
    discarded. `error` keeps it. No input raises anything else. A mistake of the caller raises
    `LocalProtocolError` and has no effect. Both directions are independent: after a
    `RemoteProtocolError` messages can still be sent.

    Memory grows with the bytes that were fed and not read, never with a length that the peer only
    announces.

    Thread-safety: one thread may receive (`receive_data`, `receive_eof`, `next_message`,
    `messages`, and all attributes but `our_state`) while another thread sends (the `send` methods
    and `our_state`). Two threads must not receive at the same time, nor send at the same time.
    """

    _our_role: ClassVar[Role]
    _their_role: ClassVar[Role]

    def __init__(self) -> None:
        #: The first violation of the protocol by the peer, or None.
        self.error: RemoteProtocolError | None = None
        self._eof = False
        self._finished = False
        self._frames = FrameReader()
        self._machine = Machine()

    def receive_data(self, data: bytes) -> None:
        """Feed bytes from the peer, any number of them; `b""` has no effect.

        :param data: `bytes`, `bytearray` or `memoryview`; it is copied unless it is `bytes`.
        :raises LocalProtocolError: `receive_eof` was called before.
        :raises TypeError: `data` is not bytes, but a `str`, say. The call has no effect.
        """
        if self._eof:
            raise LocalProtocolError("data after the end of the stream")
        if self.error is None:
            self._frames.feed(data)

    def receive_eof(self) -> None:
        """Record that the peer sends no more. Later calls have no effect."""
        self._eof = True

    def messages(self) -> Iterator[Received]:
        """Iterate over the messages that are complete, each once.

        It is faster than `next_message`. The iterator ends where `next_message` would return
        `NEED_DATA` or `CONNECTION_CLOSED`; `at_eof` distinguishes the two.

        :raises RemoteProtocolError: as `next_message`.
        """
        while (message := self._next()) is not None:
            yield message

    def next_message(self) -> Received | NoMessage:
        """Return the next message, `NEED_DATA` or `CONNECTION_CLOSED`.

        :raises RemoteProtocolError: the peer broke the protocol, or its stream ended in the middle
            of a message or a transaction (`TruncatedStream`).
        """
        message = self._next()
        if message is None:
            return CONNECTION_CLOSED if self._finished else NEED_DATA
        return message

    def _next(self) -> Received | None:
        if self.error is not None:
            # As new: a traceback that grew with each try would keep what it refers to.
            raise self.error.with_traceback(None)
        try:
            message = self._read_message()
            if message is None and self._eof:
                self._check_end()
                self._finished = True
        except RemoteProtocolError as error:
            error.offset = self._frames.offset
            error.tid = self._machine.tid
            self.error = error
            self._frames.discard()
            raise
        return message

    @property
    def at_eof(self) -> bool:
        """True if the peer's stream has ended and all of it was read without an error."""
        return self._finished

    @property
    def our_state(self) -> State:
        """The state of the direction in which this end sends, after the messages sent so far."""
        return self._machine.state(self._our_role)

    @property
    def their_state(self) -> State:
        """The state of the direction in which the peer sends, after the messages read so far.

        It is `State.ERROR` after a `RemoteProtocolError`, and `State.CLOSED` once the end of the
        stream was read.
        """
        if self.error is not None:
            return State.ERROR
        if self._finished:
            return State.CLOSED
        return self._machine.state(self._their_role)

    @abstractmethod
    def _read_message(self) -> Received | None:
        """The next message from `_frames`; only errors of the peer may come out of it."""

    def _check_end(self) -> None:
        """The stream has ended, with nothing complete left: was it in the midst of something?"""
        waiting = self._frames.waiting
        if waiting:
            announced = self._frames.announced()
            whole = "a message" if announced is None else f"a message of {announced} bytes"
            raise TruncatedStream(
                f"the stream ended {waiting} bytes into {whole}, length prefix included"
            )
