"""Puts batches of transactions onto the disk, each as a whole or not at all.

A machine may stop at any time, and of what it wrote since the last fsync any sectors may be on
disk, with holes anywhere. A FileStorage that is opened then cuts off what begins with an unfinished
transaction, whatever follows; it fails over holes elsewhere, or does not notice them. A batch that
lies within one block of the disk, as a single transaction often does, is on disk as a whole or not
at all: it takes one write and one fsync, if the block is more than a sector. Any other is written
in three steps, with an fsync after each:

1. The header of an unfinished transaction, where the batch is to begin.
2. The batch, whose first transaction is still unfinished, and has no length.
3. The length and the status of the first transaction. Should they lie in two sectors, then each of
   the two without the other leaves it unfinished.

The first step costs nothing while batches follow each other: the header stands behind the batch
before. A small batch can do without it. Should the sector with its header be missing, FileStorage
finds zeros there. It cuts them off, too, unless the last 8 bytes of the file could be the length of
the transaction: so another header is written behind the batch for the time being, and the batch is
looked through for such bytes at the end of a sector.

Behind the first step the order does not matter: so a large batch is written, and on its way to the
disk, while the rest of it comes, and the last two steps are taken while the next one comes.

The layout is described in `fs_format`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Final, NamedTuple, Protocol

from ..held import HeldTransaction
from ..messages import Transaction
from .disk import SECTOR, Beside
from .fs_format import FINISHED, LENGTH_OFFSET, TRANSACTION_HEADER, U64, UNFINISHED

# No part of it, with zeros behind, is a length that a transaction could have.
_NO_LENGTH: Final = 0xFFFF_FFFF_FFFF_FFFF


class BatchLimits(NamedTuple):
    """Sizes of batches, in bytes."""

    #: The most that is published together, and that is held in memory of one transaction.
    batch: int = 8 * 1024 * 1024
    #: The most of a batch that is held in memory before it is written.
    held: int = 1024 * 1024
    #: The most that is searched for bytes that could mislead FileStorage. For a larger batch, one
    #: more fsync makes no difference.
    searched: int = 64 * 1024


DEFAULT_LIMITS: Final = BatchLimits()


class AppendableFile(Protocol):
    """A FileStorage's file, as who appends to it needs it."""

    @property
    def last_tid(self) -> bytes:
        """The tid of the last transaction that the storage knows."""

    @property
    def end(self) -> int:
        """Where what the storage knows of ends."""

    @property
    def block_size(self) -> int:
        """Bytes, at a multiple of as many, that are on disk all or not at all."""

    def lock(self) -> None:
        """Keep everybody from committing, and a pack from replacing the file."""

    def alone(self) -> AbstractContextManager[object]:
        """Lock the storage: nothing can be read within. `publish` may be called within."""

    def unlock(self) -> None:
        """Allow it again."""

    def find(self, oid: bytes) -> int:
        """Where the newest record of an object begins, 0 for none."""

    def read(self, pos: int, size: int) -> bytes:
        """`size` bytes from `pos`."""

    def last_transaction(self, tid: bytes, limit: int) -> HeldTransaction:
        """As `IComparableSink.last_transaction`, where it must be `tid`."""

    def history(self, before: bytes | None, count: int) -> list[tuple[bytes, bool]]:
        """As `ISearchableSink.history`."""

    def write(self, pos: int, *chunks: bytes) -> None:
        """Write them one behind the other from `pos` on, which lies at `end` or beyond."""

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


class Batch:
    """Whole transactions that are made known together, from `begin` to `end` in the file.

    `index` tells where the newest record of each object in them begins, and `done` the tid and the
    oids of each.
    """

    def __init__(self, begin: int) -> None:
        self.begin = self.end = begin
        self.index: dict[bytes, int] = {}
        self.done: list[tuple[bytes, list[bytes]]] = []
        #: Bytes that are not written yet, and where they go.
        self.chunks: list[bytes] = []
        self.place = begin
        #: What finishes the first transaction.
        self.finishing = b""

    @property
    def last_tid(self) -> bytes:
        """The tid of the last of them."""
        return self.done[-1][0]

    def add(
        self, transaction: Transaction, end: int, records: list[bytes], newest: dict[bytes, int]
    ) -> None:
        """Add one whose header was written, or put into `chunks`.

        :param end: where it ends, but for its trailing length.
        :param records: those that are not written yet.
        :param newest: where the record of each object in it begins.
        """
        self.chunks += records
        self.chunks.append(U64.pack(end - self.end))
        self.end = end + U64.size
        self.done.append((transaction.tid, [*newest]))
        self.index.update(newest)

    def header_of(self, transaction: Transaction, end: int) -> bytes:
        """The header of the next one, which ends at `end`; that of the first is unfinished."""
        length = end - self.end
        if self.done:
            return header(transaction, length)
        self.finishing = U64.pack(length) + transaction.status.encode("ascii")
        return header(transaction, None)


class BatchWriter:
    """Writes batches, one after the other, to the end of a file.

    What takes its time may go on beside. Whatever it raises is raised by `wait`, and by others that
    find it, until it is cut off. One thread at a time.

    :param sync: whether it matters what the disk has.
    :param limits: `searched` counts here.
    """

    def __init__(
        self, file: AppendableFile, *, sync: bool, limits: BatchLimits = DEFAULT_LIMITS
    ) -> None:
        #: Whether there may be something in the file beyond its end.
        self.dirty = False
        self._file = file
        self._sync = sync
        self._searched = limits.searched
        # Whether all that was written and cut off is on disk.
        self._synced = False
        # Where the header of an unfinished transaction is on disk, or will be before the batch
        # before it is finished.
        self._guarded: int | None = None
        # What was begun last. It ends after all that was begun before.
        self._beside: Beside | None = None

    def wait(self) -> None:
        """Return when nothing goes on beside.

        :raises NotWritten: the disk does not take it, and nobody knows what it has.
        :raises OSError: it was not written, or not as a whole.
        """
        if self._beside is not None:
            self._beside.wait()
            self._beside = None

    def cut_off(self) -> None:
        """Cut off what is in the file beyond its end, whatever has become of it."""
        with contextlib.suppress(Exception):
            self.wait()
        self._beside = self._guarded = None
        if self.dirty:
            self._file.truncate()
            self.dirty = self._synced = False

    def trim(self) -> None:
        """Cut off what was left behind the last batch, if anything."""
        self.wait()
        self._guarded = None
        if self.dirty:
            self._synced = False
            self._file.trim()
            self.dirty = False

    def write_part(self, begin: int, tid: bytes, place: int, chunks: list[bytes]) -> None:
        """Write a part of the batch that begins at `begin` with `tid`.

        Nobody takes it for a whole one; it is on its way to the disk.
        """
        self._guard(begin, tid)
        self._write(place, *chunks)
        if self._sync and (self._beside is None or self._beside.is_over()):
            self.wait()
            self._beside = Beside(self._file.sync)

    def write_ahead(self, batch: Batch) -> None:
        """Write what there is of a batch, of which more comes."""
        self.write_part(batch.begin, batch.done[0][0], batch.place, batch.chunks)
        batch.chunks, batch.place = [], batch.end

    def append(self, batch: Batch) -> None:
        """Have a batch on disk."""
        self.wait()
        block = self._file.block_size
        within = batch.begin // block == (batch.end - 1) // block
        # A disk of sectors is not trusted to write even one of them as a whole.
        if block > SECTOR and within and batch.place == batch.begin:
            self._append_at_once(batch)
        else:
            self._append_in_steps(batch)

    def append_beside(self, batch: Batch) -> None:
        """As `append`, when `wait` has returned; the next batch may be written meanwhile."""
        self._write_whole(batch)
        self._beside = Beside(partial(self._finish, batch, self._beside))

    def _append_at_once(self, batch: Batch) -> None:
        if not self._synced:
            # The block may be on its way to the disk for what was written or cut off before, and
            # would take along what it finds of this.
            self._sync_file()
        begun = batch.chunks[0]
        finished = LENGTH_OFFSET + len(batch.finishing)
        batch.chunks[0] = begun[:LENGTH_OFFSET] + batch.finishing + begun[finished:]
        self._write(batch.begin, *batch.chunks)
        self._sync_file()
        self.dirty, self._guarded = False, None

    def _append_in_steps(self, batch: Batch) -> None:
        self._write_whole(batch)
        self._finish(batch)
        self.dirty = self._synced = self._sync

    def _write_whole(self, batch: Batch) -> None:
        """Write what is not written yet, but for what finishes it."""
        if self._sync:
            batch.chunks.append(unfinished(batch.last_tid))
        if batch.place != batch.begin or _could_mislead(batch.begin, batch.chunks, self._searched):
            self._guard(batch.begin, batch.done[0][0])
        self._write(batch.place, *batch.chunks)
        self._guarded = batch.end if self._sync else None

    def _finish(self, batch: Batch, before: Beside | None = None) -> None:
        if before is not None:
            before.wait()
        if self._sync:
            self._file.sync()
        self._file.write(batch.begin + LENGTH_OFFSET, batch.finishing)
        if self._sync:
            self._file.sync()

    def _guard(self, begin: int, tid: bytes) -> None:
        """See to it that an unfinished transaction begins, on disk, where a batch is to begin."""
        if self._guarded != begin:
            self._write(begin, unfinished(tid))
            self._sync_file()
            self._guarded = begin

    def _write(self, pos: int, *chunks: bytes) -> None:
        self.dirty, self._synced = True, False
        self._file.write(pos, *chunks)

    def _sync_file(self) -> None:
        if self._sync:
            self._file.sync()
            self._synced = True


def _could_mislead(begin: int, chunks: list[bytes], searched: int) -> bool:
    """Whether FileStorage might fail over a part of a batch, if its first sector were missing.

    :param begin: where in the file it begins.
    :param searched: the most bytes to search; True for a larger batch.
    """
    if sum(map(len, chunks)) > searched:
        return True
    batch = b"".join(chunks)
    first = SECTOR - begin % SECTOR
    for end in (*range(first, len(batch), SECTOR), len(batch)):
        # Of a file that ends before there could be a header, FileStorage cuts off the rest.
        if end >= TRANSACTION_HEADER.size:
            (length,) = U64.unpack_from(batch, end - U64.size)
            if TRANSACTION_HEADER.size <= length <= end:
                return True
    return False


def header(transaction: Transaction, length: int | None) -> bytes:
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
        begin = TRANSACTION_HEADER.pack(transaction.tid, _NO_LENGTH, UNFINISHED, *sizes)
    else:
        status = transaction.status.encode("ascii")
        begin = TRANSACTION_HEADER.pack(transaction.tid, length, status, *sizes)
    return b"".join((begin, user, description, extension))


def unfinished(tid: bytes) -> bytes:
    """The header of a transaction of which nothing is known."""
    return TRANSACTION_HEADER.pack(tid, _NO_LENGTH, UNFINISHED, 0, 0, 0)


def is_unfinished_batch(found: bytes, last: bytes | None) -> bool:
    """Return True if a transaction's header is one that only an unfinished batch begins with.

    Its status may be on disk already, without its length.

    :param last: the tid of the transaction before it.
    """
    tid, length, status, *_ = TRANSACTION_HEADER.unpack(found)
    known: bool = status in (UNFINISHED, *FINISHED)
    return length == _NO_LENGTH and known and (last is None or tid >= last)
