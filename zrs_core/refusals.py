"""A log that stays short while thousands of peers are refused."""

from __future__ import annotations

import logging
import threading

from .logs import event
from .reasons import same_kind

#: Refusals that are told one by one in a minute, for each reason.
TOLD = 10

#: Reasons that are kept apart; what a peer says may make new ones without end.
REASONS = 10

#: Seconds that are summed up.
PERIOD = 60.0

_OTHERS = "for other reasons"


class RefusalLog:
    """Decide which refusals are logged, and log a line that sums up the others. Thread-safe.

    The first `TOLD` of each minute are news, for each reason by itself, so that a thousand peers
    that are refused do not hide one that is expected. The number of the others is logged when the
    minute is over. Reasons that differ only in details count as one (`reasons.same_kind`).

    Every `now` is in seconds of one clock that is never set back.

    :param log: the logger of the sums.
    """

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._lock = threading.Lock()
        # When the minute began: with its first refusal.
        self._begin: float | None = None
        self._counts: dict[str, int] = {}
        # Of those that were no news, the last peer and its reason.
        self._last: dict[str, tuple[str, str]] = {}

    @property
    def quiet(self) -> bool:
        """True if there were refusals, in this minute, that were no news."""
        return bool(self._last)

    @property
    def due(self) -> float | None:
        """The time at which to call `handle_timeout`, None for never."""
        begin = self._begin
        return begin + PERIOD if self._last and begin is not None else None

    def handle_timeout(self, now: float) -> None:
        """Log the sums of a minute that is over."""
        if self._begin is not None and now >= self._begin + PERIOD:
            self.summarize()

    def is_news(self, peer: str, reason: str, now: float) -> bool:
        """Return True if the refusal of a peer is to be logged; otherwise count it."""
        with self._lock:
            is_over = self._begin is not None and now >= self._begin + PERIOD
            over = self._take() if is_over else []
            if self._begin is None:
                self._begin = now
            kind = same_kind(reason)
            if kind not in self._counts and len(self._counts) >= REASONS:
                kind = reason = _OTHERS
            count = self._counts[kind] = self._counts.get(kind, 0) + 1
            if count > TOLD:
                self._last[kind] = peer, reason
        self._tell(over)
        return count <= TOLD

    def summarize(self) -> None:
        """Log the number of refusals that were no news, if any; the next one begins a minute."""
        with self._lock:
            over = self._take()
        self._tell(over)

    def _take(self) -> list[tuple[str, int, str]]:
        over = [
            (reason, self._counts[kind] - TOLD, peer) for kind, (peer, reason) in self._last.items()
        ]
        self._begin = None
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
    """

    def __init__(self, memory: float) -> None:
        self._memory = memory
        self._lock = threading.Lock()
        # When each kind was last seen, the latest one last.
        self._seen: dict[str, float] = {}

    def level(self, reason: object, now: float) -> int:
        """Return the level at which to log a failure: ERROR for a new kind, else DEBUG.

        :param now: seconds of a clock that is never set back.
        """
        kind = same_kind(str(reason))
        with self._lock:
            before = self._seen.pop(kind, None)
            self._seen[kind] = now
            if len(self._seen) > REASONS:
                del self._seen[next(iter(self._seen))]
        is_news = before is None or now - before > self._memory
        return logging.ERROR if is_news else logging.DEBUG
