"""`zrs dump`, of files and of running primaries."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import threading

import pytest
from click.testing import CliRunner
from ZODB import DB

from tests.certificates import authority
from tests.codec.vectors import FOLDER, VECTORS
from tests.conditions import DEADLINE, wait_for
from zrs_core import Primary
from zrs_core.tls import TLSOptions
from zrs_core.tools.cli.command import zrs as command
from zrs_core.tools.cli.dump import _Output as Entries
from zrs_core.tools.dump.selection import Selection

BLOBS = FOLDER / "py3-blobs"
BASIC = FOLDER / "py3-basic"


def dumped(*arguments, status=0):
    """The lines of a dump, and the error."""
    result = CliRunner().invoke(command, ["dump", *map(str, arguments)])
    assert result.exit_code == status, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.stdout.splitlines(), result.stderr


def objects(*arguments, status=0):
    return [json.loads(line) for line in dumped(*arguments, "--json", status=status)[0]]


_PICKLED = ("offset", "length", "checksum", "extension_size")


def without_pickles(lines):
    """What does not depend on how messages are pickled."""
    return [{key: each[key] for key in each if key not in _PICKLED} for each in lines]


class TestFiles:
    def test_words(self):
        lines, _ = dumped(BLOBS / "Data.fs", "--blobs", BLOBS / "blobs", "--count", 3)
        assert lines[0].split(maxsplit=4) == [
            "0",
            "62",
            "<",
            "transaction",
            "0x036c6b90f7777777 (2007-03-21 20:32:58.000000), "
            "description 'initial database creation'",
        ]
        assert lines[5].endswith(
            "< blob        object 0x0000000000000001, 25 bytes, ZODB.blob.Blob, then 0 blocks"
        )
        assert lines[-2].endswith("< block       1 of 1, 1 byte")
        assert lines[-1].endswith("verified")
        assert len([line for line in lines if "< commit" in line]) == 3

    @pytest.mark.parametrize("name", ["py3-basic", "py3-blobs", "py3-packed"])
    def test_a_file_storage_is_what_its_capture_is(self, name):
        folder = FOLDER / name
        blobs = ["--blobs", folder / "blobs"] if (folder / "blobs").exists() else []
        ours = objects(folder / "Data.fs", *blobs)
        theirs = objects(folder / "stream.bin")
        assert without_pickles(ours) == without_pickles(theirs)
        assert all(each.get("checksum_is", "verified") == "verified" for each in ours)

    def test_it_is_only_read_and_may_be_in_use(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        with contextlib.closing(Primary("Data.fs", "127.0.0.1:0")) as primary:
            db = DB(primary)
            before = {each: each.stat().st_mtime_ns for each in tmp_path.iterdir()}
            assert len(dumped("Data.fs")[0]) == 3
            assert {each: each.stat().st_mtime_ns for each in tmp_path.iterdir()} == before
            db.close()

    def test_without_its_blobs(self):
        lines = objects(BLOBS / "Data.fs")
        assert {each["kind"] for each in lines} == {"transaction", "store", "commit"}
        assert "ZODB.blob.Blob" in [each.get("class") for each in lines]

    @pytest.mark.parametrize("file", ["Data.fs", "stream.bin"])
    def test_from_until_and_count(self, file):
        path = BASIC / file
        every = [each["tid"] for each in objects(path) if each["kind"] == "transaction"]

        def tids(*arguments):
            lines = objects(path, *arguments)
            assert lines[-1]["kind"] == "commit"
            assert {each["tid"] for each in lines} == {
                each["tid"] for each in lines if each["kind"] == "transaction"
            }
            return [each["tid"] for each in lines if each["kind"] == "transaction"]

        assert tids("--from", every[2]) == every[3:]
        assert tids("--until", every[2]) == every[:3]
        between = f"0x{int(every[2], 16) - 1:016x}"
        assert tids("--until", between) == every[:2]
        assert tids("--from", every[2], "--count", 2) == every[3:5]
        assert dumped(path, "--from", every[-1])[0] == []
        for unknown, near in ((between, "before it and"), ("0x" + "7" * 16, "before it")):
            lines, error = dumped(path, "--from", unknown, status=2)
            assert lines == []
            assert f"holds no transaction {unknown}" in error
            assert near in error
            assert len(error.splitlines()) == 1

    def test_a_capture_without_its_greeting(self):
        vector = VECTORS["py3-resume"]
        path = vector.folder / "stream.bin"
        start = f"0x{vector.start.hex()}"
        assert objects(path, "--from", start)[-1]["checksum_is"] == "verified"
        lines, error = dumped(path, status=1)
        assert lines[-1].endswith("wrong")
        assert "1 fault in the stream" in error
        assert "--from" in error

    def test_what_a_secondary_has_sent(self):
        lines, _ = dumped(VECTORS["py3-resume"].folder / "hello.bin")
        assert [line.split()[2:5] for line in lines] == [
            [">", "hello", "zrs2.0"],
            [">", "start", "after"],
        ]

    @pytest.mark.long
    def test_both_sides_through_a_pipe(self, zrs, tmp_path):
        vector = VECTORS["py3-resume"]
        both = tmp_path / "both"
        both.write_bytes(vector.hello + vector.stream)
        with both.open("rb") as file:
            process = zrs("dump", "/dev/stdin", stdin=file)
            assert process.finish() == 0
        assert process.out.splitlines() == dumped(both)[0]

    def test_a_fault_is_told_in_its_place(self, tmp_path):
        stream = bytearray(VECTORS["py3-basic"].stream)
        stream[590] ^= 0xFF
        path = tmp_path / "capture"
        path.write_bytes(stream)
        lines, error = dumped(path, status=1)
        fault = next(line for line in lines if "< error" in line)
        assert fault.startswith("         548")
        assert "expected S, B or C" in fault
        assert len(lines) == 60
        assert error == f"zrs: {path}: 2 faults in the stream, the first at byte 548\n"

    def test_a_damaged_file_storage(self, tmp_path):
        data = bytearray((BASIC / "Data.fs").read_bytes())
        # The length of the second transaction.
        data[data.index(bytes.fromhex("036c6b90fbbbbbbb")) + 15] = 7
        path = tmp_path / "Data.fs"
        path.write_bytes(data)
        lines, error = dumped(path, status=1)
        assert lines[0].split()[3] == "transaction"
        assert error.startswith(f"zrs: {path} is damaged: ")
        assert len(error.splitlines()) == 1

    def test_what_is_not_complete_is_left_out(self, tmp_path):
        path = tmp_path / "Data.fs"
        path.write_bytes((BASIC / "Data.fs").read_bytes()[:-1])
        lines, error = dumped(path)
        assert lines == dumped(BASIC / "Data.fs")[0][: len(lines)]
        assert "31 records" not in lines[-1]
        assert "bytes behind the last complete transaction are left out" in error
        assert len(error.splitlines()) == 1

    def test_control_characters(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        with contextlib.closing(Primary("Data.fs", "127.0.0.1:0")) as primary:
            db = DB(primary)
            with db.transaction("\x1b[2J\r\n\u202euser', user 'root\x00\x07é") as connection:
                connection.root()["a"] = 1
            db.close()
        lines, _ = dumped("Data.fs")
        assert all(line.isprintable() for line in lines)
        assert r"\x1b[2J\r\n\u202e" in lines[3]
        assert "é" in lines[3]
        [line] = [each for each in objects("Data.fs") if each.get("description", "i")[0] != "i"]
        assert line["description"].startswith("\x1b[2J\r\n\u202e")

    @pytest.mark.long
    def test_a_terminal_without_the_letters(self, zrs, monkeypatch):
        monkeypatch.setenv("PYTHONIOENCODING", "ascii")
        process = zrs("dump", BASIC / "Data.fs")
        assert process.finish() == 0
        assert r"caf\xe9 \u2603" in process.out

    def test_an_empty_file_storage(self, tmp_path):
        path = tmp_path / "Data.fs"
        path.write_bytes(b"FS30")
        assert dumped(path) == ([], "")


class TestMistakes:
    @pytest.mark.parametrize(
        ("arguments", "what"),
        [
            (["here"], "there is no file here, and as an address: "),
            (["./here"], "there is no file and no Unix socket at ./here"),
            (["."], ". is a directory: give the Data.fs in it"),
            (["127.0.0.1:0"], "nobody can listen at port 0"),
            (["127.0.0.1:1", "--transport", "pigeon"], "unknown transport 'pigeon'"),
            (["127.0.0.1:1", "--transport", "memory"], "within one process"),
            (["127.0.0.1:1", "--from", "5"], "'5' is no tid: one is 0x and 16 hex digits"),
            (["127.0.0.1:1", "--count", "0"], "--count"),
            (["127.0.0.1:1", "--tls-ca", "nothing"], "ca nothing cannot be read"),
            (
                [BASIC / "Data.fs", "--blobs", "nowhere"],
                "no directory of blobs at nowhere",
            ),
            ([BASIC / "expected.jsonl"], "neither a FileStorage's file"),
            ([os.devnull], f"{os.devnull} is empty"),
        ],
    )
    def test_one_line_and_status_2(self, invoke, arguments, what):
        assert what in invoke("dump", *arguments)

    def test_a_file_that_may_not_be_read(self, invoke, monkeypatch):
        def refuse(*args, **kwargs):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr("builtins.open", refuse)
        result = CliRunner().invoke(command, ["dump", str(BASIC / "Data.fs")])
        assert result.exit_code == 2
        assert result.stderr == f"zrs: {BASIC / 'Data.fs'} cannot be read: Permission denied\n"

    @pytest.mark.long
    @pytest.mark.parametrize("transport", ["twisted-tcp", "socket-thread"])
    def test_nobody_there(self, zrs, transport):
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{unused.getsockname()[1]}"
            process = zrs("dump", address, "--transport", transport)
            assert process.finish() == 2
        [line] = process.err.splitlines()
        assert line.startswith(f"zrs: {address}: cannot connect (")


@pytest.fixture
def serving(tmp_path):
    """A primary over the captured Data.fs, and its database."""
    opened = []

    def serve(**options):
        path = tmp_path / "Data.fs"
        path.write_bytes((BASIC / "Data.fs").read_bytes())
        address = options.pop("address", "127.0.0.1:0")
        opened.append(DB(Primary(str(path), address, transport="socket-thread", **options)))
        return opened[-1].storage, opened[-1]

    yield serve
    for db in opened:
        db.close()


class TestRunning:
    @pytest.mark.parametrize(
        "transport", ["twisted-tcp", pytest.param("socket-thread", marks=pytest.mark.long)]
    )
    def test_what_is_there_and_what_comes(self, zrs, serving, transport):
        primary, db = serving()
        process = zrs("dump", primary.replication_address, "--json", "--transport", transport)
        last = f"0x{primary.lastTransaction().hex()}"
        process.wait_for(last)
        with db.transaction("live") as connection:
            connection.root()["live"] = 1
        process.wait_for('"description": "live"')
        live = f"0x{primary.lastTransaction().hex()}"
        wait_for(lambda: process.out.splitlines()[-1].count(live), "the commit")
        lines = [json.loads(line) for line in process.out.splitlines()]
        assert [each["kind"] for each in lines[:3]] == ["hello", "start", "transaction"]
        assert [each["offset"] for each in lines[:3]] == [0, 10, 0]
        process.wait_for('"checksum_is": "verified"')
        # Ctrl-C.
        process.process.send_signal(signal.SIGINT)
        assert process.finish() == 0
        assert process.err == ""
        assert all(each.get("checksum_is", "verified") == "verified" for each in lines)
        known = without_pickles(objects(BASIC / "Data.fs"))
        assert without_pickles(lines[2:])[: len(known)] == known

    def test_a_part_by_a_unix_socket(self, serving, tmp_path):
        serving(address=str(tmp_path / "socket"))
        tids = [each["tid"] for each in objects(BASIC / "Data.fs") if each["kind"] == "transaction"]
        part = ["--from", tids[1], "--until", tids[3]]
        lines = objects(tmp_path / "socket", *part, "--transport", "socket-thread")
        assert [each["tid"] for each in lines if each["kind"] == "transaction"] == tids[2:4]
        assert lines[1]["tid"] == tids[1]
        assert lines[-1]["checksum_is"] == "verified"

    def test_a_start_that_it_does_not_hold(self, serving):
        primary, _ = serving()
        for start in ("0x036c6b9100000001", "0x7700000000000000"):
            arguments = [primary.replication_address, "--from", start]
            lines, error = dumped(*arguments, "--transport", "socket-thread", status=2)
            assert [line.split()[3] for line in lines] == ["hello", "start"]
            assert f"without sending anything after start {start}" in error
            assert len(error.splitlines()) == 1

    def test_tls(self, serving):
        primary, _ = serving(tls=TLSOptions(authority().issue("127.0.0.1")))
        arguments = [primary.replication_address, "--count", 1, "--transport", "socket-thread"]
        assert len(dumped(*arguments, "--tls-ca", authority().ca)[0]) == 5
        # Without it, what comes is TLS, if anything.
        result = CliRunner().invoke(command, ["dump", *map(str, arguments)])
        assert result.exit_code in (1, 2)
        assert len(result.stderr.splitlines()) == 1

    def test_a_primary_that_is_closed(self, serving, monkeypatch):
        primary, _ = serving()
        written = Entries.show

        def show(output, entries):
            result = written(output, entries)
            if output.selection._last == primary.lastTransaction() and not closing.ident:
                closing.start()
            return result

        closing = threading.Thread(target=primary.close)
        monkeypatch.setattr(Entries, "show", show)
        arguments = [primary.replication_address, "--transport", "socket-thread"]
        lines, error = dumped(*arguments, status=1)
        closing.join(DEADLINE)
        assert "verified" in lines[-1]
        assert "the connection was lost (" in error
        assert len(error.splitlines()) == 1

    def test_something_else_that_listens(self):
        with socket.create_server(("127.0.0.1", 0)) as server:

            def answer():
                connection, _ = server.accept()
                with connection:
                    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                    connection.recv(100)

            thread = threading.Thread(target=answer)
            thread.start()
            address = f"127.0.0.1:{server.getsockname()[1]}"
            lines, error = dumped(address, "--transport", "socket-thread", status=1)
            thread.join(DEADLINE)
        assert "expected T, the beginning of a transaction" in lines[2]
        assert error == f"zrs: {address}: 1 fault in the stream, the first at byte 0\n"


class TestReaders:
    """Who reads what is printed may go."""

    @pytest.mark.parametrize("live", [False, pytest.param(True, marks=pytest.mark.long)])
    def test_who_has_seen_enough(self, zrs, serving, live, tmp_path):
        if live:
            primary, db = serving()
            with db.transaction("large") as connection:
                # More than a pipe holds.
                for number in range(2000):
                    connection.root()[number] = type(connection.root())()
            place = primary.replication_address
        else:
            place = BASIC / "Data.fs"
        reading, writing = os.pipe()
        process = zrs("dump", place, stdout=writing)
        os.close(writing)
        os.read(reading, 10)
        os.close(reading)
        assert process.finish() == 0
        assert process.err == ""

    @pytest.mark.long
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_a_pipe_from_which_nothing_comes(self, zrs, number):
        reading, writing = os.pipe()
        process = zrs("dump", "/dev/stdin", stdin=reading)
        os.close(reading)
        os.write(writing, VECTORS["py3-basic"].stream[:1000])
        process.wait_for("verified")
        process.process.send_signal(number)
        assert process.finish() == 0
        os.close(writing)
        assert process.err == ""


def test_a_selection_of_what_has_no_transaction():
    selection = Selection("it", until=b"\1" * 8)
    assert not selection.done
    selection.check()


def test_a_file_storage_from_a_pipe(zrs):
    with (BASIC / "Data.fs").open("rb") as file:
        reading, writing = os.pipe()
        process = zrs("dump", "/dev/stdin", stdin=reading)
        os.close(reading)
        os.write(writing, file.read(100))
        os.close(writing)
    assert process.finish() == 2
    assert process.err == "zrs: /dev/stdin is a pipe with a FileStorage: give the file itself\n"


@pytest.mark.parametrize("arguments", ["dump a", "snapshot a b", "demo --source a"])
def test_a_directory_of_blobs_that_nobody_knows(arguments, tmp_path):
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    (blobs / ".layout").write_text("unheard-of")
    words = arguments.replace(" a", f" {BASIC / 'Data.fs'}").replace(" b", f" {tmp_path}/copy")
    result = CliRunner().invoke(command, [*words.split(), "--blobs", str(blobs)])
    assert result.exit_code == 2, result.output
    expected = f"zrs: {blobs} is no directory of blobs: its layout 'unheard-of' is not known"
    assert result.stderr.startswith(expected)
    assert result.stderr.endswith(f"into {blobs / '.layout'}\n")
    assert os.listdir(blobs) == [".layout"]
    assert os.listdir(tmp_path) == ["blobs"]
