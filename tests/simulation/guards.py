"""Guards taken out of the real code: without each of them, the simulation must find a fault.

The names are those of the faults that each guard is there for.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

from zrs_core.storage import fs_last_tid
from zrs_core.storage.appending import AppendingSink
from zrs_core.storage.fs_source import FileStorageReader, FileStorageSource

from .model import NO_TID


def _believe(storage: Any, when: Callable[[bytes], bool]) -> bytes:
    """The last tid as the storage names it, where `when` says so."""
    claimed: bytes = storage.lastTransaction()
    return claimed if when(claimed) else _last_tid_in_file(storage)


_last_tid_in_file = fs_last_tid.last_tid_in_file


def _unfinished_tail() -> Any:
    """D1: what a storage names as its last transaction is believed, also where it was cut off."""
    return mock.patch.object(
        fs_last_tid,
        "last_tid_in_file",
        lambda storage: _believe(storage, lambda tid: tid > NO_TID),
    )


def _zeros_at_the_end() -> Any:
    """D2: a storage that names no transaction is believed."""
    return mock.patch.object(
        fs_last_tid,
        "last_tid_in_file",
        lambda storage: _believe(storage, lambda tid: tid == NO_TID),
    )


def _merged() -> Any:
    """D3: a primary serves a start that it does not hold."""
    return mock.patch.object(FileStorageReader, "_check_start", return_value=None)


def _empty_blob() -> Any:
    """D5: a blob without blocks makes no file."""
    begin_blob = AppendingSink._begin_blob

    def without_file(self: AppendingSink, message: Any) -> None:
        (begin_blob if message.blocks else AppendingSink._store)(self, message)

    return mock.patch.object(AppendingSink, "_begin_blob", without_file)


def _ahead_of_the_disk() -> Any:
    """D8: a primary sends what is in its file, synced or not."""
    return mock.patch.object(
        FileStorageSource, "committed_size", lambda self: os.stat(self._path).st_size
    )


GUARDS: dict[str, Callable[[], Any]] = {
    "D1": _unfinished_tail,
    "D2": _zeros_at_the_end,
    "D3": _merged,
    "D5": _empty_blob,
    "D8": _ahead_of_the_disk,
}


@contextlib.contextmanager
def without(guard: str) -> Iterator[None]:
    """In it, the real code lacks a guard."""
    with GUARDS[guard]():
        yield
