"""`zrs log`: the transactions of a database, the newest one first."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import click

from ...errors import UnsuitableStorage
from ...messages import NO_TID
from ...tids import parse_span, time_of
from .output import errors_in_a_line, until_closed
from .signals import StopSignals
from .statuses import EPILOG
from .targets import Target

if TYPE_CHECKING:
    from ...storage.newest_first import Summary

_STATUSES = {" ": "", "p": "packed", "u": "undone"}


class _Since(click.ParamType):  # type: ignore[type-arg, unused-ignore]
    name = "time or tid"

    def convert(self, value: Any, param: Any, ctx: Any) -> bytes:
        if isinstance(value, bytes):
            return value
        try:
            return parse_span(value)[0]
        except ValueError:
            self.fail(
                f"{value!r} is neither a time, such as 2026-01-31T12:00:00 (UTC), nor a tid, 0x "
                "and 16 hex digits.",
                param,
                ctx,
            )


@click.command(epilog=EPILOG, short_help="List the transactions of a database.")
@click.argument("data", metavar="DATA")
@click.option(
    "-n",
    "--count",
    "number",
    type=click.IntRange(min=1),
    metavar="NUMBER",
    help="List so many transactions at most.",
)
@click.option(
    "--since",
    type=_Since(),
    default=NO_TID,
    metavar="TIME_OR_TID",
    help="List no transactions before this one, or before a time in ISO 8601 (UTC unless it says "
    "otherwise).",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
def log(data: str, number: int | None, since: bytes, as_json: bool) -> None:
    """List the transactions of a database, the newest one first, without writing to it.

    DATA is the path of a FileStorage, which may be in use; or a file for ZConfig with a storage
    section, whose name ends in .conf, with #NAME behind it if there are several sections; or a URI
    for zodburi.

    A line has the tid, the time (UTC), the number of records and the bytes of their data, the user
    (- for none) and the description. Control characters are escaped. No record is unpickled.
    """
    file = sys.stdout
    line_of: Callable[[Summary], str] = _json_of if as_json else _line_of
    with errors_in_a_line(), until_closed(file), StopSignals() as stop:
        with _summaries(Target(data)) as summaries:
            for count, each in enumerate(summaries, 1):
                if each.tid < since or stop.wait(0):
                    break
                file.write(line_of(each) + "\n")
                if count == number:
                    break


@contextlib.contextmanager
def _summaries(target: Target) -> Iterator[Iterator[Summary]]:
    # This takes longer to import than the help to show.
    from ZODB.interfaces import IStorageIteration

    from ...storage.newest_first import newest_first, newest_first_in_file, open_latest
    from ...storage.snapshot import check_existing

    files = target.files
    if files is not None:
        with contextlib.closing(open_latest(check_existing(files[0]))) as file:
            yield newest_first_in_file(file)
        return
    storage = target.open_read_only()
    with contextlib.closing(storage):
        if not IStorageIteration.providedBy(storage):
            raise UnsuitableStorage(
                f"{target} cannot be listed: it does not provide IStorageIteration"
            )
        with contextlib.closing(newest_first(storage)) as summaries:
            yield summaries


def _status_of(summary: Summary) -> str:
    return _STATUSES.get(summary.status, summary.status)


def _line_of(summary: Summary) -> str:
    status = _status_of(summary)
    parts = [
        f"0x{summary.tid.hex()}",
        f"{time_of(summary.tid):%Y-%m-%d %H:%M:%S.%f}",
        f"{summary.records:>6,} records",
        f"{summary.size:>11,} bytes",
        f"[{status}]" if status else "",
        escaped(summary.user) or "-",
        escaped(summary.description),
    ]
    return "  ".join(filter(None, parts))


def _json_of(summary: Summary) -> str:
    return json.dumps(
        {
            "tid": f"0x{summary.tid.hex()}",
            "time": f"{time_of(summary.tid):%Y-%m-%dT%H:%M:%S.%fZ}",
            "status": _status_of(summary) or "committed",
            "user": _decoded(summary.user),
            "description": _decoded(summary.description),
            "records": summary.records,
            "bytes": summary.size,
        }
    )


def escaped(text: bytes) -> str:
    """Return a text in one line: what is not printable, and a backslash, as in a Python literal."""
    return "".join(
        each if each.isprintable() and each != "\\" else _escape(each)
        for each in text.decode("utf-8", "surrogateescape")
    )


def _escape(character: str) -> str:
    if "\udc80" <= character <= "\udcff":
        # A byte that is not UTF-8.
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")


def _decoded(text: bytes) -> str:
    return text.decode("utf-8", "backslashreplace")
