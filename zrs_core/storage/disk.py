"""What makes sure that something is on disk, and the error of one that does not."""

from __future__ import annotations

import _thread
import errno
import os
from collections.abc import Callable
from typing import Final

from ..errors import NotWritten

#: Bytes that any disk writes as a whole.
SECTOR: Final = 512


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


def block_size(fd: int) -> int:
    """Bytes of a file, at a multiple of as many, that are on disk all or not at all.

    That is a physical block of the disk, "the smallest unit a physical storage device can write
    atomically" (Linux, Documentation/ABI/stable/sysfs-block), where blocks of the file system are
    as large and lie at its borders; and `SECTOR` where the system does not tell.
    """
    device = os.fstat(fd).st_dev
    path = f"/sys/dev/block/{os.major(device)}:{os.minor(device)}"
    try:
        if _number(f"{path}/alignment_offset"):
            return SECTOR
        try:
            physical = _number(f"{path}/queue/physical_block_size")
        except FileNotFoundError:
            # A partition: its disk tells.
            physical = _number(f"{path}/../queue/physical_block_size")
        return max(SECTOR, min(physical, os.fstatvfs(fd).f_frsize))
    except (OSError, ValueError):
        return SECTOR


def _number(path: str) -> int:
    with open(path, encoding="ascii") as file:
        return int(file.read())


class Beside:
    """A call that takes its time, beside what else there is to do."""

    def __init__(self, function: Callable[[], object]) -> None:
        self._function = function
        self._failure: BaseException | None = None
        self._running = _thread.allocate_lock()
        self._running.acquire()
        try:
            # One of `threading` would have this one wait until it runs, which on a busy machine
            # takes as long as a small sync.
            _thread.start_new_thread(self._run, ())
        except RuntimeError:
            # There are no threads left.
            self._run()

    def _run(self) -> None:
        try:
            self._function()
        except BaseException as error:  # noqa: BLE001
            self._failure = error
        finally:
            self._running.release()

    def is_over(self) -> bool:
        """Whether `wait` returns at once."""
        return not self._running.locked()

    def wait(self) -> None:
        """Return when it is over; raise what it raised."""
        with self._running:
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
