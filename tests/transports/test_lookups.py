from __future__ import annotations

import os
import socket
import threading

import pytest

from zrs_core.addresses import TCPAddress, UnixAddress
from zrs_core.testing.environments import DEADLINE
from zrs_core.transports.lookups import LookUp, needs_look_up

ADDRESS = TCPAddress("primary.example", 1)
FOUND = [(socket.AF_INET, ("192.0.2.1", 1))]


@pytest.mark.parametrize(
    ("address", "needed"),
    [
        (ADDRESS, True),
        (TCPAddress("", 1), True),
        (TCPAddress("192.0.2.1", 1), False),
        (TCPAddress("fe80::1%lo", 1), False),
        (UnixAddress("/run/zrs.sock"), False),
    ],
)
def test_only_names_are_looked_up(address, needed):
    assert needs_look_up(address) is needed


@pytest.fixture
def gate():
    gate = threading.Event()
    yield gate
    gate.set()


@pytest.fixture
def asked(monkeypatch, gate):
    """The look-ups that were begun; each waits for the gate."""
    asked = []

    def look_up(host, port, **kwargs):
        asked.append(host)
        assert gate.wait(DEADLINE)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", port))]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return asked


def test_those_who_ask_for_the_same_address_share_a_look_up(asked, gate):
    ended = [threading.Event() for _ in range(3)]
    found = [LookUp(ADDRESS, each.set) for each in ended]
    gate.set()
    for each in ended:
        assert each.wait(DEADLINE)
    assert [each.result() for each in found] == [FOUND] * 3
    assert asked == [ADDRESS.host]


def test_one_that_was_cancelled_is_not_reported(asked, gate):
    first, second = threading.Event(), threading.Event()
    LookUp(ADDRESS, first.set).cancel()
    LookUp(ADDRESS, second.set)
    gate.set()
    assert second.wait(DEADLINE)
    assert not first.is_set()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork()")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_looks_up_what_its_parent_does(asked, gate):
    parent = threading.Event()
    LookUp(ADDRESS, parent.set)
    child = os.fork()
    if not child:
        ended = threading.Event()
        gate.set()
        LookUp(ADDRESS, ended.set)
        os._exit(0 if ended.wait(DEADLINE) else 1)
    assert os.waitpid(child, 0)[1] == 0
    gate.set()
    assert parent.wait(DEADLINE)
