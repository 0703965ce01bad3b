"""Transaction ids for people."""

from __future__ import annotations

import re
import time
from datetime import datetime, timedelta, timezone

from persistent.timestamp import TimeStamp

from .messages import MAX_TID, NO_TID

# The years that tids have: the last one is that of `MAX_TID`.
_FIRST_YEAR = 1900
_LAST_YEAR = 5908

# In units of tids.
_HALF_MICROSECOND = 36

_match_tid = re.compile("0[xX]([0-9a-fA-F]{16})").fullmatch


#: Seconds by which two clocks that are set by NTP may differ.
CLOCK_TOLERANCE = 1.0


def age_of(tid: bytes) -> float | None:
    """Return the seconds since the time of a tid, by the clock here.

    Up to `CLOCK_TOLERANCE` before that time it is 0, since no two clocks are quite the same. None
    if the time is further ahead, so that the clocks say nothing about the age.
    """
    age = raw_age_of(tid)
    return max(age, 0.0) if age >= -CLOCK_TOLERANCE else None


def raw_age_of(tid: bytes) -> float:
    """Return the seconds since the time of a tid, below 0 if that is ahead of the clock here."""
    age: float = time.time() - TimeStamp(tid).timeTime()
    return age


def describe_tid(tid: bytes) -> str:
    """A tid in hex with its time (UTC), as in `0x03... (2026-01-31 12:00:00.000000)`.

    :param tid: 8 bytes; a tid is a time stamp (`persistent.TimeStamp`).
    """
    return f"0x{tid.hex()} ({TimeStamp(tid)})"


def last_of(tid: bytes | None) -> str:
    """Return the last transaction as the end of a log line; nothing if there is none."""
    return "" if tid is None or tid == NO_TID else f"; last is {describe_tid(tid)}"


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
    """Return the tid of a time that has a time zone.

    Tids reach from 1900 to 5908: the first or the last one stands for times before or after that.
    """
    try:
        when = when.astimezone(timezone.utc)
    except OverflowError:
        # In the first or the last hours that a datetime can have.
        return NO_TID if when.year < _FIRST_YEAR else MAX_TID
    if when.year < _FIRST_YEAR:
        return NO_TID
    if when.year > _LAST_YEAR:
        return MAX_TID
    seconds = when.second + when.microsecond / 1e6
    tid: bytes = TimeStamp(when.year, when.month, when.day, when.hour, when.minute, seconds).raw()
    return min(tid, MAX_TID)


def parse_span(text: str) -> tuple[bytes, bytes]:
    """Return the first and the last tid that a text stands for.

    :param text: a tid, 0x and 16 hex digits; or a time in ISO 8601. That is in UTC, unless it says
        otherwise. It stands for its microsecond, and for the tids whose times are shown so.
    :raises ValueError: it is neither.
    """
    if text[:2] in ("0x", "0X"):
        tid = parse_tid(text)
        return tid, tid
    # Python 3.10 does not know this one.
    zulu = text[-1:] in ("Z", "z")
    when = datetime.fromisoformat(text[:-1] + "+00:00" if zulu else text)
    if when.tzinfo is None:
        when = when.replace(tzinfo=timezone.utc)
    # Times are shown to the nearest microsecond.
    first = max(int.from_bytes(tid_of(when), "big") - _HALF_MICROSECOND, 0).to_bytes(8, "big")
    try:
        after = tid_of(when + timedelta(microseconds=1))
    except OverflowError:
        after = MAX_TID
    if after in (NO_TID, MAX_TID):
        return first, after
    return first, (int.from_bytes(after, "big") - 1).to_bytes(8, "big")
