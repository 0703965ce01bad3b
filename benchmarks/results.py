"""What was measured, where and with what; kept as JSON."""

from __future__ import annotations

import json
import os
import platform
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import Any

from .cases import Case
from .contenders import Contender
from .rounds import Measured

_FSYNCS = 200


def describe(case: Case, measured: Measured) -> dict[str, Any]:
    """A case and what came of it, as JSON has it."""
    medians = {
        name: {
            figure.name: median(values[figure.name] for values in rounds) for figure in case.figures
        }
        for name, rounds in measured.items()
    }
    return {
        "name": case.name,
        "description": case.description,
        "reference": case.reference.name,
        "figures": [figure._asdict() for figure in case.figures],
        "medians": medians,
        "rounds": measured,
    }


def environment(command: str, contenders: Iterable[Contender], scratch: Path) -> dict[str, Any]:
    """The command that measured, on what machine, with which versions.

    :param scratch: where the databases are.
    """
    return {
        "command": command,
        "machine": {
            "processor": _processor(),
            "processors": os.cpu_count(),
            "memory": f"{_memory() / 1e9:.0f} GB",
            "fsync ms": _fsync(scratch) * 1e3,
            "system": f"{platform.system()} {platform.release()}",
        },
        "versions": {each.name: each.versions() for each in contenders},
    }


def save(path: Path, environment: dict[str, Any], described: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**environment, "cases": described}, indent=1) + "\n")


def ratio(described: dict[str, Any], contender: str, figure: dict[str, Any]) -> float:
    """How many times as good as the reference a contender is."""
    ours = described["medians"][contender][figure["name"]]
    theirs = described["medians"][described["reference"]][figure["name"]]
    better, worse = (theirs, ours) if figure["less_is_better"] else (ours, theirs)
    return float(better / worse) if worse else float("inf")


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _memory() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _fsync(directory: Path) -> float:
    """Seconds that it takes to have some bytes on disk: what each commit waits for at least."""
    times = []
    with tempfile.TemporaryFile(dir=directory) as file:
        for _ in range(_FSYNCS):
            file.write(bytes(300))
            file.flush()
            begin = time.perf_counter()
            os.fsync(file.fileno())
            times.append(time.perf_counter() - begin)
    return median(times)
