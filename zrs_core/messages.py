"""The values that travel: what the secondary asks with and what the primary answers with.

All are immutable and check their fields when built, so that a message that exists is a message
that may be sent. The schema is that of the protocol document, sections 2 and 3.

Ids (tid, oid, serial, data_txn) are 8 bytes, big-endian. Text fields are bytes: ZODB does not say
which encoding an application used.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

from .errors import InvalidMessage

#: The id of no transaction: what a secondary that holds nothing starts from.
NO_TID = b"\0" * 8

#: The highest tid: the time stamps of those above it are no times any more (ZODB.utils.maxtid).
MAX_TID = b"\x7f" + b"\xff" * 7

#: Bytes in each block of a blob but the last, which holds 1 to this many.
BLOB_BLOCK_SIZE = 65_536

#: The most bytes that FileStorage keeps of a user, a description or an extension: their lengths
#: are 2-byte numbers in its transaction header.
MAX_METADATA_SIZE = 65_535

#: The most blocks that a blob may be announced with: 256 TiB.
MAX_BLOB_BLOCKS = 2**32 - 1

#: Transaction status: done, packed, or undone (written by very old ZODBs; its records are void).
STATUSES = (" ", "p", "u")


def _check_bytes(name: str, value: object) -> bytes:
    if type(value) is not bytes:
        raise InvalidMessage(f"{name} must be bytes, not {type(value).__name__}")
    return value


def _check_id(name: str, value: object) -> None:
    if type(value) is not bytes or len(value) != 8:
        raise InvalidMessage(f"{name} must be 8 bytes, not {_shorten(value)}")


def _check_metadata(name: str, value: object) -> None:
    size = len(_check_bytes(name, value))
    if size > MAX_METADATA_SIZE:
        raise InvalidMessage(f"{name} has {size} bytes, more than {MAX_METADATA_SIZE}")


def _shorten(value: object) -> str:
    """`value` in a few characters: what a peer sent must not flood a log."""
    if isinstance(value, (bytes, str)) and len(value) > 16:
        return f"{value[:16]!r}... ({len(value)} long)"
    if isinstance(value, (bytes, str, type(None))) or (
        isinstance(value, int) and value.bit_length() <= 64
    ):
        return repr(value)
    return f"a value of type {type(value).__name__}"


@dataclass(frozen=True, slots=True)
class Hello:
    """The secondary's first message: the protocol word, ASCII, 8 bytes at most."""

    protocol: str

    def __post_init__(self) -> None:
        if type(self.protocol) is not str:
            raise InvalidMessage(f"protocol must be str, not {type(self.protocol).__name__}")
        if not (self.protocol.isascii() and 0 < len(self.protocol) <= 8):
            raise InvalidMessage(
                f"protocol must be 1 to 8 ASCII characters, not {_shorten(self.protocol)}"
            )


@dataclass(frozen=True, slots=True)
class Start:
    """The secondary's second message: the last tid it holds, `NO_TID` for none."""

    tid: bytes

    def __post_init__(self) -> None:
        _check_id("tid", self.tid)


@dataclass(frozen=True, slots=True)
class KeepAlive:
    """The secondary's empty message: it is still there."""


@dataclass(frozen=True, slots=True)
class Transaction:
    """T: a transaction begins.

    `user`, `description` and `extension` hold 65,535 bytes at most each. `extension` is the
    pickle of a dict, never loaded here, as `extension_bytes` of a ZODB transaction; empty for
    an empty dict.
    """

    tid: bytes
    status: str = " "
    user: bytes = b""
    description: bytes = b""
    extension: bytes = b""

    def __post_init__(self) -> None:
        user, description, extension = self.user, self.description, self.extension
        _check_id("tid", self.tid)
        if self.tid > MAX_TID:
            raise InvalidMessage(f"tid 0x{self.tid.hex()} is above the highest, 0x{MAX_TID.hex()}")
        if self.status not in STATUSES:
            raise InvalidMessage(f"status must be ' ', 'p' or 'u', not {_shorten(self.status)}")
        if type(user) is type(description) is type(extension) is bytes and (
            len(user) + len(description) + len(extension) <= MAX_METADATA_SIZE
        ):
            return
        _check_metadata("user", user)
        _check_metadata("description", description)
        _check_metadata("extension", extension)


@dataclass(frozen=True, slots=True)
class Store:
    """S: one record of the transaction.

    `data` is empty for a record without data (the creation of the object was undone).
    `data_txn` names the earlier transaction that holds the same data, if there is one.
    """

    oid: bytes
    serial: bytes
    data: bytes = b""
    data_txn: bytes | None = None

    def __post_init__(self) -> None:
        _check_id("oid", self.oid)
        _check_id("serial", self.serial)
        _check_bytes("data", self.data)
        if self.data_txn is not None:
            _check_id("data_txn", self.data_txn)


@dataclass(frozen=True, slots=True)
class StoreBlob:
    """B: one record whose object is a blob; `blocks` messages `BlobBlock` follow."""

    oid: bytes
    serial: bytes
    data: bytes
    data_txn: bytes | None
    blocks: int

    def __post_init__(self) -> None:
        _check_id("oid", self.oid)
        _check_id("serial", self.serial)
        _check_bytes("data", self.data)
        if self.data_txn is not None:
            _check_id("data_txn", self.data_txn)
        if type(self.blocks) is not int or not 0 <= self.blocks <= MAX_BLOB_BLOCKS:
            raise InvalidMessage(
                f"blocks must be a number from 0 to {MAX_BLOB_BLOCKS}, not {_shorten(self.blocks)}"
            )


@dataclass(frozen=True, slots=True)
class BlobBlock:
    """A piece of a blob: 65,536 bytes, the last one of a blob 1 to 65,536."""

    data: bytes

    def __post_init__(self) -> None:
        if not 0 < len(_check_bytes("data", self.data)) <= BLOB_BLOCK_SIZE:
            raise InvalidMessage(
                f"a blob block has 1 to {BLOB_BLOCK_SIZE} bytes, not {len(self.data)}"
            )


@dataclass(frozen=True, slots=True)
class Commit:
    """C: the transaction is complete.

    `checksum` is the MD5 (16 bytes) that came with it, None where the peer sent none. A sender
    leaves it out, the connection knows it; so it does not count when commits are compared.
    """

    checksum: bytes | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if self.checksum is not None and len(_check_bytes("checksum", self.checksum)) != 16:
            raise InvalidMessage(f"checksum must be 16 bytes, not {_shorten(self.checksum)}")


# What has read a field from where it must have the right shape need not check it again. Half of the
# cost of a small record was in that; these go past `__init__` and the lock on a frozen instance.
_new = object.__new__
_set_oid, _set_serial, _set_data, _set_data_txn = (
    vars(Store)[name].__set__ for name in ("oid", "serial", "data", "data_txn")
)
_set_tid, _set_status, _set_user, _set_description, _set_extension = (
    vars(Transaction)[name].__set__
    for name in ("tid", "status", "user", "description", "extension")
)


def unchecked_store(oid: bytes, serial: bytes, data: bytes, data_txn: bytes | None) -> Store:
    """A `Store` of fields that are known to be right: ids of 8 bytes, and bytes."""
    store = _new(Store)
    _set_oid(store, oid)
    _set_serial(store, serial)
    _set_data(store, data)
    _set_data_txn(store, data_txn)
    return store


def unchecked_transaction(tid: bytes, status: str, user: bytes, description: bytes) -> Transaction:
    """A `Transaction` without an extension, of fields that are known to be right."""
    transaction = _new(Transaction)
    _set_tid(transaction, tid)
    _set_status(transaction, status)
    _set_user(transaction, user)
    _set_description(transaction, description)
    _set_extension(transaction, b"")
    return transaction


#: What a secondary sends.
SecondaryMessage: TypeAlias = Hello | Start | KeepAlive

#: What a primary sends.
PrimaryMessage: TypeAlias = Transaction | Store | StoreBlob | BlobBlock | Commit
