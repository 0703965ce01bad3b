"""Commits through a primary: what no secondary could be sent is refused."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from ZODB.POSException import StorageTransactionError

from .codec.extension import why_not_carried
from .messages import MAX_METADATA_SIZE
from .status.peers import Commits
from .storage.history import HistoryProxy, Iterated
from .storage.proxy import StorageProxy


class CommittingProxy(HistoryProxy):
    """A storage whose commits are checked, counted, and reported to those that wait for them.

    :param source: the history of the storage (`IStorageSource`).
    :param pickle_protocol: the protocol in which it is sent.
    """

    def __init__(self, storage: Any, source: Any, commits: Commits, pickle_protocol: int) -> None:
        super().__init__(storage)
        self._source = source
        self._commits = commits
        self._pickle_protocol = pickle_protocol
        # The tid that the caller has given the transaction which is under way.
        self._given_tid: bytes | None = None

    def new_instance(self) -> CommittingProxy:
        """Another instance for one user of a storage that has snapshots."""
        instance = self._storage.new_instance()
        return CommittingProxy(instance, self._source, self._commits, self._pickle_protocol)

    def tpc_begin(self, transaction: Any, tid: bytes | None = None, status: str = " ") -> None:
        """As the storage's.

        :raises StorageTransactionError: the transaction cannot be replicated.
        """
        # Before the storage is asked, which would wait for others and keep them waiting.
        self._check(transaction)
        if tid is None:
            self._storage.tpc_begin(transaction)
        else:
            self._check_tid(tid, self._source.last_tid())
            self._storage.tpc_begin(transaction, tid, status)
        self._given_tid = tid

    @property
    def restore(self) -> Any:
        return partial(self._restore, self._storage.restore)

    @property
    def restoreBlob(self) -> Any:
        return partial(self._restore, self._storage.restoreBlob)

    def _restore(
        self, restore: Callable[..., Any], oid: bytes, serial: bytes, *arguments: Any, **more: Any
    ) -> Any:
        if self._given_tid not in (None, serial):
            raise StorageTransactionError(
                f"a record with serial 0x{serial.hex()} of object 0x{oid.hex()} cannot be "
                "replicated: its serial must be the tid of its transaction"
            )
        return restore(oid, serial, *arguments, **more)

    def tpc_finish(self, transaction: Any, f: Callable[[bytes], object] | None = None) -> Any:
        tid = self._storage.tpc_finish(transaction, *(() if f is None else (f,)))
        # Not every wrapper tells it.
        if tid is not None:
            self._commits.add(tid)
        self._source.changed()
        return tid

    def copyTransactionsFrom(self, other: Any, *args: Any, **kwargs: Any) -> None:
        """As the storage's.

        :raises StorageTransactionError: a transaction cannot be replicated; those before it were
            copied.
        """
        checked = _Checked(other, self._source.last_tid(), self._check_copied)
        try:
            self._storage.copyTransactionsFrom(checked, *args, **kwargs)
        finally:
            self._commits.begin_again(self._source.last_tid())
            self._source.changed()

    def _check_copied(self, transaction: Any, previous: bytes) -> None:
        self._check(transaction)
        self._check_tid(transaction.tid, previous)

    def _check(self, transaction: Any) -> None:
        reason = self._why_not(transaction)
        if reason is not None:
            raise StorageTransactionError(f"the transaction cannot be replicated: {reason}")

    def _why_not(self, transaction: Any) -> str | None:
        for name in ("user", "description"):
            size = len(getattr(transaction, name, b""))
            if size > MAX_METADATA_SIZE:
                return f"its {name} has {size:,} bytes, and at most {MAX_METADATA_SIZE:,} are sent"
        extension: bytes = getattr(transaction, "extension_bytes", b"")
        if len(extension) > MAX_METADATA_SIZE:
            return (
                f"its extension has {len(extension):,} bytes, and at most {MAX_METADATA_SIZE:,} "
                "are sent"
            )
        reason = why_not_carried(extension, (self._pickle_protocol,)) if extension else None
        if reason is None:
            return None
        return f"its extension must be the pickle of a dict within the protocol's limits: {reason}"

    def _check_tid(self, tid: bytes, previous: bytes) -> None:
        if tid <= previous:
            raise StorageTransactionError(
                f"transaction 0x{tid.hex()} cannot be replicated: its tid is not above that of the "
                f"transaction before it, 0x{previous.hex()}"
            )


class _Checked(StorageProxy):
    """A storage to copy from, each of whose transactions is checked before it is copied."""

    def __init__(self, storage: Any, previous: bytes, check: Callable[[Any, bytes], None]) -> None:
        super().__init__(storage)
        self._previous = previous
        self._check = check

    def iterator(self, *args: Any, **kwargs: Any) -> Iterated:
        previous = self._previous

        def checked(transaction: Any) -> Any:
            nonlocal previous
            self._check(transaction, previous)
            previous = transaction.tid
            return transaction

        return Iterated(self._storage.iterator(*args, **kwargs), checked)
