"""A sink that applies transactions through the public restore API.

The storage provides IStorageRestoreable, and IBlobStorageRestoreable for blobs. It gets the
records as they are stored.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ZODB.interfaces import IBlobStorageRestoreable
from zope.interface import implementer

from ..errors import MissingBlobSupport
from ..interfaces import ITransactionSink
from ..messages import BlobBlock, Commit, PrimaryMessage, Store, StoreBlob, Transaction
from .blobs import lacks_blob, temporary_directory
from .incoming_blobs import remove_temporary_files
from .packs import Packs
from .pending_transaction import PendingTransaction


@implementer(ITransactionSink)
class RestoringSink:
    """Applies transactions through the public restore API.

    :param storage: provides IStorageRestoreable.
    :param invalidate: called with the tid and the oids of each transaction inside its
        `tpc_finish`, so that no reader sees the one without the other.
    """

    def __init__(self, storage: Any, invalidate: Callable[[bytes, list[bytes]], None]) -> None:
        self.blobs: bool = IBlobStorageRestoreable.providedBy(storage)
        self.packs = Packs(storage)
        #: Blobs that have their places, and records that came without theirs.
        self.blobs_written = self.missing_blobs = 0
        self._storage = storage
        self._invalidate = invalidate
        self._transaction: PendingTransaction | None = None
        if self.blobs:
            remove_temporary_files(temporary_directory(storage))

    def last_tid(self) -> bytes:
        tid: bytes = self._storage.lastTransaction()
        return tid

    def apply(self, message: PrimaryMessage) -> None:
        if isinstance(message, Transaction):
            self._transaction = PendingTransaction(self._storage, message, self.packs)
            self._transaction.begin()
            return
        transaction = self._transaction
        if transaction is None:
            raise ValueError(f"{type(message).__name__} outside of a transaction")
        match message:
            case Store():
                self.missing_blobs += lacks_blob(message.data)
                transaction.restore(message)
            case StoreBlob():
                if not self.blobs:
                    raise MissingBlobSupport(
                        f"object 0x{message.oid.hex()} is a blob, and "
                        f"{self._storage.getName()} keeps none: give it a blob directory"
                    )
                transaction.begin_blob(message)
            case BlobBlock():
                transaction.add_block(message.data)
            case Commit():
                self._vote(transaction)
                blobs = len(transaction.restored_blobs)
                self._finish(transaction)
                self.blobs_written += blobs
                self._transaction = None

    def _vote(self, transaction: PendingTransaction) -> None:
        transaction.vote()

    def _finish(self, transaction: PendingTransaction) -> None:
        transaction.finish(self._invalidate)

    def flush(self) -> None:
        """Nothing is held back: each transaction is on disk as it is finished."""

    def abort(self) -> None:
        transaction, self._transaction = self._transaction, None
        if transaction is not None:
            transaction.abort()
