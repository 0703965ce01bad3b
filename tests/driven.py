"""Processes that are driven over their standard input: a line asks, a line answers."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from .conditions import DEADLINE

_ROOT = Path(__file__).parent.parent


class Driven:
    """A running process; `ready` is what it said after `ready`, its first word."""

    def __init__(self, stdin: IO[str], stdout: IO[str]) -> None:
        self._stdin = stdin
        self._stdout = stdout
        said, _, self.ready = stdout.readline().strip().partition(" ")
        assert said == "ready"

    def ask(self, command: str) -> str:
        self._stdin.write(command + "\n")
        self._stdin.flush()
        return self._stdout.readline().strip()


@contextlib.contextmanager
def driven(module: str, *arguments: object, python: str = sys.executable) -> Iterator[Driven]:
    """A module of the tests in a process of its own; when left, it has been told and ended well."""
    with subprocess.Popen(
        [python, "-m", module, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=_ROOT,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield Driven(process.stdin, process.stdout)
            process.stdin.close()
            assert process.wait(DEADLINE) == 0
        finally:
            process.kill()
