"""Sessions: a connection end joined to a source or a sink, which is what a transport drives.

A session has no I/O of its own and no thread: the transport calls it with what came in, and takes
from it what is to go out. It logs what happens to its connection, under `zrs_core.primary` or
`zrs_core.secondary`, and turns every failure into `finished`.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from zope.interface import implementer

from .addresses import Address
from .backoff import Backoff
from .codec import PrimaryConnection, SecondaryConnection
from .codec.dialects import ZRS_2_0, ZRS_2_1
from .errors import (
    NotComparable,
    NotWritten,
    OtherHistory,
    RemoteProtocolError,
    StartError,
)
from .interfaces import (
    IComparableSink,
    IPrimarySession,
    IReplicationClient,
    IReplicationService,
    ISecondarySession,
    ITransactionReader,
    ITransactionSink,
    ITransactionSource,
)
from .logs import event
from .messages import NO_TID, Commit, Hello, KeepAlive, PrimaryMessage, Start, Transaction
from .options import ClientOptions, ServiceOptions
from .progress import Progress, State
from .refusals import RefusalLog
from .resent import Resent
from .status.lag import secondary_status
from .status.peers import Peers
from .status.rates import Meter
from .status.state import SecondaryStatus
from .tids import describe_tid

primary_log = logging.getLogger("zrs_core.primary")
secondary_log = logging.getLogger("zrs_core.secondary")

#: Bytes of data in one batch for one secondary: what a primary holds in memory for each at most,
#: but for a single record that is larger.
BATCH_SIZE = 256 * 1024

# Seconds that a session rests for each transaction of a batch with which its secondary has caught
# up, and for all of them at most. What is committed meanwhile makes the next batch: at some hundred
# commits a second or more the rests grow, and a commit neither wakes every session nor waits for
# each of them to send it by itself. A commit that comes after the rest is sent at once.
_REST = 0.004
_LONGEST_REST = 0.02

# Seconds for which a secondary makes nothing visible at most, as long as more comes.
_LONGEST_HOLD = 0.1

# How the first record of a peer that speaks TLS begins; as a length it would be above any limit.
_TLS_HANDSHAKE = b"\x16\x03"
_TLS_ALERT = b"\x15\x03"

# Seconds between attempts to connect of a secondary that has stopped for good.
_STOPPED_DELAY = 3600.0

_LEFT = (
    "the secondary left without a word; if it does not accept this primary's certificate, its log "
    "tells why"
)

#: Seconds within which a primary closes the connection of a secondary that it refuses. The
#: protocol has no word for that: the primary closes, and sends nothing.
REFUSAL_TIME = 2.0

#: Seconds within which a primary must have begun to send a secondary's last transaction again.
ANSWER_TIME = 30.0

#: So many sessions that fail in a row are an alarm: from then on, the longest delay lies between
#: two attempts.
ALARM_AFTER = 5


if TYPE_CHECKING:
    _Adapter = logging.LoggerAdapter[logging.Logger]
else:
    # It takes no parameter before Python 3.11.
    _Adapter = logging.LoggerAdapter


class _Log(_Adapter):
    """Puts the peer in front of each message, and into the fields, with the position.

    :param position: the last transaction that has gone over the connection whole, or was there
        before; None or `NO_TID` if there is none.
    """

    def __init__(
        self, logger: logging.Logger, peer: str, position: Callable[[], bytes | None]
    ) -> None:
        super().__init__(logger)
        self._peer = peer
        self._position = position

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        fields = event(kwargs["extra"]["event"], peer=self._peer, tid=self._position())
        kwargs["extra"] = fields | kwargs["extra"]
        # As an argument, since the path of a Unix socket may have a % in it.
        self.logger.log(level, f"%s: {msg}", self._peer, *args, **kwargs)

    def last(self) -> str:
        """The position, to be put behind a text."""
        tid = self._position()
        return "" if tid is None or tid == NO_TID else f"; last is {describe_tid(tid)}"


@implementer(IPrimarySession)
class PrimarySession:
    """The primary's end of one connection.

    :param peer: names the other end in the log.
    :param tls: whether the peer has seen a certificate of this end.
    :param refusals: keeps the log short when many are refused.
    :param peers: has what is noted of this connection, for people to read.
    :param certificate: the name in the peer's certificate.
    """

    def __init__(
        self,
        source: ITransactionSource,
        peer: str,
        *,
        pickle_protocol: int,
        tls: bool = False,
        refusals: RefusalLog | None = None,
        peers: Peers | None = None,
        certificate: str | None = None,
    ) -> None:
        self.finished = False
        self.rest = 0.0
        self._peers = Peers() if peers is None else peers
        self._notes = self._peers.add(peer, certificate)
        # The transaction that is under way.
        self._tid = NO_TID
        self._tls = tls
        self._peer = peer
        self._refusals = refusals or RefusalLog(primary_log)
        self._silent = True
        self._source = source
        self._connection = PrimaryConnection(blobs=source.blobs, pickle_protocol=pickle_protocol)
        self._log = _Log(primary_log, peer, lambda: self._notes.position)
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
        try:
            self._connection.receive_data(data)
            for message in self._connection.messages():
                match message:
                    case Start(tid=start):
                        self._notes.greeted(self._connection.dialect.word, start)
                        self._info(event("start"), "start %s", describe_tid(start))
                        self._start = start
                    case KeepAlive():
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
            except Exception as error:  # noqa: BLE001
                # Whatever goes wrong with the source must not take the transport's thread along,
                # and the secondary must not be left waiting for an answer.
                self.finished = True
                self._peers.failed(f"cannot go on sending: {error}")
                self._log.exception(
                    "cannot go on sending: %s", error, extra=event("cannot-send", reason=error)
                )
                self._info(event("hanging-up"), "Closed")
            return []

    def _send(self, batch: list[PrimaryMessage], *, at_end: bool) -> list[bytes]:
        chunks = self._connection.send_all(batch)
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
        self.rest = min(commits * _REST, _LONGEST_REST) if at_end else 0.0
        self._notes.gets(commits, sum(map(len, chunks)), sent, self.rest)
        return chunks

    def wait(self, wake: Callable[[], None]) -> None:
        with self._lock:
            reader = None if self._closed else self._reader
        if reader is not None:
            reader.wait(wake)

    def close(self, reason: str) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = self.finished = True
            self._peers.remove(self._notes)
            if self._reader is not None:
                self._reader.close()
        if self._silent and self._tls and self._refusals.is_news(self._peer, _LEFT):
            # In TLS 1.3 the handshake is over here before the other end has looked at a name.
            self._log.warning(_LEFT, extra=event("left"))
        fields = event("disconnected", reason=reason)
        self._info(fields, "Disconnected (%s)%s", reason, self._log.last())

    def _refuse(self, reason: str) -> None:
        self.finished = True
        self._peers.refused(reason)
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
    """What a listener serves."""

    def __init__(
        self,
        source: ITransactionSource,
        address: Address,
        reactor: object = None,
        options: ServiceOptions | None = None,
    ) -> None:
        options = options or ServiceOptions()
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
        self._refusals = RefusalLog(primary_log)
        self._source = source
        self._pickle_protocol = options.pickle_protocol

    def session(self, peer: str, certificate: str | None = None) -> PrimarySession:
        return PrimarySession(
            self._source,
            peer,
            pickle_protocol=self._pickle_protocol,
            tls=self.tls is not None,
            refusals=self._refusals,
            peers=self.peers,
            certificate=certificate,
        )

    def refused(self, peer: str, reason: str) -> None:
        self.peers.refused(reason)
        if self._refusals.is_news(peer, reason):
            fields = event("refused", peer=peer, reason=reason)
            primary_log.error("%s: refused (%s)", peer, reason, extra=fields)

    def stopped(self) -> None:
        self._refusals.summarize()


@implementer(ISecondarySession)
class SecondarySession:
    """The secondary's end of one connection.

    :param peer: names the other end in the log.
    """

    def __init__(self, client: ReplicationClient, peer: str) -> None:
        self.finished = False
        self._client = client
        self._connection = SecondaryConnection(
            checksums=client.checksums, max_record_size=client.max_record_size
        )
        self._log = _Log(secondary_log, peer, lambda: client.progress.tid)
        self._has_turn = False
        self._closed = False
        self._start = NO_TID
        # What must come again before anything is applied.
        self._resent: Resent | None = None
        # Why it is not asked for, although it could be compared.
        self._doubt: Doubt | None = None
        # How often `keep_alive` was called.
        self._ticks = 0
        # Transactions that the sink has whole and was not yet told to make visible, and the tids
        # of the last of them and of the one that is under way.
        self._committed = 0
        self._tid = self._next_tid = NO_TID
        self._greeted_at: float | None = None
        self._silent = True
        # Since when something that was applied is held back from being made visible.
        self._held_since: float | None = None
        # One of several sessions that fail one after the other, of which the first was news.
        self._one_of_many = client.failing
        # Whether it was told why this session failed.
        self._told = False
        self._info(event("connected"), "Connected")

    def greeting(self) -> bytes:
        if self._client.progress.stopped is not None:
            self.finished = True
        if self._closed or self.finished:
            return b""
        if not self._client.turn.acquire(blocking=False):
            raise RuntimeError("the session before this one is not closed yet")
        self._has_turn = True
        self._client.progress.unapplied = 0
        word = self._client.protocol
        try:
            note = self._choose_start()
        except Exception as error:  # noqa: BLE001
            self._finish(f"cannot read what is held: {error}", exc_info=True)
            return b""
        self._greeted_at = time.monotonic()
        fields = event("start", start=self._start)
        self._info(fields, "start %s%s", describe_tid(self._start), note)
        refused = self._doubt is None or self._doubt.refused
        self._client.greeted(sure=self._resent is None and refused)
        return self._connection.send(Hello(word)) + self._connection.send(Start(self._start))

    def _choose_start(self) -> str:
        """Set what is asked for, and say what there is to say about it."""
        sink, limit = self._client.sink, self._client.max_compared_size
        last = self._start = sink.last_tid()
        doubt = self._client.take_doubt()
        if last == NO_TID or not limit or not IComparableSink.providedBy(sink):
            return ""
        if doubt is not None:
            self._doubt = doubt
            return f", not compared: the primary {doubt.why}"
        try:
            held = sink.last_transaction(limit)
        except NotComparable as error:
            return f", not compared: {error}"
        self._resent = Resent(held)
        self._start = held.before
        return f", the one before {describe_tid(last)}"

    def keep_alive(self) -> bytes:
        if self._greeted_at is None:
            # One that is about to close has greeted nobody.
            return b""
        client = self._client
        self._ticks += 1
        if self._ticks * client.keep_alive_delay >= ANSWER_TIME:
            self._check_answer()
        return self._connection.send(KeepAlive()) if client.sends_keep_alive else b""

    def _check_answer(self) -> None:
        if self._resent is not None and self._silent and not self.finished:
            why = f"has sent nothing after {describe_tid(self._start)}"
            self._doubt_comparison(why, refused=False)
            self.finished = True

    def _doubt_comparison(self, why: str, *, refused: bool) -> None:
        """The primary does not send again what is held: it may have packed that away."""
        self._client.doubt = Doubt(self._start, why, refused)
        fields = event("not-sent-again", reason=why)
        self._info(fields, "the primary %s; will ask from the last transaction itself", why)

    def receive_data(self, data: bytes, more: Callable[[], bool] = lambda: False) -> None:
        if self.finished or self._closed:
            return
        if self._silent and data.startswith(_TLS_ALERT):
            self._finish("the primary speaks TLS, and this secondary does not")
            return
        self._silent = False
        progress = self._client.progress
        progress.bytes += len(data)
        self._client.meter.add(0, len(data))
        progress.refusals = 0
        progress.heard()
        self._connection.receive_data(data)
        self._apply(more)

    def receive_eof(self) -> None:
        self._connection.receive_eof()
        if not self.finished:
            self._apply()
            self._check_refusal()
        self.finished = True

    def _check_refusal(self) -> None:
        if not self._silent or self._greeted_at is None:
            return
        # Who compares is to be sent something at once, however slow the primary is; to one who asks
        # from the last transaction, it may well have nothing to send until the line is cut.
        longest = REFUSAL_TIME if self._resent is None else ANSWER_TIME
        if time.monotonic() - self._greeted_at > longest:
            self._client.progress.refusals = 0
            return
        self._client.progress.refusals += 1
        start = describe_tid(self._start)
        refusal = f"closed the connection without sending anything after start {start}"
        if self._resent is not None:
            self._doubt_comparison(f"does not serve {start}", refused=True)
        elif self._start == NO_TID:
            self._failed(logging.WARNING, f"the primary {refusal}; its log tells why")
        else:
            blobs = "" if self._client.sink.blobs else " (or has blobs, and this secondary none)"
            self._failed(
                logging.ERROR,
                f"the primary {refusal}, as it does when it does not hold that transaction, or "
                f"none that is as late{blobs}; its log tells why. Check the address; to go on from "
                "this primary, keep the secondary's files if their newest transactions matter, and "
                "replicate into an empty storage",
                State.REFUSED,
            )

    def _apply(self, more: Callable[[], bool] = lambda: False) -> None:
        try:
            try:
                self._apply_messages()
            except RemoteProtocolError as error:
                # What came whole before it counts.
                self._flush()
                self._finish(str(error))
            else:
                if not (more() and self._may_hold_back()):
                    self._flush()
        except NotWritten as error:
            self._client.progress.stopped = error
            self._finish(f"stopped for good: {error}", State.STOPPED)
        except _CompareFirst:
            self._info(
                event("compare-first"), "the primary has something to send; will compare first"
            )
            self.finished = True
        except OtherHistory as error:
            self._finish(str(error), State.DIVERGED)
        except Exception as error:  # noqa: BLE001
            # A full disk, a storage that was closed: what is not on disk is aborted and asked for
            # again later; what is known here is only that it cannot be applied now.
            where = ""
            if self._client.progress.unfinished:
                where = f" (transaction {describe_tid(self._next_tid)})"
            self._finish(f"cannot apply what was received: {error}{where}", exc_info=True)

    def _may_hold_back(self) -> bool:
        now = time.monotonic()
        if self._held_since is None:
            self._held_since = now
        return now - self._held_since < _LONGEST_HOLD

    def _flush(self) -> None:
        self._held_since = None
        self._client.sink.flush()
        self._client.applied(self._committed, self._tid, self._next_tid)
        self._committed = 0

    def _apply_messages(self) -> None:
        apply = self._client.sink.apply
        messages = self._connection.messages()
        if self._resent is not None or self._doubt is not None:
            messages = self._new_ones(messages)
        for message in messages:
            apply(message)
            if isinstance(message, Commit):
                self._committed += 1
                self._tid = self._next_tid
                self._client.progress.unfinished = False
            elif isinstance(message, Transaction):
                self._next_tid = message.tid
                self._client.progress.begins(message.tid)
                self._client.progress.unfinished = True

    def _new_ones(self, messages: Iterable[PrimaryMessage]) -> Iterator[PrimaryMessage]:
        """Those that are to be applied, now that all before is known to be the same."""
        for message in messages:
            if self._resent is not None and self._is_resent(self._resent, message):
                continue
            if self._doubt is not None and isinstance(message, Commit):
                self._check_peer(self._doubt)
            yield message

    def _is_resent(self, resent: Resent, message: PrimaryMessage) -> bool:
        """Whether a message belongs to what is held already, and is the same."""
        found = resent.take(message)
        if resent.over:
            self._resent = None
            resent.close()
            for remark in resent.remarks:
                fields = event("compared", reason=remark)
                self._info(fields, "the last transaction was compared: %s", remark)
            self._compared()
        return found

    def _compared(self) -> None:
        """The primary holds what is held here."""
        self._log.debug("the primary holds the same; replicating", extra=event("replicating"))
        self._client.compared()

    def _check_peer(self, doubt: Doubt) -> None:
        """The first transaction is whole: does its primary look whether it holds a start?

        One of this package does, and has served the last transaction. zc.zrs does not; its pickles
        are of protocol 1.
        """
        if not doubt.refused:
            raise _CompareFirst
        if not self._connection.newer_pickles:
            last = self._start
            what = f"and {doubt.why}, so that nobody has seen whether it holds the last one"
            raise OtherHistory(doubt.before, last, self._next_tid, what)
        self._doubt = None
        self._compared()

    def _finish(self, reason: str, state: State = State.FAILING, *, exc_info: bool = False) -> None:
        self.finished = True
        # A sink that has failed is asked for nothing but to abort.
        self._held_since = None
        self._failed(logging.ERROR, reason, state, exc_info=exc_info)
        self._info(event("hanging-up"), "Closed")

    def _failed(
        self, level: int, reason: str, state: State = State.FAILING, *, exc_info: bool = False
    ) -> None:
        self._told = True
        # The same again is no news.
        level = level if self._client.session_failed(reason, state) else logging.DEBUG
        fields = event(state.value, reason=reason)
        self._log.log(level, "%s", reason, exc_info=exc_info, extra=fields)

    def _info(self, fields: dict[str, object], message: str, *args: object) -> None:
        again = self._one_of_many and self._client.failing
        self._log.log(logging.DEBUG if again else logging.INFO, message, *args, extra=fields)

    def close(self, reason: str) -> None:
        if self._closed:
            return
        self._closed = self.finished = True
        try:
            if self._has_turn:
                self._give_up()
        finally:
            fields = event("disconnected", reason=reason)
            self._info(fields, "Disconnected (%s)%s", reason, self._log.last())
            # Whatever has failed: without it nobody would connect again.
            self._client.disconnected(reason, news=not self._told)

    def _give_up(self) -> None:
        if self._held_since is not None:
            # Nothing follows; what came whole counts.
            self._apply()
        self._client.progress.unfinished = False
        try:
            if self._resent is not None:
                self._resent.close()
            self._client.sink.abort()
        except Exception:  # noqa: BLE001
            self._log.exception(
                "cannot clean up after an unfinished transaction", extra=event("cannot-clean-up")
            )
        finally:
            # A database that is lost says so when it is asked again.
            with contextlib.suppress(Exception):
                self._client.aborted()
            self._has_turn = False
            self._client.turn.release()


class Doubt(NamedTuple):
    """Why a primary was not asked to send a secondary's last transaction again.

    `before` is the one before that, from which it was asked last time; `why` is what it did then,
    and `refused` tells whether that was to refuse. If it was not, it serves the one before, and is
    asked from the last one only to find out whether it refuses that.
    """

    before: bytes
    why: str
    refused: bool


class _CompareFirst(Exception):
    """There is something to apply, from a primary that had nothing to send before."""


@implementer(IReplicationClient)
class ReplicationClient:
    """What a connector connects for.

    :param committed: called when transactions have been applied.
    """

    def __init__(
        self,
        sink: ITransactionSink,
        address: Address,
        reactor: object = None,
        options: ClientOptions | None = None,
        committed: Callable[[], object] = lambda: None,
    ) -> None:
        options = options or ClientOptions()
        self.sink = sink
        self._committed = committed
        self.max_record_size = options.max_record_size
        self.address = address
        self.reactor = reactor
        self.tls = options.tls
        self.peer_timeout = options.peer_timeout
        self.checksums = options.policy()
        self.max_compared_size = options.max_compared_size
        self.sends_keep_alive = options.keep_alive_delay > 0
        # Also without messages to send, a session looks at times whether it has an answer.
        self.keep_alive_delay = options.keep_alive_delay or ANSWER_TIME
        #: Why the next session is not to compare.
        self.doubt: Doubt | None = None
        self.progress = Progress(sink.last_tid())
        #: What has come, by the second.
        self.meter = Meter()
        #: The protocol word that sessions ask for.
        self.protocol = ZRS_2_1.word if sink.blobs else ZRS_2_0.word
        #: Held by the session that may apply.
        self.turn = threading.Lock()
        self._backoff = Backoff(*options.reconnect_bounds())
        # Attempts to connect that failed since the last one that did not.
        self._failed_attempts = 0
        # A session may still be applying when the next one begins.
        self._open_sessions = 0
        self._sessions_lock = threading.Lock()

    def status(self, transport: str) -> SecondaryStatus:
        """How it is going now. For any thread."""
        return secondary_status(
            self.progress,
            self.meter,
            primary_address=str(self.address),
            transport=transport,
            tls=self.tls is not None,
            protocol=self.protocol,
            # Not every sink counts them.
            blobs_written=getattr(self.sink, "blobs_written", 0),
            missing_blobs=getattr(self.sink, "missing_blobs", 0),
        )

    def session(self, peer: str, local_address: str | None = None) -> SecondarySession:
        if self._failed_attempts and not self.failing:
            secondary_log.info(
                "%s: connected again after %d failed attempt(s)",
                self.address,
                self._failed_attempts,
                extra=self._event("connected-again", failures=self._failed_attempts),
            )
        self._failed_attempts = 0
        self.progress.connections += 1
        self.progress.found(local_address)
        self._count_session(1)
        return SecondarySession(self, peer)

    @property
    def failing(self) -> bool:
        """Whether the last session failed, and nothing has been applied since."""
        return self.progress.failure is not None

    def take_doubt(self) -> Doubt | None:
        """Why the session that asks is not to compare; those after it may."""
        doubt, self.doubt = self.doubt, None
        return doubt

    def greeted(self, *, sure: bool) -> None:
        """A session has asked for transactions; `sure` if they are applied as they come."""
        if not self.failing:
            self.progress.state = State.REPLICATING if sure else State.COMPARING

    def compared(self) -> None:
        """The primary holds what is held here."""
        if self.progress.state in (State.REFUSED, State.DIVERGED):
            self._recovered()
        if not self.failing:
            self.progress.state = State.REPLICATING
            self._backoff.succeeded()

    def session_failed(self, reason: str, state: State = State.FAILING) -> bool:
        """A session failed. Whether that is news: the one before it failed for another reason."""
        progress = self.progress
        news = reason != progress.failure
        progress.failure, progress.state = reason, state
        progress.failed(reason)
        progress.failures += 1
        if progress.failures == ALARM_AFTER:
            self._backoff.exhausted()
            secondary_log.error(
                "%s: %d sessions in a row have failed for the reason above, and nothing was "
                "applied; will go on trying with the longest delay",
                self.address,
                progress.failures,
                extra=self._event("still-failing", failures=progress.failures, reason=reason),
            )
        return news

    def _event(self, name: str, **fields: object) -> dict[str, object]:
        return event(name, peer=self.address, tid=self.progress.tid, **fields)

    def _recovered(self) -> None:
        progress = self.progress
        if self.failing:
            secondary_log.info(
                "%s: replicating again after %d failed session(s)",
                self.address,
                progress.failures,
                extra=self._event("replicating-again", failures=progress.failures),
            )
        progress.failure = None
        progress.failures = 0
        progress.state = State.REPLICATING

    def applied(self, transactions: int, tid: bytes, begun: bytes) -> None:
        """A session has applied so many transactions, up to `tid`: all can see them.

        :param begun: the last one that it has received in part at least.
        """
        if not transactions:
            return
        self.meter.add(transactions, 0)
        self.progress.applied(transactions, tid, begun)
        if self._backoff.failures:
            self._backoff.succeeded()
        self._recovered()
        self._committed()

    def aborted(self) -> None:
        """A session has given up what is not visible; some may be that it has not told of."""
        last = self.sink.last_tid()
        if last > self.progress.tid:
            self.progress.tid = last
            self._committed()

    def disconnected(self, reason: str, *, news: bool) -> None:
        """A session has lost its connection; `news` if nothing was told of why before."""
        self._count_session(-1)
        self.progress.last_error = reason
        if news:
            self.progress.failed(reason)
        self._backoff.failed()

    def _count_session(self, change: int) -> None:
        with self._sessions_lock:
            self._open_sessions += change
            self.progress.connected = self._open_sessions > 0
            if not (self.progress.connected or self.failing):
                self.progress.state = State.CONNECTING

    def connection_failed(self, reason: str) -> None:
        self.progress.last_error = reason
        self.progress.failed(reason)
        if self._open_sessions:
            # In TLS 1.3 a primary refuses a certificate when the handshake is over here. For the
            # back-off the session itself counts.
            news = self.session_failed(reason)
        else:
            # Once is news; the attempts after it are not.
            news = not self._failed_attempts
            self._failed_attempts += 1
            self._backoff.failed()
        level = logging.WARNING if news else logging.DEBUG
        secondary_log.log(
            level,
            "%s: cannot connect (%s); will keep trying",
            self.address,
            reason,
            extra=self._event("cannot-connect", reason=reason),
        )

    def retry_delay(self) -> float:
        # There is nothing to be asked for any more.
        return self._backoff.delay() if self.progress.stopped is None else _STOPPED_DELAY
