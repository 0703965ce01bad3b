"""Copies what is committed in a FileStorage's file, and links or copies its blobs.

The file may be in use, and is only read. A pack may put another in its place, but the one that was
opened stays as it was; only the blobs that a pack removes are gone.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from typing import Final

from ...errors import ReplicationError, UnsuitableStorage
from ...storage.blob_layout import MisplacedBlobs
from ...storage.blobs import is_blob_record
from ...storage.committed import CommittedFile, Record
from ...storage.disk import sync
from ...storage.snapshot import BlobFiles, may_have_blob, transactions_of
from .manifest import BLOBS, DATA

#: What is told on the way: what is being done, how many bytes of it are, and of how many.
Report = Callable[[str, int, int], None]

_COPY_SIZE: Final = 4 * 1024 * 1024

# Why a file cannot be linked, where it may be copied all the same: another file system, one that
# has no links, too many links, a file of somebody else's.
_NO_LINKS: Final = (errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.EOPNOTSUPP)


class NoRoom(ReplicationError):
    """The disk has no room for what is to be written; the text says how much is needed."""


class BlobsRemoved(Exception):
    """A pack has replaced the file since it was opened, and removed blobs that belong to it."""


class Damaged(ReplicationError):
    """What was read back is not what was written, or not what it should be."""


def check_room(directory: str, needed: int) -> None:
    """:raises NoRoom: the file system of a directory has no room for so many bytes."""
    found = os.statvfs(directory)
    free = found.f_bavail * found.f_frsize
    if needed > free:
        raise NoRoom(f"there is no room for it: {needed:,} bytes are needed, {free:,} are free")


def copy_all(file: CommittedFile, blobs: str | None, directory: str, report: Report) -> int:
    """Copy a file as far as its `end`, as `Data.fs`, and the blobs, if there are any, to `blobs`.

    :param blobs: the directory of the blobs.
    :param directory: where they are put; it is empty.
    :return: how many blobs are missing.
    :raises UnsuitableStorage: there are blobs, and no directory of them.
    :raises NoRoom: nothing was copied, but what could be linked was.
    :raises BlobsRemoved: it must be begun again.
    :raises Damaged: a copy is not equal to what was copied, or blobs are misplaced.
    :raises DamagedFile: the source is damaged.
    """
    # An empty file is a FileStorage too, without even the magic.
    size = min(file.end, file.stat().st_size)
    check_room(directory, size)
    target = os.path.join(directory, DATA)
    if blobs is None:
        _check_without_blobs(file, report)
        _copy_data(file, size, target, report)
        missing = 0
    else:
        try:
            linked = _Blobs(file, blobs, os.path.join(directory, BLOBS))
        except MisplacedBlobs as error:
            # The directory is the right one, and not in order.
            raise Damaged(str(error)) from error
        linked.link(report)
        check_room(directory, size + linked.bytes_to_copy)
        _copy_data(file, size, target, report)
        linked.copy(report)
        missing = linked.missing
    _compare_data(file, size, target, report)
    return missing


def _copy_data(file: CommittedFile, size: int, target: str, report: Report) -> None:
    with open(target, "xb", buffering=0) as copy:
        for pos in range(0, size, _COPY_SIZE):
            report("Copying", pos, size)
            left = memoryview(file.peek(pos, min(_COPY_SIZE, size - pos)))
            while left:
                left = left[copy.write(left) :]


def _compare_data(file: CommittedFile, size: int, target: str, report: Report) -> None:
    with open(target, "rb", buffering=0) as copy:
        sync(copy.fileno())
        if hasattr(os, "posix_fadvise"):
            # What the disk holds is read, and not what the system still has of it in memory.
            os.posix_fadvise(copy.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        for pos in range(0, size, _COPY_SIZE):
            report("Comparing", pos, size)
            length = min(_COPY_SIZE, size - pos)
            if file.peek(pos, length) != copy.read(length):
                raise Damaged(f"the copy of {file.path} differs from it after byte {pos}")


class _Blobs:
    """The blobs of a file: those that can be linked, and those that must be copied."""

    def __init__(self, file: CommittedFile, source: str, target: str) -> None:
        self.missing = 0
        self.bytes_to_copy = 0
        self._file = file
        self._source = BlobFiles(source)
        self._target = BlobFiles(target)
        self._can_link = True
        # The oid and the tid of each, one behind the other: there may be millions.
        self._to_copy = bytearray()

    def link(self, report: Report) -> None:
        """Link those that can be.

        Before anything is copied, which takes its time: what is linked no pack can take away.
        """
        self._target.create()
        for record in _blob_records(self._file, report):
            try:
                self._link(record)
            except FileNotFoundError:
                self._check_pack()
                self.missing += _needs_blob(record)

    def _link(self, record: Record) -> None:
        path = self._source.path(record.oid, record.tid)
        found = os.lstat(path)
        self._target.make_room(record.oid)
        if stat.S_ISREG(found.st_mode) and self._can_link:
            try:
                os.link(path, self._target.path(record.oid, record.tid))
                return
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                self._can_link = error.errno not in (errno.EXDEV, errno.EOPNOTSUPP)
        self.bytes_to_copy += os.stat(path).st_size
        self._to_copy += record.oid + record.tid

    def _check_pack(self) -> None:
        # A pack removes blobs only when its new file is in place.
        if self._file.was_replaced():
            raise BlobsRemoved

    def copy(self, report: Report) -> None:
        """Copy those that could not be linked."""
        done = 0
        for place in range(0, len(self._to_copy), 16):
            report("Copying blobs", done, self.bytes_to_copy)
            ids = bytes(self._to_copy[place : place + 16])
            path, target = (each.path(ids[:8], ids[8:]) for each in (self._source, self._target))
            try:
                done += _copy_blob(path, target)
            except FileNotFoundError:
                self._check_pack()
                raise


def _blob_records(file: CommittedFile, report: Report) -> Iterator[Record]:
    for header, records in transactions_of(file):
        report("Looking for blobs", header.pos, file.end)
        yield from filter(may_have_blob, records)


def _needs_blob(record: Record) -> bool:
    return bool(record.data) and is_blob_record(record.data)


def _check_without_blobs(file: CommittedFile, report: Report) -> None:
    """:raises UnsuitableStorage: there are blobs."""
    for record in _blob_records(file, report):
        if _needs_blob(record):
            raise UnsuitableStorage(
                f"{file.path} has blobs, of which object 0x{record.oid.hex()} is the first: give "
                "their directory with --blobs DIR"
            )


def _copy_blob(path: str, copy: str) -> int:
    """Copy a blob and compare it; its size."""
    with open(path, "rb") as source, open(copy, "x+b") as target:
        shutil.copyfileobj(source, target, _COPY_SIZE)
        target.flush()
        # Nobody may write to it, as ZODB has it.
        os.fchmod(target.fileno(), stat.S_IMODE(os.fstat(source.fileno()).st_mode))
        source.seek(0)
        target.seek(0)
        while piece := source.read(_COPY_SIZE):
            if piece != target.read(len(piece)):
                raise Damaged(f"the copy of {path} differs from it")
        return source.tell()
