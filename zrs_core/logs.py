"""What is logged, for machines: named events with fields, and a formatter that writes JSON lines.

Each record of `zrs_core`'s loggers has an `event`, a short name that stays when the text of the
message changes, and fields beside it, such as `peer` and `tid`. `docs/logs.rst` lists all of them.
"""

from __future__ import annotations

import json
import logging
import math
import threading
import time
import traceback
from typing import Any, Final

from .texts import printable

# What every record has, whoever logs: not a field of the event.
_OF_EVERY_RECORD: Final = frozenset(vars(logging.makeLogRecord({}))) | {
    "asctime",
    "message",
    "taskName",
}


def event(name: str, **fields: object) -> dict[str, object]:
    """What a log call gets as its `extra`: the name of the event, and its fields.

    Bytes are a tid or an oid, and become `0x` and their hex digits; None is left out. Other values
    than numbers become texts.
    """
    return {
        "event": name,
        **{key: _field(value) for key, value in fields.items() if value is not None},
    }


def _field(value: object) -> object:
    if isinstance(value, bytes):
        return f"0x{value.hex()}"
    return value if isinstance(value, (int, float)) else str(value)


class Once:
    """Remembers what has been logged. Thread-safe.

    :param most: how many things are remembered; the one that was added first is forgotten first.
    """

    def __init__(self, most: int = 1000) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._known: dict[object, None] = {}

    def add(self, what: object) -> bool:
        """Remember `what`, and return True if it was not remembered yet."""
        with self._lock:
            if what in self._known:
                return False
            self._known[what] = None
            if len(self._known) > self._most:
                del self._known[next(iter(self._known))]
            return True


class JSONFormatter(logging.Formatter):
    """Writes each record as one line of JSON, in ASCII.

    The keys are `time` (UTC, as in `2026-01-31T12:00:00.000000Z`), `level`, `logger`, `message`,
    then the fields of the record, such as `event`, `peer` and `tid`, and with an exception
    `exception`, an object with `type`, `message` and `traceback`.

    It takes the arguments of `logging.Formatter`, since those who make one from a configuration
    give them, and has no use for them. Thread-safe.
    """

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": _in_utc(record.created),
            "level": record.levelname,
            "logger": record.name,
            "message": printable(record.getMessage()),
        }
        for key, value in vars(record).items():
            if key not in _OF_EVERY_RECORD and key not in line:
                line[key] = _plain(value)
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            line["exception"] = {
                "type": type(error).__qualname__,
                "message": printable(str(error)),
                "traceback": "".join(traceback.format_exception(error)),
            }
        if record.stack_info:
            line["stack"] = record.stack_info
        return json.dumps(line)


def _in_utc(seconds: float) -> str:
    whole, part = divmod(round(seconds * 1_000_000), 1_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(whole))}.{part:06d}Z"


def _plain(value: object) -> object:
    """What JSON can say, which is not all that a record of somebody else's may carry."""
    if isinstance(value, str):
        return printable(value)
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    return printable(str(value))
