"""`zrs snapshot` and `zrs restore`."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import stat
import time
from collections.abc import Iterator
from typing import Any

import click
from rich.console import Console

from ...addresses import UnixAddress, parse_address
from ...errors import InvalidAddress, NotWritten
from ...held import PACKED
from ...messages import NO_TID
from ...options import ClientOptions
from ...sessions import ALARM_AFTER
from ..snapshots.ending import Ending
from ..snapshots.manifest import Manifest
from ..snapshots.receiving import Receiver
from ..snapshots.restoring import restore as restore_snapshot
from ..snapshots.taking import finish, now, snapshot_workspace, take_snapshot
from ..snapshots.workspace import Workspace
from .arguments import Seconds
from .connections import peer_timeout, tls, tls_options, transport
from .output import (
    Failed,
    Interrupted,
    Misconfigured,
    count,
    describe_last,
    lasting_console,
    logging_to,
    say,
    size,
)
from .progress import CatchUp, Meter, view
from .signals import Interruption
from .stages import stages

_EPILOG = """\
Exit status: 0 when done, 1 when it ran and failed or was interrupted, 2 for arguments, files or
addresses that cannot work. Errors are one line on the standard error output.
"""

#: Seconds between two looks at what has come.
_INTERVAL = 0.05

#: Seconds between attempts to connect again.
_RECONNECT_DELAY = (0.2, 2.0)

#: Seconds without anything from a primary after which it is given up.
_PATIENCE = 60.0


@click.command(epilog=_EPILOG, short_help="Take a consistent copy of a live database.")
@click.argument("source", metavar="ADDRESS_OR_FILE")
@click.argument("destination", metavar="DEST")
@click.option(
    "--blobs",
    metavar="DIR",
    type=click.Path(),
    help="The blobs that belong to FILE.  [default: blobs beside it, if that is there]",
)
@click.option("--replace", is_flag=True, help="Put it in the place of a snapshot that is there.")
@click.option(
    "--quiet",
    type=Seconds(min=0, min_open=True, max=_PATIENCE / 2),
    default=5.0,
    show_default=True,
    metavar="SECONDS",
    help="ADDRESS has sent all when connected and nothing has come for so long. A primary that is "
    "never quiet is asked again for what it has just sent, to find out whether that was all.",
)
@transport
@peer_timeout
@tls
def snapshot(
    source: str,
    destination: str,
    blobs: str | None,
    replace: bool,
    quiet: float,
    transport: str,
    peer_timeout: float,
    **options: Any,
) -> None:
    """Take a snapshot of a database, as of its last transaction, while it is in use.

    ADDRESS_OR_FILE is the path of a FileStorage, of a primary or a secondary, say, that goes on: it
    is read beside the process that has it open, without a lock. Or it is the address of a primary,
    HOST:PORT or the path of a Unix socket, from which everything is received, as by a secondary.

    DEST is the directory that the snapshot will be: a database, Data.fs and blobs, and
    snapshot.json, which says what it is. It is built beside DEST, read from end to end and compared
    with its source, written to disk, and renamed. However it ends, DEST is as it was or whole.

    Blobs of a FILE on the same file system are linked, and take no room there. Whatever else there
    is room for is found out before it is copied, but for what comes from an ADDRESS: nobody tells
    how much that will be.

    From an ADDRESS comes all that was committed before the command was given, and more. It ends
    when nothing has come for a while (--quiet), or at a time at which the primary had sent all, and
    never within what a pack has changed meanwhile.
    """
    console = lasting_console()
    is_file = _is_file(source)
    with _ending_well(destination) as interruption, logging_to(console, logging.CRITICAL):
        if is_file:
            if any(options.values()):
                raise click.UsageError("--tls-... belong to an ADDRESS, and this is a FILE.")
            with stages(console, interruption) as report:
                manifest = take_snapshot(source, blobs, destination, report, replace=replace)
        else:
            if blobs is not None:
                raise click.UsageError("--blobs belongs to a FILE, and this is an ADDRESS.")
            settings = ClientOptions(
                reconnect_delay=_RECONNECT_DELAY,
                tls=tls_options(**options),
                peer_timeout=peer_timeout,
                durability="none",
            )
            with snapshot_workspace(destination, replace=replace) as workspace:
                receiver = Receiver(source, transport, settings, workspace.new)
                manifest = _receive(console, receiver, workspace, quiet, interruption)
    last = "no transaction yet" if manifest.tid is None else f"{manifest.tid} ({manifest.time})"
    say(console, f"{destination} is a snapshot of {source}; last is {last}, {_sizes(manifest)}")
    if manifest.missing_blobs:
        missing = count(manifest.missing_blobs, "blob")
        say(console, f"Not in it, since {source} does not have them: {missing}")


@click.command(epilog=_EPILOG, short_help="Make a database of a snapshot.")
@click.argument("source", metavar="SNAPSHOT")
@click.argument("destination", metavar="DEST")
@click.option(
    "--until",
    metavar="TIME_OR_TID",
    help="As it was then: with all transactions up to a time, in ISO 8601 and in UTC unless it "
    "says otherwise, such as 2026-01-31T12:00:00 or 2026-01-31T13:00:00+01:00; or up to a tid, 0x "
    "and 16 hex digits.",
)
def restore(source: str, destination: str, until: str | None) -> None:
    """Make a database, Data.fs and blobs in the directory DEST, of a snapshot.

    DEST must not be there, or be empty: nothing is ever replaced. The snapshot is compared with
    what it says of itself, and the database with the snapshot, before it gets its name. Blobs are
    linked where DEST is on the file system of the snapshot.
    """
    restore_to(lasting_console(), source, destination, until)


def restore_to(console: Console, source: str, destination: str, until: str | None) -> None:
    """What `zrs restore` does."""
    with _ending_well(destination) as interruption, logging_to(console, logging.CRITICAL):
        with stages(console, interruption) as report:
            contents = restore_snapshot(source, destination, until, report)
    transactions = count(contents.transactions, "transaction")
    last = describe_last(contents.tid)
    say(console, f"{destination} is restored from {source}: {transactions}; last is {last}")


def _is_file(source: str) -> bool:
    """Whether a path is meant, and not an address.

    :raises Misconfigured: neither.
    """
    # A pack leaves it without its name for a moment.
    for path in (source, source + ".pack"):
        if os.path.exists(path):
            return not stat.S_ISSOCK(os.stat(path).st_mode)
    try:
        address = parse_address(source)
    except InvalidAddress as error:
        raise Misconfigured(f"there is no file {source}; as an address: {error}") from error
    if isinstance(address, UnixAddress):
        raise Misconfigured(f"there is neither a FileStorage nor the socket of a primary: {source}")
    return False


@contextlib.contextmanager
def _ending_well(destination: str) -> Iterator[Interruption]:
    """Say in a line what has kept something from being made."""
    try:
        with Interruption() as interruption:
            yield interruption
    except KeyboardInterrupt as error:
        raise Interrupted(f"interrupted; nothing half-written is left at {destination}") from error
    except (NotWritten, OSError) as error:
        cause = error.__cause__ if isinstance(error, NotWritten) else error
        if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT):
            raise Failed(
                f"{destination} was not made: there is no room left ({cause.strerror})"
            ) from error
        raise


def _sizes(manifest: Manifest) -> str:
    return (
        f"{count(manifest.transactions, 'transaction')}, {size(manifest.data_size)}, "
        f"{count(manifest.blobs, 'blob')}, {size(manifest.blobs_size)}"
    )


def _receive(
    console: Console,
    receiver: Receiver,
    workspace: Workspace,
    quiet: float,
    interruption: Interruption,
) -> Manifest:
    taken = now()
    with interruption.deferred(), receiver:
        ending = Ending(receiver, interruption.check)
        while True:
            with receiver.receiving():
                _catch_up(console, receiver, ending, quiet, interruption)
            # More may have come before it was stopped.
            if ending.is_state():
                break
    with stages(console, interruption) as report:
        contents = receiver.check(report)
    return finish(workspace, contents, str(receiver.address), taken)


def _catch_up(
    console: Console,
    receiver: Receiver,
    ending: Ending,
    quiet: float,
    interruption: Interruption,
) -> None:
    """Return when what was received may be a snapshot.

    :raises Failed: nothing comes, or nothing that can be used.
    """
    progress, address = receiver.progress, receiver.address
    caught_up, meter = CatchUp(progress, quiet), Meter(progress)
    last, deadline, looks = -1, 0.0, 0
    with view(console, str(address)) as shown:
        while True:
            interruption.check()
            if progress.failures >= ALARM_AFTER or progress.stopped is not None:
                raise Failed(f"{address}: {progress.failure or progress.stopped}")
            if progress.last_error is not None and not progress.connections:
                raise Misconfigured(f"{address} cannot be connected to: {progress.last_error}")
            # Twice: this process may have been stopped, and what has come meanwhile not been read.
            looks = looks + 1 if caught_up.done() else 0
            if looks > 1 and progress.tid == NO_TID:
                raise Failed(f"{address} sends nothing: its database is empty, or it is no primary")
            if (looks > 1 or ending.has_kept_up()) and ending.is_state():
                return
            clock = time.monotonic()
            if progress.bytes != last:
                last, deadline = progress.bytes, clock + _PATIENCE
            elif clock > deadline:
                raise Failed(_nothing_more(receiver))
            shown.show(meter.sample(), progress.connected)
            time.sleep(_INTERVAL)


def _nothing_more(receiver: Receiver) -> str:
    text = f"{receiver.address} has sent nothing for {_PATIENCE:.0f} seconds"
    if receiver.received.status == PACKED:
        return (
            f"{text}, and it cannot be told whether that is all that a pack has left: take the "
            "snapshot again after the next commit"
        )
    return text
