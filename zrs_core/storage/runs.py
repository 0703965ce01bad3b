"""Whole runs of small transactions of a FileStorage's file, several times as fast as one by one.

`read_run` takes transactions that are ordinary, whole in the bytes that it is given, and as the
layout asks for (`fs_format`). It leaves the rest where it is, for the reader that knows all of
them and says what is wrong with one.
"""

from __future__ import annotations

from typing import NamedTuple

from ..messages import (
    MAX_TID,
    NO_TID,
    STATUSES,
    Commit,
    PrimaryMessage,
    Store,
    unchecked_store,
    unchecked_transaction,
)
from .blobs import is_ordinary_record
from .fs_format import RECORD_HEADER, TRANSACTION_HEADER, U64

# A primary's commit has no fields of its own: its checksum is the connection's.
_COMMIT = Commit()


class Run(NamedTuple):
    """What was read: the messages, the bytes of their records, where the next transaction begins.

    `incomplete` tells that this one goes on beyond the bytes that were given.
    """

    messages: list[PrimaryMessage]
    size: int
    next: int
    tid: bytes | None
    incomplete: bool


def read_run(window: bytes, window_pos: int, begin: int, most: int) -> Run:
    """Read the transactions that begin at `begin` in the file.

    :param window: bytes of the file from `window_pos` on, all of them committed.
    :param most: bytes of records after which to stop.
    """
    messages: list[PrimaryMessage] = []
    available = len(window)
    pos = begin - window_pos
    size = 0
    last_tid = None
    incomplete = False
    while size < most:
        if not 0 <= pos <= available - TRANSACTION_HEADER.size:
            incomplete = True
            break
        tid, length, status, user, description, extension = TRANSACTION_HEADER.unpack_from(
            window, pos
        )
        end = pos + length
        if end + U64.size > available:
            incomplete = True
            break
        texts = pos + TRANSACTION_HEADER.size
        records = texts + user + description
        if extension or records > end or window[end : end + U64.size] != U64.pack(length):
            break
        stores = _read_stores(window, window_pos, tid, pos, records, end)
        rises = (last_tid or NO_TID) < tid <= MAX_TID
        if stores is None or status not in _ORDINARY or not rises:
            break
        messages.append(
            unchecked_transaction(
                tid,
                chr(status[0]),
                window[texts : texts + user],
                window[texts + user : records],
            )
        )
        messages += stores
        messages.append(_COMMIT)
        size += end - pos
        pos = end + U64.size
        last_tid = tid
    return Run(messages, size, pos + window_pos, last_tid, incomplete)


# The records of an undone transaction are void.
_ORDINARY = [status.encode("ascii") for status in STATUSES if status != "u"]


def _read_stores(
    window: bytes, window_pos: int, tid: bytes, begin: int, pos: int, end: int
) -> list[Store] | None:
    """The records from `pos` to `end` of the transaction at `begin`; None if one is special."""
    stores = []
    place = begin + window_pos
    while pos < end:
        if pos + RECORD_HEADER.size > end:
            return None
        oid, serial, _, transaction, version, size = RECORD_HEADER.unpack_from(window, pos)
        body = pos + RECORD_HEADER.size
        pos = body + size
        if not size or pos > end or version or transaction != place or serial != tid:
            return None
        data = window[body:pos]
        if not is_ordinary_record(data):
            return None
        stores.append(unchecked_store(oid, tid, data, None))
    return stores
