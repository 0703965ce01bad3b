"""What came out of a verification."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from ...messages import NO_TID
from ...storage.comparison import Difference, Kind

# What is counted, and kept as it is.
_PLAIN = (
    "transactions",
    "records",
    "blobs",
    "size",
    "garbage",
    "beyond",
    "blobs_compared",
    "complete",
    "packed",
)


@dataclass(slots=True)
class Report:
    """What was compared, and what differs.

    :param listed: so many differences are kept, all others are counted.
    """

    listed: int
    #: Transactions, current records, and blobs that were compared; those of A.
    transactions: int = 0
    records: int = 0
    blobs: int = 0
    #: Bytes of A's file (of its records, where that is none) and blobs.
    size: int = 0
    #: Objects that only one side has, and that cannot be reached there.
    garbage: int = 0
    #: The last transaction that was compared.
    last: bytes = NO_TID
    #: Transactions that A and B have after the last one of the other, where they are left out.
    beyond: list[int] = field(default_factory=lambda: [0, 0])
    blobs_compared: bool = True
    #: False if a file was too damaged to go on.
    complete: bool = True
    #: True if statuses differ, as they do where the sides were packed up to different transactions.
    packed: bool = False
    #: The last transactions that packs of A and of B went over, where these are different.
    packs: list[bytes] | None = None
    counts: Counter[str] = field(default_factory=Counter)
    differences: list[Difference] = field(default_factory=list)
    #: The difference in the earliest transaction, whether it is kept or not.
    first: Difference | None = None

    @property
    def equal(self) -> bool:
        return not self.counts

    def add(self, difference: Difference) -> None:
        self.counts[difference.name] += 1
        if difference.kind is Kind.TRANSACTION and difference.text.startswith("status is "):
            self.packed = True
        if self.first is None or difference.tid < self.first.tid:
            self.first = difference
        if len(self.differences) < self.listed:
            self.differences.append(difference)

    def state(self) -> dict[str, Any]:
        """All of it, as JSON has it."""
        return {
            **{name: getattr(self, name) for name in _PLAIN},
            "last": self.last.hex(),
            "counts": dict(self.counts),
            "differences": [_state(each) for each in self.differences],
            "first": self.first and _state(self.first),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Become what `state` was given of."""
        for name in _PLAIN:
            setattr(self, name, state[name])
        self.last = bytes.fromhex(state["last"])
        self.counts.update(state["counts"])
        self.differences += [_difference(*each) for each in state["differences"]]
        self.first = state["first"] and _difference(*state["first"])


def _state(difference: Difference) -> list[str | None]:
    oid = None if difference.oid is None else difference.oid.hex()
    return [difference.kind.name, difference.tid.hex(), oid, difference.text]


def _difference(kind: str, tid: str, oid: str | None, text: str) -> Difference:
    where = None if oid is None else bytes.fromhex(oid)
    return Difference(Kind[kind], bytes.fromhex(tid), where, text)
