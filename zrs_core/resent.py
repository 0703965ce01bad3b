"""What a primary sends again of a secondary's last transaction, compared with what is held.

A primary of zc.zrs serves any start that is not later than its last transaction: it looks for the
first transaction after it, whether it holds the start or not. So a secondary that has something of
its own would get what follows, and its storage would hold two histories merged. Therefore a
secondary asks from the transaction before its last one, and applies nothing until it has seen that
the last one is sent again as it is held.

A pack explains some differences. It takes away records, and whole transactions, and marks those
that it leaves with status `p`; so of a transaction that is marked on one side, records may be
missing there. What is marked on neither side must be equal, record by record.

A difference counts at the end of its transaction, when the checksum has come and was right. Before
that, bytes that were damaged on the way look like another history.
"""

from __future__ import annotations

from typing import IO

from .codec.extension import why_not_carried
from .codec.opcodes import OPAQUE, PickleError, read
from .errors import OtherHistory
from .held import PACKED, HeldTransaction, digest
from .messages import BlobBlock, Commit, PrimaryMessage, Store, StoreBlob, Transaction


class Resent:
    """What a primary sends from `held.before` on, up to and including what is held.

    To be given each message until `over`; to be closed.
    """

    def __init__(self, held: HeldTransaction) -> None:
        #: Whether all that follows is to be applied.
        self.over = False
        #: What could not be compared, and why: for the log.
        self.remarks: list[str] = []
        self._held = held
        self._skipped = False
        # The first difference in the transaction that is being sent.
        self._difference: OtherHistory | None = None
        self._sent: Transaction | None = None
        self._records: dict[bytes, bytes] = {}
        # The blob that is being sent: what there is here, and how many blocks are to come.
        self._blob: IO[bytes] | None = None
        self._oid = b""
        self._blocks_left = 0

    def take(self, message: PrimaryMessage) -> bool:
        """Return True for a message that belongs to what is held, False for one to be applied.

        :raises OtherHistory: something else is held; at the end of the transaction that shows it.
        :raises OSError: what is held cannot be read.
        """
        match message:
            case Transaction():
                return self._begin(message)
            case Commit():
                self._finish()
            case _ if self._skipped or self._difference is not None:
                pass
            case BlobBlock(data=data):
                self._compare_block(data)
            case Store(oid=oid, data=data) | StoreBlob(oid=oid, data=data):
                self._records[oid] = digest(data)
                if isinstance(message, StoreBlob):
                    self._begin_blob(message)
        return True

    def close(self) -> None:
        """Give up files. May be called again."""
        blob, self._blob = self._blob, None
        if blob is not None:
            blob.close()

    def _begin(self, sent: Transaction) -> bool:
        held = self._held.header
        self._skipped = sent.tid < held.tid
        if self._skipped:
            if not self._held.gaps:
                self._differs(sent.tid, "which comes before that and is not held here")
        elif sent.tid == held.tid:
            self._sent = sent
            self._compare_header(sent, held)
        elif sent.status == PACKED:
            self.remarks.append("a pack of the primary may have removed it")
            self.over = True
            return False
        else:
            self._differs(
                sent.tid,
                "but not that (unless a pack of the primary has removed it, which cannot be told: "
                "then connect once without comparing)",
            )
        return True

    def _compare_header(self, sent: Transaction, held: Transaction) -> None:
        if sent.status != held.status and {sent.status, held.status} != {" ", PACKED}:
            self._differs(sent.tid, "with another status")
        if sent.user != held.user:
            self._differs(sent.tid, "with another user")
        if sent.description != held.description:
            self._differs(sent.tid, "with another description")
        if sent.extension != held.extension:
            if _may_be_left_out(sent.extension, held.extension):
                self.remarks.append("its extension cannot be carried to every secondary")
            elif _may_be_same(sent.extension, held.extension):
                self.remarks.append("its extension was pickled in another way")
            else:
                self._differs(sent.tid, "with another extension")

    def _begin_blob(self, message: StoreBlob) -> None:
        self._oid = message.oid
        self._blocks_left = message.blocks
        self._blob = self._held.open_blob(message.oid)
        if self._blob is None:
            self.remarks.append(f"the blob of object 0x{message.oid.hex()} is missing here")
        self._end_blob()

    def _compare_block(self, data: bytes) -> None:
        self._blocks_left -= 1
        if self._blob is not None and self._blob.read(len(data)) != data:
            self._record_differs("another blob", self._oid)
        self._end_blob()

    def _end_blob(self) -> None:
        if not self._blocks_left:
            if self._blob is not None and self._blob.read(1):
                self._record_differs("another blob", self._oid)
            self.close()

    def _finish(self) -> None:
        if self._difference is None and self._sent is not None and not self._skipped:
            self._compare_records(self._sent)
        if self._difference is not None:
            raise self._difference
        self.over = not self._skipped

    def _compare_records(self, header: Transaction) -> None:
        held, sent = self._held.records, self._records
        # The records of an undone transaction are void.
        if header.status == "u":
            return
        for oid in held.keys() & sent.keys():
            if held[oid] != sent[oid]:
                self._record_differs("another record", oid)
        if self._held.header.status != PACKED:
            for oid in sent.keys() - held.keys():
                self._record_differs("a record", oid, ", of which none is held here")
        if header.status != PACKED:
            for oid in held.keys() - sent.keys():
                self._record_differs("no record", oid, ", of which one is held here")

    def _differs(self, sent: bytes, what: str) -> None:
        if self._difference is None:
            self._difference = OtherHistory(self._held.before, self._held.header.tid, sent, what)
        self.close()

    def _record_differs(self, what: str, oid: bytes, more: str = "") -> None:
        self._differs(self._held.header.tid, f"with {what} of object 0x{oid.hex()}{more}")


def _may_be_left_out(sent: bytes, held: bytes) -> bool:
    """Return True if one end has an extension and the other end could not be sent it."""
    if sent and held:
        return False
    return why_not_carried(sent or held) is not None


def _may_be_same(sent: bytes, held: bytes) -> bool:
    """Whether two extensions, which are not the same bytes, may be pickles of the same values.

    zc.zrs pickles them anew whenever it sends or receives one, and so do we for Python 2. What only
    an unpickler could tell is given the benefit of the doubt.
    """
    if not (sent and held):
        return False
    try:
        values = [read(each) for each in (sent, held)]
    except PickleError:
        return False
    one, other = (each.root.value for each in values)
    unsure = any(each.has_native_strings or each.shares_containers for each in values)
    return unsure or OPAQUE in (one, other) or bool(one == other)
