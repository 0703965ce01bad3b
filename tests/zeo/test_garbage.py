"""Garbage that zc.zodbdgc finds on a replica, as docs/how-to/garbage.rst shows it."""

from __future__ import annotations

import contextlib
import itertools
import re
import shutil
import subprocess
import sys
import tempfile
import time
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ZODB.BaseStorage
from persistent.mapping import PersistentMapping
from ZODB import DB
from ZODB.blob import Blob

from ..conditions import wait_for
from ..databases import open_file_storage
from ..documents.blocks import named_blocks
from . import configured

_PAGE = named_blocks("how-to/garbage.rst")
_BIN = Path(__file__).parents[2] / ".venv-peers" / "zodbdgc" / "bin"
NAMES = ("catalog", "main")

# A day and more ago, and a second later at each commit.
_LONG_AGO = 1174509176


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory whose path is short enough for a Unix socket."""
    path = Path(tempfile.mkdtemp(prefix="zrs"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def garbage(directory: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, set[bytes]]:
    """The objects in the databases of the primary that nothing refers to any more."""
    seconds = itertools.count(_LONG_AGO)
    clock = types.SimpleNamespace(time=lambda: float(next(seconds)), gmtime=time.gmtime)
    databases: dict[str, Any] = {}
    found = {}
    with monkeypatch.context() as patched, contextlib.ExitStack() as stack:
        patched.setattr(ZODB.BaseStorage, "time", clock)
        for name in NAMES:
            storage = open_file_storage(database(directory / "primary", name))
            db = DB(storage, databases=databases, database_name=name)
            stack.callback(db.close)
        main = databases["main"]
        with main.transaction() as connection:
            catalog = connection.get_connection("catalog").root()
            root = connection.root()
            catalog["kept"] = PersistentMapping()
            catalog["entry"] = PersistentMapping()
            root["kept"] = PersistentMapping()
            root["page"] = PersistentMapping(picture=Blob(b"a picture"), text="x" * 10_000)
            root["page"]["self"] = root["page"]
        with main.transaction() as connection:
            catalog = connection.get_connection("catalog").root()
            root = connection.root()
            # Its only reference is in the other database from now on.
            root["kept"]["entry"] = catalog.pop("kept")
            root["page"]["entry"] = catalog.pop("entry")
        with main.transaction() as connection:
            page = connection.root().pop("page")
            found["main"] = {page._p_oid, page["picture"]._p_oid}
            found["catalog"] = {page["entry"]._p_oid}
    return found


def database(machine: Path, name: str) -> Path:
    path = machine / ("db" if name == "main" else name)
    path.mkdir(parents=True, exist_ok=True)
    return path


def here(text: str, directory: Path, machine: str) -> str:
    """A block of the page on one of its machines, which are directories."""
    text = text.replace("/var/lib/zrs/main", str(directory / machine))
    text = re.sub(r"(\w+)\.example:(\d+):(\w+)", rf"-u {directory}/\1/zeo.sock:\3", text)
    text = re.sub(r"(\w+)\.example:8000", rf"{directory}/\1/zeo.sock", text)
    text = text.replace("address :8000", f"address {directory}/{machine}/zeo.sock")
    text = re.sub(r"(\w+)\.example:(\d+)", rf"{directory}/\1/\2.sock", text)
    return re.sub(r"(?<= ):(\d+)", rf"{directory}/{machine}/\1.sock", text)


def objects(machine: Path, name: str) -> set[bytes]:
    """Those that its FileStorage has."""
    with contextlib.closing(open_file_storage(database(machine, name))) as storage:
        return {oid for oid in storage._index if _loads(storage, oid)}


def _loads(storage: Any, oid: bytes) -> bool:
    with contextlib.suppress(KeyError):
        storage.load(oid)
        return True
    return False


def tids(machine: Path) -> dict[str, bytes]:
    found = {}
    for name in NAMES:
        *_, last = ZODB.FileStorage.FileIterator(str(database(machine, name) / "Data.fs"))
        found[name] = last.tid
    return found


@pytest.mark.long
def test_the_steps_of_the_page(directory: Path, garbage: dict[str, set[bytes]]) -> None:
    primary, replica = directory / "primary", directory / "replica"
    replica.mkdir()
    for name in NAMES:
        database(replica, name)
    before = {name: objects(primary, name) for name in NAMES}
    size = (database(primary, "main") / "Data.fs").stat().st_size
    server = here(_PAGE["gc-primary"], directory, "primary")
    follower = here(_PAGE["gc-primary"], directory, "replica")
    for port in "8100", "8200":
        follower = follower.replace(
            f"replicate-to {replica}/{port}", f"replicate-from {primary}/{port}"
        )
    (directory / "primary.conf").write_text(here(_PAGE["gc-clients"], directory, "primary"))
    steps = here(_PAGE["gc-steps"], directory, "replica").splitlines()
    status, pack_replica, collect, status_again, *packs = steps
    removed = re.compile(r"Removed (\d+) objects from (\w+)")

    def collected() -> dict[str, int]:
        output = run(f"{collect} -l INFO", directory)
        return {name: int(number) for number, name in removed.findall(output)}

    with configured(primary, server), configured(replica, follower):
        wait_for(lambda: in_sync(status), "the replica to catch up")
        assert collected() == {"catalog": 0, "main": 0}
        run(pack_replica, directory)
        assert collected() == {name: len(garbage[name]) for name in NAMES}
        wait_for(lambda: tids(replica) == tids(primary), "the deletions to be replicated")
        wait_for(lambda: in_sync(status_again), "it to be known that they are")
        for each in packs:
            run(each, directory)
    for machine in primary, replica:
        for name in NAMES:
            assert objects(machine, name) == before[name] - garbage[name]
        assert (database(machine, "main") / "Data.fs").stat().st_size < size - 10_000
        assert not [*(database(machine, "main") / "blobs").rglob("*.blob")]


def in_sync(command: str) -> bool:
    return subprocess.run(line_of(command), capture_output=True).returncode == 0


def run(command: str, directory: Path) -> str:
    """What a command writes that must succeed."""
    done = subprocess.run(
        line_of(command), cwd=directory, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def line_of(command: str) -> list[str]:
    program, *arguments = command.split()
    if program == "zrs":
        return [sys.executable, "-m", "zrs_core.tools.cli", *arguments]
    path = _BIN / program
    if not path.exists():
        raise FileNotFoundError(f"{path} is not there: `make peers` installs it")
    return [str(path), *arguments]
