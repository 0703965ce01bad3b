"""How long `zrs verify` takes for two equal databases, and how long it takes to read them."""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from zrs_core.tools.verify.buffers import TwoBuffers

from .contenders import BUILD
from .histories import History, generate_blobs, generate_records

_BLOCK_SIZE = 1 << 20


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.verify", description=__doc__)
    parser.add_argument("--megabytes", type=int, default=1000, help="of each database")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--directory", type=Path, default=BUILD, help="for the databases")
    parser.add_argument(
        "--cold", action="store_true", help="drop the files from the system's cache each time"
    )
    arguments = parser.parse_args()
    size = arguments.megabytes * 1_000_000
    data = arguments.directory / "data"
    where = "on the disk" if arguments.cold else "in the system's cache"
    table = Table(title=f"Two equal databases, {where}; the median of {arguments.rounds} rounds")
    table.add_column("what each holds")
    for name in (
        "MB",
        "reading both, s",
        "zrs verify, s",
        "of the speed",
        "its processor time, s",
        "and of verify, s",
    ):
        table.add_column(name, justify="right")
    for what, make in (
        ("records of 60,000 bytes, 5 a transaction", _records(size, 5, 60_000)),
        ("records of 3,000 bytes, 3 a transaction", _records(size, 3, 3_000)),
        ("records of 300 bytes, 3 a transaction", _records(size, 3, 300)),
        (
            "blobs of 4 MB",
            lambda where: generate_blobs(where, max(size // 4_000_000, 1), 4_000_000),
        ),
    ):
        pair = arguments.directory / "verify"
        figures = _measure(make(data), pair, arguments.rounds, cold=arguments.cold)
        table.add_row(what, *figures)
    Console(width=120).print(table)


def _records(size: int, records: int, bytes_each: int) -> Callable[[Path], History]:
    transactions = max(size // (records * bytes_each), 1)
    return lambda where: generate_records(where, transactions, records, bytes_each)


def _measure(history: History, directory: Path, rounds: int, *, cold: bool) -> list[str]:
    directory.mkdir(parents=True)
    try:
        copy = directory / "Data.fs"
        shutil.copyfile(history.path, copy)
        command = [
            sys.executable,
            "-m",
            "zrs_core.tools.cli",
            "verify",
            str(history.path),
            str(copy),
        ]
        files = [history.path, copy]
        if history.blobs is not None:
            blobs = directory / "blobs"
            shutil.copytree(history.blobs, blobs)
            command += ["--blobs-a", str(history.blobs), "--blobs-b", str(blobs)]
            for tree in (history.blobs, blobs):
                files += tree.rglob("*.blob")
        megabytes = sum(path.stat().st_size for path in files) / 2e6
        reading, verifying = [], []
        for _ in range(rounds):
            _prepare(files, cold=cold)
            reading.append(_seconds(lambda: [*map(_read, files)]))
            _prepare(files, cold=cold)
            verifying.append(
                _seconds(lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL))
            )
    finally:
        shutil.rmtree(directory)
    (read, read_used), (verified, used) = (
        map(statistics.median, zip(*each, strict=True)) for each in (reading, verifying)
    )
    figures = f"{read:.2f}", f"{verified:.2f}", f"{read / verified:.0%}"
    return [f"{megabytes:,.0f}", *figures, f"{read_used:.2f}", f"{used:.2f}"]


def _seconds(run: Callable[[], object]) -> tuple[float, float]:
    """How long it takes, and the processor's time, that of processes it starts included."""
    begin, used = time.perf_counter(), _used()
    run()
    return time.perf_counter() - begin, _used() - used


def _used() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _prepare(files: list[Path], *, cold: bool) -> None:
    for path in files if cold else ():
        with open(path, "rb") as file:
            # What is not on disk yet cannot be dropped.
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _read(path: Path) -> None:
    """Read a file to its end, as fast as it goes with one thread."""
    buffer = TwoBuffers(_BLOCK_SIZE).ours
    with open(path, "rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
        while file.readinto(buffer):
            pass


if __name__ == "__main__":
    main()
