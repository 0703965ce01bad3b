"""Files that hold a stream, or what a primary would make one of."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Final

from ...codec import PrimaryConnection, SecondaryConnection
from ...codec.secondary import MAX_PICKLE_SIZE
from ...errors import ConfigurationError, InvalidMessage, LocalProtocolError, NotCarried
from ...messages import (
    BLOB_BLOCK_SIZE,
    NO_TID,
    BlobBlock,
    Commit,
    Hello,
    PrimaryMessage,
    Start,
    Store,
    StoreBlob,
    Transaction,
)
from ...storage.blobs import is_ordinary_record
from ...storage.committed import CommittedFile, Header, Record
from ...storage.fs_format import FIRST_OFFSET, MAGIC
from ...storage.snapshot import BlobFiles, new_transactions

#: Bytes by which the two are told apart.
BEGINNING: Final = 5

# How a pickle of any protocol but 0, and a protocol word, begin.
_FIRST_BYTES: Final = b"(\x80z"


class UnknownTid(ConfigurationError):
    """The transaction to start after is not there."""

    def __init__(self, where: str, tid: bytes, before: bytes, after: bytes | None) -> None:
        near = [
            f"0x{each.hex()} {side} it"
            for each, side in ((before, "before"), (after, "after"))
            if each not in (None, NO_TID)
        ]
        nearest = f"its nearest are {' and '.join(near)}" if near else "it holds none at all"
        super().__init__(f"{where} holds no transaction 0x{tid.hex()}: {nearest}")


def is_file_storage(path: str, begin: bytes) -> bool:
    """Whether a file that begins so is a FileStorage's; else it holds a stream.

    :param begin: its first `BEGINNING` bytes, fewer if it has no more.
    :raises ConfigurationError: it is neither.
    """
    if begin.startswith(MAGIC):
        return True
    if not begin:
        raise ConfigurationError(f"{path} is empty")
    size = int.from_bytes(begin[:4].ljust(4, b"\0"), "big")
    if size > MAX_PICKLE_SIZE or (len(begin) == BEGINNING and begin[4] not in _FIRST_BYTES):
        raise ConfigurationError(
            f"{path} is neither a FileStorage's file, which begins with {MAGIC!r}, nor a stream of "
            f"the protocol, which begins with the length (4 bytes) of a protocol word or of a "
            f"pickle: it begins with {begin!r}"
        )
    return False


def stream_of(
    path: str,
    blob_dir: str | None,
    start: bytes,
    left_out: Callable[[int], object],
    extension_left_out: Callable[[bytes, str], object] = lambda tid, reason: None,
) -> Iterator[bytes]:
    """What a primary would send of a FileStorage's file to one that asks for all after `start`.

    A message at a time, up to the last complete transaction. The file may be in use: it is only
    read.

    :param blob_dir: where its blobs are; records without a blob's file are sent without it.
    :param left_out: called, in the end, with the number of bytes behind that transaction, if there
        are any: of one that is under way, or damaged.
    :param extension_left_out: called with the tid of each transaction that a primary sends without
        its extension, and the reason.
    :raises NotCarried: a primary cannot send the next transaction.
    :raises UnknownTid: there is no transaction `start`.
    :raises UnsuitableStorage: as `BlobFiles`.
    :raises DamagedFile: it is damaged; what comes before that has been sent.
    :raises OSError: it cannot be read.
    """
    primary = PrimaryConnection()
    greeting = SecondaryConnection()
    primary.receive_data(greeting.send(Hello("zrs2.1")) + greeting.send(Start(start)))
    for _ in primary.messages():
        pass
    blobs = None if blob_dir is None else BlobFiles(blob_dir)
    file = CommittedFile(path)
    try:
        for header in _after(file, start):
            try:
                for message in _messages(file, header, blobs):
                    yield b"".join(primary.send_chunks(message, extension_left_out))
            except (InvalidMessage, LocalProtocolError) as error:
                remedy = f"{path} is shown as far as a primary sends it"
                raise NotCarried(header.tid, str(error), remedy) from error
        if (size := file.stat().st_size) > file.end:
            left_out(size - file.end)
    finally:
        file.close()


def _after(file: CommittedFile, start: bytes) -> Iterator[Header]:
    pos, found = FIRST_OFFSET, start == NO_TID
    # The nearest ones, of which there may be several where tids fall.
    before, after = NO_TID, None
    for tid in new_transactions(file):
        if found:
            yield file.header(pos)
        elif tid == start:
            found = True
        elif tid < start:
            before = max(before, tid)
        else:
            after = tid if after is None else min(after, tid)
        pos = file.end
    if not found:
        raise UnknownTid(file.path, start, before, after)


def _messages(
    file: CommittedFile, header: Header, blobs: BlobFiles | None
) -> Iterator[PrimaryMessage]:
    yield Transaction(header.tid, header.status, header.user, header.description, header.extension)
    # The records of an undone transaction are void.
    for record in () if header.status == "u" else file.records(header):
        path = None if blobs is None else _blob_of(record, blobs)
        if path is None:
            yield Store(*record)
        else:
            yield from _blob(record, path)
    yield Commit()


def _blob_of(record: Record, blobs: BlobFiles) -> str | None:
    # An undone creation has no data, and may have a file.
    path = None if is_ordinary_record(record.data) else blobs.path(record.oid, record.tid)
    return path if path is not None and os.path.exists(path) else None


def _blob(record: Record, path: str) -> Iterator[PrimaryMessage]:
    with open(path, "rb") as blob:
        blocks = -(-os.fstat(blob.fileno()).st_size // BLOB_BLOCK_SIZE)
        oid, tid, data, data_txn = record
        yield StoreBlob(oid, tid, data, data_txn, blocks)
        for _ in range(blocks):
            yield BlobBlock(blob.read(BLOB_BLOCK_SIZE))
