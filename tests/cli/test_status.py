"""`zrs status`: what status servers say, as a table and as JSON, and the exit status."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys

import pytest
from click.testing import CliRunner

from tests.status.answers import (
    NOW,
    http,
    node,
    peer,
    position,
    primary,
    primary_part,
    secondary,
    secondary_part,
    serving,
)
from zrs_core.progress import State
from zrs_core.tools.cli.command import zrs

NO_PEERS = primary(peers=[])


class Asked:
    """A call of `zrs status`; `lines` are its output without blanks at their ends."""

    def __init__(self, addresses, *options, width=80):
        runner = CliRunner(env={"COLUMNS": str(width)})
        result = runner.invoke(zrs, ["status", *addresses, *options])
        assert result.exception is None or isinstance(result.exception, SystemExit)
        self.status, self.out, self.err = result.exit_code, result.stdout, result.stderr
        self.lines = [line.rstrip() for line in self.out.splitlines()]
        assert all(len(line) <= width for line in self.lines) or "--json" in options


@contextlib.contextmanager
def nodes(*documents):
    """The addresses of servers that answer so, or that answer with these bytes."""
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(serving()) for _ in documents]
        for server, document in zip(servers, documents, strict=True):
            if isinstance(document, bytes):
                server.answer = document
            else:
                server.tell(document)
        yield [server.text for server in servers]


def ask(*documents, options=(), **more):
    with nodes(*documents) as addresses:
        return Asked(addresses, *options, **more), *addresses


def test_a_primary_and_its_secondary():
    shown, first, second = ask(
        primary(peers=[peer(certificate="replica", lag_seconds=0.125, lag_transactions=7)]),
        secondary(),
    )
    assert shown.status == 0
    assert shown.err == ""
    text = shown.out
    table = shown.lines[: shown.lines.index("")]
    [own] = [line for line in table if line.startswith(first)]
    assert own.split() == [
        first,
        "ready",
        "-",
        "2026-11-22",
        "06:00:00",
        *["12.5", "tx/s", "2.0", "tx/s"],
    ]
    at = table.index(own)
    assert table[at + 1].split()[:3] == ["primary", "1", "peer"]
    assert table[at + 1].endswith("25.0 kB/s 4.0 kB/s")
    [own] = [line for line in table if line.startswith(second)]
    assert own.split()[1:3] == ["replicating", "1.500"]
    assert table[table.index(own) + 1].split()[:4] == ["secondary", "ready", "3", "tx"]
    assert position(-1.5)["tid"] in table[table.index(own) + 1]
    assert f"Peers of {first}" in text
    [own] = [line for line in shown.lines if line.startswith("127.0.0.1:40114")]
    assert own.split()[1:5] == ["replica", "waiting", "0.125", "s"]
    assert "100 tx" in own
    assert "0.250 s" in own
    assert f"{second} is behind {first} by 1.250 s, 4 tx" in shown.lines
    assert f"{first}: /srv/primary/Data.fs, zrs_core 0.1.0, up for 60 min 0 s" in shown.lines
    assert "has refused 0 connections" in " ".join(shown.lines)
    assert "no news since 2026-11-22 05:59:58" in " ".join(shown.lines)


def test_names_of_secondaries():
    shown, first, second = ask(
        primary(peers=[peer(name="10.0.0.5#2"), peer(name="replica", certificate="replica")]),
        secondary(name="replica one"),
    )
    lines = [line.split()[0] for line in shown.lines if line]
    at = lines.index("10.0.0.5#2")
    assert lines[at : at + 4] == ["10.0.0.5#2", "127.0.0.1:40114", "replica", "127.0.0.1:40114"]
    assert f"{second}: /srv/secondary/Data.fs, replica one, zrs_core 0.1.0" in shown.out
    assert f"{first}: /srv/primary/Data.fs, zrs_core 0.1.0" in shown.out


def test_a_name_cannot_steer_a_terminal():
    shown, *_ = ask(primary(peers=[peer(name="a\x1b[2J\nb")]), secondary(name="c\x1b[2J\nd"))
    assert "\x1b" not in shown.out
    assert "a?[2J b" in shown.out
    assert "c?[2J d" in shown.out


def test_a_primary_that_is_silent():
    shown, address = ask(secondary(primary_status_age=61.0))
    assert shown.status == 1
    silence = "the status server of its primary has not answered for 61 s; no news since"
    assert f"zrs: {address} is not in sync: {silence}" in shown.err
    assert "PRIMARY SILENT" in shown.out
    assert f"{address}: {silence}" in " ".join(shown.out.split())


def test_a_secondary_that_cannot_know():
    shown, *_ = ask(secondary(lag_seconds=None, lag_transactions=None))
    assert shown.status == 0
    assert "not known" in shown.out
    assert "no news since" in shown.out


def test_nothing_yet():
    fresh = secondary_part(position=None, primary_position=None, connected=False)
    shown, *_ = ask(node("secondary", secondary=fresh))
    assert "no transaction yet" in shown.out
    assert "unconnected" in shown.out


def test_a_cascade():
    shown, address = ask(
        node("cascade", primary=primary_part(tls=True), secondary=secondary_part())
    )
    assert shown.status == 0
    assert "cascade" in shown.out
    assert f"{address}: listens at 127.0.0.1:8100 (twisted-tcp, TLS)" in shown.out
    assert f"{address}: follows 127.0.0.1:8100 (twisted-tcp)" in shown.out


@pytest.mark.parametrize("state", [State.FAILING, State.REFUSED, State.DIVERGED, State.STOPPED])
def test_states_that_are_not_in_sync(state):
    part = {"state": state, "last_error": {"message": "it \x1b[2J\nhas | why", "time": NOW}}
    shown, _, address = ask(NO_PEERS, secondary(**part))
    assert shown.status == 1
    assert "NOT IN SYNC" in shown.out
    assert shown.err == f"zrs: {address} is not in sync: {state}: it ?[2J has | why\n"
    assert f"{address}: last error, 2026-11-22 06:00:00 UTC: it ?[2J has | why" in shown.out
    assert "\x1b" not in shown.out


@pytest.mark.parametrize("state", [State.CONNECTING, State.COMPARING, State.REPLICATING])
def test_states_that_pass(state):
    shown, _ = ask(secondary(state=state))
    assert shown.status == 0


@pytest.mark.parametrize("document", [NO_PEERS, secondary()])
def test_what_is_not_ready(document):
    document = {**document, "ready": False, "ready_reason": "too far behind"}
    shown, address = ask(document)
    assert shown.status == 1
    assert "NOT READY" in shown.out
    assert f"{address}: not ready: too far behind" in shown.out
    assert shown.err == f"zrs: {address} is not in sync: not ready: too far behind\n"


def test_an_address_that_could_not_be_asked():
    shown, broken, _, good = ask(b"what?", secondary(ready=False), NO_PEERS)
    assert shown.status == 2
    reason = "it is no status server: its answer is no HTTP and begins with b'what?'"
    assert shown.err.splitlines()[0] == f"zrs: {broken}: {reason}"
    assert "NOT ASKED" in shown.out
    assert good in shown.out


@pytest.mark.parametrize("answer", [b"", http(b"<html>"), http(b"{}", "404 Not Found")])
def test_a_line_alone_if_there_is_nothing_else(answer):
    shown, address = ask(answer)
    assert (shown.status, shown.out) == (2, "")
    [line] = shown.err.splitlines()
    assert line.startswith(f"zrs: {address}: ")


def test_times_and_texts_that_nobody_has():
    strange = secondary(
        position={"tid": "0x" + "f" * 16, "time": 1e19},
        last_error={"message": "x" * 10_000, "time": -1e19},
        lag_seconds=1e15,
        news="\ud800\u202e",
    )
    shown, _ = ask(strange, width=300)
    assert shown.status == 0
    assert "1e+19" in shown.out
    assert "x" * 200 in shown.out
    assert "x" * 300 not in shown.out.replace("\n", "")
    assert "??" in shown.out


@pytest.mark.long
def test_characters_that_the_encoding_lacks():
    named = {**NO_PEERS, "name": "/srv/dät☃.fs"}
    with nodes(named) as addresses:
        for command in (["status"], ["status", "--json"], ["check-nagios"]):
            done = subprocess.run(
                [sys.executable, "-m", "zrs_core.tools.cli", *command, *addresses],
                env={**os.environ, "PYTHONIOENCODING": "ascii"},
                capture_output=True,
            )
            assert (done.returncode, done.stderr) == (0, b"")
            assert b"d\\xe4t\\u2603.fs" in done.stdout or command != ["status"]


def test_json():
    shown, first, second, third = ask(
        NO_PEERS, secondary(state="failing"), b"what?", options=["--json"]
    )
    assert shown.status == 2
    assert len(shown.err.splitlines()) == 2
    document = json.loads(shown.out)
    assert list(document) == ["now", "in_sync", "nodes", "distances"]
    assert document["in_sync"] is False
    told = document["nodes"]
    assert [each["address"] for each in told] == [first, second, third]
    assert [each["in_sync"] for each in told] == [True, False, None]
    assert [each["trouble"] for each in told][:2] == [None, "failing"]
    assert [each["error"] is None for each in told] == [True, True, False]
    assert told[0]["status"] == NO_PEERS
    assert told[2]["status"] is None
    [distance] = document["distances"]
    assert distance == {"primary": first, "secondary": second, "seconds": 1.25, "transactions": 4}


def test_json_of_what_is_in_sync():
    shown, *_ = ask(NO_PEERS, options=["--json"])
    assert (shown.status, shown.err) == (0, "")
    assert json.loads(shown.out)["in_sync"] is True


@pytest.mark.parametrize("told", [{}, None, {"seconds": "1", "transactions": 1}])
def test_a_primary_that_does_not_tell_a_distance(told):
    with serving(NO_PEERS) as one, serving(secondary()) as other:
        one.distance = told
        shown = Asked([one.text, other.text])
    assert (shown.status, shown.err) == (0, "")
    assert f"how far {other.text} is behind {one.text} is not known" in shown.out


def test_a_distance_is_asked_for_the_position():
    with serving(NO_PEERS) as one, serving() as other:
        for place, digits in ((position(0), position(0)["tid"]), (None, "0x" + "0" * 16)):
            other.tell(secondary(position=place))
            Asked([one.text, other.text])
            assert one.requests[-1].startswith(f"GET /distance?tid={digits} HTTP/1.1".encode())


def test_one_that_is_given_twice_is_asked_once():
    with serving(NO_PEERS) as server:
        shown = Asked([server.text, server.text])
        assert len(server.requests) == 1
    assert shown.status == 0


def test_an_address_that_does_not_answer():
    with serving() as server:
        server.answer = lambda connection: server.closing.wait()
        shown = Asked([server.text], "--timeout", "0.05")
        assert (shown.status, shown.out) == (2, "")
        assert shown.err == f"zrs: {server.text}: no answer within 0.05 s\n"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "Missing argument 'ADDRESS...'."),
        (["localhost"], "Invalid value for 'ADDRESS...': invalid address 'localhost': "),
        (["https://localhost"], "Invalid value for 'ADDRESS...': invalid address 'https://"),
        ([":1", "--timeout", "0"], "Invalid value for '--timeout': 0.0 is not in the range"),
        ([":1", "--timeout", "nan"], "Invalid value for '--timeout': nan is no number of seconds."),
        ([":1", "--interval", "inf"], "Invalid value for '--interval': inf is not in the range"),
    ],
)
def test_arguments_that_are_not_understood(invoke, arguments, expected):
    line = invoke("status", *arguments)
    assert line.startswith(f"zrs: {expected}")
    assert line.endswith("See 'zrs status --help'.")


def test_help_tells_the_exit_statuses():
    text = " ".join(CliRunner().invoke(zrs, ["status", "--help"]).output.split())
    assert "Exit status: 0 when all nodes are in sync, 1 when one is not or" in text
    assert "the result cannot be printed, 2 when an address could not be asked" in text
