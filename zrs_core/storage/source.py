"""What all sources have in common: who waits for more, batches, records that are blobs."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable
from typing import IO, Any, TypeAlias

from ZODB.interfaces import IBlobStorage
from zope.interface import implementer

from ..errors import InvalidMessage, NotCarried
from ..interfaces import IStorageSource, ITransactionReader
from ..logs import Once, event
from ..messages import (
    BLOB_BLOCK_SIZE,
    MAX_METADATA_SIZE,
    NO_TID,
    BlobBlock,
    Commit,
    PrimaryMessage,
    Store,
    StoreBlob,
    Transaction,
)
from .blobs import MISSING_BLOB, is_blob_record, is_ordinary_record
from .committed import Record

log = logging.getLogger("zrs_core.storage")

#: Seconds between two looks at what others have committed.
DEFAULT_POLL_INTERVAL = 1.0

# What a message costs besides its data, roughly: it keeps batches of tiny records short.
_MESSAGE_OVERHEAD = 128

#: The most transactions that are counted one by one.
MAX_COUNTED = 1_000_000

#: Bytes of records that are read at once: a transaction may be larger than memory.
PIECE_SIZE = 64 * 1024

#: A transaction in pieces: messages that follow each other, and the bytes of their data.
Pieces: TypeAlias = Generator[tuple[list[PrimaryMessage], int]]


def _as_it_is(data: bytes) -> bytes:
    return data


def _no_limit() -> None:
    return None


@implementer(IStorageSource)
class StorageSource(ABC):
    """The history of a storage. A subclass makes the readers."""

    #: How replication continues after a transaction that cannot be sent.
    remedy = "Correct it in the database; replication then continues by itself"

    def __init__(self, storage: Any) -> None:
        self.blobs: bool = IBlobStorage.providedBy(storage)
        self.missing_blobs = 0
        self.packed_to = NO_TID
        self.untransform: Callable[[bytes], bytes] = _as_it_is
        self.poll_interval = DEFAULT_POLL_INTERVAL
        #: Returns the last transaction that is served, None for the last one there is.
        self.limit: Callable[[], bytes | None] = _no_limit
        self.storage = storage
        #: Number of calls of `changed`.
        self.changes = 0
        #: Transactions of which a record cannot be sent. They are not begun again.
        self.not_carried: dict[bytes, NotCarried] = {}
        self._left_out = Once()
        self._lock = threading.Lock()
        self._waiting: list[Callable[[], None]] = []

    @abstractmethod
    def open(self, start: bytes) -> StorageReader:
        """A reader of all transactions after `start`."""

    def last_tid(self) -> bytes:
        tid: bytes = self.storage.lastTransaction()
        return tid

    def position(self) -> bytes:
        return self.last_tid()

    def count_after(self, tid: bytes) -> int | None:
        """Return how many transactions follow `tid`; None for more than `MAX_COUNTED`."""
        counted = 0
        with contextlib.closing(self._all_after(tid)) as found:
            for _ in found:
                counted += 1
                if counted > MAX_COUNTED:
                    return None
        return counted

    @abstractmethod
    def _all_after(self, tid: bytes) -> Generator[object]:
        """Something for each transaction after `tid`."""

    def changed(self) -> None:
        with self._lock:
            self.changes += 1
            waiting, self._waiting = self._waiting, []
        for wake in waiting:
            try:
                wake()
            except Exception:
                # Called by a commit, which is done: it must not look as if it had failed.
                name = self.storage.getName()
                fields = event("not-woken", storage=name)
                log.exception("%s: a reader cannot be woken", name, extra=fields)

    def add_waiting(self, wake: Callable[[], None]) -> None:
        with self._lock:
            self._waiting.append(wake)

    def remove_waiting(self, wake: Callable[[], None]) -> bool:
        """Whether `wake` was still waiting."""
        with self._lock:
            try:
                self._waiting.remove(wake)
            except ValueError:
                return False
            return True

    def extension_left_out(self, tid: bytes, reason: str) -> None:
        """Log once that a transaction is sent without its extension."""
        if not self._left_out.add(tid):
            return
        name = self.storage.getName()
        log.error(
            "%s: the extension of transaction 0x%s cannot be replicated: %s; the transaction is "
            "replicated without it",
            name,
            tid.hex(),
            reason,
            extra=event("extension-left-out", storage=name, tid=tid, reason=reason),
        )

    def close(self) -> None:  # noqa: B027
        """Readers have nothing in common that must be given up, in most sources."""


@implementer(ITransactionReader)
class StorageReader(ABC):
    """One reader's place in the history; a subclass knows where that is.

    :param storage: where it finds blobs.
    """

    nearby = False

    def __init__(self, source: StorageSource, storage: Any) -> None:
        self.at_end = False
        self._source = source
        self._storage = storage
        self._wake: Callable[[], None] | None = None
        self._pieces: Pieces | None = None
        # The reason why the next transaction cannot be sent.
        self._failure: NotCarried | None = None
        # True while a part of the transaction in `_pieces` has been given out.
        self._begun = False

    @abstractmethod
    def _next_transaction(self) -> Pieces | None:
        """The next transaction, None if there is none yet."""

    @abstractmethod
    def _has_changed(self) -> bool:
        """Whether something was committed since there was no next transaction."""

    def read(self, budget: int) -> list[PrimaryMessage]:
        if self._failure is not None:
            raise self._failure.with_traceback(None)
        batch: list[PrimaryMessage] = []
        size = 0
        self.at_end = False
        while size < budget:
            try:
                piece = self._next_piece()
            except NotCarried:
                if not batch:
                    raise
                # The next call raises it.
                break
            if piece is None:
                self.at_end = True
                break
            messages, data_size = piece
            batch += messages
            size += data_size + _MESSAGE_OVERHEAD * len(messages)
        return batch

    def _next_piece(self) -> tuple[list[PrimaryMessage], int] | None:
        """The next piece of the history; None if there is none yet.

        :raises NotCarried: the next transaction cannot be sent.
        """
        while True:
            if self._pieces is None:
                self._pieces = self._next_transaction()
                self._begun = False
                if self._pieces is None:
                    return None
            try:
                piece = next(self._pieces, None)
            except NotCarried as error:
                self._pieces = None
                self._failure = error
                if self._begun:
                    self._source.not_carried[error.tid] = error
                raise
            if piece is not None:
                self._begun = True
                return piece
            self._pieces = None

    def _begin(
        self,
        previous: bytes,
        tid: bytes,
        status: str,
        user: bytes,
        description: bytes,
        extension: bytes,
    ) -> Transaction:
        """The message with which a transaction begins.

        :param previous: the tid of the transaction that was read before this one.
        :raises NotCarried: the transaction cannot be sent.
        """
        if (known := self._source.not_carried.get(tid)) is not None:
            raise known.with_traceback(None)
        if tid <= previous:
            raise self._not_carried(
                tid, f"its tid is not above that of the transaction before it, 0x{previous.hex()}"
            )
        if len(extension) > MAX_METADATA_SIZE:
            reason = f"it has {len(extension):,} bytes, more than {MAX_METADATA_SIZE:,}"
            self._source.extension_left_out(tid, reason)
            extension = b""
        try:
            return Transaction(tid, status, user, description, extension)
        except InvalidMessage as error:
            raise self._not_carried(tid, f"its {error}") from error

    def _not_carried(self, tid: bytes, reason: str) -> NotCarried:
        return NotCarried(tid, reason, self._source.remedy)

    def _pieces_of(
        self,
        begin: Transaction,
        records: Iterable[Record],
        make_store: Callable[[bytes, bytes, bytes, bytes | None], Store],
    ) -> Pieces:
        """A whole transaction.

        :param make_store: makes a record's message: `Store`, or what does not check its fields.
        :raises NotCarried: a record cannot be sent.
        """
        piece: list[PrimaryMessage] = [begin]
        size = 0
        for record in records:
            oid, tid, data, data_txn = record
            if tid != begin.tid:
                raise self._not_carried(
                    begin.tid,
                    f"the record of its object 0x{oid.hex()} has another serial, 0x{tid.hex()}",
                )
            if not is_ordinary_record(data) and self._is_blob(record):
                blob = self._open_blob(record)
                if blob is not None:
                    # From here on: this may be closed at any of its pieces.
                    with blob:
                        yield piece, size
                        piece, size = [], 0
                        yield from _blob_pieces(record, blob)
                    continue
                if self._was_removed(record):
                    # A pack has removed the record and its blob since this reader began.
                    continue
                self._count_missing(record)
            try:
                piece.append(make_store(oid, tid, data, data_txn))
            except InvalidMessage as error:
                raise self._not_carried(begin.tid, f"in a record of it, {error}") from error
            size += len(data)
            if size > PIECE_SIZE:
                yield piece, size
                piece, size = [], 0
        piece.append(Commit())
        yield piece, size

    def _is_blob(self, record: Record) -> bool:
        """Whether a record is that of a blob, also if it is stored transformed."""
        data = record.data
        if not data:
            # When the creation of a blob is undone, a BlobStorage keeps a copy of its file for the
            # undo of that.
            return self._has_blob_file(record)
        if is_blob_record(data):
            return True
        data = self._source.untransform(data)
        if is_ordinary_record(data):
            return False
        return is_blob_record(data) or self._has_blob_file(record)

    def _has_blob_file(self, record: Record) -> bool:
        if not self._source.blobs:
            return False
        try:
            self._storage.loadBlob(record.oid, record.tid)
        except MISSING_BLOB:
            return False
        return True

    def _open_blob(self, record: Record) -> IO[bytes] | None:
        """The blob of a record, or None if its file is missing.

        :raises OSError: it is there and cannot be read.
        """
        if self._source.blobs:
            with contextlib.suppress(*MISSING_BLOB):
                # Not by its path: what is only cached in a file may be gone before it is opened.
                file: IO[bytes] = self._storage.openCommittedBlobFile(record.oid, record.tid)
                return file
        return None

    def _was_removed(self, record: Record) -> bool:
        """Return True if the storage does not have the record any more."""
        return False

    def _count_missing(self, record: Record) -> None:
        why = "is missing"
        if not self._source.blobs:
            why = "cannot be found, since the storage was opened without a blob directory"
        self._source.missing_blobs += 1
        log.error(
            "%s: the blob of object 0x%s in transaction 0x%s %s; its record is replicated "
            "without it",
            self._storage.getName(),
            record.oid.hex(),
            record.tid.hex(),
            why,
            extra=event(
                "blob-missing", storage=self._storage.getName(), oid=record.oid, tid=record.tid
            ),
        )

    def wait(self, wake: Callable[[], None]) -> None:
        if self._wake is not None:
            self._source.remove_waiting(self._wake)
        self._wake = wake
        self._source.add_waiting(wake)
        # What was committed between the last read and now has woken nobody.
        if self._has_changed() and self._source.remove_waiting(wake):
            wake()

    def close(self) -> None:
        if self._wake is not None:
            self._source.remove_waiting(self._wake)
        if self._pieces is not None:
            self._pieces.close()
            self._pieces = None


def _blob_pieces(record: Record, blob: IO[bytes]) -> Pieces:
    size = os.fstat(blob.fileno()).st_size
    blocks = -(-size // BLOB_BLOCK_SIZE)
    oid, tid, data, data_txn = record
    yield [StoreBlob(oid, tid, data, data_txn, blocks)], len(data)
    for _ in range(blocks):
        # A file that has become shorter makes an empty block, which no message may be.
        block = blob.read(BLOB_BLOCK_SIZE)
        yield [BlobBlock(block)], len(block)
