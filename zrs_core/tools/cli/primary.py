"""`zrs primary`."""

from __future__ import annotations

from typing import Any

import click

from ...options import (
    DEFAULT_CLOSE_TIMEOUT,
    DEFAULT_HANDSHAKE_TIMEOUT,
    DEFAULT_MAX_PEERS,
    DEFAULT_WRITE_TIMEOUT,
)
from ...storage.source import DEFAULT_POLL_INTERVAL
from .arguments import Seconds, log_format
from .connections import peer_timeout, tls, tls_options, transport
from .output import console_for
from .serving import serve_primary
from .status_options import add_status_options, status_options
from .statuses import EPILOG


@click.command(epilog=EPILOG, short_help="Serve a database to secondaries.")
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
@peer_timeout
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
@log_format
@transport
@tls
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
    status_host: tuple[str, ...],
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
        tls=tls_options(**tls),
        poll_interval=poll_interval,
        max_peers=max_peers,
        handshake_timeout=handshake_timeout,
        write_timeout=write_timeout,
        peer_timeout=peer_timeout,
        close_timeout=close_timeout,
        require_tls=require_tls,
        status=status_options(status, status_max_lag, status_node, status_host),
    )
