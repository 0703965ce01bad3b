"""The process of a primary."""

from __future__ import annotations

from typing import Any

from ZODB.FileStorage import FileStorage

from .commits import Committer
from .implementations import Address
from .node import Node, TimedFileStorage


class PrimaryNode(Node):
    """A primary, and what commits to it."""

    def open(self, path: str, blobs: str | None = None, timed: bool = False) -> Address:
        """Open it; where it listens."""
        make = TimedFileStorage if timed else FileStorage
        self._file_storage: Any = make(path, blob_dir=blobs)
        self._storage = self._implementation.primary(self._file_storage)
        return self._implementation.address(self._storage)

    def prepare_commits(self, size: int) -> str:
        """Commit a first transaction of a record of `size` bytes; its tid."""
        self._committer = Committer(self._storage, size)
        return self._committer.commit().hex()

    def burst(self, count: int) -> float:
        """Commit so many transactions as fast as it goes; seconds."""
        return self._committer.burst(count)

    def paced(self, count: int, rate: float) -> None:
        """Commit so many transactions, `rate` a second."""
        self._committer.paced(count, rate)

    def last_tid(self) -> str:
        tid: bytes = self._storage.lastTransaction()
        return tid.hex()

    def committed(self) -> dict[str, float]:
        """When each transaction was committed, by tid."""
        return {tid.hex(): when for tid, when in self._file_storage.committed.items()}
