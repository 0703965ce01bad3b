"""What makes sure that something is on disk, and the error of one that does not."""

from __future__ import annotations

import errno
import os
import threading

from ..errors import NotWritten


def sync(fd: int) -> None:
    """Return when the bytes of a file, and its size, are on disk.

    :raises NotWritten: they may not be, ever. The system forgets what it could not write, so that
        the next call would succeed all the same.
    """
    try:
        # Without the time of the last change, where the system can.
        os.fdatasync(fd) if hasattr(os, "fdatasync") else os.fsync(fd)
    except OSError as error:
        raise NotWritten(error) from error


class SyncBeside(threading.Thread):
    """`sync` of a file, which takes its time, beside what else there is to do."""

    def __init__(self, fd: int) -> None:
        super().__init__(name="zrs-sync", daemon=True)
        self._fd = fd
        self._failure: NotWritten | None = None
        self.start()

    def run(self) -> None:
        try:
            sync(self._fd)
        except NotWritten as error:
            self._failure = error

    def wait(self) -> None:
        """Return when the file is on disk; until then it must stay open.

        :raises NotWritten: as `sync`.
        """
        self.join()
        if self._failure is not None:
            raise self._failure


def sync_path(path: str) -> None:
    """Return when a file, or the entries of a directory, are on disk.

    :raises NotWritten: as `sync`.
    """
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    except OSError as error:
        # What some file systems say to a directory, and none to a file.
        if error.errno != errno.EINVAL:
            raise NotWritten(error) from error
    finally:
        os.close(fd)


class Directories:
    """The directories that blobs are in, and the way to each of them, on disk.

    :param base: below it they are; it exists.
    """

    def __init__(self, base: str) -> None:
        self._base = os.path.abspath(base)
        # Those above the directory of an object that are on disk.
        self._known: set[str] = set()

    def make(self, directory: str) -> None:
        """Make a directory below the base, and those above it, where they are not there."""
        missing = os.path.abspath(directory)
        while missing != self._base and not os.path.exists(missing):
            # A pack removes directories that have become empty.
            self._known.discard(missing)
            missing = os.path.dirname(missing)
        os.makedirs(directory, exist_ok=True)

    def sync(self, directory: str) -> None:
        """Return when the files in a directory below the base, and the way to it, are on disk.

        :raises NotWritten: as `sync`.
        """
        directory = os.path.abspath(directory)
        sync_path(directory)
        child = directory
        while child != self._base and child not in self._known:
            parent = os.path.dirname(child)
            sync_path(parent)
            if child != directory:
                self._known.add(child)
            child = parent
