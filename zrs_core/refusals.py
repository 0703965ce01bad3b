"""A log that stays short while thousands of peers are refused."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from typing import Protocol

from .logs import event
from .reasons import same_kind

#: Refusals that are told one by one in a minute, for each reason.
TOLD = 10

#: Reasons that are kept apart; what a peer says may make new ones without end.
REASONS = 10

#: Seconds that are summed up.
PERIOD = 60.0

_OTHERS = "for other reasons"


class Alarm(Protocol):
    """Something that will be done."""

    def cancel(self) -> None:
        """Do not do it."""


class RefusalLog:
    """Which refusals are news, and a line that sums up the others. Thread-safe.

    The first `TOLD` of each minute are news, for each reason by itself, so that a thousand who
    knock do not hide the one who is expected. How many more there were is logged when the minute
    is over. Reasons that differ only in details count as one (`reasons.same_kind`).

    :param log: where the sums go.
    :param clock: gives seconds that never go back.
    :param call_later: calls a function, from another thread, after so many seconds.
    """

    def __init__(
        self,
        log: logging.Logger,
        clock: Callable[[], float] = time.monotonic,
        call_later: Callable[[float, Callable[[], None]], Alarm] | None = None,
    ) -> None:
        self._log = log
        self._clock = clock
        self._call_later = call_later or _call_later
        self._lock = threading.Lock()
        self._begin = clock()
        self._counts: dict[str, int] = {}
        # Of those that were no news, the last peer and its reason.
        self._last: dict[str, tuple[str, str]] = {}
        self._alarm: Alarm | None = None

    @property
    def quiet(self) -> bool:
        """Whether there were refusals, in this minute, that were no news."""
        return bool(self._last)

    def is_news(self, peer: str, reason: str) -> bool:
        """A peer is refused: whether to log it. If not, it is counted."""
        with self._lock:
            now = self._clock()
            over = self._take() if now >= self._begin + PERIOD else []
            kind = same_kind(reason)
            if kind not in self._counts and len(self._counts) >= REASONS:
                kind = reason = _OTHERS
            count = self._counts[kind] = self._counts.get(kind, 0) + 1
            if count > TOLD:
                self._last[kind] = peer, reason
                if self._alarm is None:
                    # Without another thread, the first refusal of the next minute sums up.
                    with contextlib.suppress(RuntimeError):
                        self._alarm = self._call_later(self._begin + PERIOD - now, self.summarize)
        self._tell(over)
        return count <= TOLD

    def summarize(self) -> None:
        """Log how many were no news, if any, and begin a minute anew."""
        with self._lock:
            over = self._take()
        self._tell(over)

    def _take(self) -> list[tuple[str, int, str]]:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        over = [
            (reason, self._counts[kind] - TOLD, peer) for kind, (peer, reason) in self._last.items()
        ]
        self._begin = self._clock()
        self._counts.clear()
        self._last.clear()
        return over

    def _tell(self, over: list[tuple[str, int, str]]) -> None:
        for reason, count, peer in over:
            self._log.error(
                "refused (%s): and %s more in the last minute, the last of them %s",
                reason,
                f"{count:,}",
                peer,
                extra=event("refused-more", peer=peer, reason=reason, count=count),
            )


class RepeatLog:
    """Failures that were logged lately: what fails again in the same way is logged at DEBUG.

    Thread-safe.

    :param memory: seconds without a failure of a kind after which the next one is news again.
    :param clock: gives seconds that never go back.
    """

    def __init__(self, memory: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._memory = memory
        self._clock = clock
        self._lock = threading.Lock()
        # When each kind was last seen, the latest one last.
        self._seen: dict[str, float] = {}

    def level(self, reason: object) -> int:
        """Return the level at which to log a failure: ERROR for a new kind, else DEBUG."""
        kind, now = same_kind(str(reason)), self._clock()
        with self._lock:
            before = self._seen.pop(kind, None)
            self._seen[kind] = now
            if len(self._seen) > REASONS:
                del self._seen[next(iter(self._seen))]
        is_news = before is None or now - before > self._memory
        return logging.ERROR if is_news else logging.DEBUG


def _call_later(seconds: float, function: Callable[[], None]) -> Alarm:
    timer = threading.Timer(seconds, function)
    timer.name = "zrs_core refusals"
    timer.daemon = True
    timer.start()
    return timer
