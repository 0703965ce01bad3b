"""`zrs verify`: whether two databases hold the same."""

from __future__ import annotations

import contextlib
import json
import os
import stat
import sys
import time
import traceback
from collections.abc import Iterator
from typing import Any

import click
from rich.console import Console

from ...addresses import Address, TCPAddress, UnixAddress, check_path, parse_address
from ...errors import ConfigurationError, InvalidAddress
from ...messages import NO_TID
from ...storage.comparison import Difference
from ...tids import describe_tid
from ...tls import TLSOptions
from ..verify.report import Report
from ..verify.run import Options, Verification, Watch
from ..verify.sources import Source
from .arguments import Seconds
from .connections import tls, tls_options
from .output import Failed, Misconfigured, count, error_console, errors_in_a_line, size
from .signals import Interruption
from .targets import Target

#: Seconds between two times that the bar moves.
_INTERVAL = 0.1


@contextlib.contextmanager
def two_for_trouble() -> Iterator[None]:
    """Exit status 2 for whatever keeps it from being done: 1 says that the two differ.

    :raises Misconfigured: it could not be done.
    """
    try:
        with errors_in_a_line():
            yield
    except Misconfigured:
        raise
    except Failed as error:
        raise Misconfigured(error.format_message()) from error
    except KeyboardInterrupt:
        raise Misconfigured("interrupted") from None
    except BrokenPipeError:
        # Whoever read the output has left. Python would try to write the rest when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(2)
    except Exception:  # noqa: BLE001
        # Nobody has foreseen it; Python would end with 1.
        traceback.print_exc()
        sys.exit(2)


def run_verify(
    a: str,
    b: str,
    *,
    blobs: tuple[str | None, str | None],
    options: Options,
    state: str | None,
    as_json: bool,
    tls: TLSOptions | None,
) -> bool:
    """Compare, and print what came out; whether the two are equal.

    :param blobs: the directories of the blobs of A and B, where they are not known otherwise.
    :raises ConfigurationError: they cannot be compared.
    :raises Misconfigured: it was interrupted.
    """
    one, other = _source(a, blobs[0]), _source(b, blobs[1])
    begin = time.monotonic()
    with Interruption() as interruption, _bar(error_console()) as bar:

        def watch(what: str, done: int, total: int) -> None:
            interruption.check()
            bar(what, done, total)

        verification = Verification(one, other, options, watch, state=state, tls=tls)
        try:
            report = verification.run()
        except KeyboardInterrupt:
            raise Misconfigured(_interrupted(verification.report, state)) from None
    if as_json:
        names = one.name, other.name
        click.echo(json.dumps(_as_json(*names, report, verification.remark), indent=2))
    else:
        if verification.remark:
            click.echo(verification.remark)
        for line in _lines(report, time.monotonic() - begin):
            click.echo(line)
    return report.equal


# -- what is compared


def _source(text: str, blobs: str | None) -> Source:
    address = _address(text)
    if address is not None:
        _no_blobs(text, blobs)
        return Source(text, address=address)
    target = Target(text)
    files = target.files
    if files is not None:
        path, known = files
        return Source(text, path=path, blobs=blobs or known)
    _no_blobs(str(target), blobs)
    return Source(str(target), open=target.open_read_only)


def _no_blobs(name: str, blobs: str | None) -> None:
    if blobs is not None:
        raise ConfigurationError(
            f"{name} brings its own blobs: leave out {blobs}, which belongs to a FileStorage"
        )


def _address(text: str) -> Address | None:
    """A primary's address, if `text` is one: a socket that is there, or HOST:PORT."""
    is_socket = False
    with contextlib.suppress(OSError, ValueError):
        is_socket = stat.S_ISSOCK(os.stat(text).st_mode)
    if is_socket:
        return check_path(UnixAddress(text))
    if "/" in text or ":" not in text or os.path.exists(text):
        return None
    try:
        address = parse_address(text)
    except InvalidAddress:
        return None
    if isinstance(address, TCPAddress) and not address.port:
        raise InvalidAddress(f"invalid address {text!r}: nobody can listen at port 0")
    return address


# -- the bar


@contextlib.contextmanager
def _bar(console: Console) -> Iterator[Watch]:
    """Moves a bar on a terminal, and nothing elsewhere."""
    if not console.is_terminal or console.is_dumb_terminal:
        yield lambda what, done, total: None
        return
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bars:
        task = bars.add_task("Comparing", total=None)
        due = 0.0
        doing = ""

        def watch(what: str, done: int, total: int) -> None:
            nonlocal due, doing
            now = time.monotonic()
            if now < due:
                return
            due = now + _INTERVAL
            if what != doing:
                doing = what
                bars.reset(task, description=what)
            described = what if total else f"{what}: {done:,}"
            bars.update(task, description=described, completed=done, total=total or None)

        yield watch


# -- what is told


def _interrupted(report: Report, state: str | None) -> str:
    where = "before the first transaction"
    if report.last != NO_TID:
        where = f"after transaction {describe_tid(report.last)}"
    found = f", with {count(report.counts.total(), 'difference')} so far" if report.counts else ""
    further = f"; the same command goes on from {state}" if state is not None else ""
    return f"interrupted {where}{found}{further}"


def _lines(report: Report, seconds: float) -> Iterator[str]:
    for difference in report.differences:
        yield f"Different: {_describe(difference)}"
    total = report.counts.total()
    if total > len(report.differences):
        yield f"and {total - len(report.differences):,} more, see --list"
    yield f"Compared {_compared(report)} in {seconds:.1f} s"
    yield from _remarks(report)
    if report.equal:
        yield "A and B are equal"
        return
    first = report.first
    if first is not None:
        yield f"The first: {_describe(first)}"
    kinds = ", ".join(f"{number:,} {name}" for name, number in sorted(report.counts.items()))
    yield f"A and B are DIFFERENT: {kinds}"


def _describe(difference: Difference) -> str:
    return f"{difference.name}: {difference}"


def _compared(report: Report) -> str:
    parts = []
    if report.transactions or not report.records:
        parts.append(count(report.transactions, "transaction"))
    if report.records:
        parts.append(count(report.records, "current record"))
    if report.blobs_compared:
        parts.append(count(report.blobs, "blob"))
    until = "" if report.last == NO_TID else f", up to {describe_tid(report.last)},"
    return f"{', '.join(parts)}, {size(report.size)}{until}"


def _remarks(report: Report) -> Iterator[str]:
    if report.packs is not None:
        yield (
            f"{_packed('A', report.packs[0])}, {_packed('B', report.packs[1])}: objects were "
            f"compared as of {describe_tid(max(report.packs))}, and all transactions after that"
        )
    elif report.packed:
        yield (
            "A and B were packed up to different transactions, and a file is too damaged for its "
            "objects to be compared: transactions that a pack has removed count as differences"
        )
    if not report.blobs_compared:
        yield "Blobs were not compared: A, B or both have none, or --blobs-a and --blobs-b lack"
    for name, number in zip("AB", report.beyond, strict=True):
        if number:
            transactions = count(number, "transaction")
            yield f"{name} has {transactions} after that, which were left out"
    if report.garbage:
        yield (
            f"{count(report.garbage, 'object')} that one side alone has cannot be reached there; "
            "a pack would remove them"
        )
    if not report.complete:
        yield "The comparison was given up where a file is too damaged to go on"


def _tid(tid: bytes) -> str | None:
    return None if tid == NO_TID else f"0x{tid.hex()}"


def _packed(name: str, tid: bytes) -> str:
    return (
        f"{name} was not packed" if tid == NO_TID else f"{name} was packed to {describe_tid(tid)}"
    )


def _as_json(a: str, b: str, report: Report, remark: str) -> dict[str, Any]:
    def difference(each: Difference | None) -> dict[str, Any] | None:
        if each is None:
            return None
        oid = None if each.oid is None else f"0x{each.oid.hex()}"
        tid = f"0x{each.tid.hex()}"
        return {"kind": each.name, "tid": tid, "oid": oid, "text": each.text}

    return {
        "a": a,
        "b": b,
        "equal": report.equal,
        "complete": report.complete,
        "last": _tid(report.last),
        "compared": {
            "transactions": report.transactions,
            "current_records": report.records,
            "blobs": report.blobs if report.blobs_compared else None,
            "bytes": report.size,
        },
        "packed": None
        if report.packs is None
        else dict(zip("ab", map(_tid, report.packs), strict=True)),
        "left_out": {"a": report.beyond[0], "b": report.beyond[1], "garbage": report.garbage},
        "counts": dict(sorted(report.counts.items())),
        "first": difference(report.first),
        "differences": [difference(each) for each in report.differences],
        "remarks": [*([remark] if remark else []), *_remarks(report)],
    }


# -- the command

_EPILOG = """\
Exit status: 0 when A and B are equal, 1 when they differ or references dangle, 2 when that could
not be found out: for arguments, files or addresses that cannot work, or when interrupted. Errors
are one line on the standard error output.
"""


@click.command(epilog=_EPILOG, short_help="Compare two databases: transactions, records, blobs.")
@click.argument("a", metavar="A")
@click.argument("b", metavar="B")
@click.option("--blobs-a", metavar="DIR", type=click.Path(), help="The blobs of a FileStorage A.")
@click.option("--blobs-b", metavar="DIR", type=click.Path(), help="The blobs of a FileStorage B.")
@click.option(
    "--current",
    is_flag=True,
    help="Compare the current revisions of objects alone, as where one side was packed.",
)
@click.option(
    "--common",
    is_flag=True,
    help="What one side has after the last transaction of the other is no difference, as where "
    "a secondary may be behind.",
)
@click.option("--deep", is_flag=True, help="Look for references to objects that are not there too.")
@click.option(
    "--wait",
    type=Seconds(min=0),
    default=Options.wait,
    show_default=True,
    metavar="SECONDS",
    help="So long one side may take to get what the other has at its end; and a primary that has "
    "sent nothing for so long has sent all.",
)
@click.option(
    "--state",
    metavar="FILE",
    type=click.Path(dir_okay=False),
    help="Keep in FILE how far it is, and go on from there if it was interrupted; removed in the "
    "end.",
)
@click.option(
    "--list",
    "listed",
    type=click.IntRange(min=1),
    default=Options.listed,
    show_default=True,
    metavar="NUMBER",
    help="Tell so many differences one by one; all are counted.",
)
@click.option(
    "--jobs",
    type=click.IntRange(1, 64),
    default=Options.jobs,
    show_default=True,
    metavar="NUMBER",
    help="Threads that read.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@tls
def verify(
    a: str,
    b: str,
    blobs_a: str | None,
    blobs_b: str | None,
    state: str | None,
    as_json: bool,
    current: bool,
    common: bool,
    deep: bool,
    wait: float,
    jobs: int,
    listed: int,
    **tls: Any,
) -> None:
    """Compare two databases, A and B, without writing to either.

    Each is the path of a FileStorage; or a file for ZConfig with a storage section, whose name ends
    in .conf, with #NAME behind it if there are several sections; or a URI for zodburi. One may be
    the address of a running primary, HOST:PORT or the path of its socket, where the other one is a
    FileStorage.

    Tids, meta data, records and blobs are compared. All differences are told by kind and number,
    the first ones with their place. FileStorages may be in use: what is not finished in them is
    not seen.

    With any of the options --tls-... it speaks TLS to the primary, as zrs secondary does.
    """
    with two_for_trouble():
        equal = run_verify(
            a,
            b,
            blobs=(blobs_a, blobs_b),
            options=Options(current, common, deep, wait, jobs, listed),
            state=state,
            as_json=as_json,
            tls=tls_options(**tls),
        )
    if not equal:
        sys.exit(1)
