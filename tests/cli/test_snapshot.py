"""`zrs snapshot` and `zrs restore`."""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import os
import pty
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from ZODB.FileStorage import FileStorage
from ZODB.utils import p64, u64

from tests.certificates import authority
from tests.conditions import DEADLINE, wait_for
from tests.databases import blob_files, open_file_storage, stored, traffic
from tests.snapshots.helpers import names, read
from tests.snapshots.scripted import ScriptedPrimary, tid_of
from zrs_core import Primary
from zrs_core.tls import TLSOptions
from zrs_core.tools.cli import snapshot as module
from zrs_core.tools.cli.command import zrs as command
from zrs_core.tools.cli.cutting import CuttingProxy
from zrs_core.tools.snapshots import ending, receiving
from zrs_core.tools.verify import stream

# What decides is something else, however slow this machine is.
PATIENTLY = ("--quiet", "30", "--transport", "socket-thread")


@pytest.fixture
def soon(monkeypatch):
    """Lets the primary's answers be waited for only shortly."""
    monkeypatch.setattr(module, "_INTERVAL", 0.001)
    monkeypatch.setattr(ending, "REFUSAL_TIME", 0.1)
    monkeypatch.setattr(stream, "REFUSAL_TIME", 0.1)
    monkeypatch.setattr(ending, "_PAUSES", (0.0, 0.0))


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs the command where `it` is to be made; afterwards nothing else may be there."""
    place = tmp_path / "place"
    place.mkdir()
    monkeypatch.chdir(place)
    monkeypatch.setattr(module, "_RECONNECT_DELAY", (0.01, 0.05))

    def call(*arguments, status=0):
        result = CliRunner().invoke(command, [str(each) for each in arguments])
        assert result.exit_code == status, result.output
        assert names(place) <= {"it", "restored"}
        lines = (result.stderr if status else result.stdout).splitlines()
        # FileStorage warns of tids in the future.
        lines = [each for each in lines if "seconds in the future" not in each]
        assert len(lines) == 1 or "Not in it" in lines[1]
        assert not (result.stdout if status else result.stderr)
        return lines[0]

    yield call
    assert names(place) <= {"it", "restored"}


@pytest.fixture
def primary(tmp_path):
    """A primary with something in it, the transport a thread."""
    with traffic(open_file_storage(tmp_path / "primary")) as commit:
        commit.commit(30)
    storage = open_file_storage(tmp_path / "primary")
    with contextlib.closing(Primary(storage, "127.0.0.1:0", transport="socket-thread")) as primary:
        yield primary


@pytest.fixture
def quiet_after(monkeypatch):
    """A primary counts as quiet when so many transactions have come, however long that takes."""

    def begin(transactions):
        class CatchUp:
            def __init__(self, progress, quiet):
                self._progress = progress

            def done(self):
                return self._progress.transactions >= transactions and not self._progress.unapplied

        monkeypatch.setattr(module, "CatchUp", CatchUp)

    return begin


@pytest.fixture
def count_looks(monkeypatch):
    """Counts how often it was decided that more has to come; calls a function after the third."""

    def begin(then):
        sample, looks = module.Meter.sample, []

        def counted(self):
            if self._progress.transactions:
                looks.append(self._progress.tid)
                if len(looks) == 3:
                    then()
            return sample(self)

        monkeypatch.setattr(module.Meter, "sample", counted)
        return looks

    return begin


def address_of(primary):
    return str(primary.replication_address)


def test_there_and_back(run, tmp_path, database):
    line = run("snapshot", database / "Data.fs", "it")
    manifest = read(Path("it"))
    assert line.startswith(f"it is a snapshot of {database / 'Data.fs'}; last is {manifest['tid']}")
    assert ", 31 transactions, " in line
    line = run("restore", "it", "restored", "--until", manifest["time"])
    assert line.startswith("restored is restored from it: 31 transactions; last is 0x")
    assert stored(Path("restored")) == stored(database)


def test_from_a_primary_until_it_is_quiet(run, tmp_path, primary):
    arguments = ("--quiet", "1", "--transport", "socket-thread")
    line = run("snapshot", address_of(primary), "it", *arguments)
    manifest = read(Path("it"))
    assert line.startswith(f"it is a snapshot of {address_of(primary)}; last is {manifest['tid']}")
    assert manifest["source"] == address_of(primary)
    taken = stored(Path("it"))
    assert taken == stored(tmp_path / "primary")[: len(taken)]
    assert names(Path("it")) == {"Data.fs", "Data.fs.index", "blobs", "snapshot.json"}


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("ahead", [0, 3600, -3600])
def test_from_a_primary_that_is_never_quiet(run, tmp_path, monkeypatch, ahead):
    """It has what was committed before, by whatever clock, and ends all the same."""
    monkeypatch.setattr(ending, "_WINDOW", 0.1)
    storage = open_file_storage(tmp_path / "primary")
    clock = time.time
    primary = Primary(storage, str(tmp_path / "socket"))
    done = threading.Event()
    with traffic(primary) as commit:
        monkeypatch.setattr(time, "time", lambda: clock() + ahead)
        commit.commit(3)
        monkeypatch.setattr(time, "time", clock)
        before = primary.lastTransaction()

        def go_on():
            while not done.wait(0.01):
                commit.commit()

        thread = threading.Thread(target=go_on)
        thread.start()
        try:
            run("snapshot", tmp_path / "socket", "it", "--quiet", "30")
        finally:
            done.set()
            thread.join()
    taken = stored(Path("it"))
    assert taken == stored(tmp_path / "primary")[: len(taken)]
    assert before in [each.tid for each in taken]


@pytest.mark.usefixtures("soon")
def test_from_a_primary_that_is_never_quiet_and_cannot_be_asked(run, count_looks, monkeypatch):
    monkeypatch.setattr(ending, "_WINDOW", 0.0)
    monkeypatch.setattr(ending, "_MOST_FAILURES", 1)
    # As if storing took no time, by far: then there is all the time to ask, on a slow machine too.
    busy = itertools.count(0, -100)
    monkeypatch.setattr(receiving.Receiver, "busy", property(lambda receiver: next(busy)))
    with ScriptedPrimary("  ", shown=1) as primary:
        primary.is_gone = True
        count_looks(primary.show_all)
        line = run("snapshot", primary.address, "it", *PATIENTLY, status=1)
    assert "as a primary does that does not hold that transaction" in line
    assert "asked over another connection whether the snapshot may end" in line


@pytest.mark.usefixtures("soon")
def test_the_time_of_a_transaction_says_nothing(run, count_looks, quiet_after):
    """A clock was ahead: the first transaction is not older than the command."""
    quiet_after(3)
    with ScriptedPrimary("   ", shown=1) as primary:
        looks = count_looks(primary.show_all)
        run("snapshot", primary.address, "it", *PATIENTLY)
    assert looks[:3] == [tid_of(0)] * 3
    assert read(Path("it"))["transactions"] == 3


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize(("statuses", "shown"), [("ppp ", 1), (" ppp", 2), ("ppp", 2)])
def test_never_within_what_a_pack_has_marked(run, quiet_after, count_looks, statuses, shown):
    """The line is quiet, and the rest of what the pack has left has not come yet."""
    quiet_after(1)
    with ScriptedPrimary(statuses, shown) as primary:
        looks = count_looks(primary.show_all)
        run("snapshot", primary.address, "it", *PATIENTLY)
        # It has asked for what comes after that.
        assert p64(u64(tid_of(shown - 1)) + 1) in primary.starts
    assert looks[:3] == [tid_of(shown - 1)] * 3
    assert read(Path("it"))["transactions"] == len(statuses)


@pytest.mark.usefixtures("soon")
def test_a_refusal_by_what_is_no_primary_proves_nothing(run, quiet_after):
    quiet_after(1)
    with ScriptedPrimary("pp", shown=1) as primary:
        primary.is_gone = True
        line = run("snapshot", primary.address, "it", *PATIENTLY, status=1)
    assert "asked over another connection whether the snapshot may end" in line


@pytest.mark.usefixtures("soon")
def test_it_cannot_be_told_whether_a_pack_has_left_more(run, quiet_after, monkeypatch):
    monkeypatch.setattr(module, "_PATIENCE", 0.5)
    monkeypatch.setattr(ending.Ending, "_is_last_packed", lambda self, tid: False)
    quiet_after(1)
    with ScriptedPrimary("pp") as primary:
        line = run("snapshot", primary.address, "it", *PATIENTLY, status=1)
    assert line.startswith(f"zrs: {primary.address} has sent nothing for ")
    assert line.endswith("take the snapshot again after the next commit")


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("transport", ["socket-thread", "twisted-tcp"])
def test_what_comes_before_it_is_stopped(run, quiet_after, monkeypatch, transport):
    """It goes on if that ends within what a pack has marked."""
    quiet_after(1)
    receive, answers, times = receiving.Receiver.receiving, [True, False], []
    with ScriptedPrimary(" p", shown=1) as primary:

        @contextlib.contextmanager
        def and_more(self):
            times.append(1)
            with receive(self):
                yield
                primary.show_all()
                wait_for(lambda: self.received.tid == tid_of(1), "another transaction")

        monkeypatch.setattr(receiving.Receiver, "receiving", and_more)
        monkeypatch.setattr(ending.Ending, "_is_last_packed", lambda self, tid: answers.pop())
        run("snapshot", primary.address, "it", "--quiet", "30", "--transport", transport)
    assert len(times) == 2
    assert read(Path("it"))["transactions"] == 2


def test_from_a_primary_over_a_line_that_breaks(run, tmp_path, primary, quiet_after):
    quiet_after(31)
    cuts = []
    size = (tmp_path / "primary" / "Data.fs").stat().st_size
    at = [size * part // 4 for part in (1, 2, 3)]
    with CuttingProxy(primary.replication_address, at, cuts.append) as proxy:
        address = "{}:{}".format(*proxy.address)
        run("snapshot", address, "it", *PATIENTLY)
    assert len(cuts) == 3
    assert read(Path("it"))["blobs"] > 0
    assert stored(Path("it")) == stored(tmp_path / "primary")


@pytest.mark.usefixtures("soon")
def test_from_a_primary_with_tls(run, tmp_path, quiet_after):
    """It was just packed, so that it is asked whether there is more."""
    ours = authority()
    with contextlib.closing(
        Primary(
            open_file_storage(tmp_path / "primary"),
            "127.0.0.1:0",
            transport="socket-thread",
            tls=TLSOptions(ours.issue("127.0.0.1")),
        )
    ) as primary:
        with traffic(primary, seed=3) as commit:
            commit.commit(3)
            commit.pack()
            left = len(stored(tmp_path / "primary"))
            quiet_after(left)
            arguments = ("snapshot", address_of(primary), "it", "--quiet", "30")
            run(*arguments, "--tls-ca", ours.ca)
            assert read(Path("it"))["transactions"] == left


def test_blobs_that_the_source_does_not_have(run, database):
    min((database / "blobs").rglob("*.blob")).unlink()
    result = CliRunner().invoke(command, ["snapshot", str(database / "Data.fs"), "it"])
    assert result.stdout.splitlines()[1] == (
        f"Not in it, since {database / 'Data.fs'} does not have them: 1 blob"
    )


def test_blobs_that_are_misplaced(run, database):
    (database / "blobs" / ".layout").write_text("lawn")
    line = run("snapshot", database / "Data.fs", "it", "--blobs", database / "blobs", status=1)
    assert "write bushy into" in line


def test_one_in_the_place_of_another(run, database):
    run("snapshot", database / "Data.fs", "it")
    assert "give --replace" in run("snapshot", database / "Data.fs", "it", status=2)
    run("snapshot", database / "Data.fs", "it", "--replace")


@pytest.mark.long
def test_a_bar_on_a_terminal(tmp_path, database):
    ours, theirs = pty.openpty()
    with open(ours, "rb", buffering=0) as screen:
        process = subprocess.Popen(
            [sys.executable, "-m", "zrs_core.tools.cli", "snapshot", database / "Data.fs", "it"],
            cwd=tmp_path,
            stdout=theirs,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "200"},
        )
        os.close(theirs)
        shown = b""
        # At the end a terminal fails, or ends.
        with contextlib.suppress(OSError):
            while piece := screen.read(4096):
                shown += piece
        assert process.wait(DEADLINE) == 0
    for stage in (b"Looking for blobs", b"Copying", b"Comparing", b"Checking", b"Opening"):
        assert stage in shown
    assert b"it is a snapshot of" in shown


# -- what cannot work


def test_arguments_that_cannot_work(run, database, tmp_path):
    file = database / "Data.fs"
    for arguments, error in (
        ((file, "it", "--tls-name", "x"), "--tls-... belong to an ADDRESS, and this is a FILE."),
        (("127.0.0.1:1", "it", "--blobs", "x"), "--blobs belongs to a FILE, and this is an ADDR"),
        (("nothing", "it"), "there is no file nothing; as an address: invalid address 'nothing'"),
        (("./nothing", "it"), "there is neither a FileStorage nor the socket of a primary: ./noth"),
        ((__file__, "it"), "is not a FileStorage: it begins with"),
        ((file, "no/it"), "no/it cannot be made: there is no "),
        ((file, "it", "--blobs", "no"), "there is no directory of blobs at no"),
        (("127.0.0.1:1", "it", "--transport", "x"), "'x'"),
        (("127.0.0.1:1", "it", "--quiet", "nan"), "nan"),
        (("127.0.0.1:1", "it", "--quiet", "1000"), "1000"),
    ):
        line = run("snapshot", *arguments, status=2)
        assert line.startswith("zrs: ")
        assert error in line
    assert "no snapshot" in run("restore", database, "it", status=2)


def test_an_address_where_nobody_is(run, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    line = run("snapshot", address, "it", status=2)
    assert line.startswith(f"zrs: {address} cannot be connected to: ")


@contextlib.contextmanager
def answering(answer):
    """The address of one that says this to each who connects; None for one that closes."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        held = []

        def serve():
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    if answer is None:
                        connection.close()
                    else:
                        held.append(connection)
                        connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"127.0.0.1:{server.getsockname()[1]}"
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()
            for each in held:
                each.close()


@pytest.mark.parametrize(
    ("answer", "quiet", "error"),
    [
        (b"SSH-2.0-OpenSSH_9.6\r\n", 30, "a message of 1397966893 bytes"),
        (b"", 0.3, "sends nothing: its database is empty, or it is no primary"),
        (None, 30, "closed the connection without sending anything"),
    ],
)
def test_addresses_of_others(run, answer, quiet, error):
    arguments = ("--quiet", quiet, "--transport", "socket-thread")
    with answering(answer) as address:
        line = run("snapshot", address, "it", *arguments, status=1)
    assert line.startswith(f"zrs: {address}")
    assert error in line


def test_a_primary_that_sends_no_more(run, monkeypatch):
    monkeypatch.setattr(module, "_PATIENCE", 0.5)
    with answering(b"") as address:
        line = run("snapshot", address, "it", *PATIENTLY, status=1)
    assert "has sent nothing for " in line


def test_what_was_received_is_compared_with_what_came(run, primary, monkeypatch, quiet_after):
    quiet_after(31)
    check = receiving.check

    def spoilt(directory, *arguments):
        blobs = blob_files(Path(directory, "blobs"))
        path = Path(directory, "blobs", max(blobs, key=lambda each: len(blobs[each])))
        path.chmod(0o600)
        path.write_bytes(path.read_bytes()[:-1] + b"!")
        return check(directory, *arguments)

    monkeypatch.setattr(receiving, "check", spoilt)
    line = run("snapshot", address_of(primary), "it", *PATIENTLY, status=1)
    assert line == f"zrs: what was written does not hold what {address_of(primary)} has sent"


# -- a disk without room


def full(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


NO_ROOM = "zrs: it was not made: there is no room left (No space left on device)"


def test_a_disk_that_is_full_before_it_is_read(run, database, monkeypatch):
    class Full:
        f_bavail, f_frsize = 1, 4096

    monkeypatch.setattr("zrs_core.tools.snapshots.copying.os.statvfs", lambda path: Full)
    line = run("snapshot", database / "Data.fs", "it", status=1)
    assert line.endswith(" bytes are needed, 4,096 are free")


@pytest.mark.parametrize("call", ["os.link", "_copy_data", "shutil.copyfileobj"])
def test_a_disk_that_gets_full(run, database, monkeypatch, call):
    def link(source, target):
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    if call == "shutil.copyfileobj":
        monkeypatch.setattr("zrs_core.tools.snapshots.copying.os.link", link)
    monkeypatch.setattr(f"zrs_core.tools.snapshots.copying.{call}", full)
    assert run("snapshot", database / "Data.fs", "it", status=1) == NO_ROOM


@pytest.mark.long
@pytest.mark.skipif(
    shutil.which("strace") is None and not os.environ.get("CI"), reason="there is no strace"
)
def test_a_disk_that_gets_full_in_the_midst_of_the_file(tmp_path, database):
    place = tmp_path / "place"
    place.mkdir()
    process = subprocess.run(
        [
            *("strace", "-f", "-o", tmp_path / "strace", "-e", "trace=write"),
            *("-P", place / ".it.zrs" / "new" / "Data.fs", "-e", "inject=write:error=ENOSPC"),
            *(sys.executable, "-m", "zrs_core.tools.cli", "snapshot", database / "Data.fs", "it"),
        ],
        cwd=place,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    assert (process.returncode, process.stdout) == (1, "")
    assert process.stderr.strip() == NO_ROOM
    assert names(place) == set()


def test_a_disk_that_gets_full_with_what_comes(run, primary, monkeypatch):
    monkeypatch.setattr("os.pwrite", full)
    line = run("snapshot", address_of(primary), "it", *PATIENTLY, status=1)
    assert line.startswith(f"zrs: {address_of(primary)}: ")
    assert "No space left on device" in line


def test_a_disk_that_does_not_take_it(run, database, monkeypatch):
    monkeypatch.setattr("zrs_core.storage.disk.os.fsync", full)
    assert run("snapshot", database / "Data.fs", "it", status=1) == NO_ROOM


def test_a_disk_that_fails(run, database, monkeypatch):
    def fail(fd):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr("zrs_core.storage.disk.os.fsync", fail)
    line = run("snapshot", database / "Data.fs", "it", status=1)
    assert "the disk did not take what was written" in line


# -- interrupted


@pytest.fixture
def signals_of_a_terminal():
    """Where the command left one of them to the tests, this would end them all."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {each: signal.signal(each, signal.default_int_handler) for each in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.usefixtures("signals_of_a_terminal")
def test_interrupted_in_the_midst(run, database, monkeypatch, number):
    monkeypatch.setattr(
        "zrs_core.tools.snapshots.copying._compare_data",
        lambda *arguments: signal.raise_signal(number),
    )
    line = run("snapshot", database / "Data.fs", "it", status=1)
    assert line == "zrs: interrupted; nothing half-written is left at it"
    assert signal.getsignal(number) is signal.default_int_handler


@pytest.mark.usefixtures("signals_of_a_terminal")
def test_interrupted_where_that_is_swallowed(run, monkeypatch):
    """FileStorage, which is just saving its index, goes on whatever is raised there."""

    def swallow(*arguments, **options):
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        return FileStorage(*arguments, **options)

    monkeypatch.setattr("zrs_core.tools.snapshots.receiving.FileStorage", swallow)
    # Listens, and never answers.
    with answering(b"") as address:
        line = run("snapshot", address, "it", *PATIENTLY, status=1)
    assert line == "zrs: interrupted; nothing half-written is left at it"


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("replaced", [True, False])
def test_interrupted(zrs, tmp_path, database, number, replaced):
    place = tmp_path / "place"
    place.mkdir()
    if replaced:
        assert zrs("snapshot", database / "Data.fs", place / "it").finish() == 0
        before = json.loads((place / "it" / "snapshot.json").read_text())
    # Listens, and never answers.
    with answering(b"") as address:
        process = zrs("snapshot", address, place / "it", "--quiet", "30", "--replace")
        wait_for(lambda: (place / ".it.zrs" / "new" / "Data.fs").exists(), "a beginning")
        process.process.send_signal(number)
        assert process.finish() == 1
    assert process.err == f"zrs: interrupted; nothing half-written is left at {place / 'it'}\n"
    assert names(place) == ({"it"} if replaced else set())
    if replaced:
        assert read(place / "it") == before
