"""Replication between processes."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

_ROOT = Path(__file__).parents[2]


class Secondaries:
    """The process of `secondaries.py`."""

    def __init__(self, stdin: IO[str], stdout: IO[str]) -> None:
        self._stdin = stdin
        self._stdout = stdout

    def ask(self, command: str) -> str:
        self._stdin.write(command + "\n")
        self._stdin.flush()
        return self._stdout.readline().strip()

    def wait_for(self, tid: bytes) -> None:
        assert self.ask(f"wait {tid.hex()}") == "ok"

    def seen(self) -> list[int]:
        return [int(number) for number in self.ask("seen").split()]


@contextlib.contextmanager
def secondaries(address: tuple[str, int], *directories: Path) -> Iterator[Secondaries]:
    """Secondaries in a process of their own; when left, all are closed and it has ended well."""
    host, port = address
    arguments = ["-m", "tests.processes.secondaries", f"{host}:{port}", *map(str, directories)]
    with subprocess.Popen(
        [sys.executable, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=_ROOT,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "ready\n"
            yield Secondaries(process.stdin, process.stdout)
            process.stdin.close()
            assert process.wait(60) == 0
        finally:
            process.kill()
