"""What is on a disk, and what is left of it when the machine stops.

Until a file is synced, any block of what was written may be on disk or not, in any order; until a
directory is synced, any of its new entries. A process that is killed leaves all that it has done.
"""

from __future__ import annotations

import os
import random
from dataclasses import dataclass, field
from typing import NamedTuple

SECTOR = 512


class Create(NamedTuple):
    path: str
    file: int


class Write(NamedTuple):
    file: int
    pos: int
    data: bytes


class Truncate(NamedTuple):
    file: int
    size: int


class Sync(NamedTuple):
    """Of a file. One that fails makes the system forget what it could not write."""

    file: int
    failed: bool = False


class SyncDirectory(NamedTuple):
    path: str


class Rename(NamedTuple):
    source: str
    target: str
    file: int


class Unlink(NamedTuple):
    path: str


class MakeDirectory(NamedTuple):
    path: str


class RemoveDirectory(NamedTuple):
    path: str


class Applied(NamedTuple):
    """No change of the disk: the secondary has said that it has this transaction."""

    tid: bytes


Change = Create | Rename | Unlink | MakeDirectory | RemoveDirectory
Operation = Change | Write | Truncate | Sync | SyncDirectory | Applied


@dataclass
class _File:
    now: bytearray = field(default_factory=bytearray)
    synced: bytearray = field(default_factory=bytearray)
    pending: list[Write | Truncate] = field(default_factory=list)


def _write(content: bytearray, pos: int, data: bytes) -> None:
    if pos > len(content):
        content.extend(bytes(pos - len(content)))
    content[pos : pos + len(data)] = data


def _truncate(content: bytearray, size: int) -> None:
    del content[size:]
    content.extend(bytes(size - len(content)))


def _apply(content: bytearray, operation: Write | Truncate) -> None:
    if isinstance(operation, Write):
        _write(content, operation.pos, operation.data)
    else:
        _truncate(content, operation.size)


class Tree(NamedTuple):
    """Directories, and files with what is in them, by paths below the root."""

    directories: set[str]
    files: dict[str, bytes]

    def write_to(self, root: str) -> None:
        for path in sorted(self.directories):
            os.makedirs(os.path.join(root, path), exist_ok=True)
        for path, content in self.files.items():
            with open(os.path.join(root, path), "wb") as file:
                file.write(content)

    @classmethod
    def of(cls, root: str) -> Tree:
        directories, files = set(), {}
        for where, names, others in os.walk(root):
            for name in names:
                directories.add(os.path.relpath(os.path.join(where, name), root))
            for name in others:
                path = os.path.join(where, name)
                with open(path, "rb") as file:
                    files[os.path.relpath(path, root)] = file.read()
        return cls(directories, files)


class Disk:
    """What the operations so far have made of a tree, which was on disk as a whole."""

    def __init__(self, tree: Tree, files: dict[str, int], block: int = SECTOR) -> None:
        self._block = block
        self._files: dict[int, _File] = {}
        self._names = dict(files)
        self._directories = set(tree.directories)
        self._pending: list[Change] = []
        for path, number in files.items():
            content = tree.files[path]
            self._files[number] = _File(bytearray(content), bytearray(content))

    def apply(self, operation: Operation) -> None:
        match operation:
            case Write(number) | Truncate(number):
                file = self._files.setdefault(number, _File())
                _apply(file.now, operation)
                file.pending.append(operation)
            case Sync(number, failed):
                file = self._files.setdefault(number, _File())
                if not failed:
                    for each in file.pending:
                        _apply(file.synced, each)
                file.pending.clear()
            case SyncDirectory(path):
                mine = [each for each in self._pending if path in _parents(each)]
                self._pending = [each for each in self._pending if each not in mine]
                for each in mine:
                    _change(self._directories, self._names, each)
            case Applied():
                pass
            case _:
                self._pending.append(operation)

    def left_by_a_kill(self) -> Tree:
        """All that was done."""
        return self._tree(self._pending, lambda file: file.now)

    def left_by_a_power_loss(self, how: str, chance: random.Random) -> Tree:
        """What was synced, and of the rest nothing, a beginning, or anything."""
        if how == "lost":
            return self._tree([], lambda file: file.synced)
        if how == "torn":
            changes = self._pending[: chance.randrange(len(self._pending) + 1)]
            return self._tree(changes, lambda file: _torn(file, self._block, chance))
        changes = [each for each in self._pending if chance.random() < 0.5]
        return self._tree(changes, lambda file: _reordered(file, self._block, chance))

    def _tree(self, changes, content) -> Tree:  # type: ignore[no-untyped-def]
        directories, names = set(self._directories), dict(self._names)
        for each in changes:
            _change(directories, names, each)
        # In an order that does not depend on the names of temporary files.
        by_number = sorted((number, path) for path, number in names.items())
        return Tree(
            {path for path in directories if _reachable(path, directories)},
            {
                path: bytes(content(self._files.setdefault(number, _File())))
                for number, path in by_number
                if _reachable(path, directories)
            },
        )


def _parents(change: Change) -> set[str]:
    paths = (change.source, change.target) if isinstance(change, Rename) else (change.path,)
    return {os.path.dirname(path) for path in paths}


def _change(directories: set[str], names: dict[str, int], change: Change) -> None:
    match change:
        case Create(path, number):
            names[path] = number
        case Rename(source, target, number):
            names.pop(source, None)
            names[target] = number
        case Unlink(path):
            names.pop(path, None)
        case MakeDirectory(path):
            directories.add(path)
        case RemoveDirectory(path):
            directories.discard(path)


def _reachable(path: str, directories: set[str]) -> bool:
    above = os.path.dirname(path)
    while above:
        if above not in directories:
            return False
        above = os.path.dirname(above)
    return True


def _torn(file: _File, block: int, chance: random.Random) -> bytearray:
    content = bytearray(file.synced)
    count = chance.randrange(len(file.pending) + 1)
    for each in file.pending[:count]:
        _apply(content, each)
    if count < len(file.pending) and isinstance(each := file.pending[count], Write):
        end = each.pos + chance.randrange(len(each.data) + 1)
        # A disk of sectors is asked for less than it promises: the storage holds all the same.
        if block > SECTOR and end < each.pos + len(each.data):
            end = max(each.pos, end - end % block)
        _write(content, each.pos, each.data[: end - each.pos])
    return content


def _reordered(file: _File, block: int, chance: random.Random) -> bytearray:
    content = bytearray(file.synced)
    likely = chance.choice((0.1, 0.5, 0.9))
    for each in file.pending:
        if isinstance(each, Truncate):
            if chance.random() < likely:
                _truncate(content, each.size)
            continue
        begin, end = each.pos, each.pos + len(each.data)
        while begin < end:
            stop = min(end, begin - begin % block + block)
            if chance.random() < likely:
                _write(content, begin, each.data[begin - each.pos : stop - each.pos])
            begin = stop
    if len(content) < len(file.now) and chance.random() < 0.5:
        _truncate(content, len(file.now))
    return content
