"""Opening a FileStorage, and changes to an open one: packing, iterating, new oids."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from functools import partial
from typing import Any

from ZODB.FileStorage import FileStorage
from ZODB.utils import p64, u64

from .data_file import require_data_file
from .fs_access import FileInUse, file_storage_of, missing_attributes
from .fs_last_tid import establish_last_tid
from .packer import packer
from .undone_transactions import skip_undone


def open_file_storage(path: str, blob_dir: str | None) -> FileStorage:
    """The FileStorage at `path`, made if it is not there; it holds what it names as its last tid.

    Of what a process was committing that was killed, FileStorage itself names the tid. Later on, it
    may name one that it does not hold, since a pack has removed that.

    :raises DamagedFile: no transaction ends where it ends.
    :raises Exception: as FileStorage.
    """
    storage = FileStorage(path, blob_dir=blob_dir)
    try:
        establish_last_tid(storage)
    except BaseException:
        storage.close()
        raise
    mend_iterators(storage)
    return storage


def use_packer(storage: Any, limit: Callable[[], bytes] | None = None) -> None:
    """Let a FileStorage pack as `packer` does, unless it was given a packer of its own.

    A packer of its own observes `limit` too.
    """
    file_storage = file_storage_of(storage)
    own = file_storage.packer
    if own is FileStorage.packer:
        check = partial(require_data_file, FileInUse(file_storage))
        file_storage.packer = packer(check, limit)
    elif limit is not None:
        file_storage.packer = lambda storage, references, stop, gc: own(
            storage, references, min(stop, limit()), gc
        )


def mend_iterators(storage: Any) -> None:
    """Let a FileStorage iterate over a file with undone transactions."""
    if not missing_attributes(storage):
        skip_undone(file_storage_of(storage))


def keep_garbage(storage: Any) -> None:
    """Let packs of a secondary's FileStorage keep objects that cannot be reached.

    The primary may still hold such an object and make it reachable again, by an undo or by a new
    reference. It then sends the record with the reference, but not the object. `pack` still
    collects garbage if it is called with `gc=True`.
    """
    file_storage_of(storage)._pack_gc = False


# A ZEO client fetches 100 oids in advance: one step is enough for 100 clients.
_OID_STEP = 10_000
_MAX_OID_STEPS = 1000


def skip_oids(storage: Any) -> None:
    """Let a FileStorage that holds objects give out oids well above the highest one from now on.

    ZEO clients hold oids that they have fetched in advance from the server of the former primary.
    They use them after a change of servers, so the new server must not give out the same ones. Both
    may begin above the same oid, if no object was created since, so the distance is random. Other
    storages are left alone: RelStorage keeps its last oid in the database.
    """
    file_storage = file_storage_of(storage)
    if isinstance(file_storage, FileStorage) and len(file_storage):
        steps = 1 + secrets.randbelow(_MAX_OID_STEPS)
        oid = u64(file_storage._oid) + steps * _OID_STEP
        if oid < 1 << 64:
            file_storage.set_max_oid(p64(oid))
