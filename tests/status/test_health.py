"""Which secondary follows which primary."""

from __future__ import annotations

import pytest

from tests.status.answers import (
    node,
    peer,
    primary,
    primary_part,
    secondary,
    secondary_part,
)
from zrs_core.monitor.health import pairs

ELSEWHERE = peer(address="127.0.0.1:50000")


def following(nodes):
    return [(each.secondary, each.primary) for each in pairs(nodes)]


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
    assert pairs({"secondary": secondary()}) == []
    assert pairs({"primary": primary()}) == []
