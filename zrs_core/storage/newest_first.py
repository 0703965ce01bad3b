"""The transactions of a storage from the last one to the first, without their data."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Generator, Iterator
from typing import Any, Final, NamedTuple

from ZODB.utils import p64, u64

from ..errors import UnsuitableStorage
from ..messages import NO_TID
from .committed import CommittedFile, Header
from .fs_format import FIRST_OFFSET, RECORD_HEADER, U64
from .iteration import iterate, records_of, status_of
from .snapshot import open_snapshot
from .wrapped import as_stored, last_tid, own_instance, release

_WINDOW_SIZE: Final = 256 * 1024

#: Seconds for which the end of a file may be unfinished before the file is read from the beginning.
COMMIT_TIMEOUT: Final = 1.0
_PAUSE: Final = 0.01

#: Transactions of another storage that are in memory at once.
MAX_HELD: Final = 200

# A RelStorage lists all transactions in the stretch of time that it is asked for. Of these, the
# first and the longest one, in units of tids.
_STRETCH: Final = 1 << 27
_LONGEST_STRETCH: Final = 7 * 24 * 60 << 32


class Summary(NamedTuple):
    """A transaction without its records: how many there are, and the bytes of their own data.

    In a FileStorage, a record that shares the data of an earlier one has none of its own.
    """

    tid: bytes
    status: str
    user: bytes
    description: bytes
    records: int
    size: int


def open_latest(
    path: str, *, timeout: float = COMMIT_TIMEOUT, sleep: Callable[[float], None] = time.sleep
) -> CommittedFile:
    """Open the FileStorage file at `path`, its `end` behind the last complete transaction.

    The file may be in use. Unlike `open_snapshot`, this reads the end of the file alone, unless the
    end is unfinished and stays so.

    :param timeout: seconds to wait for the end of a transaction that is being committed.
    :param sleep: called with the seconds to wait between two looks.
    :raises UnsuitableStorage: there is no FileStorage.
    :raises DamagedFile: the file is damaged.
    """
    deadline = time.monotonic() + timeout
    while True:
        try:
            file = CommittedFile(path)
        except OSError as error:
            raise UnsuitableStorage(f"{path} cannot be read: {error.strerror}") from error
        try:
            file.end = max(FIRST_OFFSET, file.stat().st_size)
            if file.end == FIRST_OFFSET or _ends_with_transaction(file):
                return file
        except BaseException:
            file.close()
            raise
        file.close()
        if time.monotonic() > deadline:
            return open_snapshot(path)
        sleep(_PAUSE)


def _ends_with_transaction(file: CommittedFile) -> bool:
    if not file.is_end(file.end):
        return False
    begin = file.before(file.end)
    header = file.header(begin)
    if header.records == header.end:
        return True
    # What a record holds may look like the end of a transaction, but belongs to another position.
    transaction: int = RECORD_HEADER.unpack(file.peek(header.records, RECORD_HEADER.size))[3]
    return transaction == begin


def newest_first_in_file(file: CommittedFile) -> Iterator[Summary]:
    """Return the transactions of a file up to its `end`, by their lengths at their ends.

    :raises DamagedFile: the file is damaged.
    """
    pos = file.end
    while pos > FIRST_OFFSET:
        begin = file.before(pos)
        if not file.window_pos <= begin < file.window_pos + len(file.window):
            # What comes next lies before it.
            file.read_ahead(max(FIRST_OFFSET, pos - _WINDOW_SIZE))
        header = file.header(begin)
        records, size = (0, 0) if header.status == "u" else _sizes(file, header)
        yield Summary(header.tid, header.status, header.user, header.description, records, size)
        pos = begin


def _sizes(file: CommittedFile, header: Header) -> tuple[int, int]:
    pos, records, size = header.records, 0, 0
    while pos < header.end:
        length = file.data_size_at(pos)
        records += 1
        size += length
        pos += RECORD_HEADER.size + (length or U64.size)
    return records, size


def newest_first(storage: Any, *, max_held: int = MAX_HELD) -> Generator[Summary]:
    """Return the transactions of an open storage that provides IStorageIteration.

    Iterators of storages go forward. So this asks for one stretch of time before the other.

    :param max_held: transactions to hold in memory at once.
    """
    storage = as_stored(storage)
    instance = own_instance(storage)
    try:
        end, stretch = u64(last_tid(instance) or NO_TID), _STRETCH
        with contextlib.closing(iterate(instance, p64(1), p64(end))) as found:
            earliest = next(found, None)
        first = end + 1 if earliest is None else u64(earliest.tid)
        while end >= first:
            begin = max(end - stretch + 1, first)
            # The records must be read before the iterator is closed.
            with contextlib.closing(iterate(instance, p64(begin), p64(end))) as found:
                summaries = [_summary(each) for each in itertools.islice(found, max_held + 1)]
            if len(summaries) > max_held and stretch > 1:
                stretch = max(stretch // 4, 1)
                continue
            yield from reversed(summaries)
            if len(summaries) < max_held // 4:
                stretch = min(stretch * 2, _LONGEST_STRETCH)
            end = begin - 1
    finally:
        release(storage, instance)


def _summary(found: Any) -> Summary:
    records = size = 0
    for record in records_of(found):
        records += 1
        size += len(record.data)
    return Summary(found.tid, status_of(found), found.user, found.description, records, size)
