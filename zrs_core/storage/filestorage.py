"""FileStorage as a source and as a sink.

The only file that knows what FileStorage keeps private: the absolute path of its file, and the tid
that it takes for its last.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

from persistent.TimeStamp import TimeStamp
from ZODB.blob import LAYOUT_MARKER, BlobStorage
from ZODB.FileStorage import FileStorage
from ZODB.FileStorage.FileStorage import FileStorageError
from ZODB.interfaces import IBlobStorageRestoreable
from ZODB.utils import p64, u64
from zope.interface import implementer

from ..errors import Diverged, NotWritten, TidTooHigh, WrittenToByOthers
from ..held import PACKED, HeldTransaction
from ..interfaces import ISearchableSink
from ..logs import event
from ..messages import NO_TID, Commit, PrimaryMessage, Transaction, unchecked_store
from ..tids import describe_tid
from ..visibility import Visibility
from . import disk
from .appending import AppendingSink
from .batches import unfinished
from .committed import CommittedFile, DamagedFile, Header, Record
from .data_file import require_data_file
from .finding import RisingTids, find, find_in_order
from .fs_format import FIRST_OFFSET
from .held import held_in_file
from .packer import packer
from .packs import Packs
from .pending_transaction import PendingTransaction
from .restoring_sink import RestoringSink
from .run_note import RunNote, incomplete_run
from .runs import Run, read_run
from .source import PIECE_SIZE, Pieces, StorageReader, StorageSource
from .undone_transactions import skip_undone
from .wrapped import as_stored

log = logging.getLogger("zrs_core.storage")

# A pack renames the old file away, then the new one into its place, then sets its size; this is how
# long to wait for the next of these, in seconds, before the file counts as gone or damaged, and
# between two looks.
_PACK_TIMEOUT = 5.0
_PACK_PAUSE = 0.01

# Seconds by which a clock may have been set back.
_DAY = 86_400.0


def is_file_storage(storage: Any) -> bool:
    """Whether `storage` is a FileStorage, or a BlobStorage around one.

    Others that pass for one, since they have its attributes, will not do: records are read from
    its file, where a wrapper may have put something else than it gives out.
    """
    return isinstance(_file_storage(storage), FileStorage)


def _path_of(storage: Any) -> str:
    path: str | None = getattr(_file_storage(storage), "_file_name", None)
    # Its name is the path as it was given: right as long as the directory has not changed.
    return path or os.path.abspath(storage.getName())


def _file_storage(storage: Any) -> Any:
    """The FileStorage itself, also within one that replicates it, and when blobs are around it."""
    storage = as_stored(storage)
    if isinstance(storage, BlobStorage):
        return getattr(storage, "_BlobStorage__storage", storage)
    return storage


class FileInUse:
    """The data file that a FileStorage has open.

    :param storage: the storage, also with blobs around it.
    """

    def __init__(self, storage: Any) -> None:
        self._storage = _file_storage(storage)
        self.path = _path_of(storage)
        #: The directory of blobs, None without blobs.
        self.blob_dir: str | None = None
        if IBlobStorageRestoreable.providedBy(storage):
            self.blob_dir = os.path.abspath(storage.fshelper.base_dir)

    @property
    def lock(self) -> Any:
        """The lock under which a pack replaces the file."""
        return self._storage._lock

    @property
    def committed_size(self) -> int:
        size: int = self._storage.getSize()
        return size

    def stat(self) -> os.stat_result:
        """Return the status of the open file.

        :raises ValueError: the storage is closed.
        """
        return os.fstat(self._storage._file.fileno())


def file_in_use(storage: Any) -> FileInUse | None:
    """Return the open data file of a FileStorage; None for other storages."""
    stored = as_stored(storage)
    return FileInUse(stored) if is_file_storage(stored) and not _missing(stored) else None


class FileStorageSource(StorageSource):
    """The history of a FileStorage, followed as it grows.

    It reads the file beside the storage and up to `getSize()`, which FileStorage moves on once a
    transaction is on disk; it takes none of the storage's locks, so that no commit waits for it.
    """

    remedy = (
        "Copy the database to the secondaries with 'zrs snapshot' and 'zrs restore': from a copy "
        "they continue after it"
    )

    def __init__(self, storage: Any) -> None:
        super().__init__(storage)
        self._path = _path_of(storage)
        self._rising = RisingTids()

    def open(self, start: bytes) -> FileStorageReader:
        return FileStorageReader(self, start)

    def _all_after(self, tid: bytes) -> Generator[object]:
        file = self.open_file()
        try:
            pos = find(file, tid)
            while pos < file.end:
                yield pos
                pos = file.header(pos).next
        finally:
            file.close()

    def open_file(self) -> CommittedFile:
        """The storage's file as it is now, `end` set.

        :raises OSError: it cannot be opened.
        :raises DamagedFile: what it holds does not end where the storage says.
        """
        deadline = time.monotonic() + _PACK_TIMEOUT
        while True:
            try:
                file = CommittedFile(self._path)
            except FileNotFoundError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(_PACK_PAUSE)
                continue
            try:
                if self.update_end(file):
                    return file
            except BaseException:
                file.close()
                raise
            file.close()

    def update_end(self, file: CommittedFile) -> bool:
        """Set `end` to where what is committed ends now; False if a pack has replaced the file.

        A pack gives the new file its name first, and only then lets getSize() tell its size: in
        between, the size is that of the old file. It fits the new one at most by chance.

        :raises DamagedFile: what the file holds does not end where the storage says.
        """
        deadline = time.monotonic() + _PACK_TIMEOUT
        while True:
            # First the size: if the file still has its name after that, the size may be its own.
            fits = file.advance(self.committed_size())
            if file.was_replaced():
                return False
            if fits:
                return True
            if time.monotonic() > deadline:
                raise DamagedFile(
                    f"{self._path} is damaged: no transaction ends at {self.committed_size()}, "
                    "where the storage says that the last one does"
                )
            time.sleep(_PACK_PAUSE)

    def tids_rise(self, file: CommittedFile) -> bool:
        """Return True if each tid in `file` is above the one before it; the answer is remembered.

        :raises DamagedFile: the file is damaged.
        """
        return self._rising.check(file)

    def committed_size(self) -> int:
        # In this order: what is behind the limit is never within the size.
        size: int = self.storage.getSize()
        limit = self.limit()
        return size if limit is None else self._end_of(limit)

    def last_tid(self) -> bytes:
        limit = self.limit()
        return super().last_tid() if limit is None else limit

    def _end_of(self, tid: bytes) -> int:
        """Return where the transaction `tid` ends."""
        deadline = time.monotonic() + _PACK_TIMEOUT
        while True:
            file = CommittedFile(self._path)
            try:
                if file.advance(self.storage.getSize()) and not file.was_replaced():
                    return find(file, tid)
            finally:
                file.close()
            if time.monotonic() > deadline:
                raise DamagedFile(
                    f"{self._path} is damaged: it does not end where the storage says"
                )
            time.sleep(_PACK_PAUSE)

    def held_before_pack(self, *tids: bytes) -> bool:
        """Return True if the file that the last pack left as `.old` holds all these transactions.

        A pack that did not come by `packer` leaves no other trace of the last ones that it removed.
        """
        try:
            file = CommittedFile(self._path + ".old")
        except OSError:
            return False
        try:
            return file.advance(file.stat().st_size) and all(_holds(file, each) for each in tids)
        except DamagedFile:
            return False
        finally:
            file.close()


def _holds(file: CommittedFile, tid: bytes) -> bool:
    pos = find(file, tid)
    return pos > FIRST_OFFSET and file.tid_at(file.before(pos)) == tid


class FileStorageReader(StorageReader):
    """One reader's place in the file.

    :raises StartError: as `ITransactionSource.open`.
    """

    _source: FileStorageSource

    def __init__(self, source: FileStorageSource, start: bytes) -> None:
        super().__init__(source, source.storage)
        self._looked = False
        self._tid = start
        # The source's count of changes, sampled before the last look at the file.
        self._changes = source.changes
        self._file = source.open_file()
        try:
            self._pos = self._locate()
            self._check_start()
        except BaseException:
            self._file.close()
            raise

    def _locate(self) -> int:
        """Return where the first transaction after `_tid` begins.

        Bisection needs tids that rise. Where it misses `_tid`, and the file may be one in which a
        tid falls, that transaction is looked for from the beginning of the file.
        """
        tid, file = self._tid, self._file
        pos = find(file, tid)
        if tid == NO_TID or (pos > FIRST_OFFSET and file.tid_at(file.before(pos)) == tid):
            return pos
        if self._may_be_packed(pos) or self._source.tids_rise(file):
            return pos
        found = find_in_order(file, tid)
        return pos if found is None else found

    def _may_be_packed(self, pos: int) -> bool:
        """Return True if a pack explains that `_tid` is not right before `pos`."""
        file = self._file
        before = file.header(file.before(pos)) if pos > FIRST_OFFSET else None
        packed = before is not None and before.status == "p"
        if pos >= file.end:
            return packed and self._tid <= self._source.last_tid()
        after = file.header(pos)
        # If tids rise, no transaction has a tid above that of the last one.
        return after.tid <= file.last_tid() and (packed or after.status == "p")

    def _check_start(self) -> None:
        """Whether the primary can go on from the start (protocol, section 6)."""
        start, file, pos = self._tid, self._file, self._pos
        if start == NO_TID:
            return
        before = file.header(file.before(pos)) if pos > FIRST_OFFSET else None
        if before is not None and before.tid == start:
            return
        after = file.header(pos) if pos < file.end else None
        if after is None:
            # A pack that did not come by `keeping_last_tid` may have removed even the last
            # transactions; as long as it is open, the storage remembers the tid of the very last.
            last = self._source.last_tid()
            if start <= last and before is not None and before.status == "p":
                return
            raise TidTooHigh(start, max(last, before.tid if before else NO_TID))
        # What a pack has removed lies before a transaction that is marked as packed: a pack
        # marks all that it leaves up to its time, and it always leaves the root object's.
        packed = (
            before is not None
            and before.status == "p"
            and (
                start <= self._source.packed_to or self._source.held_before_pack(before.tid, start)
            )
        )
        if after.status != "p" and not packed:
            raise Diverged(start, before.tid if before else None, after.tid)

    def read(self, budget: int) -> list[PrimaryMessage]:
        self._looked = False
        return super().read(budget)

    def _next_transaction(self) -> Pieces | None:
        # At least once for each batch: a pack of a secondary below does not count as a change.
        if self._pos >= self._file.end and (self._has_changed() or not self._looked):
            self._looked = True
            self._changes = self._source.changes
            if not self._source.update_end(self._file):
                self._follow_pack()
            elif self._is_put_back():
                self._pos = self._file.header(self._pos).next
        elif not self._looked:
            # What a pack has removed is still in the old file, but its blobs are gone.
            self._looked = True
            if self._file.was_replaced():
                self._follow_pack()
        if self._pos < self._file.end:
            return self._transactions()
        # There may be many who wait, and for long.
        self._file.forget()
        return None

    def _has_changed(self) -> bool:
        # Not by the file's size: a commit and a pack after it can leave that as it was.
        return self._source.changes != self._changes

    def _is_put_back(self) -> bool:
        """Whether what comes next is the last transaction again, which a pack had removed.

        This may have followed the pack before `keeping_last_tid` put it back.
        """
        if self._pos >= self._file.end or self._file.read(self._pos, len(NO_TID)) != self._tid:
            return False
        return self._file.header(self._pos).status == "p"

    def _follow_pack(self) -> None:
        packed = self._source.open_file()
        self._file.close()
        self._file = packed
        self._source.not_carried.clear()
        self._pos = self._locate()

    def _was_removed(self, record: Record) -> bool:
        # A pack gives the new file its name before it removes blobs.
        if not self._file.was_replaced():
            return False
        file = self._source.open_file()
        try:
            pos: int | None = find(file, record.tid)
            if not _holds(file, record.tid) and not self._source.tids_rise(file):
                pos = find_in_order(file, record.tid)
            if pos is None or pos == FIRST_OFFSET:
                return True
            header = file.header(file.before(pos))
            oids = (oid for oid, _ in file.record_places(header))
            return header.tid != record.tid or record.oid not in oids
        finally:
            file.close()

    def _transactions(self) -> Pieces:
        """The next ones together, if they are small."""
        if self._file.read(self._pos, len(NO_TID)) <= self._tid:
            # It says what is wrong.
            yield from self._transaction()
            return
        run = self._read_run()
        if not run.messages and run.incomplete and self._pos != self._file.window_pos:
            self._file.read_ahead(self._pos)
            run = self._read_run()
        if run.tid is None:
            yield from self._transaction()
        else:
            self._pos, self._tid = run.next, run.tid
            yield run.messages, run.size

    def _read_run(self) -> Run:
        file = self._file
        return read_run(file.window, file.window_pos, self._pos, PIECE_SIZE)

    def _transaction(self) -> Pieces:
        file = self._file
        header = file.header(self._pos)
        # The records of an undone transaction are void, for FileStorage too.
        records = () if header.status == "u" else file.records(header)
        begin = self._begin(self._tid, *_fields(header))
        yield from self._pieces_of(begin, records, unchecked_store)
        self._pos = header.next
        self._tid = header.tid

    def close(self) -> None:
        super().close()
        self._file.close()


def _fields(header: Header) -> tuple[bytes, str, bytes, bytes, bytes]:
    return header.tid, header.status, header.user, header.description, header.extension


def file_storage_sink(
    storage: Any, invalidate: Callable[[bytes, list[bytes]], None], durability: str
) -> FileStorageSink | AppendingSink:
    """A FileStorage, with or without blobs, as a sink.

    :param invalidate: called with the tid and the oids of each transaction, in order, while nobody
        can read.
    :param durability: one of `options.DURABILITIES`.
    """
    missing = _missing(storage)
    if missing:
        log.warning(
            "%s has no %s, so that transactions are stored one by one: it is slower",
            storage.getName(),
            ", ".join(missing),
            extra=event("one-by-one", storage=storage.getName(), missing=", ".join(missing)),
        )
        return FileStorageSink(storage, invalidate)
    # Of a file that was there, and empty, FileStorage keeps the beginning in a buffer.
    _file_storage(storage)._file.flush()
    establish_last_tid(storage)
    if durability != "none":
        _sync_new(storage)
    blobs = IBlobStorageRestoreable.providedBy(storage)
    file = _OwnFile(storage)
    packed = (lambda: None) if durability == "none" else partial(_sync_new, storage)
    return AppendingSink(storage, file, blobs, invalidate, durability=durability, packed=packed)


def _sync_new(storage: Any) -> None:
    """Return when the files and directories of a FileStorage that may be new are on disk.

    :raises NotWritten: the disk does not take them.
    """
    path = _path_of(storage)
    disk.sync_path(path)
    disk.sync_path(os.path.dirname(path))
    if IBlobStorageRestoreable.providedBy(storage):
        base = os.path.abspath(storage.fshelper.base_dir)
        layout = os.path.join(base, LAYOUT_MARKER)
        if os.path.exists(layout):
            disk.sync_path(layout)
        disk.sync_path(base)
        disk.sync_path(os.path.dirname(base))


# Bytes from which on a piece is written by itself: to copy it costs more than one more system call.
_OWN_WRITE = 16 * 1024

# What `_OwnFile` and `establish_last_tid` need of a FileStorage (ZODB 5.8 to 6.4).
_PRIVATE = ("_commit_lock", "_file", "_files", "_index", "_lock", "_ltid", "_pos", "_ts")


def _missing(storage: Any) -> list[str]:
    return [name for name in _PRIVATE if not hasattr(_file_storage(storage), name)]


class _OwnFile:
    """The file that a FileStorage writes to (`AppendableFile`).

    :param storage: the FileStorage, or a BlobStorage around it.
    """

    def __init__(self, storage: Any) -> None:
        self._whole = storage
        self._storage = _file_storage(storage)
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
        return _last_transaction(self._whole, tid, limit)

    def history(self, before: bytes | None, count: int) -> list[tuple[bytes, bool]]:
        return _history(self._whole, before, count)

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
                _write(fd, pos, b"".join(small))
                _write(fd, pos + size, chunk)
                pos += size + len(chunk)
                small, size = [], 0
        _write(fd, pos, b"".join(small))

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


def _write(fd: int, pos: int, data: bytes) -> None:
    with memoryview(data) as left:
        while left:
            written = os.pwrite(fd, left, pos)
            pos += written
            left = left[written:]


@implementer(ISearchableSink)
class FileStorageSink(RestoringSink):
    """A FileStorage through its public methods, a transaction at a time.

    It is on disk in the same steps as a batch (see `appending`): they are taken beside the storage,
    before its vote and after it. The last one is the storage's own.
    """

    def __init__(self, storage: Any, invalidate: Callable[[bytes, list[bytes]], None]) -> None:
        super().__init__(storage, invalidate)
        self.packs = Packs(storage, begin=self._cut_off, done=partial(_sync_new, storage))
        self._tid = establish_last_tid(storage)
        _sync_new(storage)
        self._path = _path_of(storage)
        # Why nothing more is written.
        self._failure: NotWritten | None = None
        if self.blobs:
            self._directories = disk.Directories(storage.fshelper.base_dir)

    def last_tid(self) -> bytes:
        return self._tid

    def last_transaction(self, limit: int) -> HeldTransaction:
        return _last_transaction(self._storage, self._tid, limit)

    def history(self, before: bytes | None, count: int) -> list[tuple[bytes, bool]]:
        return _history(self._storage, before, count)

    def _cut_off(self) -> None:
        end = self._storage.getSize()
        if os.path.getsize(self._path) > end:
            os.truncate(self._path, end)

    def _vote(self, transaction: PendingTransaction) -> None:
        fd = os.open(self._path, os.O_RDWR)
        try:
            end = self._storage.getSize()
            try:
                _write(fd, end, unfinished(transaction.header.tid))
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


def establish_last_tid(storage: Any) -> bytes:
    """The tid of the last transaction in the file, which the storage is told if it has another.

    When a FileStorage is opened over an unfinished last transaction, which is what a process
    killed in the midst of writing leaves, it cuts that transaction off and yet names it as its
    last (`read_index` of `ZODB.FileStorage`, 3.10 to 6.4); and over zeros, which a power loss may
    leave, it names none. Replication would go on behind a transaction that is not there, or from
    the beginning.
    """
    file_storage = _file_storage(storage)
    # Somebody may be writing to it already, the secondary that a primary is put over.
    with getattr(file_storage, "_lock", contextlib.nullcontext()):
        tid = last_tid_in_file(storage)
        claimed = storage.lastTransaction()
        if claimed != tid:
            # Without it the storage keeps its wrong last tid, and only that.
            if hasattr(file_storage, "_ltid"):
                file_storage._ltid = tid
            # The next tid of its own comes after this one. It may have taken its clock, too, from
            # what it has cut off: a time to come counts only if it is the last transaction's.
            if hasattr(file_storage, "_ts"):
                file_storage._ts = max(TimeStamp(tid), min(file_storage._ts, _time_stamp()))
    if claimed != tid:
        log.warning(
            "%s names %s as its last transaction, and holds %s as the last; going on from that",
            storage.getName(),
            describe_tid(claimed),
            describe_tid(tid),
            extra=event("other-last", storage=storage.getName(), tid=tid, named=claimed),
        )
    return tid


def _time_stamp(later: float = 0) -> TimeStamp:
    """Return the time so many seconds later than now."""
    now = time.time() + later
    return TimeStamp(*time.gmtime(now)[:5], now % 60)


def open_file_storage(path: str, blob_dir: str | None) -> FileStorage:
    """The FileStorage at `path`, made if it is not there; it holds what it names as its last tid.

    Of what a process was committing that was killed, FileStorage itself names the tid. Later on, it
    may name one that it does not hold, since a pack has removed that.

    :raises DamagedFile: no transaction ends where it ends.
    :raises Exception: as FileStorage.
    """
    storage = FileStorage(path, blob_dir=blob_dir)
    try:
        establish_last_tid(storage)
    except BaseException:
        storage.close()
        raise
    mend_iterators(storage)
    return storage


def use_packer(storage: Any, limit: Callable[[], bytes] | None = None) -> None:
    """Let a FileStorage pack as `packer` does, unless it was given a packer of its own.

    A packer of its own observes `limit` too.
    """
    file_storage = _file_storage(storage)
    own = file_storage.packer
    if own is FileStorage.packer:
        check = partial(require_data_file, FileInUse(file_storage))
        file_storage.packer = packer(check, limit)
    elif limit is not None:
        file_storage.packer = lambda storage, references, stop, gc: own(
            storage, references, min(stop, limit()), gc
        )


def mend_iterators(storage: Any) -> None:
    """Let a FileStorage iterate over a file with undone transactions."""
    if not _missing(storage):
        skip_undone(_file_storage(storage))


def run_note(storage: Any, durability: str) -> RunNote:
    """Return the note of a secondary's FileStorage that a run of packed transactions has begun."""
    return RunNote(_path_of(storage), sync=durability != "none")


def resume_run(storage: Any, note: RunNote, visibility: Visibility) -> None:
    """Continue a run of packed transactions that was not complete when the storage was closed.

    :raises OSError: the note or the file cannot be read.
    """
    file = FileStorageSource(storage).open_file()
    try:
        run = incomplete_run(file, note)
        if run is None:
            note.remove()
        else:
            visibility.resume(run.before, run.changed())
    finally:
        file.close()


def check_complete(storage: Any) -> None:
    """Log an error if a secondary left the file within a run of packed transactions."""
    file = FileStorageSource(storage).open_file()
    try:
        run = incomplete_run(file, RunNote(_path_of(storage)))
    finally:
        file.close()
    if run is None:
        return
    name = storage.getName()
    log.error(
        "%s is not complete: as a secondary it received only a part of what a pack of its primary "
        "had left after %s. Objects are missing, and changes that were made together are not "
        "together. Take over with another secondary, or let this one receive the rest first",
        name,
        describe_tid(run.before),
        extra=event("taken-over-incomplete", storage=name, tid=run.before),
    )


def keep_garbage(storage: Any) -> None:
    """Let packs of a secondary's FileStorage keep objects that cannot be reached.

    The primary may still hold such an object and make it reachable again, by an undo or by a new
    reference. It then sends the record with the reference, but not the object. `pack` still
    collects garbage if it is called with `gc=True`.
    """
    _file_storage(storage)._pack_gc = False


def establish_opened(storage: Any) -> None:
    """`establish_last_tid` of a storage that was just opened, so that nothing was packed since.

    Others than a FileStorage, with wrappers around it or without, are left alone.

    :raises DamagedFile: no transaction ends where it ends.
    """
    if is_file_storage(storage):
        establish_last_tid(storage)


def check_last_tid(storage: Any) -> None:
    """`establish_last_tid` of a FileStorage that is to be replicated from.

    What a process has written that was killed may be in the file and not on disk, and no secondary
    may be ahead of that; so it is synced first.

    If its last transaction was marked by a pack, the pack may have removed later ones, which it
    rightly still names. They are not later than the pack.
    """
    disk.sync_path(_path_of(storage))
    held = _last_in_file(storage)
    named = storage.lastTransaction()
    if held is None or held.status != "p" or named < held.tid or named > _time_stamp(_DAY).raw():
        establish_last_tid(storage)


# A ZEO client fetches 100 oids in advance: one step is enough for 100 clients.
_OID_STEP = 10_000
_MAX_OID_STEPS = 1000


def skip_oids(storage: Any) -> None:
    """Let a FileStorage that holds objects give out oids well above the highest one from now on.

    ZEO clients hold oids that they have fetched in advance from the server of the former primary.
    They use them after a change of servers, so the new server must not give out the same ones. Both
    may begin above the same oid, if no object was created since, so the distance is random. Other
    storages are left alone: RelStorage keeps its last oid in the database.
    """
    file_storage = _file_storage(storage)
    if isinstance(file_storage, FileStorage) and len(file_storage):
        steps = 1 + secrets.randbelow(_MAX_OID_STEPS)
        oid = u64(file_storage._oid) + steps * _OID_STEP
        if oid < 1 << 64:
            file_storage.set_max_oid(p64(oid))


def last_tid_in_file(storage: Any) -> bytes:
    """The tid of the last transaction that a FileStorage's file holds, `NO_TID` for none."""
    held = _last_in_file(storage)
    return NO_TID if held is None else held.tid


def _last_in_file(storage: Any) -> Header | None:
    file = FileStorageSource(storage).open_file()
    try:
        return None if file.end <= FIRST_OFFSET else file.header(file.before(file.end))
    finally:
        file.close()


def _last_transaction(storage: Any, tid: bytes, limit: int) -> HeldTransaction:
    file = FileStorageSource(storage).open_file()
    try:
        blobs = storage if IBlobStorageRestoreable.providedBy(storage) else None
        return held_in_file(file, tid, blobs, limit)
    finally:
        file.close()


def _history(storage: Any, before: bytes | None, count: int) -> list[tuple[bytes, bool]]:
    """As `ISearchableSink.history`."""
    file = FileStorageSource(storage).open_file()
    try:
        pos = file.end if before is None else find(file, p64(u64(before) - 1))
        found: list[tuple[bytes, bool]] = []
        while pos > FIRST_OFFSET and len(found) < count:
            pos = file.before(pos)
            found.append((file.tid_at(pos), file.status_at(pos) == PACKED))
        return found
    finally:
        file.close()


@contextlib.contextmanager
def keeping_last_tid(storage: Any) -> Iterator[None]:
    """Pack a FileStorage within this context, which may have a packer of its own; see `packer`.

    Such a pack may remove the very last transaction, if nothing in it can be reached.
    As long as the storage is open, it remembers that tid; opened again, it would be older than its
    secondaries, and with a clock that was set back even give the tids again that they have. So an
    empty transaction stays in its place: with its meta data, packed, without records.
    """
    header = _last_in_file(storage) if is_file_storage(storage) else None
    try:
        yield
    except FileStorageError:
        # Another pack is running, which keeps its own.
        header = None
        raise
    finally:
        # Also after a failure: a pack has much to do with blobs when the file is replaced already.
        if header is not None and not _missing(storage):
            _note_last(storage, header)


def _note_last(storage: Any, header: Header) -> None:
    try:
        _put_back(storage, header)
    except NotWritten:
        raise
    except Exception:
        # The pack has succeeded.
        log.exception(
            "%s: the last transaction %s was packed away, which cannot be noted in the file",
            storage.getName(),
            describe_tid(header.tid),
            extra=event("last-not-kept", storage=storage.getName(), tid=header.tid),
        )


def _put_back(storage: Any, header: Header) -> None:
    sink = AppendingSink(
        storage, _OwnFile(storage), False, lambda tid, oids: None, durability="transaction"
    )
    # If somebody has committed since, it is not the last one any more; should that happen right
    # now, the sink notices.
    if sink.last_tid() != header.tid or last_tid_in_file(storage) >= header.tid:
        return
    with contextlib.ExitStack() as stack:
        stack.callback(sink.abort)
        stack.enter_context(contextlib.suppress(WrittenToByOthers))
        sink.apply(Transaction(*_fields(header._replace(status="p"))))
        sink.apply(Commit())
        sink.flush()
