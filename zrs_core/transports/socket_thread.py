"""Plain sockets and threads: TCP or Unix sockets, with or without TLS, and nothing but the standard
library.

A primary has a thread that accepts and one for each connection; a secondary has one. A thread
waits for its socket and to be woken, and for nothing else; all of them are joined on close.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import math
import os
import select
import socket
import ssl
import struct
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from typing import Any

from zope.interface import implementer

from ..addresses import Address, TCPAddress, UnixAddress
from ..errors import ConfigurationError, ListenError
from ..interfaces import (
    IConnector,
    IListener,
    IPrimarySession,
    IReplicationClient,
    IReplicationService,
    ISecondarySession,
)
from ..logs import event
from ..refusals import RepeatLog
from ..tls import PeerRefused, TLSOptions, certificate_names, common_name, describe_error
from .limits import does_not_take, too_late, too_many
from .lookups import LookUp, Places, needs_look_up
from .sockets import (
    BACKLOG,
    CONNECT_TIMEOUT,
    FIRST_READ_SIZE,
    check_exposure,
    connect_argument,
    is_readable,
    look_up,
    next_read_size,
    open_tcp_listener,
    own_name,
    peer_name,
    remove_stale_socket,
    tune,
)

log = logging.getLogger("zrs_core.transport")

#: Seconds until a listener tries again to accept a connection when it could not.
_ACCEPT_PAUSE = 0.1

#: Seconds after which a failure to accept or serve a connection is news again.
_FAILURE_MEMORY = 60.0

#: Seconds for which a peer that was refused may read why.
_LINGER = 2.0

#: Bytes that a primary reads at once: what a secondary says is short.
_PRIMARY_READ_SIZE = 4096

#: Chunks that one system call sends at most (IOV_MAX is 1024 on Linux).
_CHUNKS = 512

#: Bytes that TLS is given to send at once, those of a record: it tells of progress when it has sent
#: all of them, and a slow peer is to be seen to take something.
_TLS_SIZE = 16 * 1024

#: Seconds that are waited for at once, at most: the system takes no more than 24 days.
_LONGEST_WAIT = 24 * 3600.0

#: Makes closing a reset.
_NO_LINGER = struct.pack("ii", 1, 0)

_READ = select.POLLIN
_WRITE = select.POLLOUT


class _Woken(Exception):
    """Whoever waits is to give up."""


class _TimedOut(OSError):
    """The other end did not answer in time."""


class _Waiter:
    """Waits for one socket, and to be woken by any other thread."""

    def __init__(self) -> None:
        self._ours, self._theirs = socket.socketpair()
        self._ours.setblocking(False)
        self._theirs.setblocking(False)
        # Not one of `selectors`: that is called for each commit, by each connection.
        self._poll = select.poll()
        self._poll.register(self._ours, _READ)
        self._lock = threading.Lock()
        self._closed = False

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._ours.close()
            self._theirs.close()

    def abandon(self) -> None:
        """As `close`, in the child of a fork."""
        self._lock = threading.Lock()
        self.close()

    def wake(self) -> None:
        """From any thread. What is not waiting now will not wait next time."""
        with self._lock:
            if not self._closed:
                # A full buffer is a wake that is already there.
                with contextlib.suppress(BlockingIOError):
                    self._theirs.send(b"\0")

    def wait(self, waited: Any, events: int, timeout: float | None) -> int:
        """The events of the socket `waited` (None for no socket) that have come.

        0 if there are none: it was woken, or has waited for `timeout` seconds, or `_LONGEST_WAIT`.
        """
        milliseconds = None
        if timeout is not None:
            milliseconds = math.ceil(min(timeout, _LONGEST_WAIT) * 1000)
        if waited is None:
            ready = self._poll.poll(milliseconds)
        else:
            self._poll.register(waited, events)
            try:
                ready = self._poll.poll(milliseconds)
            finally:
                self._poll.unregister(waited)
        came = 0
        ours = self._ours.fileno()
        for fd, found in ready:
            if fd == ours:
                with contextlib.suppress(BlockingIOError):
                    self._ours.recv(4096)
            else:
                # What is wrong with it is told by whatever is tried then.
                came = found & events or events
        return came


class _Channel:
    """A connected socket, plain or TLS, that never blocks."""

    def __init__(self, connection: socket.socket, waiter: _Waiter) -> None:
        connection.setblocking(False)
        self.socket = connection
        self._waiter = waiter
        self._outgoing: list[memoryview] = []
        #: When, by `time.monotonic()`, the system last took some of what is to be sent.
        self.progress = 0.0

    def start_tls(
        self,
        tls: TLSOptions,
        context: ssl.SSLContext,
        deadline: float,
        stopped: Callable[[], bool],
        **wrap: Any,
    ) -> None:
        """Shake hands, until the `deadline` by `time.monotonic()`.

        :raises OSError: the handshake failed (`ssl.SSLError` is one), or took too long.
        :raises PeerRefused: the peer's name is not listed.
        :raises _Woken: `stopped()` was true in the midst of it.
        """
        try:
            self.socket = context.wrap_socket(self.socket, do_handshake_on_connect=False, **wrap)
        except OSError as error:
            _close_what_is_left_open(error)
            raise
        while True:
            try:
                self.socket.do_handshake()
                break
            except ssl.SSLWantReadError:
                events = _READ
            except ssl.SSLWantWriteError:
                events = _WRITE
            left = deadline - time.monotonic()
            if left <= 0:
                raise _TimedOut("the handshake took too long")
            self.wait(events, left)
            # Whatever has come: who is woken together with an event is not woken again.
            if stopped():
                raise _Woken
        tls.check_peer(certificate_names(self.socket.getpeercert()))

    @property
    def certificate(self) -> str | None:
        """Whom the peer's certificate is for; None if it has shown none."""
        if not isinstance(self.socket, ssl.SSLSocket):
            return None
        return common_name(self.socket.getpeercert())

    @property
    def drained(self) -> bool:
        """Whether all that was written has been handed to the system."""
        return not self._outgoing

    def write(self, chunks: Iterable[bytes]) -> None:
        if isinstance(self.socket, ssl.SSLSocket):
            # It makes at least one record of each.
            chunks = [b"".join(chunks)]
        if self.drained:
            self.progress = time.monotonic()
        self._outgoing += [memoryview(chunk) for chunk in chunks if chunk]

    def wait(self, events: int, timeout: float | None) -> int:
        return self._waiter.wait(self.socket, events, timeout)

    def receive(self, size: int) -> bytes | None:
        """About `size` bytes of what has come: None for nothing, empty for the end."""
        try:
            data = self.socket.recv(size)
            # TLS has read more from the network than it gave out; no event would tell.
            while data and isinstance(self.socket, ssl.SSLSocket) and self.socket.pending():
                data += self.socket.recv(size)
            return data
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return None

    def flush(self) -> None:
        """Hand to the system what it takes now."""
        try:
            while self._outgoing:
                if isinstance(self.socket, ssl.SSLSocket):
                    sent = self.socket.send(self._outgoing[0][:_TLS_SIZE])
                else:
                    sent = self.socket.sendmsg(self._outgoing[:_CHUNKS])
                self._forget(sent)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            pass

    def _forget(self, sent: int) -> None:
        self.progress = time.monotonic()
        done = 0
        for chunk in self._outgoing:
            if sent < len(chunk):
                break
            sent -= len(chunk)
            done += 1
        del self._outgoing[:done]
        if sent:
            self._outgoing[0] = self._outgoing[0][sent:]

    def finish_writing(self) -> None:
        """Tell the peer that nothing follows; it can still be read from."""
        if isinstance(self.socket, ssl.SSLSocket):
            self._say_goodbye(self.socket)
        else:
            self.socket.shutdown(socket.SHUT_WR)

    def _say_goodbye(self, tls_socket: ssl.SSLSocket) -> None:
        # It would wait for the peer's goodbye as well; and it may be too late for either.
        with contextlib.suppress(OSError, ValueError):
            tls_socket.unwrap()

    def let_be_read(self) -> None:
        """Wait for the peer to leave, `_LINGER` seconds at most: it may still read what was sent.

        Closing at once, while something of the peer's is unread, would reset the connection, and
        what it was told about its certificate would be lost.
        """
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)
            deadline = time.monotonic() + _LINGER
            while (left := deadline - time.monotonic()) > 0 and self.wait(_READ, left):
                if not self.socket.recv(_PRIMARY_READ_SIZE):
                    break

    def close(self) -> None:
        if isinstance(self.socket, ssl.SSLSocket) and self.drained:
            self._say_goodbye(self.socket)
        if not self.drained:
            # What the peer has not taken would stay in the system's memory.
            with contextlib.suppress(OSError):
                self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        self.socket.close()


def _close_what_is_left_open(error: OSError) -> None:
    # Wrapping a connection that is lost already takes its descriptor over and does not close it.
    for frame, _ in traceback.walk_tb(error.__traceback__):
        left = frame.f_locals.get("self")
        if isinstance(left, ssl.SSLSocket):
            left.close()


class _PrimaryThread:
    """One connection of a primary: a batch whenever the one before has been sent."""

    def __init__(self, listener: Listener, connection: socket.socket) -> None:
        self._listener = listener
        self._service = listener.service
        self._peer = peer_name(connection)
        self._deadline = time.monotonic() + self._service.handshake_timeout
        self._waiter = _Waiter()
        self._channel = _Channel(connection, self._waiter)
        # Whether the session may have something: not so from when it had nothing more until a wake.
        self._ready = True
        # Until when (of the monotonic clock) it rests, and is not asked to wake this; None if it
        # does not rest.
        self._rest_until: float | None = None
        self._finishing = False
        self._aborted = False
        self.thread = threading.Thread(target=self._run, name=f"zrs_core {self._peer}", daemon=True)

    def finish(self) -> None:
        """Close once the secondary has caught up. From any thread."""
        self._finishing = True
        self._wake()

    def abort(self) -> None:
        """Close at once. From any thread."""
        self._aborted = True
        self._waiter.wake()

    def _wake(self) -> None:
        self._ready = True
        self._waiter.wake()

    def _run(self) -> None:
        try:
            tls = self._service.tls
            if tls is None or self._shake_hands(tls):
                self._serve()
        except Exception:
            # Something raised that never should: all goes on without this connection.
            log.exception("%s: closing", self._peer, extra=event("unexpected", peer=self._peer))
        finally:
            self.close()

    def close(self) -> None:
        """Give up everything. In its own thread, or when that cannot be started."""
        self._channel.close()
        self._listener.forget(self)
        self._waiter.close()

    def abandon(self) -> None:
        """Close the descriptors in the child of a fork."""
        self._channel.socket.close()
        self._waiter.abandon()

    def _shake_hands(self, tls: TLSOptions) -> bool:
        try:
            self._channel.start_tls(
                tls,
                tls.server_context(),
                self._deadline,
                lambda: self._aborted or self._finishing,
                server_side=True,
            )
        except _Woken:
            return False
        except (OSError, PeerRefused, ConfigurationError) as error:
            self._service.refused(self._peer, describe_error(error))
            self._channel.let_be_read()
            return False
        return True

    def _serve(self) -> None:
        channel = self._channel
        session = self._service.session(self._peer, channel.certificate)
        reason = "closed here"
        half_closed = False

        def over() -> bool:
            return session.finished or self._aborted

        try:
            while not over():
                if self._finishing and not session.started:
                    break
                if self._rested():
                    session.wait(self._wake)
                if session.started and self._ready and channel.drained and not half_closed:
                    # Before it is asked: what wakes it meanwhile must count, and what came before
                    # it was told to finish must be sent.
                    self._ready = False
                    finishing = self._finishing
                    chunks = session.produce()
                    if over():
                        break
                    if chunks:
                        channel.write(chunks)
                        if session.rest and not self._finishing:
                            self._rest_until = time.monotonic() + session.rest
                        else:
                            self._ready = True
                    elif finishing:
                        channel.finish_writing()
                        half_closed = True
                    else:
                        session.wait(self._wake)
                channel.flush()
                left = self._time_left(session)
                if left is not None and left <= 0:
                    reason = self._overdue(session)
                    break
                events = _READ
                if not (session.started and self._ready and channel.drained) or half_closed:
                    if channel.drained and self._rest_until is not None:
                        left = max(0.0, self._rest_until - time.monotonic())
                    events = channel.wait(_READ if channel.drained else _READ | _WRITE, left)
                data = channel.receive(_PRIMARY_READ_SIZE) if events & _READ else None
                if data:
                    session.receive_data(data)
                elif data is not None:
                    session.receive_eof()
                    reason = "closed by the other end"
        except OSError as error:
            reason = str(error)
        finally:
            if self._aborted:
                # Now, and not when the session is closed: that may take its time.
                channel.close()
            session.close(reason)

    def _rested(self) -> bool:
        """Whether the session has sent all that it had, and has rested; told once."""
        until = self._rest_until
        if until is None or not self._channel.drained or time.monotonic() < until:
            return False
        self._rest_until = None
        return True

    def _time_left(self, session: IPrimarySession) -> float | None:
        """Seconds in which the peer must do what is waited for; None if that is nothing."""
        if not session.started:
            return self._deadline - time.monotonic()
        if not self._channel.drained:
            return self._channel.progress + self._service.write_timeout - time.monotonic()
        return None

    def _overdue(self, session: IPrimarySession) -> str:
        if session.started:
            return does_not_take(self._service)
        self._service.refused(self._peer, too_late(self._service))
        return "closed here"


@implementer(IListener)
class Listener:
    """Accepts connections for a service, each in a thread."""

    def __init__(self, service: IReplicationService) -> None:
        self.address: Address = service.address
        self.service = service
        self._connections: set[_PrimaryThread] = set()
        self._lock = threading.Lock()
        self._failures = RepeatLog(_FAILURE_MEMORY)
        self._waiter: _Waiter
        self._listening: socket.socket
        self._thread: threading.Thread | None = None
        self._stopping = False

    def start(self) -> None:
        service = self.service
        check_exposure(self.address, tls=service.tls, require_tls=service.require_tls)
        with contextlib.ExitStack() as opened:
            listening = opened.enter_context(self._listen())
            opened.callback(self._remove_file)
            self._waiter = _Waiter()
            opened.callback(self._waiter.close)
            thread = threading.Thread(
                target=self._run,
                args=(listening,),
                name=f"zrs_core listening on {self.address}",
                daemon=True,
            )
            thread.start()
            self._thread, self._listening = thread, listening
            # From now on all of it is the thread's, and whoever stops it.
            opened.pop_all()

    def abandon(self) -> None:
        """Close the descriptors in the child of a fork."""
        if self._thread is not None:
            self._thread = None
            self._listening.close()
            self._waiter.abandon()
            for connection in self._connections:
                connection.abandon()

    def _listen(self) -> socket.socket:
        if isinstance(self.address, UnixAddress):
            remove_stale_socket(self.address)
        try:
            listening = self._open()
            try:
                if isinstance(self.address, UnixAddress):
                    listening.bind(self.address.path)
                    os.chmod(self.address.path, self.service.socket_mode)
                listening.listen(BACKLOG)
                listening.setblocking(False)
            except BaseException:
                listening.close()
                raise
        except OSError as error:
            raise ListenError(f"cannot listen on {self.address}: {error}") from error
        if isinstance(self.address, TCPAddress):
            self.address = TCPAddress(self.address.host, listening.getsockname()[1])
        return listening

    def _open(self) -> socket.socket:
        if isinstance(self.address, UnixAddress):
            return socket.socket(socket.AF_UNIX)
        return open_tcp_listener(self.address)

    def _run(self, listening: socket.socket) -> None:
        with listening:
            check_at = time.monotonic() + self.service.check_delay
            while not self._stopping:
                if self._waiter.wait(listening, _READ, max(check_at - time.monotonic(), 0.0)):
                    self._accept(listening)
                if time.monotonic() >= check_at:
                    self.service.check()
                    check_at = time.monotonic() + self.service.check_delay
            self._remove_file()

    def _remove_file(self) -> None:
        if isinstance(self.address, UnixAddress):
            # While it still listens: afterwards the file may be somebody else's.
            with contextlib.suppress(OSError):
                os.unlink(self.address.path)

    def _accept(self, listening: socket.socket) -> None:
        try:
            connection, _ = listening.accept()
        except (BlockingIOError, ConnectionError):
            # It was gone before it was accepted.
            return
        except OSError as error:
            # Most likely there are no descriptors left, and that takes a while to change.
            fields = event("cannot-accept", address=self.address, reason=error)
            level = self._failures.level(f"accept: {error}")
            log.log(level, "%s: cannot accept a connection: %s", self.address, error, extra=fields)
            self._waiter.wait(None, 0, _ACCEPT_PAUSE)
            return
        if len(self._connections) >= self.service.max_peers:
            self.service.refused(peer_name(connection), too_many(self.service))
            connection.close()
            return
        try:
            tune(connection, self.service.peer_timeout)
            accepted = _PrimaryThread(self, connection)
        except OSError:
            connection.close()
            return
        with self._lock:
            self._connections.add(accepted)
        try:
            accepted.thread.start()
        except RuntimeError as error:
            fields = event("cannot-serve", address=self.address, reason=error)
            level = self._failures.level(f"serve: {error}")
            log.log(level, "%s: cannot serve a connection: %s", self.address, error, extra=fields)
            accepted.close()

    def forget(self, connection: _PrimaryThread) -> None:
        with self._lock:
            self._connections.discard(connection)

    def stop(self, timeout: float) -> None:
        # Another thread may stop it too, and be anywhere in this.
        thread = self._thread
        if thread is None:
            return
        self._stopping = True
        self._waiter.wake()
        thread.join()
        self._waiter.close()
        with self._lock:
            connections = list(self._connections)
        for connection in connections:
            connection.finish()
        deadline = time.monotonic() + timeout
        for connection in connections:
            connection.thread.join(max(0, deadline - time.monotonic()))
        # All of them before any is waited for: one may be stuck.
        for connection in connections:
            connection.abort()
        for connection in connections:
            connection.thread.join()
        self.service.stopped()
        self._thread = None


@implementer(IConnector)
class Connector:
    """Keeps a client connected, in a thread."""

    def __init__(self, client: IReplicationClient) -> None:
        self._client = client
        self._waiter: _Waiter
        self._thread: threading.Thread | None = None
        # What there is to close in the child of a fork.
        self._socket: socket.socket | None = None
        self._channel: _Channel | None = None
        self._stopping = False
        self._reconnecting = False

    def start(self) -> None:
        self._waiter = _Waiter()
        thread = threading.Thread(
            target=self._run, name=f"zrs_core connecting to {self._client.address}", daemon=True
        )
        try:
            thread.start()
        except BaseException:
            self._waiter.close()
            raise
        self._thread = thread

    def abandon(self) -> None:
        """Close the descriptors in the child of a fork."""
        if self._thread is not None:
            self._thread = None
            self._waiter.abandon()
            connected = self._socket if self._channel is None else self._channel.socket
            if connected is not None:
                connected.close()

    def reconnect(self) -> None:
        self._reconnecting = True
        self._waiter.wake()

    def stop(self) -> None:
        # Another thread may stop it too, and be anywhere in this.
        thread = self._thread
        if thread is None:
            return
        self._stopping = True
        self._waiter.wake()
        thread.join()
        self._waiter.close()
        self._thread = None

    def _interrupted(self) -> bool:
        return self._stopping or self._reconnecting

    def _run(self) -> None:
        while not self._stopping:
            self._reconnecting = False
            try:
                self._connect_once()
            except _Woken:
                pass
            except BaseException as error:
                # Something raised that never should; the next attempt may fare better. A thread
                # ends without a word for SystemExit.
                fields = event("unexpected", peer=self._client.address)
                log.exception("%s: trying again", self._client.address, extra=fields)
                self._client.connection_failed(repr(error))
            self._pause()

    def _pause(self) -> None:
        deadline = time.monotonic() + self._client.retry_delay()
        while not self._interrupted() and (left := deadline - time.monotonic()) > 0:
            self._waiter.wait(None, 0, left)

    def _connect_once(self) -> None:
        address = self._client.address
        try:
            connection = self._connect(address)
        except (OSError, ConfigurationError) as error:
            self._client.connection_failed(getattr(error, "strerror", None) or str(error))
            return
        channel = self._channel = _Channel(connection, self._waiter)
        try:
            self._shake_hands(channel, address)
            local_address = own_name(channel.socket)
            self._follow(channel, self._client.session(str(address), local_address))
        except (OSError, PeerRefused, ConfigurationError) as error:
            self._client.connection_failed(describe_error(error))
        finally:
            channel.close()
            self._channel = self._socket = None

    def _connect(self, address: Address) -> socket.socket:
        failure: OSError = OSError(f"{address} has no address that can be used")
        for family, place in self._look_up(address):
            connection = self._socket = socket.socket(family)
            try:
                self._finish_connecting(connection, connect_argument(family, place))
                tune(connection, self._client.peer_timeout)
                return connection
            except OSError as error:
                connection.close()
                failure = error
            except BaseException:
                connection.close()
                raise
        raise failure

    def _look_up(self, address: Address) -> Places:
        if not needs_look_up(address):
            return look_up(address)
        found = LookUp(address, self._waiter.wake)
        try:
            while not found.over:
                if self._interrupted():
                    raise _Woken
                self._waiter.wait(None, 0, None)
        finally:
            found.cancel()
        return found.result()

    def _finish_connecting(self, connection: socket.socket, where: Any) -> None:
        connection.setblocking(False)
        status = connection.connect_ex(where)
        deadline = time.monotonic() + CONNECT_TIMEOUT
        # A Unix socket whose backlog is full says EAGAIN: that is a failure, to be tried again.
        while status == errno.EINPROGRESS:
            left = deadline - time.monotonic()
            if left <= 0:
                raise _TimedOut(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
            if self._waiter.wait(connection, _WRITE, left):
                status = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if self._interrupted():
                raise _Woken
        if status:
            raise OSError(status, os.strerror(status))

    def _shake_hands(self, channel: _Channel, address: Address) -> None:
        tls = self._client.tls
        if tls is None:
            return
        channel.start_tls(
            tls,
            tls.client_context(),
            time.monotonic() + CONNECT_TIMEOUT,
            self._interrupted,
            server_hostname=tls.host_of(address),
        )

    def _follow(self, channel: _Channel, session: ISecondarySession) -> None:
        reason = "closed here"
        try:
            channel.write([session.greeting()])
            delay = self._client.keep_alive_delay
            due = time.monotonic() + delay if delay else None
            size = FIRST_READ_SIZE
            while not (session.finished or self._interrupted()):
                channel.flush()
                if due is not None and time.monotonic() >= due:
                    channel.write([session.keep_alive()])
                    due = time.monotonic() + delay
                    continue
                timeout = None if due is None else max(0, due - time.monotonic())
                channel.wait(_READ if channel.drained else _READ | _WRITE, timeout)
                data = channel.receive(size)
                if data or data is None:
                    size = next_read_size(len(data)) if data else size
                    # What was there may be a part of a TLS record, and no data.
                    session.receive_data(data or b"", lambda: is_readable(channel.socket))
                else:
                    reason = "closed by the other end"
                    session.receive_eof()
        except ssl.SSLError as error:
            # In TLS 1.3 a primary can refuse a certificate only when the handshake is over here.
            reason = describe_error(error)
            session.refused(reason)
        except OSError as error:
            reason = str(error)
            session.receive_eof()
        finally:
            session.close(reason)
