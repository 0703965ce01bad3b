"""What came out of a verification."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from ..messages import NO_TID
from ..storage.comparison import Difference, Kind

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
    #: Whether statuses differ, as they do where one side alone was packed.
    packed: bool = False
    counts: Counter[str] = field(default_factory=Counter)
    differences: list[Difference] = field(default_factory=list)

    @property
    def equal(self) -> bool:
        return not self.counts

    @property
    def first(self) -> Difference | None:
        """The difference in the earliest transaction, of those that are kept."""
        return min(self.differences, key=lambda each: each.tid, default=None)

    def add(self, difference: Difference) -> None:
        self.counts[difference.name] += 1
        if difference.kind is Kind.TRANSACTION and difference.text.startswith("status is "):
            self.packed = True
        if len(self.differences) < self.listed:
            self.differences.append(difference)

    def state(self) -> dict[str, Any]:
        """All of it, as JSON has it."""
        return {
            **{name: getattr(self, name) for name in _PLAIN},
            "last": self.last.hex(),
            "counts": dict(self.counts),
            "differences": [
                [each.kind.name, each.tid.hex(), each.oid and each.oid.hex(), each.text]
                for each in self.differences
            ],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Become what `state` was given of."""
        for name in _PLAIN:
            setattr(self, name, state[name])
        self.last = bytes.fromhex(state["last"])
        self.counts.update(state["counts"])
        self.differences += [
            Difference(Kind[kind], bytes.fromhex(tid), oid and bytes.fromhex(oid), text)
            for kind, tid, oid, text in state["differences"]
        ]
