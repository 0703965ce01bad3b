"""A secondary's status server, and a primary whose status server does not answer."""

from __future__ import annotations

import pytest

from tests.conditions import wait_for
from zrs_core.monitor import nodes
from zrs_core.monitor.health import silence_of_primary, trouble_of
from zrs_core.monitor.nodes import Nodes
from zrs_core.monitor.options import node_address
from zrs_core.status.state import as_json

from . import answers
from .http import get


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 1000.0

        def monotonic(self):
            return self.now

        def time(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(nodes, "time", clock)
    return clock


def asking(*addresses, own=None):
    """Nodes that are asked by hand."""
    return Nodes([node_address(each) for each in addresses], lambda: own)


def age_shown(served):
    return served.status().secondary.primary_status_age


def test_the_age_is_small_while_it_answers(primary, secondary, network, serve):
    network.run()
    served = serve(secondary, nodes=[serve(primary).address])
    wait_for(lambda: get(served.address, "/nodes").json["nodes"][1]["last"], "an answer")
    wait_for(lambda: served._nodes._primary, "the primary to be found")
    assert 0 <= age_shown(served) < 60
    [_, node] = served.nodes_as_json()["nodes"]
    assert (node["last"]["role"], node["last"]["address"]) == ("primary", ":8000")
    assert b"\nzrs_primary_status_age_seconds " in get(served.address, "/metrics").body
    # Another primary is not the one that was asked.
    secondary.setReplicationAddress(("", 8002))
    assert age_shown(served) is None


def test_no_age_without_a_primary_among_the_nodes(primary, secondary, serve):
    assert age_shown(serve(secondary)) is None
    assert secondary.status().primary_status_age is None
    assert serve(primary).status().secondary is None


def test_the_age_grows_when_it_answers_no_more(primary, secondary, network, serve, monkeypatch):
    network.run()
    there = serve(primary)
    served = serve(secondary, nodes=[there.address])
    wait_for(lambda: served._nodes._primary, "the primary to be found")
    there.close()
    wait_for(lambda: age_shown(served) > 1, "a greater age")
    assert served.status().secondary.connected
    status = as_json(served.status())
    assert silence_of_primary(status) is None
    status["secondary"]["primary_status_age"] = 12.0
    expected = "the status server of its primary has not answered for 12 s; no news"
    assert silence_of_primary(status).startswith(expected)
    assert expected in trouble_of(status)
    [_, node] = served.nodes_as_json()["nodes"]
    assert node["status"] is None
    assert node["last"]["address"] == ":8000"


def test_an_old_answer_is_none(clock):
    with answers.serving(answers.primary()) as server:
        asked = asking(server.text)
        [node] = asked._nodes
        node._ask()
        clock.now += 4
        assert asked.as_json()[0]["status"]["role"] == "primary"
        # The same again is no news of it.
        node._ask()
        clock.now += 2
        [shown] = asked.as_json()
        assert (shown["status"], shown["error"]) == (None, "its last answer is 6 s old")
        assert shown["last"] == {
            "time": answers.NOW,
            "role": "primary",
            "address": "127.0.0.1:8100",
            "secondary": None,
        }
        server.tell({**answers.primary(), "now": answers.NOW + 11})
        node._ask()
        assert asked.as_json()[0]["error"] is None


@pytest.mark.parametrize(
    ("addresses", "followed", "index"),
    [
        ([":1"], "10.0.0.5:8100", 0),
        (["10.0.0.5:1", "10.0.0.6:1"], "10.0.0.5:8100", 0),
        (["http://10.0.0.5:1/a", "10.0.0.6:1"], "10.0.0.5:8100", 0),
        (["10.0.0.5:1", "10.0.0.5:2"], "10.0.0.5:8100", None),
        (["10.0.0.7:1", "10.0.0.6:1"], "10.0.0.5:8100", None),
        ([":1", "10.0.0.6:1"], "localhost:8100", 0),
        (["./s.sock", "10.0.0.6:1"], "./p.sock", None),
        (["./s.sock"], "./p.sock", 0),
        ([], "./p.sock", None),
    ],
)
def test_one_that_never_answered_may_be_the_primary(clock, addresses, followed, index):
    asked = asking(*addresses)
    clock.now += 5
    for node in asked._nodes:
        node._changed += 1
    if index is not None:
        asked._nodes[index]._changed -= 1
    assert asked.primary_status_age(followed) == (None if index is None else 5)


def test_one_that_answered_is_not_guessed(clock):
    asked = asking(":1")
    asked._nodes[0].known = answers.secondary()
    assert asked.primary_status_age("10.0.0.5:8100") is None
