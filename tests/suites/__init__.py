"""The suites that ZODB and ZEO have for storages, run against a primary that is followed.

What they test is that a primary is a storage like any other. Whatever they do to it, a secondary
that follows it, and one that begins with nothing afterwards, must hold the same.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import unittest
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ZODB.blob import BlobStorage
from ZODB.FileStorage import FileStorage
from ZODB.tests.IteratorStorage import IteratorDeepCompare

from zrs_core import Primary, Secondary
from zrs_core.messages import NO_TID
from zrs_core.sessions import SecondaryTimes
from zrs_core.storage.compare import compare

from ..conditions import DEADLINE, wait_for
from ..databases import blob_files, temporary_files

LOOPBACK = ("127.0.0.1", 0)

#: Opens the storage in a directory, with options of FileStorage's.
OpenStorage = Callable[..., Any]


def without_blobs(directory: Path, **options: Any) -> FileStorage:
    return FileStorage(str(directory / "Data.fs"), **options)


def with_blobs(directory: Path, **options: Any) -> FileStorage:
    return without_blobs(directory, blob_dir=str(directory / "blobs"), **options)


def with_blobs_around(directory: Path, **options: Any) -> BlobStorage:
    return BlobStorage(str(directory / "blobs"), without_blobs(directory, **options))


def known_by_any_prefix(cls: type) -> None:
    """Give each test a name that begins with `test`: before ZODB 6, and in ZEO, others do not."""
    for name in dir(cls):
        if name.startswith("check") and callable(getattr(cls, name)):
            setattr(cls, f"test_{name}", getattr(cls, name))


class _Deep(IteratorDeepCompare, unittest.TestCase):
    """ZODB's own comparison of two storages."""


class _Starts(logging.Handler):
    """Knows when a primary has read where a secondary wants to start."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        if ": start " in record.getMessage():
            self.seen.set()


@contextlib.contextmanager
def _until_followed() -> Iterator[None]:
    """Before that, a primary that is closed waits for nobody."""
    logger, starts = logging.getLogger("zrs_core.primary"), _Starts()
    level = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(starts)
    try:
        yield
        assert starts.seen.wait(DEADLINE), "no secondary has connected"
    finally:
        logger.removeHandler(starts)
        logger.setLevel(level)


class Replication:
    """A primary, in the directory `primary`, and a secondary that follows it all the time."""

    def __init__(self, directory: Path, open_storage: OpenStorage, transport: str) -> None:
        self._directory = directory.absolute()
        self._open_storage = open_storage
        self._transport = transport
        self.live: Secondary | None = None

    def directory(self, name: str) -> Path:
        directory = self._directory / name
        directory.mkdir(exist_ok=True, parents=True)
        return directory

    def serve(self, **options: Any) -> Primary:
        """Open the primary, for the first time or again."""
        primary = self._primary(**options)
        with _until_followed():
            if self.live is None:
                self.follow(primary.replication_address)
            else:
                self.live.setReplicationAddress(primary.replication_address)
        return primary

    def follow(self, address: object) -> None:
        """Open the secondary."""
        self.live = self._secondary("live", address)

    def _primary(self, **options: Any) -> Primary:
        storage = self._open_storage(self.directory("primary"), **options)
        return Primary(storage, LOOPBACK, transport=self._transport, close_timeout=DEADLINE)

    def _secondary(self, name: str, address: object) -> Secondary:
        # It is not to connect by itself when the primary is gone: another one, of tests that run
        # beside this, may listen at its port by then.
        storage = self._open_storage(self.directory(name))
        return Secondary(
            storage,
            address,
            transport=self._transport,
            reconnect_delay=10 * DEADLINE,
            # The interval, too, at which it checks whether it can show what it holds back.
            keep_alive_delay=0.1,
        )

    def check(self) -> None:
        """See that the secondary has all that is in the primary, which is closed; and a new one."""
        assert self.live is not None
        with contextlib.closing(self.live) as live, contextlib.closing(self._primary()) as primary:
            left = [(each.tid, each.status) for each in primary.iterator()]
            last, _ = left[-1] if left else (NO_TID, "")
            # What a pack has removed, the secondary still has.
            packed = "p" in [status for _, status in left]
            self._until_all_is_seen(live, last, primary)
            self._compare(primary, live, "live", packed)
            with contextlib.closing(self._secondary("fresh", primary.replication_address)) as fresh:
                wait_for(lambda: fresh.lastTransaction() == last, "a new secondary to have all")
                self._compare(primary, fresh, "fresh", False)
            if not packed:
                files = {self._data(name) for name in ("primary", "live", "fresh")}
                assert len(files) == 1

    def _until_all_is_seen(self, live: Secondary, last: bytes, primary: Primary) -> None:
        """Wait until readers of the live secondary see `last`, the primary's last transaction.

        If the secondary was a little behind a pack, it holds back what came after the pack. It
        does not show that while it is disconnected, since more might have come.
        """
        what = "the live secondary to have all"
        wait_for(lambda: live.lastTransaction() >= last or live.progress.incomplete, what)
        if live.lastTransaction() >= last:
            return
        # Nothing is committed from here on, so that there is no need to wait for five seconds.
        live._client.times = SecondaryTimes(settle=0.05)
        live.setReplicationAddress(primary.replication_address)
        wait_for(lambda: live.lastTransaction() >= last, what)

    def _data(self, name: str) -> bytes:
        return (self.directory(name) / "Data.fs").read_bytes()

    def _compare(self, primary: Primary, secondary: Secondary, name: str, packed: bool) -> None:
        result = compare(primary, secondary, subset=packed)
        assert result.equal, f"{name}: " + "; ".join(map(str, result.differences))
        blobs = blob_files(self.directory("primary") / "blobs")
        copies = blob_files(self.directory(name) / "blobs")
        assert blobs.items() <= copies.items()
        assert temporary_files(self.directory(name) / "blobs") == []
        if not packed:
            _Deep().compare(primary, secondary)
            assert copies == blobs
