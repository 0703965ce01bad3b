"""The process of a secondary."""

from __future__ import annotations

import time
from typing import Any

from .implementations import Address
from .node import Node, file_storage

_POLL_INTERVAL = 0.002
#: Seconds without any new transaction after which it is given up.
_PATIENCE = 120.0


class SecondaryNode(Node):
    """A secondary, and what it sees."""

    def catch_up(self, path: str, address: Address, tid: str, blobs: str | None = None) -> float:
        """Connect, and wait until `tid` is its last transaction; how many seconds that took."""
        storage, wanted = file_storage(path, blobs), bytes.fromhex(tid)
        begin = time.perf_counter()
        self._storage = self._implementation.secondary(storage, address)
        wait_for(self._storage, wanted)
        return time.perf_counter() - begin


def wait_for(storage: Any, tid: bytes) -> None:
    """Until a transaction is visible.

    :raises TimeoutError: nothing arrives any more.
    """
    seen, since = b"", time.monotonic()
    while (last := storage.lastTransaction()) != tid:
        if last != seen:
            seen, since = last, time.monotonic()
        elif time.monotonic() > since + _PATIENCE:
            raise TimeoutError(f"no new transaction for {_PATIENCE:.0f} seconds, after {last!r}")
        time.sleep(_POLL_INTERVAL)
