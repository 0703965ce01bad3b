"""`zrs secondary`."""

from __future__ import annotations

import math
from typing import Any

import click

from ...config import table
from ...errors import ConfigurationError
from . import restoring
from .arguments import Seconds, log_format
from .connections import peer_timeout, tls, tls_options, transport
from .output import Interrupted, console_for, say
from .serving import check_following, follow_primary
from .status_options import add_status_options, status_options
from .statuses import EPILOG
from .table_options import option_of

_MAX_COMPARED_SIZE = table.SECONDARY["max_compared_size"]


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
        size: int = _MAX_COMPARED_SIZE.convert(value)
        return size
    except ConfigurationError as error:
        raise click.BadParameter(f"{value!r}: {error}.") from error


@click.command(epilog=EPILOG, short_help="Replicate a primary into a database.")
@click.argument("address", metavar="ADDRESS")
@click.argument("storage", metavar="STORAGE")
@option_of(
    table.BOTH["blob_dir"],
    metavar="DIR",
    type=click.Path(),
    help="Where the blobs of a FileStorage go; a primary with blobs refuses a secondary without.",
)
@log_format
@click.option(
    "--restore-if-missing",
    metavar="SNAPSHOT",
    type=click.Path(),
    help="If there is no STORAGE, first restore it from there, as `zrs restore` does.",
)
@transport
@tls
@click.option(
    "--until-caught-up",
    is_flag=True,
    help="Exit once it has caught up; with status 1 where the disk fails or the histories differ.",
)
@click.option(
    "--quiet",
    type=Seconds(min=0, min_open=True),
    default=2.0,
    show_default=True,
    metavar="SECONDS",
    help="It counts as caught up when connected and nothing has come for so long.",
)
@option_of(
    table.SECONDARY["reconnect_delay"],
    callback=_delays,
    metavar="FIRST[,LONGEST]",
    default="0.5,60",
    show_default=True,
)
@option_of(
    _MAX_COMPARED_SIZE,
    callback=_size,
    metavar="SIZE",
    default=_MAX_COMPARED_SIZE.default,
    show_default=True,
)
@option_of(table.SECONDARY["name"])
@peer_timeout
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
    name: str | None,
    peer_timeout: float,
    status: str | None,
    status_max_lag: float | None,
    status_node: tuple[str, ...],
    status_host: tuple[str, ...],
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
    tls_settings = tls_options(**tls)
    status_settings = status_options(status, status_max_lag, status_node, status_host)
    if restore_if_missing is not None:
        # What cannot work is told before anything is made.
        check_following(address, transport)
        try:
            restoring.restore_if_missing(console, restore_if_missing, storage, blobs)
        except Interrupted as error:
            say(console, f"Stopped: {error.format_message()}")
            return
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
        tls=tls_settings,
        name=name,
        peer_timeout=peer_timeout,
        status=status_settings,
    )
