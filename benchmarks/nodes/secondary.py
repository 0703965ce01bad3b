"""The process of a secondary."""

from __future__ import annotations

import time

from ZODB.FileStorage import FileStorage

from .implementations import Address
from .node import Node
from .watching import Watcher

_POLL_INTERVAL = 0.002
#: Seconds without any new transaction after which it is given up.
_PATIENCE = 120.0


class SecondaryNode(Node):
    """A secondary, and what it sees."""

    def catch_up(self, path: str, address: Address, tid: str, blobs: str | None = None) -> float:
        """Connect, and wait until `tid` is its last transaction; how many seconds that took."""
        storage = FileStorage(path, blob_dir=blobs)
        begin = time.perf_counter()
        self._storage = self._implementation.secondary(storage, address)
        self.wait_for(tid)
        return time.perf_counter() - begin

    def wait_for(self, tid: str) -> None:
        """Until a transaction is visible.

        :raises TimeoutError: nothing arrives any more.
        """
        wanted, seen, since = bytes.fromhex(tid), b"", time.monotonic()
        while (last := self._storage.lastTransaction()) != wanted:
            if last != seen:
                seen, since = last, time.monotonic()
            elif time.monotonic() > since + _PATIENCE:
                raise TimeoutError(f"no new transaction for {_PATIENCE:.0f} seconds")
            time.sleep(_POLL_INTERVAL)

    def watch(self) -> None:
        """From now on, note when each transaction becomes visible."""
        self._watcher = Watcher(self._storage)

    def seen(self) -> dict[str, float]:
        """When each transaction has become visible, by tid."""
        return {tid.hex(): when for tid, when in [*self._watcher.seen.items()]}
