"""A sink that writes transactions as FileStorage would, many of them at once.

FileStorage itself takes a lock, two writes, a temporary file and an fsync for each transaction.
Here a batch of whole transactions is built in memory, byte for byte as FileStorage would have
written them, appended with one write and one fsync, and only then made known to the storage: its
index, its end, its last tid, and the databases that are open on it. What a process writes that is
killed in between is there or cut off when the file is opened again, whole transactions only.

The layout is described in `committed`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import struct
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Final, Protocol

from ZODB.blob import rename_or_copy_blob
from zope.interface import implementer

from ..errors import MissingBlobSupport, WrittenToByOthers
from ..interfaces import ITransactionSink
from ..messages import BlobBlock, Commit, PrimaryMessage, Store, StoreBlob, Transaction
from ..tids import describe_tid
from .generic import IncomingBlob, remove_temporary_files
from .packs import Packs

log = logging.getLogger("zrs_core.storage")

#: Bytes of whole transactions that are held back for one write at most, and of one transaction that
#: are held in memory.
BATCH_SIZE: Final = 8 * 1024 * 1024


_TRANSACTION: Final = struct.Struct(">8sQcHHH")
_RECORD: Final = struct.Struct(">8s8sQQHQ")
_NUMBER: Final = struct.Struct(">Q")


class AppendableFile(Protocol):
    """A FileStorage's file, as who appends to it needs it."""

    @property
    def last_tid(self) -> bytes:
        """The tid of the last transaction that the storage knows."""

    @property
    def end(self) -> int:
        """Where what the storage knows of ends."""

    def lock(self) -> None:
        """Keep everybody from committing, and a pack from replacing the file."""

    def alone(self) -> AbstractContextManager[object]:
        """In it nobody else finds out what the storage has; `publish` may be called in it."""

    def unlock(self) -> None:
        """Allow it again."""

    def find(self, oid: bytes) -> int:
        """Where the newest record of an object begins, 0 for none."""

    def read(self, pos: int, size: int) -> bytes:
        """`size` bytes from `pos`."""

    def write(self, pos: int, data: bytes) -> None:
        """Write at `pos`, which lies at `end` or beyond."""

    def truncate(self) -> None:
        """Cut off what lies beyond `end`."""

    def sync(self) -> None:
        """Return when all that was written is on disk."""

    def publish(
        self, end: int, index: dict[bytes, int], tid: bytes, invalidate: Callable[[], None]
    ) -> None:
        """What was written up to `end` is known from now on.

        :param index: where the newest record of each object in it begins.
        :param invalidate: called while nobody can read; it must not raise.
        """


@implementer(ITransactionSink)
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
    """

    def __init__(
        self,
        storage: Any,
        file: AppendableFile,
        blobs: bool,
        invalidate: Callable[[bytes, list[bytes]], None],
        *,
        durability: str,
    ) -> None:
        self.blobs = blobs
        self.packs = Packs(storage)
        self._storage = storage
        self._file = file
        self._invalidate = invalidate
        self._sync = durability != "none"
        self._batch_size = 0 if durability == "transaction" else BATCH_SIZE
        self._tid = file.last_tid
        self._locked = False
        # Whole transactions that are not published yet: their bytes from `_begin` to `_end`, where
        # the newest record of each object is, and whom to tell what.
        self._begin = self._end = 0
        self._chunks: list[bytes] = []
        self._index: dict[bytes, int] = {}
        self._done: list[tuple[bytes, list[bytes]]] = []
        # The header of the last one and its place, if all else of it is in the file already.
        self._header: tuple[int, bytes] | None = None
        self._blobs_done: list[IncomingBlob] = []
        # Their blobs that are in their final places.
        self._placed: list[str] = []
        # Whether there may be something in the file beyond its end.
        self._dirty = False
        # The transaction that is being received, which begins at `_end`.
        self._transaction: Transaction | None = None
        self._records: list[bytes] = []
        self._next = 0
        self._newest: dict[bytes, int] = {}
        # Up to where it stands in the file already, as it is too large to be held in memory.
        self._written: int | None = None
        self._blobs: list[IncomingBlob] = []
        self._blob: IncomingBlob | None = None
        if blobs:
            remove_temporary_files(storage.temporaryDirectory())

    def last_tid(self) -> bytes:
        return self._tid

    def apply(self, message: PrimaryMessage) -> None:
        # The frequent ones first.
        if isinstance(message, Store):
            self._store(message)
        elif isinstance(message, BlobBlock):
            self._add_block(message.data)
        elif isinstance(message, Transaction):
            self._begin_transaction(message)
        elif isinstance(message, Commit):
            self._commit()
        elif isinstance(message, StoreBlob):
            self._begin_blob(message)

    def _begin_transaction(self, message: Transaction) -> None:
        if not self._locked:
            self._file.lock()
            self._locked = True
            self._begin = self._end = self._file.end
            self._check_last_tid()
            self._cut_off()
        self._transaction = message
        self._next = self._end + len(_header(message, 0))

    def _check_last_tid(self) -> None:
        found = self._file.last_tid
        if found != self._tid:
            raise WrittenToByOthers(
                f"{self._storage.getName()} has a transaction {describe_tid(found)} that did not "
                "come by this replication; nobody else may write to it"
            )

    def _cut_off(self) -> None:
        """Cut off what is in the file and will not be published."""
        if self._dirty:
            self._file.truncate()
            self._dirty = False

    def _write(self, pos: int, data: bytes) -> None:
        self._dirty = True
        self._file.write(pos, data)

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
        before = self._index.get(oid) or self._file.find(oid)
        size = 0 if back else len(data)
        self._records += (
            _RECORD.pack(oid, message.serial, before, self._end, 0, size),
            data if size else _NUMBER.pack(back),
        )
        self._newest[oid] = self._next
        self._next += _RECORD.size + (size or _NUMBER.size)
        if self._next - (self._written or self._end) > BATCH_SIZE:
            self._spill()

    def _find_data(self, oid: bytes, tid: bytes, data: bytes) -> int:
        """Where the record of an object in transaction `tid` begins that has the same data.

        0 if there is none: it may have been packed away, and is a hint only.
        """
        self._publish()
        pos = self._file.find(oid)
        while pos:
            header = self._file.read(pos, _RECORD.size)
            _, serial, before, _, _, size = _RECORD.unpack(header)
            if serial == tid:
                # One without data of its own points to them, or there are none: trust it, as
                # FileStorage does.
                same = not size or self._file.read(pos + _RECORD.size, size) == data
                return pos if same else 0
            pos = before if serial > tid else 0
        return 0

    def _spill(self) -> None:
        """Write what there is of the transaction, which nobody takes for a whole one."""
        self._publish()
        transaction = self._transaction
        assert transaction is not None  # noqa: S101
        if self._written is None:
            header = _header(transaction, self._next - self._end, finished=False)
            self._write(self._end, header)
            self._written = self._end + len(header)
        self._write_records(self._written)

    def _write_records(self, pos: int) -> None:
        self._write(pos, b"".join(self._records))
        self._records.clear()
        self._written = self._next

    def _commit(self) -> None:
        transaction = self._transaction
        if transaction is None:
            raise ValueError("Commit outside of a transaction")
        length = self._next - self._end
        header = _header(transaction, length)
        if self._written is None:
            self._chunks.append(header)
            self._chunks += self._records
            self._chunks.append(_NUMBER.pack(length))
            self._records.clear()
        else:
            self._write_records(self._written)
            self._write(self._next, _NUMBER.pack(length))
            self._header = self._end, header
            self._written = None
            self._begin = self._next + _NUMBER.size
        self._end = self._next + _NUMBER.size
        self._done.append((transaction.tid, list(self._newest)))
        self._index.update(self._newest)
        self._newest = {}
        self._blobs_done += self._blobs
        self._blobs = []
        self._transaction = None
        if self.packs.running:
            self.flush()
        elif self._header is not None or self._end - self._begin > self._batch_size:
            self._publish()

    # -- blobs

    def _begin_blob(self, message: StoreBlob) -> None:
        if not self.blobs:
            raise MissingBlobSupport(
                f"object 0x{message.oid.hex()} is a blob, and {self._storage.getName()} keeps "
                "none: give it a blob directory"
            )
        self._blob = IncomingBlob(message, self._storage.temporaryDirectory())
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
        blob.finish()
        self._blob = None
        if self._transaction is None or self._transaction.status == "u":
            blob.discard()
        else:
            self._blobs.append(blob)
            self._store(blob.record)

    def _place(self, blob: IncomingBlob) -> None:
        helper, record = self._storage.fshelper, blob.record
        helper.getPathForOID(record.oid, create=True)
        place = helper.getBlobFilename(record.oid, record.serial)
        self._placed.append(place)
        rename_or_copy_blob(blob.path, place)

    # -- making known

    def flush(self) -> None:
        self._publish()
        if self._transaction is None:
            self._unlock()

    def _publish(self) -> None:
        """Make known the transactions that are whole."""
        if not self._done:
            return
        # A pack removes the files of blobs whose records it does not find, and directories that
        # are empty: it must not look in between.
        with self._file.alone() if self._blobs_done else contextlib.nullcontext():
            for blob in self._blobs_done:
                self._place(blob)
            if self._chunks:
                self._write(self._begin, b"".join(self._chunks))
            if self._header is not None:
                self._sync_file()
                # With it the transaction is a whole one.
                self._write(*self._header)
            self._sync_file()
            index, done = self._index, self._done
            self._file.publish(self._end, index, done[-1][0], lambda: self._tell(done))
        self._begin = self._end
        self._chunks, self._index, self._done = [], {}, []
        self._blobs_done, self._placed, self._header = [], [], None
        self._tid = done[-1][0]
        self._dirty = False

    def _sync_file(self) -> None:
        if self._sync:
            self._file.sync()

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
                )

    def _unlock(self) -> None:
        if self._locked:
            self._locked = False
            self._file.unlock()

    def abort(self) -> None:
        # Every step is taken, whichever of them fails.
        with contextlib.ExitStack() as steps:
            steps.callback(self._unlock)
            if self._locked:
                steps.callback(self._cut_off)
            for path in self._placed:
                steps.callback(_remove, path)
            for blob in (*self._blobs_done, *self._blobs):
                steps.callback(blob.discard)
            if self._blob is not None:
                steps.callback(self._blob.discard)
            self._transaction = self._blob = self._written = self._header = None
            self._chunks, self._records, self._done = [], [], []
            self._blobs_done, self._blobs, self._placed = [], [], []
            self._index, self._newest = {}, {}


def _header(transaction: Transaction, length: int, *, finished: bool = True) -> bytes:
    user, description, extension = (
        transaction.user,
        transaction.description,
        transaction.extension,
    )
    return b"".join(
        (
            _TRANSACTION.pack(
                transaction.tid,
                length,
                transaction.status.encode("ascii") if finished else b"c",
                len(user),
                len(description),
                len(extension),
            ),
            user,
            description,
            extension,
        )
    )


def _remove(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.remove(path)
