"""The fast way past what two FileStorage files have alike: their bytes, without looking at records.

All positions in a FileStorage's file are absolute. Where two files agree in every byte up to a
place, they agree in all transactions up to there, in what their back-pointers lead to as well.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

from ...storage.committed import CommittedFile
from ...storage.fs_format import TRANSACTION_HEADER, TRANSACTION_LENGTH, U64
from .buffers import TwoBuffers

#: Bytes that one thread compares before it hands them on.
CHUNK_SIZE = 1 << 21

# So many chunks it goes without telling: what is done then keeps the threads from reading.
_STRIDE = 8

# So many chunks may wait to be gone over, beside those that the threads read.
_AHEAD = 2

_length_at = TRANSACTION_LENGTH.unpack_from
_HEAD = TRANSACTION_LENGTH.size


class Same(NamedTuple):
    """So many more transactions are the same; all up to the transaction that begins at `pos`."""

    pos: int
    transactions: int


class SameBytes:
    """Compares two files from the same position on, in threads; a context manager.

    :param jobs: the number of threads.
    """

    def __init__(self, ours: CommittedFile, theirs: CommittedFile, jobs: int) -> None:
        self._ours = ours
        self._fds = ours.fileno(), theirs.fileno()
        self._jobs = jobs
        self._buffers = [TwoBuffers(CHUNK_SIZE) for _ in range(jobs + _AHEAD)]

    def __enter__(self) -> SameBytes:
        self._pool = ThreadPoolExecutor(self._jobs, "zrs verify")
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def skip(self, begin: int, end: int) -> Iterator[Same]:
        """Go from `begin`, where a transaction begins in both files, to the first other byte.

        What is told last may lie a chunk before it, and 8 of them before transactions that are
        not as the format asks for, although they are the same.

        :param end: where the shorter of the files ends.
        """
        walk = _Walk(self._fds[0], begin)
        pos, count, told, next_stop = begin, 0, 0, begin + _STRIDE * CHUNK_SIZE
        for start, size, chunk in self._same_chunks(begin, end):
            walk.over(chunk, start, size)
            # The last one may go on behind this chunk.
            is_within = walk.pos <= start + size
            pos, count = (walk.pos, walk.count) if is_within else (walk.last, walk.count - 1)
            if count > told and pos >= next_stop:
                # Had the walk gone astray, no transaction would end there.
                if not self._ours.is_end(pos):
                    return
                yield Same(pos, count - told)
                told, next_stop = count, pos + _STRIDE * CHUNK_SIZE
        if count > told and self._ours.is_end(pos):
            yield Same(pos, count - told)

    def _same_chunks(self, begin: int, end: int) -> Iterator[tuple[int, int, memoryview]]:
        waiting: deque[tuple[int, int, TwoBuffers, Future[bool]]] = deque()
        pos = begin
        try:
            while True:
                while pos < end and self._buffers:
                    # From the second one on they begin where pages do, see `TwoBuffers`.
                    size = min(CHUNK_SIZE - pos % CHUNK_SIZE, end - pos)
                    # The last one that was given back: it may still be in the processor's cache.
                    buffers = self._buffers.pop()
                    future = self._pool.submit(self._equal, pos, size, buffers)
                    waiting.append((pos, size, buffers, future))
                    pos += size
                if not waiting:
                    return
                start, size, buffers, future = waiting[0]
                if not future.result():
                    return
                yield start, size, buffers.ours
                self._give_back(waiting.popleft())
        finally:
            for each in waiting:
                each[-1].cancel()
            while waiting:
                self._give_back(waiting.popleft())

    def _give_back(self, chunk: tuple[int, int, TwoBuffers, Future[bool]]) -> None:
        _, _, buffers, future = chunk
        if not future.cancelled():
            # Nothing else may use the buffers before it is done.
            future.exception()
        self._buffers.append(buffers)

    def _equal(self, pos: int, size: int, buffers: TwoBuffers) -> bool:
        """Whether `size` bytes from `pos` are the same; they are in the buffers then."""
        for fd, buffer in zip(self._fds, (buffers.ours, buffers.theirs), strict=True):
            if not _fill(fd, pos, buffer[:size]):
                return False
        return buffers.equal(size)


def _fill(fd: int, pos: int, buffer: memoryview) -> bool:
    """Read from `pos` on until the buffer is full; False where the file ends before."""
    read = 0
    while read < len(buffer):
        count = os.preadv(fd, [buffer[read:]], pos + read)
        if not count:
            return False
        read += count
    return True


class _Walk:
    """From one transaction to the next by their lengths, which are not checked here."""

    def __init__(self, fd: int, begin: int) -> None:
        self._fd = fd
        #: Where the next one begins, and where the one before it does.
        self.pos = self.last = begin
        self.count = 0

    def over(self, buffer: memoryview, start: int, size: int) -> None:
        """Go on through the bytes from `start` on."""
        offset, last, count = self.pos - start, self.last - start, self.count
        if offset >= size:
            return
        if offset < 0:
            # Its length lies across the border of two chunks.
            last = offset
            offset += max(self._length(offset + start), TRANSACTION_HEADER.size) + U64.size
            count += 1
        full, trailer = size - _HEAD, U64.size
        while offset <= full:
            last = offset
            offset += _length_at(buffer, offset)[0] + trailer
            count += 1
        self.pos, self.last, self.count = offset + start, last + start, count

    def _length(self, pos: int) -> int:
        head = os.pread(self._fd, _HEAD, pos)
        length: int = _length_at(head)[0] if len(head) == _HEAD else 0
        return length
