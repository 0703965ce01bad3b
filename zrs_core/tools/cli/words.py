"""Times, lags and rates for people; and what comes from elsewhere, made harmless."""

from __future__ import annotations

import time

from ...monitor.document import Rate
from ...texts import in_one_line
from .output import size

_LONGEST = 300


def plain(text: str) -> str:
    """A text of somebody else's in one line, without what would steer a terminal."""
    line = in_one_line(text)
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}..."


def moment(when: float) -> str:
    """A time in UTC; a number where there is no such time."""
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(when))
    except (OverflowError, OSError, ValueError):
        return f"{when:g}"


def duration(seconds: float) -> str:
    """A number of seconds, in units of a size that suits it."""
    if seconds < 10:
        return f"{seconds:.3f} s"
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 120:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"


def lag(seconds: float | None, transactions: int | None) -> str:
    """How far something is behind, as far as it is known."""
    parts = [] if seconds is None else [duration(seconds)]
    if transactions is not None:
        parts.append(f"{transactions:,} tx")
    return ", ".join(parts) or "not known"


def rate(what: Rate) -> str:
    return f"{what['transactions']:,.1f} tx/s, {size(what['bytes'])}/s"
