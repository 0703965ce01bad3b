"""The arguments of the `zrs` command."""

from __future__ import annotations

import math
from typing import Any

import click
from rich.console import Console

from .. import __version__, settings
from ..errors import ConfigurationError
from ..options import (
    DEFAULT_CLOSE_TIMEOUT,
    DEFAULT_HANDSHAKE_TIMEOUT,
    DEFAULT_MAX_COMPARED_SIZE,
    DEFAULT_MAX_PEERS,
    DEFAULT_WRITE_TIMEOUT,
)
from ..storage.source import DEFAULT_POLL_INTERVAL
from . import restoring
from .arguments import Seconds
from .checking import check_nagios
from .connections import peer_timeout as _peer_timeout
from .connections import tls as _tls
from .connections import tls_options as _tls_options
from .connections import transport as _transport
from .demo import run_demo
from .dump import dump
from .output import LOG_FORMATS, Failed, console_for, errors_in_a_line
from .serving import follow_primary, serve_primary
from .snapshot import restore, snapshot
from .status import status
from .status_options import add_status_options, status_options
from .statuses import STATUSES
from .verify import verify

_EPILOG = (
    f"Exit status: {', '.join(f'{number} {meaning}' for number, meaning in STATUSES.items())}. "
    "Errors are one line on the standard error output."
)


class _Group(click.Group):
    def invoke(self, ctx: click.Context) -> Any:
        with errors_in_a_line():
            return super().invoke(ctx)


def _delays(context: click.Context, option: click.Parameter, value: str) -> tuple[float, float]:
    first, comma, longest = value.partition(",")
    try:
        delays = float(first), float(longest if comma else first)
        if all(map(math.isfinite, delays)):
            return delays
    except ValueError:
        pass
    raise click.BadParameter(
        f"{value!r} is neither a number of seconds nor two of them, as in '0.5,60'."
    )


def _size(context: click.Context, option: click.Parameter, value: str) -> int:
    try:
        return settings.max_compared_size(value)
    except ConfigurationError as error:
        raise click.BadParameter(f"{value!r}: {error}.") from error


_log_format = click.option(
    "--log-format",
    type=click.Choice(LOG_FORMATS),
    default="text",
    show_default=True,
    help="Print lines for people, or a JSON object for each.",
)


@click.group(cls=_Group, epilog=_EPILOG)
@click.version_option(__version__, prog_name="zrs")
def zrs() -> None:
    """Replicate ZODB databases: one primary, any number of read-only secondaries."""


@zrs.command(epilog=_EPILOG, short_help="Serve a database to secondaries.")
@click.argument("storage", metavar="STORAGE")
@click.option(
    "--listen",
    required=True,
    metavar="ADDRESS",
    help="Where secondaries connect to: HOST:PORT, :PORT, or the path of a Unix socket; port 0 "
    "lets the system choose one.",
)
@click.option(
    "--blobs", metavar="DIR", type=click.Path(), help="The blobs that belong to a FileStorage."
)
@click.option(
    "--poll-interval",
    type=float,
    default=DEFAULT_POLL_INTERVAL,
    show_default=True,
    metavar="SECONDS",
    help="Between two looks at what others have committed, where STORAGE is no FileStorage.",
)
@click.option(
    "--max-peers",
    type=int,
    default=DEFAULT_MAX_PEERS,
    show_default=True,
    metavar="NUMBER",
    help="Connections at once, at most; further ones are closed.",
)
@click.option(
    "--handshake-timeout",
    type=float,
    default=DEFAULT_HANDSHAKE_TIMEOUT,
    show_default=True,
    metavar="SECONDS",
    help="Within so long a peer that connects must have said who it is and where to start.",
)
@click.option(
    "--write-timeout",
    type=float,
    default=DEFAULT_WRITE_TIMEOUT,
    show_default=True,
    metavar="SECONDS",
    help="After so long a peer is disconnected that takes nothing of what it is sent.",
)
@_peer_timeout
@click.option(
    "--close-timeout",
    type=Seconds(min=0),
    default=DEFAULT_CLOSE_TIMEOUT,
    show_default=True,
    metavar="SECONDS",
    help="When stopped, let connected secondaries catch up for so long at most.",
)
@click.option(
    "--require-tls",
    is_flag=True,
    help="Do not listen without TLS where other machines can connect.",
)
@_log_format
@_transport
@_tls
@add_status_options
def primary(
    storage: str,
    listen: str,
    blobs: str | None,
    poll_interval: float,
    max_peers: int,
    handshake_timeout: float,
    write_timeout: float,
    peer_timeout: float,
    close_timeout: float,
    require_tls: bool,
    log_format: str,
    transport: str,
    status: str | None,
    status_max_lag: float | None,
    status_node: tuple[str, ...],
    **tls: Any,
) -> None:
    """Serve a database to secondaries, until SIGINT, SIGTERM or SIGHUP.

    STORAGE is the path of a FileStorage; or a file for ZConfig with a storage section, whose name
    ends in .conf, with #NAME behind it if there are several sections; or a URI for zodburi.

    A FileStorage must not be open elsewhere, so nothing is written to it meanwhile: to replicate
    one that is in use, let the application that uses it open it as a primary. A RelStorage may be
    in use: what others commit to it follows after --poll-interval.

    When stopped, it lets connected secondaries catch up, see --close-timeout; a second signal ends
    it at once.

    With --tls-certificate it speaks TLS, to any secondary; with --tls-ca or --tls-name too, only to
    those that have a certificate of their own. Without TLS, whoever can connect to ADDRESS can read
    the whole database; the log warns where other machines can.
    """
    serve_primary(
        console_for(log_format),
        storage,
        listen=listen,
        blobs=blobs,
        transport=transport,
        tls=_tls_options(**tls),
        poll_interval=poll_interval,
        max_peers=max_peers,
        handshake_timeout=handshake_timeout,
        write_timeout=write_timeout,
        peer_timeout=peer_timeout,
        close_timeout=close_timeout,
        require_tls=require_tls,
        status=status_options(status, status_max_lag, status_node),
    )


@zrs.command(epilog=_EPILOG, short_help="Replicate a primary into a database.")
@click.argument("address", metavar="ADDRESS")
@click.argument("storage", metavar="STORAGE")
@click.option(
    "--blobs",
    metavar="DIR",
    type=click.Path(),
    help="Where the blobs of a FileStorage go; a primary with blobs refuses a secondary without.",
)
@_log_format
@click.option(
    "--restore-if-missing",
    metavar="SNAPSHOT",
    type=click.Path(),
    help="If there is no STORAGE, first restore it from there, as `zrs restore` does.",
)
@_transport
@_tls
@click.option("--until-caught-up", is_flag=True, help="Exit once it has caught up.")
@click.option(
    "--quiet",
    type=Seconds(min=0, min_open=True),
    default=2.0,
    show_default=True,
    metavar="SECONDS",
    help="It counts as caught up when connected and nothing has come for so long.",
)
@click.option(
    "--reconnect-delay",
    callback=_delays,
    metavar="FIRST[,LONGEST]",
    default="0.5,60",
    show_default=True,
    help="Seconds before the first attempt to connect again, and at most.",
)
@click.option(
    "--max-compared-size",
    callback=_size,
    metavar="SIZE",
    default=f"{DEFAULT_MAX_COMPARED_SIZE >> 20}MB",
    show_default=True,
    help="Of the last transaction in STORAGE, so many bytes at most are sent again at each "
    "connection, to see whether the primary holds the same; 0 for none.",
)
@_peer_timeout
@add_status_options
def secondary(
    address: str,
    storage: str,
    blobs: str | None,
    log_format: str,
    restore_if_missing: str | None,
    transport: str,
    until_caught_up: bool,
    quiet: float,
    reconnect_delay: tuple[float, float],
    max_compared_size: int,
    peer_timeout: float,
    status: str | None,
    status_max_lag: float | None,
    status_node: tuple[str, ...],
    **tls: Any,
) -> None:
    """Replicate the primary at ADDRESS into a storage.

    ADDRESS is HOST:PORT, or the path of a Unix socket, with a / in it.

    STORAGE is the path of a FileStorage, which is made if it is not there; or a file for ZConfig
    with a storage section, whose name ends in .conf, with #NAME behind it if there are several
    sections; or a URI for zodburi. What is made there by ZConfig or zodburi brings its own blobs.

    The protocol does not say how much is to come, nor that all has come. So the bar shows how far
    the time of the last transaction has come between that of the first and now, and a secondary
    counts as caught up when it is connected, in the middle of no transaction, and nothing has
    come for a while (--quiet): a primary that is only slow looks the same.

    A primary that refuses a storage, since it holds other data or keeps no blobs, closes the
    connection without a word. If the first two connections end so, the exit status is 2. A primary
    that cannot be connected to is tried again and again; and so it is where STORAGE is empty and
    has blobs, which no primary refuses: there it is a tunnel that leads nowhere.

    What STORAGE holds as its last transaction is compared with what the primary sends of it, see
    --max-compared-size. If that differs, nothing is applied, and the exit status is 2.

    With any of the options --tls-... it speaks TLS. Without --tls-ca it relies on the authorities
    of the system; without --tls-name the certificate must be for the host of ADDRESS.
    """
    console = console_for(log_format)
    if restore_if_missing is not None:
        restoring.restore_if_missing(console, restore_if_missing, storage, blobs)
    follow_primary(
        console,
        address,
        storage,
        blobs=blobs,
        transport=transport,
        reconnect_delay=reconnect_delay,
        until_caught_up=until_caught_up,
        quiet=quiet,
        max_compared_size=max_compared_size,
        tls=_tls_options(**tls),
        peer_timeout=peer_timeout,
        status=status_options(status, status_max_lag, status_node),
    )


@zrs.command(epilog=_EPILOG, short_help="Show it all on this machine, and compare.")
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


zrs.add_command(status)
zrs.add_command(check_nagios)
zrs.add_command(snapshot)
zrs.add_command(restore)
zrs.add_command(dump)
zrs.add_command(verify)
