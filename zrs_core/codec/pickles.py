"""Messages to pickles and back (protocol, sections 3 and 4).

Reading takes every spelling that peers write, and executes none. Writing has two: `PickleWriter`
writes protocol 3, and `PeerPickleWriter` protocol 1, byte for byte as Python 3 peers do.

The shapes::

    ('T', (tid, status, user, description, extension))
    ('S', (oid, serial, version, data_txn))                     a data message follows
    ('S', (oid, serial, version, data, data_txn))               the older dialect
    ('B', (oid, serial, version, data_txn, blocks))             a data message, then the blocks
    ('C', (md5,))
    ('C', ())                                                   the older dialect
"""

from __future__ import annotations

import struct
from typing import Any, NamedTuple, Protocol

from ..errors import InvalidMessage
from ..messages import Commit, Store, StoreBlob, Transaction
from . import extension, patterns
from .extension import encode_bytes, encode_latin1
from .opcodes import Node, Pickle, PickleError, read


class RecordHeader(NamedTuple):
    """An S or B whose record is still to come as a data message; `blocks` is None for S.

    Its fields are checked by `with_data`.
    """

    oid: bytes
    serial: bytes
    data_txn: bytes | None
    blocks: int | None

    def with_data(self, data: bytes) -> Store | StoreBlob:
        """The whole message, its record included.

        :raises InvalidMessage: a field breaks the schema.
        """
        if self.blocks is None:
            return Store(self.oid, self.serial, data, self.data_txn)
        return StoreBlob(self.oid, self.serial, data, self.data_txn, self.blocks)


def decode(payload: bytes) -> Transaction | RecordHeader | Store | Commit:
    """The message in a pickle; `Store` for the older dialect, which brings its record along.

    :param payload: one message without its length prefix.
    :raises PickleError: it is no well-formed pickle of one of the shapes.
    :raises InvalidMessage: a field breaks the schema.
    """
    found = patterns.find(payload)
    return decode_opcodes(payload) if found is None else _from_fields(*found)


def decode_opcodes(payload: bytes) -> Transaction | RecordHeader | Store | Commit:
    """Return the same as `decode`, more slowly: without the patterns."""
    message = read(payload)
    match message.root.items:
        case [tag, Node(items=list(fields), close=close)]:
            return _from_nodes(message, tag, fields, close)
    raise PickleError("it is not a pair of a tag and a tuple")


def _from_nodes(
    message: Pickle, tag: Node, fields: list[Node], close: int
) -> Transaction | RecordHeader | Store | Commit:
    match (tag.value, *(field.value for field in fields)):
        case ("T" | b"T", tid, status, user, description, _):
            if isinstance(status, bytes):
                status = status.decode("latin-1")
            return Transaction(tid, status, user, description, _extension(message, fields, close))
        case ("S" | b"S", oid, serial, version, data_txn):
            _check_version(version)
            return RecordHeader(oid, serial, data_txn, None)
        case ("S" | b"S", oid, serial, version, data, data_txn):
            _check_version(version)
            return Store(oid, serial, b"" if data is None else data, data_txn)
        case ("B" | b"B", oid, serial, version, data_txn, blocks):
            _check_version(version)
            # None would pass as an S.
            if blocks is None:
                raise InvalidMessage("blocks must be a number, not None")
            return RecordHeader(oid, serial, data_txn, blocks)
        case ("C" | b"C", md5):
            # None would pass as a commit of the older dialect, which has no field at all.
            if md5 is None:
                raise InvalidMessage("checksum must be 16 bytes, not None")
            return Commit(md5)
        case ("C" | b"C",):
            return Commit()
    raise PickleError("it is no T, S, B or C with its fields")


def _from_fields(
    tag: str, fields: list[Any], blocks: int
) -> Transaction | RecordHeader | Store | Commit:
    if tag == "C":
        return Commit(*fields)
    if tag == "T":
        tid, status, user, description = fields
        return Transaction(tid, status.decode("ascii"), user, description)
    oid, serial, data_txn = fields
    return RecordHeader(oid, serial, data_txn, blocks if tag == "B" else None)


def _check_version(version: object) -> None:
    if version not in ("", b""):
        raise InvalidMessage("version must be empty: ZODB has no versions any more")


def _extension(message: Pickle, fields: list[Node], close: int) -> bytes:
    before, node = fields[-2:]
    if not node.may_be_dict:
        raise InvalidMessage("extension must be a dict")
    if node.value == {} and not message.shares_containers:
        return b""
    return extension.cut_out(message, before, close)


class Writer(Protocol):
    """Writes messages as pickles; commits are given their digest."""

    def transaction(self, message: Transaction) -> bytes:
        """The pickle of a T.

        :raises PickleError: the extension is not the pickle of a dict.
        """

    def record(self, message: Store | StoreBlob) -> bytes:
        """The pickle of an S or B, its record left out."""

    def commit(self, digest: bytes) -> bytes:
        """The pickle of a C with a checksum."""


class PickleWriter:
    """Protocol 3, where bytes are native: half the size of protocol 1, a fifth of its cost.

    A T takes the protocol of its extension instead (`extension.splice`).
    """

    def transaction(self, message: Transaction) -> bytes:
        proto, framed, body = extension.splice(message.extension)
        rest = b"".join(
            (
                b"X\x01\0\0\0T(C\x08",
                message.tid,
                b"X\x01\0\0\0",
                message.status.encode("ascii"),
                encode_bytes(message.user),
                encode_bytes(message.description),
                body,
                b"t\x86.",
            )
        )
        return proto + (extension.frame(len(rest)) if framed else b"") + rest

    def record(self, message: Store | StoreBlob) -> bytes:
        tag, blocks = _tag_and_blocks(message)
        data_txn = b"N" if message.data_txn is None else b"C\x08" + message.data_txn
        return (b"\x80\x03X\x01\0\0\0%b(C\x08%bC\x08%bX\0\0\0\0%b%bt\x86.") % (
            tag,
            message.oid,
            message.serial,
            data_txn,
            blocks,
        )

    def commit(self, digest: bytes) -> bytes:
        return b"\x80\x03X\x01\0\0\0C(C\x10%bt\x86." % digest


class PeerPickleWriter:
    """Protocol 1 without a memo, byte for byte what Python 3 peers write.

    Python 2 receivers can read it.
    """

    def transaction(self, message: Transaction) -> bytes:
        return b"(X\x01\0\0\0T(%bX\x01\0\0\0%b%b%b%btt." % (
            encode_latin1(message.tid),
            message.status.encode("ascii"),
            encode_latin1(message.user),
            encode_latin1(message.description),
            extension.for_protocol_1(message.extension),
        )

    def record(self, message: Store | StoreBlob) -> bytes:
        tag, blocks = _tag_and_blocks(message)
        return b"(X\x01\0\0\0%b(%b%bX\0\0\0\0%b%btt." % (
            tag,
            encode_latin1(message.oid),
            encode_latin1(message.serial),
            b"N" if message.data_txn is None else encode_latin1(message.data_txn),
            blocks,
        )

    def commit(self, digest: bytes) -> bytes:
        return b"(X\x01\0\0\0C(%btt." % encode_latin1(digest)


#: Writers by pickle protocol.
WRITERS: dict[int, Writer] = {1: PeerPickleWriter(), 3: PickleWriter()}


def _tag_and_blocks(message: Store | StoreBlob) -> tuple[bytes, bytes]:
    if isinstance(message, Store):
        return b"S", b""
    return b"B", _encode_count(message.blocks)


def _encode_count(count: int) -> bytes:
    """A number from 0 to 2**32 - 1, as Python's pickler writes it below protocol 2."""
    if count < 1 << 8:
        return struct.pack("<cB", b"K", count)
    if count < 1 << 16:
        return struct.pack("<cH", b"M", count)
    if count < 1 << 31:
        return struct.pack("<ci", b"J", count)
    return b"L%dL\n" % count
