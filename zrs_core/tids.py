"""Transaction ids for people."""

from __future__ import annotations

import time

from persistent.timestamp import TimeStamp


def age_of(tid: bytes) -> float | None:
    """Seconds since the time of a tid, by the clock here; None if that is yet to come."""
    age: float = time.time() - TimeStamp(tid).timeTime()
    return age if age >= 0 else None


def describe_tid(tid: bytes) -> str:
    """A tid in hex with its time (UTC), as in `0x03... (2026-01-31 12:00:00.000000)`.

    :param tid: 8 bytes; a tid is a time stamp (`persistent.TimeStamp`).
    """
    return f"0x{tid.hex()} ({TimeStamp(tid)})"
