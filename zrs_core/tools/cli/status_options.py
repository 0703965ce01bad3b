"""The options `--status...` of the commands that replicate."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from ...monitor.options import DEFAULT_MAX_LAG, StatusOptions

Command = TypeVar("Command", bound=Callable[..., Any])

_OPTIONS = (
    click.option(
        "--status",
        metavar="ADDRESS",
        help="Serve the status over HTTP there: HOST:PORT, :PORT (on this machine alone), or the "
        "path of a Unix socket; port 0 lets the system choose one.",
    ),
    click.option(
        "--status-max-lag",
        type=float,
        metavar="SECONDS",
        help="So far behind its primary a secondary still counts as ready.  "
        f"[default: {DEFAULT_MAX_LAG:g}]",
    ),
    click.option(
        "--status-node",
        multiple=True,
        metavar="ADDRESS",
        help="Show the status that is served there, too; may be given more than once.",
    ),
    click.option(
        "--status-host",
        multiple=True,
        metavar="NAME",
        help="Answer requests for this host, too, such as a proxy's name; may be given more than "
        "once. On a loopback address, requests for other hosts are refused.",
    ),
)


def add_status_options(command: Command) -> Command:
    """Add the options that `status_options` makes one of."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def status_options(
    address: str | None,
    max_lag: float | None,
    nodes: tuple[str, ...],
    hosts: tuple[str, ...],
) -> StatusOptions | None:
    """None if none of the options is given.

    :raises ConfigurationError: an address that is none, a time that is none, an invalid host.
    :raises click.UsageError: there are others without `--status`.
    """
    if address is None:
        given = {"--status-max-lag": max_lag is not None, "--status-node": nodes}
        given["--status-host"] = hosts
        for option in (each for each, value in given.items() if value):
            raise click.UsageError(f"{option} belongs to --status: give both.")
        return None
    return StatusOptions(address, DEFAULT_MAX_LAG if max_lag is None else max_lag, nodes, hosts)
