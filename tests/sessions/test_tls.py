"""TLS between a session and its driver: two ends in memory, and the time passed by hand."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import itertools
import logging
import random
import shutil
import ssl
from collections import deque
from types import SimpleNamespace

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from zrs_core.actions import Abort, Close, HalfClose, Send, Work
from zrs_core.addresses import TCPAddress
from zrs_core.sessions.times import PrimaryTimes, SecondaryTimes
from zrs_core.sessions.tls import (
    MAX_ANSWERS,
    MAX_HANDSHAKE,
    MAX_OVERHEAD,
    ClientLayer,
    ServerLayer,
)
from zrs_core.tls import TLSOptions

from ..certificates import authority

OURS, OTHERS = authority(), authority("others")
LONG_AGO = datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone.utc)
HERE = OURS.issue("localhost", "127.0.0.1")
EXPIRED = OURS.issue("localhost", file="localhost.expired.pem", not_after=LONG_AGO)
FOREIGN = OTHERS.issue("localhost", "127.0.0.1")
ELSEWHERE = OURS.issue("db.example")
OPTIONS = TLSOptions(certificate=HERE, ca=OURS.ca)

RESET = "[Errno 104] Connection reset by peer"
HANDSHAKE_TIMEOUT = 7.0


class Limited(TLSOptions):
    """Options for one version of TLS."""

    version = ssl.TLSVersion.TLSv1_2

    def server_context(self):
        context = super().server_context()
        context.minimum_version = context.maximum_version = self.version
        return context

    def client_context(self):
        context = super().client_context()
        context.minimum_version = context.maximum_version = self.version
        return context


@pytest.fixture(params=["TLS 1.2", "TLS 1.3"])
def version(request):
    """Makes options that speak one version of TLS."""

    def limit(options):
        if request.param == "TLS 1.3":
            return options
        return Limited(**{f.name: getattr(options, f.name) for f in dataclasses.fields(options)})

    limit.name = request.param
    return limit


class Session:
    """A session that notes its inputs and returns the actions that a test adds."""

    def __init__(self, made_at, **made_with):
        self.made_at, self.made_with = made_at, made_with
        self.wants_data, self.over = True, False
        self.actions = deque()
        self.received, self.calls = b"", []
        self.accepted, self.deadline = [], None
        # True if the session is not over when the connection is lost.
        self.busy = False

    def receive_data(self, data, now):
        assert self.wants_data
        assert data
        self.received += data
        self.calls.append("data")

    def receive_eof(self, now):
        assert self.wants_data
        self.calls.append("eof")

    def sent(self, count, now):
        self.accepted.append(count)

    def wake(self, now):
        self.calls.append(("wake", now))

    def done(self, result, now):
        self.wants_data = True
        self.calls.append(("done", result))

    def failed(self, error, now):
        self.wants_data = True
        self.calls.append(("failed", str(error)))

    def handle_timeout(self, now):
        self.calls.append(("timeout", now))

    def stop(self, now, timeout):
        self.calls.append(("stop", timeout))

    def lost(self, reason, now):
        self.calls.append(("lost", reason))
        self.over = not self.busy

    def refused(self, reason, now):
        self.calls.append(("refused", reason))
        self.actions.append(Abort(reason))

    def next_action(self):
        return self.actions.popleft() if self.actions else None

    def next_deadline(self):
        return self.deadline


class End:
    """A layer, and the driver of it, which sends to the other end when `carry` is called."""

    def __init__(self, now=0.0):
        self.now = now
        self.reports = []
        self.sessions = []
        self.out = bytearray()
        self.sends = 0
        self.half_closed = False
        self.ended = None
        self.lost = None
        self.work = deque()
        # False to leave work to the test.
        self.works = True

    def _make(self, now, **made_with):
        self.sessions.append(Session(now, **made_with))
        return self.sessions[-1]

    @property
    def session(self):
        (session,) = self.sessions
        return session

    @property
    def report(self):
        (report,) = self.reports
        return report

    def act(self):
        layer = self.layer
        while (action := layer.next_action()) is not None:
            match action:
                case Send(chunks=chunks):
                    assert self.ended is None
                    assert not self.half_closed
                    self.sends += 1
                    for chunk in chunks:
                        self.out += chunk
                case Work(call=call):
                    self.work.append(call)
                    if self.works:
                        self.do_work()
                case HalfClose():
                    assert not self.out
                    self.half_closed = True
                case Close(reason=reason):
                    assert not self.out
                    self.ended = "closed"
                    self.lose(reason)
                case Abort(reason=reason):
                    self.ended = "aborted"
                    self.out.clear()
                    self.lose(reason)

    def do_work(self):
        try:
            result = self.work.popleft()()
        except Exception as error:
            self.layer.failed(error, self.now)
        else:
            self.layer.done(result, self.now)
        self.act()

    def lose(self, reason):
        self.lost = reason
        self.layer.lost(reason, self.now)
        self.act()

    def do(self, *actions):
        """The session asks for these."""
        self.session.actions.extend(actions)
        self.layer.wake(self.now)
        self.act()

    def receive(self, data):
        self.layer.receive_data(data, self.now)
        self.act()

    def receive_eof(self):
        self.layer.receive_eof(self.now)
        self.act()

    def take(self, count=None):
        """Have the network accept `count` bytes, or all, and return them."""
        data = bytes(self.out[:count])
        del self.out[:count]
        if data:
            self.layer.sent(len(data), self.now)
            self.act()
        return data

    def pass_time(self, now):
        self.now = now
        self.layer.handle_timeout(now)
        self.act()


class Server(End):
    def __init__(self, options=OPTIONS, now=0.0, **attributes):
        super().__init__(now)
        for name, value in attributes.items():
            setattr(self, name, value)
        service = SimpleNamespace(
            tls=options,
            handshake_timeout=HANDSHAKE_TIMEOUT,
            times=PrimaryTimes(),
            refused=lambda peer, reason, now: self.reports.append(reason),
        )
        self.layer = ServerLayer(service, "peer", now, self._make)
        self.act()


class Client(End):
    def __init__(self, options=OPTIONS, now=0.0, host="localhost", **attributes):
        super().__init__(now)
        for name, value in attributes.items():
            setattr(self, name, value)
        client = SimpleNamespace(
            tls=options,
            address=TCPAddress(host, 8000),
            times=SecondaryTimes(),
            connection_failed=self.reports.append,
        )
        self.layer = ClientLayer(client, now, self._make)
        self.act()


def carry(one, other, size=None):
    """Deliver what one end has sent, if the other reads. Return True if anything was delivered."""
    if other.lost is not None:
        one.out.clear()
        if one.lost is None and other.ended == "aborted":
            one.lose(RESET)
        return False
    if not other.layer.wants_data:
        return False
    if one.out:
        other.receive(one.take(size))
        return True
    if (one.half_closed or one.ended == "closed") and not getattr(other, "has_eof", False):
        other.has_eof = True
        other.receive_eof()
        return True
    return False


def carry_all(one, other, size=None):
    while carry(one, other, size) | carry(other, one, size):
        pass


@pytest.fixture
def joined(version):
    server, client = Server(version(OPTIONS)), Client(version(OPTIONS))
    carry_all(server, client)
    return server, client


def handshake(options=OPTIONS):
    """Two ends after the handshake."""
    server, client = Server(options), Client(options)
    carry_all(server, client)
    return server, client


# -- the handshake


@pytest.mark.parametrize("size", [1, 7, 500, None])
def test_data_go_both_ways_in_pieces_of_any_size(version, size):
    server, client = Server(version(OPTIONS)), Client(version(OPTIONS))
    carry_all(server, client, size)
    client.do(Send([b"hello ", b"", b"primary"]))
    server.do(Send([b"hello ", b"secondary"]))
    carry_all(server, client, size)
    assert server.session.received == b"hello primary"
    assert client.session.received == b"hello secondary"
    assert (client.session.accepted, server.session.accepted) == ([13], [15])
    assert server.reports == client.reports == []


def test_the_version_is_what_it_should_be(joined, version):
    for end in joined:
        assert end.layer._tls.version() == version.name.replace(" ", "v")


def test_a_session_is_made_with_the_name_in_the_certificate_and_the_time_left():
    server, client = Server(now=100.0), Client(now=100.0)
    server.now = client.now = 103.0
    carry_all(server, client)
    assert server.session.made_at == 103.0
    assert server.session.made_with == {
        "certificate": "localhost",
        "handshake": 100.0 + HANDSHAKE_TIMEOUT,
    }
    assert (client.session.made_at, client.session.made_with) == (103.0, {})


def test_a_peer_without_a_certificate_has_no_name():
    server, client = Server(TLSOptions(certificate=HERE)), Client(TLSOptions(ca=OURS.ca))
    carry_all(server, client)
    assert server.session.made_with["certificate"] is None


def test_what_comes_with_the_end_of_the_handshake_reaches_the_session():
    server, client = Server(), Client()
    server.receive(client.take())
    client.receive(server.take())
    # The end of the handshake, and data.
    end = client.take()
    client.do(Send([b"greeting"]))
    server.receive(end + client.take())
    assert server.session.received == b"greeting"


def test_the_names_that_are_listed_count_and_not_the_host(version):
    options = version(TLSOptions(certificate=ELSEWHERE, ca=OURS.ca, peer_names=("DB.example",)))
    server, client = Server(options), Client(options)
    carry_all(server, client)
    assert server.session.made_with["certificate"] == "db.example"
    assert client.session


def test_files_are_read_for_each_connection_as_work(tmp_path):
    path = tmp_path / "certificate.pem"
    shutil.copy(HERE, path)
    options = TLSOptions(certificate=str(path), ca=OURS.ca)
    path.write_bytes(b"garbage")
    for end in (Server(options, works=False), Client(options, works=False)):
        # Nothing is read from the peer before.
        assert not end.layer.wants_data
        end.do_work()
        assert end.report.startswith(f"TLS: certificate {path} and key {path} cannot be used")
        assert end.half_closed
    shutil.copy(HERE, path)
    server, client = Server(options), Client(options)
    carry_all(server, client)
    assert server.session
    assert client.session


def test_data_and_the_end_of_them_wait_until_the_files_are_read():
    server, client = Server(works=False), Client()
    server.receive(client.take())
    server.receive_eof()
    server.do_work()
    assert "the peer closed the connection in the handshake" in server.report
    assert server.out
    server.take()
    assert server.ended == "closed"


@pytest.mark.parametrize("leave", ["stop", "lost"])
@pytest.mark.parametrize("works", [True, False])
def test_it_may_end_while_the_files_are_read(leave, works, tmp_path):
    path = tmp_path / "certificate.pem"
    shutil.copy(HERE, path)
    options = TLSOptions(certificate=str(path), ca=OURS.ca)
    end = Client(options, works=False)
    if not works:
        path.unlink()
    if leave == "stop":
        end.layer.stop(0.0, 0.0)
        end.act()
    else:
        end.lose(RESET)
    assert not end.layer.over
    end.do_work()
    assert end.layer.over
    assert len(end.reports) == (leave == "lost")
    assert not end.out


def test_an_unexpected_error_is_logged_and_reported(caplog):
    end = Client(works=False)
    end.work.clear()
    end.layer.failed(RuntimeError("unheard of"), 0.0)
    end.act()
    assert end.report == "TLS: RuntimeError('unheard of')"
    assert "unheard of" in caplog.text
    assert end.ended == "aborted"
    assert end.layer.over


def test_options_are_needed():
    with pytest.raises(ValueError, match="no TLS options"):
        Server(None)
    with pytest.raises(ValueError, match="no TLS options"):
        Client(None)


# -- refusals

CLOSED = "TLS: the peer closed the connection in the handshake"

#: The options of the server and of the client, the report of each, and True if the server refuses.
REFUSALS = {
    "secondary of another authority": (
        OPTIONS,
        TLSOptions(certificate=FOREIGN, ca=OURS.ca),
        "TLS: the peer's certificate is signed by an authority that is not trusted",
        "TLS: the peer does not know the authority",
        True,
    ),
    "primary of another authority": (
        TLSOptions(certificate=FOREIGN, ca=OURS.ca),
        OPTIONS,
        "TLS: the peer does not know the authority",
        "TLS: the peer's certificate is signed by an authority that is not trusted",
        False,
    ),
    "expired secondary": (
        OPTIONS,
        TLSOptions(certificate=EXPIRED, ca=OURS.ca),
        "TLS: the peer's certificate has expired",
        "TLS: the peer says that this end's certificate has expired",
        True,
    ),
    "expired primary": (
        TLSOptions(certificate=EXPIRED, ca=OURS.ca),
        OPTIONS,
        "TLS: the peer says that this end's certificate has expired",
        "TLS: the peer's certificate has expired",
        False,
    ),
    "secondary without a certificate": (
        OPTIONS,
        TLSOptions(ca=OURS.ca),
        "TLS: the peer has no certificate",
        "TLS: ",
        True,
    ),
    "primary with another name": (
        TLSOptions(certificate=ELSEWHERE, ca=OURS.ca),
        OPTIONS,
        "TLS: the peer does not accept this end's certificate",
        "TLS: the peer's certificate is not for the host that was connected to",
        False,
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_both_ends_report_who_is_refused_and_why(case, version):
    server_options, client_options, server_says, client_says, by_server = REFUSALS[case]
    server, client = Server(version(server_options)), Client(version(client_options))
    carry_all(server, client)
    assert server.report.startswith(server_says)
    if by_server and version.name == "TLS 1.3":
        # The handshake is over here before the peer has looked at the certificate.
        ((_, reason),) = [each for each in client.session.calls if each[0] == "refused"]
        assert reason.startswith(client_says)
        assert client.reports == []
        assert client.ended == "aborted"
    else:
        assert client.report.startswith(client_says)
        assert client.sessions == []
        assert client.ended == "closed"
    assert server.sessions == []
    assert server.layer.over
    assert client.layer.over


def test_a_secondary_that_is_not_listed_is_refused(version):
    listed = TLSOptions(certificate=HERE, ca=OURS.ca, peer_names=("db.example",))
    server, client = Server(version(listed)), Client(version(OPTIONS))
    carry_all(server, client)
    says = "TLS: its certificate is for 127.0.0.1, localhost, which is not listed"
    assert (server.report, server.sessions) == (says, [])
    # TLS has no alert for a name.
    assert (client.reports, client.session.calls) == ([], ["eof"])


def test_a_primary_that_is_not_listed_is_left(version):
    listed = TLSOptions(certificate=HERE, ca=OURS.ca, peer_names=("db.example",))
    server, client = Server(version(OPTIONS)), Client(version(listed))
    carry_all(server, client)
    says = "TLS: its certificate is for 127.0.0.1, localhost, which is not listed"
    assert (client.report, client.sessions) == (says, [])
    assert server.session.calls == ["eof"]


def test_an_old_version_is_refused():
    options = Limited(certificate=HERE, ca=OURS.ca)
    newest = type("Newest", (Limited,), {"version": ssl.TLSVersion.TLSv1_3})
    server, client = Server(newest(certificate=HERE, ca=OURS.ca)), Client(options)
    carry_all(server, client)
    assert "TLS: the peer speaks no version of TLS that is accepted here" in server.report
    assert "TLS: the peer accepts no version of TLS that is spoken here" in client.report


def test_a_peer_that_speaks_plain_text_is_refused():
    server = Server()
    server.receive(b"\0\0\0\6zrs2.0" + b"\0\0\0\10" + bytes(8))
    assert "TLS: the peer does not speak TLS" in server.report
    client = Client()
    client.take()
    client.receive(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    assert "TLS: the peer does not speak TLS" in client.report


@pytest.mark.parametrize("make", [Server, Client])
@pytest.mark.parametrize("how", ["eof", "reset"])
def test_a_peer_that_leaves_in_the_handshake_is_reported(make, how):
    end = make()
    end.take()
    if how == "eof":
        end.receive_eof()
        end.take()
        assert end.ended == "closed"
    else:
        end.lose(RESET)
        assert RESET in end.report
    assert CLOSED in end.report
    assert end.layer.over


# A ServerHello, to which a server answers with an alert.
NO_HELLO = b"\x16\3\1\0\4\2\0\0\0"


def test_a_refused_peer_may_read_the_alert_until_it_closes():
    server = Server()
    server.receive(NO_HELLO)
    assert server.layer.wants_data
    assert not server.half_closed
    server.take()
    assert server.half_closed
    assert server.ended is None
    server.receive(b"more of it" * 100)
    server.receive_eof()
    assert server.ended == "closed"
    assert server.layer.over
    assert len(server.reports) == 1


@pytest.mark.parametrize("reads", [True, False])
def test_a_refused_peer_is_waited_for_not_for_long(reads):
    server = Server()
    server.now = 5.0
    server.receive(NO_HELLO)
    if reads:
        server.take()
    server.now = 6.0
    server.receive(NO_HELLO)
    due = server.layer.next_deadline()
    assert due == 5.0 + PrimaryTimes().linger
    server.pass_time(due)
    assert server.ended == ("closed" if reads else "aborted")
    assert server.layer.over
    assert server.layer.next_deadline() is None


@pytest.mark.parametrize(
    ("make", "seconds"), [(Server, HANDSHAKE_TIMEOUT), (Client, SecondaryTimes().connect)]
)
def test_a_handshake_that_takes_too_long_is_given_up(make, seconds):
    end = make(now=50.0)
    assert end.layer.next_deadline() == 50.0 + seconds
    end.pass_time(50.0 + seconds - 0.1)
    assert end.ended is None
    end.pass_time(50.0 + seconds)
    assert end.report == "TLS: the handshake took too long"
    assert end.ended == "aborted"
    assert end.layer.over


def test_the_time_for_the_handshake_ends_with_it(joined):
    for end in joined:
        assert end.layer.next_deadline() is None


@pytest.mark.parametrize("make", [Server, Client])
@pytest.mark.parametrize("unsent", [True, False])
def test_stopping_in_the_handshake_reports_nothing(make, unsent):
    end = make()
    if not unsent:
        end.take()
    aborts = bool(end.out)
    end.layer.stop(0.0, 10.0)
    end.act()
    assert end.ended == ("aborted" if aborts else "closed")
    assert end.reports == []
    assert end.layer.over


# -- from the peer to the session


def test_what_comes_while_the_session_wants_nothing_is_kept(joined):
    server, client = joined
    client.works = False
    client.session.wants_data = False
    client.do(Work(lambda: None))
    assert not client.layer.wants_data
    server.do(Send([b"some"]))
    client.receive(server.take())
    server.do(Send([b" more"]))
    client.receive(server.take())
    assert client.session.received == b""
    client.do_work()
    assert client.session.received == b"some more"
    assert client.session.calls.count("data") == 1
    assert client.layer.wants_data


@pytest.mark.parametrize("kind", ["close_notify", "ragged", "mid-record"])
def test_the_end_comes_after_the_data_and_once(kind, joined):
    server, client = joined
    client.session.wants_data = False
    server.do(Send([b"data"]))
    client.receive(server.take())
    if kind == "close_notify":
        server.do(HalfClose())
        client.receive(server.take())
    elif kind == "mid-record":
        server.do(Send([b"lost"]))
        client.receive(server.take()[:-1])
    client.receive_eof()
    assert "eof" not in client.session.calls
    client.session.wants_data = True
    client.pass_time(1.0)
    client.receive_eof()
    client.receive(b"after the end")
    assert client.session.received == b"data"
    assert [each for each in client.session.calls if isinstance(each, str)] == ["data", "eof"]
    assert not client.layer.wants_data
    assert client.ended is None


def test_what_is_no_tls_ends_the_session(joined):
    server, client = joined
    server.receive(b"garbage" * 10)
    assert server.ended == "aborted"
    assert server.lost.startswith("TLS: ")
    assert server.session.calls == [("lost", server.lost)]
    client.receive(b"garbage" * 10)
    ((kind, _), _) = client.session.calls
    assert kind == "refused"
    assert client.ended == "aborted"


def test_data_before_a_failure_reach_the_session(joined):
    server, client = joined
    server.do(Send([b"data"]))
    client.receive(server.take() + b"garbage" * 10)
    assert client.session.received == b"data"
    assert client.session.calls[1][0] == "refused"


# -- from the session to the peer


def test_much_is_sent_in_parts_of_which_each_byte_is_reported_once(joined):
    server, client = joined
    chunks = [random.Random(1).randbytes(size) for size in (1, 3_000_000, 0, 17_000, 5, 5)]
    chunks += [b"small"] * 10_000
    server.do(Send(chunks))
    largest, sizes = 0, random.Random(2)
    while server.out:
        largest = max(largest, len(server.out))
        client.receive(server.take(sizes.randrange(1, 40_000)))
        # Progress is visible record by record.
        assert all(each <= 3 * 16 * 1024 for each in server.session.accepted)
    assert client.session.received == b"".join(chunks)
    assert sum(server.session.accepted) == len(client.session.received)
    assert len(server.session.accepted) > 100
    assert largest < 300_000


def test_a_record_counts_when_all_of_it_is_accepted(joined):
    server, _ = joined
    server.do(Send([bytes(20_000)]))
    size = len(server.out)
    server.take(16 * 1024)
    assert server.session.accepted == []
    server.take(size - 1 - 16 * 1024)
    assert server.session.accepted == [16 * 1024]
    server.take(1)
    assert server.session.accepted == [16 * 1024, 20_000 - 16 * 1024]


def test_nothing_is_sent_for_nothing(joined):
    server, _ = joined
    server.do(Send([]), Send([b""]))
    assert server.out == b""


class SmallRecords:
    """TLS whose peer has asked for small records."""

    def __init__(self, tls):
        self._tls = tls

    def write(self, data):
        return self._tls.write(data[:512])


def test_a_peer_may_ask_for_small_records(joined):
    server, client = joined
    server.layer._tls = SmallRecords(server.layer._tls)
    data = random.Random(3).randbytes(20_000)
    server.do(Send([data]))
    client.receive(server.take())
    assert client.session.received == data
    assert sum(server.session.accepted) == len(data)


def test_a_session_may_send_nothing_more_and_go_on_to_receive(joined):
    server, client = joined
    server.do(Send([b"all"]))
    client.receive(server.take())
    server.do(HalfClose())
    notify = server.take()
    assert notify
    assert server.half_closed
    client.do(Send([b"still here"]))
    server.receive(client.take())
    assert server.session.received == b"still here"
    client.receive(notify)
    assert client.session.calls[-1] == "eof"
    client.do(Close("closed by the other end"))
    server.receive(client.take())
    assert client.ended == "closed"
    assert server.session.calls[-1] == "eof"
    server.do(Close("closed by the other end"))
    assert server.ended == "closed"
    assert server.session.calls[-1] == ("lost", "closed by the other end")


def test_a_close_says_goodbye_first(joined):
    server, client = joined
    server.do(Close("why"))
    assert server.ended is None
    assert not server.layer.wants_data
    server.layer.receive_data(b"ignored", 0.0)
    client.receive(server.take())
    assert (server.ended, server.lost) == ("closed", "why")
    assert client.session.calls[-1] == "eof"
    assert server.layer.over


def test_a_close_that_the_peer_does_not_take_is_cut_short(joined):
    server, _ = joined
    server.now = 10.0
    server.do(Close("why"))
    due = server.layer.next_deadline()
    assert due == 10.0 + PrimaryTimes().close
    server.pass_time(due)
    assert (server.ended, server.lost) == ("aborted", "why")


def test_an_abort_drops_what_is_not_sent(joined):
    server, _ = joined
    server.do(Send([b"x"]), Abort("why"))
    assert (server.ended, server.lost, server.out) == ("aborted", "why", b"")
    assert server.session.accepted == []
    assert server.layer.over


def test_a_session_that_sends_after_tls_has_failed_is_ended():
    _, client = handshake()
    session = client.session
    session.refused = lambda reason, now: None
    client.receive(b"garbage" * 10)
    assert client.ended is None
    client.take()
    client.do(Send([b"x"]))
    assert client.ended == "aborted"
    assert session.calls[-1][0] == "lost"


# -- the rest


def test_inputs_are_passed_on(joined):
    server, _ = joined
    session = server.session
    server.works = False
    server.layer.wake(1.0)
    server.layer.stop(2.0, 10.0)
    server.do(Work(lambda: 1 / 0))
    server.do_work()
    server.do(Work(lambda: 5))
    server.do_work()
    server.pass_time(3.0)
    assert session.calls == [
        ("wake", 1.0),
        ("stop", 10.0),
        ("wake", 0.0),
        ("failed", "division by zero"),
        ("wake", 0.0),
        ("done", 5),
        ("timeout", 3.0),
    ]


def test_the_earliest_deadline_counts(joined):
    server, _ = joined
    server.session.deadline = 40.0
    assert server.layer.next_deadline() == 40.0
    server.do(Close("why"))
    assert server.layer.next_deadline() == PrimaryTimes().close
    server.session.deadline = 4.0
    assert server.layer.next_deadline() == 4.0


@pytest.mark.parametrize("asked", ["before", "after"])
def test_work_is_finished_when_the_connection_is_lost(asked, joined):
    server, _ = joined
    server.works = False
    session = server.session
    session.busy = True
    session.actions.append(Work(lambda: "done"))
    if asked == "before":
        server.layer.wake(0.0)
    server.layer.lost("gone", 0.0)
    server.act()
    assert not server.layer.over
    session.over = True
    server.do_work()
    assert session.calls[-2:] == [("lost", "gone"), ("done", "done")]
    assert server.layer.over


def test_nothing_is_passed_on_before_the_handshake_is_over():
    server = Server()
    server.layer.wake(0.0)
    server.pass_time(1.0)
    assert server.layer.next_action() is None
    assert server.sessions == []


# -- peers that mean harm


class Attacker:
    """A peer that has shaken hands with TLS 1.3, and makes records by itself."""

    def __init__(self, tmp_path):
        self.server = Server()
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = OPTIONS.client_context()
        context.keylog_filename = str(tmp_path / "keys")
        tls = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
        for _ in range(3):
            with contextlib.suppress(ssl.SSLWantReadError):
                tls.do_handshake()
            self.server.receive(outgoing.read())
            incoming.write(self.server.take())
        assert tls.cipher()[0] == "TLS_AES_256_GCM_SHA384"
        lines = (tmp_path / "keys").read_text().splitlines()
        (secret,) = (
            line.split()[2] for line in lines if line.startswith("CLIENT_TRAFFIC_SECRET_0")
        )
        self._use(bytes.fromhex(secret))

    def _use(self, secret):
        self._secret, self._number = secret, 0
        self._key = AESGCM(self._expand("key", 32))
        self._iv = self._expand("iv", 12)

    def _expand(self, label, size):
        label = b"tls13 " + label.encode()
        info = size.to_bytes(2, "big") + bytes([len(label)]) + label + b"\0"
        return HKDFExpand(hashes.SHA384(), size, info).derive(self._secret)

    def record(self, kind, data):
        header = b"\x17\3\3" + (len(data) + 17).to_bytes(2, "big")
        nonce = int.from_bytes(self._iv, "big") ^ self._number
        self._number += 1
        return header + self._key.encrypt(nonce.to_bytes(12, "big"), data + bytes([kind]), header)

    def data(self, data):
        return self.record(23, data)

    def key_update(self):
        record = self.record(22, b"\x18\0\0\1\1")
        self._use(self._expand("traffic upd", 48))
        return record


def test_an_attackers_records_are_valid(tmp_path):
    attacker = Attacker(tmp_path)
    server = attacker.server
    server.receive(attacker.data(b"one ") + attacker.key_update() + attacker.data(b"two"))
    assert server.session.received == b"one two"
    # It wants new keys of the server, too, which come at the latest with data.
    server.do(Send([b"x"]))
    server.take()
    assert server.session.accepted == [1]


@pytest.mark.parametrize("kind", ["data", "key_update"])
def test_records_without_data_are_not_taken_without_end(kind, tmp_path):
    attacker = Attacker(tmp_path)
    server = attacker.server
    for sent in itertools.count():
        record = attacker.data(b"") if kind == "data" else attacker.key_update()
        server.receive(record)
        server.take()
        if server.ended:
            break
        assert sent * len(record) <= MAX_OVERHEAD
    assert server.lost.startswith("TLS: ")
    assert server.session.calls == [("lost", server.lost)]


def test_records_without_data_count_from_the_last_data(tmp_path):
    attacker = Attacker(tmp_path)
    server = attacker.server
    taken = 0
    while taken <= 2 * MAX_OVERHEAD:
        burst = b"".join(attacker.key_update() for _ in range(20)) + attacker.data(b"x")
        server.receive(burst)
        server.take()
        taken += len(burst)
    assert server.ended is None


def test_a_peer_that_does_not_take_the_answers_is_not_read_from(tmp_path):
    attacker = Attacker(tmp_path)
    server = attacker.server
    answers = 0
    while server.layer.wants_data:
        server.receive(attacker.key_update() + attacker.data(b"x"))
        answers += 1
        assert len(server.out) <= MAX_ANSWERS + 100
    assert answers > 1000
    server.take(len(server.out) // 2)
    assert server.layer.wants_data
    server.take()
    server.do(Send([b"x"]))
    server.take()
    assert server.session.accepted == [1]


def test_answers_are_not_counted_when_nothing_can_be_sent(tmp_path):
    attacker = Attacker(tmp_path)
    server = attacker.server
    server.do(HalfClose())
    server.take()
    for _ in range(MAX_ANSWERS // 20):
        server.receive(attacker.key_update() + attacker.data(b"x"))
    assert server.out == b""
    assert server.layer.wants_data


def client_hello(size):
    """A record that begins a handshake message of `size` bytes."""
    body = b"\1" + size.to_bytes(3, "big")
    return b"\x16\3\1" + len(body).to_bytes(2, "big") + body


@pytest.mark.parametrize("hello", [client_hello(0xFFFFFF), client_hello(100_000)])
def test_a_handshake_has_a_largest_size(hello):
    server = Server()
    server.receive(hello)
    piece = b"\x16\3\1\x40\0" + bytes(16 * 1024)
    for _ in range(MAX_HANDSHAKE // len(piece) + 1):
        server.receive(piece)
    assert server.report.startswith("TLS: ")


def test_a_handshake_in_tiny_pieces_has_a_largest_size():
    server = Server()
    server.receive(client_hello(100_000))
    piece = (b"\x16\3\1\0\1" + b"\0") * 1000
    while not server.reports:
        server.receive(piece)
    assert server.report == f"TLS: the handshake takes more than {MAX_HANDSHAKE:,} bytes"


def _mutated(chosen, data):
    """Some bytes other, missing, or twice."""
    changed = bytearray(data)
    for _ in range(chosen.randrange(1, 4)):
        at = chosen.randrange(len(changed) + 1)
        match chosen.randrange(4):
            case 0:
                changed[at : at + 1] = chosen.randbytes(1)
            case 1:
                del changed[at : at + chosen.randrange(1, 20)]
            case 2:
                changed[at:at] = changed[at : at + chosen.randrange(1, 300)]
            case 3:
                changed[at:at] = chosen.randbytes(chosen.randrange(1, 40))
    return bytes(changed)


@pytest.mark.parametrize("seed", range(4))
def test_nothing_but_refusals_comes_of_damaged_bytes(seed, version, caplog):
    chosen = random.Random(f"{seed} {version.name}")
    caplog.set_level(logging.DEBUG, "zrs_core.transport")
    failed = 0
    for _ in range(12):
        ends = Server(version(OPTIONS)), Client(version(OPTIONS))
        damaged = chosen.randrange(8)
        for turn in range(12):
            one, other = ends[turn % 2], ends[1 - turn % 2]
            data = other.take()
            if turn == damaged and data:
                data = _mutated(chosen, data)
            if one.lost is None:
                one.receive(data)
            if turn == 6:
                for each in ends:
                    if each.sessions and each.lost is None:
                        each.do(Send([bytes(100)]))
        for each in ends:
            if each.lost is None:
                each.receive_eof()
                each.pass_time(100.0)
            failed += bool(each.reports) or each.lost is not None
    assert failed
    assert not [each for each in caplog.records if each.levelno >= logging.ERROR]
