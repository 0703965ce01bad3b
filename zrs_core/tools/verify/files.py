"""A FileStorage's file as a side, as it was when it was opened, whoever writes to it meanwhile."""

from __future__ import annotations

import contextlib
import os
from datetime import datetime, timedelta, timezone

from ZODB.utils import p64, u64

from ...errors import UnsuitableStorage
from ...messages import NO_TID
from ...storage.committed import CommittedFile, DamagedFile, Header
from ...storage.finding import find, next_beginning
from ...storage.fs_format import FIRST_OFFSET, RECORD_HEADER
from ...storage.paths import check_magic
from ...storage.sides import FileSide
from ...storage.snapshot import BlobFiles, check_existing_blobs, complete_at
from ...tids import tid_of


class VerifiedFile(FileSide):
    """A FileStorage's file, read only, without a lock; and its blobs, if there are any.

    What is at its end and not finished is not there. `end` is where it ended when it was opened;
    what has been committed since is given by `grown`.

    :raises UnsuitableStorage: there is none, or no directory of blobs.
    """

    may_grow = True

    def __init__(self, path: str, blobs: str | None) -> None:
        # A damaged one is one too.
        if not check_magic(path) and not os.path.exists(path):
            raise UnsuitableStorage(f"there is no FileStorage at {path}")
        check_existing_blobs(blobs)
        files = None if blobs is None else BlobFiles(blobs)
        try:
            file = CommittedFile(path)
        except OSError as error:
            raise UnsuitableStorage(f"{path} cannot be read: {error.strerror}") from error
        super().__init__(file, None if files is None else files.open)
        self.blob_dir = blobs
        self.end = file.end = max(FIRST_OFFSET, file.stat().st_size)
        #: The last transaction before `pos`.
        self.tid = NO_TID

    def next_header(self) -> Header | None:
        return self._header_within(self.end)

    def grown(self, tid: bytes) -> Header | None:
        end = self.file.stat().st_size
        if end <= self.pos or self.file.was_replaced():
            return None
        # What was read of an unfinished one is not what it has become.
        self.file.forget()
        self.file.end = end
        found = complete_at(self.file, self.pos, self.tid)
        if found is None or found[0] > tid:
            return None
        return self._header_within(end)

    def _header_within(self, end: int) -> Header | None:
        if self.pos >= end:
            return None
        try:
            header = self.file.header(self.pos)
        except DamagedFile:
            # It may be unfinished; it may have been aborted meanwhile, which cuts it off, and
            # another one may be there by now.
            self.file.forget()
            self.file.end = end = min(end, self.file.stat().st_size)
            if self.pos >= end:
                return None
            if complete_at(self.file, self.pos, self.tid) is None:
                if self.next_good() is None:
                    return None
                raise DamagedFile(
                    f"{self.file.path} is damaged: there is no transaction at {self.pos}"
                ) from None
            header = self.file.header(self.pos)
        if header.tid <= self.tid and not self.file.confirms_tid(header):
            raise DamagedFile(
                f"{self.file.path} is damaged: the transaction at {self.pos} has the tid "
                f"0x{header.tid.hex()}, which is not after 0x{self.tid.hex()}"
            )
        self.pos, self.tid = header.next, header.tid
        return header

    def last_tid(self) -> bytes:
        """Of the last transaction before `end` that is complete."""
        self.file.end = self.end
        if not self.file.is_end(self.end):
            self.file.end = self._complete_end(self.file)
        try:
            return self.file.last_tid()
        finally:
            self.file.end = self.end

    def records_of(self, tid: bytes) -> set[bytes]:
        """The objects that have records in a transaction, as the file is now.

        :raises DamagedFile: it cannot be found out.
        """
        file = CommittedFile(self.file.path)
        with contextlib.closing(file):
            file.end = max(FIRST_OFFSET, file.stat().st_size)
            if not file.is_end(file.end):
                file.end = self._complete_end(file)
            pos = find(file, p64(u64(tid) - 1))
            if pos >= file.end or file.tid_at(pos) != tid:
                return set()
            return {record.oid for record in file.records(file.header(pos))}

    def _complete_end(self, file: CommittedFile) -> int:
        """Where the last complete transaction ends."""
        last, pos = NO_TID, FIRST_OFFSET
        with contextlib.suppress(DamagedFile):
            while found := complete_at(file, pos, last):
                last, pos = found
        return pos

    def move_to(self, pos: int) -> None:
        """Go on where a transaction begins."""
        self.pos = pos
        self.tid = NO_TID if pos <= FIRST_OFFSET else self.file.tid_at(self.file.before(pos))

    def next_good(self) -> int | None:
        """Where the next transaction begins that proves to be one; None for nowhere."""
        low = self.tid if self.tid != NO_TID else self.file.tid_at(FIRST_OFFSET)
        # Where the end is unfinished, the time bounds what may come before it.
        ends = self.file.is_end(self.file.end)
        high = (
            self.file.last_tid() if ends else tid_of(datetime.now(timezone.utc) + timedelta(days=1))
        )
        return next_beginning(self.file, self.pos + 1, self.file.end, low, max(low, high))

    def is_consistent(self, header: Header) -> bool:
        """Whether a transaction's first record has its tid."""
        if header.records == header.end:
            return True
        _, tid, *_ = RECORD_HEADER.unpack(self.file.peek(header.records, RECORD_HEADER.size))
        same: bool = tid == header.tid
        return same

    def raw(self, header: Header) -> bytes:
        """A transaction as it is in the file."""
        return self.file.peek(header.pos, header.next - header.pos)

    def identity(self) -> dict[str, object]:
        """What tells this file from another, and from itself when it was written to."""
        status = self.file.stat()
        return {
            "path": os.path.abspath(self.file.path),
            "file": [status.st_dev, status.st_ino],
            "size": status.st_size,
            "changed": status.st_mtime_ns,
            "blobs": self.blob_dir and os.path.abspath(self.blob_dir),
        }
