"""When transactions become visible on a secondary."""

from __future__ import annotations

import queue
import threading
import time
from typing import Any

_POLL_INTERVAL = 0.00005


class Watcher:
    """Notes when the storage of a secondary first names a transaction as its last, or a later one.

    It is told of each by the invalidations, which come just before: so it hardly has to poll,
    which would take processor time from what is measured.
    """

    def __init__(self, storage: Any) -> None:
        self.seen: dict[bytes, float] = {}
        self._storage = storage
        self._coming: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        storage.registerDB(self)
        threading.Thread(target=self._watch, daemon=True).start()

    # What a storage asks of a database.

    def invalidate(self, tid: bytes, oids: Any) -> None:
        self._coming.put(tid)

    def untransform_record_data(self, data: bytes) -> bytes:
        return data

    transform_record_data = untransform_record_data

    def _watch(self) -> None:
        while True:
            tid = self._coming.get()
            while self._storage.lastTransaction() < tid:
                time.sleep(_POLL_INTERVAL)
            self.seen[tid] = time.monotonic()
