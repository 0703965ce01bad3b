"""Files of blobs that are being received, from the first block to their final place."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from functools import partial
from typing import IO, Final

from ZODB.blob import set_not_writable

from ..messages import StoreBlob
from . import disk

#: Prefix and suffix of temporary files of blobs. A killed process leaves such files.
TEMPORARY_PREFIX = "zrs-"
# Not `.blob`: a pack of FileStorage would take the file for a blob.
TEMPORARY_SUFFIX = ".tmp"

# A file of at least this many bytes is synced in a thread of its own.
_LARGE: Final = 1024 * 1024


class IncomingBlob:
    """A blob's blocks, collected in a temporary file beside the blobs."""

    def __init__(self, record: StoreBlob, directory: str) -> None:
        self.record = record
        self.blocks_left = record.blocks
        handle, self.path = tempfile.mkstemp(TEMPORARY_SUFFIX, TEMPORARY_PREFIX, directory)
        self._file: IO[bytes] = os.fdopen(handle, "wb")
        self._size = 0
        self._syncing: disk.Beside | None = None

    def write(self, data: bytes) -> None:
        self._file.write(data)
        self._size += len(data)
        self.blocks_left -= 1

    def finish(self, *, sync: bool = True) -> None:
        """Write all of the file; sync it if asked to, a large one in the background.

        :raises NotWritten: the disk did not take it.
        :raises OSError: it was not written as a whole.
        """
        self._file.flush()
        size = os.fstat(self._file.fileno()).st_size
        if size != self._size:
            raise OSError(errno.EIO, f"{size} of {self._size} bytes were written", self.path)
        if sync and size >= _LARGE:
            self._syncing = disk.Beside(partial(disk.sync, self._file.fileno()))
        else:
            if sync:
                disk.sync(self._file.fileno())
            self._file.close()

    def settle(self) -> None:
        """Return when a file that is finished is on disk, if it was to be.

        :raises NotWritten: the disk did not take it.
        """
        try:
            if self._syncing is not None:
                self._syncing.wait()
        finally:
            self._file.close()

    def discard(self) -> None:
        # Closing it writes what it still holds back, which nobody needs: on a full disk it fails.
        with contextlib.suppress(Exception):
            self.settle()
        # A storage that has taken the file has renamed it.
        with contextlib.suppress(FileNotFoundError):
            os.remove(self.path)


def place_blob(path: str, place: str) -> None:
    """Give the file of a blob, which is on disk, its place."""
    try:
        os.rename(path, place)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        # Somebody has mounted directories below the blob directory. A file that an earlier attempt
        # left cannot be written to.
        with contextlib.suppress(FileNotFoundError):
            os.remove(place)
        shutil.copyfile(path, place)
        disk.sync_path(place)
        os.remove(path)
    set_not_writable(place)


def remove_temporary_files(directory: str) -> None:
    """Remove what a killed process left of blobs that it was receiving."""
    for entry in os.scandir(directory):
        name = entry.name
        # Earlier versions used `.blob`.
        if name.startswith(TEMPORARY_PREFIX) and name.endswith((TEMPORARY_SUFFIX, ".blob")):
            os.remove(entry.path)
