"""How many transactions and bytes there were in each of the last seconds."""

from __future__ import annotations

import time
from collections.abc import Iterable

from .state import Rate, Rates

#: Seconds of the shorter and of the longer window.
WINDOWS = (10, 300)

# The longer window, and the second that has begun.
_SIZE = WINDOWS[1] + 1


class Meter:
    """Counts by the second.

    One thread adds, with no lock; any thread reads, and may miss what is just being added.
    """

    __slots__ = ("_began", "_bytes", "_seconds", "_transactions", "bytes", "transactions")

    def __init__(self) -> None:
        #: All that was added.
        self.transactions = 0
        self.bytes = 0
        self._began = time.monotonic()
        # A ring: which second of the monotonic clock each place is for, and what there was then.
        self._seconds = [-1] * _SIZE
        self._transactions = [0] * _SIZE
        self._bytes = [0] * _SIZE

    def add(self, transactions: int, size: int) -> None:
        """So many transactions, and so many bytes, now."""
        second = int(time.monotonic())
        place = second % _SIZE
        if self._seconds[place] != second:
            self._transactions[place] = self._bytes[place] = 0
            self._seconds[place] = second
        self._transactions[place] += transactions
        self._bytes[place] += size
        self.transactions += transactions
        self.bytes += size

    def absorb(self, other: Meter) -> None:
        """Count what another one, to which nothing is added any more, has counted."""
        for place, second in enumerate(other._seconds):
            if second > self._seconds[place]:
                self._transactions[place] = self._bytes[place] = 0
                self._seconds[place] = second
            if second == self._seconds[place]:
                self._transactions[place] += other._transactions[place]
                self._bytes[place] += other._bytes[place]
        self.transactions += other.transactions
        self.bytes += other.bytes

    def _since(self, first: int) -> tuple[int, int]:
        places = [place for place, second in enumerate(self._seconds) if second >= first]
        return (
            sum(self._transactions[place] for place in places),
            sum(self._bytes[place] for place in places),
        )


def rates_of(meters: Iterable[Meter]) -> Rates:
    """What several meters have counted together, per second; the oldest comes first."""
    meters = [*meters]
    now = time.monotonic()
    # Of a meter that is younger than the window, what it has seen.
    age = max(now - meters[0]._began, 1.0)
    rates = []
    for window in WINDOWS:
        first = int(now) - window
        counts = [meter._since(first) for meter in meters]
        seconds = min(now - first, age)
        rates.append(Rate(*(sum(each) / seconds for each in zip(*counts, strict=True))))
    return Rates(*rates)
