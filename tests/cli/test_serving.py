"""`zrs primary` and `zrs secondary`, each in a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import shutil
import signal
import socket
import threading
from types import SimpleNamespace

import pytest
import trustme
from rich.console import Console

from tests.cli.conftest import QUIETLY, make_database, snapshot_of
from tests.conditions import wait_for
from tests.databases import blob_files, open_file_storage, stored, traffic
from zrs_core import Primary
from zrs_core.messages import NO_TID
from zrs_core.progress import Progress, State
from zrs_core.storage.compare import compare
from zrs_core.storage.snapshot import open_snapshot
from zrs_core.tids import describe_tid
from zrs_core.tools.cli import serving
from zrs_core.tools.cli.output import Failed
from zrs_core.tools.cli.progress import CatchUp
from zrs_core.tools.cli.signals import StopSignals


def serve(zrs, database, *arguments, listen="127.0.0.1:0"):
    """A running primary and its address."""
    data, blobs = database / "Data.fs", database / "blobs"
    primary = zrs("primary", data, "--listen", listen, "--blobs", blobs, *arguments)
    line = primary.wait_for("Serving ")
    assert line.startswith(f"Serving {data} on 127.0.0.1:")
    return primary, line.rpartition(" ")[2]


def last_tid(path):
    file = open_snapshot(path)
    try:
        return file.last_tid()
    finally:
        file.close()


def is_equal(one, other):
    return compare(
        one / "Data.fs",
        other / "Data.fs",
        primary_blobs=one / "blobs",
        secondary_blobs=other / "blobs",
    ).equal


def test_until_caught_up(zrs, tmp_path, database):
    primary, address = serve(zrs, database)
    copy = tmp_path / "copy"
    copy.mkdir()
    arguments = ("secondary", address, copy / "Data.fs", "--blobs", copy / "blobs")
    arguments += ("--until-caught-up", *QUIETLY)
    secondary = zrs(*arguments)
    assert secondary.finish() == 0
    assert secondary.err == ""
    tid = describe_tid(last_tid(copy / "Data.fs"))
    # And the root object's transaction.
    pattern = rf"Caught up: received 31 transactions, .* in .* s \(.*/s\); last is {re.escape(tid)}"
    assert re.search(pattern, secondary.out)
    assert f"{address}: Connected" in secondary.out
    assert is_equal(database, copy)

    again = zrs(*arguments)
    assert again.finish() == 0
    assert f"Caught up: up to date; last is {tid}\n" in again.out

    assert primary.stop() == 0
    assert primary.err == ""
    lines = [line.partition(" ")[2] for line in primary.out.splitlines()]
    assert len([line for line in lines if line.endswith(": Connected")]) == 2
    # The second one was compared.
    assert f", the one before {tid}\n" in again.out
    assert primary.out.endswith(f"Stopped serving {database / 'Data.fs'}; last is {tid}\n")
    assert is_equal(database, copy)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_it(zrs, tmp_path, database, number):
    primary, address = serve(zrs, database)
    secondary = zrs("secondary", address, tmp_path / "Copy.fs", "--blobs", tmp_path / "copied")
    secondary.wait_for("Connected")
    for each in (secondary, primary):
        each.process.send_signal(number)
        assert each.finish() == 0
        assert each.err == ""
    # Both have let go of their files.
    for path in (database / "Data.fs", tmp_path / "Copy.fs"):
        open_file_storage(path.parent).close()
    assert f"Stopped replicating into {tmp_path / 'Copy.fs'}; last is " in secondary.out


@pytest.mark.long
def test_a_line_for_each_change_of_state(zrs, tmp_path, database, address):
    primary, _ = serve(zrs, database, listen=address)
    arguments = ("--blobs", tmp_path / "copied", *QUIETLY, "--reconnect-delay", "0.1,0.2")
    secondary = zrs("secondary", address, tmp_path / "Copy.fs", *arguments)
    secondary.wait_for("Caught up: received 31 transactions")
    assert primary.stop() == 0
    secondary.wait_for("Disconnected")
    secondary.wait_for("cannot connect")
    # A transaction is committed while nobody serves it.
    with traffic(open_file_storage(database), seed=1) as commit:
        commit.commit()
    primary, _ = serve(zrs, database, listen=address)
    secondary.wait_for("Connected", times=2)
    tid = describe_tid(last_tid(database / "Data.fs"))
    secondary.wait_for(f"Caught up again; last is {tid}")
    assert secondary.stop() == 0
    assert secondary.out.count("cannot connect") == 1
    primary.wait_for("Disconnected")
    assert primary.stop() == 0


@pytest.mark.long
def test_it_waits_for_a_primary_that_is_not_there_yet(zrs, tmp_path, database, address):
    arguments = ("--until-caught-up", *QUIETLY, "--reconnect-delay", "0.1")
    secondary = zrs(
        "secondary", address, tmp_path / "Copy.fs", "--blobs", tmp_path / "copied", *arguments
    )
    secondary.wait_for("cannot connect")
    serve(zrs, database, listen=address)
    assert secondary.finish() == 0
    assert "Caught up: received 31 transactions" in secondary.out


def test_a_stop_before_it_has_caught_up(zrs, tmp_path):
    # Listens and never answers, so that it counts as caught up only after very long.
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        secondary = zrs("secondary", address, tmp_path / "Copy.fs", "--quiet", "1000")
        secondary.wait_for("start ")
        assert secondary.stop() == 0
    assert "Caught up" not in secondary.out


def refused(zrs, address, path, *arguments):
    """The line on the standard error output of a refused secondary."""
    before = snapshot_of(path)
    secondary = zrs("secondary", address, path / "Data.fs", "--reconnect-delay", "0.1", *arguments)
    assert secondary.finish() == 2
    assert "Traceback" not in secondary.out
    after = snapshot_of(path)
    # FileStorage writes its index anew when it is closed; its lock and temporary files stay.
    for name in ("Data.fs.index", "Data.fs.lock", "Data.fs.tmp"):
        before.pop(name, None)
        after.pop(name, None)
    assert after == before
    [line] = secondary.err.splitlines()
    assert line.startswith(f"zrs: {address}")
    return line


@pytest.mark.long
@pytest.mark.parametrize("ahead", [1, 2])
def test_a_secondary_that_has_gone_on_by_itself(zrs, tmp_path, database, ahead):
    """The primary serves the one before its last, or refuses both."""
    copy = tmp_path / "copy"
    shutil.copytree(database, copy)
    common = describe_tid(last_tid(copy / "Data.fs"))
    with traffic(open_file_storage(copy), seed=1) as mistake:
        mistake.commit(ahead)
    with traffic(open_file_storage(database), seed=2) as truth:
        truth.commit()
    before = (copy / "Data.fs").read_bytes()
    primary, address = serve(zrs, database)
    arguments = ("--blobs", copy / "blobs", "--reconnect-delay", "0.1")
    secondary = zrs("secondary", address, copy / "Data.fs", *arguments)
    assert secondary.finish() == 2
    [line] = secondary.err.splitlines()
    assert line.startswith(f"zrs: {address}")
    assert "replicate into an empty" in line
    assert f"the last transaction that both hold is {common}" in line
    assert f"this secondary holds {ahead} transaction" in line
    assert (copy / "Data.fs").read_bytes() == before
    assert primary.stop() == 0


@pytest.mark.long
@pytest.mark.parametrize("newer", [True, False])
def test_a_secondary_that_holds_other_data(zrs, tmp_path, newer):
    names = ["primary", "other"] if newer else ["other", "primary"]
    for seed, name in enumerate(names):
        make_database(tmp_path / name, 10, seed)
    primary, address = serve(zrs, tmp_path / "primary")
    other = tmp_path / "other"
    line = refused(zrs, address, other, "--blobs", other / "blobs")
    tid = describe_tid(last_tid(other / "Data.fs"))
    assert "the histories have diverged: the two have no transaction in common" in line
    assert f"up to {tid}, that the primary does not have" in line
    assert "--blobs" not in line
    primary.wait_for("ERROR")
    assert primary.stop() == 0


@pytest.mark.long
def test_a_secondary_without_blobs(zrs, tmp_path, database):
    _, address = serve(zrs, database)
    copy = tmp_path / "copy"
    copy.mkdir()
    secondary = zrs("secondary", address, copy / "Data.fs", "--reconnect-delay", "0.1")
    assert secondary.finish() == 2
    [line] = secondary.err.splitlines()
    assert "(it is empty), as a primary does that refuses" in line
    assert line.endswith("Check the address; a primary with blobs needs --blobs DIR")
    assert (copy / "Data.fs").read_bytes() in (b"", b"FS30")
    assert not (copy / "blobs").exists()


@pytest.mark.long
def test_a_refusal_after_it_has_received_something_is_waited_out(zrs, tmp_path, database, address):
    """It may be what is between, or the primary, that has a bad moment: it goes on."""
    primary, _ = serve(zrs, database, listen=address)
    arguments = ("--blobs", tmp_path / "copied", *QUIETLY, "--reconnect-delay", "0.1")
    secondary = zrs("secondary", address, tmp_path / "Copy.fs", *arguments)
    secondary.wait_for("Caught up")
    assert primary.stop() == 0
    with closing_at_once(address) as closed:
        wait_for(lambda: len(closed) >= 4, "sessions that are closed at once")
    serve(zrs, database, listen=address)
    secondary.wait_for("Caught up again")
    assert secondary.stop() == 0
    assert secondary.out.count("searching for the last one that both hold") == 1


@pytest.mark.long
def test_a_tunnel_to_nowhere_is_waited_out(zrs, tmp_path, database, address):
    """No primary refuses an empty storage with blobs: what closes is something between."""
    with closing_at_once(address) as closed:
        arguments = ("--blobs", tmp_path / "copied", "--until-caught-up", *QUIETLY)
        secondary = zrs(
            "secondary", address, tmp_path / "Copy.fs", *arguments, "--reconnect-delay", "0.1"
        )
        wait_for(lambda: len(closed) >= 5, "sessions that are closed at once")
    serve(zrs, database, listen=address)
    assert secondary.finish() == 0
    assert "Caught up: received 31 transactions" in secondary.out
    assert secondary.out.count("without sending anything") == 1
    assert "replicating again after" in secondary.out


@pytest.mark.long
def test_over_a_unix_socket(zrs, tmp_path, database):
    path = tmp_path / "zrs.sock"
    data, blobs = database / "Data.fs", database / "blobs"
    primary = zrs("primary", data, "--listen", path, "--blobs", blobs)
    assert primary.wait_for("Serving ") == f"Serving {data} on {path}"
    copy = tmp_path / "copy"
    copy.mkdir()
    secondary = zrs(
        *("secondary", path, copy / "Data.fs", "--blobs", copy / "blobs"),
        *("--until-caught-up", *QUIETLY),
    )
    assert secondary.finish() == 0
    assert primary.stop() == 0
    assert is_equal(database, copy)


@pytest.mark.long
@pytest.mark.parametrize("transport", ["twisted-tcp", "socket-thread"])
def test_over_tls(zrs, tmp_path, database, transport):
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    for name in ("primary", "secondary", "stranger"):
        certificate = authority.issue_cert(f"{name}.example.org")
        certificate.private_key_pem.write_to_path(tmp_path / f"{name}.key")
        for number, pem in enumerate(certificate.cert_chain_pems):
            pem.write_to_path(tmp_path / f"{name}.pem", append=bool(number))

    def tls(name, *peers):
        yield from ("--transport", transport, "--tls-ca", tmp_path / "ca.pem")
        yield from ("--tls-certificate", tmp_path / f"{name}.pem")
        yield from ("--tls-key", tmp_path / f"{name}.key")
        for peer in peers:
            yield from ("--tls-name", f"{peer}.example.org")

    primary, address = serve(zrs, database, *tls("primary", "another", "secondary"))
    copy = tmp_path / "copy"
    copy.mkdir()
    arguments = ("secondary", address, copy / "Data.fs", "--blobs", copy / "blobs")
    arguments += ("--reconnect-delay", "0.1", "--until-caught-up", *QUIETLY)
    # Not let in, and not answered by who it should be.
    stranger = zrs(*arguments, *tls("stranger", "primary"))
    primary.wait_for("its certificate is for stranger.example.org, which is not listed")
    assert stranger.stop() == 0
    misled = zrs(*arguments, *tls("secondary", "somebody-else"))
    misled.wait_for("its certificate is for primary.example.org, which is not listed")
    assert misled.stop() == 0

    secondary = zrs(*arguments, *tls("secondary", "primary"))
    assert secondary.finish() == 0
    assert "Caught up: received 31 transactions" in secondary.out
    assert primary.stop() == 0
    assert is_equal(database, copy)


@contextlib.contextmanager
def closing_at_once(address):
    """Accepts connections and closes them once the greeting has come; counts them."""
    host, _, port = address.partition(":")
    server = socket.create_server((host, int(port)))
    closed = []

    def run():
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection:
                connection.recv(100)
            closed.append(connection)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield closed
    finally:
        server.shutdown(socket.SHUT_RDWR)
        thread.join()
        server.close()


def test_live_commits_arrive(zrs, tmp_path, database):
    storage = Primary(str(database / "Data.fs"), "127.0.0.1:0", blob_dir=str(database / "blobs"))
    with traffic(storage, seed=1) as commit:
        copy = tmp_path / "copy"
        copy.mkdir()
        arguments = (storage.replication_address, copy / "Data.fs", "--blobs", copy / "blobs")
        secondary = zrs("secondary", *arguments)
        commit.commit(20)

        def arrived():
            assert secondary.process.poll() is None
            path = copy / "Data.fs"
            return path.exists() and last_tid(path) == storage.lastTransaction()

        wait_for(arrived, "all transactions")
        assert secondary.stop() == 0
    assert is_equal(database, copy)
    assert stored(copy) == stored(database)
    assert blob_files(copy / "blobs") == blob_files(database / "blobs")


@pytest.mark.long
def test_a_bar_on_a_terminal(zrs, tmp_path, database):
    _, address = serve(zrs, database)
    ours, theirs = pty.openpty()
    try:
        secondary = zrs(
            *("secondary", address, tmp_path / "Copy.fs", "--blobs", tmp_path / "copied"),
            *("--until-caught-up", *QUIETLY),
            stdout=theirs,
        )
    finally:
        os.close(theirs)
    printed = b""
    with contextlib.suppress(OSError):
        # A terminal ends with EIO.
        while part := os.read(ours, 65_536):
            printed += part
    os.close(ours)
    assert secondary.finish() == 0
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", printed.decode())
    assert f"Catching up with {address}" in text
    assert re.search(r"31 transactions, [0-9.]+ [kM]B, [0-9.]+ [kM]?B(ytes)?/s, at 20", text)
    assert "Caught up: received 31 transactions" in text


@pytest.mark.long
def test_json_lines(zrs, tmp_path, database):
    data, copy = database / "Data.fs", tmp_path / "copy"
    copy.mkdir()
    primary = zrs(
        "primary", data, "--listen", "127.0.0.1:0", "--blobs", database / "blobs",
        "--log-format", "json",
    )  # fmt: skip
    address = json.loads(primary.wait_for("Serving "))["message"].rpartition(" ")[2]
    secondary = zrs(
        "secondary", address, copy / "Data.fs", "--blobs", copy / "blobs",
        "--until-caught-up", *QUIETLY, "--log-format", "json",
    )  # fmt: skip
    assert secondary.finish() == 0
    assert primary.stop() == 0
    events = {}
    for name, process in (("primary", primary), ("secondary", secondary)):
        lines = [json.loads(line) for line in process.out.splitlines()]
        events[name] = {each["event"]: each for each in lines}
        assert process.err == ""
    last = f"0x{last_tid(data).hex()}"
    assert events["secondary"]["disconnected"]["tid"] == last
    assert events["secondary"]["disconnected"]["peer"] == address
    assert events["primary"]["start"]["tid"] == "0x0000000000000000"
    assert events["primary"]["disconnected"]["tid"] == last
    assert events["primary"]["said"]["message"].startswith("Stopped serving ")


@pytest.mark.parametrize("state", [State.STOPPED, State.DIVERGED])
def test_one_that_is_to_catch_up_ends_when_it_never_will(state):
    progress = Progress(NO_TID)
    progress.transactions = 1
    progress.state, progress.failure = state, "it is over"
    secondary = SimpleNamespace(progress=progress, replication_address="localhost:1")
    caught_up = CatchUp(progress, 1.0)
    with StopSignals() as stop, pytest.raises(Failed, match=r"^localhost:1: it is over$"):
        serving._catch_up(Console(), stop, secondary, caught_up, "Data.fs", until_caught_up=True)
