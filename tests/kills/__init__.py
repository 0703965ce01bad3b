"""Real processes that are killed, at any time or at chosen system calls, stopped, or told to end.

`nodes` are the processes, `cases` what is done to them and what must hold then.
"""

from __future__ import annotations

import contextlib
import logging
import time
import traceback

from .cases import Case, server, try_case


def run(start: int, count: int) -> int:
    """Try `count` cases from number `start` on; 1 if one of them fails, which ends it."""
    begin = time.monotonic()
    done = 0
    # FileStorage tells of what it cuts off.
    logging.disable(logging.CRITICAL)
    with contextlib.ExitStack() as stack:
        stack.callback(logging.disable, logging.NOTSET)
        process = stack.enter_context(server())
        for number in range(start, start + count):
            try:
                done += try_case(process, number) is not None
            except Exception:
                traceback.print_exc()
                print(f"case {number} failed: {Case(number)}")
                print(f"python -m tests.kills --start {number} --count 1")
                return 1
    seconds = time.monotonic() - begin
    left_out = f", {count - done} left out for want of strace" if done < count else ""
    print(f"kills: {done} cases from {start} on, nothing lost, in {seconds:.1f} s{left_out}")
    return 0
