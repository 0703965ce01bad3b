"""Any storage that iterates as a source, and any that restores as a sink.

A source iterates by `IStorageIteration`. A sink restores by `IStorageRestoreable`, and blobs by
`IBlobStorageRestoreable`. Both get the storage that holds the records as they are stored.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import shutil
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator
from functools import partial
from typing import IO, Any, Final

from persistent.timestamp import TimeStamp
from ZODB.blob import set_not_writable
from ZODB.Connection import TransactionMetaData
from ZODB.interfaces import IBlobStorageRestoreable, IMVCCStorage, IStorageIteration
from ZODB.POSException import UndoError
from ZODB.utils import p64, u64
from zope.interface import implementer

from ..errors import (
    Diverged,
    MissingBlobSupport,
    NotComparable,
    TidTooHigh,
    WrittenToByOthers,
)
from ..held import PACKED, HeldTransaction
from ..interfaces import ISearchableSink, ITransactionSink
from ..logs import event
from ..messages import (
    MAX_TID,
    NO_TID,
    BlobBlock,
    Commit,
    PrimaryMessage,
    Store,
    StoreBlob,
    Transaction,
)
from ..tids import describe_tid
from . import disk
from .blobs import MISSING_BLOB, lacks_blob, temporary_directory
from .committed import Record
from .held import read_held
from .packs import Packs
from .source import Pieces, StorageReader, StorageSource
from .wrapped import last_tid, own_instance, release

log = logging.getLogger("zrs_core.storage")

# Differences of tids.
_MINUTE = 1 << 32
_MONTH = 30 * 24 * 60 * _MINUTE

# No ZODB is older.
_FIRST_YEAR = u64(TimeStamp(1996, 1, 1).raw())

# A stretch of history is made longer when it has fewer transactions than the first number, and
# shorter when it has more than the second.
_STRETCH = (500, 2000)

#: How the names of temporary files of blobs begin and end: a killed process leaves such files.
TEMPORARY_PREFIX = "zrs-"
# Not `.blob`: a pack of FileStorage would take the file for a blob.
TEMPORARY_SUFFIX = ".tmp"


class IterationSource(StorageSource):
    """The history of a storage that iterates, followed as it grows.

    What goes through a `Primary` wakes its readers at once. What others commit is asked for every
    `poll_interval` seconds, in a thread of its own, as long as a reader waits.
    """

    def __init__(self, storage: Any) -> None:
        super().__init__(storage)
        # What the thread that polls has seen last.
        self._seen: bytes | None = None
        self._state = threading.Condition(self._lock)
        self._polling: threading.Thread | None = None
        self._closed = False

    def open(self, start: bytes) -> IterationReader:
        reader = IterationReader(self, start)
        with self._state:
            if self._polling is None and not self._closed:
                name = f"zrs_core polling {self.storage.getName()}"
                polling = threading.Thread(target=self._poll, name=name, daemon=True)
                try:
                    polling.start()
                except RuntimeError:
                    # There are no threads left: the next one tries again.
                    reader.close()
                    raise
                self._polling = polling
        return reader

    def last_tid(self) -> bytes:
        instance = own_instance(self.storage)
        try:
            return last_tid(instance)
        finally:
            release(self.storage, instance)

    def _all_after(self, tid: bytes) -> Generator[object]:
        return all_transactions(self.storage, tid)

    def position(self) -> bytes:
        # To ask a database, an instance of its own is made; while a reader waits, the thread asks.
        seen = self._seen
        return seen if self._waiting and seen is not None else self.last_tid()

    def add_waiting(self, wake: Callable[[], None]) -> None:
        super().add_waiting(wake)
        with self._state:
            self._state.notify_all()

    def _poll(self) -> None:
        instance: Any = None
        # The first answer is news: a reader may have read to the end before it.
        known: bytes | None = None
        failed = False
        try:
            while self._wait_for_turn():
                try:
                    if instance is None:
                        instance = own_instance(self.storage)
                    last = self._seen = last_tid(instance)
                    if failed:
                        fields = event("polled-again", storage=self.storage.getName(), tid=last)
                        log.info("%s: polled again", self.storage.getName(), extra=fields)
                    failed = False
                except Exception as error:  # noqa: BLE001
                    if not failed:
                        name = self.storage.getName()
                        # Some errors of databases have no text.
                        reason = str(error) or type(error).__name__
                        fields = event("cannot-poll", storage=name, reason=reason, tid=known)
                        log.warning("%s: cannot be polled: %s", name, reason, extra=fields)
                    failed = True
                # A reader that is woken after a failure fails itself, which ends its connection.
                if failed or last != known:
                    known = None if failed else last
                    self.changed()
        finally:
            if instance is not None:
                release(self.storage, instance)

    def _wait_for_turn(self) -> bool:
        """Wait until somebody waits, and then for the interval; False when it is closed."""
        with self._state:
            self._state.wait_for(lambda: self._closed or self._waiting)
            return not self._state.wait_for(lambda: self._closed, self.poll_interval)

    def close(self) -> None:
        with self._state:
            self._closed = True
            self._state.notify_all()
        if self._polling is not None:
            self._polling.join()


class IterationReader(StorageReader):
    """One reader's place in what a storage iterates over.

    :raises StartError: as `ITransactionSource.open`.
    """

    _source: IterationSource

    def __init__(self, source: IterationSource, start: bytes) -> None:
        super().__init__(source, own_instance(source.storage))
        # The last transaction that was read.
        self._tid = start
        # What is being read: the storage's transactions up to its last one.
        self._found: Generator[Any] | None = None
        # The storage's last transaction, and the source's count of changes, up to which it was.
        self._read_to: tuple[bytes, int] | None = None
        try:
            self._check_start()
        except BaseException:
            self.close()
            raise

    def _check_start(self) -> None:
        """Whether the primary can go on from the start (protocol, section 6)."""
        start = self._tid
        if start == NO_TID or _first(iterate(self._storage, start, start)) is not None:
            return
        earlier = p64(u64(start) - 1)
        before = _last(self._storage, earlier, earlier)
        last = last_tid(self._storage)
        after = _first(transactions(self._storage, self._tid, last))
        # Not every storage marks what a pack has left.
        was_packed = start <= self._source.packed_to
        if after is None:
            if start <= last and (was_packed or (before is not None and status_of(before) == "p")):
                return
            raise TidTooHigh(start, max(last, before.tid if before else NO_TID))
        if not was_packed and status_of(after) != "p":
            raise Diverged(start, before.tid if before else None, after.tid)

    def _next_transaction(self) -> Pieces | None:
        while True:
            if self._found is None:
                # Asked before the storage is: what is committed in between counts as new.
                changes = self._source.changes
                last = last_tid(self._storage)
                if (last, changes) == self._read_to:
                    return None
                if self._source.limit() is not None:
                    # What comes next is not complete; when it is, that counts as a change.
                    self._read_to = last, changes
                    return None
                if last < self._tid:
                    raise TidTooHigh(self._tid, last)
                self._read_to = last, changes
                self._found = transactions(self._storage, self._tid, last)
            found = next(self._found, None)
            if found is not None:
                return self._transaction(found)
            self._found = None

    def _transaction(self, found: Any) -> Pieces:
        begin = self._begin(self._tid, *_fields_of(found))
        yield from self._pieces_of(begin, records_of(found), Store)
        self._tid = found.tid

    def _has_changed(self) -> bool:
        return self._read_to is None or self._source.changes != self._read_to[1]

    def close(self) -> None:
        super().close()
        if self._found is not None:
            self._found.close()
            self._found = None
        instance, self._storage = self._storage, self._source.storage
        release(self._source.storage, instance)


def all_transactions(storage: Any, after: bytes = NO_TID) -> Generator[Any]:
    """All that a storage has now, as its iterator gives them (IStorageTransactionInformation).

    :param after: the transaction after which to begin.
    """
    instance = own_instance(storage)
    try:
        yield from transactions(instance, after, last_tid(instance))
    finally:
        release(storage, instance)


def transactions(instance: Any, after: bytes, last: bytes) -> Generator[Any]:
    """The transactions after `after`, and up to `last`."""
    begin, end = u64(after) + 1, u64(last)
    if not IMVCCStorage.providedBy(instance):
        yield from iterate(instance, p64(begin), p64(end))
        return
    # It is a database: as long as an iterator is open, it keeps a snapshot, and the list of the
    # iterator's transactions is in memory. So it is asked for one stretch after another.
    stretch = _MINUTE
    while begin <= end:
        stop = min(max(begin + stretch, _FIRST_YEAR), end)
        count = 0
        for found in iterate(instance, p64(begin), p64(stop)):
            count += 1
            yield found
        if count < _STRETCH[0]:
            stretch = min(stretch * 2, _MONTH)
        elif count > _STRETCH[1]:
            stretch //= 2
        begin = stop + 1


def status_of(found: Any) -> str:
    """A transaction's status; not every storage has one."""
    status: str = getattr(found, "status", " ")
    return status


def extension_of(found: Any) -> bytes:
    """The bytes of a transaction's extension; pickled where the storage has its objects alone."""
    extension: bytes | None = getattr(found, "extension_bytes", None)
    if extension is None:
        extension = TransactionMetaData(b"", b"", found.extension).extension_bytes
    return extension


def _fields_of(found: Any) -> tuple[bytes, str, bytes, bytes, bytes]:
    return found.tid, status_of(found), found.user, found.description, extension_of(found)


def records_of(found: Any) -> Iterator[Record]:
    """A transaction's records; those of one that was undone in place are void."""
    for each in () if status_of(found) == "u" else found:
        yield Record(each.oid, each.tid, each.data or b"", each.data_txn)


def iterate(storage: Any, start: bytes, stop: bytes) -> Generator[Any]:
    """The storage's iterator, closed in the end if it can be."""
    found = storage.iterator(start, stop)
    try:
        # Not `yield from`: what ZODB's iterators raise at their end (StorageStopIteration) makes
        # CPython crash then, up to 3.13 at least.
        for each in found:  # noqa: UP028
            yield each
    finally:
        close = getattr(found, "close", None)
        if close is not None:
            close()


def _first(found: Generator[Any]) -> Any:
    with contextlib.closing(found):
        return next(found, None)


def _last(storage: Any, near: bytes, until: bytes) -> Any:
    """The last transaction up to `until`, looked for from `near` backwards; None for none."""
    stretch = _MINUTE
    while until != NO_TID:
        # No transaction is 0, but for one that RelStorage begins with, of no meaning.
        begin = max(u64(near) - stretch, 1)
        found = deque(iterate(storage, p64(begin), until), maxlen=1)
        if found:
            return found[0]
        if begin == 1:
            break
        stretch *= 2
    return None


@implementer(ITransactionSink)
class RestoringSink:
    """Applies transactions through the public restore API.

    :param storage: provides IStorageRestoreable.
    :param invalidate: called with the tid and the oids of each transaction inside its
        `tpc_finish`, so that no reader sees the one without the other.
    """

    def __init__(self, storage: Any, invalidate: Callable[[bytes, list[bytes]], None]) -> None:
        self.blobs: bool = IBlobStorageRestoreable.providedBy(storage)
        self.packs = Packs(storage)
        #: Blobs that have their places, and records that came without theirs.
        self.blobs_written = self.missing_blobs = 0
        self._storage = storage
        self._invalidate = invalidate
        self._transaction: Unfinished | None = None
        if self.blobs:
            remove_temporary_files(temporary_directory(storage))

    def last_tid(self) -> bytes:
        tid: bytes = self._storage.lastTransaction()
        return tid

    def apply(self, message: PrimaryMessage) -> None:
        if isinstance(message, Transaction):
            self._transaction = Unfinished(self._storage, message, self.packs)
            self._transaction.begin()
            return
        transaction = self._transaction
        if transaction is None:
            raise ValueError(f"{type(message).__name__} outside of a transaction")
        match message:
            case Store():
                self.missing_blobs += lacks_blob(message.data)
                transaction.restore(message)
            case StoreBlob():
                if not self.blobs:
                    raise MissingBlobSupport(
                        f"object 0x{message.oid.hex()} is a blob, and "
                        f"{self._storage.getName()} keeps none: give it a blob directory"
                    )
                transaction.begin_blob(message)
            case BlobBlock():
                transaction.add_block(message.data)
            case Commit():
                self._vote(transaction)
                blobs = len(transaction.restored_blobs)
                self._finish(transaction)
                self.blobs_written += blobs
                self._transaction = None

    def _vote(self, transaction: Unfinished) -> None:
        transaction.vote()

    def _finish(self, transaction: Unfinished) -> None:
        transaction.finish(self._invalidate)

    def flush(self) -> None:
        """Nothing is held back: each transaction is on disk as it is finished."""

    def abort(self) -> None:
        transaction, self._transaction = self._transaction, None
        if transaction is not None:
            transaction.abort()


@implementer(ISearchableSink)
class GenericSink(RestoringSink):
    """Any storage that restores as a sink.

    What it names as its last transaction is made sure of, if it iterates: a FileStorage within a
    wrapper, say, may name one that it has lost.
    """

    def __init__(self, storage: Any, invalidate: Callable[[bytes, list[bytes]], None]) -> None:
        super().__init__(storage, invalidate)
        # The last transaction, and what the storage says that it is.
        self._tid = self._named = last_tid(storage)
        #: True if a pack has marked the last transaction, so that more of them may have to come.
        self.ends_packed = False
        # One that may or may not have been committed.
        self._unsure: bytes | None = None
        if IStorageIteration.providedBy(storage):
            held = _last(storage, self._named, MAX_TID)
            self._tid = NO_TID if held is None else held.tid
            self.ends_packed = held is not None and status_of(held) == PACKED
        if self._tid != self._named:
            log.warning(
                "%s names %s as its last transaction, and holds %s as the last; going on from that",
                storage.getName(),
                describe_tid(self._named),
                describe_tid(self._tid),
                extra=event(
                    "other-last", storage=storage.getName(), tid=self._tid, named=self._named
                ),
            )

    def last_tid(self) -> bytes:
        if self._unsure is not None:
            if last_tid(self._storage) == self._unsure:
                self._tid = self._named = self._unsure
            self._unsure = None
        return self._tid

    def last_transaction(self, limit: int) -> HeldTransaction:
        storage, tid = self._storage, self._tid
        if not IStorageIteration.providedBy(storage):
            raise NotComparable("the storage does not iterate")
        # Of a database, what it holds by now.
        last_tid(storage)
        earlier = p64(u64(tid) - 1)
        before = _last(storage, earlier, earlier)
        with contextlib.closing(iterate(storage, tid, tid)) as found:
            last = next(found, None)
            if last is None:
                raise NotComparable("a pack has removed it here")
            return read_held(
                _fields_of(last),
                records_of(last),
                NO_TID if before is None else before.tid,
                before is not None and status_of(before) == PACKED,
                storage if self.blobs else None,
                limit,
            )

    def history(self, before: bytes | None, count: int) -> list[tuple[bytes, bool]]:
        if not IStorageIteration.providedBy(self._storage):
            return []
        last = last_tid(self._storage)
        until = u64(last) if before is None else u64(before) - 1
        found: list[tuple[bytes, bool]] = []
        stretch = _MINUTE
        while until > 0 and len(found) < count:
            begin = max(until - stretch, 1)
            part = [
                (each.tid, status_of(each) == PACKED)
                for each in iterate(self._storage, p64(begin), p64(until))
            ]
            found += reversed(part)
            until = begin - 1
            if len(part) < _STRETCH[0]:
                stretch *= 2
        return found[:count]

    def apply(self, message: PrimaryMessage) -> None:
        if isinstance(message, Transaction):
            super().apply(message)
            # The storage's commit lock is held from here on, so that this is the last word.
            last = last_tid(self._storage)
            if last != self._named:
                raise WrittenToByOthers(
                    f"{self._storage.getName()} has a transaction {describe_tid(last)} that did "
                    "not come by this replication; nobody else may write to it"
                )
            self._begun = message.tid
        elif isinstance(message, Commit):
            # A database that is lost meanwhile may have committed it.
            self._unsure = self._begun
            super().apply(message)
            self._unsure = None
            self._tid = self._named = self._begun
        else:
            super().apply(message)


class Unfinished:
    """One transaction on its way into the storage, and all that must go if it is aborted.

    `restored_blobs` are the oid and the serial of each blob that has its place.
    """

    def __init__(self, storage: Any, header: Transaction, packs: Packs) -> None:
        self._storage = storage
        self._packs = packs
        self.header = header
        self._metadata = TransactionMetaData(header.user, header.description, header.extension)
        # The records of an undone transaction are void: after its next start FileStorage does
        # not know them either, so they never come in.
        self._void = header.status == "u"
        self._oids: list[bytes] = []
        self._blob: IncomingBlob | None = None
        self.restored_blobs: list[tuple[bytes, bytes]] = []

    def begin(self) -> None:
        self._storage.tpc_begin(self._metadata, self.header.tid, self.header.status)

    def restore(self, record: Store) -> None:
        if self._void:
            return
        data = record.data or None
        self._with_back_pointer(
            lambda data_txn: self._storage.restore(
                record.oid, record.serial, data, "", data_txn, self._metadata
            ),
            record.data_txn,
        )
        self._oids.append(record.oid)

    def _with_back_pointer(
        self, restore: Callable[[bytes | None], object], data_txn: bytes | None
    ) -> None:
        try:
            restore(None if self._packs.running else data_txn)
        except UndoError:
            # The transaction that has the same data was packed away here. FileStorage means to
            # take it as a mere hint, and raises before it has written anything.
            restore(None)

    def begin_blob(self, record: StoreBlob) -> None:
        self._blob = IncomingBlob(record, temporary_directory(self._storage))
        self._finish_blob()

    def add_block(self, data: bytes) -> None:
        if self._blob is None:
            raise ValueError("a blob block outside of a blob")
        self._blob.write(data)
        self._finish_blob()

    def _finish_blob(self) -> None:
        blob = self._blob
        if blob is None or blob.blocks_left:
            return
        blob.finish()
        blob.settle()
        if not self._void:
            record, path, metadata = blob.record, blob.path, self._metadata
            self.restored_blobs.append((record.oid, record.serial))
            self._with_back_pointer(
                lambda data_txn: self._storage.restoreBlob(
                    record.oid, record.serial, record.data or None, path, data_txn, metadata
                ),
                record.data_txn,
            )
            self._oids.append(record.oid)
        blob.discard()
        self._blob = None

    def vote(self) -> None:
        self._storage.tpc_vote(self._metadata)

    def finish(self, invalidate: Callable[[bytes, list[bytes]], None]) -> None:
        # From here on nobody can tell, should it fail, whether it was committed. If it was, its
        # blobs are needed; if it was not, it comes again and brings them along.
        self.restored_blobs = []
        self._storage.tpc_finish(self._metadata, lambda tid: invalidate(tid, self._oids))

    def abort(self) -> None:
        # Every step is taken, whichever of them fails.
        with contextlib.ExitStack() as steps:
            # FileStorage forgets the blobs of a transaction that was aborted before its vote:
            # they would stay in their final places.
            for oid, serial in self.restored_blobs:
                steps.callback(self._remove_blob, oid, serial)
            steps.callback(self._storage.tpc_abort, self._metadata)
            if self._blob is not None:
                steps.callback(self._blob.discard)

    def _remove_blob(self, oid: bytes, serial: bytes) -> None:
        with contextlib.suppress(*MISSING_BLOB):
            os.remove(self._storage.loadBlob(oid, serial))


# Bytes of a blob from which on it is worth a thread to sync its file beside.
_LARGE: Final = 1024 * 1024


class IncomingBlob:
    """A blob's blocks, collected in a temporary file beside the blobs."""

    def __init__(self, record: StoreBlob, directory: str) -> None:
        self.record = record
        self.blocks_left = record.blocks
        handle, self.path = tempfile.mkstemp(TEMPORARY_SUFFIX, TEMPORARY_PREFIX, directory)
        self._file: IO[bytes] = os.fdopen(handle, "wb")
        self._size = 0
        self._syncing: disk.Beside | None = None

    def write(self, data: bytes) -> None:
        self._file.write(data)
        self._size += len(data)
        self.blocks_left -= 1

    def finish(self, *, sync: bool = True) -> None:
        """Write all of the file; have it synced if that is asked for, a large one beside.

        :raises NotWritten: the disk did not take it.
        :raises OSError: it was not written as a whole.
        """
        self._file.flush()
        size = os.fstat(self._file.fileno()).st_size
        if size != self._size:
            raise OSError(errno.EIO, f"{size} of {self._size} bytes were written", self.path)
        if sync and size >= _LARGE:
            self._syncing = disk.Beside(partial(disk.sync, self._file.fileno()))
        else:
            if sync:
                disk.sync(self._file.fileno())
            self._file.close()

    def settle(self) -> None:
        """Return when a file that is finished is on disk, if it was to be.

        :raises NotWritten: the disk did not take it.
        """
        try:
            if self._syncing is not None:
                self._syncing.wait()
        finally:
            self._file.close()

    def discard(self) -> None:
        # Closing it writes what it still holds back, which nobody needs: on a full disk it fails.
        with contextlib.suppress(Exception):
            self.settle()
        # A storage that has taken the file has renamed it.
        with contextlib.suppress(FileNotFoundError):
            os.remove(self.path)


def place_blob(path: str, place: str) -> None:
    """Give the file of a blob, which is on disk, its place."""
    try:
        os.rename(path, place)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        # Somebody has mounted directories below the blob directory. A file that an earlier attempt
        # left cannot be written to.
        with contextlib.suppress(FileNotFoundError):
            os.remove(place)
        shutil.copyfile(path, place)
        disk.sync_path(place)
        os.remove(path)
    set_not_writable(place)


def remove_temporary_files(directory: str) -> None:
    """Remove what a killed process left of blobs that it was receiving."""
    for entry in os.scandir(directory):
        name = entry.name
        # Earlier versions used `.blob`.
        if name.startswith(TEMPORARY_PREFIX) and name.endswith((TEMPORARY_SUFFIX, ".blob")):
            os.remove(entry.path)
