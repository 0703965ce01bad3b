"""What both network transports must show beyond what every transport must."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import re
import select
import socket
import ssl
import stat
import struct
import sys
import threading
import time

import pytest
from zope.interface import implementer

from zrs_core.actions import Abort
from zrs_core.addresses import TCPAddress, UnixAddress
from zrs_core.errors import ListenError
from zrs_core.interfaces import ITransactionReader, ITransactionSource
from zrs_core.messages import Commit, Store, Transaction
from zrs_core.testing import WHOLE, Sink, Source, greeting, stream
from zrs_core.testing.conformance import (
    Copy,
    Flood,
    Stillness,
    TLSConformance,
    TransportConformance,
    open_files,
)
from zrs_core.testing.environments import DEADLINE, SocketEnd, SocketEnvironment
from zrs_core.transports import lookups

GREETING, STREAM = greeting(), stream(WHOLE)

# The module socket has no name for it.
_SO_ATTACH_FILTER = 26


def tcp_sockets():
    """The connected TCP sockets of this process, one after the other."""
    for name in os.listdir("/proc/self/fd"):
        try:
            is_socket = stat.S_ISSOCK(os.stat(int(name)).st_mode)
        except OSError:
            continue
        if is_socket:
            with socket.socket(fileno=os.dup(int(name))) as copy:
                if copy.family in (socket.AF_INET, socket.AF_INET6) and is_connected(copy):
                    yield copy


def black_hole(connection):
    """From now on the system takes no packet for it, and answers none."""
    # A program for the packet filter of the kernel, of one instruction: keep 0 bytes of each.
    instruction = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))
    program = struct.pack("HL", 1, ctypes.addressof(instruction))
    connection.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)


def is_connected(copy):
    try:
        copy.getpeername()
    except OSError:
        return False
    return True


def settings_of(copy):
    names = ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT", "TCP_USER_TIMEOUT", "TCP_NODELAY")
    found = {n: copy.getsockopt(socket.IPPROTO_TCP, getattr(socket, n)) for n in names}
    found["SO_KEEPALIVE"] = copy.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    return found


def looking_up():
    return [each for each in threading.enumerate() if each.name == "zrs_core look-up"]


class OverTCP(TransportConformance):
    cycles = 100
    # Twisted keeps the function.
    clocks = ("time.time", "twisted.internet.base.ReactorBase.seconds")

    def test_ipv6_is_served_too(self, env, listen):
        peer = env.dial(listen(Source(WHOLE), TCPAddress("::1", 0)).address)
        peer.send(GREETING)
        assert peer.receive(len(STREAM)) == STREAM

    def test_an_address_of_another_machine_is_an_error(self, env, listen):
        with pytest.raises(ListenError, match=r"cannot listen on 192\.0\.2\.1:1: "):
            listen(Source(), TCPAddress("192.0.2.1", 1))

    def test_a_vanished_peer_is_noticed_in_time_at_both_ends(self, env, listen, connect):
        source = Source()
        listener = listen(source, peer_timeout=24)
        connect(Sink(), listener.address, peer_timeout=24)
        env.wait_for(lambda: source.waiting, "a session")
        ends = [settings_of(each) for each in tcp_sockets()]
        listener.stop(0)
        wanted = {
            "TCP_KEEPIDLE": 12,
            "TCP_KEEPINTVL": 3,
            "TCP_KEEPCNT": 4,
            "TCP_USER_TIMEOUT": 24_000,
        }
        assert len(ends) == 2
        for end in ends:
            assert wanted.items() <= end.items()
            assert end["SO_KEEPALIVE"]
            assert end["TCP_NODELAY"]

    @pytest.mark.skipif(sys.platform != "linux", reason="of Linux alone the times are known")
    @pytest.mark.parametrize("how", ["idle", "sending"])
    def test_a_secondary_that_vanishes_is_noticed(self, how, env, listen, caplog):
        source = Flood(limit=4096) if how == "sending" else Source()
        listener = listen(source, peer_timeout=2)
        peer = env.dial(listener.address)
        if how == "sending":
            black_hole(peer.socket)
            peer.send(GREETING)
        else:
            peer.send(GREETING)
            env.wait_for(lambda: source.waiting, "the session to wait")
            black_hole(peer.socket)
        env.wait_for(lambda: source.closed, "the peer to be missed")
        env.wait_for(lambda: "Disconnected (" in caplog.text, "the log")

    @pytest.mark.skipif(sys.platform != "linux", reason="of Linux alone the times are known")
    def test_a_primary_that_vanishes_is_noticed(self, env, connect, server, caplog):
        started = connect(Sink(), server.address, peer_timeout=2)
        peer = server.accept()
        assert peer.receive(len(GREETING)) == GREETING
        black_hole(peer.socket)
        assert server.accept().receive(len(GREETING)) == GREETING
        assert "Disconnected (" in caplog.text
        assert started.client.progress.connections == 2

    def test_idle_connections_are_no_threads_for_ever(self, env, listen):
        """Nor are those that come while there are too many."""
        source = Source()
        threads = threading.active_count()
        address = listen(source, max_peers=20, handshake_timeout=60).address
        peers = []
        for _ in range(300):
            with contextlib.suppress(OSError):
                peers.append(env.dial(address))
        # The threads of a pool are counted too, and those that accept.
        assert threading.active_count() <= threads + 20 + 17

    @pytest.mark.long
    def test_a_storm_of_connections_leaves_those_that_are_served(self, env, listen, caplog):
        caplog.set_level(logging.INFO, "zrs_core")
        source, limit = Announcing(), 100
        listener = listen(source, max_peers=limit, handshake_timeout=600)
        peers = [env.dial(listener.address) for _ in range(limit)]
        for peer in peers:
            peer.send(GREETING)
        env.wait_for(lambda: len(source.waiting) == limit, "sessions")
        threads, files, lines = threading.active_count(), open_files(), len(caplog.records)
        storm = []
        for number in range(10_000):
            with contextlib.suppress(OSError):
                storm.append(env.dial(listener.address))
                if number % 2:
                    storm[-1].send(GREETING)
            if number % 1000 == 0:
                source.announce()
            if number % 100 == 0:
                for each in storm:
                    each.close()
                storm.clear()
        for each in storm:
            each.close()
        expected = stream(source.messages)
        for peer in peers:
            assert peer.receive(len(expected)) == expected
        # A pool may have grown to its bound, and one waits to tell how many were refused.
        assert threading.active_count() <= threads + 16 + 1
        assert open_files() <= files + 16
        # A few each minute, and the sum of the others.
        assert len(caplog.records) - lines < 200
        listener.stop(0)
        assert re.search(r"and [0-9],[0-9]{3} more in the last minute", caplog.text)

    def test_names_are_looked_up_again_at_each_attempt(self, env, connect, server, monkeypatch):
        gone = env.unused_address()
        answers = [gone.port, gone.port, server.address.port]
        asked = []

        def look_up(host, port, *args, **kwargs):
            asked.append((host, port))
            where = ("127.0.0.1", answers[min(len(asked), len(answers)) - 1])
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", where)]

        monkeypatch.setattr(socket, "getaddrinfo", look_up)
        connect(Sink(), TCPAddress("primary.example", 8100))
        assert server.accept().receive(22) == GREETING
        assert asked == [("primary.example", 8100)] * 3

    def test_a_name_that_cannot_be_looked_up_is_tried_again(
        self, env, connect, server, monkeypatch, caplog
    ):
        real, asked = socket.getaddrinfo, []

        def look_up(host, port, *args, **kwargs):
            asked.append(host)
            if len(asked) < 4:
                raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
            return real(host, port, *args, **kwargs)

        monkeypatch.setattr(socket, "getaddrinfo", look_up)
        connect(Sink(), server.address)
        assert server.accept().receive(22) == GREETING
        assert "cannot connect (" in caplog.text
        assert "Name or service not known" in caplog.text

    def test_whatever_a_look_up_raises_it_is_a_failed_attempt(
        self, env, connect, server, monkeypatch, caplog
    ):
        real, mistakes = socket.getaddrinfo, [LookupError("a mistake"), UnicodeError("another")]

        def look_up(host, port, *args, **kwargs):
            if mistakes:
                raise mistakes.pop()
            return real(host, port, *args, **kwargs)

        monkeypatch.setattr(socket, "getaddrinfo", look_up)
        connect(Sink(), TCPAddress("localhost", server.address.port))
        assert server.accept().receive(22) == GREETING
        env.wait_for(lambda: "connected again after 2 failed" in caplog.text, "the log")
        assert "cannot connect (UnicodeError('another')" in caplog.text

    def test_all_addresses_of_a_name_are_tried(self, env, connect, server, monkeypatch):
        gone = env.unused_address()

        def look_up(*args, **kwargs):
            return [
                (socket.AF_INET, socket.SOCK_STREAM, 6, "", (each.host, each.port))
                for each in (gone, server.address)
            ]

        monkeypatch.setattr(socket, "getaddrinfo", look_up)
        connect(Sink(), TCPAddress("primary.example", 8100))
        assert server.accept().receive(22) == GREETING

    def test_there_are_only_so_many_look_ups(self, env, connect, slow_names):
        waiting = [connect(Sink(), TCPAddress(f"{n}.example", 1)) for n in range(20)]
        env.wait_for(lambda: len(slow_names.asked) == lookups.THREADS, "the look-ups")
        for each in waiting:
            each.connector.stop()
        slow_names.gate.set()
        env.wait_for(lambda: not looking_up(), "the end of the look-ups")
        # Those that had to wait were given up.
        assert len(slow_names.asked) == lookups.THREADS

    def test_without_threads_to_look_up_it_is_a_failed_attempt(
        self, env, connect, server, monkeypatch, caplog
    ):
        start, failures = threading.Thread.start, [1, 2]

        def start_thread(thread):
            if thread.name == "zrs_core look-up" and failures:
                failures.pop()
                raise RuntimeError("can't start new thread")
            start(thread)

        monkeypatch.setattr(threading.Thread, "start", start_thread)
        connect(Sink(), TCPAddress("localhost", server.address.port))
        assert server.accept().receive(22) == GREETING
        assert "cannot connect (no thread to look it up: can't start new thread)" in caplog.text

    def test_it_can_be_stopped_while_nobody_answers(self, env, connect):
        with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
            waiting = []
            for _ in range(4):
                waiting.append(socket.socket())
                waiting[-1].setblocking(False)
                waiting[-1].connect_ex(full.getsockname())
            started = connect(Sink(), TCPAddress(*full.getsockname()))
            env.turn()
            before = time.monotonic()
            started.connector.stop()
            assert time.monotonic() - before < 20
            for each in waiting:
                each.close()

    def test_many_who_send_it_elsewhere_at_once_leave_one_connection(self, env, connect, server):
        copy = Copy()
        started = connect(copy, server.address)
        threads = [threading.Thread(target=started.connector.reconnect) for _ in range(8)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        # All have returned. What comes after something was applied comes to a connection that is
        # not to be left any more: the last one.
        ended = False
        while not ended:
            peer = server.accept()
            hello = peer.receive(22)
            ended = len(hello) == 22 and all(
                self._is_applied(env, copy, peer, data) for data in two_transactions(hello[-8:])
            )
        started.connector.stop()
        assert peer.receive(1) == b""
        assert not server.has_waiting()

    @staticmethod
    def _is_applied(env, copy, peer, data):
        """Whether a transaction was applied; otherwise the connection has ended."""
        count = len(copy.finished)
        with contextlib.suppress(OSError):
            peer.send(data)
        env.wait_for(lambda: len(copy.finished) > count or has_ended(peer), "one or the other")
        return len(copy.finished) > count

    @pytest.fixture
    def gate(self, connect):
        """Open in any case before connectors are stopped."""
        gate = threading.Event()
        yield gate
        gate.set()

    def test_what_is_there_already_becomes_visible_together(self, env, connect, server, gate):
        begun, flushed = threading.Event(), []
        copy = Copy()
        apply = copy.apply

        def waiting(message):
            begun.set()
            assert gate.wait(DEADLINE)
            apply(message)

        copy.apply = waiting
        copy.flush = lambda: flushed.append(len(copy.finished))
        connect(copy, server.address)
        peer = server.accept()
        first, second = two_transactions(peer.receive(22)[-8:])
        peer.send(first)
        env.wait_for(begun.is_set, "the first to be applied")
        peer.send(second)
        gate.set()
        env.wait_for(lambda: flushed, "them to be visible")
        assert flushed == [6]

    def test_it_reads_no_more_while_it_applies(self, connect, server, gate):
        sink = Sink()
        sink.apply = lambda message: gate.wait(DEADLINE)
        connect(sink, server.address)
        peer = server.accept()
        peer.receive(22)
        peer.socket.settimeout(0.2)
        # More than all buffers on the way could hold.
        with pytest.raises(TimeoutError):
            peer.send(STREAM + b"\0" * 50_000_000)

    def test_whatever_work_raises_it_connects_again(self, connect, server, caplog):
        connect(Sink(Transaction, SystemExit("enough")), server.address)
        peer = server.accept()
        peer.send(STREAM)
        assert server.accept().receive(len(GREETING)) == GREETING
        assert "SystemExit: enough" in caplog.text

    def test_a_connection_that_is_aborted_is_reset(self, env, listen):
        peer, script = self.begin(env, listen)
        script.do(lambda: script.send([bytes(50_000_000)]))
        env.wait_for(lambda: script.pieces, "the first piece")
        script.do(lambda: script.actions.append(Abort("enough")))
        env.wait_for(lambda: script.over, "the end")
        with pytest.raises(ConnectionResetError):
            read_to_the_end(peer.socket)

    def test_nothing_spins_while_nobody_has_anything_to_say(self, env, listen, connect):
        source = Source()
        listener = listen(source)
        connect(Sink(), listener.address)
        env.dial(listener.address)
        env.wait_for(lambda: source.waiting, "the session to wait")
        assert processor_time() < 0.1

    def test_nothing_spins_while_a_peer_does_not_read(self, env, listen):
        _, peer = flooded(env, listen)
        assert processor_time() < 0.1
        peer.close()

    def test_nothing_spins_while_a_peer_that_has_left_is_not_read_from(self, env, listen):
        peer, script = self.begin(env, listen)

        def stop_reading():
            script.wants_data = False

        script.do(stop_reading)
        env.wait_for(lambda: not script.wants_data, "the session to be woken")
        peer.cut()
        assert processor_time() < 0.1

    def test_nothing_spins_while_a_half_closed_connection_waits_for_its_peer(self, env, listen):
        source = Source()
        listener = listen(source)
        peer = env.dial(listener.address)
        peer.send(GREETING)
        env.wait_for(lambda: source.waiting, "the session to wait")
        stopped = env.beside(lambda: listener.stop(DEADLINE))
        assert peer.receive(1) == b""
        assert processor_time() < 0.1
        peer.close()
        stopped()


def read_to_the_end(connection):
    while connection.recv(1 << 20):
        pass


def flooded(env, listen):
    """A source, and a peer that reads nothing and to which no more can be sent."""
    source = Flood(limit=4096)
    peer = env.dial(listen(source).address)
    peer.send(GREETING)
    env.wait_for(lambda: source.readers, "the session to start")
    Stillness(env, lambda: source.readers[0].batches).wait_for()
    return source, peer


def two_transactions(start):
    """The bytes of each, for a secondary that has asked for all after `start`."""
    tids = [(int.from_bytes(start, "big") + number).to_bytes(8, "big") for number in (1, 2)]
    first, second = ([Transaction(tid), Store(bytes(8), tid, b"data"), Commit()] for tid in tids)
    one, both = stream(first, start), stream([*first, *second], start)
    return one, both[len(one) :]


def has_ended(peer):
    """Whether the connection of a peer that is sent nothing has ended."""
    return bool(select.select([peer.socket], [], [], 0)[0])


def processor_time():
    """How many of 0.3 seconds this process works."""
    before = time.process_time()
    time.sleep(0.3)
    return time.process_time() - before


@implementer(ITransactionSource)
class Announcing:
    """A source whose readers, all of them, get a transaction whenever one is announced."""

    blobs = True

    def __init__(self):
        self.messages = []
        self.waiting = []

    def announce(self):
        tid = (len(self.messages) + 1).to_bytes(8, "big")
        self.messages += [Transaction(tid), Store(b"\0" * 8, tid, b"record"), Commit()]
        waiting, self.waiting = self.waiting, []
        for wake in waiting:
            wake()

    def open(self, start):
        return _AnnouncedReader(self)


@implementer(ITransactionReader)
class _AnnouncedReader:
    at_end = nearby = False

    def __init__(self, source):
        self._source = source
        self._read = 0

    def read(self, budget):
        messages = self._source.messages[self._read :]
        self._read += len(messages)
        return messages

    def wait(self, wake):
        self._source.waiting.append(wake)
        if len(self._source.messages) > self._read:
            wake()

    def close(self):
        pass


class OverUnixSockets(TransportConformance):
    cycles = 100

    def environment(self):
        return SocketEnvironment(self.tls_options(), unix=True)

    def test_the_file_goes_with_the_listener(self, env, listen):
        listener = listen(Source())
        assert stat.S_ISSOCK(os.stat(listener.address.path).st_mode)
        listener.stop(0)
        assert not os.path.exists(listener.address.path)

    def test_a_file_that_somebody_has_removed_keeps_nothing_open(self, env, listen):
        before = open_files()
        listener = listen(Source())
        os.unlink(listener.address.path)
        listener.stop(0)
        assert open_files() == before

    @pytest.mark.parametrize("mode", [0o600, 0o660, 0o666])
    def test_the_file_has_the_mode_it_should(self, mode, listen):
        listener = listen(Source(), socket_mode=mode)
        assert stat.S_IMODE(os.stat(listener.address.path).st_mode) == mode

    def test_a_stale_file_is_replaced(self, env, listen):
        address = env.address()
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(address.path)
        peer = env.dial(listen(Source(WHOLE), address).address)
        peer.send(GREETING)
        assert peer.receive(len(STREAM)) == STREAM

    def test_a_live_socket_is_left_alone(self, env, listen):
        server = env.listen()
        with pytest.raises(ListenError) as caught:
            listen(Source(), server.address)
        assert str(caught.value) == (f"cannot listen on {server.address}: somebody listens there")
        env.dial(server.address)
        server.close()

    def test_a_live_socket_that_accepts_nobody_is_left_alone(self, env, listen):
        address = env.address()
        with socket.socket(socket.AF_UNIX) as full:
            full.bind(address.path)
            full.listen(0)
            with socket.socket(socket.AF_UNIX) as waiting:
                waiting.connect(address.path)
                with pytest.raises(ListenError, match="somebody listens there"):
                    listen(Source(), address)

    @pytest.mark.parametrize("kind", ["file", "directory"])
    def test_what_is_no_socket_is_left_alone(self, kind, env, listen, tmp_path):
        path = tmp_path / "data"
        path.mkdir() if kind == "directory" else path.write_text("precious")
        with pytest.raises(ListenError) as caught:
            listen(Source(), UnixAddress(str(path)))
        assert str(caught.value) == f"cannot listen on {path}: there is a file that is no socket"
        assert path.exists()

    @pytest.mark.parametrize("path", ["/nowhere/at/all.sock", "/tmp/" + "x" * 200])
    def test_a_path_that_cannot_be_is_an_error(self, path, env, listen):
        with pytest.raises(ListenError, match=f"cannot listen on {path}: "):
            listen(Source(), UnixAddress(path))

    def test_to_connect_to_a_path_that_cannot_be_is_a_failed_attempt(self, env, connect):
        progress = connect(Sink(), UnixAddress("/tmp/" + "x" * 200)).client.progress
        env.wait_for(lambda: progress.last_error, "an attempt")
        assert "must have at most" in progress.last_error

    def test_a_secondary_waits_for_the_file(self, env, connect, caplog):
        address = env.address()
        connect(Sink(), address)
        env.wait_for(lambda: "cannot connect" in caplog.text, "an attempt")
        server = env.listen(address)
        assert server.accept().receive(22) == GREETING
        server.close()


class OverTLS(TLSConformance):
    cycles = 50

    def test_a_peer_that_says_goodbye_while_much_is_sent_to_it_is_left(self, env, listen):
        source, peer = flooded(env, listen)
        # It says goodbye, and waits for no answer.
        peer.socket.setblocking(False)
        with contextlib.suppress(ssl.SSLError):
            peer.socket.unwrap()
        below = SocketEnd(socket.socket(fileno=os.dup(peer.socket.fileno())))
        below.socket.settimeout(DEADLINE)
        while below.receive(1 << 20):
            pass
        below.close()
        env.wait_for(lambda: source.closed, "the session to be closed")
        assert source.readers[0].batches < source.limit


class OverTLSAndUnixSockets(TLSConformance):
    cycles = 30

    def environment(self):
        return SocketEnvironment(self.tls_options(), unix=True)


@pytest.mark.long
class OftenOverTCP(TransportConformance):
    cycles = 1000


@pytest.mark.long
class OftenOverTLS(OverTLS):
    cycles = 500
