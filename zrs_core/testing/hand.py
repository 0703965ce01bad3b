"""A driver whose network and clock a test moves by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..actions import Work
from ..interfaces import ISession
from ..transports.driver import Driver


class HandDriver(Driver):
    """Drives a session with no network. Work is done at once.

    :param make: makes the session, given the time and a function that has `wake` called.
    :param now: the time at the beginning, in seconds.
    :param accepts: True if the network accepts at once what is sent.
    """

    def __init__(
        self,
        make: Callable[[float, Callable[[], None]], ISession],
        now: float = 0.0,
        *,
        accepts: bool = True,
    ) -> None:
        self.now = now
        self.accepts = accepts
        #: Bytes that the network has accepted and nobody has taken.
        self.output = bytearray()
        #: Bytes that were sent and that the network has not accepted.
        self.unsent = bytearray()
        self.half_closed = False
        #: The reason for the end of the connection; None while there is one.
        self.end: str | None = None
        #: True if the connection was aborted.
        self.aborted = False
        self._woken = False
        super().__init__(make(now, self._notify))
        self.act()

    def receive(self, data: bytes) -> None:
        """Have bytes come from the peer."""
        self.session.receive_data(data, self.now)
        self.act()

    def receive_eof(self) -> None:
        """Have the peer send nothing more."""
        self.session.receive_eof(self.now)
        self.act()

    def lose(self, reason: str = "the connection was lost") -> None:
        """Lose the connection."""
        self._lost(reason)
        self.act()

    def stop(self, timeout: float = 0.0) -> None:
        """Have the session end the connection."""
        self.session.stop(self.now, timeout)
        self.act()

    def accept(self, size: int | None = None) -> None:
        """Have the network accept `size` bytes of what was sent, all by default."""
        taken = self.unsent[:size]
        del self.unsent[: len(taken)]
        self.output += taken
        self.session.sent(len(taken), self.now)
        self.act()

    def advance(self, seconds: float) -> None:
        """Let time pass; each deadline is handled at its time."""
        until = self.now + seconds
        while (due := self.session.next_deadline()) is not None and due <= until:
            self.now = max(self.now, due)
            self.session.handle_timeout(self.now)
            self.act()
        self.now = until

    def take(self) -> bytes:
        """Return what the network has accepted since the last call."""
        taken = bytes(self.output)
        self.output.clear()
        return taken

    def send(self, chunks: Sequence[bytes]) -> None:
        """Send bytes."""
        self.unsent += b"".join(chunks)
        if self.accepts:
            self.accept()

    def work(self, work: Work) -> None:
        """Do work at once."""
        try:
            result = work.call()
        except BaseException as error:  # noqa: BLE001
            self.session.failed(error, self.now)
        else:
            self.session.done(result, self.now)

    def half_close(self) -> None:
        """Note that nothing follows."""
        self.half_closed = True

    def close(self, reason: str) -> None:
        """Close the connection."""
        self._lost(reason)

    def abort(self, reason: str) -> None:
        """Drop the connection."""
        self.aborted = True
        self._lost(reason)

    def settle(self) -> None:
        """Wake the session, if that was asked for."""
        if self._woken:
            self._woken = False
            self.session.wake(self.now)
            self.act()

    def _lost(self, reason: str) -> None:
        if self.end is None:
            self.end = reason
            self.unsent.clear()
            self.session.lost(reason, self.now)

    def _notify(self) -> None:
        self._woken = True
        if not self._acting:
            self.settle()
