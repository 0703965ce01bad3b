"""Correction of the last tid that a FileStorage names, if its file ends with another one."""

from __future__ import annotations

import contextlib
import logging
import time
from typing import Any

from persistent.TimeStamp import TimeStamp

from ..logs import event
from ..tids import describe_tid
from . import disk
from .fs_access import file_storage_of, is_file_storage, path_of
from .fs_tail import last_header, last_tid_in_file

log = logging.getLogger("zrs_core.storage")

# Seconds by which a clock may have been set back.
_DAY = 86_400.0


def establish_last_tid(storage: Any) -> bytes:
    """Return the tid of the last transaction in the file, and correct that of the storage.

    When a FileStorage is opened over an unfinished last transaction, which is what a process
    killed in the midst of writing leaves, it cuts that transaction off and yet names it as its
    last (`read_index` of `ZODB.FileStorage`, 3.10 to 6.4); and over zeros, which a power loss may
    leave, it names none. Replication would go on behind a transaction that is not there, or from
    the beginning.
    """
    file_storage = file_storage_of(storage)
    # Somebody may be writing to it already, the secondary that a primary is put over.
    with getattr(file_storage, "_lock", contextlib.nullcontext()):
        tid = last_tid_in_file(storage)
        claimed = storage.lastTransaction()
        if claimed != tid:
            # Without it the storage keeps its wrong last tid, and only that.
            if hasattr(file_storage, "_ltid"):
                file_storage._ltid = tid
            # The next tid of its own comes after this one. It may have taken its clock, too, from
            # what it has cut off: a time to come counts only if it is the last transaction's.
            if hasattr(file_storage, "_ts"):
                file_storage._ts = max(TimeStamp(tid), min(file_storage._ts, _time_stamp()))
    if claimed != tid:
        log.warning(
            "%s names %s as its last transaction, and holds %s as the last; going on from that",
            storage.getName(),
            describe_tid(claimed),
            describe_tid(tid),
            extra=event("other-last", storage=storage.getName(), tid=tid, named=claimed),
        )
    return tid


def _time_stamp(later: float = 0) -> TimeStamp:
    """Return the time in `later` seconds."""
    now = time.time() + later
    return TimeStamp(*time.gmtime(now)[:5], now % 60)


def establish_opened(storage: Any) -> None:
    """`establish_last_tid` of a storage that was just opened, so that nothing was packed since.

    Others than a FileStorage, with wrappers around it or without, are left alone.

    :raises DamagedFile: no transaction ends where it ends.
    """
    if is_file_storage(storage):
        establish_last_tid(storage)


def check_last_tid(storage: Any) -> None:
    """`establish_last_tid` of a FileStorage that is to be replicated from.

    What a process has written that was killed may be in the file and not on disk, and no secondary
    may be ahead of that; so it is synced first.

    If its last transaction was marked by a pack, the pack may have removed later ones, which it
    rightly still names. They are not later than the pack.
    """
    disk.sync_path(path_of(storage))
    held = last_header(storage)
    named = storage.lastTransaction()
    if held is None or held.status != "p" or named < held.tid or named > _time_stamp(_DAY).raw():
        establish_last_tid(storage)
