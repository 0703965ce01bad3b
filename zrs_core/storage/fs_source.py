"""FileStorage as a source: transactions read from its data file, as far as it is committed."""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import Any

from ..errors import Diverged, TidTooHigh
from ..messages import NO_TID, PrimaryMessage, unchecked_store
from .committed import CommittedFile, DamagedFile, Header, Record
from .finding import RisingTids, find, find_in_order
from .fs_access import path_of
from .fs_format import FIRST_OFFSET
from .runs import Run, read_run
from .source import PIECE_SIZE, Pieces, StorageReader, StorageSource

#: Seconds that a reader waits for the next step of a pack. A pack renames the old file away, then
#: the new one into its place, then sets its size.
PACK_TIMEOUT = 5.0

# Seconds between two attempts to read the file meanwhile.
_PACK_PAUSE = 0.01


class FileStorageSource(StorageSource):
    """The history of a FileStorage, followed as it grows.

    It reads the file beside the storage and up to `getSize()`, which FileStorage moves on once a
    transaction is on disk; it takes none of the storage's locks, so that no commit waits for it.

    :param pack_timeout: seconds to wait for the next step of a pack, before the file counts as
        gone or damaged.
    """

    remedy = (
        "Copy the database to the secondaries with 'zrs snapshot' and 'zrs restore': from a copy "
        "they continue after it"
    )

    def __init__(self, storage: Any, *, pack_timeout: float = PACK_TIMEOUT) -> None:
        super().__init__(storage)
        self._pack_timeout = pack_timeout
        self._path = path_of(storage)
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
        deadline = time.monotonic() + self._pack_timeout
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
        deadline = time.monotonic() + self._pack_timeout
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
        deadline = time.monotonic() + self._pack_timeout
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

    # What was just committed is in the system's page cache.
    nearby = True

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
        """Raise StartError if the primary cannot continue after the start (protocol, section 6)."""
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
        """Return True if the next transaction is the last one again, which a pack had removed.

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
        begin = self._begin(self._tid, *fields_of_header(header))
        yield from self._pieces_of(begin, records, unchecked_store)
        self._pos = header.next
        self._tid = header.tid

    def close(self) -> None:
        super().close()
        self._file.close()


def fields_of_header(header: Header) -> tuple[bytes, str, bytes, bytes, bytes]:
    return header.tid, header.status, header.user, header.description, header.extension
