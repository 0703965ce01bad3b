"""FileStorage as a sink: batches appended to its file, or one transaction at a time."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from functools import partial
from typing import Any

from ZODB.blob import LAYOUT_MARKER
from ZODB.interfaces import IBlobStorageRestoreable
from zope.interface import implementer

from ..errors import NotWritten, WrittenToByOthers
from ..held import HeldTransaction
from ..interfaces import ISearchableSink
from ..logs import event
from ..messages import Commit, PrimaryMessage, Transaction
from ..tids import describe_tid
from . import disk
from .appending import AppendingSink
from .batches import DEFAULT_LIMITS, BatchLimits, unfinished
from .fs_access import file_storage_of, missing_attributes, path_of
from .fs_last_tid import establish_last_tid
from .fs_tail import history, last_transaction
from .fs_writer import OpenDataFile, write_at
from .packs import Packs
from .pending_transaction import PendingTransaction
from .restoring_sink import RestoringSink

log = logging.getLogger("zrs_core.storage")


def file_storage_sink(
    storage: Any,
    invalidate: Callable[[bytes, list[bytes]], None],
    durability: str,
    limits: BatchLimits = DEFAULT_LIMITS,
) -> FileStorageSink | AppendingSink:
    """A FileStorage, with or without blobs, as a sink.

    :param invalidate: called with the tid and the oids of each transaction, in order, while readers
        wait.
    :param durability: one of `options.DURABILITIES`.
    :param limits: the sizes of batches.
    """
    missing = missing_attributes(storage)
    if missing:
        log.warning(
            "%s has no %s, so that transactions are stored one by one: it is slower",
            storage.getName(),
            ", ".join(missing),
            extra=event("one-by-one", storage=storage.getName(), missing=", ".join(missing)),
        )
        return FileStorageSink(storage, invalidate)
    # Of a file that was there, and empty, FileStorage keeps the beginning in a buffer.
    file_storage_of(storage)._file.flush()
    establish_last_tid(storage)
    if durability != "none":
        sync_new_files(storage)
    blobs = IBlobStorageRestoreable.providedBy(storage)
    file = OpenDataFile(storage)
    packed = (lambda: None) if durability == "none" else partial(sync_new_files, storage)
    return AppendingSink(
        storage, file, blobs, invalidate, durability=durability, packed=packed, limits=limits
    )


def sync_new_files(storage: Any) -> None:
    """Return when the files and directories of a FileStorage that may be new are on disk.

    :raises NotWritten: the disk does not take them.
    """
    path = path_of(storage)
    disk.sync_path(path)
    disk.sync_path(os.path.dirname(path))
    if IBlobStorageRestoreable.providedBy(storage):
        base = os.path.abspath(storage.fshelper.base_dir)
        layout = os.path.join(base, LAYOUT_MARKER)
        if os.path.exists(layout):
            disk.sync_path(layout)
        disk.sync_path(base)
        disk.sync_path(os.path.dirname(base))


@implementer(ISearchableSink)
class FileStorageSink(RestoringSink):
    """A FileStorage through its public methods, a transaction at a time.

    It is on disk in the same steps as a batch (see `appending`): they are taken beside the storage,
    before its vote and after it. The last one is the storage's own.
    """

    def __init__(self, storage: Any, invalidate: Callable[[bytes, list[bytes]], None]) -> None:
        super().__init__(storage, invalidate)
        self.packs = Packs(storage, begin=self._cut_off, done=partial(sync_new_files, storage))
        self._tid = establish_last_tid(storage)
        sync_new_files(storage)
        self._path = path_of(storage)
        # The reason why nothing more is written.
        self._failure: NotWritten | None = None
        if self.blobs:
            self._directories = disk.Directories(storage.fshelper.base_dir)

    def last_tid(self) -> bytes:
        return self._tid

    def last_transaction(self, limit: int) -> HeldTransaction:
        return last_transaction(self._storage, self._tid, limit)

    def history(self, before: bytes | None, count: int) -> list[tuple[bytes, bool]]:
        return history(self._storage, before, count)

    def _cut_off(self) -> None:
        end = self._storage.getSize()
        if os.path.getsize(self._path) > end:
            os.truncate(self._path, end)

    def _vote(self, transaction: PendingTransaction) -> None:
        fd = os.open(self._path, os.O_RDWR)
        try:
            end = self._storage.getSize()
            try:
                write_at(fd, end, unfinished(transaction.header.tid))
                disk.sync(fd)
                super()._vote(transaction)
            except Exception:
                # The storage does not know of the header.
                with self.packs.cutting_off():
                    os.ftruncate(fd, end)
                raise
            disk.sync(fd)
        finally:
            os.close(fd)
        for oid, serial in transaction.restored_blobs:
            place = self._storage.fshelper.getBlobFilename(oid, serial)
            # A file that could not be renamed was copied.
            disk.sync_path(place)
            self._directories.sync(os.path.dirname(place))

    def _finish(self, transaction: PendingTransaction) -> None:
        try:
            super()._finish(transaction)
        except Exception as error:
            # The storage closes itself.
            raise NotWritten(error) from error

    def apply(self, message: PrimaryMessage) -> None:
        if self._failure is not None:
            raise self._failure
        try:
            self._apply(message)
        except NotWritten as error:
            self._failure = error
            raise

    def _apply(self, message: PrimaryMessage) -> None:
        super().apply(message)
        if isinstance(message, Commit):
            self._tid = super().last_tid()
        elif isinstance(message, Transaction) and super().last_tid() != self._tid:
            # The storage's commit lock is held from here on, so that this is the last word.
            raise WrittenToByOthers(
                f"{self._storage.getName()} has a transaction "
                f"{describe_tid(super().last_tid())} that did not come by this replication; "
                "nobody else may write to it"
            )
