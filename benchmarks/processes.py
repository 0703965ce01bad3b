"""The processes that are measured, as seen from the one that measures."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from .contenders import ROOT, Contender

_STOP_TIMEOUT = 90.0
_IDLE_INTERVAL = 0.5
#: Seconds of processor time in a second.
_IDLE = 0.04


class NodeFailed(Exception):
    """A process could not do what it was told."""


class NodeProcess:
    """A primary or a secondary in a process of its own, while this context is entered."""

    def __init__(self, role: str, contender: Contender, directory: Path) -> None:
        self.name = f"{contender.name} {role}"
        self._command = [contender.pythons[role], "-m", "benchmarks.nodes"]
        self._command += [role, contender.implementation, contender.transport]
        self._errors = directory / f"{role}.log"
        self._begin: dict[str, float] = {}

    def __enter__(self) -> NodeProcess:
        with self._errors.open("ab") as errors:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                cwd=ROOT,
            )
        self._begin = self.call("usage")
        return self

    def begin_again(self) -> None:
        """What it uses is counted from here on."""
        self.call("forget_peak")
        self._begin = self.call("usage")

    def call(self, method: str, **arguments: Any) -> Any:
        """Have it call a method, and wait for the result."""
        return self.start(method, **arguments)()

    def start(self, method: str, **arguments: Any) -> Callable[[], Any]:
        """Have it call a method; what is returned waits for the result.

        :raises NodeFailed: the method raises, or the process has ended.
        """
        _pipe(self._process.stdin).write(json.dumps([method, arguments]) + "\n")
        _pipe(self._process.stdin).flush()
        return self._result

    def _result(self) -> Any:
        line = _pipe(self._process.stdout).readline()
        answer = json.loads(line) if line else {"error": self._errors.read_text()[-2000:]}
        if "error" in answer:
            raise NodeFailed(f"{self.name}: {answer['error']}")
        return answer["result"]

    def used(self) -> dict[str, float]:
        """What it has used since it began, or began again.

        That is seconds of processor time, and MB of memory at the peak.
        """
        now = self.call("usage")
        return {
            "cpu": now["cpu"] - self._begin["cpu"],
            "peak": (now["peak"] - self._begin["peak"]) / 1e6,
        }

    def resident(self) -> float:
        """Bytes of it that are in memory now."""
        return float(self.call("usage")["resident"])

    def wait_until_idle(self) -> None:
        """Until it uses no processor time to speak of."""
        used = -1.0
        while (now := self.call("usage")["cpu"]) > used + _IDLE * _IDLE_INTERVAL:
            used = now
            time.sleep(_IDLE_INTERVAL)

    def pause(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def __exit__(self, *exc_info: object) -> None:
        """It is killed: how a storage is closed is not measured."""
        self._process.kill()
        self._process.wait(_STOP_TIMEOUT)
        _pipe(self._process.stdin).close()
        _pipe(self._process.stdout).close()


def used_by(**nodes: NodeProcess) -> dict[str, float]:
    """What each of them has used, with its name in front."""
    return {
        f"{name} {what}": value
        for name, node in nodes.items()
        for what, value in node.used().items()
    }


def _pipe(stream: IO[str] | None) -> IO[str]:
    if stream is None:
        raise NodeFailed("there is no pipe to the process")
    return stream
