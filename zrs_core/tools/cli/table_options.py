"""Options of the commands, from the table of all options."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from ...config.table import Option

Command = TypeVar("Command", bound=Callable[..., Any])


def option_of(option: Option, **changes: Any) -> Callable[[Command], Command]:
    """Return the decorator that adds an option of the table to a command.

    :param option: one with a flag.
    :param changes: arguments of `click.option` that differ from those of the table.
    """
    return click.option(option.flag, **{"metavar": option.value, "help": option.help, **changes})


def number_of(option: Option, **changes: Any) -> Callable[[Command], Command]:
    """As `option_of`, for a number with a default."""
    default = option.convert(option.default or "")
    number = {"type": type(default), "default": default, "show_default": True}
    return option_of(option, **{**number, **changes})
