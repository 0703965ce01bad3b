"""Why a listener leaves a peer by itself, for the log: what every transport says alike."""

from __future__ import annotations

from ..interfaces import IReplicationService


def too_many(service: IReplicationService) -> str:
    """A connection beyond `max_peers`."""
    return f"there are {service.max_peers} connections already, and max_peers allows no more"


def too_late(service: IReplicationService) -> str:
    """No session that has started within `handshake_timeout`."""
    return f"it sent no valid greeting within {service.handshake_timeout:g} seconds"


def does_not_take(service: IReplicationService) -> str:
    """A peer that has taken nothing for `write_timeout`."""
    return f"it took nothing of what it was sent for {service.write_timeout:g} seconds"
