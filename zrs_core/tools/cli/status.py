"""`zrs status`: what status servers say, as a table, as JSON, or live."""

from __future__ import annotations

import json
from collections.abc import Sequence

import click
from rich.console import Console

from ...errors import ConfigurationError
from ...monitor.fetch import StatusAddress, fetch_all, parse_status_address
from .answers import distances, document, node
from .arguments import Seconds
from .output import complain, lasting_console
from .overview import overview
from .words import plain

#: Exit statuses besides 0.
NOT_IN_SYNC = 1
NOT_ASKED = 2

EPILOG = """\
Exit status: 0 when all nodes are in sync, 1 when one is not or the result cannot be printed, 2 when
an address could not be asked (whatever the others say), or for arguments that cannot work. A
secondary is not in sync when it is not ready, when its state is failing, refused, diverged or
stopped, or when its status server asks that of the primary, and gets no answer; a primary when it
is not ready. With --watch: 0 when stopped by SIGINT (Ctrl-C) or SIGTERM.
"""


def _addresses(
    context: click.Context, argument: click.Parameter, value: tuple[str, ...]
) -> list[StatusAddress]:
    try:
        # One that is given twice is asked once.
        return [parse_status_address(each) for each in dict.fromkeys(value)]
    except ConfigurationError as error:
        raise click.BadParameter(f"{error}.") from error


@click.command(epilog=EPILOG, short_help="Show how nodes are doing.")
@click.argument("addresses", metavar="ADDRESS...", nargs=-1, required=True, callback=_addresses)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document, for scripts.")
@click.option("--watch", is_flag=True, help="Go on, until SIGINT or SIGTERM.")
@click.option(
    "--interval",
    type=Seconds(0.1, 3600),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="With --watch, between two questions.",
)
@click.option(
    "--timeout",
    type=Seconds(0.01, 3600),
    default=5.0,
    show_default=True,
    metavar="SECONDS",
    help="Within so long an address must have answered.",
)
def status(
    addresses: Sequence[StatusAddress], as_json: bool, watch: bool, interval: float, timeout: float
) -> None:
    """Ask status servers how their primaries and secondaries are doing.

    ADDRESS is where a status server listens (option --status of `zrs primary` and `zrs secondary`,
    key status-address in ZConfig): HOST:PORT, :PORT, the path of a Unix socket, or a URL
    http://... All are asked at once.

    A secondary knows its lag while the primary sends. When nothing comes it knows only that there
    is no news: give the address of the primary too, and how far the two are apart is shown.

    --watch shows all that live, with the lag of the last minutes as a plot. Where the output is no
    terminal it prints a line for each address, or with --json a document, at each interval.
    """
    if watch:
        from .watching import watch as run

        run(lasting_console(), addresses, interval=interval, timeout=timeout, as_json=as_json)
        return
    answers = fetch_all(addresses, timeout)
    nodes = [node(*each) for each in zip(addresses, answers, strict=True)]
    apart = distances(nodes, timeout)
    if as_json:
        click.echo(json.dumps(document(nodes, apart), indent=2))
    elif any(each.status for each in nodes):
        Console().print(overview(nodes, apart))
    for each in nodes:
        if each.status is None:
            complain(f"{each.address}: {plain(each.error or '')}")
        elif each.trouble is not None:
            complain(f"{each.address} is not in sync: {plain(each.trouble)}")
    if any(each.status is None for each in nodes):
        raise click.exceptions.Exit(NOT_ASKED)
    if any(each.trouble for each in nodes):
        raise click.exceptions.Exit(NOT_IN_SYNC)
