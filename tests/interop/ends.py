"""The ends of a replication, ours and those of zc.zrs, to be used alike.

Each has `path`, where its database is, and `tid()`, its last transaction. What can be followed has
an `address`; what can be written to commits with `commit(count)`; all but the middle of a cascade
can `pack()`.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ZODB.serialize import referencesf

from zrs_core import Primary, Secondary

from ..databases import Traffic, open_file_storage, traffic
from ..driven import Driven, driven


@dataclass
class Theirs:
    """The process of `peer_primary.py` or of `peer_secondary.py`."""

    path: Path
    process: Driven

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", int(self.process.ready)

    def tid(self) -> bytes:
        return bytes.fromhex(self.process.ask("last"))

    def commit(self, count: int) -> None:
        self.process.ask(f"commit {count}")

    def pack(self) -> None:
        self.process.ask("pack")


@dataclass
class OurPrimary:
    path: Path
    storage: Primary
    commits: Traffic

    @property
    def address(self) -> tuple[str, int]:
        return self.storage.replication_address

    def tid(self) -> bytes:
        return self.storage.lastTransaction()

    def commit(self, count: int) -> None:
        self.commits.commit(count)

    def pack(self) -> None:
        self.commits.pack()


@dataclass
class OurSecondary:
    path: Path
    storage: Any

    @property
    def address(self) -> tuple[str, int]:
        return self.storage.replication_address

    def tid(self) -> bytes:
        return self.storage.lastTransaction()

    def pack(self) -> None:
        self.storage.pack(time.time(), referencesf, gc=True)


@contextlib.contextmanager
def their_primary(seed: int, *, python: str, path: Path, word: str) -> Iterator[Theirs]:
    module = "tests.interop.peer_primary"
    with driven(module, path, word, seed, python=python) as process:
        yield Theirs(path, process)


@contextlib.contextmanager
def their_secondary(address: Any, *, python: str, path: Path, word: str) -> Iterator[Theirs]:
    module = "tests.interop.peer_secondary"
    with driven(module, address[1], path, word, python=python) as process:
        yield Theirs(path, process)


@contextlib.contextmanager
def our_primary(seed: int, *, path: Path, word: str, **options: Any) -> Iterator[OurPrimary]:
    blobs = word == "zrs2.1"
    storage = Primary(open_file_storage(path, blobs), ("127.0.0.1", 0), **options)
    with traffic(storage, seed, blobs) as commits:
        yield OurPrimary(path, storage, commits)


@contextlib.contextmanager
def our_secondary(address: Any, *, path: Path, word: str, transport: str) -> Iterator[OurSecondary]:
    with contextlib.closing(_secondary(address, path, word, transport)) as storage:
        yield OurSecondary(path, storage)


@contextlib.contextmanager
def our_middle(address: Any, *, path: Path, word: str, transport: str) -> Iterator[OurSecondary]:
    """A secondary that is followed itself."""
    followed = _secondary(address, path, word, transport)
    middle = Primary(followed, ("127.0.0.1", 0), transport=transport)
    with contextlib.closing(middle):
        yield OurSecondary(path, middle)


def _secondary(address: Any, path: Path, word: str, transport: str) -> Secondary:
    storage = open_file_storage(path, blobs=word == "zrs2.1")
    return Secondary(
        storage,
        address,
        transport=transport,
        reconnect_delay=(0.01, 0.02),
        keep_alive_delay=0.01,
    )
