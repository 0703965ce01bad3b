"""Transaction ids for people."""

from __future__ import annotations

from persistent.timestamp import TimeStamp


def describe_tid(tid: bytes) -> str:
    """A tid in hex with its time (UTC), as in `0x03... (2026-01-31 12:00:00.000000)`.

    :param tid: 8 bytes; a tid is a time stamp (`persistent.TimeStamp`).
    """
    return f"0x{tid.hex()} ({TimeStamp(tid)})"
