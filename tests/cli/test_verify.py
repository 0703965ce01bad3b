"""`zrs verify`: what it prints, its exit status, what stops it."""

from __future__ import annotations

import dataclasses
import json
import os
import pty
import re
import shutil
import signal
import socket

import pytest
from click.testing import CliRunner
from ZODB.utils import p64

from tests.cli.conftest import snapshot_of
from tests.cli.test_serving import serve
from tests.conditions import DEADLINE, wait_for
from tests.databases import open_file_storage
from tests.verify.conftest import Database, pack, verified
from zrs_core.storage.comparison import Difference, Kind
from zrs_core.tids import describe_tid
from zrs_core.tools.cli.command import zrs as command
from zrs_core.tools.cli.verify import _interrupted
from zrs_core.tools.verify.report import Report
from zrs_core.tools.verify.run import Verification


@pytest.fixture
def both(database, tmp_path, monkeypatch):
    """Two equal databases, `a` and `b`, in the current directory."""
    shutil.copytree(database, tmp_path / "a")
    shutil.copytree(database, tmp_path / "b")
    monkeypatch.chdir(tmp_path)
    return Database(tmp_path / "a"), Database(tmp_path / "b")


BLOBS = ("--blobs-a", "a/blobs", "--blobs-b", "b/blobs", "--wait", "0")


def run(*arguments, status):
    """The lines of the output, or the one of the errors."""
    result = CliRunner().invoke(command, ["verify", *map(str, arguments)])
    assert result.exit_code == status, result.output
    assert isinstance(result.exception, SystemExit) or status == 0
    if status == 2:
        assert result.stdout == ""
        [line] = result.stderr.splitlines()
        assert line.startswith("zrs: ")
        return line
    assert result.stderr == ""
    return result.stdout.splitlines()


def test_equal(both):
    a, _ = both
    last = re.escape(describe_tid(a.headers[-1].tid))
    compared, verdict = run("a/Data.fs", "b/Data.fs", *BLOBS, status=0)
    pattern = rf"Compared 31 transactions, [1-9] blobs?, .* kB, up to {last}, in \d+\.\d s"
    assert re.fullmatch(pattern, compared)
    assert verdict == "A and B are equal"
    _, remark, _ = run("a/Data.fs", "b/Data.fs", status=0)
    assert remark.startswith("Blobs were not compared: ")


def test_passwords_are_not_told(both):
    uri = "nothing://me:secret@db/x"
    assert "secret" not in run(uri, "b/Data.fs", status=2)
    uri = "memory://me:secret@db/x"
    assert "secret" not in run(uri, "b/Data.fs", "--blobs-a", "a/blobs", status=2)
    a, _ = both
    lines = run(f"file://{a.path}", "b/Data.fs", "--json", status=0)
    assert json.loads("".join(lines))["a"] == f"file://{a.path}"


def test_what_nobody_has_foreseen_does_not_say_that_they_differ(both, monkeypatch):
    def fail(self):
        raise AssertionError("unforeseen")

    monkeypatch.setattr(Verification, "run", fail)
    result = CliRunner().invoke(command, ["verify", "a/Data.fs", "b/Data.fs"])
    assert result.exit_code == 2
    assert "unforeseen" in result.stderr


def test_the_first_of_all_may_not_be_listed():
    report = Report(listed=1)
    for number in (9, 1, 5):
        report.add(Difference(Kind.RECORD, p64(number), p64(2), "the data differ"))
    assert [each.tid for each in report.differences] == [p64(9)]
    assert report.first.tid == p64(1)
    again = Report(listed=1)
    again.restore(json.loads(json.dumps(report.state())))
    assert again == report


def test_all_of_a_report_is_saved():
    """But what a comparison begins anew with."""
    report = Report(
        *(7, 1, 2, 3, 4, 5, p64(6)),
        beyond=[8, 9],
        blobs_compared=False,
        complete=False,
        packed=True,
    )
    report.add(Difference(Kind.RECORD, p64(9), p64(2), "the data differ"))
    again = Report(listed=7)
    again.restore(json.loads(json.dumps(report.state())))
    assert again == report
    changed = {
        each.name
        for each in dataclasses.fields(Report)
        if getattr(report, each.name) != getattr(Report(listed=0), each.name)
    }
    assert changed == {each.name for each in dataclasses.fields(Report)} - {"packs"}


def test_different(both):
    a, b = both
    tids = [a.headers[number].tid.hex() for number in (10, 20)]
    for number in (10, 20):
        b.flip(a.headers[number].end - 1)
    b.all_blobs()[0].unlink()
    lines = run("a/Data.fs", "b/Data.fs", *BLOBS, "--list", "2", status=1)
    assert re.fullmatch(
        rf"Different: record: transaction 0x{tids[0]}, object 0x.{{16}}: the data differ", lines[0]
    )
    assert f"0x{tids[1]}" in lines[1]
    assert lines[2] == "and 1 more, see --list"
    assert lines[-2] == "The first: " + lines[0].removeprefix("Different: ")
    assert lines[-1] == "A and B are DIFFERENT: 1 missing blob, 2 record"


def test_json(both):
    a, b = both
    b.flip(a.headers[10].end - 1)
    found = json.loads("\n".join(run("a/Data.fs", "b/Data.fs", *BLOBS, "--json", status=1)))
    assert (found["a"], found["b"]) == ("a/Data.fs", "b/Data.fs")
    assert found["equal"] is False
    assert found["complete"] is True
    assert found["last"] == f"0x{a.headers[-1].tid.hex()}"
    assert found["compared"]["transactions"] == 31
    assert found["counts"] == {"record": 1}
    assert found["first"] == found["differences"][0]
    assert found["first"]["tid"] == f"0x{a.headers[10].tid.hex()}"
    assert found["first"]["kind"] == "record"
    found = json.loads("\n".join(run("a/Data.fs", "a/Data.fs", "--json", status=0)))
    assert found["first"] is None
    assert found["compared"]["blobs"] is None
    assert len(found["remarks"]) == 1


def test_one_that_is_behind(both):
    a, b = both
    with b.path.open("r+b") as file:
        file.truncate(a.headers[-2].pos)
    lines = run("a/Data.fs", "b/Data.fs", *BLOBS, status=1)
    assert lines[-1] == "A and B are DIFFERENT: 2 missing transaction"
    lines = run("a/Data.fs", "b/Data.fs", *BLOBS, "--common", status=0)
    assert "A has 2 transactions after that, which were left out" in lines


def test_one_that_was_packed(both):
    """It is found without an option, and in one line."""
    _, b = both
    last = b.headers[-1].tid.hex()
    pack(b)
    pattern = (
        rf"A was not packed, B was packed to 0x{last} \(.*\): objects were compared as of "
        rf"0x{last} \(.*\), and all transactions after that"
    )
    lines = run("a/Data.fs", "b/Data.fs", *BLOBS, status=0)
    assert re.match(r"Compared \d+ current records, \d+ blobs?, ", lines[0])
    assert re.fullmatch(pattern, lines[1])
    assert lines[-1] == "A and B are equal"
    found = json.loads("\n".join(run("a/Data.fs", "b/Data.fs", *BLOBS, "--json", status=0)))
    assert found["packed"] == {"a": None, "b": f"0x{last}"}
    assert re.fullmatch(pattern, found["remarks"][0])
    found = json.loads("\n".join(run("a/Data.fs", "a/Data.fs", "--json", status=0)))
    assert found["packed"] is None


def test_one_that_was_packed_and_is_damaged(both):
    a, b = both
    pack(b)
    a.write(a.headers[10].pos + 8, bytes(8))
    lines = run("a/Data.fs", "b/Data.fs", status=1)
    assert "a file is too damaged for its objects to be compared" in "".join(lines)


def test_current_and_deep(both):
    lines = run("a/Data.fs", "b/Data.fs", *BLOBS, "--current", "--deep", status=0)
    assert re.match(r"Compared \d+ current records, \d+ blobs?, ", lines[0])


@pytest.mark.parametrize(
    "text",
    [
        "<filestorage>\n  path b/Data.fs\n  blob-dir b/blobs\n</filestorage>\n",
        "<blobstorage>\n  blob-dir b/blobs\n  <filestorage>\n    path b/Data.fs\n"
        "  </filestorage>\n</blobstorage>\n",
        "%import zrs_core\n<zrs>\n  replicate-to 127.0.0.1:0\n  blob-dir b/blobs\n"
        "  <filestorage>\n    path b/Data.fs\n  </filestorage>\n</zrs>\n",
        "%import zc.zlibstorage\n<zlibstorage>\n  <filestorage>\n    path b/Data.fs\n"
        "    blob-dir b/blobs\n  </filestorage>\n</zlibstorage>\n",
    ],
)
def test_file_storages_by_a_configuration(both, tmp_path, text):
    """They are read as files: nothing is opened that would write, or be in use."""
    (tmp_path / "b.conf").write_text(text)
    storage = open_file_storage(tmp_path / "b")
    before = snapshot_of(tmp_path / "b")
    try:
        *lines, verdict = run("a/Data.fs", "b.conf", "--blobs-a", "a/blobs", status=0)
        assert snapshot_of(tmp_path / "b") == before
    finally:
        storage.close()
    assert verdict == "A and B are equal"
    assert len(lines) == 1


def test_by_a_uri(both, tmp_path):
    uri = f"file://{tmp_path}/b/Data.fs?blobstorage_dir={tmp_path}/b/blobs"
    assert len(run("a/Data.fs", uri, "--blobs-a", "a/blobs", status=0)) == 2


def test_other_storages(both, tmp_path):
    """What is no FileStorage is opened, read-only if it can be."""
    (tmp_path / "b.conf").write_text(
        "%import relstorage\n<relstorage>\n  keep-history true\n  <sqlite3>\n    data-dir sql\n"
        "  </sqlite3>\n</relstorage>\n"
    )
    (tmp_path / "mapping.conf").write_text("<mappingstorage>\n</mappingstorage>\n")
    assert "cannot be opened" in run("a/Data.fs", "b.conf", status=2)
    assert run("a/Data.fs", "mapping.conf", status=1)[-1].endswith("31 missing transaction")
    assert "leave out a/blobs" in run("mapping.conf", "b/Data.fs", *BLOBS, status=2)
    message = run("mapping.conf", "b/Data.fs", "--current", status=2)
    assert "--current compares two FileStorages" in message


def test_an_address(both, zrs, tmp_path):
    a, b = both
    primary, address = serve(zrs, tmp_path / "a")
    arguments = (address, "b/Data.fs", "--blobs-b", "b/blobs", "--wait", "0.3")
    compared, verdict = run(*arguments, status=0)
    assert compared.startswith("Compared 31 transactions, ")
    assert verdict == "A and B are equal"
    b.flip(a.headers[10].end - 1)
    assert run(*arguments, status=1)[-1] == "A and B are DIFFERENT: 1 record"
    assert "leave out a/blobs" in run(address, "b/Data.fs", "--blobs-a", "a/blobs", status=2)
    assert primary.stop() == 0


@pytest.mark.long
def test_a_unix_socket(both, zrs, tmp_path):
    path = tmp_path / "socket"
    primary = zrs("primary", "a/Data.fs", "--listen", path, "--blobs", "a/blobs")
    primary.wait_for("Serving ")
    arguments = ("b/Data.fs", "--blobs-b", "b/blobs", "--wait", "0.3")
    assert run(path, *arguments, status=0)[-1] == "A and B are equal"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), r"Missing argument 'A'. See 'zrs verify --help'\."),
        (("a/Data.fs",), r"Missing argument 'B'. See 'zrs verify --help'\."),
        (("a/Data.fs", "nowhere"), "there is no FileStorage at nowhere"),
        (("a/Data.fs", "b"), "b is a directory: the path of a FileStorage is needed"),
        (("a/Data.fs", "b/Data.fs.index"), r"b/Data\.fs\.index is not a FileStorage: it begins .*"),
        (("a/Data.fs", "none.conf"), "none.conf cannot be read: No such file or directory"),
        (("a/Data.fs", "host:0"), "invalid address 'host:0': nobody can listen at port 0"),
        (("a/Data.fs", "file:///nowhere/Data.fs"), ".*nowhere.*"),
        (("a:1", "b:1"), "b:1 cannot be compared with what a primary sends: give the path .*"),
        (
            ("a/Data.fs", "b/Data.fs", "--blobs-a", "nowhere"),
            "there is no directory of blobs at .*",
        ),
        (("a/Data.fs", "b/Data.fs", "--state", "a/Data.fs"), "a/Data.fs is there and is not .*"),
        (("a/Data.fs", "b/Data.fs", "--wait", "nan"), "Invalid value for '--wait': nan is no .*"),
        (("a/Data.fs", "b/Data.fs", "--jobs", "0"), "Invalid value for '--jobs': .*"),
        (("a/Data.fs", "b/Data.fs", "--tls-ca", "nowhere"), ".*nowhere.*"),
    ],
)
@pytest.mark.usefixtures("both")
def test_what_cannot_be_compared(arguments, expected):
    assert re.fullmatch(f"zrs: {expected}", run(*arguments, status=2))


@pytest.mark.usefixtures("both")
def test_nobody_at_an_address():
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    assert run(address, "b/Data.fs", status=2) == (
        f"zrs: cannot connect to {address}: Connection refused"
    )


@pytest.mark.parametrize(
    "number", [pytest.param(signal.SIGINT, marks=pytest.mark.long), signal.SIGTERM]
)
def test_an_interrupted_run(zrs, both, tmp_path, number):
    """It waits for one who says nothing, so it surely runs when it is stopped."""
    state = tmp_path / "state"
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        process = zrs("verify", address, "b/Data.fs", "--wait", "1000", "--state", state)
        server.settimeout(DEADLINE)
        connection, _ = server.accept()
        with connection:
            wait_for(state.exists, "the state")
            process.process.send_signal(number)
            assert process.finish() == 2
    assert process.out == ""
    assert process.err == (
        f"zrs: interrupted before the first transaction; the same command goes on from {state}\n"
    )


def test_what_an_interrupted_run_tells(both):
    a, b = both
    b.flip(a.headers[-1].end - 1)
    report = verified(a, b)
    last = describe_tid(a.headers[-1].tid)
    expected = f"interrupted after transaction {last}, with 1 difference so far"
    assert _interrupted(report, None) == expected


@pytest.mark.long
def test_going_on(zrs, both, tmp_path):
    """A process that is killed leaves where it was."""
    a, b = both
    state = tmp_path / "state"
    b.flip(a.headers[10].end - 1)
    with b.path.open("r+b") as file:
        file.truncate(a.headers[-1].pos)
    arguments = ("verify", "a/Data.fs", "b/Data.fs", *BLOBS[:4], "--state", state)
    process = zrs(*arguments, "--wait", "1000")
    wait_for(state.exists, "the state")
    process.process.kill()
    process.process.wait()
    again = zrs(*arguments, "--wait", "0")
    assert again.finish() == 1
    assert again.out.startswith("Going on after transaction 0x")
    assert again.out.endswith("A and B are DIFFERENT: 1 missing transaction, 1 record\n")
    assert not state.exists()


def test_a_bar_on_a_terminal(zrs, both):
    terminal, theirs = pty.openpty()
    try:
        process = zrs("verify", "a/Data.fs", "b/Data.fs", *BLOBS, stderr=theirs)
        assert process.finish() == 0
        os.close(theirs)
        assert b"Transactions" in os.read(terminal, 100_000)
    finally:
        os.close(terminal)
    assert process.out.endswith("A and B are equal\n")


@pytest.mark.long
def test_an_output_that_nobody_reads(zrs, both):
    reading, writing = os.pipe()
    os.close(reading)
    try:
        process = zrs("verify", "a/Data.fs", "b/Data.fs", *BLOBS, stdout=writing)
        assert process.finish() == 2
    finally:
        os.close(writing)
    assert process.err == ""
