"""The captured streams in tests/data/wire (protocol, section 7)."""

import contextlib
import hashlib
import json
import pickle
import shutil
from pathlib import Path

from ZODB.FileStorage import FileStorage
from ZODB.utils import z64

from zrs_core.messages import BLOB_BLOCK_SIZE, BlobBlock, Commit, Store, StoreBlob, Transaction

FOLDER = Path(__file__).resolve().parent.parent / "data" / "wire"


class Vector:
    """One captured stream: what the secondary sent, what the primary answered, what it means.

    `expected` has a dict for each message of the stream, without the blocks of blobs.
    """

    def __init__(self, folder):
        self.name = folder.name
        self.folder = folder
        self.hello = (folder / "hello.bin").read_bytes()
        self.stream = (folder / "stream.bin").read_bytes()
        lines = (folder / "expected.jsonl").read_text(encoding="utf-8").splitlines()
        self.expected = [json.loads(line) for line in lines]

    @property
    def word(self):
        return self.hello[4:10].decode("ascii")

    @property
    def start(self):
        return self.hello[-8:]


VECTORS = {folder.name: Vector(folder) for folder in sorted(FOLDER.iterdir())}


def described(messages):
    """Messages as `expected` has them."""
    lines = []
    for message in messages:
        match message:
            case Transaction():
                extension = message.extension
                line = {
                    "type": "T",
                    "tid": message.tid.hex(),
                    "status": message.status,
                    "user": message.user.hex(),
                    "description": message.description.hex(),
                    "extension": pickle.loads(extension, encoding="utf-8") if extension else {},
                }
            case Store():
                line = {"type": "S", **_record(message)}
            case StoreBlob():
                blob = hashlib.sha256()
                line = {"type": "B", **_record(message), "blocks": message.blocks, "blob_size": 0}
                line["blob_sha256"] = blob.hexdigest()
            case BlobBlock():
                blob.update(message.data)
                lines[-1]["blob_size"] += len(message.data)
                lines[-1]["blob_sha256"] = blob.hexdigest()
                continue
            case Commit():
                line = {"type": "C"}
        lines.append(line)
    return lines


def _record(message):
    return {
        "oid": message.oid.hex(),
        "serial": message.serial.hex(),
        "data_txn": message.data_txn and message.data_txn.hex(),
        "data_size": len(message.data) or None,
        "data_sha256": hashlib.sha256(message.data).hexdigest() if message.data else None,
    }


def stored_messages(folder, workplace, start=z64):
    """The transactions after `start` in the Data.fs of `folder`, as messages.

    They are read from a copy in `workplace`: opening a storage may write beside it.
    """
    shutil.copy(folder / "Data.fs", workplace)
    options = {}
    if (folder / "blobs").exists():
        options["blob_dir"] = str(workplace / "blobs")
        shutil.copytree(folder / "blobs", options["blob_dir"])
    storage = FileStorage(str(workplace / "Data.fs"), read_only=True, **options)
    with contextlib.closing(storage):
        with contextlib.closing(storage.iterator()) as transactions:
            for transaction in transactions:
                if transaction.tid > start:
                    yield from _messages(storage, transaction)


def _messages(storage, transaction):
    yield Transaction(
        transaction.tid,
        transaction.status,
        transaction.user,
        transaction.description,
        transaction.extension_bytes,
    )
    for record in transaction:
        header = record.oid, record.tid, record.data or b"", record.data_txn
        blob = _blob(storage, record)
        if blob is None:
            yield Store(*header)
        else:
            begins = range(0, len(blob), BLOB_BLOCK_SIZE)
            yield StoreBlob(*header, len(begins))
            for begin in begins:
                yield BlobBlock(blob[begin : begin + BLOB_BLOCK_SIZE])
    yield Commit()


def _blob(storage, record):
    if not storage.blob_dir:
        return None
    path = Path(storage.fshelper.getBlobFilename(record.oid, record.tid))
    return path.read_bytes() if path.exists() else None
