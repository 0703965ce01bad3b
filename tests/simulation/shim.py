"""Puts the simulated disks, clock and chance into the places of the system's."""

from __future__ import annotations

import builtins
import contextlib
import io
import itertools
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import zc.lockfile
import ZODB.blob
import ZODB.FileStorage

from .disk import FIRST_DESCRIPTOR, Disk, Handle

# The class has the same name as its module.
_FILE_STORAGE = sys.modules["ZODB.FileStorage.FileStorage"]

#: Where all simulated paths begin.
ROOT = "/simulated/"


class Machine:
    """What is simulated: disks by their names, and a clock."""

    def __init__(self, seed: int) -> None:
        self.disks: dict[str, Disk] = {}
        self.wall = 1_700_000_000.0
        self.monotonic = 1000.0
        self.frozen = False
        self.chance = random.Random(seed)
        self._by_handle: dict[int, Disk] = {}

    def add_disk(self, name: str, seed: int, *, journal: bool) -> Disk:
        disk = Disk(f"{ROOT}{name}", seed, journal=journal)
        # Each with descriptors of its own.
        disk._next_handle = FIRST_DESCRIPTOR + (len(self.disks) << 20)
        self.disks[name] = disk
        return disk

    def disk_of(self, path: str) -> Disk:
        return self.disks[path[len(ROOT) :].partition("/")[0]]

    def handle(self, number: int) -> Handle:
        index = (number - FIRST_DESCRIPTOR) >> 20
        return [*self.disks.values()][index].handle(number)

    def time(self) -> float:
        if not self.frozen:
            self.wall += 0.000_01
        return self.wall

    def sleep(self, seconds: float) -> None:
        self.advance(seconds)

    def advance(self, seconds: float) -> None:
        self.monotonic += seconds
        if not self.frozen:
            self.wall += seconds


_current: Machine | None = None


def _machine() -> Machine:
    assert _current is not None
    return _current


def _ours(path: Any) -> bool:
    if isinstance(path, str):
        return path.startswith(ROOT)
    return isinstance(path, int) and path >= FIRST_DESCRIPTOR


_MODES = {
    "r": os.O_RDONLY,
    "r+": os.O_RDWR,
    "w": os.O_WRONLY | os.O_CREAT | os.O_TRUNC,
    "w+": os.O_RDWR | os.O_CREAT | os.O_TRUNC,
    "x": os.O_WRONLY | os.O_CREAT | os.O_EXCL,
    "a": os.O_WRONLY | os.O_CREAT | os.O_APPEND,
    "a+": os.O_RDWR | os.O_CREAT | os.O_APPEND,
}


def _open(path: str, mode: str = "r", buffering: int = -1, **_: Any) -> Any:
    flags = _MODES[mode.replace("b", "").replace("t", "")]
    return _buffered(_machine().disk_of(path).open(path, flags), mode, buffering)


def _buffered(raw: Handle, mode: str, buffering: int = -1) -> Any:
    if buffering == 0:
        return raw
    if "+" in mode:
        buffered: Any = io.BufferedRandom(raw)
    elif raw.writable():
        buffered = io.BufferedWriter(raw)
    else:
        buffered = io.BufferedReader(raw)
    return buffered if "b" in mode else io.TextIOWrapper(buffered, encoding="utf-8")


class _Entry:
    def __init__(self, directory: str, name: str) -> None:
        self.name = name
        self.path = f"{directory.rstrip('/')}/{name}"

    def is_dir(self, *, follow_symlinks: bool = True) -> bool:
        return os.path.isdir(self.path)

    def is_file(self, *, follow_symlinks: bool = True) -> bool:
        return os.path.isfile(self.path)

    def is_symlink(self) -> bool:
        return False

    def is_junction(self) -> bool:
        return False


class _Entries:
    def __init__(self, path: str) -> None:
        self._entries = iter(
            [_Entry(path, name) for name in _machine().disk_of(path).listdir(path)]
        )

    def __iter__(self) -> Iterator[_Entry]:
        return self._entries

    def __next__(self) -> _Entry:
        return next(self._entries)

    def __enter__(self) -> _Entries:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def close(self) -> None:
        pass


def _os_open(path: str, flags: int, mode: int = 0o777, **_: Any) -> int:
    return _machine().disk_of(path).open(path, flags, mode).fileno()


def _sync(number: int) -> None:
    handle = _machine().handle(number)
    handle.disk.sync(handle)


def _by_path(name: str) -> Callable[..., Any]:
    def call(path: str, *args: Any, **_: Any) -> Any:
        return getattr(_machine().disk_of(path), name)(path, *args)

    return call


def _stat(path: Any, **_: Any) -> os.stat_result:
    if isinstance(path, int):
        handle = _machine().handle(path)
        return handle.disk.stat(handle.file)
    disk = _machine().disk_of(path)
    return disk.stat(disk.find(path))


def _chmod(path: str, mode: int, **_: Any) -> None:
    found = _machine().disk_of(path).find(path)
    found.mode = found.mode & ~0o7777 | mode


_OS: dict[str, Callable[..., Any]] = {
    "open": _os_open,
    "close": lambda number: _machine().handle(number).close(),
    "pread": lambda number, size, pos: _machine().handle(number).pread(size, pos),
    "pwrite": lambda number, data, pos: _machine().handle(number).pwrite(bytes(data), pos),
    "ftruncate": lambda number, size: _machine().handle(number).truncate(size),
    "fsync": _sync,
    "fdatasync": _sync,
    "fstat": _stat,
    "stat": _stat,
    "lstat": _stat,
    "rename": _by_path("rename"),
    "replace": _by_path("rename"),
    "remove": _by_path("remove"),
    "unlink": _by_path("remove"),
    "link": _by_path("link"),
    "mkdir": lambda path, *_, **__: _machine().disk_of(path).mkdir(path),
    "rmdir": _by_path("rmdir"),
    "listdir": _by_path("listdir"),
    "scandir": _Entries,
    "chmod": _chmod,
    "fdopen": lambda number, mode="r", *_, **__: _buffered(_machine().handle(number), mode),
}


def _either(system: Callable[..., Any], simulated: Callable[..., Any]) -> Callable[..., Any]:
    def call(first: Any = ".", *args: Any, **kwargs: Any) -> Any:
        return (simulated if _ours(first) else system)(first, *args, **kwargs)

    return call


def _lock(file: Any) -> None:
    handle = _machine().handle(file.fileno())
    if handle.file.number in handle.disk.locked:
        raise zc.lockfile.LockError(f"Couldn't lock {file.name!r}")
    handle.disk.locked.add(handle.file.number)


def _unlock(file: Any) -> None:
    handle = _machine().handle(file.fileno())
    handle.disk.locked.discard(handle.file.number)


@contextlib.contextmanager
def simulated_system() -> Iterator[None]:
    """In it, calls that concern simulated files, and the clock, go to the current machine."""
    with contextlib.ExitStack() as stack:

        def patch(where: Any, name: str, value: Any) -> Any:
            stack.enter_context(mock.patch.object(where, name, value))
            return value

        for name, simulated in _OS.items():
            patch(os, name, _either(getattr(os, name), simulated))
        opened = _either(builtins.open, _open)
        patch(builtins, "open", opened)
        rmtree = patch(shutil, "rmtree", _either(shutil.rmtree, _by_path("rmtree")))
        patch(zc.lockfile, "_lock_file", _lock)
        patch(zc.lockfile, "_unlock_file", _unlock)
        for module in (ZODB.blob, _FILE_STORAGE):
            patch(module, "remove_committed", os.remove)
            patch(module, "remove_committed_dir", rmtree)
            patch(module, "link_or_copy", os.link)
        patch(_FILE_STORAGE, "fsync", os.fsync)
        patch(time, "time", lambda: _machine().time())
        patch(time, "monotonic", lambda: _machine().monotonic)
        patch(time, "sleep", lambda seconds: _machine().sleep(seconds))
        yield


@contextlib.contextmanager
def machine(seed: int) -> Iterator[Machine]:
    """The machine that is simulated in it."""
    global _current
    _current = Machine(seed)
    names = (f"{number:08}" for number in itertools.count())
    with (
        mock.patch.object(tempfile, "_name_sequence", names),
        mock.patch.object(random, "uniform", _current.chance.uniform),
    ):
        try:
            yield _current
        finally:
            _current = None
