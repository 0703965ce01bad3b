"""The arguments of `zrs check-nagios`."""

from __future__ import annotations

from typing import Any

import click

from ...errors import ConfigurationError, NoStatus
from ...monitor.fetch import parse_status_address
from .arguments import Seconds
from .nagios import TIMEOUT, Level, Thresholds, check_one, check_pair, in_a_line
from .words import plain

EPILOG = """\
Exit status: 0 OK; 1 WARNING: a lag above -w, or a node that is not ready; 2 CRITICAL: a lag above
-c, a secondary that is failing, refused, diverged or stopped, or that is ahead of its primary, a
primary whose status server does not answer while its secondary is connected; 3
UNKNOWN: an address could not be asked, or the arguments cannot work. All is in one line on the
standard output.
"""


class _Plugin(click.Command):
    def make_context(self, *arguments: Any, **options: Any) -> click.Context:
        try:
            return super().make_context(*arguments, **options)
        except click.UsageError as error:
            # A monitor would take the exit status that others have for such for CRITICAL.
            raise _unknown(f"{error.format_message()} See 'zrs check-nagios --help'.") from error

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except OSError as error:
            # The result cannot be printed.
            raise click.exceptions.Exit(Level.UNKNOWN) from error


def _unknown(text: str) -> click.exceptions.Exit:
    click.echo(f"ZRS {Level.UNKNOWN.name} - {plain(text).replace('|', '/')}")
    return click.exceptions.Exit(Level.UNKNOWN)


@click.command(cls=_Plugin, epilog=EPILOG, short_help="Check a lag, as a monitoring plugin.")
@click.argument("addresses", metavar="[PRIMARY] ADDRESS", nargs=-1)
@click.option("-w", "--warning", type=Seconds(min=0), metavar="SECONDS", help="Warn above this.")
@click.option(
    "-c",
    "--critical",
    "-e",
    "--error",
    "critical",
    type=Seconds(min=0),
    metavar="SECONDS",
    help="Above this it is critical.",
)
@click.option("-m", "--output-metrics", is_flag=True, help="Add performance data.")
@click.option(
    "-t",
    "--timeout",
    type=Seconds(0.01, 3600),
    default=TIMEOUT,
    show_default=True,
    metavar="SECONDS",
    help="Within so long each address must have answered.",
)
def check_nagios(
    addresses: tuple[str, ...],
    warning: float | None,
    critical: float | None,
    output_metrics: bool,
    timeout: float,
) -> None:
    """Check the lag of a secondary, for Nagios, Icinga and their like.

    ADDRESS is where a status server listens: HOST:PORT, :PORT, the path of a Unix socket, or a URL
    http://... Of a secondary its own lag is checked, of a primary how far behind is what it has
    sent.

    With PRIMARY before it, the address of the primary's status server, the lag is the time between
    the last transaction there and the last one at ADDRESS. Each of the two may be the address of a
    ZEO server instead.
    """
    thresholds = Thresholds(warning, critical)
    try:
        if not 1 <= len(addresses) <= 2:
            raise ConfigurationError(
                "one address or two are needed: that of a node, or those of a primary and a "
                "secondary"
            )
        parsed = [parse_status_address(each) for each in addresses]
        if len(parsed) == 1:
            found = check_one(parsed[0], thresholds, timeout)
        else:
            found = check_pair(parsed[0], parsed[1], thresholds, timeout)
    except (ConfigurationError, NoStatus) as error:
        raise _unknown(str(error)) from error
    click.echo(in_a_line(found, thresholds, output_metrics))
    raise click.exceptions.Exit(max(each.level for each in found))
