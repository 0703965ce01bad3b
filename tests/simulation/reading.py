"""What a simulated machine's files hold, read past everything that is to be tested."""

from __future__ import annotations

import struct
from typing import NamedTuple

from .disk import Directory, Disk, File

_TRANSACTION = struct.Struct(">8sQcHHH")
_RECORD = struct.Struct(">8s8sQQHQ")
_NUMBER = struct.Struct(">Q")
FIRST = 4


class Held(NamedTuple):
    """A record: its object, its data (empty for none), where they came from, and its blob."""

    oid: bytes
    data: bytes
    data_txn: bytes | None
    blob: bytes | None


class Transaction(NamedTuple):
    tid: bytes
    status: str
    user: bytes
    description: bytes
    extension: bytes
    records: tuple[Held, ...]


class Damaged(Exception):
    """The file is none of a FileStorage."""


def transactions(
    disk: Disk, begin: int, end: int, *, unfinished: bool = False
) -> list[tuple[int, Transaction]]:
    """The transactions between two positions, each with the place where the next begins.

    :param unfinished: they may end before `end`, with one that is not whole.
    """
    data = bytes(data_file(disk).data)
    found = []
    while begin < end:
        try:
            transaction, begin = _transaction(disk, data, begin)
        except Damaged:
            if unfinished:
                return found
            raise
        found.append((begin, transaction))
    if begin != end:
        raise Damaged(f"a transaction goes on beyond the end {end}, to {begin}")
    return found


def data_file(disk: Disk) -> File:
    file = disk.top.entries.get("Data.fs")
    if file is None:
        raise Damaged("there is no file")
    return file


def _transaction(disk: Disk, data: bytes, begin: int) -> tuple[Transaction, int]:
    try:
        tid, length, status, *sizes = _TRANSACTION.unpack_from(data, begin)
        end = begin + length
        pos = begin + _TRANSACTION.size
        texts = []
        for size in sizes:
            texts.append(data[pos : pos + size])
            pos += size
        records = []
        while pos < end:
            oid, serial, _, there, _, size = _RECORD.unpack_from(data, pos)
            if there != begin or serial != tid:
                raise Damaged(f"the record at {pos} is none of the transaction at {begin}")
            body = pos + _RECORD.size
            if size:
                held, data_txn = data[body : body + size], None
                pos = body + size
            else:
                held, data_txn = _follow(data, body)
                pos = body + _NUMBER.size
            # A lost transaction may have left a file that has the name of another one's.
            may_be_blob = not held or b"ZODB.blob" in held
            file = blob(disk, oid, tid) if may_be_blob else None
            records.append(Held(oid, held, data_txn, file))
        if pos != end or _NUMBER.unpack_from(data, end)[0] != length:
            raise Damaged(f"the transaction at {begin} has no end at {end}")
    except struct.error as error:
        raise Damaged(f"the transaction at {begin} is cut off") from error
    return Transaction(tid, status.decode(), *texts, tuple(records)), end + _NUMBER.size


def _follow(data: bytes, body: int) -> tuple[bytes, bytes | None]:
    data_txn = None
    while back := _NUMBER.unpack_from(data, body)[0]:
        _, serial, _, _, _, size = _RECORD.unpack_from(data, back)
        data_txn = data_txn or serial
        body = back + _RECORD.size
        if size:
            return data[body : body + size], data_txn
    return b"", data_txn


def blob(disk: Disk, oid: bytes, tid: bytes) -> bytes | None:
    found = disk.top.entries.get("blobs")
    for byte in oid:
        if found is None:
            return None
        found = found.entries.get(f"0x{byte:02x}")
    if found is None:
        return None
    file = found.entries.get(f"0x{tid.hex()}.blob")
    return None if file is None else bytes(file.data)


def temporary_blobs(disk: Disk) -> list[str]:
    """The names of what lies among the temporary files of blobs."""
    found = disk.top.entries.get("blobs")
    directory = None if found is None else found.entries.get("tmp")
    return list(directory.entries) if isinstance(directory, Directory) else []


def remove_blob(disk: Disk, oid: bytes, tid: bytes) -> None:
    path = "/".join(["blobs", *(f"0x{byte:02x}" for byte in oid), f"0x{tid.hex()}.blob"])
    if disk.exists(f"{disk.root}/{path}"):
        disk.forget(f"{disk.root}/{path}")


def write_other_database(disk: Disk, tid: bytes) -> None:
    """One of a single transaction."""
    record = _RECORD.pack(bytes(8), tid, 0, FIRST, 0, 1) + b"x"
    length = _TRANSACTION.size + len(record)
    header = _TRANSACTION.pack(tid, length, b" ", 0, 0, 0)
    disk.put("Data.fs", b"FS30" + header + record + _NUMBER.pack(length))
