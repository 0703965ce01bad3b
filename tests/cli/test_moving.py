"""Moving a live database to a RelStorage and back, with the commands of docs/moving-house.rst."""

from __future__ import annotations

import logging
import re
import threading
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
import ZODB

from tests.cli.conftest import QUIETLY
from tests.cli.test_serving import last_tid
from tests.conditions import DEADLINE, wait_for
from tests.databases import Traffic, open_file_storage, temporary_files
from tests.documents.blocks import blocks_in
from tests.storage.relstorages import open_on_postgresql, open_on_sqlite
from zrs_core import Primary
from zrs_core.storage.compare import compare

DOCUMENT = (Path(__file__).parents[2] / "docs" / "moving-house.rst").read_text()


def block(begin: str) -> str:
    """The block of the document that has a line which begins so."""
    texts = (each.text for each in blocks_in(DOCUMENT))
    (found,) = (each for each in texts if re.search(rf"^ *{re.escape(begin)}", each, re.MULTILINE))
    return found


def arguments(command: str) -> list[str]:
    """Of a command in the document."""
    (found,) = re.findall(rf"^ +zrs ({re.escape(command)}.*)$", DOCUMENT, re.MULTILINE)
    return found.split()


class Application:
    """Commits until it is stopped."""

    def __init__(self, storage, seed):
        self.db = ZODB.DB(storage)
        self._commits = Traffic(self.db, seed)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self):
        while not self._stopping.wait(0.01):
            self._commits.commit()

    def commits(self):
        return self._commits._count

    def stop(self):
        self._stopping.set()
        self._thread.join()
        last = self.db.storage.lastTransaction()
        self._commits.close()
        self.db.close()
        return last


@pytest.fixture(params=["sqlite", "postgresql"])
def relstorage(request, tmp_path):
    """Opens the new storage; and the document's configuration for it."""
    text = block("<relstorage>").replace("/var/zodb", str(tmp_path))
    path = tmp_path / "blob-cache"
    with ExitStack() as databases:
        if request.param == "postgresql":
            dsn = databases.enter_context(request.getfixturevalue("postgresql").database())
            text = text.replace("dsn dbname='zodb' user='zope'", f"dsn {dsn}")

            def opener(**options):
                return open_on_postgresql(dsn, tmp_path / "house", blob_dir=str(path), **options)

        else:
            data = tmp_path / "sqlite"
            text = re.sub(
                r"<postgresql>.*</postgresql>",
                f"<sqlite3>\n data-dir {data}\n</sqlite3>",
                text,
                flags=re.DOTALL,
            )

            def opener(**options):
                return open_on_sqlite(data, blob_dir=str(path), **options)

        configuration = tmp_path / "relstorage.conf"
        configuration.write_text(text)
        yield opener, configuration


@pytest.mark.long
def test_there_and_back(zrs, relstorage, tmp_path):
    opener, configuration = relstorage
    (tmp_path / "old").mkdir()
    (tmp_path / "new").mkdir()

    def run(command, address, where):
        words = {
            "127.0.0.1:8100": address,
            "relstorage.conf": str(configuration),
            "/var/zodb/Data.fs": f"{tmp_path}/{where}/Data.fs",
            "/var/zodb/blobs": f"{tmp_path}/{where}/blobs",
        }
        return zrs(*(words.get(each, each) for each in arguments(command)), *quick(command))

    def quick(command):
        if command.startswith("primary"):
            return ("--poll-interval", "0.05")
        return (*QUIETLY, "--reconnect-delay", "0.1")

    # There.
    primary = Primary(open_file_storage(tmp_path / "old"), "127.0.0.1:0", transport="socket-thread")
    address = str(primary.replication_address)
    application = Application(primary, 1)
    secondary = run("secondary 127.0.0.1:8100 relstorage.conf", address, "old")
    wait_for(lambda: application.commits() > 60, "commits")
    secondary.wait_for("Connected")
    last = application.stop()
    primary = run("primary /var/zodb/Data.fs", address, "old")
    primary.wait_for("Serving ")
    reached = re.compile(rf"^Caught up.*; last is 0x{last.hex()} ", re.MULTILINE)
    wait_for(lambda: reached.search(secondary.out), "the last transaction")
    assert primary.stop() == secondary.stop() == 0, secondary.err
    for each in (primary, secondary):
        assert f"; last is 0x{last.hex()} (" in each.out.splitlines()[-1]
    assert secondary.err == primary.err == ""
    storage = opener()
    result = compare(
        tmp_path / "old" / "Data.fs", storage, primary_blobs=tmp_path / "old" / "blobs"
    )
    assert result.equal, result.differences
    assert result.blobs > 3

    # And back, while the application does not know of it.
    application = Application(storage, 2)
    primary = run("primary relstorage.conf", "127.0.0.1:0", "new")
    address = primary.wait_for("Serving ").rpartition(" ")[2]
    secondary = run("secondary 127.0.0.1:8100 /var/zodb/Data.fs", address, "new")
    wait_for(lambda: application.commits() > 60, "commits")
    secondary.wait_for("Connected")
    application.stop()
    with closing(opener()) as storage:
        end = storage.lastTransaction()
    # The command waits for that for ten seconds, which may be too short for a slow machine.
    wait_for(lambda: last_tid(tmp_path / "new" / "Data.fs") == end, "the last transaction")
    assert primary.stop() == 0
    secondary.wait_for("Disconnected")
    assert secondary.stop() == 0
    assert secondary.err == primary.err == ""
    (last,) = {each.out.splitlines()[-1].partition("; ")[2] for each in (primary, secondary)}
    assert last.startswith("last is 0x")
    storage = opener()
    result = compare(
        storage, tmp_path / "new" / "Data.fs", secondary_blobs=tmp_path / "new" / "blobs"
    )
    storage.close()
    assert result.equal, result.differences
    # The application goes on with the FileStorage.
    application = Application(open_file_storage(tmp_path / "new"), 3)
    wait_for(lambda: application.commits() > 5, "commits")
    application.stop()


@pytest.mark.long
def test_a_secondary_that_is_killed_goes_on_where_it_was(zrs, relstorage, tmp_path, caplog):
    caplog.set_level(logging.INFO, "zrs_core.primary")
    opener, configuration = relstorage
    text = configuration.read_text()
    configuration.write_text(text.replace("blob-dir", "shared-blob-dir true\n  blob-dir"))
    (tmp_path / "old").mkdir()
    primary = Primary(
        open_file_storage(tmp_path / "old"),
        "127.0.0.1:0",
        transport="socket-thread",
        close_timeout=DEADLINE,
    )
    application = Application(primary, 1)
    arguments = ("secondary", primary.replication_address, configuration)
    for _ in range(4):
        secondary = zrs(*arguments)
        secondary.wait_for("Connected")
        count = application.commits()
        wait_for(lambda count=count: application.commits() > count + 15, "commits")
        secondary.process.kill()
        secondary.finish()
    starts = caplog.text.count(": start ")
    secondary = zrs(*arguments)
    wait_for(lambda: caplog.text.count(": start ") > starts, "it to have asked")
    # Closing lets it catch up.
    last = application.stop()
    secondary.wait_for("Disconnected")
    assert secondary.stop() == 0
    assert secondary.out.splitlines()[-1].partition("; last is ")[2].startswith(f"0x{last.hex()}")
    storage = opener(shared_blob_dir=True)
    result = compare(
        tmp_path / "old" / "Data.fs", storage, primary_blobs=tmp_path / "old" / "blobs"
    )
    storage.close()
    assert result.equal, result.differences
    assert [name for name in temporary_files(tmp_path / "blob-cache") if "zrs-" in name] == []
