"""From a commit on the primary until it is visible on a secondary, at a steady rate."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from statistics import quantiles

from .cases import Case, Figure, Values
from .contenders import Contender
from .groups import live_group
from .sizes import Sizes

P50, P99 = Figure("p50", "ms"), Figure("p99", "ms")

_RECORD_SIZE = 300

# Secondaries, and commits a second. A faster one shows that a session which rests between batches
# does so for bursts alone.
_CASES = ((1, 100), (4, 100), (1, 500))


def cases(sizes: Sizes, data: Path) -> list[Case]:
    return [
        Case(
            f"lag with {secondaries} secondaries, {rate} commits a second",
            f"{sizes.lag_commits:,} commits, from being on the primary's disk until visible on a "
            "secondary",
            [P50, P99],
            partial(measure, sizes.lag_commits, rate, secondaries),
        )
        for secondaries, rate in _CASES
    ]


def measure(
    commits: int, rate: int, secondaries: int, contender: Contender, directory: Path
) -> Values:
    """Measure once: so many commits, `rate` a second."""
    with live_group(contender, directory, secondaries, size=_RECORD_SIZE, timed=True) as group:
        for node in group.secondaries:
            node.call("watch")
        group.primary.call("paced", count=commits, rate=rate)
        group.wait()
        committed = group.primary.call("committed")
        lags = [
            when - committed[tid]
            for node in group.secondaries
            for tid, when in node.call("seen").items()
        ]
    percentiles = quantiles(lags, n=100, method="inclusive")
    return {P50.name: percentiles[49] * 1e3, P99.name: percentiles[98] * 1e3}
