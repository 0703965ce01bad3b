"""Batches of whole transactions: collected, written, and published when they are on disk."""

from __future__ import annotations

import logging
from collections.abc import Callable

from ..logs import event
from .batches import AppendableFile, Batch, BatchLimits, BatchWriter
from .transaction_encoder import TransactionEncoder

log = logging.getLogger("zrs_core.storage")


class BatchPublisher:
    """Whole transactions on their way into the file, onto the disk and to readers.

    At most two batches are under way: one that is being collected, and one before it that is being
    synced in the background.

    :param file: the file of the storage.
    :param invalidate: called with the tid and the oids of each transaction, in order, while readers
        are locked out.
    :param name: the name of the storage, for the log.
    :param sync: wait until a batch is on disk before it is published.
    :param limits: the sizes of batches.
    """

    def __init__(
        self,
        file: AppendableFile,
        invalidate: Callable[[bytes, list[bytes]], None],
        name: str,
        *,
        sync: bool,
        limits: BatchLimits,
    ) -> None:
        #: The last transaction that is published.
        self.last_tid = file.last_tid
        #: The batch that is being collected.
        self.batch = Batch(file.end)
        self.writer = BatchWriter(file, sync=sync, limits=limits)
        self._file = file
        self._invalidate = invalidate
        self._name = name
        self._held = limits.held
        # The batch that is being synced.
        self._syncing: Batch | None = None

    def restart(self) -> None:
        """Drop all that is not published; begin at the end of what the storage knows."""
        self._syncing = None
        self.batch = Batch(self._file.end)

    def find(self, oid: bytes) -> int:
        """Return the position of the newest record of an object in whole transactions, or 0."""
        pos = self.batch.index.get(oid)
        if pos is None and self._syncing is not None:
            pos = self._syncing.index.get(oid)
        return self._file.find(oid) if pos is None else pos

    def write_part(self, encoder: TransactionEncoder) -> None:
        """Write the records that an encoder holds, before its transaction is whole."""
        place, chunks = encoder.take_chunks()
        self.writer.write_part(self.batch.begin, encoder.transaction.tid, place, chunks)

    def add(self, encoder: TransactionEncoder) -> None:
        """Add a whole transaction to the batch."""
        batch, transaction = self.batch, encoder.transaction
        begun = batch.header_of(transaction, encoder.end)
        if encoder.partly_written:
            self.writer.write_part(batch.begin, transaction.tid, batch.end, [begun])
            batch.place = encoder.place
        else:
            batch.chunks.append(begun)
        batch.add(transaction, encoder.end, encoder.chunks, encoder.newest)

    def write_ahead(self) -> None:
        """Write the batch as far as it is collected, if enough of it is in memory."""
        if self.batch.end - self.batch.place > self._held:
            self.writer.write_ahead(self.batch)

    def publish_in_background(self) -> None:
        """Have the batch written and synced while the next batch is collected."""
        self.settle()
        self.writer.append_beside(self.batch)
        self._syncing, self.batch = self.batch, Batch(self.batch.end)

    def settle(self) -> None:
        """Publish the batch that is being synced, if there is one."""
        if self._syncing is not None:
            self.writer.wait()
            batch, self._syncing = self._syncing, None
            self._publish(batch)

    def publish(self) -> None:
        """Write the batch, wait until it is on disk, and publish it."""
        batch = self.batch
        self.writer.append(batch)
        self._publish(batch)
        self.batch = Batch(batch.end)

    def _publish(self, batch: Batch) -> None:
        done = batch.done
        self._file.publish(batch.end, batch.index, batch.last_tid, lambda: self._notify(done))
        self.last_tid = batch.last_tid

    def _notify(self, done: list[tuple[bytes, list[bytes]]]) -> None:
        for tid, oids in done:
            try:
                self._invalidate(tid, oids)
            except Exception:
                # It is on disk, and the caches must learn of those after it too.
                log.exception(
                    "%s: nobody could be told of transaction 0x%s",
                    self._name,
                    tid.hex(),
                    extra=event("not-told", storage=self._name, tid=tid),
                )
