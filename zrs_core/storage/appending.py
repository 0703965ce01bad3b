"""A sink that writes transactions as FileStorage would, many of them at once.

FileStorage itself takes a lock, two writes, a temporary file and an fsync for each transaction.
Here a batch of whole transactions is built in memory, byte for byte as FileStorage would have
written them, appended at once, and only then made known to the storage: its index, its end, its
last tid, and the databases that are open on it.

How a batch gets onto the disk, as a whole or not at all, is in `batches`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable
from typing import Any, Final

from ZODB.blob import BlobStorage
from zope.interface import implementer

from ..errors import MissingBlobSupport, NotWritten, WrittenToByOthers
from ..held import HeldTransaction
from ..interfaces import ISearchableSink
from ..logs import event
from ..messages import BlobBlock, Commit, PrimaryMessage, Store, StoreBlob, Transaction
from ..tids import describe_tid
from .batches import AppendableFile, Batch, BatchWriter, header
from .blobs import lacks_blob, temporary_directory
from .disk import Directories
from .fs_format import RECORD_HEADER, U64
from .incoming_blobs import IncomingBlob, place_blob, remove_temporary_files
from .packs import Packs

log = logging.getLogger("zrs_core.storage")

#: Bytes of whole transactions that are made known together at most, and of one transaction that are
#: held in memory.
BATCH_SIZE: Final = 8 * 1024 * 1024

# Blobs of one transaction that are on their way to the disk at once.
_SYNCED_BESIDE: Final = 8

# Bytes of whole transactions that are held in memory before they are written.
_PIECE_SIZE: Final = 1024 * 1024


@implementer(ISearchableSink)
class AppendingSink:
    """Appends to a FileStorage's file.

    A transaction is visible, and on disk, when `flush` has returned. All that is not may be lost
    in a crash, and is then asked for again. From the beginning of a transaction on nobody else can
    commit, and no pack goes on, until `flush` is called between two; as long as a pack wants to,
    that is after each.

    :param storage: the storage, also with blobs around it.
    :param file: its file.
    :param invalidate: called with the tid and the oids of each transaction, in order, while nobody
        can read.
    :param durability: one of `options.DURABILITIES`.
    :param packed: called after each pack.
    """

    def __init__(
        self,
        storage: Any,
        file: AppendableFile,
        blobs: bool,
        invalidate: Callable[[bytes, list[bytes]], None],
        *,
        durability: str,
        packed: Callable[[], None] = lambda: None,
    ) -> None:
        self.blobs = blobs
        self.packs = Packs(storage, begin=lambda: self._writer.cut_off(), done=packed)
        #: Blobs that have their places, and records that came without theirs.
        self.blobs_written = self.missing_blobs = 0
        self._storage = storage
        self._file = file
        self._invalidate = invalidate
        self._sync = durability != "none"
        self._each = durability == "transaction"
        self._tid = file.last_tid
        self._locked = False
        # Whole transactions that are not published yet, and those before them that are on their way
        # to the disk.
        self._batch = Batch(file.end)
        self._closing: Batch | None = None
        self._writer = BatchWriter(file, sync=self._sync)
        self._blobs_done: list[IncomingBlob] = []
        # Their blobs that are in their final places.
        self._placed: list[str] = []
        # The transaction that is being received, which begins where the batch ends.
        self._transaction: Transaction | None = None
        self._records: list[bytes] = []
        self._next = 0
        self._newest: dict[bytes, int] = {}
        # Up to where it stands in the file already, as it is too large to be held in memory.
        self._written: int | None = None
        self._blobs: list[IncomingBlob] = []
        self._blob: IncomingBlob | None = None
        # Why nothing more is written.
        self._failure: NotWritten | None = None
        self._packs_remove_unknown = isinstance(storage, BlobStorage)
        if blobs:
            remove_temporary_files(temporary_directory(storage))
            self._directories = Directories(storage.fshelper.base_dir)

    def last_tid(self) -> bytes:
        return self._tid

    def last_transaction(self, limit: int) -> HeldTransaction:
        return self._file.last_transaction(self._tid, limit)

    def history(self, before: bytes | None, count: int) -> list[tuple[bytes, bool]]:
        return self._file.history(before, count)

    def apply(self, message: PrimaryMessage) -> None:
        try:
            # The frequent ones first.
            if isinstance(message, Store):
                self.missing_blobs += lacks_blob(message.data)
                self._store(message)
            elif isinstance(message, BlobBlock):
                self._add_block(message.data)
            elif isinstance(message, Transaction):
                self._begin_transaction(message)
            elif isinstance(message, Commit):
                self._commit()
            elif isinstance(message, StoreBlob):
                self._begin_blob(message)
        except NotWritten as error:
            self._failure = error
            raise

    def _begin_transaction(self, message: Transaction) -> None:
        if self._failure is not None:
            raise self._failure
        if not self._locked:
            self._file.lock()
            self._locked = True
            self._batch = Batch(self._file.end)
            self._check_last_tid()
            self._writer.cut_off()
        self._transaction = message
        self._next = self._batch.end + len(header(message, None))

    def _check_last_tid(self) -> None:
        found = self._file.last_tid
        if found != self._tid:
            raise WrittenToByOthers(
                f"{self._storage.getName()} has a transaction {describe_tid(found)} that did not "
                "come by this replication; nobody else may write to it"
            )

    # -- records

    def _store(self, message: Store | StoreBlob) -> None:
        transaction = self._transaction
        if transaction is None:
            raise ValueError(f"{type(message).__name__} outside of a transaction")
        if transaction.status == "u":
            # Its records are void: FileStorage does not know them either.
            return
        oid, data = message.oid, message.data
        back = 0
        if message.data_txn is not None and not self.packs.running:
            back = self._find_data(oid, message.data_txn, data)
        before = self._find(oid)
        size = 0 if back else len(data)
        begin = self._batch.end
        self._records += (
            RECORD_HEADER.pack(oid, message.serial, before, begin, 0, size),
            data if size else U64.pack(back),
        )
        self._newest[oid] = self._next
        self._next += RECORD_HEADER.size + (size or U64.size)
        if self._next - (self._written or begin) > BATCH_SIZE:
            self._spill()

    def _find(self, oid: bytes) -> int:
        """Where the newest record of an object begins, in the transactions before this one."""
        pos = self._batch.index.get(oid)
        if pos is None and self._closing is not None:
            pos = self._closing.index.get(oid)
        return self._file.find(oid) if pos is None else pos

    def _find_data(self, oid: bytes, tid: bytes, data: bytes) -> int:
        """Where the record of an object in transaction `tid` begins that has the same data.

        0 if there is none: it may have been packed away, and is a hint only.
        """
        self._publish()
        pos = self._file.find(oid)
        while pos:
            _, serial, before, _, _, size = RECORD_HEADER.unpack(
                self._file.read(pos, RECORD_HEADER.size)
            )
            if serial == tid:
                # One without data of its own points to them, or there are none: trust it, as
                # FileStorage does.
                same = not size or self._file.read(pos + RECORD_HEADER.size, size) == data
                return pos if same else 0
            pos = before if serial > tid else 0
        return 0

    def _spill(self) -> None:
        """Write what there is of the transaction, which nobody takes for a whole one."""
        self._publish()
        transaction = self._transaction
        assert transaction is not None  # noqa: S101
        batch = self._batch
        if self._written is None:
            self._written = batch.end + len(header(transaction, None))
        records, self._records = self._records, []
        self._writer.write_part(batch.begin, transaction.tid, self._written, records)
        self._written = self._next

    def _commit(self) -> None:
        transaction, batch = self._transaction, self._batch
        if transaction is None:
            raise ValueError("Commit outside of a transaction")
        begun = batch.header_of(transaction, self._next)
        spilled = self._written is not None
        if self._written is None:
            batch.chunks.append(begun)
        else:
            self._writer.write_part(batch.begin, transaction.tid, batch.end, [begun])
            batch.place = self._written
            self._written = None
        batch.add(transaction, self._next, self._records, self._newest)
        self._records, self._newest = [], {}
        self._blobs_done += self._blobs
        self._blobs = []
        self._transaction = None
        if self.packs.running:
            self.flush()
        elif spilled or self._each:
            self._publish()
        elif batch.end - batch.begin > BATCH_SIZE:
            self._close_batch()
        elif batch.end - batch.place > _PIECE_SIZE:
            self._writer.write_ahead(batch)

    # -- blobs

    def _begin_blob(self, message: StoreBlob) -> None:
        if not self.blobs:
            raise MissingBlobSupport(
                f"object 0x{message.oid.hex()} is a blob, and {self._storage.getName()} keeps "
                "none: give it a blob directory"
            )
        self._blob = IncomingBlob(message, temporary_directory(self._storage))
        self._finish_blob()

    def _add_block(self, data: bytes) -> None:
        if self._blob is None:
            raise ValueError("a blob block outside of a blob")
        self._blob.write(data)
        self._finish_blob()

    def _finish_blob(self) -> None:
        blob = self._blob
        if blob is None or blob.blocks_left:
            return
        blob.finish(sync=self._sync)
        self._blob = None
        if self._transaction is None or self._transaction.status == "u":
            blob.discard()
        else:
            self._blobs.append(blob)
            # Each of them is an open file, and perhaps a thread.
            if len(self._blobs) > _SYNCED_BESIDE:
                self._blobs[-1 - _SYNCED_BESIDE].settle()
            self._store(blob.record)

    def _place_blobs(self) -> None:
        """Put the files of blobs in their places."""
        helper = self._storage.fshelper
        directories = {}
        for blob in self._blobs_done:
            oid = blob.record.oid
            directory = directories[oid] = helper.getPathForOID(oid)
            place = helper.getBlobFilename(oid, blob.record.serial)
            self._placed.append(place)
            if self.packs.running:
                # A pack removes empty directories, with this lock held. It is held for one blob at
                # a time, and offered to readers in between.
                with self._file.alone():
                    self._directories.make(directory)
                    place_blob(blob.path, place)
                time.sleep(0)
            else:
                self._directories.make(directory)
                place_blob(blob.path, place)
        if self._sync:
            for directory in directories.values():
                self._directories.sync(directory)

    # -- making known

    def flush(self) -> None:
        try:
            self._publish()
            if self._transaction is None and self._locked:
                # The batch counts; where this fails, the next one comes back to it.
                if self._writer.dirty:
                    with contextlib.suppress(OSError), self.packs.cutting_off():
                        self._writer.trim()
                self._unlock()
        except NotWritten as error:
            self._failure = error
            raise

    def _close_batch(self) -> None:
        """Have the transactions that are whole made known, beside what comes next."""
        if self._blobs_done:
            self._publish()
            return
        self._settle()
        self._writer.append_beside(self._batch)
        self._closing, self._batch = self._batch, Batch(self._batch.end)

    def _settle(self) -> None:
        """Make known the batch that is on its way to the disk, if there is one."""
        if self._closing is not None:
            self._writer.wait()
            batch, self._closing = self._closing, None
            self._make_known(batch)

    def _publish(self) -> None:
        """Make known the transactions that are whole."""
        self._settle()
        batch = self._batch
        if not batch.done:
            return
        for blob in self._blobs_done:
            blob.settle()
        # A pack of a BlobStorage removes files whose records it does not find, so it must not look
        # before these records are known. No pack begins as long as the file is locked.
        removes_unknown = self._packs_remove_unknown and self.packs.running
        with self._file.alone() if removes_unknown else contextlib.nullcontext():
            if self._blobs_done:
                self._place_blobs()
            self._writer.append(batch)
            self._make_known(batch)
        self.blobs_written += len(self._blobs_done)
        self._blobs_done, self._placed = [], []
        self._batch = Batch(batch.end)

    def _make_known(self, batch: Batch) -> None:
        done = batch.done
        self._file.publish(batch.end, batch.index, batch.last_tid, lambda: self._tell(done))
        self._tid = batch.last_tid

    def _tell(self, done: list[tuple[bytes, list[bytes]]]) -> None:
        for tid, oids in done:
            try:
                self._invalidate(tid, oids)
            except Exception:
                # It is on disk, and those after it must be told of too.
                log.exception(
                    "%s: nobody could be told of transaction 0x%s",
                    self._storage.getName(),
                    tid.hex(),
                    extra=event("not-told", storage=self._storage.getName(), tid=tid),
                )

    def _unlock(self) -> None:
        if self._locked:
            self._locked = False
            self._file.unlock()

    def abort(self) -> None:
        try:
            self._abort()
        except NotWritten as error:
            self._failure = error
            raise

    def _abort(self) -> None:
        try:
            self._writer.wait()
        except NotWritten as error:
            self._failure = error
        except Exception:  # noqa: BLE001, S110
            # What was not written as a whole is cut off.
            pass
        # Every step is taken, whichever of them fails.
        with contextlib.ExitStack() as steps:
            steps.callback(self._unlock)
            # After a failure nobody knows whether what was written will be found, and it may need
            # its blobs: if it is not, they come again.
            if self._locked and self._failure is None:
                steps.callback(self.packs.cutting_off()(self._writer.cut_off))
            if self._failure is None:
                for path in self._placed:
                    steps.callback(_remove, path)
            for blob in (*self._blobs_done, *self._blobs):
                steps.callback(blob.discard)
            if self._blob is not None:
                steps.callback(self._blob.discard)
            self._transaction = self._blob = self._written = self._closing = None
            self._batch = Batch(self._file.end)
            self._records, self._newest = [], {}
            self._blobs_done, self._blobs, self._placed = [], [], []


def _remove(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.remove(path)
