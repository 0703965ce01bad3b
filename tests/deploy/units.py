"""The units of systemd: read as it reads them, and run with other paths."""

from __future__ import annotations

import os
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from ..conditions import DEADLINE
from . import DEPLOY

SYSTEMD = DEPLOY / "systemd"
UNITS = sorted(path.name for path in SYSTEMD.glob("*.service"))
#: Those that go on until they are stopped.
SERVERS = [name for name in UNITS if "Type=oneshot" not in (SYSTEMD / name).read_text()]


def settings(text: str) -> dict[str, list[str]]:
    """The values of each key, in all sections: those used here are in one alone."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(key, []).append(value)
    return found


def environment(path: Path) -> dict[str, str]:
    return {key: values[-1] for key, values in settings(path.read_text()).items()}


def command(line: str, variables: Mapping[str, str]) -> list[str]:
    """An ExecStart as systemd makes arguments of it: `${NAME}` is one, `$NAME` any number."""
    arguments: list[str] = []
    for word in shlex.split(line):
        if re.fullmatch(r"\$\w+", word):
            arguments += variables[word[1:]].split()
        else:
            arguments.append(re.sub(r"\$\{(\w+)\}", lambda found: variables[found[1]], word))
    return arguments


class Service:
    """The main process of a unit, as long as this context is entered.

    :param name: of the unit's file; what it starts is what its ExecStart says, but for
        /opt/zrs/bin, which is where this Python is, and what `paths` has in its place.
    :param variables: what its EnvironmentFile has.
    """

    def __init__(
        self,
        name: str,
        directory: Path,
        variables: Mapping[str, str],
        paths: Mapping[str, str] | None = None,
    ) -> None:
        self.unit = settings((SYSTEMD / name).read_text())
        [line] = self.unit["ExecStart"]
        self._output = directory / f"{name}.output"
        self._notify = directory / "notify"
        for old, new in {**(paths or {}), "/opt/zrs/bin": str(Path(sys.executable).parent)}.items():
            line = line.replace(old, new)
        [before] = self.unit.get("Environment", ["OPTIONS="])
        self._command = command(line, {**dict([before.split("=", 1)]), **variables})

    def __enter__(self) -> Service:
        # systemd itself, for those of Type=notify.
        self._manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notify.unlink(missing_ok=True)
        self._manager.bind(str(self._notify))
        self._manager.settimeout(DEADLINE)
        with self._output.open("wb") as output:
            self.process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "COLUMNS": "200", "NOTIFY_SOCKET": str(self._notify)},
            )
        return self

    @property
    def output(self) -> str:
        return self._output.read_text()

    def started(self) -> bool:
        """Whether systemd would count it as started, once it has said so or ended."""
        assert self.unit["Type"] == ["notify"]
        self._manager.settimeout(0.05)
        while self.process.poll() is None:
            try:
                return self._manager.recv(100) == b"READY=1"
            except TimeoutError:
                continue
        return False

    def restarts(self, status: int) -> bool:
        """Whether systemd starts it again when it has ended by itself with this status."""
        assert self.unit["Restart"] == ["on-failure"]
        [never] = self.unit["RestartPreventExitStatus"]
        return status != 0 and str(status) not in never.split()

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(DEADLINE)

    def __exit__(self, *exc_info: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._manager.close()
