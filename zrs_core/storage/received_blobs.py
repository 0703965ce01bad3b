"""Blobs of the transactions that a sink holds, from their first block to their final place."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Final

from ..messages import StoreBlob
from .blobs import temporary_directory
from .disk import Directories
from .incoming_blobs import IncomingBlob, place_blob, remove_temporary_files

#: Blobs of one transaction that are being synced at the same time.
MAX_SYNCING: Final = 8


class ReceivedBlobs:
    """The blobs of the transaction that is being received, and of those that are not published yet.

    :param storage: a storage with a blob directory.
    :param sync: wait until files and directories are on disk.
    :param max_syncing: blobs of one transaction that are being synced at the same time.
    """

    def __init__(self, storage: Any, *, sync: bool, max_syncing: int = MAX_SYNCING) -> None:
        self._storage = storage
        self._sync = sync
        self._max_syncing = max_syncing
        self._directories = Directories(storage.fshelper.base_dir)
        # The blob whose blocks are being received.
        self._blob: IncomingBlob | None = None
        # Complete blobs of the transaction that is being received, and of those before it.
        self._current: list[IncomingBlob] = []
        self._committed: list[IncomingBlob] = []
        # Files that are in their final places.
        self._placed: list[str] = []
        remove_temporary_files(temporary_directory(storage))

    def __len__(self) -> int:
        """Return the number of blobs of transactions that are whole."""
        return len(self._committed)

    def begin(self, record: StoreBlob) -> None:
        self._blob = IncomingBlob(record, temporary_directory(self._storage))

    def add_block(self, data: bytes) -> None:
        """Write the next block of a blob.

        :raises ValueError: no blob was begun.
        """
        if self._blob is None:
            raise ValueError("a blob block outside of a blob")
        self._blob.write(data)

    def take_complete(self, *, keep: bool) -> StoreBlob | None:
        """Return the record of the blob if all of its blocks were received, None otherwise.

        :param keep: False to discard the file.
        """
        blob = self._blob
        if blob is None or blob.blocks_left:
            return None
        blob.finish(sync=self._sync)
        self._blob = None
        if not keep:
            blob.discard()
            return None
        self._current.append(blob)
        # Each of them is an open file, and perhaps a thread.
        if len(self._current) > self._max_syncing:
            self._current[-1 - self._max_syncing].settle()
        return blob.record

    def commit(self) -> None:
        """End the transaction that is being received."""
        self._committed += self._current
        self._current = []

    def settle(self) -> None:
        """Return when the blobs of whole transactions are on disk.

        :raises NotWritten: the disk does not take one.
        """
        for blob in self._committed:
            blob.settle()

    def place(self, lock: Callable[[], AbstractContextManager[object]] | None) -> None:
        """Put the files of whole transactions into their places.

        :param lock: returns a lock to hold for one blob at a time, so that a pack does not remove
            a directory that is empty; readers get it in between.
        """
        helper = self._storage.fshelper
        directories = {}
        for blob in self._committed:
            oid = blob.record.oid
            directory = directories[oid] = helper.getPathForOID(oid)
            place = helper.getBlobFilename(oid, blob.record.serial)
            self._placed.append(place)
            with contextlib.nullcontext() if lock is None else lock():
                self._directories.make(directory)
                place_blob(blob.path, place)
            if lock is not None:
                time.sleep(0)
        if self._sync:
            for directory in directories.values():
                self._directories.sync(directory)

    def published(self) -> int:
        """Keep the files that have their places, and return their number."""
        count = len(self._committed)
        self._committed, self._placed = [], []
        return count

    def abort(self, *, keep_placed: bool) -> None:
        """Remove all files that are not published; take every step, even if one fails."""
        with contextlib.ExitStack() as steps:
            if not keep_placed:
                for path in self._placed:
                    steps.callback(_remove, path)
            for blob in (*self._committed, *self._current):
                steps.callback(blob.discard)
            if self._blob is not None:
                steps.callback(self._blob.discard)
            self._blob = None
            self._committed, self._current, self._placed = [], [], []


def _remove(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.remove(path)
