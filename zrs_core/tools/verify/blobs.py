"""Compares the files of two blob directories, whatever the records say."""

from __future__ import annotations

import contextlib
import os
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

from ...storage.committed import DamagedFile
from ...storage.comparison import Difference, Kind
from ...storage.snapshot import BlobFiles
from .buffers import TwoBuffers
from .files import VerifiedFile

_BLOCK_SIZE = 256 * 1024

# How many pairs of files wait for each thread.
_AHEAD = 16

_POLL_INTERVAL = 0.05

#: The transaction and the object of a blob.
Key = tuple[bytes, bytes]


class Compared(NamedTuple):
    """A blob that was compared: its size in A, None if it is not there, and what differs."""

    key: Key
    size: int | None
    difference: Difference | None


class BlobTrees:
    """The blobs of two FileStorages, by their files.

    :param last: the last transaction that was compared. A later blob that one side alone has is
        left out if its transaction is there: it was committed since.
    :param wait: seconds that its transaction may take to be committed.
    """

    def __init__(
        self, ours: VerifiedFile, theirs: VerifiedFile, *, last: bytes, wait: float
    ) -> None:
        self._sides = ours, theirs
        self._trees = [BlobFiles(each.blob_dir or "") for each in self._sides]
        self._last = last
        self._wait = wait
        # Blobs whose files have other names than storages give them.
        self._odd: tuple[dict[Key, str], dict[Key, str]] = {}, {}
        keys = set()
        for tree, odd in zip(self._trees, self._odd, strict=True):
            for tid, oid, path in tree.all():
                keys.add((tid, oid))
                if path != tree.path(oid, tid):
                    odd[tid, oid] = path
        #: Those of all blobs that either side has, sorted.
        self.keys: list[Key] = sorted(keys)

    def compare(self, keys: Iterable[Key], jobs: int) -> Iterator[Compared]:
        """Compare so many, in threads; they come in the order of `keys`."""
        waiting: deque[Future[Compared]] = deque()
        with ThreadPoolExecutor(jobs, "zrs verify") as pool:
            try:
                for key in keys:
                    waiting.append(pool.submit(self._compare, key))
                    if len(waiting) > jobs * _AHEAD:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                pool.shutdown(cancel_futures=True)

    def changed_since(self, key: Key, when: float) -> bool:
        """Whether a blob's file was written, or put there, after a time by the clock."""
        times = [self._stat(side, key) for side in (0, 1)]
        return any(each is not None and each.st_ctime >= when for each in times)

    def _stat(self, side: int, key: Key) -> os.stat_result | None:
        try:
            return os.stat(self._path(side, key))
        except FileNotFoundError:
            return None

    def _path(self, side: int, key: Key) -> str:
        tid, oid = key
        return self._odd[side].get(key) or self._trees[side].path(oid, tid)

    def _compare(self, key: Key) -> Compared:
        deadline = time.monotonic() + self._wait
        while True:
            here, there = (self._stat(side, key) for side in (0, 1))
            if here is not None and there is not None:
                with contextlib.suppress(FileNotFoundError):
                    return Compared(key, here.st_size, self._difference(key))
            elif here is None and there is None:
                # It was packed away since, or given up.
                return Compared(key, None, None)
            elif key[0] <= self._last or time.monotonic() > deadline:
                size = None if here is None else here.st_size
                return Compared(key, size, self._one_sided(key, 0 if there is None else 1))
            else:
                time.sleep(_POLL_INTERVAL)

    def _difference(self, key: Key) -> Difference | None:
        tid, oid = key
        with (
            open(self._path(0, key), "rb", buffering=0) as ours,
            open(self._path(1, key), "rb", buffering=0) as theirs,
        ):
            sizes = [os.fstat(each.fileno()).st_size for each in (ours, theirs)]
            if sizes[0] != sizes[1]:
                text = f"the blob's size is {sizes[0]} in A, {sizes[1]} in B"
                return Difference(Kind.BLOB, tid, oid, text)
            buffers, pos = TwoBuffers(_BLOCK_SIZE), 0
            while size := ours.readinto(buffers.ours):
                if theirs.readinto(buffers.theirs) != size or not buffers.equal(size):
                    text = f"the blobs differ between byte {pos} and byte {pos + size}"
                    return Difference(Kind.BLOB, tid, oid, text)
                pos += size
        return None

    def _one_sided(self, key: Key, side: int) -> Difference | None:
        """A blob that only A (0) has, or B (1)."""
        tid, oid = key
        kind = (Kind.MISSING_BLOB, Kind.EXTRA_BLOB)[side]
        text = f"{'BA'[side]} has no blob"
        if not _has_record(self._sides[side], key):
            text += f", and that of {'AB'[side]} belongs to no record"
        elif tid > self._last:
            return None
        return Difference(kind, tid, oid, text)


def strays(side: VerifiedFile, name: str) -> Iterator[Difference]:
    """The files of blobs that belong to no record."""
    kind = Kind.MISSING_BLOB if name == "A" else Kind.EXTRA_BLOB
    for tid, oid, _ in sorted(BlobFiles(side.blob_dir or "").all()):
        if not _has_record(side, (tid, oid)):
            yield Difference(kind, tid, oid, f"a blob of {name} belongs to no record")


def _has_record(side: VerifiedFile, key: Key) -> bool:
    tid, oid = key
    try:
        return oid in side.records_of(tid)
    except DamagedFile:
        # What is wrong with it is told elsewhere.
        return True
