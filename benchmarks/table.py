"""The table that is printed."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from .results import ratio


def print_tables(console: Console, results: dict[str, Any]) -> None:
    """A table for each case, then what was measured with."""
    for described in results["cases"]:
        console.print()
        console.print(described["name"], style="bold")
        rounds = len(next(iter(described["rounds"].values())))
        console.print(f"{described['description']}; rounds: {rounds}")
        console.print(_table(described))
    for line in measured_with(results):
        console.print(line)


def _table(described: dict[str, Any]) -> Table:
    medians, reference = described["medians"], described["reference"]
    table = Table()
    table.add_column("")
    for name in medians:
        table.add_column(name, justify="right")
    for name in medians:
        if name != reference:
            table.add_column(f"{name} : {reference}", justify="right")
    for figure in described["figures"]:
        row = [f"{figure['name']}, {figure['unit']}"]
        row += [number(values[figure["name"]]) for values in medians.values()]
        row += [f"{ratio(described, name, figure):.2f}" for name in medians if name != reference]
        table.add_row(*row)
    return table


def measured_with(results: dict[str, Any]) -> list[str]:
    """The command, the machine and the versions."""
    machine = results["machine"]
    lines = [
        f"{results['command']}: medians of all rounds",
        f"{machine['processors']} processors ({machine['processor']}), {machine['memory']}, "
        f"{machine['system']}; an fsync takes {number(machine['fsync ms'])} ms",
    ]
    for name, ends in results["versions"].items():
        texts = [", ".join(map(" ".join, versions.items())) for versions in ends.values()]
        if len({*texts}) == 1:
            lines.append(f"{name}: {texts[0]}")
        else:
            lines += [f"{name}, {end}: {text}" for end, text in zip(ends, texts, strict=True)]
    return lines


def number(value: float) -> str:
    """Three digits that tell something."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:#.3g}"
