"""Plugins for monitoring, with status servers and with ZEO servers."""

from __future__ import annotations

import json
import signal
import socket
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from persistent.timestamp import TimeStamp

from tests.conditions import wait_for
from tests.status.answers import NOW, node, peer, position, primary, secondary, serving
from tests.status.http import get
from zrs_core.addresses import parse_address
from zrs_core.tools.cli.command import zrs as zrs_command
from zrs_core.tools.cli.nagios import zrs_nagios

EMPTY = "0" * 16


def tid(seconds: float) -> str:
    """The last transaction of a storage in ZEO's words."""
    return position(seconds)["tid"][2:]


def sized(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def as_zeo(storages: object):
    """What a ZEO server does: it greets, and tells of its storages if it is asked."""
    return lambda connection: _zeo(connection, sized(json.dumps(storages).encode()))


def _zeo(connection, answer):
    connection.sendall(sized(b"Z5"))
    if connection.recv(8) == b"\0\0\0\4ruok":
        connection.sendall(answer)
    else:
        # What is no word of its protocol is read on.
        while connection.recv(4096):
            pass


@pytest.fixture
def two():
    with serving() as one, serving() as other:
        yield one, other


@pytest.fixture
def old(two, capsys):
    """Calls `zrs-nagios` with the two addresses: its exit status and what it prints."""

    def call(options, addresses=None):
        addresses = [each.text for each in two] if addresses is None else addresses
        status = zrs_nagios([*options.split(), *addresses])
        out, err = capsys.readouterr()
        assert err == ""
        return status, out

    return call


BEHIND = "Secondary behind primary by 68.5000 seconds"
METRIC = "'lag'=68.5000seconds"


@pytest.mark.parametrize("kind", ["status", "zeo", "both"])
@pytest.mark.parametrize(
    ("options", "status", "line"),
    [
        ("-m", 0, f"{BEHIND}|{METRIC}"),
        ("-w99", 0, BEHIND),
        ("-w30", 1, f"{BEHIND} > 30"),
        ("-e99", 0, BEHIND),
        ("-e30", 2, f"{BEHIND} > 30"),
        ("--warn 30.5", 1, f"{BEHIND} > 30.5"),
        ("-w99 -e999 -m", 0, f"{BEHIND}|{METRIC}"),
        ("-w33 --error 99 --output-metrics", 1, f"{BEHIND} > 33|{METRIC}"),
        ("-w33 -e44 -m", 2, f"{BEHIND} > 44|{METRIC}"),
    ],
)
def test_the_old_plugin(old, two, kind, options, status, line):
    if kind == "status":
        two[0].tell(primary())
    else:
        two[0].answer = as_zeo({"1": {"last-transaction": tid(0)}})
    if kind == "zeo":
        two[1].answer = as_zeo({"1": {"last-transaction": tid(-68.5)}})
    else:
        two[1].tell(secondary(position=position(-68.5)))
    assert old(options) == (status, f"{line}\n")


def test_the_old_plugin_and_no_lag(old, two):
    two[0].tell(primary())
    two[1].tell(secondary(position=position(0)))
    assert old("-m") == (0, "Secondary up to date.|'lag'=0.0000seconds\n")
    two[1].tell(secondary(position=position(1.5)))
    status, out = old("-w 30")
    assert status == 2
    assert out.startswith("Primary behind secondary by -1.")
    two[0].tell(primary(position=None))
    two[1].tell(secondary(position=None))
    assert old("-w 30") == (0, "Secondary up to date.\n")


def test_the_old_plugin_and_several_storages(old, two):
    last = {"1": EMPTY, "first": tid(0), "second": EMPTY}
    two[0].answer = as_zeo(
        {name: {"last-transaction": each} for name, each in {**last, "friday": EMPTY}.items()}
    )
    last["first"] = tid(-68.5)
    two[1].answer = as_zeo(
        {name: {"last-transaction": each} for name, each in {**last, "thursday": EMPTY}.items()}
    )
    lines = [
        "Secondary up to date.",
        "Secondary ('first') behind primary by 68.5000 seconds > 33",
        "Storage 'friday' in primary, but not secondary",
        "Secondary ('second') up to date.",
        "Storage 'thursday' in secondary, but not primary",
    ]
    assert old("-w33 -e99") == (2, "\n".join(lines) + "\n")
    lines[0] += "|'lag'=0.0000seconds"
    lines[-1] += "| 'lagfirst'=68.5000seconds\n 'lagsecond'=0.0000seconds"
    assert old("-w33 -e99 -m") == (2, "\n".join(lines) + "\n")


def test_the_old_plugin_and_one_line_with_several_metrics(old, two):
    for each in two:
        each.answer = as_zeo({"1": {"last-transaction": EMPTY}})
    assert old("-m")[1].count("\n") == 1
    for each in two:
        each.answer = as_zeo({})
    assert old("-m") == (1, "No storages\n")


@pytest.mark.parametrize("options", ["", "-w0", "-w0 -e0"])
def test_the_old_plugin_without_options(old, options):
    assert old(options) == (
        2,
        "Usage: zrs-nagios [options] PRIMARY_ADDRESS SECONDARY_ADDRESS\n\n",
    )


@pytest.mark.parametrize("addresses", [[], [":1"], [":1", ":2", ":3"]])
def test_the_old_plugin_without_two_addresses(old, addresses):
    assert old("-m", addresses)[0] == 2


def test_the_old_plugin_and_an_option_that_is_none(old, capsys):
    for option in ("--nonsense", "-wsoon", "-wnan"):
        with pytest.raises(SystemExit) as caught:
            zrs_nagios([option, ":1", ":2"])
        assert caught.value.code == 2
        assert "error: " in capsys.readouterr().err


def test_the_old_plugin_and_nobody(old, two, tmp_path, monkeypatch):
    two[1].tell(secondary())
    two[0].close()
    refused = f"Can't connect to primary at {two[0].text!r}: [Errno 111] Connection refused\n"
    assert old("-m") == (2, refused)
    monkeypatch.chdir(tmp_path)
    missing = "Can't connect to secondary at 'sock': [Errno 2] No such file or directory\n"
    assert old("-m", ["other", "sock"]) == (2, missing)
    two[1].answer = b"garbage"
    line = f"No status of secondary at {two[1].text!r}: it is no status server: "
    assert old("-m")[1].startswith(line)
    status, out = old("-m", ["localhost:http", ":1"])
    assert status == 2
    assert out.startswith("invalid address 'localhost:http'")


def test_the_old_plugin_is_a_command(two):
    two[0].tell(primary())
    two[1].tell(secondary(position=position(-68.5)))
    command = Path(sys.executable).with_name("zrs-nagios")
    done = subprocess.run(
        [command, "-w30", *(each.text for each in two)], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (1, f"{BEHIND} > 30\n", "")


@pytest.fixture
def check(two):
    """Calls `zrs check-nagios`: its exit status and its line."""

    def call(options="", addresses=None):
        addresses = [each.text for each in two] if addresses is None else addresses
        result = CliRunner().invoke(zrs_command, ["check-nagios", *options.split(), *addresses])
        assert result.exception is None or isinstance(result.exception, SystemExit)
        assert result.stderr == ""
        [line] = result.stdout.splitlines()
        return result.exit_code, line

    return call


@pytest.mark.parametrize(
    ("options", "status", "expected"),
    [
        ("", 0, f"ZRS OK - {BEHIND}"),
        ("-w 99 -c 999 -m", 0, f"ZRS OK - {BEHIND}|'lag'=68.5000s;99;999;"),
        ("-w 30.5 -m", 1, f"ZRS WARNING - {BEHIND} > 30.5|'lag'=68.5000s;30.5;;"),
        ("-w 0", 1, f"ZRS WARNING - {BEHIND} > 0"),
        ("-w 30 -c 60", 2, f"ZRS CRITICAL - {BEHIND} > 60"),
        ("--warning 30 --critical 60", 2, f"ZRS CRITICAL - {BEHIND} > 60"),
        ("--error 60 --output-metrics", 2, f"ZRS CRITICAL - {BEHIND} > 60|'lag'=68.5000s;;60;"),
    ],
)
def test_a_pair(check, two, options, status, expected):
    two[0].tell(primary())
    two[1].tell(secondary(position=position(-68.5)))
    assert check(options) == (status, expected)


def test_a_pair_in_sync(check, two):
    two[0].tell(primary())
    two[1].tell(secondary(position=position(0)))
    assert check("-w 1 -c 2 -m") == (0, "ZRS OK - Secondary up to date|'lag'=0.0000s;1;2;")


def test_a_pair_of_zeo_servers(check, two):
    two[0].answer = as_zeo(
        {"1": {"last-transaction": EMPTY}, "a=|'b": {"last-transaction": tid(0)}}
    )
    two[1].answer = as_zeo(
        {"1": {"last-transaction": EMPTY}, "a=|'b": {"last-transaction": tid(-2)}}
    )
    assert check("-c 1 -m") == (
        2,
        'ZRS CRITICAL - Secondary up to date; Secondary ("a=/\'b") behind primary by 2.0000 '
        "seconds > 1|'lag'=0.0000s;;1; 'laga___b'=2.0000s;;1;",
    )


@pytest.mark.parametrize(
    ("ours", "theirs", "status", "what"),
    [
        ({}, {"position": position(2)}, 2, "Primary behind secondary by -"),
        ({}, {"state": "refused"}, 2, "; Secondary refused"),
        (
            {},
            {"state": "failing", "last_error": {"message": "a|b", "time": NOW}},
            2,
            "; Secondary failing: a/b",
        ),
        ({}, {"ready": False}, 1, "; Secondary not ready: caught up"),
        ({"ready": False}, {}, 1, "; Primary not ready: caught up"),
    ],
)
def test_trouble_of_a_pair(check, two, ours, theirs, status, what):
    two[0].tell(primary(**ours))
    two[1].tell(secondary(**theirs))
    code, line = check()
    assert code == status
    assert what in line


@pytest.mark.parametrize(
    ("document", "options", "status", "expected"),
    [
        (
            secondary(),
            "-w 1 -m",
            1,
            "ZRS WARNING - Secondary behind primary by 1.5000 seconds > 1|'lag'=1.5000s;1;;",
        ),
        (secondary(lag_seconds=0), "-w 1", 0, "ZRS OK - Secondary up to date"),
        (
            secondary(lag_seconds=None),
            "-w 1 -m",
            0,
            "ZRS OK - Secondary cannot know its lag: no news since 2026-11-22 05:59:58|'lag'=U;1;;",
        ),
        (
            secondary(state="stopped", lag_seconds=0),
            "",
            2,
            "ZRS CRITICAL - Secondary up to date; Secondary stopped",
        ),
        (primary(peers=[]), "-w 1 -m", 0, "ZRS OK - Primary has 0 peers|'peers'=0;;;0"),
        (
            primary(peers=[peer(), peer(lag_seconds=3), peer(lag_seconds=None)]),
            "-w 1 -m",
            1,
            "ZRS WARNING - Primary has 3 peers; one was not sent the last 3.0000 seconds > 1"
            "|'peers'=3;;;0 'lag'=3.0000s;1;;",
        ),
        (primary(), "", 0, "ZRS OK - Primary has 1 peer; all was sent to them"),
        (node("primary"), "", 0, "ZRS OK - Primary has 0 peers"),
    ],
)
def test_one_alone(check, two, document, options, status, expected):
    two[0].tell(document)
    assert check(options, [two[0].text]) == (status, expected)


def test_a_zeo_server_alone(check, two):
    two[0].answer = as_zeo({"1": {"last-transaction": EMPTY}})
    status, line = check("", [two[0].text])
    assert status == 3
    assert line.startswith(f"ZRS UNKNOWN - {two[0].text}: a ZEO server alone tells no lag")


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"no|thing",
        lambda connection: connection.sendall(sized(b"Z5")),
        lambda connection: _zeo(connection, b"\xff\xff\xff\xff"),
        lambda connection: _zeo(connection, sized(b"{")),
        lambda connection: _zeo(connection, sized(b"\xff")),
        lambda connection: _zeo(connection, sized(b"[" * 9999)),
        as_zeo([]),
        as_zeo({"1": []}),
        as_zeo({"1": {}}),
        as_zeo({"1": {"last-transaction": None}}),
        as_zeo({"1": {"last-transaction": "zz" * 8}}),
        as_zeo({"1": {"last-transaction": "00"}}),
    ],
)
def test_what_could_not_be_asked(check, two, answer):
    two[0].tell(primary())
    two[1].answer = answer
    status, line = check("-w 1 -m")
    assert status == 3
    assert line.startswith(f"ZRS UNKNOWN - {two[1].text}: ")
    assert "|" not in line


def test_an_answer_that_does_not_come(check, two):
    def greet(connection):
        connection.sendall(sized(b"Z5"))
        two[1].closing.wait()

    two[1].answer = greet
    assert check("-t 0.2") == (3, f"ZRS UNKNOWN - {two[1].text}: no answer within 0.2 s")


def test_a_primary_that_hangs_is_critical(check, two):
    two[0].answer = lambda connection: two[0].closing.wait()
    two[1].tell(secondary(lag_seconds=None))
    status, line = check("-t 0.2 -w 1")
    assert status == 2
    assert line.startswith(f"ZRS CRITICAL - Primary does not answer: {two[0].text}: no answer")
    news = "no news since 2026-11-22 05:59:58"
    assert line.endswith(f"; Secondary is replicating and connected, {news}")
    # Whatever is wrong with the secondary is reported too.
    two[1].tell(secondary(connected=False, state="failing"))
    assert "; Secondary failing" in check("-t 0.2")[1]


def test_a_primary_that_is_not_there_is_not_known(check, two):
    two[0].close()
    two[1].tell(secondary())
    assert check() == (3, f"ZRS UNKNOWN - {two[0].text}: nobody listens there")


@pytest.mark.parametrize(
    ("changes", "status", "expected"),
    [
        ({"primary_status_age": None}, 0, "ZRS OK - Secondary up to date"),
        ({"primary_status_age": 4.9}, 0, "ZRS OK - Secondary up to date"),
        ({"primary_status_age": 61.0}, 2, "; Secondary the status server of its primary has not"),
        ({"primary_status_age": 61.0, "ready": False}, 2, "; the status server of its primary"),
        (
            {"primary_status_age": 61.0, "connected": False, "ready": False},
            1,
            "Secondary not ready: caught up",
        ),
    ],
)
def test_a_secondary_knows_that_its_primary_is_silent(check, two, changes, status, expected):
    two[1].tell(secondary(lag_seconds=0.0, **changes))
    code, line = check("", [two[1].text])
    assert (code, expected in line) == (status, True)


@pytest.mark.long
def test_a_primary_that_is_stopped(zrs, tmp_path, database):
    options = ("--status", "127.0.0.1:0")
    source = (database / "Data.fs", "--blobs", database / "blobs", "--listen", "127.0.0.1:0")
    ahead = zrs("primary", *source, *options)
    here = ahead.wait_for("Status at ").removeprefix("Status at ")
    address = ahead.wait_for("Serving ").rpartition(" ")[2]
    copy = (address, tmp_path / "Copy.fs", "--blobs", tmp_path / "copied")
    behind = zrs("secondary", *copy, *options, "--status-node", here)
    there = behind.wait_for("Status at ").removeprefix("Status at ")
    behind.wait_for("Caught up")

    def check(*addresses):
        result = CliRunner().invoke(zrs_command, ["check-nagios", "-t", "1", *addresses])
        return result.exit_code, result.stdout

    wait_for(lambda: check(there)[0] == check(here, there)[0] == 0, "all to be well")
    ahead.process.send_signal(signal.SIGSTOP)
    status, line = check(here, there)
    assert status == 2
    assert "Primary does not answer" in line
    assert "Secondary is replicating and connected, no news since" in line
    wait_for(lambda: check(there)[0] == 2, "the secondary to know it")
    assert "the status server of its primary has not answered for " in check(there)[1]
    nodes = get(parse_address(there.removeprefix("http://")), "/nodes").json["nodes"]
    assert nodes[0]["status"]["secondary"]["state"] == "replicating"
    assert (nodes[1]["status"], nodes[1]["last"]["address"]) == (None, address)
    ahead.process.send_signal(signal.SIGCONT)
    wait_for(lambda: check(there)[0] == check(here, there)[0] == 0, "all to be well again")


@pytest.mark.parametrize(
    ("options", "addresses", "expected"),
    [
        ("", [], "one address or two are needed"),
        ("", [":1", ":2", ":3"], "one address or two are needed"),
        ("", ["localhost"], "invalid address 'localhost'"),
        ("-w soon", [":1"], "Invalid value for '-w' / '--warning': 'soon' is not a valid float"),
        ("-c nan", [":1"], "nan is no number of seconds"),
        ("-w -1", [":1"], "Invalid value for '-w' / '--warning': -1.0 is not in the range x>=0."),
        ("--nonsense", [":1"], "No such option"),
    ],
)
def test_arguments_that_are_not_understood(check, options, addresses, expected):
    status, line = check(options, addresses)
    assert status == 3
    assert line.startswith("ZRS UNKNOWN - ")
    assert expected in line


def test_help_tells_the_exit_statuses():
    text = " ".join(CliRunner().invoke(zrs_command, ["check-nagios", "--help"]).output.split())
    assert "Exit status: 0 OK; 1 WARNING: a lag above -w" in text


def test_a_replication_address_is_sent_nothing_that_it_could_take_for_a_start(two, check):
    """It is asked as a status server, which is too long a message; ZEO's word is not sent."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.01)
        two[0].tell(primary())
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        assert check("-t 0.2", [two[0].text, address])[0] == 3
        connection, _ = listener.accept()
        with connection:
            assert connection.recv(100).startswith(b"GET /status HTTP/1.1\r\n")
        with pytest.raises(TimeoutError):
            listener.accept()


def test_the_time_of_a_position():
    assert TimeStamp(bytes.fromhex(tid(0))).timeTime() == NOW
