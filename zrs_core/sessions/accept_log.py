"""The log of connections that a listener could not accept or serve."""

from __future__ import annotations

import logging

from ..addresses import Address
from ..logs import event
from ..refusals import RepeatLog

log = logging.getLogger("zrs_core.transport")

# Seconds after which a failure is news again.
_MEMORY = 60.0


class AcceptLog:
    """Logs failures of a listener: the same one at its level once a minute, else at DEBUG."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._failures = RepeatLog(_MEMORY)

    def accept_failed(self, error: Exception, now: float) -> None:
        """A connection could not be accepted."""
        level = self._failures.level(f"accept: {error}", now)
        fields = event("cannot-accept", address=self._address, reason=error)
        log.log(level, "%s: cannot accept a connection: %s", self._address, error, extra=fields)

    def serve_failed(self, error: Exception, now: float) -> None:
        """A connection was accepted and cannot be served."""
        level = self._failures.level(f"serve: {error}", now)
        fields = event("cannot-serve", address=self._address, reason=error)
        log.log(level, "%s: cannot serve a connection: %s", self._address, error, extra=fields)
