"""Notes what is done to the files below a directory, and lets some of it fail."""

from __future__ import annotations

import builtins
import errno
import io
import os
import sys
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any
from unittest import mock

from .disk import (
    Applied,
    Create,
    MakeDirectory,
    Operation,
    RemoveDirectory,
    Rename,
    Sync,
    SyncDirectory,
    Tree,
    Truncate,
    Unlink,
    Write,
)

# The package has a class of the same name.
_FILE_STORAGE = sys.modules["ZODB.FileStorage.FileStorage"]

# It is about processes that run at the same time, not about what is kept.
_IGNORED = ".lock"

#: Decides of an operation whether it fails, and how much of it is done if it is a write.
Fault = Callable[[int, Operation], int | None]


class Recording:
    """As a context, what happens below `root` is noted in `operations`.

    :param fault: called with the number of an operation and the operation before it is done; it
        may raise an OSError, or return how many bytes of a write are written.
    """

    def __init__(self, root: str, fault: Fault = lambda number, operation: None) -> None:
        self.root = os.path.abspath(root)
        self.operations: list[Operation] = []
        self.before = Tree.of(self.root)
        self.files: dict[str, int] = {path: n for n, path in enumerate(self.before.files)}
        self._fault = fault
        self.attempts = 0
        self._next = len(self.files)
        self._names = dict(self.files)
        self._descriptors: dict[int, int] = {}
        self._directories: dict[int, str] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Recording:
        real = {name: getattr(os, name) for name in dir(os) if callable(getattr(os, name))}
        patches: dict[str, Any] = {}

        def patch(name: str) -> Callable[[Any], Any]:
            def put(function: Any) -> Any:
                patches[name] = function
                return function

            return put

        @patch("open")
        def _(path: Any, flags: int, *args: Any, **kwargs: Any) -> int:
            name = self.below(path)
            if name is None:
                return real["open"](path, flags, *args, **kwargs)
            if flags & os.O_CREAT and not os.path.exists(path):
                self.note(Create(name, self._next))
                self._names[name] = self._next
                self._next += 1
            fd: int = real["open"](path, flags, *args, **kwargs)
            if name in self._names:
                self._descriptors[fd] = self._names[name]
            else:
                self._directories[fd] = name
            return fd

        @patch("close")
        def _(fd: int) -> None:
            self._descriptors.pop(fd, None)
            self._directories.pop(fd, None)
            real["close"](fd)

        @patch("pwrite")
        def _(fd: int, data: Any, pos: int) -> int:
            if fd not in self._descriptors:
                return real["pwrite"](fd, data, pos)
            return real["pwrite"](fd, self.written(self._descriptors[fd], pos, data), pos)

        @patch("pwritev")
        def _(fd: int, buffers: Any, pos: int, *flags: int) -> int:
            if fd not in self._descriptors:
                return real["pwritev"](fd, buffers, pos, *flags)
            data = b"".join(buffers)
            return real["pwrite"](fd, self.written(self._descriptors[fd], pos, data), pos)

        @patch("write")
        def _(fd: int, data: Any) -> int:
            if fd not in self._descriptors:
                return real["write"](fd, data)
            pos = os.lseek(fd, 0, os.SEEK_CUR)
            return real["write"](fd, self.written(self._descriptors[fd], pos, data))

        @patch("writev")
        def _(fd: int, buffers: Any) -> int:
            if fd not in self._descriptors:
                return real["writev"](fd, buffers)
            return os.write(fd, b"".join(buffers))

        @patch("ftruncate")
        def _(fd: int, size: int) -> None:
            if fd in self._descriptors:
                self.note(Truncate(self._descriptors[fd], size))
            real["ftruncate"](fd, size)

        @patch("fdatasync")
        @patch("fsync")
        def _(fd: Any) -> None:
            number = fd if isinstance(fd, int) else fd.fileno()
            if number in self._directories:
                self.note(SyncDirectory(self._directories[number]))
            elif number in self._descriptors:
                self.sync(self._descriptors[number])
            else:
                real["fsync"](fd)

        @patch("rename")
        @patch("replace")
        def _(source: Any, target: Any) -> None:
            here, there = self.below(source), self.below(target)
            if here is not None and there is not None and here in self._names:
                self.note(Rename(here, there, self._names[here]))
                self._names[there] = self._names.pop(here)
            real["rename"](source, target)

        @patch("remove")
        @patch("unlink")
        def _(path: Any, **kwargs: Any) -> None:
            name = self.below(path)
            if name in self._names and os.path.exists(path):
                self.note(Unlink(name))
                del self._names[name]
            real["unlink"](path, **kwargs)

        @patch("mkdir")
        def _(path: Any, *args: Any, **kwargs: Any) -> None:
            name = self.below(path)
            if name is not None and not os.path.exists(path):
                self.note(MakeDirectory(name))
            real["mkdir"](path, *args, **kwargs)

        @patch("rmdir")
        def _(path: Any, **kwargs: Any) -> None:
            name = self.below(path)
            if name is not None and os.path.isdir(path) and not os.listdir(path):
                self.note(RemoveDirectory(name))
            real["rmdir"](path, **kwargs)

        for name, function in patches.items():
            self._stack.enter_context(mock.patch.object(os, name, function))
        self._stack.enter_context(mock.patch.object(_FILE_STORAGE, "fsync", patches["fsync"]))
        opening = _opening(self, builtins.open)
        self._stack.enter_context(mock.patch.object(builtins, "open", opening))
        self._stack.enter_context(mock.patch.object(io, "open", opening))
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()

    def below(self, path: Any) -> str | None:
        """The path below the root, None for one that is not recorded."""
        if isinstance(path, int):
            return None
        path = os.path.abspath(os.fspath(path))
        if not (path + "/").startswith(self.root + "/") or path.endswith(_IGNORED):
            return None
        return "" if path == self.root else path[len(self.root) + 1 :]

    def note(self, operation: Operation) -> int | None:
        done = self._ask(operation)
        self.operations.append(operation)
        return done

    def _ask(self, operation: Operation) -> int | None:
        self.attempts += 1
        return self._fault(self.attempts - 1, operation)

    def written(self, file: int, pos: int, data: Any) -> bytes:
        """What of `data` is to be written."""
        data = bytes(data)
        data = data[: self._ask(Write(file, pos, data))]
        self.operations.append(Write(file, pos, data))
        return data

    def sync(self, file: int) -> None:
        try:
            self.note(Sync(file))
        except OSError:
            self.operations.append(Sync(file, failed=True))
            raise

    def heal(self) -> None:
        """From now on nothing fails."""
        self._fault = lambda number, operation: None

    def applied(self, tid: bytes) -> None:
        self.operations.append(Applied(tid))

    def created(self, path: Any, mode: str) -> None:
        """A file is about to be opened in `mode`."""
        name = self.below(path)
        if name is None or mode[0] not in "wxa":
            return
        if not os.path.exists(path):
            self.note(Create(name, self._next))
            self._names[name] = self._next
            self._next += 1
        elif mode[0] == "w":
            self.note(Truncate(self._names[name], 0))

    def number_of(self, file: Any) -> int | None:
        if isinstance(file, int):
            return self._descriptors.get(file)
        return self._names.get(self.below(file) or "")

    def opened(self, fd: int, number: int) -> None:
        self._descriptors[fd] = number

    def closed(self, fd: int) -> None:
        self._descriptors.pop(fd, None)


class _Raw(io.FileIO):
    """A file that is recorded."""

    def __init__(self, recording: Recording, number: int, file: Any, mode: str) -> None:
        super().__init__(file, mode)
        self._recording = recording
        self._number = number
        recording.opened(self.fileno(), number)

    def write(self, data: Any) -> int:
        return super().write(self._recording.written(self._number, self.tell(), data))

    def truncate(self, size: int | None = None) -> int:
        size = self.tell() if size is None else size
        self._recording.note(Truncate(self._number, size))
        return super().truncate(size)

    def close(self) -> None:
        if not self.closed:
            self._recording.closed(self.fileno())
        super().close()


def _opening(recording: Recording, real: Any) -> Any:
    def opened(file: Any, mode: str = "r", buffering: int = -1, *args: Any, **kwargs: Any) -> Any:
        recording.created(file, mode)
        number = recording.number_of(file)
        if number is None:
            return real(file, mode, buffering, *args, **kwargs)
        raw = _Raw(recording, number, file, mode.replace("b", "").replace("t", ""))
        if "+" in mode:
            binary: Any = io.BufferedRandom(raw)
        elif "r" in mode:
            binary = io.BufferedReader(raw)
        else:
            binary = io.BufferedWriter(raw)
        return binary if "b" in mode else io.TextIOWrapper(binary)

    return opened


def failing(at: int, error: int, *, for_ever: bool) -> Fault:
    """A disk that fails at an operation, or from it on: it takes nothing that changes it."""

    def fail(number: int, operation: Operation) -> None:
        if number == at or (for_ever and number > at):
            if error == errno.ENOSPC and isinstance(operation, (Sync, SyncDirectory, Unlink)):
                return
            raise OSError(error, os.strerror(error))

    return fail


def short(at: int) -> Fault:
    """Of each write from that one on, half is written, one byte at least."""

    def cut(number: int, operation: Operation) -> int | None:
        if number >= at and isinstance(operation, Write):
            return max(1, len(operation.data) // 2)
        return None

    return cut
