"""Search for the last transaction that a secondary and its primary both hold.

The protocol has no question for it. A secondary can only ask for what comes after a transaction,
and see what comes first: if that is its own next transaction, both hold it. A primary that looks
whether it holds a start closes the connection if it does not. So the search asks again and again,
each time on a new connection: from the end of its history back, each step twice as long as the one
before, and then by bisection. The transactions are told apart by their tids.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from typing import Final, NamedTuple

from ..messages import NO_TID

#: The most questions of one search: more than twice what the bisection of `MAX_TIDS` needs.
MAX_PROBES: Final = 64

#: The most transactions of the secondary that are looked at; they take 8 bytes each.
MAX_TIDS: Final = 1 << 20

# How often a refusal is asked for again that contradicts what was sent before.
_MAX_REPEATED: Final = 2


class Divergence(NamedTuple):
    """Where two histories part.

    :param common: the last transaction that both hold; None if there is none, or not among those
        that were looked at.
    :param alone: how many transactions after it the secondary holds.
    :param complete: True if `alone` counts all of them, False if there may be more.
    :param sent: the transaction that the primary has after `common`, `NO_TID` if it has none; None
        if that is not known.
    """

    common: bytes | None
    alone: int
    complete: bool
    sent: bytes | None


class Search:
    """Decides what to ask, and from what comes what both hold.

    Transactions are numbered by their age: 0 is the secondary's last one.

    :param history: as `ISearchableSink.history`.
    :param sent: what the primary has sent instead of the last transaction, which may have the same
        tid; None if that is not known.
    """

    def __init__(
        self,
        history: Callable[[bytes | None, int], list[tuple[bytes, bool]]],
        *,
        sent: bytes | None = None,
    ) -> None:
        self._history = history
        self._tids = array("Q")
        self._complete = False
        # From this age on, a pack has marked what is here; None for nowhere.
        self._packed_from: int | None = None
        # The ages next to each other that are known to be missing there, and to be held there.
        self._floor = self._missing = -1 if sent is None else 0
        self._held: int | None = None
        # What came when `_missing` was found: a tid, NO_TID for nothing, None for a refusal.
        self._known = self._evidence = sent
        self._repeated = 0
        self._probes = 0
        self._age = self._floor
        self._served = sent is not None
        self._over = False
        self._choose()

    @property
    def over(self) -> bool:
        """True if there is nothing more to ask."""
        return self._over

    @property
    def start(self) -> bytes:
        """The transaction from which to ask."""
        return self._tid(self._age + 1)

    @property
    def expected(self) -> bytes:
        """The transaction that comes first if both hold it."""
        return self._tid(self._age)

    @property
    def skips(self) -> bool:
        """True if what comes before `expected` may have been removed here by a pack."""
        return self._packed_from is not None and self._packed_from <= self._age + 1

    def sent(self, tid: bytes) -> None:
        """The primary has sent this transaction first, and its checksum was right."""
        self._served = True
        age = self._age_of(tid)
        if age is None or age <= self._floor:
            self._is_missing(tid)
            return
        self._held = age
        if self._missing >= age:
            # What said so was a refusal for another reason.
            self._missing, self._evidence = self._floor, self._known
        self._choose()

    def nothing_sent(self) -> None:
        """The primary serves the start, and has nothing after it."""
        self._served = True
        self._is_missing(NO_TID)

    def refused(self) -> None:
        """The primary has closed the connection without sending anything."""
        self._is_missing(None)

    def inconclusive(self) -> None:
        """The connection was lost before it was clear; the same is asked again."""
        self._count()

    @property
    def result(self) -> Divergence | None:
        """Return where the histories part; None if they do not, or that was not found."""
        if self._held is not None:
            if self._held != self._missing + 1 or not self._held:
                return None
            return Divergence(self._tid(self._held), self._held, True, self._evidence)
        # A primary that refuses everything has another reason.
        if not self._served or self._missing < self._oldest:
            return None
        return Divergence(None, len(self._tids), self._complete, self._evidence)

    def _is_missing(self, evidence: bytes | None) -> None:
        self._missing, self._evidence = self._age, evidence
        self._choose()

    def _count(self) -> None:
        self._probes += 1
        self._over = self._over or self._probes >= MAX_PROBES

    def _choose(self) -> None:
        """Choose what to ask next."""
        self._count()
        if self._held is None:
            self._age = 2 * self._missing + 1 if self._missing >= 0 else 0
            # One more, from which to ask.
            self._load(self._age + 2)
            self._age = min(self._age, self._oldest)
            if self._age <= self._missing:
                self._over = True
        elif self._held - self._missing > 1:
            self._age = (self._held + self._missing) // 2
        elif self._evidence is None and self._missing > self._floor:
            # It was sent, and refuses to go on from there.
            self._age = self._missing
            self._repeated += 1
            self._over = self._over or self._repeated > _MAX_REPEATED
        else:
            self._over = True

    @property
    def _oldest(self) -> int:
        """The greatest age that can be asked for."""
        return len(self._tids) - (1 if self._complete else 2)

    def _load(self, count: int) -> None:
        known = len(self._tids)
        count = min(count, MAX_TIDS) - known
        if count <= 0 or self._complete:
            return
        found = self._history(self._tid(known - 1) if known else None, count)
        self._complete = len(found) < count
        for tid, packed in found:
            if packed and self._packed_from is None:
                self._packed_from = len(self._tids)
            self._tids.append(int.from_bytes(tid, "big"))

    def _tid(self, age: int) -> bytes:
        # Before the first one is the beginning.
        return self._tids[age].to_bytes(8, "big") if age < len(self._tids) else NO_TID

    def _age_of(self, tid: bytes) -> int | None:
        number, low, high = int.from_bytes(tid, "big"), 0, len(self._tids)
        while low < high:
            middle = (low + high) // 2
            if self._tids[middle] > number:
                low = middle + 1
            else:
                high = middle
        return low if low < len(self._tids) and self._tids[low] == number else None
