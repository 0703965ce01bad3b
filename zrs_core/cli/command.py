"""The arguments of the `zrs` command."""

from __future__ import annotations

from typing import Any

import click
from rich.console import Console

from .. import __version__
from .demo import run_demo
from .output import Failed, errors_in_a_line
from .serving import follow_primary, serve_primary

_EPILOG = """\
Exit status: 0 when done or stopped by SIGINT or SIGTERM, 1 when it ran and failed, 2 for
arguments, files or addresses that cannot work. Errors are one line on the standard error output.
"""


class _Group(click.Group):
    def invoke(self, ctx: click.Context) -> Any:
        with errors_in_a_line():
            return super().invoke(ctx)


def _delays(context: click.Context, option: click.Parameter, value: str) -> tuple[float, float]:
    first, comma, longest = value.partition(",")
    try:
        return float(first), float(longest if comma else first)
    except ValueError as error:
        raise click.BadParameter(
            f"{value!r} is neither a number of seconds nor two of them, as in '0.5,60'."
        ) from error


_transport = click.option(
    "--transport", default="twisted-tcp", show_default=True, metavar="NAME", help="By its name."
)


@click.group(cls=_Group, epilog=_EPILOG)
@click.version_option(__version__, prog_name="zrs")
def zrs() -> None:
    """Replicate ZODB databases: one primary, any number of read-only secondaries."""


@zrs.command(epilog=_EPILOG, short_help="Serve a database to secondaries.")
@click.argument("data", metavar="DATA.fs", type=click.Path())
@click.option(
    "--listen",
    required=True,
    metavar="HOST:PORT",
    help="Where secondaries connect to; port 0 lets the system choose one.",
)
@click.option("--blobs", metavar="DIR", type=click.Path(), help="The blobs that belong to DATA.fs.")
@_transport
def primary(data: str, listen: str, blobs: str | None, transport: str) -> None:
    """Serve the database DATA.fs to secondaries, until SIGINT or SIGTERM.

    The database must not be open elsewhere, so nothing is written to it meanwhile: to replicate
    one that is in use, let the application that uses it open it as a primary.

    When stopped, it lets connected secondaries catch up, for 10 seconds at most; a second signal
    ends it at once.
    """
    serve_primary(Console(), data, listen=listen, blobs=blobs, transport=transport)


@zrs.command(epilog=_EPILOG, short_help="Replicate a primary into a database.")
@click.argument("address", metavar="HOST:PORT")
@click.argument("data", metavar="DATA.fs", type=click.Path())
@click.option(
    "--blobs",
    metavar="DIR",
    type=click.Path(),
    help="Where blobs go; a primary with blobs refuses a secondary without.",
)
@_transport
@click.option("--until-caught-up", is_flag=True, help="Exit once it has caught up.")
@click.option(
    "--quiet",
    type=click.FloatRange(min=0, min_open=True),
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
def secondary(
    address: str,
    data: str,
    blobs: str | None,
    transport: str,
    until_caught_up: bool,
    quiet: float,
    reconnect_delay: tuple[float, float],
) -> None:
    """Replicate the primary at HOST:PORT into DATA.fs, which is made if it is not there.

    The protocol does not say how much is to come, nor that all has come. So the bar shows how far
    the time of the last transaction has come between that of the first and now, and a secondary
    counts as caught up when it is connected, in the middle of no transaction, and nothing has
    come for a while (--quiet): a primary that is only slow looks the same.

    A primary that refuses a storage, since it holds other data or keeps no blobs, closes the
    connection without a word. If the first two connections end so, the exit status is 2. A primary
    that cannot be connected to is tried again and again.
    """
    follow_primary(
        Console(),
        address,
        data,
        blobs=blobs,
        transport=transport,
        reconnect_delay=reconnect_delay,
        until_caught_up=until_caught_up,
        quiet=quiet,
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
