"""What is compared: a database, transaction by transaction, and that of a FileStorage's file."""

from __future__ import annotations

import contextlib
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import IO, NamedTuple

from .blobs import MISSING_BLOB
from .committed import CommittedFile, Header, Record
from .fs_format import FIRST_OFFSET

_BLOCK_SIZE = 1024 * 1024


class Side(ABC):
    """One of the two databases. A transaction's records are read before the next transaction.

    :param open_blob: opens the blob of an object and a tid; None where there are no blobs.
    """

    #: Whether it has records in the order, and with the back-pointers, with which they came.
    is_exact = True
    #: Whether it has of blobs no more than `blob_digest`.
    has_digests_alone = False
    #: Whether `grown` may find something later.
    may_grow = False

    def __init__(self, open_blob: Callable[[bytes, bytes], IO[bytes]] | None) -> None:
        self._open_blob = open_blob

    @property
    def has_blobs(self) -> bool:
        return self._open_blob is not None or self.has_digests_alone

    @abstractmethod
    def next_header(self) -> Header | None:
        """Of the next transaction; None if there is no more.

        :raises DamagedFile: there is something else.
        """

    def grown(self, tid: bytes) -> Header | None:
        """After the end, the next transaction up to `tid`, if it was committed since."""
        return None

    @abstractmethod
    def records(self, header: Header) -> Iterator[Record]:
        """Of the transaction that came last from `next_header`."""

    def open_blob(self, record: Record) -> IO[bytes] | None:
        if self._open_blob is not None:
            with contextlib.suppress(*MISSING_BLOB):
                return self._open_blob(record.oid, record.tid)
        return None

    def blob_digest(self, record: Record) -> BlobDigest | None:
        """The size of a record's blob and what it hashes to; None if there is none."""
        file = self.open_blob(record)
        if file is None:
            return None
        with file:
            return _digest_of(file)

    def close(self) -> None:  # noqa: B027
        """Nothing of its own to give up."""


class BlobDigest(NamedTuple):
    """A blob's size and its SHA-256."""

    size: int
    digest: bytes


def _digest_of(file: IO[bytes]) -> BlobDigest:
    hashed, size = hashlib.sha256(), 0
    while block := file.read(_BLOCK_SIZE):
        hashed.update(block)
        size += len(block)
    return BlobDigest(size, hashed.digest())


class FileSide(Side):
    """A FileStorage's file up to its `end`, read from `pos` on."""

    def __init__(
        self, file: CommittedFile, open_blob: Callable[[bytes, bytes], IO[bytes]] | None
    ) -> None:
        super().__init__(open_blob)
        self.file = file
        self.pos = FIRST_OFFSET

    def next_header(self) -> Header | None:
        if self.pos >= self.file.end:
            return None
        header = self.file.header(self.pos)
        self.pos = header.next
        return header

    def records(self, header: Header) -> Iterator[Record]:
        # The records of an undone transaction are void, and not replicated.
        return iter(()) if header.status == "u" else self.file.records(header)

    def close(self) -> None:
        self.file.close()
