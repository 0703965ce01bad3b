"""Bytes of a connection to entries, one a message, also of what is no valid protocol."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Any, Final, NamedTuple

from ...codec import PrimaryConnection, SecondaryConnection
from ...codec.checksum import RunningChecksum
from ...codec.connection import NoMessage
from ...codec.framing import prefix
from ...errors import RemoteProtocolError
from ...messages import (
    NO_TID,
    BlobBlock,
    Commit,
    Hello,
    KeepAlive,
    PrimaryMessage,
    Start,
    Store,
    StoreBlob,
    Transaction,
)
from .classes import class_of
from .searching import PREFIX_SIZE, Walk, find_transaction

# A message that is shorter is fed to the connection whole; of others it sees the length first, so
# that what is too long is not waited for.
_SHORT: Final = 8

#: How the payload of a Hello begins.
_WORD: Final = b"zrs"


class Entry(NamedTuple):
    """One message, or what stands in the place of one.

    `offset` is where it begins in its stream, `length` how many bytes it takes there, length
    prefixes and a record that belongs to it included. `kind` is `hello`, `start`, `keep-alive`,
    `transaction`, `store`, `blob`, `block`, `commit`, `error` (here is something else than what was
    expected; its `length` is 0) or `skipped` (from there to the next transaction). `fields` are
    described in `docs/dump.rst`; tids, oids, checksums and texts are bytes.
    """

    offset: int
    length: int
    kind: str
    fields: dict[str, Any]


class Analyser:
    """What one end has sent, or both one after the other, fed piece by piece. One thread at a time.

    If the stream begins with the greeting of a secondary, what the primary answers may follow it,
    and empty messages between two of the primary's are the secondary's signs of life. Checksums
    are verified from the start in the greeting on, else from one of `starts`.

    After a message that is no valid protocol it goes on with the next one that begins a
    transaction.

    :param starts: what the stream may have been asked for with, where no greeting tells.
    """

    def __init__(self, *starts: bytes) -> None:
        #: What the greeting has named as the start, None as long as there was none.
        self.start: bytes | None = None
        #: How many entries of the kind `error` there were, the first wrong checksum included, and
        #: the offset of the first one.
        self.faults = 0
        self.first_fault = 0
        #: Whether a checksum was right.
        self.verified = False
        self._buffer = bytearray()
        self._greeting: PrimaryConnection | None = None
        self._begun = False
        # The digests of the stream for each start that it may have.
        self._checksums = [RunningChecksum(start) for start in starts or (NO_TID,)]
        self._connection = _connection()
        self._transaction: Transaction | None = None
        self._records = 0
        self._data = 0
        self._blocks = self._blocks_left = 0
        # Where the present message begins, and the bytes of it that came before its last frame.
        self._offset = 0
        self._before = 0
        # Whether the connection knows the length of the frame that is to come.
        self._told = False
        # Goes over what cannot be read, None while all can be.
        self._walk: Walk | None = None
        # Whether it has just found where a transaction begins.
        self._found = False
        #: Whether a checksum was wrong: then all after it are.
        self.wrong = False

    def feed(self, data: bytes) -> Iterator[Entry]:
        """The entries that are complete with these bytes.

        They are to be taken before anything else is fed.
        """
        self._buffer += data
        while self._walk is None or (yield from self._search()):
            if len(self._buffer) < PREFIX_SIZE:
                return
            size = int.from_bytes(self._buffer[:PREFIX_SIZE], "big")
            if size > _SHORT and not self._told:
                yield from self._announce(size)
                continue
            end = PREFIX_SIZE + size
            if len(self._buffer) < end:
                return
            payload = bytes(self._buffer[PREFIX_SIZE:end])
            del self._buffer[:end]
            yield from self._frame(payload)
            self._told = False

    def end(self) -> Iterator[Entry]:
        """The stream has ended: the entries that are left."""
        waiting = len(self._buffer)
        if self._walk is not None:
            self._walk.over(bytes(self._buffer))
            yield from self._end_of_loss(self._walk)
        elif waiting:
            whole = "a length prefix"
            if waiting >= PREFIX_SIZE:
                size = int.from_bytes(self._buffer[:PREFIX_SIZE], "big")
                whole = f"a message of {size + PREFIX_SIZE} bytes"
            yield self._fault(f"the stream ends {waiting} bytes into {whole}")
        elif self._transaction is not None or self._before:
            yield self._fault("the stream ends here")

    # -- frames

    def _announce(self, size: int) -> Iterator[Entry]:
        """Let whoever reads the next frame see its length, which may be refused."""
        self._told = True
        connection = self._greeting if self._greeting and self._greets else self._connection
        connection.receive_data(prefix(size))
        try:
            connection.next_message()
        except RemoteProtocolError as error:
            yield self._fault(error.reason)
            self._lose()

    def _frame(self, payload: bytes) -> Iterator[Entry]:
        if not self._begun:
            self._begun = True
            if payload.startswith(_WORD):
                self._greeting = PrimaryConnection(blobs=False)
                if self._told:
                    self._greeting.receive_data(prefix(len(payload)))
        if self._greets:
            yield from self._greet(payload)
        elif self.start is not None and not payload and not self._expects_data:
            yield self._entry("keep-alive", PREFIX_SIZE, {})
        else:
            yield from self._read(payload)

    def _entry(self, kind: str, length: int, fields: dict[str, Any]) -> Entry:
        entry = Entry(self._offset, length, kind, fields)
        self._offset += length
        self._before = 0
        self._found = kind == "skipped"
        return entry

    # -- the greeting

    @property
    def _greets(self) -> bool:
        """Whether the greeting of a secondary is still under way."""
        return self._greeting is not None and self.start is None and self._greeting.error is None

    def _greet(self, payload: bytes) -> Iterator[Entry]:
        greeting = self._greeting
        if greeting is None:
            return
        length = PREFIX_SIZE + len(payload)
        greeting.receive_data(payload if self._told else prefix(len(payload)) + payload)
        try:
            message = greeting.next_message()
        except RemoteProtocolError as error:
            yield from self._fail(error.reason, payload)
            return
        match message:
            case Hello(protocol=word):
                yield self._entry("hello", length, {"protocol": word})
            case Start(tid=tid):
                self.start = tid
                self._checksums = [RunningChecksum(tid)]
                self._connection = _connection(tid)
                yield self._entry("start", length, {"tid": tid})
            case KeepAlive():
                yield self._entry("keep-alive", length, {})

    # -- what the primary says

    @property
    def _expects_data(self) -> bool:
        return bool(self._before or self._blocks_left)

    def _read(self, payload: bytes) -> Iterator[Entry]:
        frame = PREFIX_SIZE + len(payload)
        self._connection.receive_data(payload if self._told else prefix(len(payload)) + payload)
        try:
            message = self._connection.next_message()
        except RemoteProtocolError as error:
            yield from self._fail(error.reason, payload)
            return
        if isinstance(message, NoMessage):
            # A header, whose record is the next frame.
            self._update(payload)
            self._before += frame
            return
        length = self._before + frame
        fields = self._describe(message)
        # It covers what came before the commit.
        self._update(payload)
        kind = _KINDS[type(message)]
        entry = self._entry(kind, length, fields)
        if fields.get("checksum_is") == "wrong" and not self.wrong:
            self.wrong = True
            self._count_fault(entry)
        yield entry

    def _update(self, payload: bytes) -> None:
        for checksum in self._checksums:
            checksum.update(payload)

    def _describe(self, message: PrimaryMessage) -> dict[str, Any]:
        tid = None if self._transaction is None else self._transaction.tid
        match message:
            case Transaction():
                self._transaction = message
                self._records = self._data = 0
                return {
                    "tid": message.tid,
                    "status": message.status,
                    "user": message.user,
                    "description": message.description,
                    "extension_size": len(message.extension),
                }
            case Store() | StoreBlob():
                self._records += 1
                self._data += len(message.data)
                fields = {
                    "tid": tid,
                    "oid": message.oid,
                    "size": len(message.data),
                    "class": class_of(message.data),
                    "data_txn": message.data_txn,
                }
                if isinstance(message, StoreBlob):
                    fields["blocks"] = self._blocks = self._blocks_left = message.blocks
                return fields
            case BlobBlock(data=data):
                self._blocks_left -= 1
                self._data += len(data)
                number = self._blocks - self._blocks_left
                return {"tid": tid, "block": number, "blocks": self._blocks, "size": len(data)}
            case Commit(checksum=checksum):
                self._transaction = None
                return {
                    "tid": tid,
                    "records": self._records,
                    "size": self._data,
                    "checksum": checksum,
                    "checksum_is": self._verdict(checksum),
                }

    def _verdict(self, checksum: bytes | None) -> str:
        if checksum is None:
            return "missing"
        if not self._checksums:
            return "unverifiable"
        right = [each for each in self._checksums if each.digest() == checksum]
        if not right:
            return "wrong"
        self._checksums = right
        self.verified = True
        return "verified"

    # -- what is no valid protocol

    def _expected(self) -> str:
        if self._greeting is not None and self.start is None:
            return "a protocol word, zrs2.0 or zrs2.1, and then a start of 8 bytes"
        if self._blocks_left:
            number = self._blocks - self._blocks_left + 1
            most = "1 to 65,536" if self._blocks_left == 1 else "65,536"
            return f"block {number} of {self._blocks} of a blob, {most} bytes"
        if self._before:
            return "the record that was announced before"
        if self._transaction is not None:
            return "S, B or C, for a record, a blob or the commit"
        silence = "" if self.start is None else ", or an empty message from the secondary"
        return f"T, the beginning of a transaction{silence}"

    def _fail(self, reason: str, payload: bytes) -> Iterator[Entry]:
        """A whole message is no valid protocol; perhaps its length is what is wrong."""
        yield self._fault(reason)
        self._buffer[:0] = prefix(len(payload)) + payload
        self._lose()

    def _fault(self, reason: str) -> Entry:
        fields: dict[str, Any] = {"reason": reason, "expected": self._expected()}
        if self._transaction is not None:
            fields["tid"] = self._transaction.tid
        entry = Entry(self._offset + self._before, 0, "error", fields)
        self._count_fault(entry)
        return entry

    def _count_fault(self, entry: Entry) -> None:
        if not self.faults:
            self.first_fault = entry.offset
        self.faults += 1

    def _lose(self) -> None:
        """What comes now cannot be read, until a transaction begins."""
        self._connection = _connection()
        self._transaction = None
        self._blocks_left = 0
        self._told = False
        walk = self._walk = Walk(self._update)
        if self._found:
            # Nor can the one that was found last.
            walk.over(bytes(self._buffer[:1]))
            del self._buffer[:1]

    def _search(self) -> Generator[Entry, None, bool]:
        """Skip what comes before the next transaction; whether it is found."""
        walk = self._walk
        if walk is None:
            return True
        place, found = find_transaction(self._buffer)
        walk.over(bytes(self._buffer[:place]))
        del self._buffer[:place]
        if found:
            yield from self._end_of_loss(walk)
        return found

    def _end_of_loss(self, walk: Walk) -> Iterator[Entry]:
        self._walk = None
        if not walk.at_end:
            # What a checksum covers is not known any more.
            self._checksums = []
        self._found = True
        # What was read of a message that is not complete belongs to it.
        length = self._before + walk.size
        if length:
            messages = walk.messages + bool(self._before) if walk.at_end else None
            yield self._entry("skipped", length, {"messages": messages})


_KINDS: Final[dict[type, str]] = {
    Transaction: "transaction",
    Store: "store",
    StoreBlob: "blob",
    BlobBlock: "block",
    Commit: "commit",
}


def _connection(start: bytes = NO_TID) -> SecondaryConnection:
    """One that may be sent transactions; checksums are looked at here."""
    connection = SecondaryConnection(checksums="ignore")
    connection.send(Hello("zrs2.1"))
    connection.send(Start(start))
    return connection
