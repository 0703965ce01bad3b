"""The options `--status...` of the commands that replicate."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from ..status.options import DEFAULT_MAX_LAG, StatusOptions

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
)


def add_status_options(command: Command) -> Command:
    """Add the options that `status_options` makes one of."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def status_options(
    address: str | None, max_lag: float | None, nodes: tuple[str, ...]
) -> StatusOptions | None:
    """None if none of the options is given.

    :raises ConfigurationError: an address that is none, a time that is none.
    :raises click.UsageError: there are others without `--status`.
    """
    if address is None:
        if max_lag is not None or nodes:
            given = "--status-node" if nodes else "--status-max-lag"
            raise click.UsageError(f"{given} belongs to --status: give both.")
        return None
    return StatusOptions(address, DEFAULT_MAX_LAG if max_lag is None else max_lag, nodes)
