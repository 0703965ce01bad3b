"""What the two ends of a connection share: bytes in, messages out, the end, errors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Generic, TypeVar

from ..errors import LocalProtocolError, RemoteProtocolError, TruncatedStream
from .framing import FrameReader
from .machine import Machine

Received = TypeVar("Received")


class Connection(ABC, Generic[Received]):
    """One end of a connection. Not thread-safe: one caller at a time.

    Feed what the peer sent with `receive_data`, and `receive_eof` when it is done; take what it
    said from `messages` (or `next_message`). However the bytes are cut into calls, the messages
    are the same. The first thing the peer does wrong raises `RemoteProtocolError` where the
    messages before it have been taken, and again at every later try: from then on all that is fed
    is discarded, and the cause stays in `error`. No input raises anything else.

    Memory grows with what was fed and not taken, never with what a peer has only announced.
    """

    def __init__(self) -> None:
        #: What the peer did wrong, None while it has done nothing wrong.
        self.error: RemoteProtocolError | None = None
        self._eof = False
        self._finished = False
        self._frames = FrameReader()
        self._machine = Machine()

    def receive_data(self, data: bytes) -> None:
        """Feed bytes that came from the peer, any number of them.

        :raises LocalProtocolError: `receive_eof` was called before.
        """
        if self._eof:
            raise LocalProtocolError("data after the end of the stream")
        if self.error is None:
            self._frames.feed(data)

    def receive_eof(self) -> None:
        """The peer will send no more. May be called again."""
        self._eof = True

    def messages(self) -> Iterator[Received]:
        """The messages that are complete, each once.

        :raises RemoteProtocolError: the peer broke the protocol, or ended in the midst of
            something (`TruncatedStream`).
        """
        while (message := self.next_message()) is not None:
            yield message

    def next_message(self) -> Received | None:
        """The next message, or None if it is not complete (or, after the end, if all is read).

        :raises RemoteProtocolError: as `messages`.
        """
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
        """Whether the peer's stream has ended and all of it was read without an error."""
        return self._finished

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
