"""ZEO's tests of a server's storage, run against servers with a `zrs` section."""

from __future__ import annotations

import contextlib
import functools
import gc
import os
import tempfile
from multiprocessing import forkserver
from pathlib import Path
from unittest import mock

import pytest
from ZEO.tests import forker as zeo_forker
from ZEO.tests import testZEO
from ZODB.blob import Blob
from ZODB.serialize import ObjectWriter
from ZODB.tests import StorageTestBase

from zrs_core.storage.snapshot import open_snapshot

from ..conditions import DEADLINE, wait_for
from . import Replication, known_by_any_prefix, with_blobs, without_blobs

pytestmark = [
    pytest.mark.long,
    # What ZEO's tests leave behind of clients.
    pytest.mark.filterwarnings("ignore:coroutine 'ClientIO:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning"),
]

#: Once for all of them: that takes longer than a test does.
_IMPORTED_BY_SERVERS = (
    "ZEO.runzeo",
    "zrs_core.config.zconfig",
    "zrs_core.primary",
    "zrs_core.transports.socket_thread",
    "zrs_core.transports.twisted_tcp",
)

#: Unix sockets may have no long paths, and temporary directories have.
SOCKET = "./replication.sock"


class Served(testZEO.GenericTestBase):
    """What the suites test is `_storage`, the client of a server; a secondary follows the server.

    Each test has a server of its own, in a process of its own.
    """

    # ZODB itself leaves it out unless it is asked for: it has 64 clients connect again and again.
    check_race_external_invalidate_vs_disconnect = None
    test_race_external_invalidate_vs_disconnect = None

    def __init_subclass__(cls):
        known_by_any_prefix(cls)

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        forkserver.set_forkserver_preload(["__main__", *_IMPORTED_BY_SERVERS])
        # Its socket is where no test has temporary files, and not in the directory that all tests
        # of this process share, which goes before it.
        outside = os.path.dirname(tempfile.gettempdir())
        with mock.patch.object(tempfile, "tempdir", outside):
            forkserver.ensure_running()

    @pytest.fixture(autouse=True)
    def _forked(self, monkeypatch):
        # A fork of this process would have its locks, and not the threads that release them.
        monkeypatch.setenv("ZEO_PROCESS_TYPE", "forkserver")
        start = functools.partial(zeo_forker.start_zeo_server, keep=True)
        monkeypatch.setattr(zeo_forker, "start_zeo_server", start)

    def getConfig(self):
        self._replication = Replication(Path("replication"), self.open_storage, self.transport)
        return f"""
            %import zrs_core
            <zrs 1>
              replicate-to {SOCKET}
              transport {self.transport}
              close-timeout {DEADLINE}
              <filestorage>
                path {self._replication.directory("primary")}/Data.fs
                {self.more}
              </filestorage>
            </zrs>
        """

    def setUp(self):
        super().setUp()
        self._replication.follow(SOCKET)

    def tearDown(self):
        with contextlib.closing(
            open_snapshot(self._replication.directory("primary") / "Data.fs")
        ) as file:
            last = file.last_tid()
        live = self._replication.live
        try:
            wait_for(lambda: live.lastTransaction() >= last, "the secondary to be connected")
        finally:
            super().tearDown()
        # What is left behind here is not to be found by the next test, of whatever module. The
        # pipes to the servers, and a file of the client, are there as long as this instance.
        del self._servers, self._storage
        gc.collect()

    def _close(self):
        super()._close()
        self._replication.check()


class TestFullGeneric(Served, testZEO.FullGenericTests):
    transport = "twisted-tcp"
    open_storage = staticmethod(without_blobs)
    more = ""


class TestBlobWritableCache(Served, testZEO.BlobWritableCacheTests):
    transport = "socket-thread"
    open_storage = staticmethod(with_blobs)
    blob_cache_dir = "replication/primary/blobs"
    more = f"blob-dir {blob_cache_dir}"

    @pytest.fixture(autouse=True)
    def _blobs_as_zodb_writes_them(self, monkeypatch):
        # A blob's record as these tests make it would be known as one by nobody.
        theirs = StorageTestBase.zodb_pickle

        def zodb_pickle(obj):
            return ObjectWriter().serialize(obj) if isinstance(obj, Blob) else theirs(obj)

        monkeypatch.setattr(StorageTestBase, "zodb_pickle", zodb_pickle)

    def checkStoreBlob_wrong_partition(self):
        super().checkStoreBlob_wrong_partition()
        # `os.rename` has failed in all of this process, and for the secondary perhaps, which would
        # wait longer than a test lasts before it tries again.
        self._replication.live.setReplicationAddress(SOCKET)
