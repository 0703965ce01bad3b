"""The history of a storage as it is given out, with extensions that nothing was executed for.

FileStorage and RelStorage unpickle the extension of each transaction that they list, so that
the writer of the transaction chooses what is called there. On a secondary that is its primary.
"""

from __future__ import annotations

import contextlib
import importlib
import pickle
from base64 import encodebytes
from collections.abc import Callable, Iterator
from typing import Any

from persistent.TimeStamp import TimeStamp
from ZODB.POSException import UndoError
from ZODB.UndoLogCompatible import UndoLogCompatible

from ..codec.opcodes import plain_items
from .fs_access import file_storage_of, is_file_storage
from .fs_format import FIRST_OFFSET
from .fs_source import FileStorageSource
from .proxy import StorageProxy
from .wrapped import as_stored

_Filter = Callable[[dict[Any, Any]], object]


class HistoryProxy(StorageProxy):
    """Lists transactions as the storage under it does, but loads no extension.

    Of an extension the plain values are given out: texts, bytes, numbers, bools, None, and lists,
    tuples and dicts of these. Entries with other values are left out.
    """

    @property
    def iterator(self) -> Any:
        # An attribute, like those below, of what has it.
        iterator = self._storage.iterator
        return lambda *args, **kwargs: Iterated(iterator(*args, **kwargs), _with_plain_extension)

    @property
    def undoLog(self) -> Any:
        stored = as_stored(self)
        if is_file_storage(stored) and hasattr(stored, "undoLog"):
            return _FileStorageHistory(stored).undoLog
        return _relational_history(stored, self._storage).undoLog

    @property
    def undoInfo(self) -> Any:
        compatible = UndoLogCompatible()
        compatible.undoLog = self.undoLog
        return compatible.undoInfo

    @property
    def history(self) -> Any:
        stored = as_stored(self)
        if is_file_storage(stored):
            return _FileStorageHistory(stored).history
        return _relational_history(stored, self._storage).history


class Iterated:
    """An iterator of a storage, each of whose transactions is changed or checked.

    It has every other attribute of that iterator.
    """

    def __init__(self, found: Any, change: Callable[[Any], Any]) -> None:
        self._found = found
        # A storage may return an iterable, such as a list.
        self._next = iter(found)
        self._change = change

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        try:
            found = next(self._next)
        except StopIteration:
            # ZODB's iterators raise a class of their own, which is an IndexError too.
            raise StopIteration from None
        try:
            return self._change(found)
        except BaseException:
            getattr(self._found, "close", _nothing)()
            raise

    def __len__(self) -> int:
        return len(self._found)

    def __getattr__(self, name: str) -> Any:
        if name == "_found":
            raise AttributeError(name)
        return getattr(self._found, name)


def _nothing() -> None:
    """Not every iterator can be closed."""


def _with_plain_extension(found: Any) -> Any:
    """A transaction of an iterator, which would load its extension when it is first asked for."""
    attributes = vars(found)
    if "extension" not in attributes:
        # A wrapper's transaction passes on what it does not have, by both names.
        attributes["extension"] = attributes["_extension"] = plain_items(found.extension_bytes)
    return found


class _FileStorageHistory:
    """The undo log and the history of objects of a FileStorage.

    :param storage: a FileStorage, or a BlobStorage around one.
    """

    def __init__(self, storage: Any) -> None:
        self._source = FileStorageSource(storage)
        self._storage = file_storage_of(storage)

    def undoLog(
        self, first: int = 0, last: int = -20, filter: _Filter | None = None
    ) -> list[dict[Any, Any]]:
        if last < 0:
            last = first - last
        if self._storage._pack_is_in_progress:
            raise UndoError("Undo is currently disabled for database maintenance.<p>")
        found: list[dict[Any, Any]] = []
        count = 0
        with contextlib.closing(self._source.open_file()) as file:
            pos = file.end
            while count < last and pos > FIRST_OFFSET:
                pos = file.before(pos)
                header = file.header(pos)
                if header.status == "p":
                    break
                if header.status != " ":
                    continue
                described = {
                    "id": encodebytes(header.tid).rstrip(),
                    "time": TimeStamp(header.tid).timeTime(),
                    "user_name": header.user,
                    "size": header.end - header.pos,
                    "description": header.description,
                    **plain_items(header.extension),
                }
                if filter is None or filter(described):
                    if count >= first:
                        found.append(described)
                    count += 1
        return found

    def history(
        self, oid: bytes, size: int = 1, filter: _Filter | None = None
    ) -> list[dict[Any, Any]]:
        storage = self._storage
        found: list[dict[Any, Any]] = []
        # A pack gives the storage another file.
        with storage._lock:
            pos = storage._lookup_pos(oid)
            while pos and len(found) < size:
                record = storage._read_data_header(pos)
                header = storage._read_txn_header(record.tloc)
                described = {
                    **plain_items(header.ext),
                    "time": TimeStamp(record.tid).timeTime(),
                    "user_name": header.user,
                    "description": header.descr,
                    "tid": record.tid,
                    "size": record.plen,
                }
                if filter is None or filter(described):
                    found.append(described)
                pos = record.prev
        return found


def _relational_history(stored: Any, storage: Any) -> Any:
    """Return the history of a RelStorage, and any other storage itself.

    RelStorage loads extensions too. It is given pickles that were made here, of the plain values.
    """
    if not type(stored).__module__.startswith("relstorage."):
        return storage
    history = importlib.import_module("relstorage.storage.history")
    adapter = _PlainAdapter(stored._adapter)
    factory = history.UndoableHistory if stored.keep_history else history.History
    return factory(adapter, stored._load_connection)


class _PlainAdapter:
    """An adapter of RelStorage's, of which a history uses `dbiter` alone."""

    def __init__(self, adapter: Any) -> None:
        self._iterators = adapter.dbiter
        self.keep_history = adapter.keep_history
        self.dbiter = self

    def iter_transactions(self, cursor: Any) -> Iterator[Any]:
        return map(_plain_row, self._iterators.iter_transactions(cursor))

    def iter_object_history(self, cursor: Any, oid: int) -> Iterator[Any]:
        return map(_plain_row, self._iterators.iter_object_history(cursor, oid))


def _plain_row(row: Any) -> Any:
    if not row.extension:
        return row
    plain = plain_items(bytes(row.extension))
    return row._replace(extension=pickle.dumps(plain, 3) if plain else b"")
