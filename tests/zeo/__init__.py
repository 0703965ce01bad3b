"""ZEO servers over replicated storages, each a process of its own."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from ..conditions import wait_for


class Server:
    """A running ZEO server; clients find it at `address`."""

    def __init__(self, process: subprocess.Popen[bytes], directory: Path) -> None:
        self.address = str(directory / "zeo.sock")
        self._process = process
        self._log = directory / "log"

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def wait_for(self, pattern: str) -> str:
        """The first group of `pattern`, as soon as the log has it."""

        def found() -> re.Match[str] | None:
            assert self._process.poll() is None, self.log
            return re.search(pattern, self.log)

        wait_for(found, f"{pattern} in {self._log}")
        match = found()
        assert match is not None
        return match[1]

    def replication_address(self, storage: str = "Data.fs") -> str:
        """Where a primary in it listens, as its log tells."""
        return self.wait_for(rf"Opening \S*{storage} (\S+)")

    def wait(self) -> int:
        """The exit status of a server that ends by itself."""
        return self._process.wait(60)


@contextlib.contextmanager
def zeo_server(directory: Path, storages: str, zeo: str = "") -> Iterator[Server]:
    """A server in `directory`; when left, it has been told to stop, and has ended well.

    :param storages: its configuration's sections of storages.
    :param zeo: more keys of its `zeo` section.
    """
    head = f"%import zrs_core\n<zeo>\naddress {directory}/zeo.sock\n{zeo}\n</zeo>\n"
    with configured(directory, head + storages) as server:
        yield server


@contextlib.contextmanager
def configured(directory: Path, text: str) -> Iterator[Server]:
    """As `zeo_server`, with the whole of its configuration."""
    with running(directory, text) as (server, process):
        wait_for(
            lambda: process.poll() is not None or os.path.exists(server.address),
            "the server to listen",
        )
        assert process.poll() is None, server.log
        yield server
        process.send_signal(signal.SIGTERM)
        status = process.wait(60)
        assert status == 0, server.log
        assert "ERROR zrs_core" not in server.log


@contextlib.contextmanager
def running(directory: Path, text: str) -> Iterator[tuple[Server, subprocess.Popen[bytes]]]:
    """The process of a server, whatever becomes of it."""
    directory.mkdir(exist_ok=True)
    conf = directory / "zeo.conf"
    conf.write_text(text)
    with (directory / "log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-W", "default", "-m", "ZEO.runzeo", "-C", str(conf)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=directory,
        )
    with process:
        try:
            yield Server(process, directory), process
        finally:
            if process.poll() is None:
                process.kill()
