"""Commits a second on the primary, in a burst, while secondaries follow."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

from .cases import Case, Figure, Values
from .contenders import BARE, CONTENDERS, Contender
from .groups import live_group
from .processes import NodeProcess
from .sizes import Sizes

RATE = Figure("commits", "1/s", less_is_better=False)
BEHIND = Figure("secondaries behind after it", "s", drawn=False)
CPU = Figure("primary cpu", "s", drawn=False)

_RECORD_SIZE = 300


def cases(sizes: Sizes, data: Path) -> list[Case]:
    burst = f"a burst of {sizes.commits:,} commits of a record of {_RECORD_SIZE} bytes, one thread"
    return [
        *(
            Case(
                f"commits with {count} live secondaries",
                burst,
                [RATE, BEHIND, CPU],
                partial(_here, sizes.commits, count),
                contenders=(*CONTENDERS, BARE),
                reference=BARE,
            )
            for count in sizes.secondaries
        ),
        *(
            Case(
                f"commits with {count} secondaries elsewhere",
                f"{burst}; the secondaries only read, which takes little processor time",
                [RATE, CPU],
                partial(_elsewhere, sizes.commits, count),
                contenders=(*CONTENDERS, BARE),
                reference=BARE,
            )
            for count in sizes.secondaries
            if count
        ),
    ]


def _here(commits: int, secondaries: int, contender: Contender, directory: Path) -> Values:
    if contender is BARE:
        secondaries = 0
    with live_group(contender, directory, secondaries, size=_RECORD_SIZE) as group:
        rate = commits / group.primary.call("burst", count=commits)
        begin = time.perf_counter()
        group.wait()
        behind = time.perf_counter() - begin
        cpu = group.primary.used()["cpu"]
    return {RATE.name: rate, BEHIND.name: behind, CPU.name: cpu}


def _elsewhere(commits: int, secondaries: int, contender: Contender, directory: Path) -> Values:
    with (
        live_group(contender, directory, 0, size=_RECORD_SIZE) as group,
        NodeProcess("readers", BARE, directory) as readers,
    ):
        if contender is not BARE:
            tid = group.primary.call("last_tid")
            readers.call("follow", address=group.address, tid=tid, count=secondaries)
        rate = commits / group.primary.call("burst", count=commits)
        return {RATE.name: rate, CPU.name: group.primary.used()["cpu"]}
