"""A storage that only replication writes to."""

from __future__ import annotations

from typing import Any, NoReturn

from ZODB.interfaces import IBlobStorageRestoreable, IExternalGC, IStorageRestoreable
from ZODB.POSException import ReadOnlyError

from .history import HistoryProxy


class ReadOnlyProxy(HistoryProxy):
    """Stands for a storage, but for what writes; packing is maintenance and stays possible."""

    def __init__(self, storage: Any) -> None:
        super().__init__(storage, (IStorageRestoreable, IBlobStorageRestoreable, IExternalGC))

    def has_data(self) -> bool:
        """Whether a transaction has come."""
        raise NotImplementedError

    def isReadOnly(self) -> bool:
        return True

    def new_instance(self) -> Any:
        """Another instance for one user of a storage that has snapshots."""
        return _Instance(self._storage.new_instance(), self)

    def _read_only(self, *args: Any, **kwargs: Any) -> NoReturn:
        if not self.has_data():
            # What writes here is a database that looks for its root object and does not find it.
            raise ReadOnlyError(
                f"{self.getName()} is a secondary and has no data yet: wait for its first "
                "transaction"
            )
        raise ReadOnlyError(f"{self.getName()} is a secondary: write to its primary")

    # With the signatures of ZODB.interfaces, which verifyObject compares.

    def new_oid(self) -> NoReturn:
        self._read_only()

    def tpc_begin(self, transaction: Any, tid: Any = None, status: str = " ") -> NoReturn:
        self._read_only()

    def tpc_vote(self, transaction: Any) -> NoReturn:
        self._read_only()

    def tpc_finish(self, transaction: Any, func: Any = None) -> NoReturn:
        self._read_only()

    def store(self, oid: Any, serial: Any, data: Any, version: Any, transaction: Any) -> NoReturn:
        self._read_only()

    def undo(self, transaction_id: Any, transaction: Any) -> NoReturn:
        self._read_only()

    storeBlob = restore = restoreBlob = deleteObject = copyTransactionsFrom = _read_only


class _Instance(ReadOnlyProxy):
    """What one connection of a database uses."""

    def __init__(self, storage: Any, whole: ReadOnlyProxy) -> None:
        super().__init__(storage)
        self.has_data = whole.has_data  # type: ignore[method-assign]
