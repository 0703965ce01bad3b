"""The options `--status...` of the commands that replicate."""

from __future__ import annotations

import click

from ...config import table
from ...monitor.options import DEFAULT_MAX_LAG, StatusOptions
from .table_options import Command, option_of

_OPTIONS = (
    option_of(table.STATUS["status_address"]),
    option_of(table.STATUS["status_max_lag"], type=float),
    option_of(table.STATUS["status_nodes"], multiple=True, metavar="ADDRESS"),
    option_of(table.STATUS["status_hosts"], multiple=True, metavar="NAME"),
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
