"""A secondary whose machine stops at any point, or whose disk fails there.

`recording` notes what a secondary does to its disk, `disk` makes of that what may be found after a
stop, `histories` are the shapes of transactions that it applies, `cases` joins them: a case has a
number, and the same number is the same case.
"""

from __future__ import annotations

import tempfile
import time
import traceback
from pathlib import Path

from .cases import Workshop, describe, try_case


def run(start: int, count: int) -> int:
    """Try `count` cases from number `start` on; 1 if one of them fails, which ends it."""
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="zrs-crashes-") as directory:
        with Workshop(Path(directory)) as workshop:
            for number in range(start, start + count):
                try:
                    try_case(workshop, number)
                except Exception:
                    traceback.print_exc()
                    print(f"case {number} failed: {describe(number)[0]}")
                    print(f"python -m tests.crashes --start {number} --count 1")
                    return 1
    seconds = time.monotonic() - begin
    print(f"crashes: {count} cases from {start} on, nothing lost, in {seconds:.1f} s")
    return 0
