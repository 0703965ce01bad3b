"""What many secondaries cost the primary while nothing happens, or while they do not read."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

from .cases import Case, Figure, Values
from .contenders import Contender
from .histories import History, generate_records
from .plain_peers import connected
from .processes import NodeProcess
from .sizes import Sizes

CPU = Figure("primary cpu", "% of a core")
MEMORY = Figure("memory for each", "kB")

_SECONDARIES = 64


def cases(sizes: Sizes, data: Path) -> list[Case]:
    # More than the buffers of a connection take.
    history = generate_records(data, 50, 2, 200_000)
    return [
        Case(
            f"{_SECONDARIES} idle secondaries",
            f"they have all there is; the primary's processor time in {sizes.idle_seconds} "
            "seconds, and its memory",
            [CPU, MEMORY],
            partial(_idle, history, sizes.idle_seconds),
        ),
        Case(
            f"{_SECONDARIES} secondaries that do not read",
            f"of {history.size / 1e6:,.0f} MB, not a byte",
            [MEMORY],
            partial(_stopped, history),
        ),
    ]


def _idle(history: History, seconds: float, contender: Contender, directory: Path) -> Values:
    with NodeProcess("primary", contender, directory) as primary:
        address = primary.call("open", path=str(history.path))
        before = primary.resident()
        with connected(address, history.last_tid, _SECONDARIES):
            primary.wait_until_idle()
            memory = (primary.resident() - before) / _SECONDARIES
            primary.begin_again()
            time.sleep(seconds)
            cpu = primary.used()["cpu"] / seconds * 100
    return {CPU.name: cpu, MEMORY.name: memory / 1e3}


def _stopped(history: History, contender: Contender, directory: Path) -> Values:
    with NodeProcess("primary", contender, directory) as primary:
        address = primary.call("open", path=str(history.path))
        before = primary.resident()
        with connected(address, bytes(8), _SECONDARIES):
            primary.wait_until_idle()
            return {MEMORY.name: (primary.resident() - before) / _SECONDARIES / 1e3}
