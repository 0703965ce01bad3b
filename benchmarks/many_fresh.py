"""Eight fresh secondaries of one primary at once."""

from __future__ import annotations

import contextlib
import time
from functools import partial
from pathlib import Path

from .cases import Case, Figure, Values
from .contenders import Contender
from .histories import History, generate_records
from .processes import NodeProcess
from .sizes import Sizes

RATE = Figure("all together", "MB/s", less_is_better=False)

_SECONDARIES = 8


def cases(sizes: Sizes, data: Path) -> list[Case]:
    history = generate_records(data, sizes.many_fresh_transactions, 3, 300)
    return [
        Case(
            f"{_SECONDARIES} fresh secondaries at once",
            f"{history.transactions:,} transactions, {history.records:,} records, "
            f"{history.size / 1e6:,.0f} MB to each, until the last has all",
            [RATE, Figure("primary cpu", "s", drawn=False)],
            partial(_measure, history),
        )
    ]


def _measure(history: History, contender: Contender, directory: Path) -> Values:
    with contextlib.ExitStack() as stack:
        primary = stack.enter_context(NodeProcess("primary", contender, directory))
        address = primary.call("open", path=str(history.path))
        nodes = [
            stack.enter_context(NodeProcess("secondary", contender, directory))
            for _ in range(_SECONDARIES)
        ]
        begin = time.perf_counter()
        finished = [
            node.start(
                "catch_up",
                path=str(directory / f"{number}.fs"),
                address=address,
                tid=history.last_tid.hex(),
            )
            for number, node in enumerate(nodes)
        ]
        for wait in finished:
            wait()
        seconds = time.perf_counter() - begin
        return {
            RATE.name: _SECONDARIES * history.size / 1e6 / seconds,
            "primary cpu": primary.used()["cpu"],
        }
