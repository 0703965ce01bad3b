"""Finds a transaction in a FileStorage's file without reading what lies before it.

The file has no index by tid, and nothing marks where a transaction begins. But tids rise with the
position, and a transaction proves itself: it has its length at both ends, and each of its records
says at which position of the file the transaction begins. So the file can be bisected: go to the
middle, look for the next place where a transaction proves to begin, compare its tid.

A record may itself hold the bytes of a FileStorage's file, whole transactions among them; but they
name the positions that they had there.
"""

from __future__ import annotations

from typing import Final

from ..messages import NO_TID
from .committed import CommittedFile
from .fs_format import FINISHED, FIRST_OFFSET, RECORD_HEADER, STATUS_OFFSET, TRANSACTION_HEADER, U64

#: Bytes within which it is faster to go from one transaction to the next.
NEAR: Final = 64 * 1024

#: Bytes that are searched at once.
STRETCH: Final = 64 * 1024


def find(file: CommittedFile, tid: bytes, *, near: int = NEAR, stretch: int = STRETCH) -> int:
    """Return where the first transaction after `tid` begins; the committed end without one.

    :param near: bytes within which to read every transaction instead of bisecting.
    :param stretch: bytes to search at once.
    :raises DamagedFile: what it comes by is no FileStorage's file.
    """
    if file.end <= FIRST_OFFSET or tid < file.tid_at(FIRST_OFFSET):
        return FIRST_OFFSET
    last = file.last_tid()
    if tid >= last:
        return file.end
    # A transaction that is not after `tid` begins at `low`; any that proves to begin from `high` on
    # is after it.
    low, high = FIRST_OFFSET, file.end
    while high - low > near:
        middle = (low + high) // 2
        found = next_beginning(file, middle, high, file.tid_at(low), last, stretch)
        if found is None:
            high = middle
        elif file.tid_at(found) <= tid:
            low = found
        else:
            high = middle
            last = file.tid_at(found)
    return _go_on(file, low, tid)


def find_in_order(file: CommittedFile, tid: bytes) -> int | None:
    """Return where the transaction after the last one with `tid` begins; None if there is no such.

    It reads the header of each transaction, so that tids need not rise with the position.

    :raises DamagedFile: the file is damaged.
    """
    found, pos = None, FIRST_OFFSET
    while pos < file.end:
        header = file.header(pos)
        pos = header.next
        if header.tid == tid:
            found = pos
    return found


class RisingTids:
    """Finds out whether tids rise throughout a file, and reads no part of it twice."""

    def __init__(self) -> None:
        # The file, up to where its tids rise, and the last tid before that.
        self._known: tuple[int, int] | None = None
        self._pos, self._last = FIRST_OFFSET, NO_TID
        self._falls = False

    def check(self, file: CommittedFile) -> bool:
        """Return True if each tid up to the end of `file` is above the one before it.

        :raises DamagedFile: the file is damaged.
        """
        status = file.stat()
        identity = status.st_dev, status.st_ino
        if identity != self._known:
            self._known, self._pos, self._last, self._falls = identity, FIRST_OFFSET, NO_TID, False
        pos, last = self._pos, self._last
        while pos < file.end and not self._falls:
            header = file.header(pos)
            self._falls = header.tid <= last
            pos, last = header.next, header.tid
        self._pos, self._last = pos, last
        return not self._falls


def _go_on(file: CommittedFile, pos: int, tid: bytes) -> int:
    """Return where the first transaction after `tid` begins, reading from `pos`."""
    while file.tid_at(pos) <= tid:
        pos = file.header(pos).next
    return pos


def next_beginning(
    file: CommittedFile, begin: int, end: int, low: bytes, high: bytes, stretch: int = STRETCH
) -> int | None:
    """Return where the first transaction between `begin` and `end` proves to begin, or None.

    One without records does not prove it.

    :param low: a tid below its own, or equal to it; `high` likewise above.
    :param stretch: bytes to search at once.
    """
    # The bytes that all tids from one to the other begin with.
    differing = (int.from_bytes(low, "big") ^ int.from_bytes(high, "big")).bit_length()
    common = low[: (64 - differing) // 8]
    overlap = len(common) - 1
    for pos in range(begin, end, stretch):
        size = min(stretch + max(overlap, 0), end - pos)
        data = file.peek(pos, size)
        place = data.find(common)
        while 0 <= place < min(size, stretch):
            # Most of what is found is told apart by this byte.
            status = data[place + STATUS_OFFSET : place + STATUS_OFFSET + 1]
            if (not status or status in FINISHED) and _begins(file, pos + place, low, high):
                return pos + place
            place = data.find(common, place + 1)
    return None


def _begins(file: CommittedFile, pos: int, low: bytes, high: bytes) -> bool:
    """Return True if a transaction with records proves to begin at `pos`."""
    if pos + TRANSACTION_HEADER.size > file.end:
        return False
    tid, length, status, *texts = TRANSACTION_HEADER.unpack(file.peek(pos, TRANSACTION_HEADER.size))
    end = pos + length
    record = pos + TRANSACTION_HEADER.size + sum(texts)
    return (
        low <= tid <= high
        and status in FINISHED
        and record + RECORD_HEADER.size <= end <= file.end - U64.size
        and U64.unpack(file.peek(end, U64.size))[0] == length
        and RECORD_HEADER.unpack(file.peek(record, RECORD_HEADER.size))[3] == pos
    )
