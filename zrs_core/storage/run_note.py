"""The note beside a FileStorage's file that a run of packed transactions is not complete.

See `zrs_core.visibility`. The note is a file with one line, the tid of the transaction before the
run. It counts only as long as the storage's file has that transaction and ends with a packed one
after it: the file may have been replaced, or the process killed when the run was complete and the
note still there.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from typing import Any, Final

from ..held import PACKED
from ..logs import event
from ..messages import NO_TID
from ..tids import describe_tid, parse_tid
from ..visibility import Visibility
from . import disk
from .committed import CommittedFile
from .finding import find
from .fs_access import path_of
from .fs_format import FIRST_OFFSET
from .fs_source import FileStorageSource

log = logging.getLogger("zrs_core.storage")

_SUFFIX: Final = ".incomplete"


class RunNote:
    """The note beside the file at `path`.

    :param sync: wait until the note is on disk.
    """

    def __init__(self, path: str, *, sync: bool = True) -> None:
        self.path = path + _SUFFIX
        self._sync = sync

    def read(self) -> bytes | None:
        """Return the transaction before the run; None if there is no note.

        `NO_TID` if the note is damaged.

        :raises OSError: the note cannot be read.
        """
        try:
            with open(self.path, encoding="ascii", errors="replace") as file:
                line = file.readline(100)
        except FileNotFoundError:
            return None
        try:
            return parse_tid(line.split(" ")[0].strip())
        except ValueError:
            return NO_TID

    def write(self, tid: bytes) -> None:
        with open(self.path, "w", encoding="ascii") as file:
            file.write(f"{describe_tid(tid)}\n")
            file.flush()
            if self._sync:
                disk.sync(file.fileno())
        if self._sync:
            disk.sync_path(os.path.dirname(self.path))

    def remove(self) -> None:
        # A note that stays does no harm: the run is found complete.
        with contextlib.suppress(OSError):
            os.remove(self.path)


class Run:
    """A run that is not complete: the transactions of `file` after `before`."""

    def __init__(self, file: CommittedFile, before: bytes) -> None:
        self.before = before
        self._file = file

    def changed(self) -> Iterator[bytes]:
        """Yield the objects in these transactions."""
        file, pos = self._file, find(self._file, self.before)
        while pos < file.end:
            header = file.header(pos)
            for oid, _ in file.record_places(header):
                yield oid
            pos = header.next


def incomplete_run(file: CommittedFile, note: RunNote) -> Run | None:
    """Return the run at the end of a FileStorage's file; None if there is no such run.

    :raises OSError: the note cannot be read.
    """
    before = note.read()
    if before is None or file.end <= FIRST_OFFSET:
        return None
    last = file.header(file.before(file.end))
    if last.status != PACKED or last.tid <= before:
        return None
    if before != NO_TID:
        pos = find(file, before)
        if pos == FIRST_OFFSET or file.tid_at(file.before(pos)) != before:
            return None
    return Run(file, before)


def run_note(storage: Any, durability: str) -> RunNote:
    """Return the note of a secondary's FileStorage that a run of packed transactions has begun."""
    return RunNote(path_of(storage), sync=durability != "none")


def resume_run(storage: Any, note: RunNote, visibility: Visibility) -> None:
    """Continue a run of packed transactions that was not complete when the storage was closed.

    :raises OSError: the note or the file cannot be read.
    """
    file = FileStorageSource(storage).open_file()
    try:
        run = incomplete_run(file, note)
        if run is None:
            note.remove()
        else:
            visibility.resume(run.before, run.changed())
    finally:
        file.close()


def check_complete(storage: Any) -> None:
    """Log an error if a secondary left the file within a run of packed transactions."""
    file = FileStorageSource(storage).open_file()
    try:
        run = incomplete_run(file, RunNote(path_of(storage)))
    finally:
        file.close()
    if run is None:
        return
    name = storage.getName()
    log.error(
        "%s is not complete: as a secondary it received only a part of what a pack of its primary "
        "had left after %s. Objects are missing, and changes that were made together are not "
        "together. Take over with another secondary, or let this one receive the rest first",
        name,
        describe_tid(run.before),
        extra=event("taken-over-incomplete", storage=name, tid=run.before),
    )
