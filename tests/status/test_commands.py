"""The commands with status servers of a primary and of a secondary behind a slow line."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner
from persistent.timestamp import TimeStamp
from ZODB import DB

from tests.conditions import wait_for
from zrs_core import Primary, Secondary
from zrs_core.messages import NO_TID
from zrs_core.tools.cli.command import zrs

from .http import get
from .line import DelayedLine

DELAY = 1.0


@pytest.fixture
def nodes(closing, serve, tmp_path):
    """A primary, its secondary behind a line, and the addresses of their status servers."""
    primary = closing(Primary(tmp_path / "p.fs", "127.0.0.1:0"))
    line = closing(DelayedLine(primary.replication_address))
    secondary = closing(Secondary(tmp_path / "s.fs", line.address))
    return primary, line, secondary, [str(serve(each).address) for each in (primary, secondary)]


@pytest.fixture
def commit(nodes, closing):
    db = closing(DB(nodes[0]))

    def one():
        with db.transaction() as connection:
            connection.root()["key"] = "value"
        return nodes[0].lastTransaction()

    return one


def arrives(secondary, tid):
    wait_for(lambda: secondary.lastTransaction() == tid, "a transaction")


def run(*arguments):
    result = CliRunner().invoke(zrs, arguments)
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result


def is_within(measured, imposed):
    return abs(measured - imposed) <= max(0.05, imposed / 10)


@pytest.mark.long
def test_the_lag_is_that_of_the_line(nodes, commit):
    _, line, secondary, addresses = nodes
    arrives(secondary, commit())
    line.to_client = DELAY

    def shown():
        """The status when a transaction has just come; how long it was held on the line."""
        arrives(secondary, commit())
        result = run("status", "--json", *addresses)
        assert (result.exit_code, result.stderr) == (0, "")
        told = json.loads(result.stdout)
        lag = told["nodes"][1]["status"]["secondary"]["lag_seconds"]
        return is_within(lag, line.imposed[-1])

    # A machine that is busy adds to what the line imposes, but not always.
    wait_for(shown, "the lag of the line")
    [distance] = json.loads(run("status", "--json", *addresses).stdout)["distances"]
    assert distance == {
        "primary": addresses[0],
        "secondary": addresses[1],
        "seconds": 0.0,
        "transactions": 0,
    }


@pytest.mark.long
def test_a_secondary_that_is_cut_off(nodes, commit):
    primary, line, secondary, addresses = nodes
    arrives(secondary, commit())
    line.refusing = True
    line.cut()
    wait_for(lambda: not secondary.progress.connected, "the end of the connection")
    first = commit()
    for _ in range(4):
        commit()
    result = run("status", "--json", *addresses)
    assert result.exit_code == 1
    assert "is not in sync" in result.stderr
    [distance] = json.loads(result.stdout)["distances"]
    assert distance["transactions"] == 5
    held = primary.status().position.time - TimeStamp(first).timeTime()
    assert distance["seconds"] > held > 0
    table = run("status", *addresses)
    assert table.exit_code == 1
    assert f"{addresses[1]} is behind {addresses[0]} by " in table.stdout
    assert ", 5 tx\n" in table.stdout
    checked = run("check-nagios", "-m", *addresses).stdout
    assert checked.startswith("ZRS WARNING - Secondary behind primary by ")


def test_how_far_one_is_behind(nodes, commit, serve):
    primary, _, secondary, _ = nodes
    [first, *_, last] = [commit() for _ in range(5)]
    server = serve(primary)

    def distance(tid, count=False):
        return get(server.address, f"/distance?tid=0x{tid.hex()}").json

    assert distance(last) == {"seconds": 0.0, "transactions": 0}
    assert distance(first)["transactions"] == 4
    assert distance(NO_TID)["transactions"] is None or distance(NO_TID)["transactions"] > 4
    assert get(serve(secondary).address, f"/distance?tid=0x{last.hex()}").json == {
        "seconds": None,
        "transactions": None,
    }


@pytest.mark.parametrize("query", ["", "?", "?tid=1", "?tid=0xZZ", f"?tid=0x{'0' * 16}&x=y"])
def test_questions_for_a_distance_that_are_none(primary, serve, query):
    answer = get(serve(primary).address, f"/distance{query}")
    assert answer.status == 400
    assert answer.body == b"ask with ?tid=0x and 16 hexadecimal digits\n"
