"""zc.zrs's `zrs-nagios` and ours ask the same ZEO servers, and say the same."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from persistent.timestamp import TimeStamp
from ZODB.Connection import TransactionMetaData
from ZODB.FileStorage import FileStorage

from ..zeo import configured

#: Seconds between the last transactions of the two.
LAG = 68.5


@pytest.fixture(scope="module")
def several():
    """The addresses of two ZEO servers with three storages each; one storage is behind."""
    more = "<mappingstorage 1>\n</mappingstorage>\n<mappingstorage {}>\n</mappingstorage>"
    with two_servers("first", (more.format("friday"), more.format("thursday"))) as addresses:
        yield addresses


@pytest.fixture(scope="module")
def single():
    """The same with one storage, as ZEO calls it if nobody gives it a name."""
    with two_servers("1", ("", "")) as addresses:
        yield addresses


@contextmanager
def two_servers(name: str, more: tuple[str, str]) -> Iterator[list[str]]:
    # A path that is short enough for a Unix socket.
    with tempfile.TemporaryDirectory(prefix="zrs") as directory, ExitStack() as stack:
        addresses = []
        for number, last in enumerate((LAG, 0.0)):
            path = Path(directory, str(number))
            path.mkdir()
            make(path / "Data.fs", last)
            zeo = f"<zeo>\naddress {path}/zeo.sock\n</zeo>\n"
            storage = f"<filestorage {name}>\npath {path}/Data.fs\n</filestorage>\n"
            server = stack.enter_context(configured(path, zeo + storage + more[number]))
            addresses.append(server.address)
        yield addresses


def make(path: Path, second: float) -> None:
    """A database whose last transaction is from so many seconds after a fixed time."""
    storage = FileStorage(str(path))
    minutes, second = divmod(second, 60)
    change = TransactionMetaData()
    storage.tpc_begin(change, TimeStamp(2026, 11, 22, 6, int(minutes), second).raw())
    storage.tpc_vote(change)
    storage.tpc_finish(change)
    storage.close()


@pytest.mark.long
@pytest.mark.parametrize("options", ["-m", "-w99", "-m -w33 -e99", "-w33 -e44", ""])
def test_both_say_the_same(python_of, several, single, options):
    for primary, secondary in (several, single, single[::-1]):
        arguments = [*options.split(), primary, secondary]
        theirs = run(Path(python_of("zodb-5.5.1")).with_name("zrs-nagios"), *arguments)
        ours = run(Path(sys.executable).with_name("zrs-nagios"), *arguments)
        assert ours == theirs
        assert ours[0] in (0, 1, 2)


@pytest.mark.long
def test_both_miss_the_same(python_of, single):
    primary, secondary = single
    for addresses in ((primary, "/nowhere"), ("/nowhere", secondary)):
        theirs = run(Path(python_of("zodb-5.5.1")).with_name("zrs-nagios"), "-m", *addresses)
        assert run(Path(sys.executable).with_name("zrs-nagios"), "-m", *addresses) == theirs
        assert theirs[0] == 2


def run(command: Path, *arguments: str) -> tuple[int, str]:
    """The exit status, and what is printed but for blanks at the ends of lines."""
    done = subprocess.run([command, *arguments], capture_output=True, text=True)
    assert done.stderr == ""
    return done.returncode, "\n".join(map(str.rstrip, done.stdout.rstrip().splitlines()))
