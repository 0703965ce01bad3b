"""The last transactions in the data file of a FileStorage."""

from __future__ import annotations

from typing import Any

from ZODB.interfaces import IBlobStorageRestoreable
from ZODB.utils import p64, u64

from ..held import PACKED, HeldTransaction
from ..messages import NO_TID
from .committed import Header
from .finding import find
from .fs_format import FIRST_OFFSET
from .fs_source import FileStorageSource
from .held import held_in_file


def last_tid_in_file(storage: Any) -> bytes:
    """The tid of the last transaction that a FileStorage's file holds, `NO_TID` for none."""
    held = last_header(storage)
    return NO_TID if held is None else held.tid


def last_header(storage: Any) -> Header | None:
    file = FileStorageSource(storage).open_file()
    try:
        return None if file.end <= FIRST_OFFSET else file.header(file.before(file.end))
    finally:
        file.close()


def last_transaction(storage: Any, tid: bytes, limit: int) -> HeldTransaction:
    file = FileStorageSource(storage).open_file()
    try:
        blobs = storage if IBlobStorageRestoreable.providedBy(storage) else None
        return held_in_file(file, tid, blobs, limit)
    finally:
        file.close()


def history(storage: Any, before: bytes | None, count: int) -> list[tuple[bytes, bool]]:
    """As `ISearchableSink.history`."""
    file = FileStorageSource(storage).open_file()
    try:
        pos = file.end if before is None else find(file, p64(u64(before) - 1))
        found: list[tuple[bytes, bool]] = []
        while pos > FIRST_OFFSET and len(found) < count:
            pos = file.before(pos)
            found.append((file.tid_at(pos), file.status_at(pos) == PACKED))
        return found
    finally:
        file.close()
