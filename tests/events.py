"""What docs/logs.rst says is logged, and whether a record is one of that."""

from __future__ import annotations

import contextlib
import functools
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import zrs_core

ROOT = Path(__file__).parent.parent
PACKAGE = Path(zrs_core.__file__).parent

_OF_EVERY_RECORD = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName", "event"}


class Event(NamedTuple):
    """One row: the levels, the texts as patterns, the names of the fields."""

    levels: set[str]
    texts: list[re.Pattern[str]]
    fields: set[str]


@functools.cache
def documented() -> dict[tuple[str, str], Event]:
    """The rows by logger and event."""
    found = {}
    sections = re.split(
        r"^``(zrs_core\.\w+)``\n=+\n", (ROOT / "docs" / "logs.rst").read_text(), flags=re.M
    )
    for logger, text in zip(sections[1::2], sections[2::2], strict=True):
        for row in re.split(r"^   \* - ", text, flags=re.M)[2:]:
            # The last one has the text behind the table below it.
            cells = re.split(r"\n     -(?: |$)", row.split("\n\n")[0], flags=re.M)
            event, levels, texts, fields, _ = [" ".join(cell.split()) for cell in cells]
            found[logger, event.strip("`")] = Event(
                set(re.findall("[A-Z]+", levels)),
                [_pattern(each) for each in re.findall("``(.+?)``", texts)],
                set(re.findall("``(.+?)``", fields)),
            )
    return found


def _pattern(text: str) -> re.Pattern[str]:
    """A text with words in capitals in place of what differs, and `...` for what is left out."""
    escaped = re.escape(text).replace(r"\.\.\.", ".*")
    return re.compile(re.sub(r"\b[A-Z]{3,}\b", ".+?", escaped), re.DOTALL)


def fault_of(record: logging.LogRecord) -> str | None:
    """What is not as documented of a record of ours, None if all is."""
    if not record.pathname.startswith(str(PACKAGE)):
        return None
    name = getattr(record, "event", None)
    known = documented().get((record.name, str(name)))
    where = f"{record.pathname}: {record.name} {name} {record.levelname} {record.getMessage()!r}"
    if known is None:
        return f"no such event: {where}"
    if record.levelname not in known.levels:
        return f"another level: {where}"
    if not any(each.fullmatch(record.getMessage()) for each in known.texts):
        return f"another text: {where}"
    if more := vars(record).keys() - _OF_EVERY_RECORD - known.fields:
        return f"more fields, {more}: {where}"
    return None


class _Watch(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.faults: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        fault = fault_of(record)
        if fault is not None:
            self.faults.append(fault)


@contextlib.contextmanager
def all_documented() -> Iterator[None]:
    """Whatever is logged meanwhile must be as documented.

    :raises AssertionError: it is not.
    """
    log, watch = logging.getLogger("zrs_core"), _Watch()
    log.addHandler(watch)
    try:
        yield
    finally:
        log.removeHandler(watch)
    assert not watch.faults, "docs/logs.rst: " + "\n".join(watch.faults)
