"""`zrs demo`: a primary here, a secondary in another process, a connection that is cut."""

from __future__ import annotations

import contextlib
import logging
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from ZODB import DB

from ...addresses import TCPAddress
from ...primary import Primary
from ...storage.compare import compare
from ...storage.comparison import Comparison
from ...storage.snapshot import check_existing, check_existing_blobs, copy_database
from .cutting import Cut, CuttingProxy
from .following import FileFollower, SecondaryProcess, transactions_in
from .output import Failed, count, logging_to, say, size
from .signals import Interruption
from .workload import Workload

_GENERATED_STEPS = 240
_LIVE_STEPS = 60
#: About what the live steps commit.
_LIVE_BYTES = 6_000_000
#: Where in the whole of what there is to send the connection is cut.
_CUTS = (0.3, 0.6)
#: Seconds without any progress of the secondary after which it is given up.
_PATIENCE = 60.0
_POLL_INTERVAL = 0.05
_MOST_DIFFERENCES = 20


@dataclass
class _Moved:
    """What the run has to tell in the end: `live` commits, of them `behind` while the secondary
    did not even hold what was there before the first of them.
    """

    live: int = 0
    behind: int = 0
    cuts: int = 0
    bytes: int = 0
    seconds: float = 0.0


def run_demo(console: Console, source: str | None, blobs: str | None) -> bool:
    """Run the demonstration; whether the two sides are equal in the end.

    :raises UnsuitableStorage: there is no FileStorage at `source`, or no directory `blobs`.
    :raises DamagedFile: the source is damaged.
    :raises Failed: the secondary has stopped, or does not get on.
    """
    if source is not None:
        check_existing(source)
        check_existing_blobs(blobs)
    with Interruption() as interruption, logging_to(console, logging.WARNING):
        with tempfile.TemporaryDirectory(prefix="zrs-demo-") as directory:
            ours, theirs = Path(directory, "primary"), Path(directory, "secondary")
            ours.mkdir()
            theirs.mkdir()
            if source is not None:
                say(console, f"Copying {source}")
                copy_database(source, blobs, ours / "Data.fs", ours / "blobs")
            with _bars(console) as bars:
                moved = _Demo(console, bars, interruption, ours, theirs).run(
                    generate=source is None
                )
            say(console, "Comparing both sides, record by record and blob by blob")
            result = compare(
                ours / "Data.fs",
                theirs / "Data.fs",
                primary_blobs=ours / "blobs",
                secondary_blobs=theirs / "blobs",
                max_differences=_MOST_DIFFERENCES,
            )
    for difference in result.differences:
        say(console, f"Different: {difference}")
    console.print(_table(moved, result))
    return result.equal


def _bars(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        disable=not console.is_terminal,
    )


class _Demo:
    """One run, over empty directories but for a database to be replicated, perhaps."""

    def __init__(
        self,
        console: Console,
        bars: Progress,
        interruption: Interruption,
        ours: Path,
        theirs: Path,
    ) -> None:
        self._console = console
        self._bars = bars
        self._interruption = interruption
        self._ours = ours
        self._theirs = theirs
        self._moved = _Moved()

    def run(self, *, generate: bool) -> _Moved:
        with contextlib.ExitStack() as stack:
            path, blobs = str(self._ours / "Data.fs"), str(self._ours / "blobs")
            primary = Primary(path, "127.0.0.1:0", blob_dir=blobs)
            stack.callback(primary.close)
            db = DB(primary)
            stack.callback(db.close)
            if generate:
                self._generate(db)
            own = stack.enter_context(contextlib.closing(FileFollower(path)))
            own.update()
            there = sum(each.stat().st_size for each in self._ours.rglob("*") if each.is_file())
            self._say(f"The primary has {count(own.transactions, 'transaction')}, {size(there)}")
            cut_at = [int((there + _LIVE_BYTES) * part) for part in _CUTS]
            listening = cast(TCPAddress, primary.replication_address)
            proxy = stack.enter_context(CuttingProxy(listening, cut_at, self._cut))
            host, port = proxy.address
            secondary = stack.enter_context(SecondaryProcess(f"{host}:{port}", self._theirs))
            self._say("A secondary in another process replicates it through a proxy")
            self._replicate(db, own, proxy, secondary)
            secondary.stop()
            self._moved.bytes = proxy.forwarded
        return self._moved

    def _say(self, text: str) -> None:
        say(self._console, text)

    def _generate(self, db: DB) -> None:
        self._say("Generating a database")
        bar = self._bars.add_task("Generating", total=_GENERATED_STEPS)
        with contextlib.closing(Workload(db, seed=1)) as workload:
            for number in workload.run(_GENERATED_STEPS):
                self._interruption.check()
                self._bars.update(bar, completed=number)

    def _cut(self, cut: Cut) -> None:
        held, all_ = (transactions_in(each / "Data.fs") for each in (self._theirs, self._ours))
        self._moved.cuts += 1
        self._say(
            f"Cut the connection after {size(cut.forwarded)}, with {size(cut.withheld)} on its "
            f"way: the secondary holds {held:,} of {count(all_, 'transaction')}"
        )

    def _replicate(
        self, db: DB, own: FileFollower, proxy: CuttingProxy, secondary: SecondaryProcess
    ) -> None:
        """Commit while the secondary catches up, and wait until it has."""
        moved, before = self._moved, own.transactions
        replicating = self._bars.add_task("Replicating transactions", total=before)
        committing = self._bars.add_task("Committing meanwhile", total=_LIVE_STEPS)
        with (
            contextlib.closing(FileFollower(self._theirs / "Data.fs")) as theirs,
            contextlib.closing(Workload(db, seed=2)) as workload,
        ):

            def caught_up() -> bool:
                own.update()
                theirs.update()
                self._bars.update(
                    replicating, completed=theirs.transactions, total=own.transactions
                )
                return theirs.tid == own.tid

            self._wait(secondary, proxy, lambda: proxy.forwarded > 0)
            begin = time.monotonic()
            for number in workload.run(_LIVE_STEPS):
                self._interruption.check()
                caught_up()
                moved.live = own.transactions - before
                if theirs.transactions < before:
                    moved.behind = moved.live
                self._bars.update(committing, completed=number)
            self._wait(secondary, proxy, caught_up)
            moved.seconds = time.monotonic() - begin

    def _wait(
        self, secondary: SecondaryProcess, proxy: CuttingProxy, condition: Callable[[], bool]
    ) -> None:
        """:raises Failed: the secondary stops, or nothing moves any more."""
        last, deadline = -1, 0.0
        while not condition():
            self._interruption.check()
            secondary.check()
            now = time.monotonic()
            if proxy.forwarded != last:
                last, deadline = proxy.forwarded, now + _PATIENCE
            elif now > deadline:
                raise secondary.failed(f"has received nothing for {_PATIENCE:.0f} seconds")
            time.sleep(_POLL_INTERVAL)


def _table(moved: _Moved, result: Comparison) -> Table:
    table = Table(title="What was moved", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    missing = ("Blobs missing on both sides", f"{result.missing_blobs:,}")
    for name, value in (
        ("Transactions", f"{result.transactions:,}"),
        ("Records", f"{result.records:,}"),
        ("Blobs", f"{result.blobs:,}"),
        *([missing] if result.missing_blobs else []),
        ("Bytes of records and blobs", size(result.bytes)),
        ("Bytes through the network", size(moved.bytes)),
        ("Seconds", f"{moved.seconds:.1f}"),
        ("Rate", f"{moved.bytes / moved.seconds / 1e6:.1f} MB/s"),
        ("Live commits", f"{moved.live:,}"),
        ("of these while the secondary was behind", f"{moved.behind:,}"),
        ("Cuts of the connection", f"{moved.cuts:,}"),
        ("Both sides", "equal" if result.equal else _different(result)),
    ):
        table.add_row(name, value)
    return table


def _different(result: Comparison) -> str:
    more = "" if result.complete else " or more"
    return f"NOT EQUAL: {count(len(result.differences), 'difference')}{more}"


_EPILOG = """\
Exit status: 0 when both sides are equal, 1 when they are not, when it failed or was interrupted, 2
for files that cannot work. Errors are one line on the standard error output.
"""


@click.command(epilog=_EPILOG, short_help="Show it all on this machine, and compare.")
@click.option(
    "--source",
    metavar="DATA.fs",
    type=click.Path(),
    help="A database to replicate a copy of; it is only read, and may be in use.",
)
@click.option("--blobs", metavar="DIR", type=click.Path(), help="The blobs that belong to it.")
def demo(source: str | None, blobs: str | None) -> None:
    """Replicate between two processes on this machine, cut the connection twice, and compare.

    This process is the primary: of a database that it generates, or of a copy of the one given.
    It commits small and large records, undo and blobs while a secondary in another process
    catches up. In the end both sides are compared, record by record and blob by blob: exit status
    0 if they are equal, else 1. All files are temporary.
    """
    if blobs is not None and source is None:
        raise click.UsageError("--blobs belongs to --source: give both.")
    if not run_demo(Console(), source, blobs):
        raise Failed("the two sides are not equal")
