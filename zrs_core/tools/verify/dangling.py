"""Objects that others refer to and that are not there."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterator
from typing import Protocol

from ...storage.blobs import is_blob_record
from ...storage.committed import Record
from ...storage.comparison import Difference, Kind
from ...storage.snapshot import BlobFiles
from .references import BadRecord, references

# How records begin that zc.zlibstorage has compressed.
_COMPRESSED = b".z"

# Bytes of a record that is compressed, at most.
_MOST = 1 << 30


class Records(Protocol):
    """The current records of a database."""

    def __contains__(self, oid: bytes) -> bool: ...

    def __iter__(self) -> Iterator[Record]: ...


def dangling(
    records: Records, name: str, blob_dir: str | None, step: Callable[[], None]
) -> Iterator[Difference]:
    """What the current records refer to in vain, in the order of their oids.

    :param name: what the database is called.
    :param blob_dir: the directory of its blobs; without one, they are not looked for.
    """
    blobs = None if blob_dir is None else BlobFiles(blob_dir)
    for record in records:
        step()
        oid, tid = record.oid, record.tid
        try:
            data = _plain(record.data)
            missing = [each for each in sorted(references(data)) if each not in records]
        except (BadRecord, zlib.error) as error:
            text = f"its record in {name} cannot be read: {error}"
            yield Difference(Kind.UNREADABLE, tid, oid, text)
            continue
        for each in missing:
            text = f"refers to object 0x{each.hex()}, which is not in {name}"
            yield Difference(Kind.DANGLING, tid, oid, text)
        if blobs is not None and is_blob_record(data) and not os.path.exists(blobs.path(oid, tid)):
            yield Difference(Kind.DANGLING, tid, oid, f"its blob is not in {name}")


def _plain(data: bytes) -> bytes:
    """:raises BadRecord: it is too much."""
    if not data.startswith(_COMPRESSED):
        return data
    decompressor = zlib.decompressobj()
    plain = decompressor.decompress(data[len(_COMPRESSED) :], _MOST)
    if decompressor.unconsumed_tail:
        raise BadRecord(f"it has more than {_MOST} bytes when it is decompressed")
    return plain
