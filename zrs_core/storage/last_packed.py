"""Keeps the last transaction of a FileStorage that a pack removes."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

from ZODB.FileStorage.FileStorage import FileStorageError

from ..errors import NotWritten, WrittenToByOthers
from ..logs import event
from ..messages import Commit, Transaction
from ..tids import describe_tid
from .appending import AppendingSink
from .committed import Header
from .fs_access import is_file_storage, missing_attributes
from .fs_source import fields_of_header
from .fs_tail import last_header, last_tid_in_file
from .fs_writer import OpenDataFile

log = logging.getLogger("zrs_core.storage")


@contextlib.contextmanager
def keeping_last_tid(storage: Any) -> Iterator[None]:
    """Pack a FileStorage within this context, which may have a packer of its own; see `packer`.

    Such a pack may remove the very last transaction, if nothing in it can be reached.
    As long as the storage is open, it remembers that tid; opened again, it would be older than its
    secondaries, and with a clock that was set back even give the tids again that they have. So an
    empty transaction stays in its place: with its meta data, packed, without records.
    """
    header = last_header(storage) if is_file_storage(storage) else None
    try:
        yield
    except FileStorageError:
        # Another pack is running, which keeps its own.
        header = None
        raise
    finally:
        # Also after a failure: a pack has much to do with blobs when the file is replaced already.
        if header is not None and not missing_attributes(storage):
            _note_last(storage, header)


def _note_last(storage: Any, header: Header) -> None:
    try:
        put_back(storage, header)
    except NotWritten:
        raise
    except Exception:
        # The pack has succeeded.
        log.exception(
            "%s: the last transaction %s was packed away, which cannot be noted in the file",
            storage.getName(),
            describe_tid(header.tid),
            extra=event("last-not-kept", storage=storage.getName(), tid=header.tid),
        )


def put_back(storage: Any, header: Header) -> None:
    sink = AppendingSink(
        storage, OpenDataFile(storage), False, lambda tid, oids: None, durability="transaction"
    )
    # If somebody has committed since, it is not the last one any more; should that happen right
    # now, the sink notices.
    if sink.last_tid() != header.tid or last_tid_in_file(storage) >= header.tid:
        return
    with contextlib.ExitStack() as stack:
        stack.callback(sink.abort)
        stack.enter_context(contextlib.suppress(WrittenToByOthers))
        sink.apply(Transaction(*fields_of_header(header._replace(status="p"))))
        sink.apply(Commit())
        sink.flush()
