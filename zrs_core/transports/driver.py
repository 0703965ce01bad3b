"""The part of a driver that all transports have in common: carrying out a session's actions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

from ..actions import Abort, Close, HalfClose, Send, Work
from ..interfaces import IReplicationService, ISession

#: Seconds after which a listener asks its service again for a deadline, which may have appeared.
LISTENER_WAIT = 2.0


def check_service(service: IReplicationService, now: float) -> float:
    """Have a service do what is due; return the seconds after which to call this again."""
    deadline = service.next_deadline()
    if deadline is not None and deadline <= now:
        service.handle_timeout(now)
        deadline = service.next_deadline()
    return LISTENER_WAIT if deadline is None else min(max(deadline - now, 0.0), LISTENER_WAIT)


class Driver(ABC):
    """Carries out the actions of the session of one connection.

    A subclass calls `act` after each input. All calls are made in one thread at a time.

    :param session: the session, of which this is the only driver.
    """

    def __init__(self, session: ISession) -> None:
        self.session = session
        self._acting = False

    def act(self) -> None:
        """Carry out the actions of the session until there are none, then call `settle`.

        May be called by what it calls itself; then the outer call goes on.
        """
        if self._acting:
            return
        self._acting = True
        try:
            while (action := self.session.next_action()) is not None:
                match action:
                    case Send(chunks=chunks):
                        self.send(chunks)
                    case Work():
                        self.work(action)
                    case HalfClose():
                        self.half_close()
                    case Close(reason=reason):
                        self.close(reason)
                    case Abort(reason=reason):
                        self.abort(reason)
        finally:
            self._acting = False
        self.settle()

    def outcome(self, work: Work) -> tuple[Callable[[Any, float], None], Any]:
        """Call `work.call`; return the input that reports its outcome, and the outcome.

        For the thread that does the work; the input is called as all others are.
        """
        try:
            return self.session.done, work.call()
        except BaseException as error:  # noqa: BLE001
            return self.session.failed, error

    @abstractmethod
    def send(self, chunks: Sequence[bytes]) -> None:
        """Send bytes, and report with `session.sent` when the network has accepted them."""

    @abstractmethod
    def work(self, work: Work) -> None:
        """Do the work, here or in another thread, and report its `outcome`."""

    @abstractmethod
    def half_close(self) -> None:
        """Tell the peer that nothing follows."""

    @abstractmethod
    def close(self, reason: str) -> None:
        """Close the connection, and call `session.lost` with the reason."""

    @abstractmethod
    def abort(self, reason: str) -> None:
        """Drop the connection with what is on its way, and call `session.lost` with the reason."""

    def settle(self) -> None:  # noqa: B027
        """Do what follows from the state of the session: read or not, set the timer, forget it."""
