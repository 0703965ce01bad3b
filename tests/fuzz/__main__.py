"""Runs fuzz cases: `python -m tests.fuzz --start S --count N [--target NAME]`.

A case is a number. It decides the target and seeds what is made for it, so that a case that fails
can be run again by its number.
"""

from __future__ import annotations

import argparse
import logging
import random
import sys
import time
import traceback
from collections import Counter

from .corpus import inputs
from .inputs import INPUTS
from .targets import TARGETS

#: Targets in turn, the costly ones less often.
_TURNS = (
    *("pickles", "framing", "pickles", "secondary", "framing", "pickles", "primary"),
    *("pickles", "framing", "pickles", "secondary", "framing", "pickles", "session"),
)


def case(number: int, target: str | None = None) -> tuple[str, bytes]:
    """The target of a case, and its input."""
    target = target or _TURNS[number % len(_TURNS)]
    return target, INPUTS[target](random.Random(number), inputs(target))


def run(start: int, count: int, target: str | None = None) -> str | None:
    """Run the cases from number `start` on; None, or what failed and how to see it again."""
    logger = logging.getLogger("zrs_core")
    level = logger.level
    # The sessions report what is wrong with a stream; here most have something wrong with them.
    logger.setLevel(logging.CRITICAL)
    began = time.monotonic()
    runs: Counter[str] = Counter()
    try:
        for number in range(start, start + count):
            name, data = case(number, target)
            try:
                TARGETS[name](data)
            except Exception:
                only = f" --target {target}" if target else ""
                return (
                    f"{traceback.format_exc()}input of {name}: {data!r}\n"
                    f"python -m tests.fuzz --start {number} --count 1{only}"
                )
            runs[name] += 1
    finally:
        logger.setLevel(level)
    seconds = time.monotonic() - began
    each = ", ".join(f"{name} {count:,}" for name, count in sorted(runs.items()))
    print(
        f"fuzz: {count:,} cases from {start} in {seconds:.0f} s, none failed ({each})", flush=True
    )
    return None


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--start", type=int, default=0, help="number of the first case")
    parser.add_argument("--count", type=int, default=100_000, help="how many cases")
    parser.add_argument("--target", choices=sorted(TARGETS), help="this one only")
    arguments = parser.parse_args()
    failure = run(arguments.start, arguments.count, arguments.target)
    if failure:
        print(failure)
    return int(failure is not None)


if __name__ == "__main__":
    sys.exit(main())
