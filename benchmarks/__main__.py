"""Measure, print a table, write results.json."""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
from pathlib import Path

from rich.console import Console

from . import catch_up, commit_rate, growth, idle, lag, many_fresh, memory
from .cases import Values
from .contenders import BUILD, CONTENDERS, Contender
from .results import describe, environment, save
from .rounds import measure
from .sizes import SIZES
from .table import number, print_tables

_PRINTED_WIDTH = 140
_BENCHMARKS = {
    "catch-up": catch_up,
    "commit-rate": commit_rate,
    "lag": lag,
    "memory": memory,
    "growth": growth,
    "many-fresh": many_fresh,
    "idle": idle,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(_BENCHMARKS)}")
    parser.add_argument("--case", default="", metavar="TEXT", help="only those named with it")
    parser.add_argument("--sizes", choices=SIZES, default="full")
    parser.add_argument("--rounds", type=int, help="other than what the sizes have")
    parser.add_argument("--directory", type=Path, default=BUILD, help="for all databases")
    parser.add_argument("--output", type=Path, default=BUILD)
    arguments = parser.parse_args()
    unknown = {*arguments.names} - {*_BENCHMARKS}
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")

    sizes = SIZES[arguments.sizes]
    rounds = arguments.rounds or sizes.rounds
    scratch = arguments.directory
    scratch.mkdir(parents=True, exist_ok=True)
    console = Console(soft_wrap=True, width=None if sys.stdout.isatty() else _PRINTED_WIDTH)
    # Terminated as interrupted: processes are ended and files are removed.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    command = shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]])
    where, described = environment(command, CONTENDERS, scratch), []
    for name in arguments.names or _BENCHMARKS:
        for case in _BENCHMARKS[name].cases(sizes, scratch / "data"):
            if arguments.case not in case.name:
                continue
            console.print(f"{case.name}: {case.description}", style="bold")

            def show(number_: int, contender: Contender, values: Values) -> None:
                told = ", ".join(f"{what} {number(value)}" for what, value in values.items())
                console.print(f"  round {number_ + 1}, {contender.name}: {told}")

            described.append(describe(case, measure(case, rounds, scratch, show)))
            save(arguments.output / "results.json", where, described)
    if not described:
        parser.error(f"--case: none of these benchmarks has one named with {arguments.case!r}")
    print_tables(console, {**where, "cases": described})


main()
