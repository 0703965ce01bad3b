"""Who writes to the primary: commits of all kinds, undo and blobs, past the object layer."""

from __future__ import annotations

import base64
import os
import random
import tempfile
from collections.abc import Iterator
from typing import Any

from ZODB.Connection import TransactionMetaData
from ZODB.POSException import POSError, POSKeyError
from ZODB.utils import p64

BLOB_SIZES = (0, 1, 65_536, 65_537)

ROOT = p64(0)
_BLOB = b"\x80\x03cZODB.blob\nBlob\nq\x01.\x80\x03N."
_CLASS = b"\x80\x03cpersistent.mapping\nPersistentMapping\nq\x01."


def record(data: bytes, references: list[bytes]) -> bytes:
    """A record as ZODB writes it: some bytes, and the oids of other objects."""
    state = b"\x80\x03(B" + len(data).to_bytes(4, "little") + data
    state += b"".join(b"C\x08%sQ" % oid for oid in references)
    return _CLASS + state + b"t."


class Application:
    """Commits through a primary's storage, a step at a time."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._count = 0
        #: Objects that the root refers to, and those of them that are blobs.
        self.objects: list[bytes] = []
        self.blobs: list[bytes] = []
        self._tids: list[bytes] = []
        self._created: dict[bytes, list[bytes]] = {}

    def commit(self, storage: Any, packed_to: bytes) -> Iterator[str]:
        """One transaction, by steps; each tells what it has done. It may end without a commit.

        :param packed_to: what is not later is not undone.
        """
        self._count += 1
        transaction = self._metadata()
        storage.tpc_begin(transaction)
        yield "begin"
        changes: list[tuple[list[bytes], bytes]] = []
        try:
            kind = self._change(storage, transaction, packed_to, changes)
        except POSError as error:
            # What was undone cannot always be built upon.
            storage.tpc_abort(transaction)
            yield type(error).__name__
            return
        yield kind
        storage.tpc_vote(transaction)
        yield "vote"
        if self._rng.random() < 0.1:
            storage.tpc_abort(transaction)
            yield "abort"
            return
        tid = storage.tpc_finish(transaction)
        self._tids.append(tid)
        self._created[tid] = []
        for objects, oid in changes:
            if oid in objects:
                objects.remove(oid)
            else:
                objects.append(oid)
                if objects is self.objects:
                    self._created[tid].append(oid)
        yield "finish"

    def look_again(self, storage: Any) -> None:
        """Its last transaction may have been committed when its process was killed."""
        self.objects = [oid for oid in self.objects if _serial(storage, oid) != bytes(8)]

    def _metadata(self) -> TransactionMetaData:
        count = self._count
        extension = {"request": f"/{count}", "numbers": (count, 1.5)} if count % 3 == 0 else {}
        return TransactionMetaData(f"user{count % 4}", f"ünïcode {count}", extension)

    def _change(self, storage: Any, transaction: Any, packed_to: bytes, changes: Any) -> str:
        chance = self._rng.random()
        if not self._tids:
            self._store_root(storage, transaction, [])
            return "root"
        undoable = [tid for tid in self._tids[1:][-4:] if tid > packed_to]
        if chance < 0.15 and undoable:
            tid = self._rng.choice(undoable)
            storage.undo(base64.encodebytes(tid).rstrip(), transaction)
            created = self._created.get(tid, [])
            changes += [(self.objects, oid) for oid in created if oid in self.objects]
            return f"undo {tid.hex()}"
        if chance < 0.35:
            return self._store_blob(storage, transaction, changes)
        if chance < 0.4:
            return "nothing"
        if chance < 0.5 and self.objects:
            oid = self._rng.choice(self.objects)
            changes.append((self.objects, oid))
            self._store_root(storage, transaction, [each for each in self.objects if each != oid])
            return "delete"
        return self._store_objects(storage, transaction, changes)

    def _store_objects(self, storage: Any, transaction: Any, changes: Any) -> str:
        count = self._rng.choice((1, 1, 2, 3, 8))
        size = self._rng.choice((0, 10, 100, 1000, 5000))
        new: list[bytes] = []
        stored = set()
        for _ in range(count):
            if self.objects and self._rng.random() < 0.5:
                oid = self._rng.choice(self.objects)
                # Each once, as a connection of ZODB does. If the later of two is undone, a pack of
                # FileStorage fails: it looks for the record that the undo points back to by its
                # object, and finds the earlier one (`_data_find` of `ZODB.FileStorage.fspack`).
                if oid in self.blobs or oid in stored:
                    continue
                stored.add(oid)
            else:
                oid = storage.new_oid()
                new.append(oid)
            self._store(storage, oid, record(self._rng.randbytes(size), []), transaction)
        if new:
            self._store_root(storage, transaction, self.objects + new)
        changes += [(self.objects, oid) for oid in new]
        return f"{count} objects of {size} bytes"

    def _store_blob(self, storage: Any, transaction: Any, changes: Any) -> str:
        size = self._rng.choice(BLOB_SIZES)
        alive = [oid for oid in self.blobs if oid in self.objects]
        if alive and self._rng.random() < 0.4:
            oid = self._rng.choice(alive)
        else:
            oid = storage.new_oid()
            changes += [(self.objects, oid), (self.blobs, oid)]
            self._store_root(storage, transaction, [*self.objects, oid])
        handle, path = tempfile.mkstemp(dir=storage.temporaryDirectory())
        with os.fdopen(handle, "wb") as file:
            file.write(self._rng.randbytes(min(size, 4096)) + bytes(max(size - 4096, 0)))
            file.flush()
            # ZODB does not.
            os.fsync(file.fileno())
        storage.storeBlob(oid, _serial(storage, oid), _BLOB, path, "", transaction)
        return f"a blob of {size} bytes"

    def _store_root(self, storage: Any, transaction: Any, objects: list[bytes]) -> None:
        data = record(b"root %d" % self._count, objects)
        self._store(storage, ROOT, data, transaction)

    def _store(self, storage: Any, oid: bytes, data: bytes, transaction: Any) -> None:
        storage.store(oid, _serial(storage, oid), data, "", transaction)


def _serial(storage: Any, oid: bytes) -> bytes:
    try:
        serial: bytes = storage.getTid(oid)
    except POSKeyError:
        return bytes(8)
    return serial
