"""What a primary notes of those that follow it."""

from __future__ import annotations

import time

import pytest
from persistent.timestamp import TimeStamp

from zrs_core.messages import NO_TID
from zrs_core.status import peers
from zrs_core.status.peers import Commits, KnownCommits, Peer, Peers, default_name


def tid(age):
    """That of a transaction that was committed so many seconds ago."""
    moment = time.time() - age
    return TimeStamp(*time.gmtime(moment)[:5], moment % 60).raw()


class TestBehind:
    def test_nothing_is_missing(self):
        last = tid(10)
        known = KnownCommits(NO_TID, [last], True)
        assert known.behind(last, last) == (0.0, 0)
        # A pack has removed the last one.
        assert known.behind(last, tid(5)) == (0.0, 0)

    def test_the_oldest_that_was_not_sent_counts(self):
        tids = [tid(40), tid(30), tid(20), tid(10)]
        known = KnownCommits(NO_TID, tids, True)
        seconds, transactions = known.behind(tids[1], tids[-1])
        assert seconds == pytest.approx(20, abs=1)
        assert transactions == 2
        # In between, and before all.
        assert known.behind(tid(25), tids[-1])[1] == 2
        assert known.behind(NO_TID, tids[-1])[1] == 4

    def test_what_was_committed_before_was_not_counted(self):
        known = KnownCommits(tid(30), [tid(10)], True)
        seconds, transactions = known.behind(tid(100), tid(10))
        assert seconds == pytest.approx(30, abs=1)
        assert transactions is None

    def test_where_others_commit_too_nothing_is_counted(self):
        known = KnownCommits(NO_TID, [tid(30), tid(10)], False)
        seconds, transactions = known.behind(tid(20), tid(10))
        assert seconds == pytest.approx(10, abs=1)
        assert transactions is None
        assert known.behind(tid(5), tid(1)) == (None, None)


class TestCommits:
    def test_they_are_in_order_whoever_was_first(self):
        commits = Commits(NO_TID, exact=True)
        for number in (1, 3, 2):
            commits.add(b"%08d" % number)
        assert commits.known() == (NO_TID, [b"%08d" % number for number in (1, 2, 3)], True)

    def test_a_limited_number_is_remembered(self, monkeypatch):
        monkeypatch.setattr(peers, "_REMEMBERED", 3)
        commits = Commits(NO_TID, exact=True)
        for number in range(5):
            commits.add(b"%08d" % number)
        assert commits.known() == (b"%08d" % 2, [b"%08d" % 3, b"%08d" % 4], True)

    def test_they_begin_again(self):
        commits = Commits(NO_TID, exact=True)
        commits.add(b"a" * 8)
        commits.begin_again(b"b" * 8)
        commits.add(b"c" * 8)
        assert commits.known() == (b"b" * 8, [b"c" * 8], True)


class TestPeer:
    @pytest.fixture
    def clock(self, monkeypatch):
        seconds = [1000.0]
        monkeypatch.setattr(time, "monotonic", lambda: seconds[0])
        return seconds

    def test_back_pressure_is_what_passes_until_it_asks_again(self, clock):
        def waited():
            return peer.status(KnownCommits(NO_TID, [], True), NO_TID).back_pressure_seconds

        peer = Peer("address", None)
        peer.greeted("zrs2.1", NO_TID)
        peer.asks()
        peer.gets(1, 100, b"a" * 8, 0.5)
        clock[0] += 0.25
        # It rests.
        assert waited() == 0
        clock[0] += 2.25
        assert waited() == 2
        peer.asks()
        clock[0] += 5
        assert waited() == 2
        peer.gets(0, 100, None, 0)
        clock[0] += 1
        assert waited() == 3

    def test_states(self):
        def status():
            return peer.status(KnownCommits(NO_TID, [b"b" * 8], True), b"b" * 8)

        peer = Peer("address", "name")
        begun = status()
        assert (begun.address, begun.certificate) == ("address", "name")
        assert (begun.state, begun.start, begun.position) == ("greeting", None, None)
        assert (begun.lag_seconds, begun.lag_transactions, begun.protocol) == (None, None, None)
        peer.greeted("zrs2.0", b"a" * 8)
        greeted = status()
        assert (greeted.state, greeted.protocol, greeted.start) == ("waiting", "zrs2.0", b"a" * 8)
        assert (greeted.position.tid, greeted.lag_transactions) == (b"a" * 8, 1)
        peer.gets(1, 50, b"b" * 8, 0)
        sending = status()
        assert (sending.state, sending.position.tid) == ("sending", b"b" * 8)
        assert (sending.bytes, sending.transactions, sending.lag_transactions) == (50, 1, 0)
        peer.has_all()
        assert status().state == "waiting"


@pytest.mark.parametrize(
    ("address", "certificate", "name"),
    [
        ("10.0.0.5:40114", None, "10.0.0.5"),
        ("10.0.0.5:40114", "replica.example", "replica.example"),
        ("[2001:db8::5]:40114", None, "2001:db8::5"),
        ("[fe80::1%eth0]:40114", None, "fe80::1%eth0"),
        ("[::ffff:10.0.0.5]:40114", None, "10.0.0.5"),
        ("unix:/run/zrs.sock#7", None, "/run/zrs.sock"),
        ("unix:/run/a:1#b.sock#12", None, "/run/a:1#b.sock"),
        ("unix:/run/zrs.sock#7", "replica.example", "replica.example"),
        ("memory:1", None, "memory"),
        ("a peer that has left", None, "a peer that has left"),
        (":5", None, ":5"),
    ],
)
def test_names_of_peers(address, certificate, name):
    assert default_name(address, certificate) == name


class TestNames:
    def test_peers_of_one_host_have_numbers(self):
        peers = Peers()
        added = [peers.add(f"10.0.0.5:{port}", None) for port in (1, 2, 3)]
        assert [each.name for each in added] == ["10.0.0.5", "10.0.0.5#2", "10.0.0.5#3"]
        assert peers.add("10.0.0.6:1", None).name == "10.0.0.6"

    def test_the_lowest_free_number_is_used_again(self):
        peers = Peers()
        first, second, third = (peers.add(f"10.0.0.5:{port}", None) for port in (1, 2, 3))
        for gone, name in ((second, "10.0.0.5#2"), (first, "10.0.0.5")):
            peers.remove(gone)
            peers.remove(gone)
            assert peers.add("10.0.0.5:9", None).name == name
        assert third.name == "10.0.0.5#3"

    def test_restarts_make_no_more_names(self):
        peers, names = Peers(), set()
        connected = [peers.add(f"10.0.0.5:{port}", None) for port in range(2)]
        for port in range(2, 100):
            peers.remove(connected.pop(port % 2))
            connected.append(peers.add(f"10.0.0.5:{port}", None))
            names |= {each.name for each in connected}
        assert names == {"10.0.0.5", "10.0.0.5#2"}

    def test_a_name_that_has_a_number_already(self):
        peers = Peers()
        names = [peers.add("10.0.0.5:1", each).name for each in ("a#2", "a", "a", "a#2")]
        assert names == ["a#2", "a", "a#3", "a#2#2"]

    def test_a_protocol_may_give_another_name(self):
        peers = Peers()
        first, second = (peers.add(f"10.0.0.5:{port}", None) for port in (1, 2))
        peers.name(second, "replica")
        peers.name(first, "replica")
        assert (first.name, second.name) == ("replica#2", "replica")
        assert peers.add("10.0.0.5:3", None).name == "10.0.0.5"
        # The same again changes nothing.
        peers.name(first, "replica")
        assert first.name == "replica#2"
        peers.remove(second)
        peers.name(second, "gone")
        assert peers.add("10.0.0.6:1", "gone").name == "gone"
        [status, *_] = peers.status(Commits(NO_TID, exact=True), NO_TID)
        assert (status.name, status.address) == ("replica#2", "10.0.0.5:1")


class TestPeers:
    def test_those_who_left_count_for_the_rates(self):
        all_of_them = Peers()
        first, second = all_of_them.add("1", None), all_of_them.add("2", "name")
        first.meter.add(10, 100)
        second.meter.add(20, 200)
        before = all_of_them.rates().ten_seconds
        assert before.transactions > 0
        assert len(all_of_them) == 2
        all_of_them.remove(first)
        all_of_them.remove(first)
        assert len(all_of_them) == 1
        commits = Commits(NO_TID, exact=True)
        assert [each.address for each in all_of_them.status(commits, NO_TID)] == ["2"]
        after = all_of_them.rates().ten_seconds
        assert after.bytes / after.transactions == pytest.approx(10)

    def test_refusals_and_errors(self):
        all_of_them = Peers()
        assert (all_of_them.refusals, all_of_them.last_error) == (0, None)
        all_of_them.refused("no", "peer")
        all_of_them.failed("broken", "peer")
        assert (all_of_them.refusals, all_of_them.last_error.message) == (1, "broken")
        assert 0 <= time.time() - all_of_them.last_error.time < 60
