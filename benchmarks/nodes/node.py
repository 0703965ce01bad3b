"""What the processes of primaries and of secondaries have in common."""

from __future__ import annotations

from typing import Any

from ZODB.FileStorage import FileStorage

from .implementations import Implementation
from .usage import forget_peak, usage


class Node:
    """One end of replication. Its public methods are called by name, with and for JSON values."""

    def __init__(self, implementation: Implementation) -> None:
        self._implementation = implementation
        self._storage: Any = None
        forget_peak()

    def usage(self) -> dict[str, float]:
        return usage()

    def close(self) -> None:
        if self._storage is not None:
            self._storage.close()


def file_storage(path: str, blobs: str | None) -> FileStorage:
    return FileStorage(path, blob_dir=blobs)
