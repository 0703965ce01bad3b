"""Measuring and showing how a secondary catches up."""

from __future__ import annotations

import io
import time

import pytest
from persistent.timestamp import TimeStamp
from rich.console import Console

from tests.sessions.helpers import connect, make_client
from zrs_core.messages import NO_TID
from zrs_core.progress import Progress, State
from zrs_core.testing import WHOLE, Sink, stream
from zrs_core.tools.cli import progress as module
from zrs_core.tools.cli.progress import CatchUp, Meter, Sample, view


def tid_at(when: float) -> bytes:
    moment = time.gmtime(when)
    return TimeStamp(*moment[:5], moment.tm_sec + when % 1).raw()


@pytest.fixture
def clock(monkeypatch):
    """Both clocks, standing still until they are set."""

    class Clock:
        now = 1_000.0
        wall = 1_700_000_000.0

    monkeypatch.setattr(module.time, "monotonic", lambda: Clock.now)
    monkeypatch.setattr(module.time, "time", lambda: Clock.wall)
    return Clock


class TestMeter:
    def test_nothing_yet(self, clock):
        sample = Meter(Progress(NO_TID)).sample()
        assert sample == Sample(0, 0, 0.0, None, 0.0)
        assert str(sample) == "0 transactions, 0 bytes, 0 bytes/s, none applied yet"
        assert sample.time == "-"

    @pytest.mark.parametrize("start", ["with the first transaction", "from one that it has"])
    def test_the_way_from_the_first_time_to_now(self, clock, start):
        first = tid_at(clock.wall - 1_000)
        progress = Progress(first if start == "from one that it has" else NO_TID)
        meter = Meter(progress)
        progress.tid = first
        assert meter.sample().part == 0.0
        progress.tid = tid_at(clock.wall - 750)
        sample = meter.sample()
        assert sample.part == pytest.approx(0.25, abs=0.001)
        assert sample.reached == pytest.approx(clock.wall - 750, abs=0.1)
        assert sample.time == "2023-11-14 22:00:50 UTC"

    @pytest.mark.parametrize("ahead", [0, 500])
    def test_times_that_are_not_in_the_past(self, clock, ahead):
        progress = Progress(tid_at(clock.wall + ahead))
        meter = Meter(progress)
        progress.tid = tid_at(clock.wall + ahead + 100)
        assert meter.sample().part == 1.0

    def test_the_rate_is_that_of_the_last_seconds(self, clock):
        progress = Progress(NO_TID)
        meter = Meter(progress)
        for _ in range(20):
            clock.now += 1.0
            progress.bytes += 1_000
            meter.sample()
        assert meter.sample().rate == pytest.approx(1_000)
        for _ in range(20):
            clock.now += 1.0
            meter.sample()
        assert meter.sample().rate == 0.0


class TestCatchUp:
    @pytest.fixture
    def progress(self):
        return Progress(NO_TID)

    @pytest.fixture
    def catch_up(self, clock, progress):
        return CatchUp(progress, 2.0)

    def test_connected_and_quiet(self, clock, progress, catch_up):
        progress.connected = True
        assert not catch_up.done()
        clock.now += 1.9
        assert not catch_up.done()
        clock.now += 0.2
        assert catch_up.done()

    @pytest.mark.parametrize("name", ["bytes", "transactions", "connections"])
    def test_whatever_happens_begins_it_anew(self, clock, progress, catch_up, name):
        progress.connected = True
        assert not catch_up.done()
        clock.now += 1.9
        setattr(progress, name, 1)
        assert not catch_up.done()
        clock.now += 1.9
        assert not catch_up.done()
        clock.now += 0.2
        assert catch_up.done()

    def test_not_without_a_connection(self, clock, catch_up):
        clock.now += 100
        assert not catch_up.done()

    def test_not_before_it_was_compared(self, clock, progress, catch_up):
        progress.connected = True
        progress.state = State.COMPARING
        assert not catch_up.done()
        clock.now += 100
        assert not catch_up.done()
        progress.state = State.REPLICATING
        assert not catch_up.done()
        clock.now += 2.1
        assert catch_up.done()

    def test_not_in_the_middle_of_a_transaction(self, clock):
        it = make_client(Sink())
        catch_up = CatchUp(it.progress, 2.0)
        session = connect(it)
        session.receive(stream(WHOLE)[:-10])
        assert not catch_up.done()
        clock.now += 100
        assert not catch_up.done()
        session.lose("lost")
        # It may be another primary that answers now, and that does not hold the one that was begun.
        session = connect(it)
        assert not catch_up.done()
        clock.now += 2.1
        assert catch_up.done()
        session.lose("closed")

    def test_not_while_the_last_one_is_on_its_way_to_the_disk(self, clock):
        sink = Sink()
        it = make_client(sink)
        catch_up = CatchUp(it.progress, 2.0)
        session = connect(it)
        seen = []

        def flush():
            seen.append(catch_up.done())
            clock.now += 100
            seen.append(catch_up.done())

        sink.flush = flush
        session.receive(stream(WHOLE))
        assert seen == [False, False]
        assert not catch_up.done()
        clock.now += 2.1
        assert catch_up.done()
        session.lose("closed")


class TestView:
    def test_lines_where_there_is_no_terminal(self, clock):
        console = Console(file=io.StringIO())
        sample = Sample(1, 2_000, 3_000.0, clock.wall, 0.5)
        with view(console, "primary:8100") as shown:
            for _ in range(105):
                clock.now += 0.1
                shown.show(sample, True)
            clock.now += 100
            shown.show(sample, False)
        line = "Catching up: 1 transaction, 2.0 kB, 3.0 kB/s, at 2023-11-14 22:13:20 UTC\n"
        assert console.file.getvalue() == line * 2

    def test_a_bar_on_a_terminal(self):
        console = Console(file=io.StringIO(), force_terminal=True, width=150, _environ={})
        with view(console, "primary:8100") as shown:
            shown.show(Sample(0, 0, 0.0, None, 0.0), False)
            shown.show(Sample(12_345, 2_000, 3_000.0, 0.0, 0.5), True)
        output = console.file.getvalue()
        assert "Catching up with primary:8100" in output
        assert "12,345 transactions, 2.0 kB, 3.0 kB/s, at 1970-01-01 00:00:00 UTC" in output

    def test_lines_on_a_terminal_that_cannot_do_it(self):
        console = Console(
            file=io.StringIO(), force_terminal=True, _environ={"TERM": "dumb"}, width=150
        )
        with view(console, "primary:8100") as shown:
            shown.show(Sample(0, 0, 0.0, None, 0.0), False)
        assert console.file.getvalue() == ""
