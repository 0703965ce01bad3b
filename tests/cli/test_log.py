"""`zrs log`: the transactions of a database."""

from __future__ import annotations

import contextlib
import json
import pickle
import subprocess
import sys

import pytest
import ZODB
from click.testing import CliRunner
from ZODB.FileStorage import FileStorage

from tests.cli.conftest import snapshot_of
from tests.conditions import DEADLINE
from tests.databases import open_file_storage
from tests.storage.relstorages import open_on_sqlite
from tests.storage.test_newest_first import commit_headers
from zrs_core.storage.newest_first import open_latest
from zrs_core.tids import time_of
from zrs_core.tools.cli.command import zrs as command


@pytest.fixture
def database(tmp_path, monkeypatch):
    """Transactions with users and descriptions, open, in the current directory."""
    monkeypatch.chdir(tmp_path)
    db = ZODB.DB(open_file_storage(tmp_path))
    for number in range(5):
        with db.transaction(f"number {number}") as connection:
            connection.transaction_manager.get().setUser("Zoë Müller", "/acl_users")
            connection.root()[number] = number
    yield db
    db.close()


def run(*arguments, status=0):
    result = CliRunner().invoke(command, ["log", *map(str, arguments)])
    assert result.exit_code == status, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return (result.stderr if status else result.stdout).splitlines()


def tids_of(lines):
    return [bytes.fromhex(line.split()[0].removeprefix("0x")) for line in lines]


def test_the_newest_first_while_it_is_in_use(database, tmp_path):
    before = snapshot_of(tmp_path)
    lines = run("Data.fs")
    assert snapshot_of(tmp_path) == before
    assert tids_of(lines) == [each.tid for each in database.storage.iterator()][::-1]
    last = tids_of(lines)[0]
    size = len(database.storage.load(bytes(8))[0])
    assert lines[0] == (
        f"0x{last.hex()}  {time_of(last):%Y-%m-%d %H:%M:%S.%f}       1 records  {size:>11,} bytes  "
        "/acl_users Zoë Müller  number 4"
    )
    assert lines[-1].endswith("-  initial database creation")


def test_json(database):
    lines = [json.loads(each) for each in run("Data.fs", "--json")]
    last = database.lastTransaction()
    assert lines[0] == {
        "tid": f"0x{last.hex()}",
        "time": f"{time_of(last):%Y-%m-%dT%H:%M:%S.%fZ}",
        "status": "committed",
        "user": "/acl_users Zoë Müller",
        "description": "number 4",
        "records": 1,
        "bytes": len(database.storage.load(bytes(8))[0]),
    }
    database.pack()
    assert json.loads(run("Data.fs", "--json")[0])["status"] == "packed"
    assert "  [packed]  /acl_users Zoë" in run("Data.fs")[0]


def test_some_of_them(database):
    tids = tids_of(run("Data.fs"))
    assert tids_of(run("Data.fs", "-n", 2)) == tids[:2]
    assert tids_of(run("Data.fs", "--count", 100)) == tids
    assert tids_of(run("Data.fs", "--since", f"0x{tids[2].hex()}")) == tids[:3]
    shown = run("Data.fs")[2][20:46].replace(" ", "T")
    assert tids_of(run("Data.fs", "--since", shown)) == tids[:3]
    assert tids_of(run("Data.fs", "--since", "1066-10-14")) == tids
    assert run("Data.fs", "--since", "9999-12-31") == []
    assert tids_of(run("Data.fs", "--since", "1970-01-01", "-n", 1)) == tids[:1]


def test_what_a_terminal_would_obey(database):
    with database.transaction("two\nlines \x1b[2J \u202e\u2028 \\ \x9b") as connection:
        connection.root()["more"] = 1
    (line,) = run("Data.fs", "-n", 1)
    assert line.endswith(r"-  two\nlines \x1b[2J \u202e\u2028 \\ \x9b")


def test_bytes_that_are_no_text(tmp_path):
    commit_headers(tmp_path / "Data.fs", [(b"J\xf6rg", b"\xff\x00")])
    (line,) = run(tmp_path / "Data.fs")
    assert line.endswith(r"J\xf6rg  \xff\x00")
    assert json.loads(run(tmp_path / "Data.fs", "--json")[0])["user"] == r"J\xf6rg"


class Bomb:
    def __reduce__(self):
        return (print, ("executed",))


@pytest.mark.parametrize("kind", ["Data.fs", "base.conf", "rel.conf"])
def test_nothing_is_unpickled(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    bomb = pickle.dumps(Bomb())
    commit_headers(tmp_path / "Data.fs", [(b"user", b"note")], extension=bomb, data=bomb)
    (tmp_path / "base.conf").write_text(
        "<demostorage>\n<filestorage base>\npath Data.fs\nread-only true\n</filestorage>\n"
        "<mappingstorage changes>\n</mappingstorage>\n</demostorage>\n"
    )
    if kind == "rel.conf":
        storage = open_on_sqlite(tmp_path / "rel")
        with contextlib.closing(FileStorage("Data.fs", read_only=True)) as source:
            storage.copyTransactionsFrom(source)
        storage.close()
        (tmp_path / kind).write_text(
            "%import relstorage\n<relstorage>\nkeep-history true\nblob-dir rel/blobs\n"
            "<sqlite3>\ndata-dir rel\n</sqlite3>\n</relstorage>\n"
        )
    (line,) = run(kind)
    assert line.endswith("user  note")


def test_configurations_and_uris(database, tmp_path):
    expected = run("Data.fs")
    (tmp_path / "storage.conf").write_text(
        "%import zrs_core\n<zrs>\nreplicate-to 127.0.0.1:0\n<filestorage>\npath Data.fs\n"
        "</filestorage>\n</zrs>\n<mappingstorage other>\n</mappingstorage>\n"
    )
    assert run(f"file://{tmp_path}/Data.fs") == expected
    assert run("storage.conf#other") == []
    assert "choose one by" in run("storage.conf", status=2)[0]


def test_what_is_no_database(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text").write_text("hello")
    for name, error in (("nothing", "there is no FileStorage at"), ("text", "not a FileStorage")):
        (line,) = run(name, status=2)
        assert error in line
    (line,) = run("text", "--since", "yesterday", status=2)
    assert "'yesterday' is neither a time, such as " in line
    (tmp_path / "empty").write_bytes(b"FS30")
    assert run("empty") == []


def test_a_damaged_file(database, tmp_path):
    database.close()
    with contextlib.closing(open_latest("Data.fs")) as file:
        pos = file.before(file.before(file.before(file.end)))
    with open("Data.fs", "r+b") as file:
        file.seek(pos - 8)
        file.write(bytes(8))
    result = CliRunner().invoke(command, ["log", "Data.fs"])
    assert result.exit_code == 1
    assert result.stdout.count("\n") == 3
    assert "is damaged" in result.stderr


@pytest.mark.long
def test_a_reader_that_has_seen_enough(tmp_path):
    commit_headers(tmp_path / "Data.fs", [(b"user", b"x" * 100)] * 5000)
    process = subprocess.Popen(
        [sys.executable, "-m", "zrs_core.tools.cli", "log", tmp_path / "Data.fs"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout.readline().startswith(b"0x")
    process.stdout.close()
    assert process.wait(DEADLINE) == 0
    assert process.stderr.read() == b""
    process.stderr.close()
