"""How long to wait before the next attempt to connect."""

from __future__ import annotations

import random
import threading

_GROWTH = 2.0
_JITTER = 0.2

# Bounded since a float's exponent is.
_MAX_DOUBLINGS = 64


class Backoff:
    """Delays that double from `first` to `longest` seconds, each 20 % more or less by chance.

    The chance keeps the secondaries of a primary that comes back from coming back all at once.
    Equal bounds give that delay exactly. Thread-safe.
    """

    def __init__(self, first: float, longest: float) -> None:
        self._first = first
        self._longest = longest
        self._failures = 0
        self._lock = threading.Lock()

    @property
    def failures(self) -> int:
        """Attempts that failed since the last success."""
        return self._failures

    def failed(self) -> None:
        """An attempt failed: the next delay is longer."""
        with self._lock:
            self._failures += 1

    def exhausted(self) -> None:
        """The next delay is the longest."""
        with self._lock:
            self._failures = max(self._failures, _MAX_DOUBLINGS + 1)

    def succeeded(self) -> None:
        """The next delay is the first again."""
        with self._lock:
            self._failures = 0

    def delay(self) -> float:
        """Seconds to wait before the next attempt."""
        if self._first == self._longest:
            return self._first
        doublings = min(max(self._failures - 1, 0), _MAX_DOUBLINGS)
        delay = min(self._first * _GROWTH**doublings, self._longest)
        return min(delay * random.uniform(1 - _JITTER, 1 + _JITTER), self._longest)  # noqa: S311
