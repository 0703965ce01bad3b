"""An empty secondary that is opened before its first transaction has come."""

from __future__ import annotations

import contextlib
import threading

import pytest
import ZODB.config
import zodburi
from ZODB.DB import DB
from ZODB.POSException import ReadOnlyError

from zrs_core import Primary, Secondary
from zrs_core.config.zconfig import SettingError
from zrs_core.errors import NoData, NotWritten

from ..databases import open_file_storage

NOBODY = "127.0.0.1:1"


@pytest.fixture(params=["socket-thread", "twisted-tcp"])
def transport(request):
    return request.param


@pytest.fixture
def primary(transport, tmp_path):
    """One that has no data either, until a database is opened on it."""
    path = tmp_path / "primary.fs"
    with contextlib.closing(Primary(path, "127.0.0.1:0", transport=transport)) as primary:
        yield primary


@pytest.fixture
def later(primary):
    """The first transaction of the primary is committed while others wait."""
    thread = threading.Timer(0.2, lambda: DB(primary))
    thread.start()
    yield
    thread.join()


def section(address, transport, path, keys=""):
    return (
        f"%import zrs_core\n<zodb>\n<zrs>\nreplicate-from {address}\ntransport {transport}\n"
        f"{keys}\n"
        f"<filestorage>\npath {path}\n</filestorage>\n</zrs>\n</zodb>"
    )


@pytest.mark.usefixtures("later")
class TestDatabasesThatAreOpenedAtOnce:
    def test_by_a_program(self, primary, transport, tmp_path):
        secondary = Secondary(
            tmp_path / "s.fs", primary.replication_address, transport=transport, wait_for_data=60
        )
        with contextlib.closing(DB(secondary)) as db:
            assert db.storage.lastTransaction() == primary.lastTransaction()

    def test_by_a_configuration(self, primary, transport, tmp_path):
        text = section(
            primary.replication_address, transport, tmp_path / "s.fs", "wait-for-data 60"
        )
        with contextlib.closing(ZODB.config.databaseFromString(text)) as db:
            assert db.storage.lastTransaction() == primary.lastTransaction()

    def test_by_a_uri(self, primary, transport, tmp_path):
        factory, _ = zodburi.resolve_uri(
            f"zrs://{primary.replication_address}{tmp_path}/s.fs"
            f"?transport={transport}&wait_for_data=60"
        )
        with contextlib.closing(DB(factory())) as db:
            assert db.storage.lastTransaction() == primary.lastTransaction()


class TestNone:
    def test_by_default_it_does_not_wait(self, transport, tmp_path):
        with pytest.raises(ReadOnlyError, match="has no data yet"):
            ZODB.config.databaseFromString(section(NOBODY, transport, tmp_path / "s.fs"))

    def test_a_program_is_told_why(self, transport, tmp_path):
        path = tmp_path / "s.fs"
        with pytest.raises(NoData) as caught:
            Secondary(path, NOBODY, transport=transport, wait_for_data=0.3)
        assert str(caught.value).startswith(
            f"{path} has no data: no transaction has come from {NOBODY} within 0.3 seconds "
            "(state connecting: "
        )
        assert "refused" in str(caught.value)
        # It is closed.
        open_file_storage(tmp_path).close()
        Secondary(path, NOBODY, transport=transport).close()

    def test_a_configuration_names_the_line(self, transport, tmp_path):
        status = f"status-address {tmp_path}/status.sock"
        text = section(NOBODY, transport, tmp_path / "s.fs", f"wait-for-data 0.1\n{status}")
        with pytest.raises(SettingError) as caught:
            ZODB.config.databaseFromString(text)
        assert "wait-for-data 0.1: " in str(caught.value)
        assert "(line 6)" in str(caught.value)
        assert not (tmp_path / "status.sock").exists()

    def test_a_uri_says_so(self, transport, tmp_path):
        factory, _ = zodburi.resolve_uri(
            f"zrs://{NOBODY}{tmp_path}/s.fs?transport={transport}&wait_for_data=0.1"
        )
        with pytest.raises(NoData):
            factory()
        Secondary(tmp_path / "s.fs", NOBODY, transport=transport).close()


def test_one_that_has_data_does_not_wait(tmp_path):
    DB(open_file_storage(tmp_path, blobs=False)).close()
    secondary = Secondary(tmp_path / "Data.fs", NOBODY, transport="memory", wait_for_data=1e6)
    secondary.close()


def test_one_that_has_stopped_for_good_does_not_wait(open_secondary):
    secondary = open_secondary()
    secondary._client.stop(NotWritten(OSError("the disk")))
    with pytest.raises(NoData, match="state stopped"):
        secondary.wait_for_data(1e6)


def test_it_waits_for_all_that_a_pack_has_left(open_secondary, open_primary, database, network):
    """The root object may be in the last of these transactions."""
    db = database(open_primary())
    secondary = open_secondary()
    network.run()
    assert secondary.has_data()
    secondary.wait_for_data(1e6)
    secondary._client.progress.incomplete = True
    with pytest.raises(NoData, match="only a part of its history has come"):
        secondary.wait_for_data(0.01)
    assert db
