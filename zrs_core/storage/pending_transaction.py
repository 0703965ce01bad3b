"""One transaction that is being restored into a storage, until it is finished or aborted."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import Any

from ZODB.Connection import TransactionMetaData
from ZODB.POSException import UndoError

from ..messages import Store, StoreBlob, Transaction
from .blobs import MISSING_BLOB, temporary_directory
from .incoming_blobs import IncomingBlob
from .packs import Packs


class PendingTransaction:
    """One transaction on its way into the storage, and all that must go if it is aborted.

    `restored_blobs` are the oid and the serial of each blob that has its place.
    """

    def __init__(self, storage: Any, header: Transaction, packs: Packs) -> None:
        self._storage = storage
        self._packs = packs
        self.header = header
        self._metadata = TransactionMetaData(header.user, header.description, header.extension)
        # The records of an undone transaction are void: after its next start FileStorage does
        # not know them either, so they never come in.
        self._void = header.status == "u"
        self._oids: list[bytes] = []
        self._blob: IncomingBlob | None = None
        self.restored_blobs: list[tuple[bytes, bytes]] = []

    def begin(self) -> None:
        self._storage.tpc_begin(self._metadata, self.header.tid, self.header.status)

    def restore(self, record: Store) -> None:
        if self._void:
            return
        data = record.data or None
        self._with_back_pointer(
            lambda data_txn: self._storage.restore(
                record.oid, record.serial, data, "", data_txn, self._metadata
            ),
            record.data_txn,
        )
        self._oids.append(record.oid)

    def _with_back_pointer(
        self, restore: Callable[[bytes | None], object], data_txn: bytes | None
    ) -> None:
        try:
            restore(None if self._packs.running else data_txn)
        except UndoError:
            # The transaction that has the same data was packed away here. FileStorage means to
            # take it as a mere hint, and raises before it has written anything.
            restore(None)

    def begin_blob(self, record: StoreBlob) -> None:
        self._blob = IncomingBlob(record, temporary_directory(self._storage))
        self._finish_blob()

    def add_block(self, data: bytes) -> None:
        if self._blob is None:
            raise ValueError("a blob block outside of a blob")
        self._blob.write(data)
        self._finish_blob()

    def _finish_blob(self) -> None:
        blob = self._blob
        if blob is None or blob.blocks_left:
            return
        blob.finish()
        blob.settle()
        if not self._void:
            record, path, metadata = blob.record, blob.path, self._metadata
            self.restored_blobs.append((record.oid, record.serial))
            self._with_back_pointer(
                lambda data_txn: self._storage.restoreBlob(
                    record.oid, record.serial, record.data or None, path, data_txn, metadata
                ),
                record.data_txn,
            )
            self._oids.append(record.oid)
        blob.discard()
        self._blob = None

    def vote(self) -> None:
        self._storage.tpc_vote(self._metadata)

    def finish(self, invalidate: Callable[[bytes, list[bytes]], None]) -> None:
        # From here on nobody can tell, should it fail, whether it was committed. If it was, its
        # blobs are needed; if it was not, it comes again and brings them along.
        self.restored_blobs = []
        self._storage.tpc_finish(self._metadata, lambda tid: invalidate(tid, self._oids))

    def abort(self) -> None:
        # Every step is taken, whichever of them fails.
        with contextlib.ExitStack() as steps:
            # FileStorage forgets the blobs of a transaction that was aborted before its vote:
            # they would stay in their final places.
            for oid, serial in self.restored_blobs:
                steps.callback(self._remove_blob, oid, serial)
            steps.callback(self._storage.tpc_abort, self._metadata)
            if self._blob is not None:
                steps.callback(self._blob.discard)

    def _remove_blob(self, oid: bytes, serial: bytes) -> None:
        with contextlib.suppress(*MISSING_BLOB):
            os.remove(self._storage.loadBlob(oid, serial))
