"""The machine under every session: actions, deadlines, back-pressure, and the end."""

from __future__ import annotations

import logging

import pytest

from zrs_core.actions import Abort, Close, HalfClose, Send, Work
from zrs_core.sessions.deadlines import Deadline, Timers
from zrs_core.sessions.machine import CLOSE, Machine

SOON = Deadline("soon", "a test sets it", "it is noted")
LATER = Deadline("later", "a test sets it", "it is noted")


class Plain(Machine):
    """A machine that notes what happens to it."""

    def __init__(self):
        super().__init__("peer", {SOON: self._note_soon}, 10.0)
        self.noted = []

    def _note_soon(self, now):
        self.noted.append(("soon", now))

    def _on_data(self, data, now):
        if data == b"bug":
            raise LookupError("a bug")
        self.noted.append((data, now))

    def _on_eof(self, now):
        self.noted.append(("eof", now))

    def _on_lost(self, reason, now):
        self.noted.append((reason, now))
        self._finish()


def actions(machine):
    found = []
    while (action := machine.next_action()) is not None:
        found.append(action)
    return found


@pytest.fixture
def machine():
    return Plain()


class TestTimers:
    def test_they_pass_in_order(self):
        passed = []
        timers = Timers(
            {SOON: lambda now: passed.append(("soon", now)), LATER: lambda now: passed.append("l")}
        )
        timers.set(LATER, 3.0)
        timers.set(SOON, 1.0)
        assert timers.next() == 1.0
        timers.pass_time(0.9)
        assert passed == []
        timers.pass_time(2.0)
        assert passed == [("soon", 2.0)]
        assert not timers.is_set(SOON)
        assert timers.at(LATER) == 3.0
        timers.pass_time(3.0)
        assert passed == [("soon", 2.0), "l"]
        assert timers.next() is None

    def test_one_that_is_set_again_has_the_new_time(self):
        timers = Timers({SOON: lambda now: None})
        timers.set(SOON, 1.0)
        timers.set(SOON, 5.0)
        assert timers.next() == 5.0
        timers.clear(SOON)
        timers.clear(SOON)
        assert timers.next() is None

    def test_one_that_no_table_has_is_a_mistake(self):
        with pytest.raises(KeyError, match="later"):
            Timers({SOON: lambda now: None}).set(LATER, 1.0)

    def test_a_handler_may_set_it_again(self):
        times = []

        def again(now):
            times.append(now)
            timers.set(SOON, now + 1)

        timers = Timers({SOON: again})
        timers.set(SOON, 1.0)
        timers.pass_time(1.5)
        assert times == [1.5]
        assert timers.next() == 2.5


class TestSending:
    def test_what_is_sent_is_an_action(self, machine):
        machine._send([b"one", b"two"])
        assert actions(machine) == [Send([b"one", b"two"])]

    def test_a_close_waits_until_the_network_has_accepted_it(self, machine):
        machine._send([b"12345"])
        machine._close(1.0)
        assert actions(machine) == [Send([b"12345"])]
        assert machine.next_deadline() == 11.0
        machine.sent(4, 2.0)
        assert actions(machine) == []
        machine.sent(1, 3.0)
        assert actions(machine) == [Close("closed here")]
        assert machine.next_deadline() is None

    def test_but_not_for_ever(self, machine):
        machine._send([b"12345"])
        machine._close(1.0, "why")
        actions(machine)
        machine.handle_timeout(10.9)
        assert actions(machine) == []
        machine.handle_timeout(11.0)
        assert actions(machine) == [Abort("why")]

    def test_a_half_close_waits_too_and_nothing_follows_it(self, machine):
        machine._send([b"12345"])
        machine._half_close()
        machine._send([b"late"])
        assert actions(machine) == [Send([b"12345"])]
        machine.sent(5, 0.0)
        assert actions(machine) == [HalfClose()]
        machine.receive_data(b"data", 1.0)
        assert machine.noted == [(b"data", 1.0)]
        machine._close(2.0)
        assert actions(machine) == [Close("closed here")]

    def test_a_driver_that_reports_too_much_does_no_harm(self, machine):
        machine._send([b"12345"])
        machine.sent(100, 0.0)
        machine._send([b"12345"])
        machine._close(0.0)
        assert actions(machine) == [Send([b"12345"]), Send([b"12345"])]

    def test_an_abort_drops_what_was_not_handed_out(self, machine):
        machine._send([b"12345"])
        machine._abort("why")
        assert actions(machine) == [Abort("why")]
        machine._send([b"more"])
        assert actions(machine) == []

    def test_closing_twice_is_closing_once(self, machine):
        machine._close(0.0, "first")
        machine._close(0.0, "second")
        machine.stop(0.0)
        assert actions(machine) == [Close("first")]


class TestWork:
    def test_one_piece_is_under_way_at_a_time(self, machine):
        results = []
        for number in (1, 2):
            machine._do(lambda number=number: number, lambda result, now: results.append(result))
        (first,) = actions(machine)
        assert isinstance(first, Work)
        machine.done(first.call(), 0.0)
        (second,) = actions(machine)
        machine.done(second.call(), 0.0)
        assert results == [1, 2]

    def test_an_outcome_that_is_not_expected_is_a_mistake(self, machine):
        with pytest.raises(RuntimeError):
            machine.done(None, 0.0)
        with pytest.raises(RuntimeError):
            machine.failed(OSError(), 0.0)

    def test_a_failure_that_nothing_handles_ends_the_connection(self, machine, caplog):
        machine._do(lambda: None, lambda result, now: None)
        actions(machine)
        machine.failed(OSError("disk"), 0.0)
        assert actions(machine) == [Abort("OSError('disk')")]
        assert caplog.messages == ["peer: closing"]

    def test_a_failure_may_be_handled(self, machine):
        errors = []
        machine._do(lambda: None, machine._note_soon, lambda error, now: errors.append(error))
        actions(machine)
        machine.failed(OSError("disk"), 0.0)
        assert len(errors) == 1
        assert actions(machine) == []


class TestTheEnd:
    def test_nothing_comes_after_a_close(self, machine):
        machine._close(0.0)
        machine.receive_data(b"data", 1.0)
        machine.receive_eof(1.0)
        machine.wake(1.0)
        assert machine.noted == []
        assert not machine.wants_data

    def test_it_is_told_once_that_the_connection_is_lost(self, machine):
        machine._timers.set(SOON, 5.0)
        machine._send([b"12345"])
        machine.lost("why", 1.0)
        machine.lost("again", 2.0)
        assert machine.noted == [("why", 1.0)]
        assert machine.over
        assert actions(machine) == []
        assert machine.next_deadline() is None
        machine.handle_timeout(10.0)
        machine.sent(5, 10.0)
        machine.receive_data(b"data", 10.0)
        machine.receive_eof(10.0)
        machine.stop(10.0)
        assert machine.noted == [("why", 1.0)]

    def test_work_that_is_under_way_is_waited_for(self, machine):
        machine._do(lambda: None, lambda result, now: machine.noted.append("done"))
        actions(machine)
        machine.lost("why", 1.0)
        assert not machine.over
        machine.done(None, 2.0)
        assert machine.noted == ["done", ("why", 2.0)]
        assert machine.over

    def test_so_is_work_that_was_not_begun(self, machine):
        machine._do(lambda: None, lambda result, now: machine.noted.append("done"))
        machine.lost("why", 1.0)
        assert not machine.over
        (work,) = actions(machine)
        machine.done(work.call(), 2.0)
        assert machine.over

    def test_a_failure_of_it_then_ends_it_all_the_same(self, machine, caplog):
        machine._do(lambda: None, lambda result, now: None)
        actions(machine)
        machine.lost("why", 1.0)
        machine.failed(OSError("disk"), 2.0)
        assert machine.over
        assert actions(machine) == []


class TestABug:
    def test_it_is_logged_and_ends_the_connection(self, machine, caplog):
        machine.receive_data(b"bug", 0.0)
        assert actions(machine) == [Abort("LookupError('a bug')")]
        (record,) = caplog.records
        assert (record.levelno, record.getMessage()) == (logging.ERROR, "peer: closing")
        assert record.event == "unexpected"
        assert isinstance(record.exc_info[1], LookupError)

    def test_one_at_the_end_does_not_keep_it(self, machine, caplog):
        machine._on_lost = None
        machine.lost("why", 0.0)
        assert machine.over
        assert len(caplog.records) == 1


def test_the_table_of_every_machine_has_the_close():
    assert Plain()._timers._handlers.keys() == {SOON, CLOSE}
