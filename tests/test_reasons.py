"""Reasons that are the same but for details, and those that are not."""

from __future__ import annotations

import logging

import pytest

from tests.sessions.helpers import accept, connect
from zrs_core.messages import Transaction
from zrs_core.reasons import same_kind
from zrs_core.refusals import REASONS, RepeatLog
from zrs_core.sessions import ReplicationClient, ReplicationService
from zrs_core.testing import WHOLE, Sink, Source, greeting, stream

SAME = [
    (
        "cannot apply: [Errno 20] Not a directory: '/s/tmp/zrs-k3_x8abc.blob'",
        "cannot apply: [Errno 20] Not a directory: '/s/tmp/zrs-00000000.blob'",
    ),
    ("No such file: '/tmp/tmpabcd_123'", "No such file: '/tmp/tmp12345678'"),
    (
        "No space: '/b/0x03d4dc0011111111k3_x8abc.tmp'",
        "No space: '/b/0x03d4dc0022222222aaaaaaaa.tmp'",
    ),
    (
        "it holds 0x03d4dc0011111111 (2026-11-30 20:16:57.014862), too late",
        "it holds 0x03d4dc0022222222 (2026-12-01 00:00:00.000000), too late",
    ),
    ("[::1]:4711 has left", "[fe80::2%eth0]:4712 has left"),
    ("127.0.0.1:4711 has left", "10.0.0.7:50123 has left"),
    ("localhost:4711 refused", "localhost:4712 refused"),
    ("a record of 1,048,577 bytes", "a record of 17 bytes"),
    ("<Thing object at 0x7f3a>", "<Thing object at 0x7f3b>"),
]

OTHER = [
    ("[Errno 28] No space left on device: '/a'", "[Errno 13] Permission denied: '/a'"),
    ("No such file: '/srv/1/Data.fs'", "No such file: '/srv/2/Data.fs'"),
    ("No such file: '/srv/one/Data.fs'", "No such file: '/srv/two/Data.fs'"),
    ("protocol 'zrs9.9'", "protocol 'zrs8.8'"),
    ("certificate of node1", "certificate of node2"),
    ("the disk is full", "the disk is slow"),
]


@pytest.mark.parametrize(("one", "another"), SAME)
def test_details_make_no_difference(one, another):
    assert same_kind(one) == same_kind(another)


@pytest.mark.parametrize(("one", "another"), OTHER)
def test_other_reasons_are_told_apart(one, another):
    assert same_kind(one) != same_kind(another)


class TestRepeats:
    def test_the_first_of_a_kind_is_an_error_and_those_after_it_are_not(self):
        repeats = RepeatLog(60)
        reasons = ["a file 1", "a file 2", "a disk", "a file 3"]
        levels = [logging.ERROR, logging.DEBUG, logging.ERROR, logging.DEBUG]
        assert [repeats.level(each, 0.0) for each in reasons] == levels

    def test_after_a_time_without_it_is_news_again(self):
        repeats = RepeatLog(60)
        repeats.level("a file", 0.0)
        for number in range(1, 6):
            assert repeats.level("a file", 59.0 * number) == logging.DEBUG
        assert repeats.level("a file", 59.0 * 5 + 61) == logging.ERROR

    def test_it_does_not_grow(self):
        repeats = RepeatLog(60)
        for number in range(10 * REASONS):
            repeats.level("x" * number, 0.0)
        assert len(repeats._seen) == REASONS


def errors(caplog):
    return [each.getMessage() for each in caplog.records if each.levelno >= logging.ERROR]


def test_a_primary_that_cannot_go_on_sending_says_so_once(caplog):
    """Each attempt of a secondary is another session."""
    source = Source(error=OSError("cannot open /x/tmpabcd_123"))
    service = ReplicationService(source, ("", 8000))
    for number in range(5):
        source.error = OSError(f"cannot open /x/tmpabcd_12{number}")
        accept(service, f"127.0.0.1:{4000 + number}").receive(greeting())
    assert len(errors(caplog)) == 1
    source.error = OSError("the disk is gone")
    accept(service, "127.0.0.1:5000").receive(greeting())
    assert len(errors(caplog)) == 2
    assert service.peers.last_error.message == "cannot go on sending: the disk is gone"


def test_a_secondary_whose_error_names_a_temporary_file_says_so_once(caplog):
    sink = Sink(failing=Transaction)
    client = ReplicationClient(sink, ("", 8000))
    for number in range(4):
        sink._error = OSError(f"Not a directory: 'tmp/zrs-abcd_12{number}.blob'")
        connect(client).receive(stream(WHOLE))
    assert len(errors(caplog)) == 1
    assert "abcd_123" in client.progress.failure
