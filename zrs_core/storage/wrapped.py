"""Storages within storages: wrappers that transform records, and instances for one thread."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from ZODB.interfaces import IMVCCStorage, IStorage, IStorageWrapper

from .proxy import StorageProxy


def layers(storage: Any) -> Iterator[Any]:
    """A storage and those under it, down to the one that keeps records as it gets them.

    A wrapper that transforms records (compresses them, say) gives them out as they were, and
    transforms anew what is restored into it; the result may differ. So one looks under it: those
    of ZODB and of zc name the storage there `base`.
    """
    while True:
        yield storage
        if isinstance(storage, StorageProxy):
            storage = storage._storage
            continue
        # Its own attribute: one that it does not have may be that of the storage under it.
        base = getattr(storage, "__dict__", {}).get("base")
        if not (IStorageWrapper.providedBy(storage) and IStorage.providedBy(base)):
            return
        storage = base


def as_stored(storage: Any) -> Any:
    """The storage that gives out records, and takes them, as they are stored."""
    *_, innermost = layers(storage)
    return innermost


def untransform_of(storage: Any) -> Callable[[bytes], bytes] | None:
    """What makes a stored record what ZODB has written; None if no wrapper is known."""
    for layer in layers(storage):
        if not isinstance(layer, StorageProxy) and IStorageWrapper.providedBy(layer):
            untransform: Callable[[bytes], bytes] = layer.untransform_record_data
            return untransform
    return None


def own_instance(storage: Any) -> Any:
    """What one thread may use while others use `storage`; to be given to `release`.

    Most storages may be shared. Of one that has snapshots (`IMVCCStorage`), each user has an
    instance.
    """
    return storage.new_instance() if IMVCCStorage.providedBy(storage) else storage


def release(storage: Any, instance: Any) -> None:
    """Give up an `own_instance` of `storage`."""
    if instance is not storage:
        instance.release()


def last_tid(instance: Any) -> bytes:
    """The last transaction that is committed, whoever has committed it."""
    if not IMVCCStorage.providedBy(instance):
        tid: bytes = instance.lastTransaction()
        return tid
    instance.sync()
    instance.poll_invalidations()
    tid = instance.lastTransaction()
    # A snapshot that stays open hinders the database in cleaning up.
    instance.sync()
    return tid
