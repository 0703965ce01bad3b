"""Check that the files that a storage has open are the ones at their paths.

A file that is removed or replaced while it is open can still be read and written. All that is
written to it is lost when it is closed.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from typing import Any

from ZODB.blob import LAYOUT_MARKER
from ZODB.POSException import StorageError

from ..logs import event
from .data_file import data_fault
from .fs_access import file_in_use

log = logging.getLogger("zrs_core.storage")


class FilesInPlace:
    """The data file and the blob directory of a storage, compared with what is at their paths.

    A change is logged once. Thread-safe. Storages other than FileStorage have no such files: for
    these there is never a fault.
    """

    def __init__(self, storage: Any) -> None:
        #: The fault that the last check found, None for none, and when it was found first.
        self.fault: str | None = None
        self.since = 0.0
        #: True if that fault is about the data file.
        self.data_lost = False
        self._name = str(storage.getName())
        self._lock = threading.Lock()
        self._file = file_in_use(storage)
        self._blobs = None if self._file is None else self._file.blob_dir
        self._blobs_inode = None if self._blobs is None else _inode(self._blobs)
        # File systems give the inode of a removed directory to the next one.
        self._marker: str | None = None
        if self._blobs is not None:
            marker = os.path.join(self._blobs, LAYOUT_MARKER)
            self._marker = marker if os.path.exists(marker) else None

    def check(self, *, wait: bool = False) -> str | None:
        """Return why the files are not the ones at their paths; None if they are.

        :param wait: wait for the storage's lock, which is needed to tell a pack that replaces the
            file from a fault. Otherwise the result of the last check stands while it is taken.
        """
        if self._file is None:
            return None
        data = data_fault(self._file, wait=wait)
        if data is None:
            # A pack, or a commit, is using the storage.
            return self.fault
        fault = data or self._blobs_fault()
        if fault != self.fault:
            self._changed(fault, data_lost=bool(data))
        return fault

    def require(self, *, data_only: bool = False) -> None:
        """Return if the files are in place.

        :param data_only: do not ask for the blob directory.
        :raises StorageError: they are not.
        """
        fault = self.check(wait=True)
        if fault is not None and (self.data_lost or not data_only):
            # An error of ZODB, which a ZEO server can send to its clients.
            raise StorageError(fault)

    def _changed(self, fault: str | None, *, data_lost: bool) -> None:
        with self._lock:
            if fault == self.fault:
                return
            self.data_lost = data_lost
            self.fault, self.since = fault, time.time()
        if fault is None:
            fields = event("files-back", storage=self._name)
            log.info("%s: the files at its paths are its own again", self._name, extra=fields)
        else:
            fields = event("files-lost", storage=self._name, reason=fault)
            log.error("%s: %s", self._name, fault, extra=fields)

    def _blobs_fault(self) -> str | None:
        if self._blobs is None or self._blobs_inode is None:
            return None
        # Not the device: a file system that is mounted again may have another number.
        inode = _inode(self._blobs)
        if inode is None:
            what = "was removed"
        elif inode != self._blobs_inode:
            what = "was replaced by another directory"
        elif self._marker is not None and not os.path.exists(self._marker):
            what = f"was emptied or replaced: {self._marker} is missing"
        else:
            return None
        return f"the blob directory {self._blobs} {what} while it is in use. Put it back"


def _inode(path: str) -> int | None:
    try:
        return os.stat(path).st_ino
    except OSError:
        return None
