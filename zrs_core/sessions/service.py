"""The policy of a listener: who may connect, and what the log says about the others."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

from zope.interface import implementer

from ..addresses import Address
from ..interfaces import IReplicationService, ISession, ITransactionSource
from ..logs import event
from ..options import ServiceOptions
from .accept_log import AcceptLog
from .primary import PrimarySession
from .serving import Serving
from .times import PrimaryTimes
from .tls import ServerLayer

log = logging.getLogger("zrs_core.primary")


@implementer(IReplicationService)
class ReplicationService(Serving):
    """What a listener serves.

    :param check: called every `times.check` seconds by the listener. It must not wait.
    :param times: seconds that no option sets.
    """

    def __init__(
        self,
        source: ITransactionSource,
        address: Address,
        reactor: object = None,
        options: ServiceOptions | None = None,
        check: Callable[[], object] = lambda: None,
        times: PrimaryTimes | None = None,
    ) -> None:
        super().__init__(source, address, options, times)
        self.reactor = reactor
        self._check = check
        self._accept_log = AcceptLog(address)
        self._open: set[ISession] = set()
        self._check_at: float | None = None

    def start(self, now: float) -> None:
        self._check_at = now + self.times.check

    def accept(self, peer: str, now: float, notify: Callable[[], None]) -> ISession | None:
        self._forget_those_over()
        if len(self._open) >= self.max_peers:
            limit = self.max_peers
            reason = f"there are {limit} connections already, and max_peers allows no more"
            self.refused(peer, reason, now)
            return None
        make = partial(PrimarySession, self, peer, notify=notify)
        session: ISession
        session = make(now) if self.tls is None else ServerLayer(self, peer, now, make)
        self._open.add(session)
        return session

    def accept_failed(self, error: Exception, now: float) -> None:
        self._accept_log.accept_failed(error, now)

    def serve_failed(self, error: Exception, now: float) -> None:
        self._accept_log.serve_failed(error, now)

    def next_deadline(self) -> float | None:
        times = [each for each in (self._check_at, self._refusals.due) if each is not None]
        return min(times, default=None)

    def _forget_those_over(self) -> None:
        self._open = {each for each in self._open if not each.over}

    def handle_timeout(self, now: float) -> None:
        self._forget_those_over()
        self._refusals.handle_timeout(now)
        if self._check_at is not None and now >= self._check_at:
            self._check_at = now + self.times.check
            try:
                self._check()
            except Exception:
                # The listener goes on.
                fields = event("cannot-check", address=self.address)
                log.exception("%s: cannot check the storage", self.address, extra=fields)

    def stop(self, now: float) -> None:
        self._check_at = None
        self._refusals.summarize()
