"""What status servers have answered, and how far secondaries are behind their primaries."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple, TypedDict

from ...errors import NoStatus
from ...messages import NO_TID
from ...monitor.document import Apart, Divergence, HexTid, Status
from ...monitor.fetch import StatusAddress, ask_all, fetch_apart
from ...monitor.health import Pair, pairs, position_of, trouble_of


class Node(NamedTuple):
    """What an address has said: one of `status` and `error` is not None."""

    asked: StatusAddress
    status: Status | None
    error: str | None

    @property
    def address(self) -> str:
        return self.asked.text

    @property
    def trouble(self) -> str | None:
        """Why it is not in sync, or cannot be asked; None if it is."""
        return self.error if self.status is None else trouble_of(self.status)


def node(address: StatusAddress, answer: Status | NoStatus) -> Node:
    if isinstance(answer, NoStatus):
        return Node(address, None, answer.reason)
    return Node(address, answer, None)


class Diverged(TypedDict):
    """Where the histories of a primary and of a secondary part.

    The last transaction that both hold, and how many after it each of them holds alone.
    """

    common: HexTid | None
    primary: int | None
    secondary: int


class _Diverged(TypedDict, total=False):
    diverged: Diverged


class Distance(_Diverged):
    """How far a secondary is behind the primary that it follows, as that one knows.

    If the two have diverged, neither is behind the other.
    """

    primary: str
    secondary: str
    seconds: float | None
    transactions: int | None


def distances(nodes: Sequence[Node], timeout: float) -> list[Distance]:
    """Ask the primaries among the nodes how far their secondaries are behind them, at once."""
    told = {each.address: each.status for each in nodes if each.status is not None}
    addresses = {each.address: each.asked for each in nodes}
    found = pairs(told)
    answers = ask_all(
        [
            (
                addresses[primary],
                partial(
                    fetch_apart,
                    addresses[primary],
                    _tid(told[secondary]),
                    timeout,
                    count=divergence_of(told[secondary]) is not None,
                ),
            )
            for primary, secondary in found
        ],
        timeout,
    )
    return [
        _distance(pair, answer, divergence_of(told[pair.secondary]))
        for pair, answer in zip(found, answers, strict=True)
    ]


def divergence_of(said: Status) -> Divergence | None:
    secondary = said["secondary"]
    return None if secondary is None else secondary.get("divergence")


def _tid(said: Status) -> HexTid:
    """The transaction up to which a secondary holds what its primary does."""
    divergence = divergence_of(said)
    position = position_of(said) if divergence is None else divergence["common"]
    return HexTid(f"0x{NO_TID.hex()}") if position is None else position["tid"]


def _distance(pair: Pair, answer: Apart | NoStatus, divergence: Divergence | None) -> Distance:
    if isinstance(answer, NoStatus):
        answer = Apart(seconds=None, transactions=None)
    found = Distance(
        primary=pair.primary,
        secondary=pair.secondary,
        seconds=answer["seconds"],
        transactions=answer["transactions"],
    )
    if divergence is not None:
        common, on_primary = divergence["common"], answer["transactions"]
        found["seconds"] = found["transactions"] = None
        found["diverged"] = Diverged(
            common=None if common is None else common["tid"],
            primary=on_primary,
            secondary=divergence["transactions"],
        )
    return found


def document(nodes: Sequence[Node], apart: Sequence[Distance]) -> dict[str, Any]:
    """All of it, for JSON: a member for each address, and how far secondaries are behind."""
    return {
        "now": time.time(),
        "in_sync": all(each.trouble is None for each in nodes),
        "nodes": [
            {
                "address": each.address,
                "in_sync": None if each.status is None else each.trouble is None,
                "trouble": each.trouble,
                "error": each.error,
                "status": each.status,
            }
            for each in nodes
        ],
        "distances": apart,
    }
