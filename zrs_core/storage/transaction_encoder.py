"""Encodes one transaction as FileStorage would write it."""

from __future__ import annotations

from ..messages import Transaction
from .batches import header
from .fs_format import RECORD_HEADER, U64


class TransactionEncoder:
    """The records of one transaction that is being received.

    :param transaction: the transaction.
    :param begin: its position in the file.
    """

    def __init__(self, transaction: Transaction, begin: int) -> None:
        self.transaction = transaction
        self.begin = begin
        #: The position of the next record.
        self.end = begin + len(header(transaction, None))
        #: Records that are not written yet, and their position in the file.
        self.chunks: list[bytes] = []
        self.place = self.end
        #: The position of the newest record of each object.
        self.newest: dict[bytes, int] = {}
        #: The position from which on the transaction is held in memory, its header included.
        self.held_from = begin

    @property
    def partly_written(self) -> bool:
        """True if some records are in the file already."""
        return self.held_from > self.begin

    def add(self, oid: bytes, serial: bytes, previous: int, back: int, data: bytes) -> None:
        """Add a record.

        :param previous: the position of the object's previous record, 0 for none.
        :param back: the position of a record that has the data, 0 if this record has them.
        """
        size = 0 if back else len(data)
        self.chunks += (
            RECORD_HEADER.pack(oid, serial, previous, self.begin, 0, size),
            data if size else U64.pack(back),
        )
        self.newest[oid] = self.end
        self.end += RECORD_HEADER.size + (size or U64.size)

    def take_chunks(self) -> tuple[int, list[bytes]]:
        """Return the records that are to be written now, and their position."""
        place, chunks = self.place, self.chunks
        self.place = self.held_from = self.end
        self.chunks = []
        return place, chunks
