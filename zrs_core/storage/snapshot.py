"""Reads a database from its files, as far as it is committed, whoever else has them open.

Nothing is locked and nothing is written. Another process may write to the files meanwhile: what
it has not finished is not seen. It may even pack: the file that was opened stays as it was.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from typing import IO, Final

from ZODB.blob import FilesystemHelper

from ..errors import UnsuitableStorage
from ..messages import NO_TID
from .blob_layout import check_layout
from .blobs import is_ordinary_record
from .committed import CommittedFile, DamagedFile, Header, Record
from .fs_format import FINISHED, FIRST_OFFSET, TRANSACTION_HEADER, U64, UNFINISHED
from .paths import check_path

_COPY_SIZE: Final = 1024 * 1024


def open_snapshot(path: str | os.PathLike[str]) -> CommittedFile:
    """The FileStorage file at `path`, its `end` behind the last complete transaction.

    :raises UnsuitableStorage: there is none.
    :raises DamagedFile: it is damaged before its end.
    """
    path = check_existing(path)
    try:
        file = CommittedFile(path)
    except OSError as error:
        raise UnsuitableStorage(f"{path} cannot be read: {error.strerror}") from error
    try:
        for _ in new_transactions(file):
            pass
    except BaseException:
        file.close()
        raise
    return file


def check_existing(path: str | os.PathLike[str]) -> str:
    """`path` as a text, if there is a FileStorage.

    :raises UnsuitableStorage: there is none.
    """
    path = os.fspath(path)
    check_path(path)
    if not os.path.exists(path):
        raise UnsuitableStorage(f"there is no FileStorage at {path}")
    return path


def check_existing_blobs(directory: str | os.PathLike[str] | None) -> None:
    """:raises UnsuitableStorage: `directory` is given and is none."""
    if directory is not None and not os.path.isdir(directory):
        raise UnsuitableStorage(
            f"there is no directory of blobs at {os.fspath(directory)}: give the one that "
            "belongs to the FileStorage"
        )


def new_transactions(file: CommittedFile) -> Iterator[bytes]:
    """The tids of the complete transactions beyond `file.end`, which moves on behind each.

    :raises DamagedFile: there is something else than transactions.
    """
    size = file.stat().st_size
    pos = file.end
    last = file.last_tid()
    while True:
        file.end = size
        try:
            begin = complete_at(file, pos, last)
        except DamagedFile:
            # A transaction that is aborted after its vote is cut off the file.
            if file.stat().st_size >= size:
                raise
            return
        finally:
            file.end = pos
        if begin is None:
            return
        last, pos = begin
        file.end = pos
        yield last


def complete_at(file: CommittedFile, pos: int, last: bytes) -> tuple[bytes, int] | None:
    """The tid of the transaction at `pos` and where the next begins; None for no complete one.

    :param last: the tid of the transaction before it. A lower one is accepted where the records of
        the transaction confirm it: the clock may have been set back.
    :raises DamagedFile: there is something else than a transaction, complete or not.
    """
    if pos + TRANSACTION_HEADER.size > file.end:
        return None
    tid, length, status, *_ = TRANSACTION_HEADER.unpack(file.peek(pos, TRANSACTION_HEADER.size))
    end = pos + length
    # Voted and not finished, or still being written.
    if status == UNFINISHED or end + U64.size > file.end:
        return None
    # Space that was given out and never written, which is what a power loss can leave.
    if (tid, length, status) == (NO_TID, 0, b"\0"):
        return None
    if (
        status not in FINISHED
        or length < TRANSACTION_HEADER.size
        or U64.unpack(file.peek(end, U64.size)) != (length,)
        or (tid <= last and not file.confirms_tid(file.header(pos)))
    ):
        raise DamagedFile(f"{file.path} is damaged: there is no transaction at {pos}")
    return tid, end + U64.size


class BlobFiles:
    """The files of a blob directory, by object and transaction.

    :raises MisplacedBlobs: they do not lie where its layout says.
    :raises UnsuitableStorage: nobody knows how files lie in it, as in the cache of a ZEO client.
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        check_layout(os.fspath(directory))
        try:
            self._helper = FilesystemHelper(os.fspath(directory))
        except (KeyError, ValueError) as error:
            raise UnsuitableStorage(
                f"{os.fspath(directory)} is no directory of blobs: its layout {error} is not known"
            ) from error

    def path(self, oid: bytes, tid: bytes) -> str:
        """Where the blob of a record is, if there is one."""
        path: str = self._helper.getBlobFilename(oid, tid)
        return path

    def open(self, oid: bytes, tid: bytes) -> IO[bytes]:
        """The blob of a record.

        :raises FileNotFoundError: there is none.
        """
        return open(self.path(oid, tid), "rb")

    def all(self) -> Iterator[tuple[bytes, bytes, str]]:
        """The transaction, the object and the path of each file, in no order."""
        for directory, _, names in os.walk(self._helper.base_dir):
            for name in names:
                # What else lies there has another name, or another place.
                with contextlib.suppress(ValueError):
                    path = os.path.join(directory, name)
                    oid, tid = self._helper.splitBlobFilename(path)
                    if oid is not None:
                        yield tid, oid, path

    def create(self) -> None:
        """Make the directory."""
        self._helper.create()

    def make_room(self, oid: bytes) -> None:
        """Make the directory that an object's blobs lie in."""
        self._helper.getPathForOID(oid, create=True)


def copy_database(
    source: str | os.PathLike[str],
    source_blobs: str | os.PathLike[str] | None,
    target: str | os.PathLike[str],
    target_blobs: str | os.PathLike[str],
) -> None:
    """Copy the complete transactions of a FileStorage, and their blobs, to where nothing is yet.

    :raises UnsuitableStorage: there is no FileStorage at `source`.
    :raises DamagedFile: it is damaged.
    """
    check_existing_blobs(source_blobs)
    file = open_snapshot(source)
    try:
        with open(target, "xb") as copy:
            pos = 0
            # An empty file is a FileStorage too, without even the magic.
            end = min(file.end, file.stat().st_size)
            while pos < end:
                pos += copy.write(file.read(pos, min(_COPY_SIZE, end - pos)))
        if source_blobs is not None:
            _copy_blobs(file, BlobFiles(source_blobs), BlobFiles(target_blobs))
    finally:
        file.close()


def _copy_blobs(file: CommittedFile, source: BlobFiles, target: BlobFiles) -> None:
    target.create()
    for _, records in transactions_of(file):
        for record in filter(may_have_blob, records):
            path = source.path(record.oid, record.tid)
            if os.path.exists(path):
                target.make_room(record.oid)
                shutil.copyfile(path, target.path(record.oid, record.tid))


def transactions_of(
    file: CommittedFile, pos: int = FIRST_OFFSET
) -> Iterator[tuple[Header, Iterator[Record]]]:
    """The transactions of a file from one that begins at `pos` up to its `end`, with their records.

    Those that are void are left out.

    :raises DamagedFile: it is damaged.
    """
    while pos < file.end:
        header = file.header(pos)
        # Those of an undone transaction.
        yield header, iter(()) if header.status == "u" else file.records(header)
        pos = header.next


def may_have_blob(record: Record) -> bool:
    """Whether a record may have a blob's file.

    An undone creation has no data, and may have one; and what a wrapper has transformed does not
    tell whether it is a blob's.
    """
    return not is_ordinary_record(record.data)
