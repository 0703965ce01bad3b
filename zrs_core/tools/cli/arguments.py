"""Arguments that several commands share."""

from __future__ import annotations

import math
from typing import Any

import click

from .output import LOG_FORMATS


class Seconds(click.FloatRange):
    """A number of seconds within a range, which NaN and infinity are in none of."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        seconds: float = super().convert(value, param, ctx)
        if not math.isfinite(seconds):
            self.fail(f"{seconds} is no number of seconds.", param, ctx)
        return seconds


#: How the commands that serve and follow can print what they say and log.
log_format = click.option(
    "--log-format",
    type=click.Choice(LOG_FORMATS),
    default="text",
    show_default=True,
    help="Print lines for people, or a JSON object for each.",
)
