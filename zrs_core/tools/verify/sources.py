"""What is compared, opened as sides."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from ZODB.interfaces import IStorageCurrentRecordIteration

from ...addresses import Address
from ...errors import ConfigurationError
from ...messages import NO_TID
from ...storage.committed import Record
from ...storage.sides import Side
from ...storage.wrapped import last_tid
from ...tls import TLSOptions
from .files import VerifiedFile


@dataclass(frozen=True, slots=True)
class Source:
    """A FileStorage by its `path` and perhaps `blobs`; or a primary by its `address`; or what
    `open` opens, a storage.
    """

    name: str
    path: str | None = None
    blobs: str | None = None
    address: Address | None = None
    open: Callable[[], Any] | None = None


class Opened:
    """Two sources, open as sides; a context manager."""

    def __init__(self, a: Source, b: Source, tls: TLSOptions | None) -> None:
        self._sources = a, b
        self._tls = tls
        self._stack = contextlib.ExitStack()
        #: The file of each that is one.
        self.files: list[VerifiedFile | None] = []
        #: The storage of each that is one.
        self.storages: list[Any] = [None, None]
        if (a.address or b.address) and not (a.path or b.path):
            other = b if a.address else a
            raise ConfigurationError(
                f"{other.name} cannot be compared with what a primary sends: give the path of a "
                "FileStorage"
            )

    def __enter__(self) -> Opened:
        with contextlib.ExitStack() as stack:
            for each in self._sources:
                file = None
                if each.path is not None:
                    file = VerifiedFile(each.path, each.blobs)
                    stack.callback(file.close)
                self.files.append(file)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()

    def sides(
        self, start: bytes, *, wait: float, common: bool, waiting: Callable[[], None]
    ) -> list[Side]:
        """Both; see `PrimaryStream` for the arguments.

        :raises Unverifiable: a primary cannot be connected to.
        """
        sides: list[Side] = []
        for number, source in enumerate(self._sources):
            file = self.files[number]
            if file is not None:
                sides.append(file)
                continue
            if source.open is not None:
                storage = self.storages[number]
                if storage is None:
                    storage = self.storages[number] = source.open()
                    self._stack.callback(storage.close)
                # This takes longer to import than a large file to compare, and is seldom needed.
                from ...storage.compare import side_of

                side = side_of(storage)
            elif source.address is not None:
                # Likewise.
                from .stream import PrimaryStream

                (other,) = filter(None, self.files)
                side = PrimaryStream(
                    source.address,
                    self._tls,
                    expected=other.last_tid(),
                    wait=wait,
                    common=common,
                    waiting=waiting,
                    start=start,
                )
            self._stack.callback(side.close)
            sides.append(side)
        return sides

    def identities(self) -> dict[str, Any]:
        """What tells both from others."""
        return {
            name: {"address": str(source.address)} if file is None else file.identity()
            for name, source, file in zip("AB", self._sources, self.files, strict=True)
        }


def check_current_records(storage: Any, name: str) -> None:
    """:raises ConfigurationError: `StorageRecords` cannot be had of an open storage."""
    if storage is not None and not IStorageCurrentRecordIteration.providedBy(storage):
        raise ConfigurationError(
            f"the references in {name} cannot be looked at: it does not provide "
            "IStorageCurrentRecordIteration; leave out --deep"
        )


class StorageRecords:
    """The current records of an open storage."""

    def __init__(self, storage: Any, step: Callable[[], None]) -> None:
        self._storage = storage
        self._oids: set[bytes] = set()
        for record in self:
            step()
            self._oids.add(record.oid)

    def __contains__(self, oid: bytes) -> bool:
        return oid in self._oids

    def __iter__(self) -> Iterator[Record]:
        # Storages without objects raise different errors (FileStorage ValueError, RelStorage
        # StopIteration).
        if last_tid(self._storage) == NO_TID:
            return
        cursor = None
        while True:
            try:
                oid, tid, data, cursor = self._storage.record_iternext(cursor)
            except StopIteration:
                return
            # An object whose creation was undone has no data.
            if data:
                yield Record(oid, tid, data, None)
            if cursor is None:
                return
