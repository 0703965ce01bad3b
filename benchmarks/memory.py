"""The most memory that each end takes, above what it has once everything is imported."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

from .cases import USED, Case, Figure, Values
from .catch_up import catch_up
from .contenders import Contender
from .groups import live_group
from .histories import generate_blobs, generate_records
from .processes import used_by
from .sizes import Sizes

PEAKS = [figure._replace(drawn=True) for figure in USED if figure.name.endswith("peak")]
TIME = Figure("time", "s", drawn=False)
CAUGHT_UP = Figure("caught up after", "s", drawn=False)

_RECORD_SIZE = 10_000
#: Commits a second while a secondary does not read.
_LOAD = 200


def cases(sizes: Sizes, data: Path) -> list[Case]:
    records = generate_records(data, sizes.memory_transactions, 10, _RECORD_SIZE)
    blob = generate_blobs(data, 1, sizes.memory_blob)
    return [
        Case(
            "memory, records",
            f"a fresh secondary receives {records.size / 1e6:,.0f} MB of records of "
            f"{_RECORD_SIZE:,} bytes",
            [*PEAKS, TIME],
            lambda contender, directory: catch_up(contender, records, directory),
            most_rounds=1,
        ),
        Case(
            "memory, a large blob",
            f"a fresh secondary receives one blob of {blob.size / 1e6:,.0f} MB",
            [*PEAKS, TIME],
            lambda contender, directory: catch_up(contender, blob, directory),
            most_rounds=1,
        ),
        Case(
            "memory, a secondary that stops reading",
            f"it is stopped for {sizes.stopped_seconds} seconds, with {_LOAD} commits a second of "
            f"a record of {_RECORD_SIZE:,} bytes: what the primary's memory grows by",
            [PEAKS[0], CAUGHT_UP],
            partial(_stopped, sizes.stopped_seconds),
            most_rounds=1,
        ),
    ]


def _stopped(seconds: int, contender: Contender, directory: Path) -> Values:
    with live_group(contender, directory, 1, size=_RECORD_SIZE) as group:
        # Until memory does not grow by what every commit needs.
        group.primary.call("paced", count=_LOAD, rate=_LOAD)
        group.wait()
        group.primary.begin_again()
        group.secondaries[0].pause()
        group.primary.call("paced", count=seconds * _LOAD, rate=_LOAD)
        used = used_by(primary=group.primary)
        group.secondaries[0].resume()
        begin = time.perf_counter()
        group.wait()
        return {**used, CAUGHT_UP.name: time.perf_counter() - begin}
