"""A storage in the child of a fork that its parent has opened."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Iterator
from functools import partial
from typing import IO, Any, Final, NoReturn

from ZODB import utils
from ZODB.FileStorage import FileStorage
from ZODB.FileStorage.FileStorage import FilePool

from ..errors import UsedAfterFork
from ..logs import event

log = logging.getLogger("zrs_core.storage")

#: Seconds after a fork for which the child may read on, for what it was doing when it was forked.
GRACE: Final = 1.0

# What may be called in that time.
_READING: Final = frozenset(
    {
        "getSize",
        "lastTransaction",
        "load",
        "loadBefore",
        "loadBlob",
        "loadSerial",
        "openCommittedBlobFile",
        "sortKey",
    }
)


class Inherited:
    """Stands for a storage that was opened before this process was forked.

    It refuses every call. The calls that read a FileStorage are refused after `GRACE` seconds.
    """

    def __init__(self, storage: Any) -> None:
        self._storage = storage
        self._name = str(storage.getName())
        self._logged = False
        self._until = 0.0
        # There may be no descriptor left, or the storage may be closed.
        with contextlib.suppress(OSError, ValueError):
            if _abandon_files(storage, self._name):
                self._until = time.monotonic() + GRACE

    def getName(self) -> str:
        return self._name

    def refuse(self, *args: Any, **kwargs: Any) -> NoReturn:
        """:raises UsedAfterFork: always."""
        error = UsedAfterFork(self._name)
        if not self._logged:
            self._logged = True
            log.error("%s", error, extra=event("used-after-fork", storage=self._name))
        raise error

    def _read(self, name: str, *args: Any, **kwargs: Any) -> Any:
        if time.monotonic() >= self._until:
            self.refuse()
        return getattr(self._storage, name)(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        # Whether a storage has a method is asked for without calling it.
        if not callable(value := getattr(self._storage, name)):
            return value
        return partial(self._read, name) if name in _READING else self.refuse

    __len__ = refuse


class InheritedSource:
    """Stands for the source of such a storage."""

    def __init__(self, storage: Inherited) -> None:
        self.last_tid = self.position = storage.lastTransaction
        self._refuse = storage.refuse

    def __getattr__(self, name: str) -> NoReturn:
        self._refuse()


def _abandon_files(storage: Any, name: str) -> bool:
    """Give up the descriptors that a FileStorage shares with the parent of this process.

    They become descriptors of the null device, not closed ones. The file objects may hold buffers
    that are still to be written, and closing them would write these into the parent's file. Their
    numbers stay taken, so that nothing else can get them. The parent keeps its lock on the file: it
    belongs to the open file that both have.

    :param storage: a storage, also with blobs or other wrappers around it.
    :returns: True if the storage is a FileStorage, which can be read by other descriptors.
    """
    while not isinstance(storage, FileStorage):
        attributes = getattr(storage, "__dict__", {})
        inner = attributes.get("base") or attributes.get("_BlobStorage__storage")
        if inner is None:
            return False
        storage = inner
    pool, opened = storage._files, storage._file
    reopened = _Reopened(pool.name, name, _identity(opened.fileno()))
    lock_file = getattr(getattr(storage, "_lock_file", None), "_fp", None)
    null = os.open(os.devnull, os.O_RDWR)
    try:
        for each in (opened, storage._tfile, lock_file, *pool._files, *pool._out):
            # A file may be None or closed.
            with contextlib.suppress(AttributeError, ValueError):
                os.dup2(null, each.fileno(), inheritable=False)
    finally:
        os.close(null)
    # Threads of the parent may hold the locks.
    storage._lock, storage._commit_lock = utils.RLock(), utils.Lock()
    storage._files = reopened
    return True


def _identity(file: int | str) -> tuple[int, int]:
    status = os.stat(file)
    return status.st_dev, status.st_ino


class _Reopened(FilePool):  # type: ignore[misc]
    """Opens the file for each read: the parent moves the positions in those that it has open."""

    def __init__(self, path: str, name: str, identity: tuple[int, int]) -> None:
        super().__init__(path)
        self._storage_name = name
        self._identity = identity

    @contextlib.contextmanager
    def get(self) -> Iterator[IO[bytes]]:
        with open(self.name, "rb") as file:
            if _identity(file.fileno()) != self._identity:
                # The parent has packed it.
                raise UsedAfterFork(self._storage_name)
            yield file
