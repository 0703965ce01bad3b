"""A sink that writes transactions as FileStorage would, many of them at once.

FileStorage itself takes a lock, two writes, a temporary file and an fsync for each transaction.
Here a batch of whole transactions is built in memory, byte for byte as FileStorage would have
written them, appended at once, and only then made known to the storage: its index, its end, its
last tid, and the databases that are open on it.

How a batch gets onto the disk, as a whole or not at all, is in `batches`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from ZODB.blob import BlobStorage
from zope.interface import implementer

from ..errors import MissingBlobSupport, NotWritten, WrittenToByOthers
from ..held import HeldTransaction
from ..interfaces import ISearchableSink
from ..messages import BlobBlock, Commit, PrimaryMessage, Store, StoreBlob, Transaction
from ..tids import describe_tid
from .batch_publisher import BatchPublisher
from .batches import DEFAULT_LIMITS, AppendableFile, BatchLimits
from .blobs import LONGEST_BLOB_RECORD, lacks_blob
from .fs_format import RECORD_HEADER
from .packs import Packs
from .received_blobs import ReceivedBlobs
from .transaction_encoder import TransactionEncoder


@implementer(ISearchableSink)
class AppendingSink:
    """Appends to a FileStorage's file.

    A transaction is visible and on disk when `flush` has returned. Other transactions may be lost
    in a crash; the secondary then requests them again. From the beginning of a transaction until
    `flush` is called between two transactions, the sink holds the storage's commit lock: commits
    and packs wait. While a pack runs, the sink flushes after each transaction.

    :param storage: the storage, also with blobs around it.
    :param file: its file.
    :param blobs: True if the storage has a blob directory.
    :param invalidate: called with the tid and the oids of each transaction, in order, while readers
        wait.
    :param durability: one of `options.DURABILITIES`.
    :param packed: called after each pack.
    :param limits: the sizes of batches.
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
        limits: BatchLimits = DEFAULT_LIMITS,
    ) -> None:
        self.blobs = blobs
        self.packs = Packs(storage, begin=lambda: self._publisher.writer.cut_off(), done=packed)
        #: Blobs that have their places, and records that came without theirs.
        self.blobs_written = self.missing_blobs = 0
        self._storage = storage
        self._file = file
        self._batch_size = limits.batch
        self._publish_each = durability == "transaction"
        self._locked = False
        sync = durability != "none"
        self._publisher = BatchPublisher(
            file, invalidate, storage.getName(), sync=sync, limits=limits
        )
        self._received = ReceivedBlobs(storage, sync=sync) if blobs else None
        # The transaction that is being received, which begins where the batch ends.
        self._encoder: TransactionEncoder | None = None
        # The reason why nothing more is written.
        self._failure: NotWritten | None = None

    def last_tid(self) -> bytes:
        return self._publisher.last_tid

    def last_transaction(self, limit: int) -> HeldTransaction:
        return self._file.last_transaction(self.last_tid(), limit)

    def history(self, before: bytes | None, count: int) -> list[tuple[bytes, bool]]:
        return self._file.history(before, count)

    def apply(self, message: PrimaryMessage) -> None:
        try:
            # The frequent ones first.
            if isinstance(message, Store):
                # Most records are longer: a call for each of them would take time.
                if len(message.data) <= LONGEST_BLOB_RECORD:
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
            self._publisher.restart()
            self._check_last_tid()
            self._publisher.writer.cut_off()
        self._encoder = TransactionEncoder(message, self._publisher.batch.end)

    def _check_last_tid(self) -> None:
        found = self._file.last_tid
        if found != self.last_tid():
            raise WrittenToByOthers(
                f"{self._storage.getName()} has a transaction {describe_tid(found)} that did not "
                "come by this replication; nobody else may write to it"
            )

    # -- records

    def _store(self, message: Store | StoreBlob) -> None:
        encoder = self._encoder
        if encoder is None:
            raise ValueError(f"{type(message).__name__} outside of a transaction")
        if encoder.transaction.status == "u":
            # Its records are void: FileStorage does not know them either.
            return
        oid, data = message.oid, message.data
        back = 0
        if message.data_txn is not None and not self.packs.running:
            back = self._find_data(oid, message.data_txn, data)
        encoder.add(oid, message.serial, self._publisher.find(oid), back, data)
        if encoder.end - encoder.held_from > self._batch_size:
            # The file must not hold anything of it before the batch that precedes it.
            self._publish()
            self._publisher.write_part(encoder)

    def _find_data(self, oid: bytes, tid: bytes, data: bytes) -> int:
        """Return the position of the record in transaction `tid` that has the same data.

        Return 0 without such a record: it is a hint, and the record may have been packed away.
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

    def _commit(self) -> None:
        encoder, publisher = self._encoder, self._publisher
        if encoder is None:
            raise ValueError("Commit outside of a transaction")
        publisher.add(encoder)
        if self._received is not None:
            self._received.commit()
        self._encoder = None
        if self.packs.running:
            self.flush()
        elif encoder.partly_written or self._publish_each:
            self._publish()
        elif publisher.batch.end - publisher.batch.begin <= self._batch_size:
            publisher.write_ahead()
        elif self._received:
            self._publish()
        else:
            publisher.publish_in_background()

    # -- blobs

    def _begin_blob(self, message: StoreBlob) -> None:
        if self._received is None:
            raise MissingBlobSupport(
                f"object 0x{message.oid.hex()} is a blob, and {self._storage.getName()} keeps "
                "none: give it a blob directory"
            )
        self._received.begin(message)
        self._store_complete(self._received)

    def _add_block(self, data: bytes) -> None:
        if self._received is None:
            raise ValueError("a blob block outside of a blob")
        self._received.add_block(data)
        self._store_complete(self._received)

    def _store_complete(self, received: ReceivedBlobs) -> None:
        """Store the record of the blob that is being received, if the blob is complete."""
        encoder = self._encoder
        valid = encoder is not None and encoder.transaction.status != "u"
        record = received.take_complete(keep=valid)
        if record is not None:
            self._store(record)

    # -- publishing

    def flush(self) -> None:
        try:
            self._publish()
            if self._encoder is None and self._locked:
                # The batch counts; where this fails, the next one comes back to it.
                writer = self._publisher.writer
                if writer.dirty:
                    with contextlib.suppress(OSError), self.packs.cutting_off():
                        writer.trim()
                self._unlock()
        except NotWritten as error:
            self._failure = error
            raise

    def _publish(self) -> None:
        """Publish the transactions that are whole, with their blobs."""
        publisher, received = self._publisher, self._received
        publisher.settle()
        if not publisher.batch.done:
            return
        if received is None or not received:
            publisher.publish()
            return
        received.settle()
        packing = self.packs.running
        # A pack of a BlobStorage removes files whose records it does not find, so it must not look
        # before these records are known. No pack begins as long as the file is locked.
        removes_unknown = packing and isinstance(self._storage, BlobStorage)
        with self._file.alone() if removes_unknown else contextlib.nullcontext():
            received.place(self._file.alone if packing else None)
            publisher.publish()
        self.blobs_written += received.published()

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
        writer = self._publisher.writer
        try:
            writer.wait()
        except NotWritten as error:
            self._failure = error
        except Exception:  # noqa: BLE001, S110
            # What was not written as a whole is cut off.
            pass
        # Every step is taken, even if another one fails.
        with contextlib.ExitStack() as steps:
            steps.callback(self._unlock)
            # After a failure nobody knows whether what was written will be found, and it may need
            # its blobs: if it is not, they come again.
            failed = self._failure is not None
            if self._locked and not failed:
                steps.callback(self.packs.cutting_off()(writer.cut_off))
            if self._received is not None:
                steps.callback(self._received.abort, keep_placed=failed)
            self._encoder = None
            self._publisher.restart()
