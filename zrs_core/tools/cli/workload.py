"""What the demonstration commits: small records and large ones, undo, blobs."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator

from persistent.mapping import PersistentMapping
from transaction import TransactionManager
from ZODB import DB
from ZODB.blob import Blob

_LARGE = 1_000_000
#: Around the size of the blocks in which blobs travel, and nothing.
_BLOB_SIZES = (0, 1, 65_536, 65_537, 300_000)
#: Steps in the order in which they are repeated.
_ROUND = ("small",) * 12 + ("blob", "small", "undo", "small", "large", "small", "blob", "undo_blob")


class Workload:
    """Commits to a database; what it adds is not reachable from the root, which stays as it is.

    :param seed: the contents are made by chance, the same for the same seed.
    """

    def __init__(self, db: DB, seed: int) -> None:
        self._db = db
        self._manager = TransactionManager()
        self._connection = db.open(self._manager)
        self._random = random.Random(seed)  # noqa: S311
        self._sizes = itertools.cycle(_BLOB_SIZES)
        self._count = itertools.count(1)
        steps: dict[str, Callable[[], None]] = {
            "small": self._small,
            "large": self._large,
            "blob": self._blob,
            "undo": self._undo,
            "undo_blob": self._undo_blob,
        }
        self._steps = itertools.cycle([steps[name] for name in _ROUND])

    def close(self) -> None:
        self._manager.abort()
        self._connection.close()

    def run(self, steps: int) -> Iterator[int]:
        """Take so many steps, of a transaction or more each; yields the number of each."""
        for number in range(steps):
            next(self._steps)()
            yield number + 1

    def _commit(self, what: str) -> None:
        transaction = self._manager.get()
        transaction.setUser("demo")
        transaction.note(f"{what} (№ {next(self._count)})")
        transaction.setExtendedInfo("kind", what)
        self._manager.commit()

    def _add(self, size: int) -> PersistentMapping:
        mapping = PersistentMapping(data=self._random.randbytes(size))
        self._connection.add(mapping)
        return mapping

    def _small(self) -> None:
        for _ in range(self._random.randrange(1, 20)):
            self._add(self._random.randrange(2_000))
        self._commit("small records")

    def _large(self) -> None:
        self._add(_LARGE)
        self._commit("a large record")

    def _write_blob(self, blob: Blob) -> None:
        with blob.open("w") as file:
            file.write(self._random.randbytes(next(self._sizes)))

    def _blob(self) -> None:
        blob = Blob()
        self._connection.add(blob)
        self._write_blob(blob)
        self._commit("a blob")

    def _undo(self) -> None:
        mapping = self._add(100)
        self._commit("a record to be changed")
        mapping["data"] = b"changed"
        self._commit("a change to be undone")
        self._undo_last()

    def _undo_blob(self) -> None:
        blob = Blob()
        self._connection.add(blob)
        self._write_blob(blob)
        self._commit("a blob to be changed")
        self._write_blob(blob)
        self._commit("a blob's change to be undone")
        self._undo_last()

    def _undo_last(self) -> None:
        self._db.undo(self._db.undoInfo(0, 1)[0]["id"], self._manager.get())
        self._commit("undo")
