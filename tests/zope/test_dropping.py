"""Which requests' writes are dropped on a read-only database, without a Zope."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import transaction
import ZEO
from transaction.interfaces import DoomedTransaction
from ZODB import DB
from ZODB.Connection import Connection
from ZODB.POSException import ReadOnlyError

from zrs_core import Primary, Secondary
from zrs_core.transports.memory import MemoryNetwork
from zrs_core.zope_replica import LOGINS, drop_writes


class Request(dict[str, Any]):
    """What a form can set besides its environ, and the objects on the way to what is published."""

    def __init__(self, environ: dict[str, str], root: object) -> None:
        super().__init__(REQUEST_METHOD="GET", PATH_INFO="/login", PARENTS=[object(), root])
        self.method = "GET"
        self.environ = environ


class Site:
    """A replica that is the main database of a site, and databases that are mounted in it."""

    def __init__(self, primary: DB, replica: Connection) -> None:
        self.primary, self.replica = primary, replica

    def publish(self, write: Callable[[], object], method: str, path: str = "/page") -> None:
        """Do what ZPublisher does: call, notify, commit."""
        transaction.begin()
        try:
            write()
            environ = {"REQUEST_METHOD": method, "PATH_INFO": path}
            drop_writes(SimpleNamespace(request=Request(environ, self.replica.root())))
            transaction.commit()
        except BaseException:
            transaction.abort()
            raise

    def write(self) -> None:
        self.replica.root()["written"] = True

    def write_locally(self) -> None:
        self.local.root()["written"] = True

    @property
    def local(self) -> Connection:
        return self.replica.get_connection("local")

    def written(self, connection: Connection) -> bool:
        transaction.begin()
        return "written" in connection.root()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    network = MemoryNetwork()
    with contextlib.ExitStack() as stack:
        primary = DB(Primary(str(tmp_path / "p.fs"), ":1", network, transport="memory"))
        stack.callback(primary.close)
        secondary = Secondary(str(tmp_path / "s.fs"), ":1", network, transport="memory")
        network.run()
        databases: dict[str, Any] = {}
        replica = DB(secondary, database_name="main", databases=databases)
        stack.callback(replica.close)
        local = DB(None, database_name="local", databases=databases)
        stack.callback(local.close)
        connection = replica.open()
        stack.callback(connection.close)
        stack.callback(transaction.abort)
        yield Site(primary, connection)


@pytest.mark.parametrize("method", ["GET", "HEAD", "get"])
def test_of_requests_that_read(site: Site, method: str) -> None:
    site.publish(site.write, method)
    assert not site.written(site.replica)


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_not_of_others_which_fail_as_ever(site: Site, method: str) -> None:
    with pytest.raises(ReadOnlyError, match="is a secondary: write to its primary"):
        site.publish(site.write, method)


@pytest.mark.parametrize(
    "path",
    [*(f"/Plone/{name}" for name in sorted(LOGINS)), "/@login", "/Plone/@@login", "/Plone/login/"],
)
def test_of_a_login(site: Site, path: str) -> None:
    site.publish(site.write, "POST", path)
    assert not site.written(site.replica)


@pytest.mark.parametrize(
    "path", ["", "/", "/login/edit", "/Plone/login.html", "/Plone/logout", "/Plone/@logout"]
)
def test_not_of_what_is_no_login(site: Site, path: str) -> None:
    with pytest.raises(ReadOnlyError):
        site.publish(site.write, "POST", path)


def test_nothing_on_a_database_that_can_be_written_to(site: Site) -> None:
    connection = site.primary.open()
    with contextlib.closing(connection):
        of_primary = Site(site.primary, connection)
        before = site.primary.lastTransaction()
        of_primary.publish(of_primary.write, "GET")
        assert of_primary.written(connection)
        # In one transaction, which is the publisher's.
        assert len([*site.primary.storage.iterator(before)]) == 2
        transaction.abort()


def test_not_what_is_written_to_a_writable_database_beside_a_replica(site: Site) -> None:
    site.publish(site.write_locally, "GET")
    assert site.written(site.local)


def test_all_of_a_request_that_writes_to_both(site: Site) -> None:
    def write() -> None:
        site.write_locally()
        site.write()

    site.publish(write, "GET")
    assert not site.written(site.local)
    assert not site.written(site.replica)


def test_what_is_written_when_the_commit_has_begun(site: Site) -> None:
    """As by a catalog that indexes in a hook what has changed before."""
    site.publish(lambda: transaction.get().addBeforeCommitHook(site.write), "GET")
    assert not site.written(site.replica)


def test_not_what_fails_for_another_reason(site: Site) -> None:
    def write() -> None:
        site.local.root()["unstorable"] = lambda: None

    with pytest.raises(Exception, match="pickle"):
        site.publish(write, "GET")


def test_nothing_of_a_transaction_that_is_doomed(site: Site) -> None:
    def write() -> None:
        site.write()
        transaction.doom()

    with pytest.raises(DoomedTransaction):
        site.publish(write, "GET")


@pytest.mark.parametrize("options", [{"read_only": True}, {"read_only_fallback": True}])
def test_what_a_zeo_client_of_a_replica_has_changed(tmp_path: Path, options: Any) -> None:
    DB(str(tmp_path / "Data.fs")).close()
    conf = f"<filestorage>\npath {tmp_path}/Data.fs\nread-only true\n</filestorage>"
    address, stop = ZEO.server(storage_conf=conf)
    try:
        db = DB(ZEO.client(address, **options))
        with contextlib.closing(db), contextlib.closing(db.open()) as connection:
            site = Site(db, connection)
            site.publish(site.write, "GET")
            assert not site.written(connection)
            transaction.abort()
    finally:
        stop()


def test_with_transactions_that_are_begun_explicitly(site: Site) -> None:
    manager = transaction.manager
    transaction.abort()
    manager.explicit = True
    try:
        site.publish(site.write, "GET")
    finally:
        manager.explicit = False


def test_it_is_logged_with_its_path_on_one_line(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, "zrs_core.zope"):
        site.publish(site.write, "GET", "/a\nb")
        site.publish(lambda: None, "GET", "/nothing")
    (message,) = [each.getMessage() for each in caplog.records if each.name == "zrs_core.zope"]
    assert message.startswith("GET '/a\\nb': dropping")
