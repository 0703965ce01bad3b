"""The messages that this package itself writes, whole runs of them at once.

In protocol 3 the messages of small transactions have exact shapes. So a run of them can be written
and read by comparing and cutting bytes, several times as fast as message by message::

    T   4 length   80 03 X 01000000 T ( C 08 tid X 01000000 status
                   C size user  C size description  } t 86 .
    S   4 length   80 03 X 01000000 S ( C 08 oid C 08 serial X 00000000 N t 86 .
        4 length   the record
    C   4 length   80 03 X 01000000 C ( C 10 digest t 86 .

So have all blocks of a blob but the last one: the length 65,536, and as many bytes.

`read_run` and `read_blocks` take what has these shapes, is complete and is legal where it stands,
and leave the rest where it is, for the reader of all spellings and the state table. They decide
nothing that these would decide otherwise, and refuse nothing themselves.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

from ..messages import (
    BLOB_BLOCK_SIZE,
    MAX_TID,
    STATUSES,
    BlobBlock,
    Commit,
    PrimaryMessage,
    Store,
    Transaction,
    unchecked_store,
    unchecked_transaction,
)
from .checksum import RunningChecksum
from .framing import MAX_PAYLOAD_SIZE

_LENGTH: Final = struct.Struct(">I")

_T_HEAD: Final = b"\x80\x03X\x01\0\0\0T(C\x08"
_T_STATUS: Final = b"X\x01\0\0\0"
_T_TAIL: Final = b"}t\x86."
_S_HEAD: Final = b"\x80\x03X\x01\0\0\0S(C\x08"
_S_SERIAL: Final = b"C\x08"
_S_TAIL: Final = b"X\0\0\0\0Nt\x86."
_C_HEAD: Final = b"\x80\x03X\x01\0\0\0C(C\x10"
_C_TAIL: Final = b"t\x86."

_S_SIZE: Final = len(_S_HEAD) + 8 + len(_S_SERIAL) + 8 + len(_S_TAIL)
_C_SIZE: Final = len(_C_HEAD) + 16 + len(_C_TAIL)
_S_LENGTH: Final = _LENGTH.pack(_S_SIZE)
_S_OPENING: Final = _S_LENGTH + _S_HEAD
_C_LENGTH: Final = _LENGTH.pack(_C_SIZE)
_C_OPENING: Final = _C_LENGTH + _C_HEAD
_T_PICKLE: Final = _T_HEAD + b"%b" + _T_STATUS + b"%bC%c%bC%c%b" + _T_TAIL

#: Bytes in the longest pickle that is read here: a T with two texts of 255 bytes.
MAX_PICKLE_SIZE: Final = len(_T_HEAD) + 8 + len(_T_STATUS) + 1 + 2 * (2 + 255) + len(_T_TAIL)

_BLOCK_LENGTH: Final = _LENGTH.pack(BLOB_BLOCK_SIZE)

# Where the parts of an S begin, behind its first byte.
_S_OID: Final = len(_S_OPENING)
_S_CLOSING: Final = _S_OID + 8
_S_DATA_LENGTH: Final = 4 + _S_SIZE
_S_DATA: Final = _S_DATA_LENGTH + 4


# Records from this size on go out as they are; below it, copying costs less than one chunk more.
_OWN_CHUNK: Final = 16 * 1024


class Written(NamedTuple):
    """What was written: which message comes next, and the state there."""

    next: int
    tid: bytes | None
    last_tid: bytes


def write_run(
    messages: Sequence[PrimaryMessage],
    begin: int,
    tid: bytes | None,
    last_tid: bytes,
    checksum: RunningChecksum,
    chunks: list[bytes],
) -> Written:
    """Write `messages`, from the one at `begin` on, that have the shapes above.

    :param tid: the transaction that is under way; None between two.
    :param last_tid: the one before.
    :param checksum: of the stream so far; it goes along.
    :param chunks: where the bytes are added; large records are the very objects of the messages.
    """
    update, length_of = checksum.update, _LENGTH.pack
    closing = b"" if tid is None else _closing(tid)
    small: list[bytes] = []
    for place in range(begin, len(messages)):
        message = messages[place]
        if type(message) is Store:
            data = message.data
            if message.serial != tid or message.data_txn is not None:
                break
            if len(data) > MAX_PAYLOAD_SIZE:
                break
            pickled = _S_HEAD + message.oid + closing
            update(pickled)
            update(data)
            small += (_S_LENGTH, pickled, length_of(len(data)))
            if len(data) < _OWN_CHUNK:
                small.append(data)
            else:
                chunks += (b"".join(small), data)
                small = []
        elif type(message) is Commit:
            if tid is None:
                break
            pickled = _C_HEAD + checksum.digest() + _C_TAIL
            update(pickled)
            small += (_C_LENGTH, pickled)
            last_tid, tid = tid, None
        else:
            if type(message) is not Transaction or tid is not None or message.tid <= last_tid:
                break
            user, description = message.user, message.description
            if message.extension or len(user) > 255 or len(description) > 255:
                break
            tid = message.tid
            closing = _closing(tid)
            pickled = _T_PICKLE % (
                tid,
                message.status.encode("ascii"),
                len(user),
                user,
                len(description),
                description,
            )
            update(pickled)
            small += (length_of(len(pickled)), pickled)
    else:
        place = len(messages)
    if small:
        chunks.append(b"".join(small))
    return Written(place, tid, last_tid)


def write_blocks(
    messages: Sequence[PrimaryMessage],
    begin: int,
    left: int,
    checksum: RunningChecksum,
    chunks: list[bytes],
) -> int:
    """Write whole blocks of a blob, from the message at `begin` on; how many they are.

    :param left: how many are left of the blob.
    :param checksum: as for `write_run`; and so are `chunks`.
    """
    place = begin
    for message in messages[begin : begin + left]:
        if type(message) is not BlobBlock or len(message.data) != BLOB_BLOCK_SIZE:
            break
        checksum.update(message.data)
        chunks += (_BLOCK_LENGTH, message.data)
        place += 1
    return place - begin


class Run(NamedTuple):
    """What was read: the messages, where the next one begins, and the state there.

    `checksums` is the number of commits; `mismatch` is True if the checksum of one did not match.
    """

    messages: list[PrimaryMessage]
    end: int
    tid: bytes | None
    last_tid: bytes
    checksums: int
    mismatch: bool = False


def read_run(
    buffer: bytes,
    begin: int,
    tid: bytes | None,
    last_tid: bytes,
    checksum: RunningChecksum,
    *,
    check: bool,
    max_record_size: int,
) -> Run:
    """Read from `buffer`, from `begin` on, what has the shapes above.

    :param tid: the transaction that is under way; None between two.
    :param last_tid: the one before.
    :param checksum: of the stream before `begin`; it goes along.
    :param check: whether a commit's checksum must match.
    :param max_record_size: a record that is larger is left.
    """
    messages: list[PrimaryMessage] = []
    append = messages.append
    update = checksum.update
    starts, length_at = buffer.startswith, _LENGTH.unpack_from
    available = len(buffer)
    pos = begin
    checksums = 0
    mismatch = False
    closing = b"" if tid is None else _closing(tid)
    while True:
        if tid is not None:
            data = pos + _S_DATA
            if starts(_S_OPENING, pos) and starts(closing, pos + _S_CLOSING) and data <= available:
                size = length_at(buffer, data - 4)[0]
                end = data + size
                if end > available or size > max_record_size:
                    break
                content = buffer[data:end]
                update(buffer[pos + 4 : data - 4])
                update(content)
                oid = buffer[pos + _S_OID : pos + _S_CLOSING]
                append(unchecked_store(oid, tid, content, None))
                pos = end
                continue
            found = _read_commit(buffer, pos)
            if found is None:
                break
            if found != checksum.digest():
                if check:
                    break
                mismatch = True
            end = pos + 4 + _C_SIZE
            append(Commit(found))
            checksums += 1
            last_tid, tid = tid, None
        else:
            end = _end(buffer, pos)
            transaction = _read_transaction(buffer, pos + 4, end)
            if transaction is None or transaction.tid <= last_tid:
                break
            append(transaction)
            tid = transaction.tid
            closing = _closing(tid)
        update(buffer[pos + 4 : end])
        pos = end
    return Run(messages, pos, tid, last_tid, checksums, mismatch)


def read_blocks(
    buffer: bytes, begin: int, left: int, checksum: RunningChecksum
) -> tuple[list[PrimaryMessage], int]:
    """Read whole blocks of a blob from `buffer`; they, and where the next message begins.

    :param left: how many are left of the blob.
    :param checksum: as for `read_run`.
    """
    blocks: list[PrimaryMessage] = []
    pos = begin
    while len(blocks) < left and buffer.startswith(_BLOCK_LENGTH, pos):
        end = pos + 4 + BLOB_BLOCK_SIZE
        if end > len(buffer):
            break
        data = buffer[pos + 4 : end]
        checksum.update(data)
        blocks.append(BlobBlock(data))
        pos = end
    return blocks, pos


def _closing(tid: bytes) -> bytes:
    """What follows the oid in each S of transaction `tid`."""
    return _S_SERIAL + tid + _S_TAIL


def _end(buffer: bytes, pos: int) -> int:
    """Where the message at `pos` ends: `pos` itself if it is not complete."""
    if pos + 4 > len(buffer):
        return pos
    end: int = pos + 4 + _LENGTH.unpack_from(buffer, pos)[0]
    return end if end <= len(buffer) else pos


def _read_commit(buffer: bytes, pos: int) -> bytes | None:
    """The checksum in the C at `pos`."""
    digest = pos + len(_C_OPENING)
    tail = digest + 16
    if buffer.startswith(_C_OPENING, pos) and buffer.startswith(_C_TAIL, tail):
        return buffer[digest:tail]
    return None


def _read_transaction(buffer: bytes, pos: int, end: int) -> Transaction | None:
    """The T whose pickle stands from `pos` to `end`."""
    tid = pos + len(_T_HEAD)
    status = tid + 8 + len(_T_STATUS)
    user = status + 1
    if not buffer.startswith(_T_HEAD, pos, end) or not buffer.startswith(_T_STATUS, tid + 8, end):
        return None
    description = _text_end(buffer, user, end)
    tail = _text_end(buffer, description, end)
    if not tail or tail + len(_T_TAIL) != end or not buffer.startswith(_T_TAIL, tail):
        return None
    if buffer[tid : tid + 8] > MAX_TID or chr(buffer[status]) not in STATUSES:
        return None
    return unchecked_transaction(
        buffer[tid : tid + 8],
        chr(buffer[status]),
        buffer[user + 2 : description],
        buffer[description + 2 : tail],
    )


def _text_end(buffer: bytes, pos: int, end: int) -> int:
    """Where the bytes of fewer than 256 end that are written at `pos`; 0 if there are none."""
    if not pos or pos + 2 > end or buffer[pos] != ord("C"):
        return 0
    return pos + 2 + buffer[pos + 1]
