"""ZEO servers whose roles are swapped, and what their clients do, as docs/how-to shows it."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import transaction
import ZEO
import ZODB.config
from persistent.mapping import PersistentMapping
from ZEO.Exceptions import ClientDisconnected, ServerException
from ZODB import DB
from ZODB.blob import Blob
from ZODB.POSException import ConflictError, POSKeyError, ReadOnlyError

from ..cli.conftest import Process
from ..conditions import wait_for
from ..documents.blocks import named_blocks
from . import Server, configured, running
from .test_zeo import Client, client, wait_for_data

_PAGE = named_blocks("how-to/swap-roles.rst")


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory whose path is short enough for a Unix socket."""
    path = Path(tempfile.mkdtemp(prefix="zrs"))
    yield path
    shutil.rmtree(path)


class Pair:
    """The configurations of the page; its machines `a.example` and `b.example` are directories."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.addresses = [str(directory / name / "zeo.sock") for name in "ab"]
        for name in "ab":
            (directory / name).mkdir()

    def conf(self, machine: str, name: str) -> str:
        text = _PAGE[name]
        for each in "ab":
            text = text.replace(f"{each}.example:8000", f"{self._directory}/{each}/zeo.sock")
            text = text.replace(f"{each}.example:8100", f"{self._directory}/{each}/zrs.sock")
        own = self._directory / machine
        return (
            text.replace("/var/lib/zrs/main/db", str(own))
            .replace("/srv/zope/var/blobcache", str(own / "blobcache"))
            .replace("replicate-to :8100", f"replicate-to {own}/zrs.sock")
            .replace("address :8000", f"address {own}/zeo.sock")
        )

    def follower(self, machine: str, of: str) -> str:
        """The configuration of a primary with one line more."""
        line = f"replicate-from {self._directory}/{of}/zrs.sock\n"
        text = self.conf(machine, "zeo-a")
        return text.replace("  replicate-to", f"  {line}  replicate-to")

    def blobs(self, machine: str) -> Path:
        return self._directory / machine / "blobs"

    def last_transaction(self, machine: str) -> str:
        """What `zrs log` lists, whether a server has the file open or not."""
        command = Process(["log", self._directory / machine / "Data.fs", "-n", 1], self._directory)
        assert command.finish() == 0
        return command.out

    @contextlib.contextmanager
    def serving(self, machine: str, conf: str) -> Iterator[Server]:
        with configured(self._directory / machine, conf) as server:
            yield server


@pytest.fixture
def pair(directory: Path) -> Pair:
    return Pair(directory)


def committing(db: DB, name: str, value: object = 1) -> None:
    """Commit in a transaction of its own.

    :raises Exception: as the commit does.
    """
    transactions = transaction.TransactionManager()
    connection = db.open(transactions)
    try:
        connection.root()[name] = value
        transactions.commit()
    finally:
        transactions.abort()
        connection.close()


def commits(db: DB, name: str) -> Callable[[], bool]:
    def attempt() -> bool:
        with contextlib.suppress(ReadOnlyError, ClientDisconnected):
            committing(db, name)
            return True
        return False

    return attempt


@pytest.mark.long
def test_clients_follow_a_swap(pair: Pair) -> None:
    """Only the configurations of the servers change, each by a line."""
    secondary = pair.conf("b", "zeo-b")
    # The two differ in that line alone.
    assert secondary == pair.follower("b", of="a")
    with contextlib.ExitStack() as stack:
        two = stack.enter_context(contextlib.ExitStack())
        with pair.serving("a", pair.conf("a", "zeo-a")):
            b = two.enter_context(pair.serving("b", secondary))
            text = pair.conf("b", "zeo-client")
            db = ZODB.config.databaseFromString(f"<zodb>\n{text}</zodb>")
            stack.callback(db.close)
            wait_for(commits(db, "one"), "the first commit")
            committing(db, "blob", Blob(b"a picture"))
        b.wait_for(r"(Disconnected)")
        assert pair.last_transaction("b") == pair.last_transaction("a") != ""
        wait_for(db.storage.isReadOnly, "the client to change to the replica")
        with pytest.raises(ReadOnlyError):
            committing(db, "refused")
        two.close()
        stack.enter_context(pair.serving("b", pair.conf("b", "zeo-a")))
        wait_for(commits(db, "two"), "a commit to the new primary")
        a = stack.enter_context(pair.serving("a", pair.follower("a", of="b")))
        committing(db, "three")
        wait_for_data(a.address, "1", db.storage.lastTransaction())
        with client(a.address, pair.blobs("a").parent / "r", storage="1", read_only=True) as reader:
            assert {"one", "two", "three"} <= {*reader.root}
            with reader.root["blob"].open() as file:
                assert file.read() == b"a picture"


@pytest.mark.long
def test_a_shared_blob_directory_is_that_of_one_server(pair: Pair) -> None:
    """Clients that have that of the other server can neither store nor read new blobs."""

    @contextlib.contextmanager
    def sharing(machine: str) -> Iterator[DB]:
        options = {"blob_dir": str(pair.blobs(machine)), "shared_blob_dir": True}
        with contextlib.closing(ZEO.DB(pair.addresses[1], storage="1", **options)) as db:
            yield db

    # What its first server has left.
    with pair.serving("a", pair.conf("a", "zeo-a")):
        pass
    with pair.serving("b", pair.conf("b", "zeo-a")):
        with sharing("a") as db:
            with pytest.raises(ServerException, match="FileNotFoundError"):
                committing(db, "picture", Blob(b"a picture"))
        with sharing("b") as db:
            committing(db, "picture", Blob(b"a picture"))
        with sharing("a") as db, db.transaction() as connection:
            with pytest.raises(POSKeyError, match="No blob file at"):
                connection.root()["picture"].open()


@pytest.mark.long
def test_caches_serve_what_was_lost(pair: Pair, directory: Path) -> None:
    """After a fail-over that lost a transaction; docs/how-to/primary-lost.rst has what to do."""
    (directory / "var").mkdir()
    a, b = pair.addresses
    cached = {"storage": "1", "client": "zope1", "var": str(directory / "var")}
    primary = pair.conf("a", "zeo-a")
    with (
        pair.serving("a", primary),
        pair.serving("b", pair.follower("b", of="a")),
        client(a, directory / "w", storage="1") as writer,
    ):
        writer.root["page"] = PersistentMapping(text="kept")
        writer.root["other"] = PersistentMapping()
        writer.commit()
        wait_for_data(b, "1", writer.db.lastTransaction())
    with contextlib.ExitStack() as stack:
        with running(directory / "a", primary) as (_, process):
            # One that goes on running, and one that has its cache in a file.
            fallback = {"storage": "1", "read_only_fallback": True}
            goes_on = stack.enter_context(client(pair.addresses, directory / "g", **fallback))
            with client(a, directory / "c", **cached) as writer:
                writer.root["page"]["text"] = "lost"
                writer.commit()
            wait_for(lambda: text_of(goes_on) == "lost", "the transaction that will be lost")
            process.kill()
        stack.enter_context(pair.serving("b", pair.conf("b", "zeo-a")))
        with pytest.raises(ClientDisconnected):
            Client(b, directory / "c", **cached, wait_timeout=1)
        writer = stack.enter_context(client(b, directory / "w", storage="1"))
        assert writer.root["page"]["text"] == "kept"
        writer.root["other"]["number"] = 1
        writer.commit()
        with client(b, directory / "c", **cached) as restarted:
            assert restarted.root["other"]["number"] == 1
            assert restarted.root["page"]["text"] == "lost"
            restarted.root["page"]["text"] = "changed"
            with pytest.raises(ConflictError):
                restarted.commit()
            restarted.transactions.abort()
        wait_for(connected_again(goes_on), "the one that goes on running to connect")
        assert goes_on.root["page"]["text"] == "lost"
        (directory / "var" / "zope1-1.zec").unlink()
        with client(b, directory / "c", **cached) as restarted:
            assert restarted.root["page"]["text"] == "kept"


def text_of(it: Client) -> str:
    it.transactions.begin()
    return str(it.root["page"]["text"])


def connected_again(it: Client) -> Callable[[], bool]:
    def sees_what_was_committed_then() -> bool:
        with contextlib.suppress(ClientDisconnected):
            it.transactions.begin()
            return bool(it.root["other"].get("number") == 1)
        return False

    return sees_what_was_committed_then
