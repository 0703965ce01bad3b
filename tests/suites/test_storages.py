"""ZODB's tests of storages that keep a history, run against a primary that is followed."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from ZODB.tests import (
    BasicStorage,
    ConflictResolution,
    HistoryStorage,
    IteratorStorage,
    MTStorage,
    PackableStorage,
    PersistentStorage,
    ReadOnlyStorage,
    RecoveryStorage,
    RevisionStorage,
    StorageTestBase,
    Synchronization,
    TransactionalUndoStorage,
)

from ..conditions import wait_for
from . import Replication, known_by_any_prefix, with_blobs, without_blobs


class Replicated(StorageTestBase.StorageTestBase):
    """What the suites test is `_storage`; after each test the secondaries are compared to it."""

    def __init_subclass__(cls):
        known_by_any_prefix(cls)

    @pytest.fixture(autouse=True)
    def _no_errors(self, caplog):
        yield
        assert [
            record.getMessage()
            for record in caplog.get_records("call")
            if record.name.startswith("zrs_core") and record.levelno >= logging.ERROR
        ] == []

    def setUp(self):
        super().setUp()
        self._replication = Replication(Path("replication"), self.open_storage, self.transport)
        self._storage = self._replication.serve()

    def open(self, **options):
        self._storage = self._replication.serve(**options)

    def _close(self):
        super()._close()
        self._replication.check()


class OverTwisted(Replicated):
    transport = "twisted-tcp"


class OverSockets(Replicated):
    transport = "socket-thread"


class WithBlobs:
    open_storage = staticmethod(with_blobs)


class WithoutBlobs:
    open_storage = staticmethod(without_blobs)


class Histories(
    TransactionalUndoStorage.TransactionalUndoStorage,
    RevisionStorage.RevisionStorage,
    ConflictResolution.ConflictResolvingStorage,
    ConflictResolution.ConflictResolvingTransUndoStorage,
    HistoryStorage.HistoryStorage,
    IteratorStorage.IteratorStorage,
    IteratorStorage.ExtendedIteratorStorage,
):
    use_extension_bytes = True


class Commits(
    BasicStorage.BasicStorage,
    PackableStorage.PackableStorageWithOptionalGC,
    PackableStorage.PackableUndoStorage,
    Synchronization.SynchronizedStorage,
    PersistentStorage.PersistentStorage,
    MTStorage.MTStorage,
    ReadOnlyStorage.ReadOnlyStorage,
):
    # They are about several clients that write through one server; a primary is one storage.
    check_race_load_vs_external_invalidate = test_race_load_vs_external_invalidate = None
    check_race_external_invalidate_vs_disconnect = None
    test_race_external_invalidate_vs_disconnect = None


class Recovery(RecoveryStorage.RecoveryStorage):
    """What is restored into a primary goes on to its secondary."""

    def setUp(self):
        super().setUp()
        self._second = Replication(Path("second"), self.open_storage, self.transport)
        self._dst = self._second.serve()

    def _close(self):
        super()._close()
        self._dst.close()
        self._second.check()


class ReadOnlySecondary(ReadOnlyStorage.ReadOnlyStorage):
    """A secondary is a storage that is read-only."""

    def open(self, read_only):
        live = self._replication.live
        last = self._storage.lastTransaction()
        wait_for(lambda: live.lastTransaction() == last, "the secondary to catch up")
        self._storage = live


class TestHistoriesWithBlobsOverTwisted(Histories, WithBlobs, OverTwisted):
    pass


@pytest.mark.long
class TestHistoriesWithBlobsOverSockets(Histories, WithBlobs, OverSockets):
    pass


@pytest.mark.long
class TestHistoriesOverTwisted(Histories, WithoutBlobs, OverTwisted):
    pass


@pytest.mark.long
class TestHistoriesOverSockets(Histories, WithoutBlobs, OverSockets):
    pass


@pytest.mark.long
class TestCommitsWithBlobsOverTwisted(Commits, WithBlobs, OverTwisted):
    pass


@pytest.mark.long
class TestCommitsWithBlobsOverSockets(Commits, WithBlobs, OverSockets):
    pass


@pytest.mark.long
class TestCommitsOverTwisted(Commits, WithoutBlobs, OverTwisted):
    pass


@pytest.mark.long
class TestCommitsOverSockets(Commits, WithoutBlobs, OverSockets):
    pass


class TestRecoveryWithBlobsOverTwisted(Recovery, WithBlobs, OverTwisted):
    pass


@pytest.mark.long
class TestRecoveryWithBlobsOverSockets(Recovery, WithBlobs, OverSockets):
    pass


@pytest.mark.long
class TestRecoveryOverTwisted(Recovery, WithoutBlobs, OverTwisted):
    pass


@pytest.mark.long
class TestRecoveryOverSockets(Recovery, WithoutBlobs, OverSockets):
    pass


class TestReadOnlySecondaryOverTwisted(ReadOnlySecondary, WithBlobs, OverTwisted):
    pass


class TestReadOnlySecondaryOverSockets(ReadOnlySecondary, WithoutBlobs, OverSockets):
    pass
