"""What a Primary and a Secondary are given, and what they leave when it cannot work."""

from __future__ import annotations

import os

import pytest
import transaction
from ZODB.blob import Blob
from ZODB.FileStorage import FileStorage
from ZODB.utils import z64

from zrs_core import Primary, Secondary
from zrs_core.errors import (
    ConfigurationError,
    InvalidAddress,
    ListenError,
    UnsuitableStorage,
)

from ..databases import blob_files, contents, open_file_storage, traffic
from .conftest import ADDRESS
from .files import GARBAGE, unfinished

NUMBERS = [[], None, "x", float("nan"), float("inf"), -1, 10**400]
WRONG = {
    Primary: {
        "close_timeout": NUMBERS,
        "peer_timeout": [*NUMBERS, 1, 100_000],
        "pickle_protocol": [*NUMBERS, 2],
        "max_peers": [*NUMBERS, 0, 1.5, 1_000_001],
        "handshake_timeout": [*NUMBERS, 0, 100_000],
        "write_timeout": [*NUMBERS, 0, 100_000],
        "require_tls": [[], None, "yes", 1],
        "socket_mode": [*NUMBERS, 0o1000],
        "tls": [[], "x", 3],
        "transport": [[], None, "x", float("nan")],
        "blob_dir": [[], "", float("nan"), b"x"],
        "storage": [[], None, float("nan"), b"x", ""],
        "address": [[], None, "x", float("nan"), float("inf"), b"x:1"],
    },
    Secondary: {
        "reconnect_delay": [*NUMBERS, 0, (1,), (2, 1), (1, None), (1, float("inf")), {1: 2}],
        "peer_timeout": [*NUMBERS, 1, 100_000],
        "keep_alive_delay": NUMBERS,
        "wait_for_data": NUMBERS,
        "max_record_size": [*NUMBERS[:-1], 0, 1.5],
        "max_compared_size": [*NUMBERS[:-1], -1, 1.5],
        "durability": [[], None, "x", float("nan"), b"batch"],
        "name": [[], "", " ", float("nan"), b"x", "a\x00b"],
        "check_checksums": [[], None, "x", float("nan")],
        "tls": [[], "x", 3],
        "transport": [[], None, "x", float("nan")],
        "blob_dir": [[], "", float("nan"), b"x"],
        "storage": [[], None, float("nan"), b"x", ""],
        "address": [[], None, "x", float("nan"), float("inf"), b"x:1", ":0", ("host", 0)],
    },
}


@pytest.mark.parametrize(
    ("end", "option", "value"),
    [
        pytest.param(end, option, value, id=f"{end.__name__}-{option}-{str(value)[:9]}")
        for end, options in WRONG.items()
        for option, values in options.items()
        for value in values
    ],
)
def test_a_wrong_argument_is_named_before_anything_is_opened(
    end, option, value, network, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    given = {"storage": "Data.fs", "address": ADDRESS, "transport": "memory", option: value}
    with pytest.raises(ConfigurationError) as caught:
        end(reactor=network, **given)
    text = str(caught.value)
    assert any(each in text for each in (option, "is no storage", "an empty path", "name"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("end", [Primary, Secondary])
def test_only_file_storages_are_opened(end, network, tmp_path):
    for number, garbage in enumerate(GARBAGE):
        path = tmp_path / f"{number}.fs"
        path.write_bytes(*garbage.values)
        with pytest.raises(UnsuitableStorage, match="no transaction follows its magic"):
            end(path, ADDRESS, network, transport="memory")
        assert path.read_bytes() == garbage.values[0]
    assert len(list(tmp_path.iterdir())) == len(GARBAGE)


@pytest.mark.parametrize("end", [Primary, Secondary])
@pytest.mark.parametrize("make", [unfinished, lambda path: path / "Data.fs"])
def test_what_holds_no_transaction_is_an_empty_storage(end, make, network, tmp_path):
    path = make(tmp_path)
    if not path.exists():
        path.touch()
    with_nothing = end(path, ADDRESS, network, transport="memory")
    assert len(with_nothing) == 0
    with_nothing.close()


class TestADirectoryThatChanges:
    def test_it_changes_nothing(
        self, open_primary, open_secondary, database, network, tmp_path, monkeypatch
    ):
        home, away = tmp_path / "home", tmp_path / "away"
        home.mkdir()
        away.mkdir()
        monkeypatch.chdir(home)
        primary = open_primary(home / "primary.fs", blob_dir="primary")
        secondary = open_secondary(home / "secondary.fs", blob_dir="secondary")
        monkeypatch.chdir(away)
        db = database(primary)
        with db.transaction() as connection:
            connection.root()["blob"] = Blob(b"a blob")
        network.run()
        with db.transaction() as connection:
            connection.root()["another"] = Blob(b"another blob")
        network.run()
        assert contents(secondary) == contents(primary)
        assert blob_files(home / "secondary") == blob_files(home / "primary")
        assert len(blob_files(home / "primary")) == 2
        assert list(away.iterdir()) == []

    def test_around_a_given_storage_too(self, open_primary, database, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        primary = open_primary(FileStorage(str(tmp_path / "primary.fs")), blob_dir="primary")
        (tmp_path / "away").mkdir()
        monkeypatch.chdir(tmp_path / "away")
        with database(primary).transaction() as connection:
            connection.root()["blob"] = Blob(b"a blob")
        assert len(blob_files(tmp_path / "primary")) == 1


class TestAListenerThatCannotStart:
    #: A name that no system knows (RFC 2606), and an address of nobody (RFC 5737).
    CASES = [
        pytest.param("memory", ":8000", object(), ConfigurationError, id="another network"),
        pytest.param("twisted-tcp", "nowhere.invalid:0", None, ListenError, id="no such host"),
        pytest.param("twisted-tcp", "192.0.2.1:0", None, ListenError, id="not our address"),
        pytest.param("socket-thread", "/nowhere/zrs.sock", None, ListenError, id="no directory"),
    ]

    @pytest.mark.parametrize(("transport", "address", "reactor", "error"), CASES)
    def test_it_leaves_nothing_where_nothing_was(
        self, transport, address, reactor, error, tmp_path
    ):
        with pytest.raises(error):
            Primary(
                tmp_path / "Data.fs",
                address,
                reactor,
                tmp_path / "blobs",
                transport=transport,
            )
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(("transport", "address", "reactor", "error"), CASES)
    def test_it_changes_nothing_that_was_there(self, transport, address, reactor, error, tmp_path):
        with traffic(open_file_storage(tmp_path)) as commits:
            commits.commit(10)
        path = tmp_path / "Data.fs"
        data, blobs = path.read_bytes(), blob_files(tmp_path / "blobs")
        with pytest.raises(error):
            Primary(path, address, reactor, tmp_path / "blobs", transport=transport)
        assert path.read_bytes() == data
        assert blob_files(tmp_path / "blobs") == blobs
        storage = open_file_storage(tmp_path)
        assert len(contents(storage)) == 11
        storage.close()

    @pytest.mark.parametrize(("transport", "address", "reactor", "error"), CASES)
    def test_a_given_storage_stays_open(self, transport, address, reactor, error, tmp_path):
        storage = open_file_storage(tmp_path)
        with pytest.raises(error):
            Primary(storage, address, reactor, transport=transport)
        assert storage.lastTransaction() == z64
        storage.close()

    def test_a_secondary_neither(self, tmp_path):
        with pytest.raises(ConfigurationError):
            Secondary(
                tmp_path / "Data.fs", ":1", 3, blob_dir=tmp_path / "blobs", transport="memory"
            )
        assert list(tmp_path.iterdir()) == []


class TestClosing:
    def test_the_timeout_is_the_listeners(self, open_primary, monkeypatch):
        primary = open_primary(close_timeout=2.5)
        stopped = []
        monkeypatch.setattr(primary._listener, "stop", stopped.append)
        primary.close()
        assert stopped == [2.5]
        monkeypatch.undo()
        primary._listener.stop(0)


class TestTwoDatabases:
    def test_both_see_what_is_new(self, open_primary, open_secondary, database, network):
        there = database(open_primary()).open()
        secondary = open_secondary()
        network.run()
        readers = [database(secondary).open() for _ in range(2)]
        for number in range(3):
            there.root()["number"] = number
            transaction.commit()
            network.run()
            for reader in readers:
                reader.sync()
                assert reader.root()["number"] == number


class TestRecordSize:
    @pytest.mark.parametrize("size", [100_000, 300_000])
    def test_a_larger_record_ends_the_connection(
        self, size, open_primary, open_secondary, database, network, caplog
    ):
        primary = open_primary()
        with database(primary).transaction() as connection:
            connection.root()["data"] = b"x" * 200_000
        secondary = open_secondary(max_record_size=size)
        network.run()
        fits = size > 200_000
        assert (secondary.lastTransaction() == primary.lastTransaction()) is fits
        assert (f"at most {size:d}" in caplog.text.replace(",", "")) is not fits


class TestAnotherAddress:
    OTHER = ("", 8001)

    def test_it_is_followed_from_now_on(
        self, open_primary, open_secondary, database, network, tmp_path
    ):
        first = open_primary()
        with traffic(first) as commits:
            commits.commit(5)
            secondary = open_secondary()
            network.run()
        # The same history, in another place.
        (tmp_path / "moved").mkdir()
        os.rename(first.getName(), tmp_path / "moved" / "Data.fs")
        os.rename(first.fshelper.base_dir, tmp_path / "moved" / "blobs")
        second = open_primary(open_file_storage(tmp_path / "moved"), self.OTHER)
        with database(second).transaction() as connection:
            connection.root()["after"] = "the move"
        network.advance(1)
        network.run()
        assert not secondary.progress.connected
        secondary.setReplicationAddress(":8001")
        assert secondary.replication_address == self.OTHER
        network.run()
        assert secondary.progress.connected
        assert contents(secondary) == contents(second)

    def test_a_connection_is_left_for_it(
        self, open_primary, open_secondary, database, network, tmp_path
    ):
        open_primary()
        secondary = open_secondary()
        network.run()
        second = open_primary(open_file_storage(tmp_path / "second"), self.OTHER)
        database(second)
        secondary.setReplicationAddress(self.OTHER)
        network.advance(10)
        network.run()
        assert contents(secondary) == contents(second)
        assert secondary.progress.connections == 2

    @pytest.mark.parametrize("address", ["nowhere", ":0", None, ("", 0), "a\0b:1"])
    def test_a_wrong_one_changes_nothing(
        self, address, open_primary, open_secondary, database, network
    ):
        primary, secondary = open_primary(), open_secondary()
        network.run()
        with pytest.raises(InvalidAddress):
            secondary.setReplicationAddress(address)
        assert secondary.replication_address == ADDRESS
        database(primary)
        network.run()
        assert secondary.lastTransaction() == primary.lastTransaction()
        assert secondary.progress.connections == 1
