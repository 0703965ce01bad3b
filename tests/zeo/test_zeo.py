"""ZEO servers over primaries and secondaries, and clients of both."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import transaction
import ZEO
from BTrees.Length import Length
from persistent.mapping import PersistentMapping
from ZODB.blob import Blob
from ZODB.FileStorage import FileStorage
from ZODB.POSException import ConflictError, ReadOnlyError, StorageTransactionError

from ..conditions import wait_for
from ..databases import open_file_storage
from . import configured, running, zeo_server


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory whose path is short enough for a Unix socket."""
    path = Path(tempfile.mkdtemp(prefix="zrs"))
    yield path
    shutil.rmtree(path)


def primary(directory: Path, name: str = "Data.fs", more: str = "") -> str:
    section = Path(name).stem.lower()
    return f"""
        <zrs {section}>
          replicate-to 127.0.0.1:0
          {more}
          <filestorage>
            path {directory}/{name}
            blob-dir {directory}/{section}-blobs
          </filestorage>
        </zrs>
    """


def secondary(directory: Path, address: str, name: str = "Data.fs", more: str = "") -> str:
    text = primary(directory, name, more)
    return text.replace("replicate-to 127.0.0.1:0", f"replicate-from {address}")


class Client:
    """A client's database, and one connection."""

    def __init__(self, address: str, directory: Path, **options: Any) -> None:
        options = {"storage": "data", "wait_timeout": 60, **options}
        directory.mkdir(exist_ok=True)
        self.db = ZEO.DB(address, blob_dir=str(directory / "blobs"), **options)
        self.transactions = transaction.TransactionManager()
        self.connection = self.db.open(self.transactions)

    @property
    def root(self) -> Any:
        return self.connection.root()

    def commit(self, note: str = "") -> None:
        self.transactions.get().note(note)
        self.transactions.commit()

    def sees(self, key: str, value: object) -> bool:
        """At the next transaction boundary, and with what it has in its caches."""
        self.transactions.begin()
        return bool(self.root.get(key) == value)

    def has(self, key: str) -> bool:
        """At the next transaction boundary."""
        self.transactions.begin()
        return key in self.root

    def close(self) -> None:
        self.transactions.abort()
        self.connection.close()
        self.db.close()


@contextlib.contextmanager
def client(address: str, directory: Path, **options: Any) -> Iterator[Client]:
    it = Client(address, directory, **options)
    try:
        yield it
    finally:
        it.close()


def write_something(writer: Client) -> None:
    writer.root["counter"] = 0
    writer.root["inner"] = PersistentMapping(text="first")
    writer.commit("the beginning")


@pytest.mark.parametrize("transport", ["twisted-tcp", "socket-thread"])
def test_readers_on_one_server_see_what_is_written_through_the_other(
    directory: Path, transport: str
) -> None:
    ours, theirs = directory / "1", directory / "2"
    more = f"transport {transport}"
    with contextlib.ExitStack() as stack:
        one = stack.enter_context(zeo_server(ours, primary(ours, more=more)))
        writer = stack.enter_context(client(one.address, directory / "w"))
        write_something(writer)
        address = one.replication_address()
        two = stack.enter_context(zeo_server(theirs, secondary(theirs, address, more=more)))
        # Until the first transaction has come there is no root, and none can be made.
        wait_for_data(two.address, "data", writer.db.lastTransaction())
        reader = stack.enter_context(client(two.address, directory / "r", read_only=True))
        assert reader.sees("counter", 0)
        assert reader.root["inner"]["text"] == "first"

        # Objects that the reader has loaded are invalidated.
        for number in range(1, 21):
            writer.root["counter"] = number
            writer.root["inner"]["text"] = f"text {number}"
            writer.commit(f"number {number}")
        wait_for(lambda: reader.sees("counter", 20), "the last number")
        assert reader.root["inner"]["text"] == "text 20"

        # Blobs come through the cache of the client.
        writer.root["blob"] = Blob(b"x" * 200_000)
        writer.commit("a blob")
        wait_for(lambda: reader.has("blob"), "the blob")
        with reader.root["blob"].open() as file:
            assert file.read() == b"x" * 200_000

        # Undo through one client.
        writer.root["counter"] = -1
        writer.commit("a mistake")
        wait_for(lambda: reader.sees("counter", -1), "the mistake")
        writer.db.undo(writer.db.undoLog(0, 1)[0]["id"], writer.transactions.get())
        writer.commit()
        wait_for(lambda: reader.sees("counter", 20), "the undo")

        # Nobody writes to a secondary.
        reader.root["counter"] = 100
        with pytest.raises(ReadOnlyError):
            reader.commit()
        reader.transactions.abort()

        # A pack through each client, and on they go.
        writer.db.pack(time.time())
        reader.db.pack(time.time())
        writer.root["counter"] = 21
        writer.commit()
        wait_for(lambda: reader.sees("counter", 21), "what was written after the packs")
    assert last_tid_in(ours) == last_tid_in(theirs)


def last_tid_in(directory: Path) -> bytes:
    with contextlib.closing(FileStorage(str(directory / "Data.fs"), read_only=True)) as storage:
        tid: bytes = storage.lastTransaction()
        return tid


def test_a_client_that_would_write_to_a_secondary_may_only_read(directory: Path) -> None:
    ours = directory / "1"
    nobody = str(directory / "nobody.sock")
    with zeo_server(ours, secondary(ours, nobody)) as server:
        storage = ZEO.client(
            server.address, storage="data", read_only_fallback=True, wait_timeout=60
        )
        with contextlib.closing(storage):
            assert storage.isReadOnly()


@pytest.mark.long
def test_one_server_has_several_storages(directory: Path) -> None:
    ours, theirs = directory / "1", directory / "2"
    socket_path = directory / "second.sock"
    unix = primary(ours, "Second.fs").replace("127.0.0.1:0", str(socket_path))
    plain = f"<filestorage third>\npath {ours}/Third.fs\n</filestorage>"
    with contextlib.ExitStack() as stack:
        one = stack.enter_context(zeo_server(ours, primary(ours) + unix + plain))
        writers = [
            stack.enter_context(client(one.address, directory / name, storage=name))
            for name in ("data", "second")
        ]
        for writer in writers:
            write_something(writer)
        mixed = secondary(theirs, one.replication_address())
        mixed += secondary(theirs, str(socket_path), "Second.fs", "transport socket-thread")
        two = stack.enter_context(zeo_server(theirs, mixed))
        for number, (name, writer) in enumerate(zip(("data", "second"), writers, strict=True)):
            wait_for_data(two.address, name, writer.db.lastTransaction())
            reader = stack.enter_context(
                client(two.address, directory / f"r{name}", storage=name, read_only=True)
            )
            assert reader.sees("counter", 0)
            writer.root["counter"] = 10 + number
            writer.commit()
            wait_for(lambda: reader.sees("counter", 10 + number), "what was written")  # noqa: B023


def wait_for_data(address: str, storage: str, tid: bytes) -> None:
    def ready() -> bool:
        it = ZEO.client(address, storage=storage, read_only=True, wait_timeout=60)
        try:
            return bool(it.lastTransaction() >= tid)
        finally:
            it.close()

    wait_for(ready, f"transaction {tid.hex()}")


@pytest.mark.long
def test_conflicts_are_left_to_clients_if_the_server_says_so(directory: Path) -> None:
    ours = directory / "1"
    setting = "client-conflict-resolution true"
    with zeo_server(ours, primary(ours), setting) as server:
        with (
            client(server.address, directory / "a") as one,
            client(server.address, directory / "b") as two,
        ):
            one.root["length"] = Length()
            one.commit()
            wait_for(lambda: two.has("length"), "the length")
            two.root["length"].change(2)
            one.root["length"].change(1)
            one.commit()
            two.commit()
            assert two.root["length"]() == 3
            two.root["counter"] = 1
            one.root["counter"] = 2
            one.commit()
            with pytest.raises(ConflictError):
                two.commit()


@pytest.mark.long
def test_a_reader_that_comes_back_learns_what_it_missed(directory: Path) -> None:
    """With a cache file of its own, and over a restart of the secondary's server."""
    ours, theirs, cache = directory / "1", directory / "2", directory / "cache"
    cache.mkdir()
    persistent_cache = {"client": "c", "var": str(cache), "read_only": True}
    with contextlib.ExitStack() as stack:
        one = stack.enter_context(zeo_server(ours, primary(ours)))
        writer = stack.enter_context(client(one.address, directory / "w"))
        write_something(writer)
        section = secondary(theirs, one.replication_address())
        with zeo_server(theirs, section) as two:
            wait_for_data(two.address, "data", writer.db.lastTransaction())
            with client(two.address, directory / "r", **persistent_cache) as reader:
                assert reader.sees("counter", 0)
            writer.root["counter"] = 1
            writer.commit()
            wait_for_data(two.address, "data", writer.db.lastTransaction())
            with client(two.address, directory / "r", **persistent_cache) as reader:
                assert reader.sees("counter", 1)
        writer.root["counter"] = 2
        writer.commit()
        with zeo_server(theirs, section) as two:
            wait_for_data(two.address, "data", writer.db.lastTransaction())
            with client(two.address, directory / "r", **persistent_cache) as reader:
                assert reader.sees("counter", 2)


@pytest.mark.long
@pytest.mark.parametrize("transport", ["twisted-tcp", "socket-thread"])
def test_a_server_that_cannot_open_a_storage_ends(directory: Path, transport: str) -> None:
    """Although others are open by then, with their threads."""
    ours, nobody = directory / "1", str(directory / "nobody.sock")
    taken = open_file_storage(directory / "taken", blobs=False)
    with contextlib.closing(taken):
        more = f"transport {transport}"
        good = secondary(ours, nobody, more=more) + primary(ours, "Other.fs", more)
        bad = primary(directory / "taken", more=more)
        bad = bad.replace("<zrs data>", "<zrs bad>")
        head = f"%import zrs_core\n<zeo>\naddress {ours}/zeo.sock\n</zeo>\n"
        with running(ours, head + good + bad) as (server, _):
            assert server.wait() != 0
            assert "LockError" in server.log


OLD = """
%import zc.zrs
%define INSTANCE {directory}

<zeo>
  address $INSTANCE/zeo.sock
  read-only false
  invalidation-queue-size 100
  pid-filename $INSTANCE/zeo.pid
</zeo>

<zrs 1>
  {replicate}
  keep-alive-delay 60

  <filestorage>
    path $INSTANCE/Data.fs
    blob-dir $INSTANCE/data-blobs
  </filestorage>
</zrs>

<eventlog>
  level info
  <logfile>
    path $INSTANCE/log
  </logfile>
</eventlog>

<runner>
  program runzeo
  socket-name $INSTANCE/zeo.zdsock
  daemon true
  directory $INSTANCE
</runner>
"""


@pytest.mark.long
def test_a_zeo_conf_of_the_old_package_needs_one_line_changed(directory: Path) -> None:
    ours, theirs, sock = directory / "1", directory / "2", directory / "replication.sock"
    now = OLD.replace("%import zc.zrs", "%import zrs_core")
    one = now.format(directory=ours, replicate=f"replicate-to {sock}")
    two = now.format(directory=theirs, replicate=f"replicate-from {sock}")
    with configured(ours, one) as first, configured(theirs, two) as second:
        with client(first.address, directory / "w", storage="1") as writer:
            write_something(writer)
            wait_for_data(second.address, "1", writer.db.lastTransaction())
            with client(second.address, directory / "r", storage="1", read_only=True) as reader:
                assert reader.sees("counter", 0)
                writer.root["counter"] = 1
                writer.commit()
                wait_for(lambda: reader.sees("counter", 1), "what was written")


def test_a_commit_of_a_client_that_cannot_be_replicated(directory):
    """The client gets ZODB's error, and goes on."""
    with (
        zeo_server(directory, primary(directory)) as server,
        client(server.address, directory / "a") as one,
    ):
        one.root["title"] = "first"
        one.commit()
        deep = "the end"
        for _ in range(70):
            deep = [deep]
        one.root["title"] = "never"
        one.transactions.get().setExtendedInfo("deep", deep)
        with pytest.raises(StorageTransactionError, match="cannot be replicated: its extension"):
            one.commit()
        one.transactions.abort()
        one.root["title"] = "second"
        one.transactions.get().setExtendedInfo("shallow", [1])
        one.commit()
        with client(server.address, directory / "b") as two:
            assert two.root["title"] == "second"
            assert two.db.undoLog(0, 1)[0]["shallow"] == [1]
