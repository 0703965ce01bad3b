"""Commits by the interface of storages, as a database would make them."""

from __future__ import annotations

import itertools
import os
import time
from typing import Any

from ZODB.Connection import TransactionMetaData
from ZODB.utils import p64, z64

#: So few that what a storage knows of its objects does not grow.
_OBJECTS = 1_000


class Committer:
    """Commits transactions of one record each to a storage that nobody else writes to."""

    #: That of each of them.
    DESCRIPTION = "/site/folder/document/edit"

    def __init__(self, storage: Any, size: int) -> None:
        self._storage = storage
        self._data = b"\x80\x03" + os.urandom(size - 2)
        self._oids = itertools.cycle([p64(number) for number in range(_OBJECTS)])
        self._serials: dict[bytes, bytes] = {}

    def commit(self) -> bytes:
        """Commit the next transaction; its tid."""
        storage, oid = self._storage, next(self._oids)
        transaction = TransactionMetaData(description=self.DESCRIPTION)
        storage.tpc_begin(transaction)
        storage.store(oid, self._serials.get(oid, z64), self._data, "", transaction)
        storage.tpc_vote(transaction)
        tid: bytes = storage.tpc_finish(transaction)
        self._serials[oid] = tid
        return tid

    def burst(self, count: int) -> float:
        """Commit as fast as it goes; seconds."""
        begin = time.perf_counter()
        for _ in range(count):
            self.commit()
        return time.perf_counter() - begin

    def paced(self, count: int, rate: float) -> None:
        """Commit so many, at `rate` a second."""
        begin = time.monotonic()
        for number in range(count):
            time.sleep(max(0.0, begin + number / rate - time.monotonic()))
            self.commit()
