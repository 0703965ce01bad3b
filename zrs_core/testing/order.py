"""The order of a primary's messages, written a second time: the state table is compared with it."""

from __future__ import annotations

from ..messages import BLOB_BLOCK_SIZE, BlobBlock, Commit, Store, StoreBlob, Transaction


class Order:
    """The messages that may come next after a start.

    :param start: the tid that the secondary named.
    :param blobs: True if the protocol word allows blobs.
    """

    def __init__(self, start: bytes, blobs: bool) -> None:
        self._last = start
        self._blobs = blobs
        self._tid: bytes | None = None
        self._blocks = 0

    @property
    def tid(self) -> bytes | None:
        """The tid of the transaction that is not complete, None between transactions."""
        return self._tid

    def allows(self, message: object) -> bool:
        """Return True if `message` may come next, and count it as received then."""
        if self._blocks:
            return self._allows_block(message)
        if self._tid is None:
            if isinstance(message, Transaction) and message.tid > self._last:
                self._tid = message.tid
                return True
            return False
        if isinstance(message, Commit):
            self._last, self._tid = self._tid, None
            return True
        if isinstance(message, StoreBlob):
            if not self._blobs or message.serial != self._tid:
                return False
            self._blocks = message.blocks
            return True
        return isinstance(message, Store) and message.serial == self._tid

    def _allows_block(self, message: object) -> bool:
        if not isinstance(message, BlobBlock):
            return False
        if self._blocks > 1 and len(message.data) != BLOB_BLOCK_SIZE:
            return False
        self._blocks -= 1
        return True
