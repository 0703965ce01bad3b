"""Removes the unfinished batch that a killed secondary leaves at the end of a FileStorage's file.

FileStorage cuts off an unfinished transaction as well, but first copies it to a file `.tr0`, `.tr1`
and so on, which takes disk space and is never removed. What a secondary has not finished is of no
use: it asks for it again.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickletools
from typing import Final

import zc.lockfile

from ..logs import event
from . import disk
from .batches import is_unfinished_batch
from .committed import CommittedFile, DamagedFile
from .fs_format import FIRST_OFFSET, RECORD_HEADER, TRANSACTION_HEADER

log = logging.getLogger("zrs_core.storage")

# The opcodes of a pickled whole number.
_NUMBERS: Final = ("BININT", "BININT1", "BININT2", "INT", "LONG", "LONG1", "LONG4")

# Bytes in which a pickled position lies, with what stands before it.
_NUMBER_SIZE: Final = 64


def cut_off_unfinished_batch(path: str) -> None:
    """Cut off the unfinished batch at the end of a FileStorage's file, if there is one.

    Nothing is done while another process has the file open, or if it ends in anything else.

    :raises OSError: the file cannot be read or truncated.
    :raises NotWritten: as `disk.sync`.
    """
    if not os.path.isfile(path) or _begin_of_batch(path) is None:
        return
    try:
        lock = zc.lockfile.LockFile(path + ".lock")
    except zc.lockfile.LockError:
        return
    with contextlib.closing(lock):
        # The process that had the lock may have finished the batch.
        begin = _begin_of_batch(path)
        if begin is not None:
            _cut_off(path, begin)


def _cut_off(path: str, begin: int) -> None:
    with open(path, "r+b") as file:
        size = file.seek(0, os.SEEK_END)
        file.truncate(begin)
        disk.sync(file.fileno())
    log.info(
        "%s: removed %d bytes of an unfinished batch from its end",
        path,
        size - begin,
        extra=event("batch-removed", storage=path, count=size - begin),
    )


def _begin_of_batch(path: str) -> int | None:
    """Return where an unfinished batch begins; None if the file does not end with one."""
    with contextlib.closing(CommittedFile(path)) as file:
        file.end = file.stat().st_size
        pos = _saved_end(path, file)
        with contextlib.suppress(DamagedFile):
            while pos < file.end:
                pos = file.header(pos).next
        try:
            header = file.peek(pos, TRANSACTION_HEADER.size)
            last = file.tid_at(file.before(pos)) if pos > FIRST_OFFSET else None
        except DamagedFile:
            return None
        return pos if is_unfinished_batch(header, last) else None


def _saved_end(path: str, file: CommittedFile) -> int:
    """Return where a transaction ends, from FileStorage's index; the begin of the file if unknown.

    The index may be older than the file, or belong to another one.
    """
    try:
        end = _first_number(path + ".index")
        begin = file.before(end)
        header = file.header(begin)
        if header.next == end and _names_its_transaction(file, header.records, header.end, begin):
            return end
    except (OSError, ValueError, DamagedFile):
        pass
    return FIRST_OFFSET


def _names_its_transaction(file: CommittedFile, records: int, end: int, begin: int) -> bool:
    """Return True if the first record of a transaction, if there is one, has its position."""
    if records == end:
        return True
    _, _, _, position, _, _ = RECORD_HEADER.unpack(file.peek(records, RECORD_HEADER.size))
    same: bool = position == begin
    return same


def _first_number(path: str) -> int:
    """Return the whole number that is pickled at the begin of a file, without unpickling it.

    :raises ValueError: something else is there.
    """
    number = None
    with open(path, "rb") as file:
        # A length in a damaged file must not take memory.
        begin = file.read(_NUMBER_SIZE)
    for opcode, argument, _ in pickletools.genops(begin):
        if opcode.name in _NUMBERS and isinstance(argument, int):
            number = argument
        elif opcode.name not in ("PROTO", "FRAME"):
            break
    if number is None or number < FIRST_OFFSET:
        raise ValueError(f"{path} does not begin with a position")
    return number
