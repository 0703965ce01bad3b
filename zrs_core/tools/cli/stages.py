"""A bar for what goes through stages, each with a known number of bytes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from .signals import Interruption

#: Seconds between two looks of a person, at least.
_INTERVAL = 0.1


@contextmanager
def stages(
    console: Console, interruption: Interruption
) -> Iterator[Callable[[str, int, int], None]]:
    """What shows a stage, how many bytes of it are done, and of how many, while entered.

    To be called as often as one likes: it raises what the interruption does. Nothing is shown where
    there is no terminal.
    """
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
    )
    shown = console.is_terminal and not console.is_dumb_terminal
    with Progress(*columns, console=console, transient=True, disable=not shown) as progress:
        task = progress.add_task("", total=None)
        stage, due = "", 0.0

        def report(what: str, done: int, total: int) -> None:
            nonlocal stage, due
            interruption.check()
            now = time.monotonic()
            if what != stage:
                stage = what
                progress.reset(task, description=what)
            elif now < due:
                return
            due = now + _INTERVAL
            progress.update(task, completed=done, total=total or None)

        yield report
