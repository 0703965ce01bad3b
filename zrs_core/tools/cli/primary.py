"""`zrs primary`."""

from __future__ import annotations

from typing import Any

import click

from ...config import table
from .arguments import Seconds, log_format
from .connections import peer_timeout, tls, tls_options, transport
from .output import console_for
from .serving import serve_primary
from .status_options import add_status_options, status_options
from .statuses import EPILOG
from .table_options import number_of, option_of


@click.command(epilog=EPILOG, short_help="Serve a database to secondaries.")
@click.argument("storage", metavar="STORAGE")
@click.option(
    "--listen",
    required=True,
    metavar="ADDRESS",
    help="Where secondaries connect to: HOST:PORT, :PORT, or the path of a Unix socket; port 0 "
    "lets the system choose one.",
)
@option_of(
    table.BOTH["blob_dir"],
    metavar="DIR",
    type=click.Path(),
    help="The blobs that belong to a FileStorage.",
)
@number_of(table.PRIMARY["poll_interval"])
@number_of(table.PRIMARY["max_peers"])
@number_of(table.PRIMARY["handshake_timeout"])
@number_of(table.PRIMARY["write_timeout"])
@peer_timeout
@number_of(table.PRIMARY["close_timeout"], type=Seconds(min=0))
@option_of(table.PRIMARY["require_tls"], is_flag=True, metavar=None)
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
