"""What a person names as a storage, made into one: a FileStorage, a BlobStorage, a path."""

from __future__ import annotations

import os
from typing import Any

import zc.lockfile
from ZODB.blob import BlobStorage
from ZODB.FileStorage import FileStorage
from ZODB.FileStorage.FileStorage import FileStorageError
from ZODB.FileStorage.format import CorruptedError
from ZODB.interfaces import IBlobStorage, IStorage

from ..errors import UnsuitableStorage
from .committed import FIRST, MAGIC
from .filestorage import is_file_storage


def open_storage(storage: Any, blob_dir: str | os.PathLike[str] | None) -> tuple[Any, bool]:
    """The storage that is meant, and whether it was opened here.

    :param storage: a FileStorage, a BlobStorage around one, or the path of one, which is made
        if it is not there.
    :param blob_dir: a directory for blobs, for a storage that has none yet.
    :raises UnsuitableStorage: it is none of these; nothing was written.
    """
    if blob_dir is not None and os.path.exists(blob_dir) and not os.path.isdir(blob_dir):
        raise UnsuitableStorage(f"{os.fspath(blob_dir)} is no directory, so no blob_dir either")
    if isinstance(storage, (str, os.PathLike)):
        return open_path(os.fspath(storage), blob_dir), True
    if not IStorage.providedBy(storage):
        raise UnsuitableStorage(
            f"{storage!r} is no storage: what is needed is a FileStorage, a BlobStorage around "
            "one, or a path"
        )
    if not is_file_storage(storage):
        raise UnsuitableStorage(
            f"{storage.getName()} ({type(storage).__name__}) is not a FileStorage, "
            "nor a BlobStorage around one"
        )
    if blob_dir is None:
        return storage, False
    if IBlobStorage.providedBy(storage):
        raise UnsuitableStorage(
            f"{storage.getName()} has blobs already: leave out blob_dir={os.fspath(blob_dir)!r}"
        )
    return BlobStorage(os.fspath(blob_dir), storage), False


def check_path(path: str) -> None:
    """Whether a FileStorage is at `path`, or could be made there; nothing is written.

    :raises UnsuitableStorage: neither.
    """
    if os.path.isdir(path):
        raise UnsuitableStorage(f"{path} is a directory: the path of a FileStorage is needed")
    directory = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(directory):
        raise UnsuitableStorage(f"{path} cannot be made: there is no directory {directory}")
    try:
        with open(path, "rb") as file:
            begin = file.read(FIRST)
    except FileNotFoundError:
        return
    except OSError as error:
        raise UnsuitableStorage(f"{path} cannot be read: {error.strerror}") from error
    if begin not in (b"", MAGIC):
        raise UnsuitableStorage(
            f"{path} is not a FileStorage: it begins with {begin!r}, not with {MAGIC!r}"
        )


def open_path(path: str, blob_dir: str | os.PathLike[str] | None) -> Any:
    """The FileStorage at `path`, made if it is not there.

    :raises UnsuitableStorage: it cannot be opened.
    """
    check_path(path)
    try:
        return FileStorage(path, blob_dir=None if blob_dir is None else os.fspath(blob_dir))
    except zc.lockfile.LockError as error:
        raise UnsuitableStorage(f"{path} is in use: another process has it open") from error
    except (FileStorageError, CorruptedError, OSError) as error:
        raise UnsuitableStorage(f"{path} cannot be opened: {error}") from error
