"""The primary's end of a connection, joined to a source."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from zope.interface import implementer

from ..addresses import Address
from ..codec import PrimaryConnection
from ..errors import NotCarried, RemoteProtocolError, StartError
from ..interfaces import (
    IPrimarySession,
    IReplicationService,
    ITransactionReader,
    ITransactionSource,
)
from ..logs import Once, event
from ..messages import NO_TID, Commit, KeepAlive, PrimaryMessage, Start, Transaction
from ..options import ServiceOptions
from ..refusals import RefusalLog, RepeatLog
from ..status.peers import Peers
from ..tids import describe_tid
from .allowance import PER_SECOND, Allowance
from .log import PeerLog

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

#: Seconds between two checks of the storage's files.
CHECK_DELAY = 2.0

# Seconds after which a failure to send is news again. Secondaries try more often.
_FAILURE_MEMORY = 600.0

# Seconds for which a connection is held that is closed without anything sent, if its secondary is
# not refused: longer than `sessions.secondary.REFUSAL_TIME`.
_HOLD = 3.0

# How the first record of a peer that speaks TLS begins; as a length it would be above any limit.
_TLS_HANDSHAKE = b"\x16\x03"

_FLOODS = f"it sends more than {PER_SECOND} empty messages a second"

_LEFT = (
    "the secondary left without a word; if it does not accept this primary's certificate, its log "
    "tells why"
)


@implementer(IPrimarySession)
class PrimarySession:
    """The primary's end of one connection.

    :param peer: names the other end in the log.
    :param tls: whether the peer has seen a certificate of this end.
    :param refusals: keeps the log short when many are refused.
    :param failures: keeps it short when sending fails again and again.
    :param peers: has what is noted of this connection, for people to read.
    :param certificate: the name in the peer's certificate.
    :param once: remembers what all sessions of a service log once.
    """

    def __init__(
        self,
        source: ITransactionSource,
        peer: str,
        *,
        pickle_protocol: int,
        tls: bool = False,
        refusals: RefusalLog | None = None,
        failures: RepeatLog | None = None,
        peers: Peers | None = None,
        certificate: str | None = None,
        once: Once | None = None,
    ) -> None:
        self.finished = False
        self.rest = 0.0
        self._peers = Peers() if peers is None else peers
        self._notes = self._peers.add(peer, certificate)
        # The transaction that is under way.
        self._tid = NO_TID
        # True once something was sent; and if the next transaction cannot be sent.
        self._sent = self._stopped = False
        self._end: threading.Timer | None = None
        self._once = once or Once()
        self._tls = tls
        self._peer = peer
        self._refusals = refusals or RefusalLog(log)
        self._failures = failures or RepeatLog(_FAILURE_MEMORY)
        self._silent = True
        self._allowance = Allowance()
        self._source = source
        self._connection = PrimaryConnection(blobs=source.blobs, pickle_protocol=pickle_protocol)
        notes = self._notes
        self._log = PeerLog(log, peer, lambda: notes.position, lambda: notes.name)
        self._start: bytes | None = None
        # Guards the reader between `produce` and `close`.
        self._lock = threading.Lock()
        self._reader: ITransactionReader | None = None
        self._closed = False
        self._info(event("connected"), "Connected")

    @property
    def started(self) -> bool:
        return self._start is not None

    def receive_data(self, data: bytes) -> None:
        if self.finished:
            return
        self._silent = False
        self._allowance.refill()
        try:
            self._connection.receive_data(data)
            for message in self._connection.messages():
                match message:
                    case Start(tid=start):
                        self._notes.greeted(self._connection.dialect.word, start)
                        self._info(event("start"), "start %s", describe_tid(start))
                        self._start = start
                    case KeepAlive():
                        if not self._allowance.take():
                            self._refuse(_FLOODS)
                            return
                        self._log.debug("keep-alive", extra=event("keep-alive"))
        except RemoteProtocolError as error:
            if data.startswith(_TLS_HANDSHAKE):
                self._refuse("the peer speaks TLS, and this primary does not")
            else:
                self._refuse(error.reason)

    def receive_eof(self) -> None:
        # A secondary that will say no more (it never does so in half) is a secondary that left.
        self.finished = True

    def produce(self) -> list[bytes]:
        with self._lock:
            if self._closed or self.finished or self._start is None:
                return []
            try:
                if self._reader is None:
                    self._reader = self._source.open(self._start)
                self._notes.asks()
                batch = self._reader.read(BATCH_SIZE)
                return self._send(batch, at_end=self._reader.at_end)
            except StartError as error:
                self._refuse(str(error))
            except NotCarried as error:
                self._stop_before(error)
            except Exception as error:  # noqa: BLE001
                # Whatever goes wrong with the source must not take the transport's thread along,
                # and the secondary must not be left waiting for an answer.
                self.finished = True
                self._peers.failed(f"cannot go on sending: {error}", self._peer)
                self._log.log(
                    self._failures.level(f"{type(error).__name__}: {error}"),
                    "cannot go on sending: %s",
                    error,
                    exc_info=True,
                    extra=event("cannot-send", reason=error),
                )
                self._info(event("hanging-up"), "Closed")
            return []

    def _stop_before(self, error: NotCarried) -> None:
        """Close the connection before a transaction that cannot be sent.

        Secondaries take a connection that is closed at once, without anything sent, for a sign that
        this primary does not hold their last transaction. So it is held for a moment.
        """
        self._peers.failed(str(error), self._peer)
        level = logging.ERROR if self._once.add(str(error)) else logging.DEBUG
        fields = event("not-carried", tid=error.tid, reason=error.reason)
        self._log.log(level, "%s", error, extra=fields)
        if self._sent or self._start == NO_TID:
            self.finished = True
        else:
            self._stopped = True

    def _left_out(self, tid: bytes, reason: str) -> None:
        """Log that a transaction is sent without its extension."""
        if not self._once.add((tid, reason)):
            return
        text = f"the extension of transaction 0x{tid.hex()} was left out: {reason}"
        self._peers.failed(text, self._peer)
        self._log.error(
            "the extension of transaction %s cannot be replicated: %s; the transaction is "
            "replicated without it",
            describe_tid(tid),
            reason,
            extra=event("extension-left-out", tid=tid, reason=reason),
        )

    def _send(self, batch: list[PrimaryMessage], *, at_end: bool) -> list[bytes]:
        chunks = self._connection.send_all(batch, self._left_out)
        if not batch:
            self.rest = 0.0
            self._notes.has_all()
            return chunks
        commits, sent = 0, None
        for message in batch:
            kind = type(message)
            if kind is Commit:
                commits += 1
                sent = self._tid
            elif isinstance(message, Transaction):
                self._tid = message.tid
        self._sent = True
        rest = commits * len(self._peers) * _REST
        self.rest = min(rest, _LONGEST_REST) if at_end else 0.0
        self._notes.gets(commits, sum(map(len, chunks)), sent, self.rest)
        return chunks

    def wait(self, wake: Callable[[], None]) -> None:
        with self._lock:
            reader = None if self._closed else self._reader
        if reader is not None:
            self._notes.asks()
            if self._stopped:
                self._finish_later(wake)
                return
            self._notes.has_all()
            reader.wait(wake)

    def _finish_later(self, wake: Callable[[], None]) -> None:
        def finish() -> None:
            self.finished = True
            wake()

        if self._end is None:
            self._end = threading.Timer(_HOLD, finish)
            self._end.name = "zrs_core closing"
            self._end.daemon = True
            self._end.start()

    def close(self, reason: str) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = self.finished = True
            self._peers.remove(self._notes)
            if self._end is not None:
                self._end.cancel()
            if self._reader is not None:
                self._reader.close()
        if self._silent and self._tls and self._refusals.is_news(self._peer, _LEFT):
            # In TLS 1.3 the handshake is over here before the other end has looked at a name.
            self._log.warning(_LEFT, extra=event("left"))
        fields = event("disconnected", reason=reason)
        self._info(fields, "Disconnected (%s)%s", reason, self._log.last())

    def _refuse(self, reason: str) -> None:
        self.finished = True
        self._peers.refused(reason, self._peer)
        if self._refusals.is_news(self._peer, reason):
            # What a peer says may stand in it, which is no format.
            self._log.error("%s", reason, extra=event("refused", reason=reason))
        self._info(event("hanging-up"), "Closed")

    def _info(self, fields: dict[str, object], message: str, *args: object) -> None:
        # While many are refused, nothing is told of those to whom nothing was sent.
        quiet = self._reader is None and self._refusals.quiet
        self._log.log(logging.DEBUG if quiet else logging.INFO, message, *args, extra=fields)


@implementer(IReplicationService)
class ReplicationService:
    """What a listener serves.

    :param check: called by the listener every `check_delay` seconds. It must not wait.
    """

    def __init__(
        self,
        source: ITransactionSource,
        address: Address,
        reactor: object = None,
        options: ServiceOptions | None = None,
        check: Callable[[], object] = lambda: None,
    ) -> None:
        options = options or ServiceOptions()
        self.check_delay = CHECK_DELAY
        self._check = check
        self.address = address
        self.reactor = reactor
        self.tls = options.tls
        self.peer_timeout = options.peer_timeout
        self.socket_mode = options.socket_mode
        self.max_peers = options.max_peers
        self.handshake_timeout = options.handshake_timeout
        self.write_timeout = options.write_timeout
        self.require_tls = options.require_tls
        #: What is noted of connections, for people to read.
        self.peers = Peers()
        self._refusals = RefusalLog(log)
        self._failures = RepeatLog(_FAILURE_MEMORY)
        self._once = Once()
        self._source = source
        self._pickle_protocol = options.pickle_protocol

    def session(self, peer: str, certificate: str | None = None) -> PrimarySession:
        return PrimarySession(
            self._source,
            peer,
            pickle_protocol=self._pickle_protocol,
            tls=self.tls is not None,
            refusals=self._refusals,
            failures=self._failures,
            peers=self.peers,
            certificate=certificate,
            once=self._once,
        )

    def refused(self, peer: str, reason: str) -> None:
        self.peers.refused(reason, peer)
        if self._refusals.is_news(peer, reason):
            fields = event("refused", peer=peer, reason=reason)
            log.error("%s: refused (%s)", peer, reason, extra=fields)

    def check(self) -> None:
        try:
            self._check()
        except Exception:
            # The listener goes on.
            fields = event("cannot-check", address=self.address)
            log.exception("%s: cannot check the storage", self.address, extra=fields)

    def stopped(self) -> None:
        self._refusals.summarize()
