"""What the statuses of nodes mean: which is in trouble, and which is how far behind which."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from ..progress import State
from .document import Position, PrimaryStatus, SecondaryStatus, Status

#: States in which a secondary does not follow its primary, and will not without help.
FAILED = frozenset({State.FAILING, State.REFUSED, State.DIVERGED, State.STOPPED})


#: Seconds without an answer after which a status server counts as silent.
SILENT = 5.0


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


def silence_of_primary(status: Status) -> str | None:
    """Return why a connected secondary may follow a primary that hangs; None if it does not.

    A primary that has nothing to send and one that hangs are the same on the wire. The primary's
    status server makes the difference, where it is asked.
    """
    part = status["secondary"]
    if part is None or not part["connected"]:
        return None
    age = part.get("primary_status_age")
    if age is None or age < SILENT:
        return None
    return f"the status server of its primary has not answered for {age:.0f} s; {part['news']}"


def trouble_of(status: Status) -> str | None:
    """Why a node is not in sync, in words; None if it is."""
    failure = failure_of(status)
    if failure is not None:
        return failure
    found = [] if status["ready"] else [f"not ready: {status['ready_reason']}"]
    silence = silence_of_primary(status)
    return "; ".join([*found, *filter(None, [silence])]) or None


class Pair(NamedTuple):
    """The addresses of a primary and of a secondary that follows it."""

    primary: str
    secondary: str


def pairs(nodes: Mapping[str, Status]) -> list[Pair]:
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
            found.append(Pair(primary, address))
    return found


def _primary_of(secondary: SecondaryStatus, nodes: Mapping[str, Status]) -> str | None:
    primaries = {
        address: status["primary"]
        for address, status in nodes.items()
        if status["primary"] is not None
    }
    by_connection = [
        key for key, each in primaries.items() if _has_peer(each, secondary["local_address"])
    ]
    by_address = [
        key for key, each in primaries.items() if each["address"] == secondary["primary_address"]
    ]
    first = [key for key in primaries if nodes[key]["role"] == "primary"]
    for candidates in (by_connection, by_address, first):
        if len(candidates) == 1:
            return candidates[0]
    return None


def _has_peer(primary: PrimaryStatus, address: str | None) -> bool:
    return any(each["address"] == address for each in primary["peers"])
