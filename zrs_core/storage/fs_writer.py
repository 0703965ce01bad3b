"""Writes to the data file that a FileStorage has open, and publishes what was written."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from persistent.TimeStamp import TimeStamp

from ..held import HeldTransaction
from . import disk
from .fs_access import file_storage_of
from .fs_tail import history, last_transaction

# Bytes from which on a piece is written by itself: to copy it costs more than one more system call.
_OWN_WRITE = 16 * 1024


class OpenDataFile:
    """The file that a FileStorage writes to (`AppendableFile`).

    :param storage: the FileStorage, or a BlobStorage around it.
    """

    def __init__(self, storage: Any) -> None:
        self._whole = storage
        self._storage = file_storage_of(storage)
        self.block_size = disk.block_size(self._fd)

    @property
    def last_tid(self) -> bytes:
        tid: bytes = self._storage._ltid
        return tid

    @property
    def end(self) -> int:
        end: int = self._storage._pos
        return end

    def lock(self) -> None:
        self._storage._commit_lock.acquire()

    def unlock(self) -> None:
        self._storage._commit_lock.release()

    def find(self, oid: bytes) -> int:
        pos: int = self._storage._index.get(oid, 0)
        return pos

    def read(self, pos: int, size: int) -> bytes:
        return os.pread(self._fd, size, pos)

    def last_transaction(self, tid: bytes, limit: int) -> HeldTransaction:
        return last_transaction(self._whole, tid, limit)

    def history(self, before: bytes | None, count: int) -> list[tuple[bytes, bool]]:
        return history(self._whole, before, count)

    def write(self, pos: int, *chunks: bytes) -> None:
        # Beside the storage's own handle, whose place others move.
        fd = self._fd
        small: list[bytes] = []
        size = 0
        for chunk in chunks:
            if len(chunk) < _OWN_WRITE:
                small.append(chunk)
                size += len(chunk)
            else:
                write_at(fd, pos, b"".join(small))
                write_at(fd, pos + size, chunk)
                pos += size + len(chunk)
                small, size = [], 0
        write_at(fd, pos, b"".join(small))

    def alone(self) -> AbstractContextManager[object]:
        lock: AbstractContextManager[object] = self._storage._lock
        return lock

    def truncate(self) -> None:
        # All buffers may hold what is cut off: that of the storage's own handle, which this
        # empties, and those of others who read.
        with self._storage._lock:
            self._storage._file.truncate(self.end)
        self._storage._files.flush()

    def trim(self) -> None:
        os.ftruncate(self._fd, self.end)

    def sync(self) -> None:
        disk.sync(self._fd)

    def publish(
        self, end: int, index: dict[bytes, int], tid: bytes, invalidate: Callable[[], None]
    ) -> None:
        storage = self._storage
        # As FileStorage's tpc_finish: who reads waits, and hears of what has changed before the
        # last tid tells that there is something new. Whoever takes both locks has the one for
        # commits, so that their order does not matter.
        with storage._files.write_lock(), storage._lock:
            # Its handle may have read ahead, and with that a status that is another one by now.
            storage._file.flush()
            invalidate()
            storage._index.update(index)
            storage._pos = end
            if index:
                storage.set_max_oid(max(index))
            storage._ts = TimeStamp(tid)
            storage._ltid = tid

    @property
    def _fd(self) -> int:
        fd: int = self._storage._file.fileno()
        return fd


def write_at(fd: int, pos: int, data: bytes) -> None:
    with memoryview(data) as left:
        while left:
            written = os.pwrite(fd, left, pos)
            pos += written
            left = left[written:]
