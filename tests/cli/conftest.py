"""The command in processes of its own, and databases for it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.conditions import DEADLINE, wait_for
from tests.databases import open_file_storage, traffic
from zrs_core.tools.cli.command import zrs as command

#: For a secondary that is to have caught up really: a primary that is only slow looks the same.
QUIETLY = ("--quiet", "5")


@pytest.fixture
def address():
    """Where a test may listen again and again: the port is held, and nobody else is given it."""
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{held.getsockname()[1]}"


class Process:
    """A running `zrs`; `out` and `err` are what it has printed so far."""

    def __init__(self, arguments, directory: Path, **options):
        self._paths = [directory / name for name in ("stdout", "stderr")]
        with self._paths[0].open("wb") as out, self._paths[1].open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "zrs_core.tools.cli", *map(str, arguments)],
                stdin=options.pop("stdin", subprocess.DEVNULL),
                stdout=options.pop("stdout", out),
                stderr=options.pop("stderr", err),
                env={**os.environ, "COLUMNS": "200"},
                **options,
            )

    @property
    def out(self) -> str:
        return self._paths[0].read_text()

    @property
    def err(self) -> str:
        return self._paths[1].read_text()

    def wait_for(self, text: str, times: int = 1) -> str:
        """The line that holds `text`, once it was printed, for the last of so many times."""

        def found():
            self._line = [line for line in self.out.splitlines() if text in line]
            return len(self._line) >= times or self.process.poll() is not None

        wait_for(found, f"{text!r} from {self.process.args}")
        assert len(self._line) >= times, f"{self.out}\n{self.err}"
        return self._line[times - 1]

    def finish(self) -> int:
        """Its exit status, when it ends by itself."""
        return self.process.wait(DEADLINE)

    def stop(self) -> int:
        """Its exit status after SIGTERM."""
        self.process.terminate()
        return self.finish()


@pytest.fixture
def zrs(tmp_path):
    """Starts the command with arguments; all are killed in the end."""
    running = []

    def start(*arguments, **options) -> Process:
        directory = tmp_path / f"output-{len(running)}"
        directory.mkdir()
        running.append(Process(arguments, directory, **options))
        return running[-1]

    yield start
    for each in running:
        if each.process.poll() is None:
            each.process.kill()
        each.process.wait()


@pytest.fixture
def invoke(tmp_path, monkeypatch):
    """The output of a failed call in an empty directory, where nothing may appear."""
    directory = tmp_path / "empty"
    directory.mkdir()
    monkeypatch.chdir(directory)

    def call(*arguments, status=2, stdout=""):
        result = CliRunner().invoke(command, [str(each) for each in arguments])
        assert result.exit_code == status
        assert isinstance(result.exception, SystemExit)
        assert list(directory.iterdir()) == []
        assert result.stdout == stdout
        [line] = result.stderr.splitlines()
        return line

    return call


def make_database(path: Path, commits: int = 30, seed: int = 0, blobs: bool = True) -> Path:
    """A directory with a database, Data.fs and blobs, that nobody has open."""
    with traffic(open_file_storage(path, blobs), seed, blobs) as commit:
        commit.commit(commits)
    return path


@pytest.fixture
def database(tmp_path) -> Path:
    return make_database(tmp_path / "database")


def snapshot_of(path: Path) -> dict[str, object]:
    """Every file below a directory: its bytes and the time it was written."""
    return {
        str(each.relative_to(path)): (each.read_bytes(), each.stat().st_mtime_ns)
        if each.is_file()
        else None
        for each in path.rglob("*")
    }
