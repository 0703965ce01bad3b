"""Runs histories: `python -m tests.histories --start S --count N`.

Hypothesis makes them; a number seeds those of a batch.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
import traceback

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from .machine import Histories

#: Steps of each.
STEPS = 50

#: Histories that one number seeds; the first that hypothesis makes of a seed is a short one.
BATCH = 25


def run(start: int, count: int, *, shrink: bool = True) -> str | None:
    """Run histories from number `start` on; None, or what failed and how to see it again.

    :param shrink: whether to look for the shortest that fails.
    """
    # Lost connections and indexes are what this is about.
    logging.disable(logging.CRITICAL)
    began = time.monotonic()
    try:
        for number in range(start, start + count, BATCH):
            size = min(BATCH, start + count - number)
            options = settings(
                max_examples=size,
                stateful_step_count=STEPS,
                deadline=None,
                database=None,
                # By the number alone, also where all other tests are made by their names.
                derandomize=False,
                report_multiple_bugs=False,
                phases=[Phase.generate, *[Phase.shrink] * shrink],
                suppress_health_check=list(HealthCheck),
            )
            seeded = seed(number)(type(Histories.__name__, (Histories,), {}))
            try:
                run_state_machine_as_test(seeded, settings=options)
            except Exception:
                command = f"python -m tests.histories --start {number} --count {size}"
                return f"{traceback.format_exc()}{command}"
    finally:
        logging.disable(logging.NOTSET)
    seconds = time.monotonic() - began
    print(f"histories: {count:,} of {STEPS} steps from {start} in {seconds:.0f} s, none failed")
    return None


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.histories", description=__doc__)
    parser.add_argument("--start", type=int, default=0, help="number of the first history")
    parser.add_argument("--count", type=int, default=100, help="how many")
    arguments = parser.parse_args()
    failure = run(arguments.start, arguments.count)
    if failure:
        print(failure)
    return int(failure is not None)


if __name__ == "__main__":
    sys.exit(main())
