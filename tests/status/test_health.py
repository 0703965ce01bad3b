"""Which secondary follows which primary, and how far they are apart."""

from __future__ import annotations

import pytest

from tests.status.answers import (
    node,
    peer,
    position,
    primary,
    primary_part,
    secondary,
    secondary_part,
)
from zrs_core.status.health import distances

ELSEWHERE = peer(address="127.0.0.1:50000")


def following(nodes):
    return [(each["secondary"], each["primary"]) for each in distances(nodes)]


def test_by_the_connection():
    nodes = {
        "other": primary(peers=[ELSEWHERE]),
        "its own": primary(address="127.0.0.1:9999"),
        "secondary": secondary(),
    }
    assert following(nodes) == [("secondary", "its own")]


def test_by_the_address():
    nodes = {
        "other": primary(address="127.0.0.1:9999", peers=[ELSEWHERE]),
        "its own": primary(peers=[ELSEWHERE]),
        "secondary": secondary(),
    }
    assert following(nodes) == [("secondary", "its own")]


def test_the_only_primary():
    nodes = {"primary": primary(address=":9999", peers=[]), "secondary": secondary()}
    assert following(nodes) == [("secondary", "primary")]


@pytest.mark.parametrize("part", [{}, {"local_address": None}])
def test_nobody_knows(part):
    nodes = {
        "one": primary(address=":9998", peers=[ELSEWHERE]),
        "other": primary(address=":9999", peers=[ELSEWHERE]),
        "secondary": secondary(**part),
    }
    assert following(nodes) == []


def test_a_cascade_follows_and_is_followed():
    last = secondary(local_address="127.0.0.1:50000", primary_address="127.0.0.1:8200")
    nodes = {
        "first": primary(),
        "cascade": node(
            "cascade",
            primary=primary_part(address="127.0.0.1:8200", peers=[ELSEWHERE]),
            secondary=secondary_part(),
        ),
        "last": last,
    }
    assert following(nodes) == [("cascade", "first"), ("last", "cascade")]


def test_alone():
    assert distances({"secondary": secondary()}) == []
    assert distances({"primary": primary()}) == []


@pytest.mark.parametrize(
    ("ahead", "behind", "seconds", "transactions"),
    [
        (position(0), position(-1.5), 1.5, None),
        (position(0), position(0), 0.0, 0),
        # It has answered before the other one.
        (position(-1), position(0), 0.0, None),
        (position(0), None, None, None),
        (None, None, 0.0, 0),
    ],
)
def test_apart(ahead, behind, seconds, transactions):
    nodes = {"p": primary(position=ahead), "s": secondary(position=behind)}
    [found] = distances(nodes)
    assert found["seconds"] == pytest.approx(seconds, abs=1e-6)
    assert found["transactions"] == transactions
