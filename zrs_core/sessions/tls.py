"""TLS as a layer between a session and its driver, without a socket.

The driver carries cipher text. The session, which the layer makes when the handshake is over, sees
plain text. Every transport has TLS by this one implementation.
"""

from __future__ import annotations

import ssl
from abc import abstractmethod
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, Protocol

from zope.interface import implementer

from ..actions import Action, Close, HalfClose, Send, Work
from ..addresses import Address
from ..interfaces import ISession
from ..tls import (
    PeerRefused,
    TLSOptions,
    certificate_names,
    common_name,
    describe_error,
    describe_loss,
)
from .deadlines import Deadline
from .machine import CLOSE, Machine
from .serving import Serving
from .times import PrimaryTimes, SecondaryTimes

#: Bytes that a peer may send before the handshake is over. OpenSSL takes 100 KiB of certificates.
MAX_HANDSHAKE = 256 * 1024

#: Bytes of cipher text that a peer may send without any data in it.
MAX_OVERHEAD = 64 * 1024

#: Bytes of answers to the peer's TLS messages, above which no more is read until it takes them.
MAX_ANSWERS = 64 * 1024

# Bytes of plain text in a record. The session learns of progress record by record.
_RECORD = 16 * 1024

# Bytes of plain text that are encrypted before the network has accepted what was sent.
_WINDOW = 256 * 1024

TLS_HANDSHAKE = Deadline(
    "TLS handshake",
    "the connection is made, for `handshake_timeout` at a primary, where the greeting has to come "
    "within the same time, and for 30 seconds at a secondary",
    "the peer is refused, or the attempt to connect has failed; the connection is aborted",
)
LINGER = Deadline(
    "linger",
    "the TLS handshake fails, for 2 seconds; to close at once could lose the alert that explains "
    "why",
    "the connection is closed",
)

#: All deadlines of TLS.
TLS_DEADLINES: Final = (TLS_HANDSHAKE, LINGER, CLOSE)


@implementer(ISession)
class TLSLayer(Machine):
    """One end of a connection with TLS, around the session that it makes.

    The files that the options name are read for each connection, as the first `Work`.

    :param peer: the name of the other end in the log.
    :param handshake: the time at which the handshake must be over.
    """

    def __init__(
        self,
        peer: str,
        options: TLSOptions,
        handshake: float,
        times: PrimaryTimes | SecondaryTimes,
    ) -> None:
        handlers = {TLS_HANDSHAKE: self._handshake_due, LINGER: self._linger_due}
        super().__init__(peer, handlers, times.close)
        self._options = options
        self._linger_time = times.linger
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        # None before the files are read; None before the handshake is over.
        self._tls: Any = None
        self._session: Any = None
        # The session's work that the driver has not asked for yet.
        self._session_work: Work | None = None
        # True once the owner knows how the handshake has ended, or need not.
        self._reported = False
        # True once the handshake has failed, while the peer may read why.
        self._lingering = False
        self._handshake_size = 0
        # Plain text that the session has not taken, and that which is not encrypted.
        self._received: list[bytes] = []
        self._plain: deque[memoryview] = deque()
        # Records that the network has not accepted: sizes of cipher text and of its plain text.
        self._records: deque[tuple[int, int]] = deque()
        # Bytes of cipher text in them that carry no plain text.
        self._answers = 0
        # Bytes of cipher text that have come since the last data.
        self._overhead = 0
        # True once the peer sends nothing more; once the session knows.
        self._ended = self._end_delivered = False
        self._timers.set(TLS_HANDSHAKE, handshake)
        self._do(self._wrap, self._wrapped, self._cannot_wrap)

    # -- inputs

    def sent(self, count: int, now: float) -> None:
        """Note that the network has accepted `count` bytes of cipher text."""
        plain = self._accepted(count)
        super().sent(count, now)
        if self._session is not None:
            self._call(self._session_sent, plain, now)

    def done(self, result: Any, now: float) -> None:
        """Take the result of the last `Work`."""
        if self._session is None:
            super().done(result, now)
        else:
            self._call(self._forward, self._session.done, result, now)

    def failed(self, error: BaseException, now: float) -> None:
        """Take the exception that the last `Work` has raised."""
        if self._session is None:
            super().failed(error, now)
        else:
            self._call(self._forward, self._session.failed, error, now)

    def handle_timeout(self, now: float) -> None:
        """Do what falls due at `now`."""
        super().handle_timeout(now)
        if self._session is not None:
            self._call(self._forward, self._session.handle_timeout, now)

    # -- outputs

    def next_action(self) -> Action | None:
        """Return the next action to carry out, None if there is none now."""
        action = super().next_action()
        if action is None:
            action, self._session_work = self._session_work, None
        return action

    def next_deadline(self) -> float | None:
        """Return the time at which to call `handle_timeout`, None for never."""
        own = super().next_deadline()
        due = None if self._session is None else self._session.next_deadline()
        return min((each for each in (own, due) if each is not None), default=None)

    @property
    def wants_data(self) -> bool:
        """False while the driver should not read from the peer."""
        if self._ended or self._tls is None or not super().wants_data:
            return False
        if self._session is None:
            return True
        return self._session.wants_data and self._answers <= MAX_ANSWERS

    # -- for subclasses

    @abstractmethod
    def _wrap(self) -> ssl.SSLObject:
        """Read the files. This is work.

        :raises ConfigurationError: a file is not what it was when the options were made.
        """

    @abstractmethod
    def _make_session(self, now: float, certificate: str | None) -> Any:
        """Return the session for a peer whose certificate has this name."""

    @abstractmethod
    def _report(self, reason: str, now: float) -> None:
        """Report to the owner that the handshake has failed."""

    @abstractmethod
    def _broken(self, reason: str, now: float) -> None:
        """End the session: TLS has failed after the handshake."""

    # -- the handshake

    def _wrapped(self, tls: ssl.SSLObject, now: float) -> None:
        if not (self._closing or self._lost):
            self._tls = tls
            self._shake_hands(now)

    def _cannot_wrap(self, error: BaseException, now: float) -> None:
        if self._closing or self._lost:
            return
        if isinstance(error, (OSError, ValueError)):
            self._fail(describe_error(error), now)
        else:
            self._work_failed(error, now)

    def _shake_hands(self, now: float) -> None:
        try:
            self._tls.do_handshake()
            certificate = self._tls.getpeercert()
            self._options.check_peer(certificate_names(certificate))
        except ssl.SSLWantReadError:
            if self._handshake_size > MAX_HANDSHAKE:
                self._fail(f"TLS: the handshake takes more than {MAX_HANDSHAKE:,} bytes", now)
            self._flush()
        except (OSError, ValueError, PeerRefused) as error:
            self._fail(describe_error(error), now)
        else:
            self._flush()
            self._reported = True
            self._timers.clear(TLS_HANDSHAKE)
            self._session = self._make_session(now, common_name(certificate))
            self._read(0, now)

    def _fail(self, reason: str, now: float) -> None:
        """Report that the handshake has failed, and let the peer read the alert."""
        self._report_once(reason, now)
        self._lingering = True
        self._timers.clear(TLS_HANDSHAKE)
        self._timers.set(LINGER, now + self._linger_time)
        self._flush()
        self._half_close()
        if self._ended:
            self._close(now)

    def _report_once(self, reason: str, now: float) -> None:
        if not self._reported:
            self._reported = True
            self._report(reason, now)

    def _handshake_due(self, now: float) -> None:
        self._report_once("TLS: the handshake took too long", now)
        self._abort()

    def _linger_due(self, now: float) -> None:
        self._leave(now)

    def _leave(self, now: float) -> None:
        if self._unsent:
            self._abort()
        else:
            self._close(now)

    # -- from the peer to the session

    def _on_data(self, data: bytes, now: float) -> None:
        if self._lingering or self._ended:
            return
        self._incoming.write(data)
        if self._tls is None:
            return
        if self._session is None:
            self._handshake_size += len(data)
            self._shake_hands(now)
        else:
            self._read(len(data), now)

    def _on_eof(self, now: float) -> None:
        self._ended = True
        self._incoming.write_eof()
        if self._lingering:
            self._close(now)
        elif self._session is not None:
            self._advance(now)
        elif self._tls is not None:
            self._shake_hands(now)

    def _read(self, size: int, now: float) -> None:
        """Decrypt what has come, which is `size` bytes more, and hand it to the session."""
        before, error = len(self._received), None
        try:
            while data := self._tls.read(_RECORD):
                self._received.append(data)
            self._ended = True
        except ssl.SSLWantReadError:
            pass
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            # The sizes in the protocol show if something is missing.
            self._ended = True
        except ssl.SSLError as failure:
            error = describe_error(failure)
        self._flush()
        self._overhead = 0 if len(self._received) > before else self._overhead + size
        if self._overhead > MAX_OVERHEAD:
            error = f"TLS: the peer has sent {self._overhead:,} bytes without any data in them"
        self._advance(now)
        if error is not None:
            self._broken(error, now)
            self._advance(now)

    def _deliver(self, now: float) -> None:
        if self._received and self._session.wants_data:
            data = b"".join(self._received)
            self._received.clear()
            self._session.receive_data(data, now)
        if self._ended and not self._end_delivered and self._session.wants_data:
            self._end_delivered = True
            self._session.receive_eof(now)

    # -- from the session to the peer

    def _advance(self, now: float) -> None:
        """Hand the session what it wants, and do what it asks for, until nothing is left."""
        self._deliver(now)
        while (action := self._session.next_action()) is not None:
            self._take(action, now)
        self._encrypt()
        if self._lost and self._session.over:
            self._finish()

    def _take(self, action: Action, now: float) -> None:
        match action:
            case Send(chunks=chunks):
                if data := b"".join(chunks):
                    self._plain.append(memoryview(data))
            case Work():
                self._session_work = action
            case HalfClose():
                self._send_close_notify()
                self._half_close()
            case Close(reason=reason):
                self._send_close_notify()
                self._close(now, reason)
            case _:
                self._abort(action.reason)

    def _encrypt(self) -> None:
        """Send the next records, when the network has accepted those before."""
        if self._unsent or self._closing or self._lost:
            return
        size, records = 0, []
        try:
            while self._plain and size < _WINDOW:
                plain = self._plain.popleft()
                # Less is written to a peer that has asked for smaller records.
                written = self._tls.write(plain[:_RECORD])
                if written < len(plain):
                    self._plain.appendleft(plain[written:])
                size += written
                records.append(self._outgoing.read())
                self._records.append((len(records[-1]), written))
        except ssl.SSLError as error:
            self._abort(describe_error(error))
            return
        if records:
            self._send(records)

    def _flush(self) -> None:
        """Send what TLS itself has to say."""
        answer = self._outgoing.read()
        if answer and not (self._closing or self._half_closed):
            self._records.append((len(answer), 0))
            self._answers += len(answer)
            self._send([answer])

    def _send_close_notify(self) -> None:
        # The peer's own has not come yet, or TLS is over already.
        with suppress(ssl.SSLError, ValueError):
            self._tls.unwrap()
        self._flush()

    def _accepted(self, count: int) -> int:
        """Return how many bytes of plain text `count` more bytes of cipher text complete."""
        accepted = 0
        while count and self._records:
            size, plain = self._records[0]
            taken = min(size, count)
            count -= taken
            if not plain:
                self._answers -= taken
            if taken < size:
                self._records[0] = size - taken, plain
            else:
                self._records.popleft()
                accepted += plain
        return accepted

    # -- what else is passed on

    def _forward(self, call: Callable[..., None], *args: Any) -> None:
        """Call an input of the session, whose last argument is the time."""
        call(*args)
        self._advance(args[-1])

    def _session_sent(self, plain: int, now: float) -> None:
        if plain:
            self._session.sent(plain, now)
        self._advance(now)

    def _on_wake(self, now: float) -> None:
        if self._session is not None:
            self._forward(self._session.wake, now)

    def _on_stop(self, now: float, timeout: float) -> None:
        if self._session is None:
            self._reported = True
            self._leave(now)
        else:
            self._session.stop(now, timeout)
            self._advance(now)

    def _on_lost(self, reason: str, now: float) -> None:
        self._received.clear()
        self._plain.clear()
        self._records.clear()
        if self._session is not None:
            self._forward(self._session.lost, reason, now)
            return
        self._report_once(f"TLS: {reason}" if self._closing else describe_loss(reason), now)
        self._finish()


class ServerLayer(TLSLayer):
    """The primary's end of a connection with TLS.

    :param make: returns the session, called with the time, `certificate` (the name in the peer's
        certificate, or None) and `handshake` (the time at which the peer must have
        named its start).
    """

    def __init__(
        self,
        service: Serving,
        peer: str,
        now: float,
        make: Callable[..., ISession],
    ) -> None:
        if service.tls is None:
            raise ValueError("the service has no TLS options")
        self._service = service
        self._make = make
        self._handshake = now + service.handshake_timeout
        super().__init__(peer, service.tls, self._handshake, service.times)

    def _wrap(self) -> ssl.SSLObject:
        context = self._options.server_context()
        return context.wrap_bio(self._incoming, self._outgoing, server_side=True)

    def _make_session(self, now: float, certificate: str | None) -> ISession:
        return self._make(now, certificate=certificate, handshake=self._handshake)

    def _report(self, reason: str, now: float) -> None:
        self._service.refused(self._peer, reason, now)

    def _broken(self, reason: str, now: float) -> None:
        self._abort(reason)


class _Client(Protocol):
    """The part of `IReplicationClient` that TLS needs, and the times of its sessions."""

    address: Address
    tls: TLSOptions | None
    times: SecondaryTimes

    def connection_failed(self, reason: str) -> None: ...


class ClientLayer(TLSLayer):
    """The secondary's end of a connection with TLS.

    :param make: returns the session, called with the time. The session has one more input,
        `refused(reason, now)`: in TLS 1.3 the handshake is over here before the peer has looked at
        this end's certificate.
    """

    def __init__(self, client: _Client, now: float, make: Callable[[float], ISession]) -> None:
        if client.tls is None:
            raise ValueError("the client has no TLS options")
        self._client = client
        self._make = make
        self._host = client.tls.host_of(client.address)
        super().__init__(str(client.address), client.tls, now + client.times.connect, client.times)

    def _wrap(self) -> ssl.SSLObject:
        context = self._options.client_context()
        return context.wrap_bio(self._incoming, self._outgoing, server_hostname=self._host)

    def _make_session(self, now: float, certificate: str | None) -> ISession:
        return self._make(now)

    def _report(self, reason: str, now: float) -> None:
        self._client.connection_failed(reason)

    def _broken(self, reason: str, now: float) -> None:
        self._session.refused(reason, now)
