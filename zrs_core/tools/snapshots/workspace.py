"""Builds a directory under another name, and gives it its own when it is whole.

Beside `NAME` lies `.NAME.zrs` meanwhile::

    lock    held by the process that is at work
    new     what is being built
    old     what bore the name until a moment ago: whole, and put back if nothing else bears it
    gone    what is being removed

Whoever is killed leaves it, and whoever comes next at the same place tidies it up. A rename within
a file system is all or nothing, so `NAME` is always whole, or not there.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
from collections.abc import Callable

from ...errors import ConfigurationError
from ...storage.disk import sync_path

_CONTENTS = {"lock", "new", "old", "gone"}


class Workspace:
    """While this context is entered, a directory is built in `new`, and nobody else builds it.

    :param destination: what it will be called. A symbolic link is followed: what it leads to is
        built or replaced.
    :param may_replace: tells of the path of a directory that is there, and not empty, whether it
        may be replaced; it raises a ConfigurationError that says why not.
    :raises ConfigurationError: it cannot be built there, or another process is at it.
    """

    def __init__(self, destination: str, may_replace: Callable[[str], None]) -> None:
        if not destination:
            raise ConfigurationError("an empty path names no directory")
        self._shown = destination
        self._destination = os.path.realpath(destination)
        self._parent, name = os.path.split(self._destination)
        self._place = os.path.join(self._parent, f".{name}.zrs")
        self._may_replace = may_replace
        self.new = self._path("new")

    def _path(self, name: str) -> str:
        return os.path.join(self._place, name)

    def __enter__(self) -> Workspace:
        if not os.path.isdir(self._parent):
            raise ConfigurationError(f"{self._shown} cannot be made: there is no {self._parent}")
        if os.path.ismount(self._destination):
            raise ConfigurationError(
                f"{self._shown} is where a file system is mounted, and cannot be made: give a "
                "directory below it"
            )
        try:
            self._lock = self._take_lock()
        except (PermissionError, NotADirectoryError) as error:
            raise ConfigurationError(
                f"{self._shown} cannot be made: {error.filename}: {error.strerror}"
            ) from error
        try:
            self._tidy_up()
            self._check_destination()
            os.mkdir(self.new)
        except BaseException:
            self._leave()
            raise
        return self

    def _take_lock(self) -> int:
        while True:
            with contextlib.suppress(FileExistsError):
                os.mkdir(self._place)
            if os.path.islink(self._place):
                raise ConfigurationError(f"{self._place} is in the way: it is a symbolic link")
            try:
                unknown = set(os.listdir(self._place)) - _CONTENTS
                if unknown:
                    raise ConfigurationError(
                        f"{self._place} is in the way: there is {min(unknown)} in it, which is "
                        "nothing that a killed run has left"
                    )
                lock = os.open(self._path("lock"), os.O_RDWR | os.O_CREAT, 0o600)
            except FileNotFoundError:
                # Somebody else has just finished.
                continue
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _is_still(lock, self._path("lock")):
                    return lock
            except BlockingIOError as error:
                os.close(lock)
                raise ConfigurationError(
                    f"{self._shown} is being made by another process"
                ) from error
            except BaseException:
                os.close(lock)
                raise
            os.close(lock)

    def _tidy_up(self) -> None:
        """Remove what is there, but put back what bore the name last if nothing bears it now."""
        if os.path.lexists(self._path("old")):
            if os.path.lexists(self._destination):
                self._remove("old")
            else:
                os.rename(self._path("old"), self._destination)
        for name in ("new", "gone"):
            if os.path.lexists(self._path(name)):
                shutil.rmtree(self._path(name))

    def _remove(self, name: str) -> None:
        # What is half removed must not be taken for a whole one.
        os.rename(self._path(name), self._path("gone"))
        shutil.rmtree(self._path("gone"))

    def _check_destination(self) -> bool:
        """Whether there is something to be replaced."""
        if not os.path.lexists(self._destination):
            return False
        if not os.path.isdir(self._destination):
            raise ConfigurationError(f"{self._shown} is there already, and is no directory")
        if not os.listdir(self._destination):
            return False
        self._may_replace(self._destination)
        return True

    def clear(self) -> None:
        """Begin again, with `new` empty."""
        shutil.rmtree(self.new)
        os.mkdir(self.new)

    def publish(self) -> None:
        """Give what was built its name; it is on disk then, and so is that.

        :raises ConfigurationError: something bears the name now that may not be replaced.
        :raises NotWritten: the disk does not take it.
        """
        _sync_all(self.new)
        replaced = self._check_destination()
        if replaced:
            os.rename(self._destination, self._path("old"))
        try:
            os.rename(self.new, self._destination)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                raise ConfigurationError(f"{self._shown} has just been made by others") from error
            raise
        sync_path(self._parent)
        if replaced:
            self._remove("old")

    def __exit__(self, *exc_info: object) -> None:
        try:
            self._tidy_up()
        finally:
            self._leave()

    def _leave(self) -> None:
        try:
            if set(os.listdir(self._place)) <= {"lock"}:
                os.remove(self._path("lock"))
                os.rmdir(self._place)
        except OSError as error:
            # Another one may be there already, with a lock of its own.
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        finally:
            os.close(self._lock)


def _is_still(fd: int, path: str) -> bool:
    """Whether a file that was opened still has its name: it may have been removed since."""
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False


def _sync_all(directory: str) -> None:
    """Return when a directory is on disk, with all that is below it.

    :raises NotWritten: the disk does not take it.
    """
    for place, _, names in os.walk(directory, topdown=False, onerror=_raise):
        for name in names:
            sync_path(os.path.join(place, name))
        sync_path(place)


def _raise(error: OSError) -> None:
    raise error
