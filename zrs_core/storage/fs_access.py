"""Access to a FileStorage: its private attributes, its data file, storages around it."""

from __future__ import annotations

import os
from typing import Any

from ZODB.blob import BlobStorage
from ZODB.FileStorage import FileStorage
from ZODB.interfaces import IBlobStorageRestoreable

from .wrapped import as_stored


def is_file_storage(storage: Any) -> bool:
    """Return True for a FileStorage, or a BlobStorage around one.

    Others that pass for one, since they have its attributes, will not do: records are read from
    its file, where a wrapper may have put something else than it gives out.
    """
    return isinstance(file_storage_of(storage), FileStorage)


def path_of(storage: Any) -> str:
    path: str | None = getattr(file_storage_of(storage), "_file_name", None)
    # Its name is the path as it was given: right as long as the directory has not changed.
    return path or os.path.abspath(storage.getName())


def file_storage_of(storage: Any) -> Any:
    """The FileStorage itself, also within one that replicates it, and when blobs are around it."""
    storage = as_stored(storage)
    if isinstance(storage, BlobStorage):
        return getattr(storage, "_BlobStorage__storage", storage)
    return storage


class FileInUse:
    """The data file that a FileStorage has open.

    :param storage: the storage, also with blobs around it.
    """

    def __init__(self, storage: Any) -> None:
        self._storage = file_storage_of(storage)
        self.path = path_of(storage)
        #: The directory of blobs, None without blobs.
        self.blob_dir: str | None = None
        if IBlobStorageRestoreable.providedBy(storage):
            self.blob_dir = os.path.abspath(storage.fshelper.base_dir)

    @property
    def lock(self) -> Any:
        """The lock under which a pack replaces the file."""
        return self._storage._lock

    @property
    def committed_size(self) -> int:
        size: int = self._storage.getSize()
        return size

    def stat(self) -> os.stat_result:
        """Return the status of the open file.

        :raises ValueError: the storage is closed.
        """
        return os.fstat(self._storage._file.fileno())


def file_in_use(storage: Any) -> FileInUse | None:
    """Return the open data file of a FileStorage; None for other storages."""
    stored = as_stored(storage)
    return FileInUse(stored) if is_file_storage(stored) and not missing_attributes(stored) else None


# Attributes of a FileStorage that `OpenDataFile` and `establish_last_tid` use (ZODB 5.8 to 6.4).
PRIVATE = ("_commit_lock", "_file", "_files", "_index", "_lock", "_ltid", "_pos", "_ts")


def missing_attributes(storage: Any) -> list[str]:
    return [name for name in PRIVATE if not hasattr(file_storage_of(storage), name)]
