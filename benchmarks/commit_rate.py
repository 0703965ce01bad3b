"""Commits a second on the primary, in a burst, while secondaries follow."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

from .cases import Case, Figure, Values
from .contenders import BARE, CONTENDERS, Contender
from .groups import live_group
from .processes import used_by
from .sizes import Sizes

RATE = Figure("commits", "1/s", less_is_better=False)
FIGURES = [
    RATE,
    Figure("secondaries behind after it", "s", drawn=False),
    Figure("primary cpu", "s", drawn=False),
]

_RECORD_SIZE = 300


def cases(sizes: Sizes, data: Path) -> list[Case]:
    return [
        Case(
            f"commits with {count} live secondaries",
            f"a burst of {sizes.commits:,} commits of a record of {_RECORD_SIZE} bytes, one thread",
            FIGURES,
            partial(_measure, sizes.commits, count),
            contenders=(*CONTENDERS, BARE),
            reference=BARE,
        )
        for count in sizes.secondaries
    ]


def _measure(commits: int, secondaries: int, contender: Contender, directory: Path) -> Values:
    if contender is BARE:
        secondaries = 0
    with live_group(contender, directory, secondaries, size=_RECORD_SIZE) as group:
        rate = commits / group.primary.call("burst", count=commits)
        begin = time.perf_counter()
        group.wait()
        behind = time.perf_counter() - begin
        used = used_by(primary=group.primary)
    return {
        RATE.name: rate,
        "secondaries behind after it": behind,
        "primary cpu": used["primary cpu"],
    }
