"""Transaction ids for people."""

from __future__ import annotations

import re
import time
from datetime import datetime, timedelta, timezone

from persistent.timestamp import TimeStamp

_match_tid = re.compile("0[xX]([0-9a-fA-F]{16})").fullmatch


def age_of(tid: bytes) -> float | None:
    """Seconds since the time of a tid, by the clock here; None if that is yet to come."""
    age: float = time.time() - TimeStamp(tid).timeTime()
    return age if age >= 0 else None


def describe_tid(tid: bytes) -> str:
    """A tid in hex with its time (UTC), as in `0x03... (2026-01-31 12:00:00.000000)`.

    :param tid: 8 bytes; a tid is a time stamp (`persistent.TimeStamp`).
    """
    return f"0x{tid.hex()} ({TimeStamp(tid)})"


def parse_tid(text: str) -> bytes:
    """The tid that is written as `0x` and 16 hex digits.

    :raises ValueError: it is not.
    """
    found = _match_tid(text)
    if found is None:
        raise ValueError(f"{text!r} is no tid: one is 0x and 16 hex digits")
    return bytes.fromhex(found[1])


def time_of(tid: bytes) -> datetime:
    """The time of a tid, in UTC, to the nearest microsecond."""
    stamp = TimeStamp(tid)
    # As tids count, each month has 31 days: those of no clock may have one that there is not.
    month = datetime(stamp.year(), stamp.month(), 1, tzinfo=timezone.utc)
    return month + timedelta(
        days=stamp.day() - 1,
        hours=stamp.hour(),
        minutes=stamp.minute(),
        seconds=stamp.second(),
    )


def tid_of(when: datetime) -> bytes:
    """The tid of a time that has a time zone.

    :raises ValueError: there are tids from 1900 on.
    """
    when = when.astimezone(timezone.utc)
    seconds = when.second + when.microsecond / 1e6
    tid: bytes = TimeStamp(when.year, when.month, when.day, when.hour, when.minute, seconds).raw()
    return tid
