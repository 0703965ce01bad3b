"""What the statuses of nodes mean: which is in trouble, and which is how far behind which."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypedDict

from ..progress import State
from .document import PeerStatus, Position, PrimaryStatus, SecondaryStatus, Status

#: States in which a secondary does not follow its primary, and will not without help.
FAILED = frozenset({State.FAILING, State.REFUSED, State.DIVERGED, State.STOPPED})


def position_of(status: Status) -> Position | None:
    """The last transaction that a node holds, None for none."""
    part = status["secondary"] or status["primary"]
    return part["position"] if part else None


def failure_of(status: Status) -> str | None:
    """Why a secondary does not follow its primary, in words; None if it does, or may soon."""
    part = status["secondary"]
    if part is None or part["state"] not in FAILED:
        return None
    error = part["last_error"]
    return part["state"] + (f": {error['message']}" if error else "")


def trouble_of(status: Status) -> str | None:
    """Why a node is not in sync, in words; None if it is."""
    failure = failure_of(status)
    if failure is None and not status["ready"]:
        return f"not ready: {status['ready_reason']}"
    return failure


class Distance(TypedDict):
    """How far a secondary's position is behind that of the primary that it follows.

    In time between the two transactions, which is None where one of them has none; and in
    transactions, None where the two do not tell of the same connection.
    """

    primary: str
    secondary: str
    seconds: float | None
    transactions: int | None


def distances(nodes: Mapping[str, Status]) -> list[Distance]:
    """For each secondary whose primary is among the nodes, by their addresses.

    The primary is the one that has the other end of the secondary's connection, or listens at the
    address that it follows; else, where something stands between them, the only primary there is.
    """
    found = []
    for address, status in nodes.items():
        if status["secondary"] is None:
            continue
        others = {each: other for each, other in nodes.items() if each != address}
        primary = _primary_of(status["secondary"], others)
        if primary is not None:
            found.append(_distance(primary, others[primary], address, status["secondary"]))
    return found


def _primary_of(secondary: SecondaryStatus, nodes: Mapping[str, Status]) -> str | None:
    primaries = {
        address: status["primary"]
        for address, status in nodes.items()
        if status["primary"] is not None
    }
    by_connection = [key for key, each in primaries.items() if _peer_of(secondary, each)]
    by_address = [
        key for key, each in primaries.items() if each["address"] == secondary["primary_address"]
    ]
    first = [key for key in primaries if nodes[key]["role"] == "primary"]
    for candidates in (by_connection, by_address, first):
        if len(candidates) == 1:
            return candidates[0]
    return None


def _peer_of(secondary: SecondaryStatus, primary: PrimaryStatus) -> PeerStatus | None:
    ours = secondary["local_address"]
    peers = [each for each in primary["peers"] if each["address"] == ours]
    return peers[0] if len(peers) == 1 else None


def _distance(
    primary: str, status: Status, secondary: str, followed_by: SecondaryStatus
) -> Distance:
    ahead, behind = position_of(status), followed_by["position"]
    seconds: float | None = None
    transactions: int | None = None
    if ahead == behind:
        seconds, transactions = 0.0, 0
    elif ahead and behind:
        # Both are asked at the same time, and one answers first.
        seconds = max(0.0, ahead["time"] - behind["time"])
    return Distance(
        primary=primary, secondary=secondary, seconds=seconds, transactions=transactions
    )
