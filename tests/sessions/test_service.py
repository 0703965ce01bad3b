"""The policy of a listener, which knows no socket and no clock."""

from __future__ import annotations

import logging

import pytest

from zrs_core.refusals import PERIOD, TOLD
from zrs_core.sessions import PrimaryTimes, ReplicationService
from zrs_core.testing import Source, greeting

from .helpers import ADDRESS, accept, make_service


@pytest.fixture(autouse=True)
def _log_level(caplog):
    caplog.set_level(logging.DEBUG, "zrs_core")


class TestLimits:
    def test_a_connection_too_many_gets_no_session(self, caplog):
        service = make_service(Source(), max_peers=2)
        for _ in range(2):
            accept(service)
        assert service.accept("third", 0.0, lambda: None) is None
        reason = "there are 2 connections already, and max_peers allows no more"
        assert f"third: refused ({reason})" in caplog.messages
        assert service.peers.refusals == 1

    def test_one_that_is_over_makes_room(self):
        service = make_service(Source(), max_peers=1)
        accept(service).lose()
        assert service.accept("next", 0.0, lambda: None) is not None

    def test_many_refusals_are_summed_up(self, caplog):
        service = make_service(Source())
        service.start(0.0)
        for _ in range(TOLD + 5):
            accept(service).receive(b"nonsense")
        assert sum(each.levelname == "ERROR" for each in caplog.records) == TOLD
        assert service.is_quiet
        service.handle_timeout(PERIOD)
        assert "and 5 more in the last minute" in caplog.messages[-1]
        assert not service.is_quiet

    def test_stopping_sums_up_at_once(self, caplog):
        service = make_service(Source())
        for _ in range(TOLD + 1):
            accept(service).receive(b"nonsense")
        service.stop(1.0)
        assert "and 1 more in the last minute" in caplog.messages[-1]


class TestChecks:
    @pytest.fixture
    def checks(self):
        return []

    @pytest.fixture
    def service(self, checks):
        return ReplicationService(
            Source(), ADDRESS, check=lambda: checks.append(None), times=PrimaryTimes(check=2.0)
        )

    def test_the_storage_is_checked_while_it_listens(self, service, checks):
        assert service.next_deadline() is None
        service.start(10.0)
        assert service.next_deadline() == 12.0
        service.handle_timeout(11.9)
        assert checks == []
        service.handle_timeout(12.5)
        assert len(checks) == 1
        assert service.next_deadline() == 14.5
        service.stop(13.0)
        assert service.next_deadline() is None
        service.handle_timeout(100.0)
        assert len(checks) == 1

    def test_a_check_that_fails_is_logged_and_repeated(self, caplog):
        def check():
            raise OSError("Input/output error")

        service = ReplicationService(Source(), ADDRESS, check=check)
        service.start(0.0)
        for now in (2.0, 4.0):
            service.handle_timeout(now)
        assert [each.event for each in caplog.records] == ["cannot-check"] * 2


class TestAccepting:
    def test_a_failure_is_news_once_a_minute(self, caplog):
        service = make_service(Source())
        for now in (0.0, 1.0, 30.0, 91.0):
            service.accept_failed(OSError(24, "Too many open files"), now)
        levels = [each.levelname for each in caplog.records]
        assert levels == ["ERROR", "DEBUG", "DEBUG", "ERROR"]
        assert "localhost:8100: cannot accept a connection: " in caplog.messages[0]

    def test_so_is_a_connection_that_cannot_be_served(self, caplog):
        service = make_service(Source())
        for _ in range(2):
            service.serve_failed(RuntimeError("can't start new thread"), 0.0)
        assert [each.levelname for each in caplog.records] == ["ERROR", "DEBUG"]
        assert caplog.records[0].event == "cannot-serve"


def test_a_session_that_floods_the_log_stays_quiet(caplog):
    service = make_service(Source())
    for _ in range(TOLD + 1):
        accept(service).receive(b"nonsense")
    caplog.clear()
    accept(service).receive(greeting())
    assert [each.levelname for each in caplog.records if "Connected" in each.getMessage()] == [
        "DEBUG"
    ]
