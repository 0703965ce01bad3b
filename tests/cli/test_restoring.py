"""A secondary whose database is restored when it is not there."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from tests.cli.conftest import QUIETLY
from tests.cli.test_serving import is_equal, last_tid, serve
from tests.databases import open_file_storage, traffic
from zrs_core.tids import describe_tid
from zrs_core.tools.cli import restoring
from zrs_core.tools.cli.command import zrs as command
from zrs_core.tools.cli.output import Interrupted


@pytest.fixture
def snapshot(zrs, tmp_path, database):
    """A snapshot of the database, which has gone on since."""
    path = tmp_path / "snapshot"
    assert zrs("snapshot", database / "Data.fs", path).finish() == 0
    with traffic(open_file_storage(database), seed=1) as commit:
        commit.commit(3)
    return path


def follow(zrs, address, copy, *arguments):
    return zrs(
        *("secondary", address, copy / "Data.fs", "--blobs", copy / "blobs"),
        *("--until-caught-up", *QUIETLY, *arguments),
    )


def test_it_begins_with_the_snapshot_and_goes_on_from_there(zrs, tmp_path, database, snapshot):
    _, address = serve(zrs, database)
    copy = tmp_path / "copy"
    # As a service manager makes it.
    copy.mkdir()
    secondary = follow(zrs, address, copy, "--restore-if-missing", snapshot)
    assert secondary.finish() == 0, secondary.err
    assert f"{copy / 'Data.fs'} is not there: restoring {snapshot}" in secondary.out
    start = describe_tid(last_tid(snapshot / "Data.fs"))
    assert f", the one before {start}" in secondary.out
    assert is_equal(database, copy)


@pytest.mark.long
def test_what_is_there_is_left_alone(zrs, tmp_path, database):
    _, address = serve(zrs, database)
    copy = tmp_path / "copy"
    copy.mkdir()
    assert follow(zrs, address, copy).finish() == 0
    # A snapshot that is not there is not even looked at.
    again = follow(zrs, address, copy, "--restore-if-missing", tmp_path / "nowhere")
    assert again.finish() == 0
    assert "restoring" not in again.out


def test_a_snapshot_that_is_not_there(invoke, tmp_path):
    line = invoke(
        *("secondary", "localhost:1", tmp_path / "copy" / "Data.fs"),
        *("--restore-if-missing", tmp_path / "nowhere"),
        stdout=f"{tmp_path}/copy/Data.fs is not there: restoring {tmp_path}/nowhere\n",
    )
    assert str(tmp_path / "nowhere") in line
    assert not (tmp_path / "copy").exists()


def test_a_directory_with_something_else_in_it(invoke, tmp_path, snapshot):
    (tmp_path / "copy" / "blobs").mkdir(parents=True)
    line = invoke(
        *("secondary", "localhost:1", tmp_path / "copy" / "Data.fs"),
        *("--restore-if-missing", snapshot),
        stdout=f"{tmp_path}/copy/Data.fs is not there: restoring {snapshot}\n",
    )
    assert f"{tmp_path}/copy is there already" in line


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("Other.fs", "/Data.fs as STORAGE"),
        ("Data.fs --blobs elsewhere", "/blobs as --blobs"),
        ("zrs://localhost:1/x/Data.fs", "is for the path of a FileStorage"),
    ],
)
def test_storages_that_cannot_be_restored(invoke, arguments, expected):
    line = invoke("secondary", "localhost:1", *arguments.split(), "--restore-if-missing", "x")
    assert expected in line


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("nonsense", "invalid address 'nonsense'"),
        ("localhost:0", "nobody can listen at port 0"),
        ("localhost:1 --transport memory", "works within one process alone"),
        ("localhost:1 --transport none", "none"),
        ("localhost:1 --tls-ca nowhere.pem", "nowhere.pem"),
        ("localhost:1 --status-node :1", "--status"),
    ],
)
def test_nothing_is_restored_for_what_cannot_work(invoke, tmp_path, snapshot, arguments, expected):
    address, *options = arguments.split()
    line = invoke(
        *("secondary", address, tmp_path / "copy" / "Data.fs", *options),
        *("--restore-if-missing", snapshot),
    )
    assert expected in line
    assert not (tmp_path / "copy").exists()


def test_to_be_stopped_meanwhile_is_no_failure(tmp_path, snapshot, monkeypatch):
    def interrupted(*arguments):
        raise Interrupted("interrupted; nothing half-written is left")

    monkeypatch.setattr(restoring, "restore_to", interrupted)
    arguments = ["secondary", "localhost:1", str(tmp_path / "copy" / "Data.fs")]
    result = CliRunner().invoke(command, [*arguments, "--restore-if-missing", str(snapshot)])
    assert result.exit_code == 0, result.output
    said = result.stdout.splitlines()[-1]
    assert said == "Stopped: interrupted; nothing half-written is left"


def test_a_pack_that_was_killed_has_left_the_database(invoke, tmp_path):
    (tmp_path / "Data.fs.old").write_bytes(b"FS30")
    (tmp_path / "Data.fs.pack").touch()
    # The blobs belong to another layout: it is refused when the database is there again.
    (tmp_path / "blobs" / "0x0100").mkdir(parents=True)
    (tmp_path / "blobs" / "0x0100" / "0x03d4dc0011111111.blob").touch()
    (tmp_path / "blobs" / ".layout").write_text("bushy")
    line = invoke(
        "secondary",
        "127.0.0.1:1",
        tmp_path / "Data.fs",
        "--blobs",
        tmp_path / "blobs",
        "--restore-if-missing",
        tmp_path / "nowhere",
    )
    assert "write lawn into" in line
    assert (tmp_path / "Data.fs").exists()
