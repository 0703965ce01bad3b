"""The `zrs` command: its subcommands, each imported when it is asked for."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Final

import click

from .output import errors_in_a_line
from .statuses import EPILOG

# The module of each. Together they take several times as long to import as one of them; a monitor
# may ask for `check-nagios` every few seconds.
_MODULES: Final = {
    "primary": "primary",
    "secondary": "secondary",
    "demo": "demo",
    "status": "status",
    "check-nagios": "checking",
    "snapshot": "snapshot",
    "restore": "snapshot",
    "dump": "dump",
    "log": "log",
    "verify": "verify",
}


class _Group(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_MODULES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _MODULES:
            return None
        module = import_module(f".{_MODULES[cmd_name]}", __package__)
        command: click.Command = getattr(module, cmd_name.replace("-", "_"))
        return command

    def invoke(self, ctx: click.Context) -> Any:
        with errors_in_a_line():
            return super().invoke(ctx)


@click.group(cls=_Group, epilog=EPILOG)
@click.version_option(package_name="zrs-core", prog_name="zrs")
def zrs() -> None:
    """Replicate ZODB databases: one primary, any number of read-only secondaries."""
