"""The processes of a simulation: a primary, its secondaries, and what they are opened over."""

from __future__ import annotations

import random
from typing import Any

from zrs_core import Primary, Secondary
from zrs_core.options import DEFAULT_MAX_COMPARED_SIZE
from zrs_core.storage.wrapped import as_stored

from .disk import Disk
from .model import NO_TID, Allowed, Broken, History, check_continues
from .network import Links, ProcessNetwork
from .reading import Damaged, Transaction, data_file, transactions

#: Seconds between attempts to connect.
RECONNECT_DELAY = (0.5, 8.0)


class Node:
    """A machine on which one process runs, or does not.

    :param upstream: whom it follows; None for the primary.
    :param serves: whether others may follow it.
    """

    def __init__(
        self,
        name: str,
        disk: Disk,
        links: Links,
        rng: random.Random,
        *,
        upstream: Node | None,
        serves: bool,
    ) -> None:
        self.name = name
        self.disk = disk
        self.upstream = upstream
        self.address = (name, 8000)
        self._links = links
        self.serves = serves
        self.network = ProcessNetwork(links, self)
        self.network.alive = False
        self.storage: Any = None
        self.secondary: Any = None
        self.file_storage: Any = None
        #: Whether the process is stopped: it does nothing, and its connections stay.
        self.suspended = False
        self.blobs = True
        self.durability = rng.choice(("batch", "batch", "transaction", "none"))
        self.max_compared_size = rng.choice((DEFAULT_MAX_COMPARED_SIZE, 0))
        self.pickle_protocol = rng.choice((3, 3, 1))
        #: Up to where its own packs may have removed something.
        self.packed_to = NO_TID
        self.packed = False
        #: What must be there after whatever happens: the last transaction that was seen.
        self.safe_tid = NO_TID
        self._seen: tuple[Any, int] = (None, 4)
        self.last_seen = NO_TID

    @property
    def path(self) -> str:
        return f"{self.disk.root}/Data.fs"

    @property
    def up(self) -> bool:
        return self.storage is not None

    def open(self) -> None:
        """Start the process. Whatever it raises, it has ended then."""
        self.network = ProcessNetwork(self._links, self)
        blob_dir = f"{self.disk.root}/blobs" if self.blobs else None
        if self.upstream is None:
            self.storage = Primary(
                self.path,
                self.address,
                self.network,
                blob_dir,
                transport="memory",
                pickle_protocol=self.pickle_protocol,
            )
            stored = self.storage._storage
        else:
            self.secondary = self.storage = Secondary(
                self.path,
                self.upstream.address,
                self.network,
                blob_dir=blob_dir,
                transport="memory",
                reconnect_delay=RECONNECT_DELAY,
                durability=self.durability,
                keep_alive_delay=5,
                max_compared_size=self.max_compared_size,
            )
            stored = self.secondary._storage
            if self.serves:
                self.storage = Primary(
                    self.secondary,
                    self.address,
                    self.network,
                    transport="memory",
                    pickle_protocol=self.pickle_protocol,
                )
        self.file_storage = as_stored(stored)

    def forget(self) -> None:
        """The process is gone."""
        self.storage = self.secondary = self.file_storage = None
        self.suspended = False
        self._seen = None, 4

    def wipe(self) -> None:
        """A new disk, for a process that is not running."""
        self.disk.restart()
        self.disk.wipe()
        self.packed = False
        self.packed_to = self.safe_tid = self.last_seen = NO_TID
        self.disk.die()

    @property
    def horizon(self) -> bytes:
        """Up to where packs, its own or those before it, may have removed something."""
        before = self.upstream.horizon if self.upstream is not None else NO_TID
        return max(self.packed_to, before)

    @property
    def was_packed(self) -> bool:
        return self.packed or (self.upstream is not None and self.upstream.was_packed)

    @property
    def pickled_again(self) -> bool:
        upstream = self.upstream
        return upstream is not None and (upstream.pickle_protocol == 1 or upstream.pickled_again)

    @property
    def busy(self) -> bool:
        """Whether somebody holds the lock for commits, so that a pack would have to wait."""
        locked: bool = self.file_storage._commit_lock.locked()
        return locked

    # -- what it holds

    def check(self, forks: list[History], missing: dict[tuple[bytes, bytes], bool]) -> None:
        """What is new since the last time.

        :raises Broken: it is not what a history goes on with.
        """
        storage = self.file_storage
        if storage is None:
            return
        file = data_file(self.disk)
        end = storage.getSize()
        if (file, end) == self._seen:
            return
        if file is not self._seen[0] or end < self._seen[1]:
            self._check_all(file, end, forks, missing)
            return
        self._check_new(self._seen[1], end, self.last_seen, forks, missing)
        self._seen = file, end

    def check_all(self, forks: list[History], missing: dict[tuple[bytes, bytes], bool]) -> None:
        self._check_all(data_file(self.disk), self.file_storage.getSize(), forks, missing)

    def _check_all(self, file: Any, end: int, forks: Any, missing: Any) -> None:
        self._check_new(4, end, NO_TID, forks, missing)
        self._seen = file, end

    def _check_new(self, begin: int, end: int, before: bytes, forks: Any, missing: Any) -> None:
        try:
            found = [each for _, each in transactions(self.disk, begin, end)]
        except Damaged as error:
            raise Broken(f"I2: {self.name}: {error}") from error
        self._check_found(found, before, forks, missing)
        last = found[-1].tid if found else before
        if last < self.safe_tid:
            raise Broken(
                f"I8: {self.name} has lost what it held: {last.hex()} is its last transaction, "
                f"and was {self.safe_tid.hex()}"
            )
        named = self.file_storage.lastTransaction()
        if named != last and not last < named <= self.packed_to:
            raise Broken(
                f"I1: {self.name} names {named.hex()} as its last transaction, and holds "
                f"{last.hex()}"
            )
        self.last_seen = last
        if self.durability != "none" or self.upstream is None:
            self.safe_tid = last

    def _check_found(
        self, found: list[Transaction], before: bytes, forks: list[History], missing: Any
    ) -> None:
        allowed = Allowed(self.horizon, self.was_packed, self.pickled_again, missing)
        error = None
        for history in reversed(forks):
            try:
                check_continues(history, before, found, allowed)
            except Broken as broken:
                error = error or broken
            else:
                return
        if error is not None:
            raise Broken(f"I1: {self.name}: {error}")
