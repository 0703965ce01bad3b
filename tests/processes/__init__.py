"""Replication between processes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from ..driven import Driven, driven


class Secondaries:
    """The process of `secondaries.py`."""

    def __init__(self, process: Driven) -> None:
        self._process = process

    def wait_for(self, tid: bytes) -> None:
        assert self._process.ask(f"wait {tid.hex()}") == "ok"

    def seen(self) -> list[int]:
        return [int(number) for number in self._process.ask("seen").split()]


@contextlib.contextmanager
def secondaries(address: tuple[str, int], *directories: Path) -> Iterator[Secondaries]:
    """Secondaries in a process of their own; when left, all are closed and it has ended well."""
    host, port = address
    with driven("tests.processes.secondaries", f"{host}:{port}", *directories) as process:
        yield Secondaries(process)
