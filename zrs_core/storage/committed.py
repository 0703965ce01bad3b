"""Reads the transactions of a FileStorage's file, and of it only what is committed.

What lies beyond the committed end may be half-written at any moment, so it is not even read ahead:
it would be stale when its turn comes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Final, NamedTuple

from ..errors import ReplicationError
from ..messages import NO_TID
from .fs_format import (
    FINISHED,
    FIRST_OFFSET,
    RECORD_HEADER,
    STATUS_OFFSET,
    TRANSACTION_HEADER,
    U64,
    UNFINISHED,
)

_WINDOW_SIZE: Final = 256 * 1024

# Bytes from which on a piece is read by itself: moving the window for it would read most of what is
# in it twice.
_OWN_READ: Final = 16 * 1024

# Bytes of zeros at the end of what a power loss has left, at most.
_TORN_SIZE: Final = 8192


def begins_with_transaction(path: str) -> bool:
    """Whether a transaction follows the magic of a file, finished or not, or nothing at all.

    :raises OSError: the file cannot be read.
    """
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        file.seek(FIRST_OFFSET)
        begin = file.read(TRANSACTION_HEADER.size)
        if not begin.strip(b"\0"):
            return True
        # What a power loss has left of one: no tid begins otherwise before the year 2400.
        partial = begin[:1] < b"\x10"
        if len(begin) < TRANSACTION_HEADER.size:
            return partial
        _, length, status, *sizes = TRANSACTION_HEADER.unpack(begin)
        if status == UNFINISHED:
            return True
        if status == b"\0" and partial:
            return not file.read(_TORN_SIZE).strip(b"\0") and file.read(1) == b""
        end = FIRST_OFFSET + length
        if status not in FINISHED or length < TRANSACTION_HEADER.size + sum(sizes) or end > size:
            return False
        file.seek(end)
        return file.read(U64.size) == U64.pack(length)


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_ino, status.st_dev


class DamagedFile(ReplicationError):
    """A FileStorage's file does not hold what its format asks for."""


class Header(NamedTuple):
    """A transaction's header: where it begins, where its records begin and end, who and what."""

    pos: int
    tid: bytes
    status: str
    records: int
    end: int
    user: bytes
    description: bytes
    extension: bytes

    @property
    def next(self) -> int:
        """Where the next transaction begins."""
        return self.end + U64.size


class Record(NamedTuple):
    """A data record: `data` is empty for none; `data_txn` names the transaction it came from."""

    oid: bytes
    tid: bytes
    data: bytes
    data_txn: bytes | None


# Past the one that NamedTuple writes, which takes twice the time.
_new_record = tuple.__new__


class CommittedFile:
    """One open FileStorage file, up to `end`, where what is committed ends. One thread at a time.

    :raises OSError: the file cannot be opened.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.end = FIRST_OFFSET
        self._fd = os.open(path, os.O_RDONLY)
        self._identity = _identity(self.stat())
        #: What was read ahead: bytes from `window_pos` on.
        self.window = b""
        self.window_pos = 0

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def fileno(self) -> int:
        return self._fd

    def stat(self) -> os.stat_result:
        return os.fstat(self._fd)

    def was_replaced(self) -> bool:
        """Whether another file has taken this one's name, as a pack does."""
        try:
            return _identity(os.stat(self.path)) != self._identity
        except FileNotFoundError:
            return True

    def advance(self, end: int) -> bool:
        """Set `end` if a transaction ends there, or none begins before it; whether it was set.

        What is short enough and new is read ahead by that.
        """
        if end > FIRST_OFFSET and end != self.end:
            new = end - self.end
            if TRANSACTION_HEADER.size + U64.size <= new <= _WINDOW_SIZE:
                self.window = os.pread(self._fd, new, self.end)
                self.window_pos = self.end
            if not self.is_end(end):
                self.forget()
                return False
        self.end = end
        return True

    def is_end(self, end: int) -> bool:
        """Whether a transaction ends at `end`."""
        if end < FIRST_OFFSET + U64.size:
            return False
        trailing = self._there(end - U64.size, U64.size)
        if len(trailing) < U64.size:
            return False
        (length,) = U64.unpack(trailing)
        begin = end - U64.size - length
        if length < TRANSACTION_HEADER.size or begin < FIRST_OFFSET:
            return False
        _, again, status, *sizes = TRANSACTION_HEADER.unpack(
            self._there(begin, TRANSACTION_HEADER.size)
        )
        if again != length or status not in FINISHED:
            return False
        whole: bool = TRANSACTION_HEADER.size + sum(sizes) <= length
        return whole

    def _there(self, pos: int, size: int) -> bytes:
        """`size` bytes from `pos`, or as many as there are."""
        begin = pos - self.window_pos
        if begin >= 0 and begin + size <= len(self.window):
            return self.window[begin : begin + size]
        return os.pread(self._fd, size, pos)

    def read_ahead(self, pos: int) -> None:
        """Fill the window from `pos` on, a transaction's begin."""
        self.window = self.peek(pos, min(_WINDOW_SIZE, self.end - pos))
        self.window_pos = pos

    # -- bytes

    def read(self, pos: int, size: int) -> bytes:
        """`size` bytes from `pos`.

        :raises DamagedFile: they are not all within what is committed.
        """
        begin = pos - self.window_pos
        if begin >= 0 and begin + size <= len(self.window):
            return self.window[begin : begin + size]
        if size >= _OWN_READ or pos + size > self.end:
            return self.peek(pos, size)
        self.read_ahead(pos)
        return self.window[:size]

    def peek(self, pos: int, size: int) -> bytes:
        """As `read`, without reading ahead: for jumping about in the file."""
        if pos + size > self.end:
            raise self._damaged(f"{size} bytes at {pos} lie beyond the end {self.end}")
        return self._pread(pos, size)

    def forget(self) -> None:
        """Give up what was read ahead."""
        self.window = b""

    def _pread(self, pos: int, size: int) -> bytes:
        pieces = []
        while size:
            piece = os.pread(self._fd, size, pos)
            if not piece:
                raise self._damaged(f"it ends at {pos}, {size} bytes before its committed end")
            pieces.append(piece)
            pos += len(piece)
            size -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _damaged(self, what: str) -> DamagedFile:
        return DamagedFile(f"{self.path} is damaged: {what}")

    # -- transactions

    def header(self, pos: int) -> Header:
        """The header of the transaction that begins at `pos`."""
        tid, length, status, *sizes = TRANSACTION_HEADER.unpack(
            self.read(pos, TRANSACTION_HEADER.size)
        )
        texts = pos + TRANSACTION_HEADER.size
        records = texts + sum(sizes)
        end = pos + length
        if status not in FINISHED or records > end or end + U64.size > self.end:
            raise self._damaged(f"there is no transaction at {pos}")
        if self._number_at(end) != length:
            raise self._damaged(f"the transaction at {pos} has two different lengths")
        text = self.read(texts, records - texts)
        user, description, _ = sizes
        return Header(
            pos,
            tid,
            status.decode("ascii"),
            records,
            end,
            text[:user],
            text[user : user + description],
            text[user + description :],
        )

    def confirms_tid(self, header: Header) -> bool:
        """Return True if the first record of a transaction has its tid and its position."""
        if header.records + RECORD_HEADER.size > header.end:
            return False
        _, tid, _, pos, *_ = RECORD_HEADER.unpack(self.peek(header.records, RECORD_HEADER.size))
        confirmed: bool = (tid, pos) == (header.tid, header.pos)
        return confirmed

    def tid_at(self, pos: int) -> bytes:
        """The tid of the transaction that begins at `pos`."""
        return self.peek(pos, len(NO_TID))

    def status_at(self, pos: int) -> str:
        """The status of the transaction that begins at `pos`."""
        return self.peek(pos + STATUS_OFFSET, 1).decode("ascii", "replace")

    def before(self, pos: int) -> int:
        """Where the transaction begins that ends at `pos`."""
        (length,) = U64.unpack(self.peek(pos - U64.size, U64.size))
        begin: int = pos - U64.size - length
        if begin < FIRST_OFFSET or length < TRANSACTION_HEADER.size:
            raise self._damaged(f"no transaction ends at {pos}")
        return begin

    def last_tid(self) -> bytes:
        """The tid of the last transaction, `NO_TID` if there is none."""
        return NO_TID if self.end <= FIRST_OFFSET else self.tid_at(self.before(self.end))

    def _number_at(self, pos: int) -> int:
        # What lies far ahead must not move the window away from here.
        begin = pos - self.window_pos
        if begin < 0 or begin + U64.size > len(self.window):
            number: int = U64.unpack(self.peek(pos, U64.size))[0]
        else:
            number = U64.unpack_from(self.window, begin)[0]
        return number

    def records(self, header: Header) -> Iterator[Record]:
        """The data records of a transaction."""
        pos = header.records
        while pos < header.end:
            oid, tid, _, transaction, version, size = self._record_header(pos)
            body = pos + RECORD_HEADER.size
            pos = body + (size or U64.size)
            if transaction != header.pos or version or pos > header.end:
                raise self._damaged(f"there is no record of transaction {header.pos} at {body}")
            if size:
                yield _new_record(Record, (oid, tid, self.read(body, size), None))
            else:
                back = self._back_pointer(body)
                data_txn = self._record_header(back)[1] if back else None
                yield Record(oid, tid, self._follow(oid, back), data_txn)

    def record_places(self, header: Header) -> Iterator[tuple[bytes, int]]:
        """The objects in a transaction, and where their records begin; `record_at` reads them."""
        pos = header.records
        while pos < header.end:
            oid, _, _, transaction, version, size = self._record_header(pos)
            if transaction != header.pos or version:
                raise self._damaged(f"there is no record of transaction {header.pos} at {pos}")
            yield oid, pos
            pos += RECORD_HEADER.size + (size or U64.size)

    def data_size_at(self, pos: int) -> int:
        """Return the bytes of data in the record that begins at `pos`, 0 if it has none itself."""
        if pos + RECORD_HEADER.size > self.end:
            raise self._damaged(f"there is no record at {pos}")
        size: int = RECORD_HEADER.unpack(self._there(pos, RECORD_HEADER.size))[-1]
        return size

    def record_at(self, pos: int) -> Record:
        """The data record that begins at `pos`, its data wherever they are."""
        oid, tid, *_, size = RECORD_HEADER.unpack(self.peek(pos, RECORD_HEADER.size))
        body = pos + RECORD_HEADER.size
        if size:
            return Record(oid, tid, self.peek(body, size), None)
        (back,) = U64.unpack(self.peek(body, U64.size))
        data_txn = self._record_header(back)[1] if back else None
        return Record(oid, tid, self._follow(oid, back), data_txn)

    def _record_header(self, pos: int) -> tuple[bytes, bytes, int, int, int, int]:
        header: tuple[bytes, bytes, int, int, int, int]
        begin = pos - self.window_pos
        if begin < 0 or begin + RECORD_HEADER.size > len(self.window):
            header = RECORD_HEADER.unpack(self.read(pos, RECORD_HEADER.size))
        else:
            header = RECORD_HEADER.unpack_from(self.window, begin)
        return header

    def _back_pointer(self, pos: int) -> int:
        back: int = U64.unpack(self.read(pos, U64.size))[0]
        return back

    def _follow(self, oid: bytes, back: int) -> bytes:
        """The data at the end of a chain of back-pointers."""
        while back:
            there, *_, size = self._record_header(back)
            if there != oid:
                raise self._damaged(f"the record at {back} is not one of object 0x{oid.hex()}")
            body = back + RECORD_HEADER.size
            if size:
                return self.read(body, size)
            earlier = self._back_pointer(body)
            if earlier >= back:
                raise self._damaged(f"the record at {back} points forward")
            back = earlier
        return b""
