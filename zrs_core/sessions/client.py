"""The policy of a connector, and a session for each of its connections."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from zope.interface import implementer

from ..interfaces import IReplicationClient, ISession
from .following import Following
from .probe import ProbeSession
from .secondary import SecondarySession
from .tls import ClientLayer


@implementer(IReplicationClient)
class ReplicationClient(Following):
    """What a connector connects for.

    The parameters are those of `Following`.
    """

    def session(
        self,
        now: float,
        notify: Callable[[], None],
        local_address: str | None = None,
        readable: Callable[[], bool] = lambda: False,
    ) -> ISession:
        make = partial(self._open, local_address, readable)
        return make(now) if self.tls is None else ClientLayer(self, now, make)

    def _open(
        self, local_address: str | None, readable: Callable[[], bool], now: float
    ) -> ProbeSession | SecondarySession:
        self.connected(local_address)
        search = self.current_search
        if search is not None and self.progress.stopped is None:
            return ProbeSession(self, search, str(self.address), now)
        return SecondarySession(self, str(self.address), now, readable)
