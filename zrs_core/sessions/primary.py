"""The primary's end of a connection, joined to a source."""

from __future__ import annotations

import enum
import logging
from collections.abc import Callable
from typing import NamedTuple

from zope.interface import implementer

from ..codec import PrimaryConnection
from ..errors import NotCarried, RemoteProtocolError, StartError
from ..interfaces import ISession, ITransactionReader
from ..logs import event
from ..messages import NO_TID, Commit, KeepAlive, PrimaryMessage, Start, Transaction
from ..tids import describe_tid
from .allowance import PER_SECOND, Allowance
from .deadlines import Deadline
from .log import PeerLog
from .machine import CLOSE, CLOSED_THERE, Machine
from .serving import Serving

log = logging.getLogger("zrs_core.primary")

#: Bytes of data in one batch for one secondary: what a primary holds in memory for each at most,
#: but for a single record that is larger.
BATCH_SIZE = 256 * 1024

# Seconds that a session rests for each transaction of a batch with which its secondary has caught
# up, and each secondary that is connected; and the longest rest. What is committed meanwhile makes
# the next batch: from some 1,000 commits a second on with one secondary, or 125 with eight, the
# rests grow, and a commit neither wakes every session nor waits for each of them to send it by
# itself. A commit that comes after the rest is sent at once.
_REST = 0.001
_LONGEST_REST = 0.05

# How the first record of a peer that speaks TLS begins; as a length it would be above any limit.
_TLS_HANDSHAKE = b"\x16\x03"

_FLOODS = f"it sends more than {PER_SECOND} empty messages a second"

_LEFT = (
    "the secondary left without a word; if it does not accept this primary's certificate, its log "
    "tells why"
)

HANDSHAKE = Deadline(
    "handshake",
    "the connection is accepted, for `handshake_timeout`, TLS included",
    "the peer is refused, and the connection aborted",
)
WRITE_STALL = Deadline(
    "write stall",
    "the network accepts some of what was sent, or something is sent when nothing was under way, "
    "for `write_timeout`",
    "the connection is aborted: the peer takes nothing",
)
BATCH_DELAY = Deadline(
    "batch delay",
    "the network has accepted a batch that was the last one, for 1 ms for each of its transactions "
    "and each connected secondary, at most 50 ms",
    "the session waits for the next commit: what was committed meanwhile is one batch",
)
HOLD = Deadline(
    "hold",
    "the first transaction to send is one that cannot be sent, for 3 seconds",
    "the connection is closed; to close it at once would tell the secondary that it is refused",
)
CATCH_UP = Deadline(
    "catch up",
    "the primary stops, for `close_timeout`",
    "the connection is aborted; the secondary has not caught up",
)

#: All deadlines of a primary's session.
PRIMARY_DEADLINES = (HANDSHAKE, WRITE_STALL, BATCH_DELAY, HOLD, CATCH_UP, CLOSE)


class PrimaryState(enum.Enum):
    """What a primary's session does."""

    #: It waits for the start.
    GREETING = enum.auto()
    #: It has its source read.
    READING = enum.auto()
    #: The network takes what was read.
    SENDING = enum.auto()
    #: It waits before it waits for a commit, so that commits make a batch.
    RESTING = enum.auto()
    #: It waits for a commit.
    WAITING = enum.auto()
    #: It sends nothing more, and waits for the end of the connection.
    ENDING = enum.auto()


class _Batch(NamedTuple):
    chunks: list[bytes]
    commits: int
    #: The last transaction that is complete with it; None for none.
    sent: bytes | None
    at_end: bool


@implementer(ISession)
class PrimarySession(Machine):
    """The primary's end of one connection.

    :param service: the owner of the session, which all sessions of a listener share.
    :param peer: the name of the other end in the log.
    :param now: the time.
    :param notify: called, from any thread, when the driver is to call `wake`.
    :param certificate: the name in the peer's certificate.
    :param handshake: the time at which the peer must have named its start.
    """

    def __init__(
        self,
        service: Serving,
        peer: str,
        now: float,
        notify: Callable[[], None],
        *,
        certificate: str | None = None,
        handshake: float | None = None,
    ) -> None:
        super().__init__(
            peer,
            {
                HANDSHAKE: self._handshake_due,
                WRITE_STALL: self._write_stall_due,
                BATCH_DELAY: self._batch_delay_due,
                HOLD: self._hold_due,
                CATCH_UP: self._catch_up_due,
            },
            service.times.close,
        )
        self.state = PrimaryState.GREETING
        self._service = service
        self._notify = notify
        self._notes = notes = service.peers.add(peer, certificate)
        self._log = PeerLog(log, peer, lambda: notes.position, lambda: notes.name)
        self._connection = PrimaryConnection(
            blobs=service.source.blobs, pickle_protocol=service.pickle_protocol
        )
        self._allowance = Allowance(now)
        self._reader: ITransactionReader | None = None
        self._start = NO_TID
        # The transaction that is under way.
        self._tid = NO_TID
        # True once the peer has said something; once something was sent.
        self._heard = self._has_sent = False
        # Seconds to rest when the network has taken the batch; 0 to read on.
        self._rest = 0.0
        self._stopping = False
        if handshake is None:
            handshake = now + service.handshake_timeout
        self._timers.set(HANDSHAKE, handshake)
        self._info(event("connected"), "Connected")

    # -- what the peer says

    def _on_data(self, data: bytes, now: float) -> None:
        self._heard = True
        self._allowance.refill(now)
        try:
            self._connection.receive_data(data)
            for message in self._connection.messages():
                match message:
                    case Start(tid=start):
                        self._started(start)
                    case KeepAlive():
                        if not self._allowance.take():
                            self._refuse(_FLOODS, now)
                            return
                        self._log.debug("keep-alive", extra=event("keep-alive"))
        except RemoteProtocolError as error:
            if data.startswith(_TLS_HANDSHAKE):
                self._refuse("the peer speaks TLS, and this primary does not", now)
            else:
                self._refuse(error.reason, now)

    def _started(self, start: bytes) -> None:
        self._notes.greeted(self._connection.dialect.word, start)
        self._info(event("start"), "start %s", describe_tid(start))
        self._start = start
        self._timers.clear(HANDSHAKE)
        self._read()

    def _on_eof(self, now: float) -> None:
        # A secondary that will say no more (it never does so in half) is a secondary that left.
        self._close(now, CLOSED_THERE)

    # -- what is sent

    def _on_wake(self, now: float) -> None:
        if self.state is PrimaryState.WAITING:
            # What was just committed is in memory.
            self._read(nearby=self._reader is not None and self._reader.nearby)

    def _read(self, *, nearby: bool = False) -> None:
        self.state = PrimaryState.READING
        self._notes.asks()
        # What was committed before the primary stops must be sent.
        final = self._stopping
        self._do(
            self._read_batch,
            lambda batch, now: self._has_read(batch, final, now),
            self._cannot_read,
            nearby=nearby,
        )

    def _read_batch(self) -> _Batch:
        """Read and encode the next batch. This is work, for which an event loop has a thread."""
        if self._reader is None:
            self._reader = self._service.source.open(self._start)
        messages = self._reader.read(BATCH_SIZE)
        chunks = self._connection.send_all(messages, self._left_out)
        commits, sent = self._count(messages)
        return _Batch(chunks, commits, sent, self._reader.at_end)

    def _count(self, messages: list[PrimaryMessage]) -> tuple[int, bytes | None]:
        commits, sent = 0, None
        for message in messages:
            kind = type(message)
            if kind is Commit:
                commits += 1
                sent = self._tid
            elif isinstance(message, Transaction):
                self._tid = message.tid
        return commits, sent

    def _has_read(self, batch: _Batch, final: bool, now: float) -> None:
        if self._closing or self._lost:
            return
        if batch.chunks:
            self._has_sent = True
            rest = batch.commits * len(self._service.peers) * _REST
            self._rest = min(rest, _LONGEST_REST) if batch.at_end else 0.0
            size = sum(map(len, batch.chunks))
            self._notes.gets(batch.commits, size, batch.sent, self._rest)
            self.state = PrimaryState.SENDING
            self._timers.set(WRITE_STALL, now + self._service.write_timeout)
            self._send(batch.chunks)
        elif final:
            # To close at once while something of the secondary's is unread would reset the
            # connection, and the secondary might lose what is on its way. It closes when it has
            # read the end.
            self.state = PrimaryState.ENDING
            self._notes.has_all()
            self._half_close()
        elif self._stopping:
            # Something may have come before the primary was stopped.
            self._read()
        else:
            self._wait()

    def _on_sent(self, now: float) -> None:
        if self._unsent:
            self._timers.set(WRITE_STALL, now + self._service.write_timeout)
            return
        self._timers.clear(WRITE_STALL)
        if self.state is not PrimaryState.SENDING or self._closing:
            return
        if self._rest and not self._stopping:
            self.state = PrimaryState.RESTING
            self._timers.set(BATCH_DELAY, now + self._rest)
        else:
            self._read()

    def _wait(self) -> None:
        self.state = PrimaryState.WAITING
        self._notes.has_all()
        if self._reader is not None:
            self._reader.wait(self._notify)

    # -- the end

    def _on_stop(self, now: float, timeout: float) -> None:
        if self.state is PrimaryState.GREETING:
            self._close(now)
            return
        self._stopping = True
        self._timers.set(CATCH_UP, now + timeout)
        if self.state in (PrimaryState.RESTING, PrimaryState.WAITING):
            self._timers.clear(BATCH_DELAY)
            self._read()

    def _cannot_read(self, error: BaseException, now: float) -> None:
        if self._lost:
            return
        if isinstance(error, StartError):
            self._refuse(str(error), now)
        elif isinstance(error, NotCarried):
            self._stop_before(error, now)
        else:
            self._fail(error, now)

    def _fail(self, error: BaseException, now: float) -> None:
        # Whatever goes wrong with the source, the secondary must not be left waiting for an answer.
        service = self._service
        service.peers.failed(f"cannot go on sending: {error}", self._peer)
        self._log.log(
            service.failure_level(f"{type(error).__name__}: {error}", now),
            "cannot go on sending: %s",
            error,
            exc_info=error,
            extra=event("cannot-send", reason=error),
        )
        self._info(event("hanging-up"), "Closed")
        self._close(now)

    def _stop_before(self, error: NotCarried, now: float) -> None:
        """Close the connection before a transaction that cannot be sent.

        Secondaries take a connection that is closed at once, without anything sent, for a sign that
        this primary does not hold their last transaction. So it is held for a moment.
        """
        self._service.peers.failed(str(error), self._peer)
        level = logging.ERROR if self._service.once.add(str(error)) else logging.DEBUG
        fields = event("not-carried", tid=error.tid, reason=error.reason)
        self._log.log(level, "%s", error, extra=fields)
        if self._has_sent or self._start == NO_TID:
            self._close(now)
        else:
            self.state = PrimaryState.ENDING
            self._timers.set(HOLD, now + self._service.times.hold)

    def _left_out(self, tid: bytes, reason: str) -> None:
        """Log that a transaction is sent without its extension."""
        if not self._service.once.add((tid, reason)):
            return
        text = f"the extension of transaction 0x{tid.hex()} was left out: {reason}"
        self._service.peers.failed(text, self._peer)
        self._log.error(
            "the extension of transaction %s cannot be replicated: %s; the transaction is "
            "replicated without it",
            describe_tid(tid),
            reason,
            extra=event("extension-left-out", tid=tid, reason=reason),
        )

    def _refuse(self, reason: str, now: float) -> None:
        self._service.peers.refused(reason, self._peer)
        if self._service.is_news(self._peer, reason, now):
            # What a peer says may stand in it, which is no format.
            self._log.error("%s", reason, extra=event("refused", reason=reason))
        self._info(event("hanging-up"), "Closed")
        self._close(now)

    def _on_lost(self, reason: str, now: float) -> None:
        try:
            self._service.peers.remove(self._notes)
            if self._reader is not None:
                self._reader.close()
            service = self._service
            if (
                not self._heard
                and service.tls is not None
                and service.is_news(self._peer, _LEFT, now)
            ):
                # In TLS 1.3 the handshake is over here before the other end has looked at a name.
                self._log.warning(_LEFT, extra=event("left"))
            fields = event("disconnected", reason=reason)
            self._info(fields, "Disconnected (%s)%s", reason, self._log.last())
        finally:
            self._finish()

    # -- deadlines

    def _handshake_due(self, now: float) -> None:
        timeout = self._service.handshake_timeout
        self._service.refused(
            self._peer, f"it sent no valid greeting within {timeout:g} seconds", now
        )
        self._abort()

    def _write_stall_due(self, now: float) -> None:
        timeout = self._service.write_timeout
        self._abort(f"it took nothing of what it was sent for {timeout:g} seconds")

    def _batch_delay_due(self, now: float) -> None:
        self._notes.asks()
        self._wait()

    def _hold_due(self, now: float) -> None:
        self._close(now)

    def _catch_up_due(self, now: float) -> None:
        self._abort()

    def _info(self, fields: dict[str, object], message: str, *args: object) -> None:
        # While many are refused, nothing is told of those to whom nothing was sent.
        quiet = self._reader is None and self._service.is_quiet
        self._log.log(logging.DEBUG if quiet else logging.INFO, message, *args, extra=fields)
