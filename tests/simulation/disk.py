"""A disk in memory that knows what has been synced.

Between two syncs a disk may have written whatever it liked: each sector of a file in its new or
its old state, and the changes of names in their order, up to any of them. That is what is left
when the power fails. A process that is killed leaves all that it has written.

A name that a file was created by is safe with the file; one that it was renamed to, only when a
directory has been synced, as on the file systems that keep no common journal.
"""

from __future__ import annotations

import errno
import io
import os
import random
import stat
from collections.abc import Callable, Iterator
from typing import Any

SECTOR = 512
PAGE = 4096

#: Descriptors from here on are ours; the system's are below.
FIRST_DESCRIPTOR = 1 << 24


class Killed(BaseException):
    """The process that made this call is no more. Nothing may catch it."""


class File:
    """What is behind a name. `kept` is what would be found after a power loss, at the least."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.mode = stat.S_IFREG | 0o644
        self.data = bytearray()
        self.kept = bytearray()
        # Sectors that differ, or may; a set has no order that would differ between processes as
        # long as it holds small numbers, and is sorted where it matters.
        self.dirty: set[int] = set()

    def write(self, pos: int, data: bytes) -> None:
        if not data:
            return
        end = pos + len(data)
        if pos > len(self.data):
            self.data += bytes(pos - len(self.data))
        self.data[pos:end] = data
        self.dirty.update(range(pos // SECTOR, (end - 1) // SECTOR + 1))

    def truncate(self, size: int) -> None:
        if size < len(self.data):
            del self.data[size:]
        else:
            self.data += bytes(size - len(self.data))
        self.dirty.add(size // SECTOR)

    def sync(self) -> None:
        size = len(self.data)
        if len(self.kept) > size:
            del self.kept[size:]
        else:
            self.kept += bytes(size - len(self.kept))
        for sector in self.dirty:
            begin = sector * SECTOR
            self.kept[begin : begin + SECTOR] = self.data[begin : begin + SECTOR]
        self.dirty.clear()

    def sync_failed(self) -> None:
        """As Linux does: what could not be written counts as written, and is not."""
        self.dirty.clear()

    def lose_power(self, rng: random.Random, torn: bool) -> None:
        if self.dirty:
            self._tear(rng, torn)
        else:
            self.data = bytearray(self.kept)
        self.kept = bytearray(self.data)
        self.dirty.clear()

    def _tear(self, rng: random.Random, torn: bool) -> None:
        styles = ("lost", "all", "zeros", "first", "torn")
        style = rng.choice(styles if torn else styles[:3])
        new, old = self.data, self.kept
        sectors = sorted(self.dirty)
        if style == "lost":
            sectors = []
        elif style == "first":
            sectors = sectors[: rng.randrange(len(sectors) + 1)]
        elif style == "torn":
            sectors = [each for each in sectors if rng.random() < 0.5]
        result = bytearray(old)
        if style == "zeros" and len(new) > len(old):
            # The size was written, and what is there was not.
            sectors = []
            result += bytes(rng.randint(1, max(len(new) - len(old), 4096)))
        elif sectors:
            if len(new) > len(old):
                filler = rng.choice((bytes, rng.randbytes)) if torn else bytes
                result += filler(len(new) - len(old))
            elif style == "all" or rng.random() < 0.5:
                del result[len(new) :]
            for sector in sectors:
                begin = sector * SECTOR
                piece = new[begin : begin + SECTOR]
                result[begin : begin + len(piece)] = piece
        self.data = result


class Directory:
    def __init__(self, number: int) -> None:
        self.number = number
        self.mode = stat.S_IFDIR | 0o755
        self.entries: dict[str, Any] = {}
        self.kept: dict[str, Any] = {}


_Changes = list[tuple[Directory, str, Any]]


class Handle(io.RawIOBase):
    """An open file."""

    def __init__(self, disk: Disk, file: Any, path: str, flags: int) -> None:
        self.disk = disk
        self.file = file
        self.name: Any = path
        self.life = disk.life
        self._pos = 0
        self._access = flags & os.O_ACCMODE
        self._append = bool(flags & os.O_APPEND)
        self._number = disk.add_handle(self)

    # `mode` is what BufferedRandom shows.
    @property
    def mode(self) -> str:
        return {os.O_RDONLY: "rb", os.O_WRONLY: "wb"}.get(self._access, "rb+")

    def fileno(self) -> int:
        return self._number

    def readable(self) -> bool:
        return self._access != os.O_WRONLY

    def writable(self) -> bool:
        return self._access != os.O_RDONLY

    def seekable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return False

    def tell(self) -> int:
        if self.closed:
            raise ValueError("tell of closed file")
        return self._pos

    def seek(self, offset: int, whence: int = 0) -> int:
        begin = (0, self._pos, len(self.file.data))[whence]
        self._pos = begin + offset
        return self._pos

    def readinto(self, buffer: Any) -> int:
        data = self.pread(len(buffer), self._pos)
        buffer[: len(data)] = data
        self._pos += len(data)
        return len(data)

    def readall(self) -> bytes:
        data = self.pread(len(self.file.data), self._pos)
        self._pos += len(data)
        return data

    def pread(self, size: int, pos: int) -> bytes:
        self.disk.call("read")
        return bytes(self.file.data[pos : pos + size])

    def write(self, data: Any) -> int:
        if self.life != self.disk.life or self.disk.dead:
            # What a process still held back is gone with it.
            self._pos += len(data)
            return len(data)
        if self._append:
            self._pos = len(self.file.data)
        written = self.pwrite(bytes(data), self._pos)
        self._pos += written
        return written

    def pwrite(self, data: bytes, pos: int) -> int:
        size = self.disk.call_write(len(data), pos)
        self.file.write(pos, data[:size])
        self.disk.written()
        return size

    def truncate(self, size: int | None = None) -> int:
        self.disk.call("truncate")
        size = self._pos if size is None else size
        self.file.truncate(size)
        return size

    def close(self) -> None:
        if not self.closed:
            self.disk.remove_handle(self)
            super().close()


class Disk:
    """One machine's disk, all of whose paths begin with `root`."""

    def __init__(self, root: str, seed: int, *, journal: bool) -> None:
        self.root = root
        #: Whether all changes of names are safe whenever anything is synced.
        self.journal = journal
        self.rng = random.Random(seed)
        self.top = Directory(1)
        self._numbers = 1
        # Changes of names that are not safe yet: how each came about, and what it changed.
        self._changes: list[tuple[str, Any, _Changes]] = []
        self.handles: dict[int, Handle] = {}
        self._next_handle = FIRST_DESCRIPTOR
        #: Counts the processes that have used it.
        self.life = 0
        self.dead = False
        #: The calls that have failed in this process.
        self.failed: dict[str, bool] = {}
        #: System calls until this process is killed.
        self.kill_in: int | None = None
        #: By the name of a call: what it raises, and how often yet.
        self.faults: dict[str, tuple[Callable[[], BaseException], float]] = {}
        self.short_writes = False
        #: Called before each sync has an effect.
        self.before_sync: Callable[[], None] | None = None
        self.locked: set[int] = set()

    # -- life and death

    def call(self, name: str) -> None:
        """A system call is made."""
        if self.dead:
            raise Killed
        if self.kill_in is not None:
            self.kill_in -= 1
            if self.kill_in <= 0:
                self.die()
                raise Killed
        if self.faults:
            self._fail(name)

    def _fail(self, name: str) -> None:
        fault = self.faults.get(name)
        if fault is not None:
            make, left = fault
            self.failed[name] = True
            if left <= 1:
                del self.faults[name]
            else:
                self.faults[name] = make, left - 1
            raise make()

    def call_write(self, size: int, pos: int) -> int:
        """How much of a write is done."""
        if self.kill_in == 1 and not self.dead and size:
            # Killed in its midst, which is between two pages; `written` ends it.
            return self._part(size, pos, PAGE)
        self.call("write")
        if self.short_writes and self.rng.random() < 0.5:
            return self._part(size, pos, SECTOR) or size
        return size

    def _part(self, size: int, pos: int, unit: int) -> int:
        ends = range(pos - pos % unit + unit, pos + size, unit)
        return self.rng.choice([0, *(end - pos for end in ends), size])

    def written(self) -> None:
        if self.kill_in == 1:
            self.die()
            raise Killed

    def die(self) -> None:
        self.dead = True
        self.kill_in = None

    def restart(self) -> None:
        """A new process: the handles of the one before are gone."""
        self.life += 1
        self.dead = False
        self.failed.clear()
        self.kill_in = None
        for handle in list(self.handles.values()):
            self.remove_handle(handle)
        self.locked.clear()
        self.before_sync = None

    def wipe(self) -> None:
        """A new disk."""
        self.top = Directory(1)
        self._changes.clear()

    def put(self, name: str, data: bytes) -> None:
        """A file that somebody has put there."""
        file = self.top.entries[name] = self.top.kept[name] = File(self._number())
        file.data[:] = file.kept[:] = data

    def forget(self, path: str) -> None:
        """A file that somebody has removed."""
        directory, name = self._place(path)
        del directory.entries[name]
        directory.kept.pop(name, None)

    def heal(self) -> None:
        self.faults.clear()
        self.short_writes = False

    def lose_power(self, *, torn: bool) -> None:
        self.die()
        kept = self.rng.randrange(len(self._changes) + 1)
        for _, _, changes in self._changes[:kept]:
            _apply(changes)
        self._changes.clear()
        self._lose(self.top, torn)

    def _lose(self, directory: Directory, torn: bool) -> None:
        directory.entries = dict(directory.kept)
        for name, each in directory.entries.items():
            if isinstance(each, Directory):
                self._lose(each, torn)
                continue
            each.lose_power(self.rng, torn)
            if name == "Data.fs" and self.rng.random() < 0.25:
                # Space that was given out for what was to come.
                each.data += bytes(self.rng.randint(1, 4096))
                each.kept[:] = each.data

    def sync_all(self) -> None:
        """All that there is gets safe, by itself."""
        self._keep(len(self._changes))
        for _, each in self.walk():
            each.sync()

    # -- handles

    def add_handle(self, handle: Handle) -> int:
        self._next_handle += 1
        self.handles[self._next_handle] = handle
        return self._next_handle

    def remove_handle(self, handle: Handle) -> None:
        self.handles.pop(handle.fileno(), None)
        if handle.life == self.life and handle.name.endswith(".lock"):
            self.locked.discard(handle.file.number)

    def handle(self, number: int) -> Handle:
        try:
            return self.handles[number]
        except KeyError:
            if self.dead:
                raise Killed from None
            raise OSError(errno.EBADF, os.strerror(errno.EBADF)) from None

    # -- names

    def _parts(self, path: str) -> list[str]:
        return [part for part in path[len(self.root) :].split("/") if part]

    def find(self, path: str) -> Any:
        found: Any = self.top
        for part in self._parts(path):
            if not isinstance(found, Directory):
                raise _error(errno.ENOTDIR, path)
            found = found.entries.get(part)
            if found is None:
                raise _error(errno.ENOENT, path)
        return found

    def _place(self, path: str) -> tuple[Directory, str]:
        *parents, name = self._parts(path)
        found: Any = self.top
        for part in parents:
            found = found.entries.get(part)
            if not isinstance(found, Directory):
                raise _error(errno.ENOENT, path)
        return found, name

    def _number(self) -> int:
        self._numbers += 1
        return self._numbers

    def _change(self, kind: str, subject: Any, changes: _Changes) -> None:
        for directory, name, target in changes:
            if target is None:
                directory.entries.pop(name, None)
            else:
                directory.entries[name] = target
        self._changes.append((kind, subject, changes))

    def _keep(self, count: int) -> None:
        for _, _, changes in self._changes[:count]:
            _apply(changes)
        del self._changes[:count]

    def open(self, path: str, flags: int, mode: int = 0o777) -> Handle:
        self.call("open")
        directory, name = self._place(path) if self._parts(path) else (self.top, "")
        found = directory.entries.get(name) if name else self.top
        if found is None:
            if not flags & os.O_CREAT:
                raise _error(errno.ENOENT, path)
            found = File(self._number())
            self._change("create", found, [(directory, name, found)])
        elif flags & os.O_EXCL and flags & os.O_CREAT:
            raise _error(errno.EEXIST, path)
        elif isinstance(found, Directory):
            if flags & os.O_ACCMODE:
                raise _error(errno.EISDIR, path)
        elif flags & os.O_TRUNC:
            found.truncate(0)
        return Handle(self, found, path, flags)

    def sync(self, handle: Handle) -> None:
        if self.before_sync is not None:
            self.before_sync()
        file = handle.file
        try:
            self.call("fsync")
        except OSError:
            if isinstance(file, File):
                file.sync_failed()
            raise
        if isinstance(file, Directory) or self.journal:
            self._keep(len(self._changes))
        else:
            for index, (kind, subject, _) in enumerate(self._changes):
                if kind == "create" and subject is file:
                    self._keep(index + 1)
                    break
        if isinstance(file, File):
            file.sync()

    def rename(self, path: str, new: str) -> None:
        self.call("rename")
        directory, name = self._place(path)
        found = directory.entries.get(name)
        if found is None:
            raise _error(errno.ENOENT, path)
        target, new_name = self._place(new)
        self._change("rename", found, [(directory, name, None), (target, new_name, found)])

    def link(self, path: str, new: str) -> None:
        self.call("link")
        found = self.find(path)
        target, name = self._place(new)
        if name in target.entries:
            raise _error(errno.EEXIST, new)
        self._change("link", found, [(target, name, found)])

    def remove(self, path: str) -> None:
        self.call("unlink")
        directory, name = self._place(path)
        found = directory.entries.get(name)
        if found is None:
            raise _error(errno.ENOENT, path)
        if isinstance(found, Directory):
            raise _error(errno.EISDIR, path)
        self._change("remove", found, [(directory, name, None)])

    def mkdir(self, path: str) -> None:
        self.call("mkdir")
        directory, name = self._place(path)
        if name in directory.entries:
            raise _error(errno.EEXIST, path)
        new = Directory(self._number())
        self._change("create", new, [(directory, name, new)])

    def rmdir(self, path: str) -> None:
        self.call("rmdir")
        directory, name = self._place(path)
        if directory.entries[name].entries:
            raise _error(errno.ENOTEMPTY, path)
        self._change("remove", None, [(directory, name, None)])

    def rmtree(self, path: str) -> None:
        for name, each in list(self.find(path).entries.items()):
            if isinstance(each, Directory):
                self.rmtree(f"{path}/{name}")
            else:
                self.remove(f"{path}/{name}")
        self.rmdir(path)

    def listdir(self, path: str) -> list[str]:
        found = self.find(path)
        if not isinstance(found, Directory):
            raise _error(errno.ENOTDIR, path)
        return list(found.entries)

    def exists(self, path: str) -> bool:
        try:
            self.find(path)
        except OSError:
            return False
        return True

    def stat(self, found: Any) -> os.stat_result:
        size = len(found.data) if isinstance(found, File) else 4096
        return os.stat_result((found.mode, found.number, 1, 1, 0, 0, size, 0, 0, 0))

    def walk(
        self, directory: Directory | None = None, path: str = ""
    ) -> Iterator[tuple[str, File]]:
        """All files, by their paths below the root."""
        directory = directory or self.top
        for name, each in directory.entries.items():
            if isinstance(each, Directory):
                yield from self.walk(each, f"{path}{name}/")
            else:
                yield f"{path}{name}", each


def _apply(changes: _Changes) -> None:
    for directory, name, target in changes:
        if target is None:
            directory.kept.pop(name, None)
        else:
            directory.kept[name] = target


def _error(number: int, path: str) -> OSError:
    return OSError(number, os.strerror(number), path)
