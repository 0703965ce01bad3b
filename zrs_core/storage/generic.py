"""Any storage that restores as a sink (`IStorageRestoreable`, `IBlobStorageRestoreable`)."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable
from typing import IO, Any

from ZODB.Connection import TransactionMetaData
from ZODB.interfaces import IBlobStorageRestoreable
from ZODB.POSException import POSKeyError, UndoError
from zope.interface import implementer

from ..errors import MissingBlobSupport
from ..interfaces import ITransactionSink
from ..messages import BlobBlock, Commit, PrimaryMessage, Store, StoreBlob, Transaction
from .packs import Packs

#: How the names of temporary files of blobs begin; what a killed process left is known by it.
TEMPORARY_PREFIX = "zrs-"


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
        self._storage = storage
        self._invalidate = invalidate
        self._transaction: _Unfinished | None = None
        if self.blobs:
            remove_temporary_files(storage.temporaryDirectory())

    def last_tid(self) -> bytes:
        tid: bytes = self._storage.lastTransaction()
        return tid

    def apply(self, message: PrimaryMessage) -> None:
        if isinstance(message, Transaction):
            self._transaction = _Unfinished(self._storage, message, self.packs)
            self._transaction.begin()
            return
        transaction = self._transaction
        if transaction is None:
            raise ValueError(f"{type(message).__name__} outside of a transaction")
        match message:
            case Store():
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
                transaction.finish(self._invalidate)
                self._transaction = None

    def flush(self) -> None:
        """Nothing is held back: each transaction is on disk as it is finished."""

    def abort(self) -> None:
        transaction, self._transaction = self._transaction, None
        if transaction is not None:
            transaction.abort()


class _Unfinished:
    """One transaction on its way into the storage, and all that must go if it is aborted."""

    def __init__(self, storage: Any, header: Transaction, packs: Packs) -> None:
        self._storage = storage
        self._packs = packs
        self._header = header
        self._metadata = TransactionMetaData(header.user, header.description, header.extension)
        # The records of an undone transaction are void: after its next start FileStorage does
        # not know them either, so they never come in.
        self._void = header.status == "u"
        self._oids: list[bytes] = []
        self._blob: IncomingBlob | None = None
        self._restored_blobs: list[tuple[bytes, bytes]] = []

    def begin(self) -> None:
        self._storage.tpc_begin(self._metadata, self._header.tid, self._header.status)

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
        self._blob = IncomingBlob(record, self._storage.temporaryDirectory())
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
        path = blob.finish()
        if not self._void:
            record = blob.record
            self._restored_blobs.append((record.oid, record.serial))
            self._with_back_pointer(
                lambda data_txn: self._storage.restoreBlob(
                    record.oid, record.serial, record.data or None, path, data_txn, self._metadata
                ),
                record.data_txn,
            )
            self._oids.append(record.oid)
        blob.discard()
        self._blob = None

    def finish(self, invalidate: Callable[[bytes, list[bytes]], None]) -> None:
        self._storage.tpc_vote(self._metadata)
        self._storage.tpc_finish(self._metadata, lambda tid: invalidate(tid, self._oids))

    def abort(self) -> None:
        # Every step is taken, whichever of them fails.
        with contextlib.ExitStack() as steps:
            # FileStorage forgets the blobs of a transaction that was aborted before its vote:
            # they would stay in their final places.
            for oid, serial in self._restored_blobs:
                steps.callback(self._remove_blob, oid, serial)
            steps.callback(self._storage.tpc_abort, self._metadata)
            if self._blob is not None:
                steps.callback(self._blob.discard)

    def _remove_blob(self, oid: bytes, serial: bytes) -> None:
        with contextlib.suppress(POSKeyError, FileNotFoundError):
            os.remove(self._storage.loadBlob(oid, serial))


class IncomingBlob:
    """A blob's blocks, collected in a temporary file beside the blobs."""

    def __init__(self, record: StoreBlob, directory: str) -> None:
        self.record = record
        self.blocks_left = record.blocks
        handle, self._path = tempfile.mkstemp(".blob", TEMPORARY_PREFIX, directory)
        self._file: IO[bytes] = os.fdopen(handle, "wb")

    def write(self, data: bytes) -> None:
        self._file.write(data)
        self.blocks_left -= 1

    def finish(self) -> str:
        """The path of the file, which is complete and on disk."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        return self._path

    def discard(self) -> None:
        self._file.close()
        # A storage that has taken the file has renamed it.
        with contextlib.suppress(FileNotFoundError):
            os.remove(self._path)


def remove_temporary_files(directory: str) -> None:
    """Remove what a killed process left of blobs that it was receiving."""
    for entry in os.scandir(directory):
        if entry.name.startswith(TEMPORARY_PREFIX):
            os.remove(entry.path)
