"""A sink that writes transactions as FileStorage would, many of them at once.

FileStorage itself takes a lock, two writes, a temporary file and an fsync for each transaction.
Here a batch of whole transactions is built in memory, byte for byte as FileStorage would have
written them, appended at once, and only then made known to the storage: its index, its end, its
last tid, and the databases that are open on it.

A machine may stop at any time, and of what it wrote since the last fsync any sectors may be on
disk, with holes anywhere. A FileStorage that is opened then cuts off what begins with an unfinished
transaction, whatever follows; it fails over holes elsewhere, or does not notice them. So a batch is
written in three steps, with an fsync after each:

1. The header of an unfinished transaction, where the batch is to begin.
2. The batch, whose first transaction is still unfinished, and has no length.
3. The length and the status of the first transaction. Should they lie in two sectors, then each of
   the two without the other leaves it unfinished.

The first step costs nothing while transactions follow each other: the header stands behind the
batch before. A small batch, such as a single transaction, can do without it. Should the sector with
its header be missing, FileStorage finds zeros there. It cuts them off, too, unless the last 8 bytes
of the file could be the length of the transaction: so another header is written behind the batch
for the time being, and the batch is looked through for such bytes at the end of a sector.

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

from zope.interface import implementer

from ..errors import MissingBlobSupport, NotWritten, WrittenToByOthers
from ..held import HeldTransaction
from ..interfaces import IComparableSink
from ..logs import event
from ..messages import BlobBlock, Commit, PrimaryMessage, Store, StoreBlob, Transaction
from ..tids import describe_tid
from .blobs import lacks_blob
from .disk import Directories
from .generic import IncomingBlob, place_blob, remove_temporary_files
from .packs import Packs

log = logging.getLogger("zrs_core.storage")

#: Bytes of whole transactions that are held back for one write at most, and of one transaction that
#: are held in memory.
BATCH_SIZE: Final = 8 * 1024 * 1024


_TRANSACTION: Final = struct.Struct(">8sQcHHH")
_RECORD: Final = struct.Struct(">8s8sQQHQ")
_NUMBER: Final = struct.Struct(">Q")

# Where a transaction has its length, which is followed by its status, and that of one that is
# unfinished.
_LENGTH: Final = 8
_UNFINISHED: Final = b"c"

# No part of it, with zeros behind, is a length that a transaction could have.
_NO_LENGTH: Final = 0xFFFF_FFFF_FFFF_FFFF

# What a disk writes as a whole; some write more.
_SECTOR: Final = 512

# Bytes of a batch that is looked through. For a larger one, one fsync more makes no difference.
_SMALL: Final = 64 * 1024


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

    def last_transaction(self, tid: bytes, limit: int) -> HeldTransaction:
        """As `IComparableSink.last_transaction`, where it must be `tid`."""

    def write(self, pos: int, data: bytes) -> None:
        """Write at `pos`, which lies at `end` or beyond."""

    def truncate(self) -> None:
        """Cut off what lies beyond `end`."""

    def trim(self) -> None:
        """As `truncate`, where it is too short for anybody to have read a record there."""

    def sync(self) -> None:
        """Return when all that was written is on disk.

        :raises NotWritten: it may not be, ever.
        """

    def publish(
        self, end: int, index: dict[bytes, int], tid: bytes, invalidate: Callable[[], None]
    ) -> None:
        """What was written up to `end` is known from now on.

        :param index: where the newest record of each object in it begins.
        :param invalidate: called while nobody can read; it must not raise.
        """


@implementer(IComparableSink)
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
        self.packs = Packs(storage, begin=self._cut_off, done=packed)
        #: Blobs that have their places, and records that came without theirs.
        self.blobs_written = self.missing_blobs = 0
        self._storage = storage
        self._file = file
        self._invalidate = invalidate
        self._sync = durability != "none"
        self._batch_size = 0 if durability == "transaction" else BATCH_SIZE
        self._tid = file.last_tid
        self._locked = False
        # Whole transactions that are not published yet, from `_begin` to `_end`: their bytes, where
        # those go, what finishes the first, where the newest record of each object is, and whom to
        # tell what.
        self._begin = self._end = 0
        self._chunks: list[bytes] = []
        self._place_of_chunks = 0
        self._finishing = b""
        self._index: dict[bytes, int] = {}
        self._done: list[tuple[bytes, list[bytes]]] = []
        # Where the header of an unfinished transaction is on disk.
        self._guarded: int | None = None
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
        # Why nothing more is written.
        self._failure: NotWritten | None = None
        if blobs:
            remove_temporary_files(storage.temporaryDirectory())
            self._directories = Directories(storage.fshelper.base_dir)

    def last_tid(self) -> bytes:
        return self._tid

    def last_transaction(self, limit: int) -> HeldTransaction:
        return self._file.last_transaction(self._tid, limit)

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
            self._begin = self._end = self._place_of_chunks = self._file.end
            self._check_last_tid()
            self._cut_off()
            self._guarded = None
        self._transaction = message
        self._next = self._end + len(_header(message, None))

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
            self._guard(transaction.tid)
            self._written = self._end + len(_header(transaction, None))
        self._write(self._written, b"".join(self._records))
        self._records.clear()
        self._written = self._next

    def _guard(self, tid: bytes) -> None:
        """See to it that an unfinished transaction begins on disk where the batch is to begin."""
        if self._guarded != self._begin and self._sync:
            self._write(self._begin, unfinished(tid))
            self._sync_file()
            self._guarded = self._begin

    def _commit(self) -> None:
        transaction = self._transaction
        if transaction is None:
            raise ValueError("Commit outside of a transaction")
        length = self._next - self._end
        header = _header(transaction, length if self._done else None)
        if not self._done:
            self._finishing = _NUMBER.pack(length) + transaction.status.encode("ascii")
        spilled = self._written is not None
        if self._written is None:
            self._chunks.append(header)
        else:
            self._write(self._end, header)
            self._place_of_chunks = self._written
            self._written = None
        self._chunks += self._records
        self._chunks.append(_NUMBER.pack(length))
        self._records.clear()
        self._end = self._next + _NUMBER.size
        self._done.append((transaction.tid, list(self._newest)))
        self._index.update(self._newest)
        self._newest = {}
        self._blobs_done += self._blobs
        self._blobs = []
        self._transaction = None
        if self.packs.running:
            self.flush()
        elif spilled or self._end - self._begin > self._batch_size:
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
        blob.finish(sync=self._sync)
        self._blob = None
        if self._transaction is None or self._transaction.status == "u":
            blob.discard()
        else:
            self._blobs.append(blob)
            self._store(blob.record)

    def _place_blobs(self) -> None:
        """Put the files of blobs in their places."""
        helper = self._storage.fshelper
        directories = {}
        for blob in self._blobs_done:
            oid = blob.record.oid
            directory = directories[oid] = helper.getPathForOID(oid)
            self._directories.make(directory)
            place = helper.getBlobFilename(oid, blob.record.serial)
            self._placed.append(place)
            place_blob(blob.path, place)
        if self._sync:
            for directory in directories.values():
                self._directories.sync(directory)

    # -- making known

    def flush(self) -> None:
        try:
            self._publish()
        except NotWritten as error:
            self._failure = error
            raise
        if self._transaction is None:
            self._unlock()

    def _publish(self) -> None:
        """Make known the transactions that are whole."""
        if not self._done:
            return
        for blob in self._blobs_done:
            blob.settle()
        # A pack removes the files of blobs whose records it does not find, and directories that
        # are empty: it must not look in between.
        with self._file.alone() if self._blobs_done else contextlib.nullcontext():
            if self._blobs_done:
                self._place_blobs()
            index, done = self._index, self._done
            guarded = None
            if self._sync and self._transaction is not None:
                # For the next batch.
                self._chunks.append(unfinished(self._transaction.tid))
                guarded = self._end
            elif self._sync:
                self._chunks.append(unfinished(done[-1][0]))
            data = b"".join(self._chunks)
            if self._begin != self._place_of_chunks or _could_mislead(self._begin, data):
                self._guard(done[0][0])
            self._write(self._place_of_chunks, data)
            self._sync_file()
            self._write(self._begin + _LENGTH, self._finishing)
            self._sync_file()
            self._file.publish(self._end, index, done[-1][0], lambda: self._tell(done))
        self._begin = self._place_of_chunks = self._end
        self.blobs_written += len(self._blobs_done)
        self._chunks, self._index, self._done = [], {}, []
        self._blobs_done, self._placed = [], []
        self._tid = done[-1][0]
        self._guarded = guarded
        if self._sync and guarded is None:
            # The batch counts; where this fails, `_cut_off` comes back to it.
            with contextlib.suppress(OSError), self.packs.cutting_off():
                self._file.trim()
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
        # Every step is taken, whichever of them fails.
        with contextlib.ExitStack() as steps:
            steps.callback(self._unlock)
            # After a failure nobody knows whether what was written will be found, and it may need
            # its blobs: if it is not, they come again.
            if self._locked and self._failure is None:
                steps.callback(self.packs.cutting_off()(self._cut_off))
            if self._failure is None:
                for path in self._placed:
                    steps.callback(_remove, path)
            for blob in (*self._blobs_done, *self._blobs):
                steps.callback(blob.discard)
            if self._blob is not None:
                steps.callback(self._blob.discard)
            self._transaction = self._blob = self._written = self._guarded = None
            self._chunks, self._records, self._done = [], [], []
            self._blobs_done, self._blobs, self._placed = [], [], []
            self._index, self._newest = {}, {}


def _could_mislead(begin: int, batch: bytes) -> bool:
    """Whether FileStorage might fail over a part of a batch, if its first sector were missing.

    :param begin: where in the file it begins.
    """
    if len(batch) > _SMALL:
        return True
    first = _SECTOR - begin % _SECTOR
    for end in (*range(first, len(batch), _SECTOR), len(batch)):
        # Of a file that ends before there could be a header, FileStorage cuts off the rest.
        if end >= _TRANSACTION.size:
            (length,) = _NUMBER.unpack_from(batch, end - _NUMBER.size)
            if _TRANSACTION.size <= length <= end:
                return True
    return False


def _header(transaction: Transaction, length: int | None) -> bytes:
    """A transaction's header, its texts included; an unfinished one's for no length.

    :param length: of the transaction, in bytes.
    """
    user, description, extension = (
        transaction.user,
        transaction.description,
        transaction.extension,
    )
    sizes = len(user), len(description), len(extension)
    if length is None:
        begin = _TRANSACTION.pack(transaction.tid, _NO_LENGTH, _UNFINISHED, *sizes)
    else:
        status = transaction.status.encode("ascii")
        begin = _TRANSACTION.pack(transaction.tid, length, status, *sizes)
    return b"".join((begin, user, description, extension))


def unfinished(tid: bytes) -> bytes:
    """The header of a transaction of which nothing is known."""
    return _TRANSACTION.pack(tid, _NO_LENGTH, _UNFINISHED, 0, 0, 0)


def _remove(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.remove(path)
