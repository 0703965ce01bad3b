"""What the processes of primaries and of secondaries have in common."""

from __future__ import annotations

import time
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

    def forget_peak(self) -> None:
        forget_peak()


class TimedFileStorage(FileStorage):  # type: ignore[misc]
    """Remembers when each transaction was committed: on disk, and before anybody is told."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.committed: dict[bytes, float] = {}

    def tpc_finish(self, *args: Any) -> bytes:
        tid: bytes = super().tpc_finish(*args)
        self.committed[tid] = time.monotonic()
        return tid
