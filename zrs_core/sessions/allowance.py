"""The number of empty messages that a secondary may send."""

from __future__ import annotations

from typing import Final

#: Empty messages that a secondary may send in a second, on average. `MIN_KEEP_ALIVE_DELAY` allows
#: half as many.
PER_SECOND: Final = 200

#: Empty messages that a secondary may send at once when it has just connected. It costs no more
#: to connect again and again for these than to connect.
AT_FIRST: Final = 100

#: Empty messages that a secondary may send at once, at most. They pile up while the primary's
#: process is stopped.
AT_MOST: Final = 10_000


class Allowance:
    """A token bucket of empty messages.

    Each costs the primary some microseconds, in a thread that other connections share, and says
    nothing.

    :param now: the time in seconds of a clock that is never set back.
    """

    def __init__(self, now: float) -> None:
        self._filled_at = now
        self._left = float(AT_FIRST)

    def refill(self, now: float) -> None:
        """Add what the time since the last call allows."""
        self._left = min(self._left + PER_SECOND * (now - self._filled_at), AT_MOST)
        self._filled_at = now

    def take(self) -> bool:
        """Count a message; return False if it is one too many."""
        self._left -= 1
        return self._left >= 0
