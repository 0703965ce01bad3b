"""How it is going can be read at any time."""

from __future__ import annotations

import time

from persistent.timestamp import TimeStamp

from tests.sessions.helpers import connect, make_client
from zrs_core.messages import NO_TID, Commit, Store, Transaction
from zrs_core.progress import Progress, State
from zrs_core.testing import Sink, stream


def whole(moment):
    tid = TimeStamp(*time.gmtime(moment)[:5], moment % 60).raw()
    return [Transaction(tid), Store(b"\0" * 8, tid, b"record"), Commit()]


def test_nothing_is_known_before_anything_has_come():
    progress = Progress(NO_TID)
    assert progress.state is State.CONNECTING
    assert str(progress.state) == f"{progress.state}" == "connecting"
    assert (progress.silence, progress.lag, progress.failure) == (None, None, None)


def test_the_age_of_the_last_contact():
    replication = make_client(Sink())
    session = connect(replication)
    assert replication.progress.silence is None
    session.receive(stream(whole(0))[:1])
    first = replication.progress.silence
    assert first >= 0
    assert replication.progress.silence >= first
    session.lose("gone")
    assert replication.progress.silence >= first


def test_the_lag_is_unknown_rather_than_negative():
    for moment, known in ((time.time() - 100, True), (time.time() + 1000, False)):
        replication = make_client(Sink())
        session = connect(replication)
        session.receive(stream(whole(moment)))
        lag = replication.progress.lag
        assert (100 <= lag < 1000) if known else lag is None
        session.lose("gone")


def test_states():
    replication = make_client(Sink())
    progress = replication.progress
    session = connect(replication)
    assert progress.state is State.REPLICATING
    session.stop()
    assert progress.state is State.CONNECTING

    session = connect(replication)
    session.receive(b"\0\0\0\1x")
    session.lose("gone")
    assert progress.state is State.FAILING
    assert "pickle" in progress.failure
    replication.connection_failed("nobody there")
    assert progress.state is State.FAILING

    session = connect(replication)
    session.receive(stream(whole(0)))
    assert progress.state is State.REPLICATING
    assert progress.failure is None
    session.lose("gone")

    session = connect(replication)
    session.receive_eof()
    session.lose("gone")
    assert progress.state is State.REFUSED
    assert f"0x{progress.tid.hex()}" in progress.failure
