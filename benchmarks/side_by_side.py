"""What is run in turn, round by round, and told beside the peer."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from rich.console import Console
from rich.table import Table

from .contenders import PEER


def print_medians(
    title: str, unit: str, runs: Mapping[str, Callable[[Path], float]], rounds: int, directory: Path
) -> None:
    """Run each of `runs` once a round, and print a table of the medians.

    :param title: what is measured.
    :param runs: by name, the peer's among them; each measures in a directory of its own.
    :param directory: where those are made.
    """
    found: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            with tempfile.TemporaryDirectory(dir=directory) as own:
                found[name].append(run(Path(own)))
    medians = {name: statistics.median(each) for name, each in found.items()}
    table = Table(title=f"{title}; the median of {rounds} rounds")
    for column in ("", unit, f"{PEER.name} takes so many times as long"):
        table.add_column(column, justify="right")
    for name, median in medians.items():
        table.add_row(name, f"{median:.2f}", f"{medians[PEER.name] / median:.2f}")
    Console(width=120).print(table)
