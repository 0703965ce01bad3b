"""What the sessions of one primary share."""

from __future__ import annotations

import logging

from ..addresses import Address
from ..interfaces import ITransactionSource
from ..logs import Once, event
from ..options import ServiceOptions
from ..refusals import RefusalLog, RepeatLog
from ..status.peers import Peers
from .times import PrimaryTimes

log = logging.getLogger("zrs_core.primary")

# Seconds after which a failure to send is news again. Secondaries try more often.
_FAILURE_MEMORY = 600.0


class Serving:
    """The source of a primary, its settings, and the notes on all its connections. Thread-safe.

    :param times: seconds that no option sets.
    """

    def __init__(
        self,
        source: ITransactionSource,
        address: Address,
        options: ServiceOptions | None = None,
        times: PrimaryTimes | None = None,
    ) -> None:
        options = options or ServiceOptions()
        self.source = source
        self.address = address
        self.times = times or PrimaryTimes()
        self.pickle_protocol = options.pickle_protocol
        self.tls = options.tls
        self.peer_timeout = options.peer_timeout
        self.socket_mode = options.socket_mode
        self.max_peers = options.max_peers
        self.handshake_timeout = options.handshake_timeout
        self.write_timeout = options.write_timeout
        self.require_tls = options.require_tls
        #: What is noted of connections, for people to read.
        self.peers = Peers()
        #: What all sessions log once.
        self.once = Once()
        self._refusals = RefusalLog(log)
        self._failures = RepeatLog(_FAILURE_MEMORY)

    def refused(self, peer: str, reason: str, now: float) -> None:
        """Note and log that a peer is refused that has no session, or has not greeted in time."""
        self.peers.refused(reason, peer)
        if self.is_news(peer, reason, now):
            fields = event("refused", peer=peer, reason=reason)
            log.error("%s: refused (%s)", peer, reason, extra=fields)

    def is_news(self, peer: str, reason: str, now: float) -> bool:
        """Return True if a refusal is to be logged; otherwise it is counted."""
        return self._refusals.is_news(peer, reason, now)

    @property
    def is_quiet(self) -> bool:
        """True while there were more refusals in this minute than are logged."""
        return self._refusals.quiet

    def failure_level(self, reason: str, now: float) -> int:
        """Return the level at which to log that a session cannot go on sending."""
        return self._failures.level(reason, now)
