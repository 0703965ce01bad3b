"""`zrs primary` and `zrs secondary`: a storage that replicates until it is told to stop."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator
from typing import Any

from rich.console import Console
from ZODB.interfaces import IBlobStorage

from ...errors import ConfigurationError
from ...messages import NO_TID
from ...monitor.options import StatusOptions
from ...monitor.server import StatusServer
from ...monitor.supervision import notify
from ...primary import Primary
from ...progress import Progress, State
from ...secondary import Secondary, address_of_primary
from ...storage.fs_last_tid import establish_opened
from ...storage.preparing import undo_unfinished_pack
from ...storage.snapshot import check_existing, check_existing_blobs
from ...transports import connector_factory
from .output import Failed, Misconfigured, count, describe_last, logging_to, say, size
from .progress import CatchUp, Meter, view
from .signals import StopSignals
from .targets import Target

#: Seconds between two looks at what a secondary has received.
_INTERVAL = 0.1

#: So many connections closed without a byte, at the very beginning, are taken for an answer.
_REFUSALS = 2

#: What no further attempt changes.
_FINAL = (State.STOPPED, State.DIVERGED)


def serve_primary(
    console: Console,
    source: str,
    *,
    listen: str,
    blobs: str | None,
    transport: str,
    status: StatusOptions | None = None,
    **options: Any,
) -> None:
    """Serve the storage that `source` names until SIGINT, SIGTERM or SIGHUP.

    :param status: where to serve its status; None for nowhere.
    :param options: those of `Primary`, as they are.
    :raises ConfigurationError: as `Primary` and `Target`; and where a path leads to nothing.
    :raises ListenError: the address cannot be listened on.
    """
    _check_transport(transport)
    target = Target(source)
    if target.path is not None:
        # A primary that nobody could ever write to is a mistyped path.
        undo_unfinished_pack(target.path)
        check_existing(target.path)
    check_existing_blobs(blobs)
    with StopSignals() as stop, logging_to(console, logging.WARNING) as handler:
        with _opened(target, blobs, handler) as storage:
            primary = Primary(
                storage,
                listen,
                blob_dir=blobs,
                transport=transport,
                **options,
            )
        with contextlib.closing(primary) as it:
            _serve_status(console, it, status)
            # Before all that happens then, for those who wait for it to learn the port.
            say(console, f"Serving {target} on {it.replication_address}")
            notify("READY=1")
            handler.setLevel(logging.INFO)
            stop.wait()
            notify("STOPPING=1")
            last = it.lastTransaction()
    say(console, f"Stopped serving {target}; last is {describe_last(last)}")


def _serve_status(
    console: Console, storage: Primary | Secondary, status: StatusOptions | None
) -> None:
    """Serve a storage's status from now on until it is closed."""
    if status is not None:
        server = StatusServer(
            storage,
            status.where,
            max_lag=status.max_lag,
            nodes=status.others,
            hosts=status.host_names,
        )
        storage.on_close(server.close)
        say(console, f"Status at {server.url}")


@contextlib.contextmanager
def _opened(target: Target, blobs: str | None, handler: logging.Handler) -> Iterator[Any]:
    """The storage, or its path; it is closed again if what is made of it fails."""
    level = handler.level
    # A storage that cannot be opened may log what its error says too.
    handler.setLevel(logging.CRITICAL)
    storage = target.open(blobs)
    handler.setLevel(level)
    try:
        if target.path is None:
            establish_opened(storage)
        yield storage
    except BaseException:
        if target.path is None:
            storage.close()
        raise


def follow_primary(
    console: Console,
    address: str,
    destination: str,
    *,
    blobs: str | None,
    transport: str,
    reconnect_delay: tuple[float, float],
    until_caught_up: bool,
    quiet: float,
    status: StatusOptions | None = None,
    **options: Any,
) -> None:
    """Replicate into what `destination` names until it is told to stop, or has caught up.

    :param status: where to serve its status; None for nowhere.
    :param options: those of `Secondary`, as they are.
    :raises ConfigurationError: as `Secondary` and `Target`.
    :raises Misconfigured: the primary seems to refuse the storage.
    :raises Failed: `until_caught_up`, and it never will: the disk has failed, or histories differ.
    """
    check_following(address, transport)
    target = Target(destination)
    with StopSignals() as stop, logging_to(console, logging.INFO) as handler:
        with _opened(target, blobs, handler) as storage:
            secondary = Secondary(
                storage,
                address,
                blob_dir=blobs,
                transport=transport,
                reconnect_delay=reconnect_delay,
                **options,
            )
        with contextlib.closing(secondary):
            _serve_status(console, secondary, status)
            # Not only when it has caught up: the primary may not be there for long.
            notify("READY=1")
            progress = secondary.progress
            begin, first = time.monotonic(), progress.tid
            caught_up = CatchUp(progress, quiet)
            if _catch_up(
                console, stop, secondary, caught_up, target, until_caught_up=until_caught_up
            ):
                seconds = time.monotonic() - begin
                new = "up to date" if progress.tid == first else _received(progress, seconds)
                say(console, f"Caught up: {new}; last is {describe_last(progress.tid)}")
                if not until_caught_up:
                    _follow(console, stop, progress, caught_up)
            notify("STOPPING=1")
    say(console, f"Stopped replicating into {target}; last is {describe_last(progress.tid)}")


def check_following(address: str, transport: str) -> None:
    """Whether there may be a primary at `address`, by a transport that there is.

    :raises ConfigurationError: as `Secondary`; and for a transport within one process.
    """
    address_of_primary(address)
    _check_transport(transport)
    connector_factory(transport)


def _check_transport(name: str) -> None:
    if name == "memory":
        raise ConfigurationError(
            "the transport 'memory' works within one process alone: give another one, "
            "such as 'twisted-tcp'"
        )


def _catch_up(
    console: Console,
    stop: StopSignals,
    secondary: Secondary,
    caught_up: CatchUp,
    target: Target,
    *,
    until_caught_up: bool,
) -> bool:
    """Show progress until it has caught up; False if it was stopped before.

    :raises Misconfigured: the primary refuses the storage, or holds other data.
    :raises Failed: it never will, and nobody wants it to go on.
    """
    progress = secondary.progress
    # No primary refuses an empty storage with blobs. What closes then is a tunnel, say, that finds
    # nobody at its far end.
    may_be_refused = progress.tid != NO_TID or not IBlobStorage.providedBy(secondary)
    meter = Meter(progress)
    with view(console, str(secondary.replication_address)) as shown:
        while not stop.wait(_INTERVAL):
            if may_be_refused and _is_refused(progress):
                raise Misconfigured(_refusal(secondary, target))
            if progress.state is State.DIVERGED and not progress.transactions:
                raise Misconfigured(f"{secondary.replication_address}: {progress.failure}")
            if caught_up.done():
                return True
            if until_caught_up and progress.state in _FINAL:
                raise Failed(f"{secondary.replication_address}: {progress.failure}")
            shown.show(meter.sample(), progress.connected)
    return False


def _is_refused(progress: Progress) -> bool:
    if progress.searching:
        # It will show whether the histories have diverged.
        return False
    again_and_again = progress.refusals >= _REFUSALS and progress.refusals == progress.connections
    late = progress.state is State.REFUSED and progress.failures >= _REFUSALS
    return again_and_again or (late and not progress.transactions)


def _follow(console: Console, stop: StopSignals, progress: Progress, caught_up: CatchUp) -> None:
    """Say when it has caught up again after the connection was lost; the log says the rest."""
    connections = progress.connections
    while not stop.wait(_INTERVAL):
        if progress.connections != connections and caught_up.done():
            connections = progress.connections
            say(console, f"Caught up again; last is {describe_last(progress.tid)}")


def _received(progress: Progress, seconds: float) -> str:
    rate = size(progress.bytes / seconds)
    transactions = count(progress.transactions, "transaction")
    return f"received {transactions}, {size(progress.bytes)} in {seconds:.1f} s ({rate}/s)"


def _refusal(secondary: Secondary, target: Target) -> str:
    tid = secondary.progress.tid
    text = f"{secondary.replication_address} closed the connection twice without sending anything "
    text += f"after the start of {target} ("
    text += "it is empty" if tid == NO_TID else f"its last transaction is {describe_last(tid)}"
    text += "), as a primary does that refuses a storage; the log there tells why. "
    text += "Check the address"
    if tid != NO_TID:
        text += "; if it holds other data, replicate into an empty one"
    if not IBlobStorage.providedBy(secondary):
        how = "needs --blobs DIR" if target.path is not None else "needs a storage with blobs"
        text += f"; a primary with blobs {how}"
    return text
