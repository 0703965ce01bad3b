"""Pairs of databases, and what verifying them comes to."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest
from persistent.mapping import PersistentMapping
from ZODB.serialize import referencesf

from tests.databases import open_file_storage, traffic
from zrs_core.storage.committed import CommittedFile, Header
from zrs_core.storage.fs_format import FIRST_OFFSET
from zrs_core.tools.verify.report import Report
from zrs_core.tools.verify.run import Options, Verification
from zrs_core.tools.verify.sources import Source


class Database:
    """A directory with Data.fs and blobs, to be damaged."""

    def __init__(self, path: Path) -> None:
        self.directory = path
        self.path = path / "Data.fs"
        self.blobs = path / "blobs"

    def source(self, *, blobs: bool = True) -> Source:
        directory = str(self.blobs) if blobs and self.blobs.exists() else None
        return Source(str(self.path), path=str(self.path), blobs=directory)

    @property
    def headers(self) -> list[Header]:
        file = CommittedFile(str(self.path))
        file.end = file.stat().st_size
        found, pos = [], FIRST_OFFSET
        while pos < file.end:
            found.append(file.header(pos))
            pos = found[-1].next
        file.close()
        return found

    def read(self, pos: int, size: int) -> bytes:
        return self.path.read_bytes()[pos : pos + size]

    def write(self, pos: int, data: bytes) -> None:
        with self.path.open("r+b") as file:
            file.seek(pos)
            file.write(data)

    def flip(self, pos: int) -> None:
        """Change a byte."""
        self.write(pos, bytes([self.read(pos, 1)[0] ^ 0x15]))

    def cut_out(self, header: Header) -> None:
        """Remove a transaction as if it had never been: positions in those after it are adapted."""
        copy = self.directory / "without"
        storage = open_file_storage(copy)
        source = open_file_storage(self.directory)
        for each in source.iterator():
            if each.tid != header.tid:
                storage.tpc_begin(each, each.tid, each.status)
                for record in each:
                    storage.restore(record.oid, record.tid, record.data, "", None, each)
                storage.tpc_vote(each)
                storage.tpc_finish(each)
        source.close()
        storage.close()
        shutil.move(copy / "Data.fs", self.path)
        shutil.rmtree(copy)

    def all_blobs(self) -> list[Path]:
        return sorted(self.blobs.rglob("*.blob"))


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    path = tmp_path_factory.mktemp("made") / "it"
    with traffic(open_file_storage(path)) as commit:
        commit.commit(60)
    return path


@pytest.fixture
def pair(made, tmp_path):
    """Two equal databases."""
    return two_of(made, tmp_path)


@pytest.fixture(scope="session")
def made_small(tmp_path_factory):
    path = tmp_path_factory.mktemp("made") / "it"
    with traffic(open_file_storage(path, blobs=False), seed=3, blobs=False) as commit:
        commit.commit(9)
    return path


@pytest.fixture
def small_pair(made_small, tmp_path):
    """Two equal databases of ten small transactions without blobs."""
    return two_of(made_small, tmp_path)


@pytest.fixture
def packed(pair):
    """A was packed, with what cannot be reached."""
    a, b = pair
    with traffic(open_file_storage(a.directory)) as commit:
        commit._connection.root()["gone"] = PersistentMapping()
        commit._transactions.commit()
        del commit._connection.root()["gone"]
        commit._transactions.commit()
    shutil.rmtree(b.directory)
    shutil.copytree(a.directory, b.directory)
    pack(a)
    return pair


def pack(database: Database, when: float | None = None) -> None:
    """Pack a database, up to now unless a time is given."""
    storage = open_file_storage(database.directory)
    storage.pack(time.time() if when is None else when, referencesf)
    storage.close()


def two_of(made, path):
    for name in "ab":
        shutil.copytree(made, path / name)
    return Database(path / "a"), Database(path / "b")


def verified(a, b, *, state=None, watch=lambda *args: None, **options) -> Report:
    """What comes out; each is a database or a source."""
    options = Options(**{"wait": 0, **options})
    a, b = (each.source() if isinstance(each, Database) else each for each in (a, b))
    return Verification(a, b, options, watch, state=state and str(state)).run()
