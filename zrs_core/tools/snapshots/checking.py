"""Reads a database that was just written from its first byte to its last.

What it holds is summed up by `ContentDigest`, which can be made of what a primary sends as well.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from dataclasses import dataclass
from typing import Final

from ZODB.FileStorage import FileStorage

from ...messages import NO_TID, BlobBlock, PrimaryMessage, Store, StoreBlob, Transaction
from ...storage.blobs import is_blob_record
from ...storage.committed import Record
from ...storage.snapshot import BlobFiles, may_have_blob, open_snapshot, transactions_of
from .copying import Damaged, Report
from .manifest import BLOBS, DATA

_READ_SIZE: Final = 4 * 1024 * 1024


class ContentDigest:
    """A digest of all that counts: transactions, records, what is in their blobs.

    Not of where a record's data come from: what a primary sends as a copy of an earlier record may
    be kept as data of its own.
    """

    def __init__(self) -> None:
        self._digest = hashlib.blake2b()

    def copy(self) -> ContentDigest:
        other = ContentDigest()
        other._digest = self._digest.copy()
        return other

    def hexdigest(self) -> str:
        return self._digest.hexdigest()

    def add(self, message: PrimaryMessage) -> None:
        """Add what a primary sends, in the order in which it does."""
        if isinstance(message, Store):
            self.add_record(message.oid, message.serial, message.data, has_blob=False)
        elif isinstance(message, BlobBlock):
            self.add_bytes(message.data)
        elif isinstance(message, StoreBlob):
            self.add_record(message.oid, message.serial, message.data, has_blob=True)
        elif isinstance(message, Transaction):
            self.add_transaction(
                message.tid, message.status, message.user, message.description, message.extension
            )

    def add_transaction(self, tid: bytes, status: str, *texts: bytes) -> None:
        self._digest.update(b"T%b%b" % (tid, status.encode("ascii")))
        for text in texts:
            self._digest.update(b"%d:%b" % (len(text), text))

    def add_record(self, oid: bytes, tid: bytes, data: bytes, *, has_blob: bool) -> None:
        kind = b"B" if has_blob else b"S"
        self._digest.update(b"%b%b%b%d:" % (kind, oid, tid, len(data)))
        self._digest.update(data)

    def add_bytes(self, data: bytes) -> None:
        self._digest.update(data)


@dataclass
class Contents:
    """What a database holds: its last transaction, how many of all, and bytes."""

    tid: bytes = NO_TID
    transactions: int = 0
    records: int = 0
    blobs: int = 0
    missing_blobs: int = 0
    data_size: int = 0
    blobs_size: int = 0
    sha256: str = ""


def check(directory: str, report: Report, digest: ContentDigest | None = None) -> Contents:
    """Read the database in a directory from end to end, and open it as a FileStorage does.

    Its index is there then, so that the next one opens it faster.

    :param digest: of nothing yet; all that the database holds is added.
    :raises Damaged: it ends in something unfinished, or the storage does not show what it holds.
    :raises DamagedFile: the file is damaged.
    """
    path, blobs = os.path.join(directory, DATA), os.path.join(directory, BLOBS)
    contents = _read(path, blobs if os.path.isdir(blobs) else None, report, digest)
    report("Opening", 0, 0)
    shown = _last_shown(path, blobs if os.path.isdir(blobs) else None)
    if shown != contents.tid:
        raise Damaged(
            f"a FileStorage shows 0x{shown.hex()} as its last transaction, and it holds "
            f"0x{contents.tid.hex()}"
        )
    # To an empty file it has added its magic.
    contents.data_size = os.path.getsize(path)
    contents.sha256 = sha256_of(path, report)
    return contents


def _last_shown(path: str, blobs: str | None) -> bytes:
    storage = FileStorage(path, blob_dir=blobs)
    try:
        tid: bytes = storage.lastTransaction()
    finally:
        storage.close()
        for suffix in (".lock", ".tmp"):
            with contextlib.suppress(FileNotFoundError):
                os.remove(path + suffix)
    return tid


def _read(path: str, blobs: str | None, report: Report, digest: ContentDigest | None) -> Contents:
    contents = Contents()
    files = None if blobs is None else BlobFiles(blobs)
    with contextlib.closing(open_snapshot(path)) as file:
        if file.stat().st_size > file.end:
            raise Damaged(f"{path} goes on behind its last transaction")
        for header, records in transactions_of(file):
            report("Checking", header.pos, file.end)
            contents.tid = header.tid
            contents.transactions += 1
            if digest is not None:
                digest.add_transaction(
                    header.tid, header.status, header.user, header.description, header.extension
                )
            for record in records:
                contents.records += 1
                blob = _count_blob(contents, files, record) if may_have_blob(record) else None
                if digest is not None:
                    _add_record(digest, record, blob)
    return contents


def _count_blob(contents: Contents, files: BlobFiles | None, record: Record) -> str | None:
    """Count a record's blob; its path if it is there."""
    if files is not None:
        path = files.path(record.oid, record.tid)
        with contextlib.suppress(FileNotFoundError):
            contents.blobs_size += os.stat(path).st_size
            contents.blobs += 1
            return path
    contents.missing_blobs += bool(record.data) and is_blob_record(record.data)
    return None


def _add_record(digest: ContentDigest, record: Record, blob: str | None) -> None:
    digest.add_record(record.oid, record.tid, record.data, has_blob=blob is not None)
    if blob is not None:
        with open(blob, "rb") as file:
            while piece := file.read(_READ_SIZE):
                digest.add_bytes(piece)


def sha256_of(path: str, report: Report) -> str:
    """The digest of a file, in hex."""
    digest = hashlib.sha256()
    size = os.path.getsize(path)
    with open(path, "rb", buffering=0) as file:
        while piece := file.read(_READ_SIZE):
            report("Hashing", file.tell(), size)
            digest.update(piece)
    return digest.hexdigest()
