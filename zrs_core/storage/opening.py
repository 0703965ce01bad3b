"""What a person names as a storage, made into one, and the source or the sink that adapts it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from functools import partial
from typing import Any

import zc.lockfile
from ZODB.blob import LAYOUT_MARKER, BlobStorage, BlobStorageMixin
from ZODB.FileStorage import FileStorage
from ZODB.interfaces import IBlobStorage, IStorage, IStorageIteration, IStorageRestoreable
from zope.component import getGlobalSiteManager
from zope.interface import implementedBy, providedBy

from ..errors import UnsuitableStorage
from ..interfaces import IStorageSource, ITransactionSink
from ..texts import path_of
from .blob_layout import check_layout
from .fs_access import is_file_storage
from .fs_last_tid import check_last_tid
from .fs_setup import mend_iterators, open_file_storage, use_packer
from .fs_sink import file_storage_sink
from .fs_source import FileStorageSource
from .generic_sink import GenericSink
from .iteration_source import IterationSource
from .preparing import begin_blobs_anew, prepare_files
from .wrapped import as_stored, untransform_of

# What FileStorage makes beside its file.
_SUFFIXES = ("", ".index", ".lock", ".tmp")


def open_storage(
    storage: Any, blob_dir: str | os.PathLike[str] | None
) -> tuple[Any, Callable[[], None]]:
    """The storage that is meant, and how to give it up again, as if it had never been opened.

    :param storage: a storage, or the path of a FileStorage, which is made if it is not there.
    :param blob_dir: a directory for blobs, for a FileStorage that has none yet.
    :raises UnsuitableStorage: it is none of these; nothing was written.
    """
    blobs = None if blob_dir is None else _check_blob_dir(blob_dir)
    if isinstance(storage, (str, os.PathLike)):
        return open_path(path_of(os.fspath(storage)), blobs)
    if not IStorage.providedBy(storage):
        raise UnsuitableStorage(
            f"{storage!r} is no storage: what is needed is one, such as a FileStorage, or the path "
            "of a FileStorage"
        )
    if blobs is None:
        _check_layout_of(storage)
        return storage, _nothing
    if IBlobStorage.providedBy(storage):
        raise UnsuitableStorage(
            f"{storage.getName()} has blobs already: leave out blob_dir={blobs!r}"
        )
    if not isinstance(storage, FileStorage):
        raise UnsuitableStorage(
            f"{_describe(storage)} is not a FileStorage: leave out blob_dir={blobs!r}, and give it "
            "blobs by its own means"
        )
    is_new = not os.path.exists(blobs)
    try:
        begin_blobs_anew(blobs)
        check_layout(blobs)
        with_blobs = BlobStorage(blobs, storage)
    except UnsuitableStorage:
        raise
    except Exception as error:
        if is_new:
            _remove_empty(blobs)
        raise UnsuitableStorage(f"{blobs} cannot be a blob_dir: {error}") from error
    return with_blobs, partial(_remove_empty, blobs) if is_new else _nothing


def _check_layout_of(storage: Any) -> None:
    """:raises UnsuitableStorage: a storage does not find the blobs in its directory."""
    stored = as_stored(storage)
    if isinstance(stored, BlobStorageMixin) and hasattr(stored.fshelper, "base_dir"):
        check_layout(os.path.abspath(stored.fshelper.base_dir))


def _describe(storage: Any) -> str:
    return f"{storage.getName()} ({type(storage).__name__})".lstrip()


def source_of(storage: Any) -> IStorageSource:
    """Return the source that reads the transactions of a storage.

    A source is an `IStorageSource`: several threads may each open a reader of their own. Call its
    `changed` after each commit and each pack, and its `close` at the end. Records are read as they
    are stored, below a wrapper that transforms them (compression, for example).

    For a FileStorage, the source reads the data file. Any other storage is read through its
    iterator. Another source can be registered as an adapter from the storage to `IStorageSource`.

    :param storage: an open storage that provides IStorageIteration.
    :raises UnsuitableStorage: the storage does not iterate, or keeps no history.
    :raises DamagedFile: the data file of a FileStorage does not end with a transaction.
    :raises OSError: the data file of a FileStorage cannot be read.
    """
    stored = as_stored(storage)
    _check_history(storage, stored)
    _register_adapters()
    source: IStorageSource | None = getGlobalSiteManager().queryAdapter(stored, IStorageSource)
    if source is None:
        raise UnsuitableStorage(
            f"{_describe(storage)} cannot be replicated: it does not provide IStorageIteration"
        )
    source.untransform = untransform_of(storage) or source.untransform
    return source


def sink_of(
    storage: Any, invalidate: Callable[[bytes, list[bytes]], None], durability: str
) -> ITransactionSink:
    """Return the sink that writes transactions to a storage.

    A sink is an `ITransactionSink`, for one thread at a time. Records are written as they come. Do
    not commit to the storage by other means: the next transaction then fails.

    For a FileStorage, the sink appends batches to the data file. Any other storage is written to
    through IStorageRestoreable. Another sink can be registered as an adapter from the storage to
    `ITransactionSink`.

    :param storage: an open storage that provides IStorageRestoreable. It holds the records as they
        are stored: pass the storage below a wrapper that transforms them.
    :param invalidate: called with the tid and the oids of each transaction, in order, before the
        transaction becomes visible. Pass a function that invalidates caches, such as
        `DB.invalidate`.
    :param durability: `batch` to wait for the disk once for each batch, `transaction` to wait for
        each transaction, `none` to not wait. It has an effect for a FileStorage.
    :raises UnsuitableStorage: the storage does not restore, or keeps no history.
    :raises DamagedFile: the data file of a FileStorage does not end with a transaction.
    :raises NotWritten: the disk does not take what a FileStorage holds.
    :raises OSError: the data file of a FileStorage cannot be read.
    """
    _check_history(storage, storage)
    _register_adapters()
    adapters = getGlobalSiteManager().adapters
    factory = adapters.lookup((providedBy(storage),), ITransactionSink)
    if factory is None:
        raise UnsuitableStorage(
            f"{_describe(storage)} cannot be replicated into: it does not provide "
            "IStorageRestoreable"
        )
    sink: ITransactionSink = factory(storage, invalidate, durability)
    return sink


def _check_history(storage: Any, stored: Any) -> None:
    # RelStorage has this attribute, and all interfaces of one that keeps it.
    if getattr(stored, "keep_history", True) is False:
        raise UnsuitableStorage(
            f"{_describe(storage)} cannot take part in replication: it keeps no history, so its "
            "transactions lose records; set keep-history"
        )


# A wrapper may claim to be a FileStorage, and the interfaces that it provides say so too: it
# copies them all, down to the class.


def _file_storage_source(storage: Any) -> IStorageSource:
    if not is_file_storage(storage):
        return IterationSource(storage)
    check_last_tid(storage)
    use_packer(storage)
    mend_iterators(storage)
    return FileStorageSource(storage)


def _file_storage_sink(storage: Any, invalidate: Any, durability: str) -> ITransactionSink:
    if not is_file_storage(storage):
        return _generic_sink(storage, invalidate, durability)
    mend_iterators(storage)
    return file_storage_sink(storage, invalidate, durability)


def _generic_sink(storage: Any, invalidate: Any, durability: str) -> ITransactionSink:
    # When it writes to disk is the storage's own matter.
    return GenericSink(storage, invalidate)


_FILE_STORAGE: Any = implementedBy(FileStorage)  # type: ignore[no-untyped-call]


def _register_adapters() -> None:
    """Register those of ours whose place nobody has taken. Asked for each time: it may be emptied.

    FileStorage's are more specific, since it is a class.
    """
    registry = getGlobalSiteManager()
    for required, provided, factory in (
        ((_FILE_STORAGE,), IStorageSource, _file_storage_source),
        ((IStorageIteration,), IStorageSource, IterationSource),
        ((_FILE_STORAGE,), ITransactionSink, _file_storage_sink),
        ((IStorageRestoreable,), ITransactionSink, _generic_sink),
    ):
        if registry.adapters.registered(required, provided) is None:
            registry.registerAdapter(factory, required, provided)


def _nothing() -> None:
    """A storage that was given stays as it is."""


def _remove_empty(blob_dir: str) -> None:
    """Remove a blob directory that ZODB has just made: what it puts into one, and no blobs."""
    with contextlib.suppress(OSError):
        os.rmdir(os.path.join(blob_dir, "tmp"))
        os.remove(os.path.join(blob_dir, LAYOUT_MARKER))
        os.rmdir(blob_dir)


def _check_blob_dir(blob_dir: object) -> str:
    """The absolute path: ZODB would look for a relative one wherever the process is by then."""
    if not isinstance(blob_dir, (str, os.PathLike)) or not os.fspath(blob_dir):
        raise UnsuitableStorage(f"blob_dir must be the path of a directory, not {blob_dir!r}")
    path: str = path_of(os.fspath(blob_dir))
    absolute = os.path.abspath(path)
    if os.path.lexists(absolute) and not os.path.isdir(absolute):
        raise UnsuitableStorage(f"{path} is not a directory: it cannot be a blob_dir")
    parent = os.path.dirname(absolute)
    while not os.path.exists(parent):
        parent = os.path.dirname(parent)
    if not os.path.isdir(parent):
        raise UnsuitableStorage(f"{path} cannot be made: {parent} is no directory")
    return absolute


def open_path(path: str, blob_dir: str | None) -> tuple[Any, Callable[[], None]]:
    """The FileStorage at `path`, made if it is not there, and how to give it up again.

    :raises UnsuitableStorage: it cannot be opened.
    """
    was_made = prepare_files(path, blob_dir)
    ours = [path + suffix for suffix in _SUFFIXES if not os.path.lexists(path + suffix)]
    is_new = was_made or path in ours
    new_blob_dir = None if blob_dir is None or os.path.exists(blob_dir) else blob_dir

    def remove_ours() -> None:
        if new_blob_dir is not None:
            _remove_empty(new_blob_dir)
        # Only of a database that was not there before: the rest has its place beside it.
        if is_new:
            for each in (os.path.realpath(path), *ours):
                if os.path.lexists(each):
                    os.remove(each)

    try:
        storage = open_file_storage(path, blob_dir)
    except zc.lockfile.LockError as error:
        raise UnsuitableStorage(f"{path} is in use: another process has it open") from error
    except Exception as error:
        remove_ours()
        raise UnsuitableStorage(f"{path} cannot be opened: {error}") from error

    def give_up() -> None:
        storage.close()
        remove_ours()

    return storage, give_up
