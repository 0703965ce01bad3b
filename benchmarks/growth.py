"""Whether a long history is slower than a short one."""

from __future__ import annotations

import shutil
import time
from functools import partial
from pathlib import Path
from statistics import median

from zrs_core.storage.disk import sync_path

from .cases import Case, Figure, Values
from .contenders import Contender
from .histories import History, cut, generate_records, tid_of
from .plain_peers import connect
from .processes import NodeProcess
from .sizes import Sizes

EACH = Figure("a transaction", "ms")
EACH_CPU = [Figure(f"{role} cpu for each", "ms", drawn=False) for role in ("primary", "secondary")]
SLOWEST, TYPICAL = Figure("slowest", "ms"), Figure("median", "ms")
ABANDONED = Figure("primary cpu for each", "ms")

_RECORD_SIZE = 100
_PARTS = (0.05, 0.25, 0.5, 0.75, 0.95)
_ATTEMPTS = 10
#: Seconds after which a secondary leaves that is still waiting for an answer.
_PATIENCE = 0.005


def cases(sizes: Sizes, data: Path) -> list[Case]:
    found = [_last_ones(data, transactions, sizes.growth_last) for transactions in sizes.growth]
    history = generate_records(data, sizes.growth[-1], 1, _RECORD_SIZE)
    where = f"a history of {history.transactions:,} transactions"
    return [
        *found,
        Case(
            "resuming",
            f"in {where}: from asking for what comes after a transaction until the first byte, "
            f"at {', '.join(f'{part:.0%}' for part in _PARTS)}",
            [SLOWEST, TYPICAL],
            partial(_resume, history),
        ),
        Case(
            "leaving while resuming",
            f"in the middle of {where}, {_ATTEMPTS} times, after {_PATIENCE * 1e3:.0f} ms",
            [ABANDONED],
            partial(_leave, history),
        ),
    ]


def _last_ones(data: Path, transactions: int, count: int) -> Case:
    history = generate_records(data, transactions, 1, _RECORD_SIZE)
    return Case(
        f"growth, the last {count:,} of {transactions:,} transactions",
        "from connecting until the last is visible",
        [EACH, *EACH_CPU],
        partial(_receive_last, history, count),
        most_rounds=1,
    )


def _receive_last(history: History, count: int, contender: Contender, directory: Path) -> Values:
    copy = directory / "Data.fs"
    for path in cut(history, history.transactions - count):
        shutil.copyfile(path, directory / path.name)
        # Or a secondary's first fsync would wait for the whole copy.
        sync_path(str(directory / path.name))
    with (
        NodeProcess("primary", contender, directory) as primary,
        NodeProcess("secondary", contender, directory) as secondary,
    ):
        address = primary.call("open", path=str(history.path))
        seconds = secondary.call(
            "catch_up", path=str(copy), address=address, tid=history.last_tid.hex()
        )
        cpu = [primary.used()["cpu"], secondary.used()["cpu"]]
    names = [figure.name for figure in (EACH, *EACH_CPU)]
    return {name: value / count * 1e3 for name, value in zip(names, [seconds, *cpu], strict=True)}


def _resume(history: History, contender: Contender, directory: Path) -> Values:
    with NodeProcess("primary", contender, directory) as primary:
        address = primary.call("open", path=str(history.path))
        times = []
        for part in _PARTS:
            begin = time.perf_counter()
            with connect(address, tid_of(int(history.transactions * part))) as peer:
                peer.recv(1)
                times.append((time.perf_counter() - begin) * 1e3)
    return {SLOWEST.name: max(times), TYPICAL.name: median(times)}


def _leave(history: History, contender: Contender, directory: Path) -> Values:
    with NodeProcess("primary", contender, directory) as primary:
        address = primary.call("open", path=str(history.path))
        primary.begin_again()
        for _ in range(_ATTEMPTS):
            with connect(address, tid_of(history.transactions // 2)):
                time.sleep(_PATIENCE)
        primary.wait_until_idle()
        return {ABANDONED.name: primary.used()["cpu"] / _ATTEMPTS * 1e3}
