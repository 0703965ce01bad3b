"""The last error, and since when it has been over."""

from __future__ import annotations

import logging
import time

import pytest
from click.testing import CliRunner
from ZODB import DB

from tests.status import answers
from zrs_core.messages import NO_TID
from zrs_core.progress import Error
from zrs_core.status.peers import Peers
from zrs_core.status.state import as_json
from zrs_core.tids import describe_tid
from zrs_core.tools.cli.command import zrs


@pytest.fixture
def followed(primary, secondary, network, closing):
    db = closing(DB(primary))
    with db.transaction() as connection:
        connection.root()["key"] = "value"
    network.run()
    return primary, secondary


def test_a_lost_connection_is_over_when_the_comparison_has_succeeded(followed, network, caplog):
    caplog.set_level(logging.INFO)
    _, secondary = followed
    network.cut()
    lost = secondary.status().last_error
    assert (lost.message, lost.over) == ("the connection was lost", None)
    network.advance(1)
    assert secondary.status().last_error == lost
    network.run()
    over = secondary.status().last_error
    assert (over.message, over.time) == (lost.message, lost.time)
    assert over.over >= lost.time
    assert as_json(over)["over"] == over.over
    [record] = [each for each in caplog.records if each.event == "replicating"]
    assert record.levelno == logging.INFO
    assert record.getMessage().endswith("the primary holds the same; replicating")


def test_a_failed_attempt_is_over_when_an_empty_secondary_is_served(primary, secondary, network):
    network.cut()
    assert secondary.status().last_error.over is None
    network.advance(1)
    network.run()
    db = DB(primary)
    network.run()
    assert secondary.status().last_error.over is not None
    db.close()


def test_where_nothing_is_compared_and_nothing_comes_it_is_over_too(followed, network):
    _, secondary = followed
    secondary._client.max_compared_size = 0
    network.cut()
    network.advance(1)
    network.run()
    assert secondary.status().last_error.over is None
    network.advance(10)
    assert secondary.status().last_error.over is not None


def test_another_error_is_not_over(followed, network):
    _, secondary = followed
    network.cut()
    network.advance(1)
    network.run()
    assert secondary.status().last_error.over is not None
    network.cut()
    assert secondary.status().last_error.over is None


@pytest.fixture
def clock(monkeypatch):
    now = [1_700_000_000.0]
    monkeypatch.setattr(time, "time", lambda: now[0])

    def go_on(seconds):
        now[0] += seconds
        return now[0]

    return go_on


def test_an_error_with_a_peer_is_over_when_its_host_is_served(clock):
    peers = Peers()
    assert peers.error() is None
    peers.refused("no such tid", "10.0.0.1:4000")
    clock(1)
    peers.add("10.0.0.2:4001", None).greeted("zrs2.1", NO_TID)
    peer = peers.add("10.0.0.1:4002", None)
    clock(60)
    assert peers.error().over is None
    peer.greeted("zrs2.1", NO_TID)
    assert peers.error().over == peer.connected_since
    peers.failed("the disk is gone", "10.0.0.1:4002")
    assert peers.error().over is None
    # It is still the connection that has failed.
    clock(60)
    assert peers.error().over is None
    peers.remove(peer)
    assert peers.error().over is None


def test_a_short_connection_does_not_end_an_error(clock):
    """A secondary that has diverged makes such ones, to search for what both hold."""
    peers = Peers()
    peers.refused("the histories have diverged", "[::1]:4000")
    for seconds, over in ((10, False), (20, True)):
        peer = peers.add("[::1]:4001", None)
        peer.greeted("zrs2.1", NO_TID)
        clock(seconds)
        peers.remove(peer)
        assert (peers.error().over is not None) == over


def test_both_ends_say_their_last_transaction_when_they_close(followed, caplog):
    caplog.set_level(logging.INFO)
    for storage in reversed(followed):
        storage.close()
    last = describe_tid(followed[1].progress.tid)
    closing = [each.getMessage() for each in caplog.records if each.event == "closing"]
    assert len(closing) == 2
    assert all(each.endswith(f"; last is {last}") for each in closing)


def test_one_without_transactions_names_none(secondary, caplog):
    caplog.set_level(logging.INFO)
    secondary.close()
    [closing] = [each.getMessage() for each in caplog.records if each.event == "closing"]
    assert "last is" not in closing


@pytest.mark.parametrize("over", [None, answers.NOW - 5])
def test_the_command_says_that_it_is_over(over):
    error = {"message": "it was cut", "time": answers.NOW - 60, "over": over}
    with answers.serving(answers.secondary(last_error=error)) as server:
        shown = CliRunner().invoke(zrs, ["status", server.text])
    text = " ".join(shown.stdout.split())
    said = " (over since 2026-11-22 05:59:55 UTC)" if over else ""
    assert f"last error{said}, 2026-11-22 05:59:00 UTC: it was cut" in text


def test_an_error_ends_once():
    error = Error("it was cut", 1.0)
    over = error.ended()
    assert over.over is not None
    assert over.ended() is over
