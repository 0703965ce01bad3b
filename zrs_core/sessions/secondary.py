"""The secondary's end of a connection, joined to a sink."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from zope.interface import implementer

from ..codec import SecondaryConnection
from ..codec.secondary import Incomplete
from ..errors import (
    LimitExceeded,
    NotComparable,
    NotWritten,
    OtherHistory,
    RemoteProtocolError,
)
from ..held import PACKED
from ..interfaces import IComparableSink, ISecondarySession
from ..logs import event
from ..messages import NO_TID, Commit, Hello, KeepAlive, PrimaryMessage, Start, Transaction
from ..progress import State
from ..resent import Resent
from ..tids import describe_tid
from .log import PeerLog

if TYPE_CHECKING:
    from .client import ReplicationClient

log = logging.getLogger("zrs_core.secondary")

# Seconds for which a secondary makes nothing visible at most, as long as more comes.
_LONGEST_HOLD = 0.1

# How the first record of a peer begins that speaks TLS and takes this end for a stranger; as a
# length it would be above any limit.
_TLS_ALERT = b"\x15\x03"

#: Seconds within which a primary closes the connection of a secondary that it refuses. The
#: protocol has no word for that: the primary closes, and sends nothing.
REFUSAL_TIME = 2.0

#: A primary that ends a session within so many seconds, without sending anything new, ends it
#: early; and so many early ends in a row are a failure.
EARLY = 10.0
EARLY_ENDS = 3

#: Seconds within which a primary must have begun to send a secondary's last transaction again.
ANSWER_TIME = 30.0

#: Seconds without data after which a secondary that is connected counts as having all that its
#: primary has, so that it shows the last of what a pack has left.
SETTLE_TIME = 5.0


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
        self._log = PeerLog(log, peer, lambda: client.progress.tid, lambda: client.name)
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
        # True once the session has made a transaction visible.
        self._has_applied = False
        self._silent = True
        # What has come in part, as it was last seen, and since when its message has.
        self._incomplete: Incomplete | None = None
        self._incomplete_since = 0.0
        # True while `receive_data` runs, perhaps in another thread than `keep_alive`.
        self._receiving = False
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
        if not self.finished and self._client.check_files() is not None:
            self._leave_files_alone()
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
        if not self._receiving:
            self._check_patience()
        if client.check_files() is None and self._is_served():
            client.served()
        client.settle(self._has_all)
        every = client.calls_per_message
        return self._connection.send(KeepAlive()) if every and not self._ticks % every else b""

    def _is_served(self) -> bool:
        """Whether the primary has refused nothing, where it has nothing to send either."""
        if self._resent is not None or self._doubt is not None or self.finished:
            return False
        early_ends = self._client.early_ends
        if self._greeted_at is None or not (self._silent or early_ends):
            return False
        age = time.monotonic() - self._greeted_at
        if early_ends:
            return age > EARLY and not self._client.progress.unfinished
        return age > REFUSAL_TIME

    def _has_all(self) -> bool:
        """Return True if the primary, which sends at once what it has, has nothing more to send."""
        progress = self._client.progress
        return (
            progress.state is State.REPLICATING
            and self._resent is None
            and self._doubt is None
            and not (self.finished or self._receiving or progress.unfinished)
            and progress.partial is None
            and (progress.quiet or 0.0) >= SETTLE_TIME
        )

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
        self._receiving = True
        try:
            self._receive(data, more)
        finally:
            self._receiving = False

    def _receive(self, data: bytes, more: Callable[[], bool]) -> None:
        if not data:
            if self._held_since is not None:
                self._apply(more)
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
        self._note_incomplete()
        self._check_patience()

    def _note_incomplete(self) -> None:
        """Note what has come in part."""
        progress, now = self._client.progress, time.monotonic()
        seen, self._incomplete = self._incomplete, self._connection.incomplete
        incomplete = self._incomplete
        if incomplete is None or self.finished:
            progress.partial_since = None
            return
        if seen is None or seen.after != incomplete.after:
            progress.partial_since = now
        if seen is None or seen.offset != incomplete.offset:
            self._incomplete_since = now

    def _check_patience(self) -> None:
        """Leave a connection on which a message does not become complete."""
        incomplete, seconds = self._incomplete, time.monotonic() - self._incomplete_since
        if incomplete is None or self.finished:
            return
        if self._client.patience.is_over(seconds, (incomplete.after, incomplete.size)):
            size = "" if incomplete.size is None else f" of {incomplete.size} bytes"
            self._finish(
                f"a message{size} after {describe_tid(incomplete.after)} is not complete after "
                f"{seconds:.0f} s, and {incomplete.received} bytes of it are here: its length may "
                "have been damaged on the way; will connect again, and wait longer if it is the "
                "same then"
            )

    def receive_eof(self) -> None:
        self._connection.receive_eof()
        if not self.finished:
            self._apply()
            self._check_refusal()
            self._check_end()
        self.finished = True

    def _check_end(self) -> None:
        """The primary has ended the session: it may be unable to send what comes next."""
        if self._greeted_at is None or self._told or self._has_applied:
            return
        age = time.monotonic() - self._greeted_at
        if self._silent and (self._resent is not None or age <= REFUSAL_TIME):
            # It has refused the start.
            return
        if age > EARLY:
            self._client.early_ends = 0
            return
        self._client.early_ends += 1
        if self._client.early_ends >= EARLY_ENDS:
            last = describe_tid(self._client.progress.tid)
            self._failed(
                logging.ERROR,
                f"the primary has closed {EARLY_ENDS} connections in a row without sending "
                f"anything after {last}: it cannot send what follows, or it is being restarted; "
                "its log has the reason",
            )

    def refused(self, reason: str) -> None:
        self._client.refused(reason)

    def _check_refusal(self) -> None:
        if not self._silent or self._greeted_at is None:
            return
        # Who compares is to be sent something at once, however slow the primary is; to one who asks
        # from the last transaction, it may well have nothing to send until the line is cut.
        longest = REFUSAL_TIME if self._resent is None else ANSWER_TIME
        if time.monotonic() - self._greeted_at > longest:
            self._client.progress.refusals = 0
            return
        start = describe_tid(self._start)
        refusal = f"closed the connection without sending anything after start {start}"
        if self._resent is not None:
            self._doubt_comparison(f"does not serve {start}", refused=True)
        elif self._start == NO_TID:
            self._failed(logging.WARNING, f"the primary {refusal}; its log tells why")
        elif self._client.found is not None:
            self._failed(logging.ERROR, self._client.found, State.DIVERGED)
        elif not self._client.search():
            blobs = "" if self._client.sink.blobs else " (or has blobs, and this secondary none)"
            self._failed(
                logging.ERROR,
                f"the primary {refusal}, as it does when it does not hold that transaction, or "
                f"none that is as late{blobs}; its log tells why. Check the address; to go on from "
                "this primary, keep the secondary's files if their newest transactions matter, and "
                "replicate into an empty storage",
                State.REFUSED,
            )
        # Last, so that it is known by then whether there is a search.
        self._client.progress.refusals += 1

    def _diverged(self, error: OtherHistory) -> None:
        compared = self._resent is not None
        found = self._client.found
        if found is None and self._client.search(error if compared else None):
            self.finished = self._told = True
            self._held_since = None
            self._info(event("hanging-up"), "Closed")
        else:
            self._finish(found or str(error), State.DIVERGED)

    def _leave_files_alone(self) -> None:
        """End the session: the storage's files are not in place, which is logged already."""
        self.finished = self._told = True
        self._held_since = None
        self._info(event("hanging-up"), "Closed")

    def _apply(self, more: Callable[[], bool] = lambda: False) -> None:
        if self._client.check_files() is not None:
            self._leave_files_alone()
            return
        try:
            try:
                self._apply_messages()
            except RemoteProtocolError as error:
                # What came whole before it counts.
                self._flush()
                self._finish(f"{error}{self._remedy(error)}")
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
            if self._connection.mismatch:
                self._finish(
                    f"transaction {describe_tid(error.sent)} came {error.what}, and with a "
                    "checksum that does not match it (check_checksums=ignore): it was damaged on "
                    "the way"
                )
            else:
                self._diverged(error)
        except Exception as error:  # noqa: BLE001
            # A full disk, a storage that was closed: what is not on disk is aborted and asked for
            # again later; what is known here is only that it cannot be applied now.
            where = ""
            if self._client.progress.unfinished:
                where = f" (transaction {describe_tid(self._next_tid)})"
            self._finish(f"cannot apply what was received: {error}{where}", exc_info=True)

    def _remedy(self, error: RemoteProtocolError) -> str:
        """Return the remedy for a record above this secondary's limit, empty for another error."""
        in_record = isinstance(error, LimitExceeded) and error.tid is not None
        if not in_record or f"at most {self._client.max_record_size} are" not in error.reason:
            return ""
        return "; if the primary holds a record of that size, raise max_record_size here"

    def _may_hold_back(self) -> bool:
        now = time.monotonic()
        if self._held_since is None:
            self._held_since = now
        return now - self._held_since < _LONGEST_HOLD

    def _flush(self) -> None:
        self._held_since = None
        if not self._has_turn:
            # The sink is still the session's before this one, which may be in the midst of it.
            return
        self._client.sink.flush()
        self._has_applied = self._has_applied or self._committed > 0
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
                if message.status == PACKED:
                    self._client.packed_begins(message.tid)

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
        self._info(event("replicating"), "the primary holds the same; replicating")
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
        news = self._client.session_failed(reason, state, comparing=self._resent is not None)
        level = level if news else logging.DEBUG
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
            try:
                self._info(fields, "Disconnected (%s)%s", reason, self._log.last())
            finally:
                # Whatever has failed, logging too: without it nobody would connect again.
                self._client.disconnected(reason, news=not self._told)

    def _give_up(self) -> None:
        try:
            if self._held_since is not None:
                # Nothing follows; what came whole counts.
                self._apply()
        finally:
            self._client.progress.unfinished = False
            self._client.progress.partial_since = None
            self._abort()

    def _abort(self) -> None:
        try:
            if self._resent is not None:
                self._resent.close()
            self._client.sink.abort()
        except Exception:  # noqa: BLE001
            self._log.exception(
                "cannot clean up after an unfinished transaction", extra=event("cannot-clean-up")
            )
        finally:
            try:
                # A database that is lost says so when it is asked again.
                with contextlib.suppress(Exception):
                    self._client.aborted()
            finally:
                # Whatever has failed: without it no session would apply again.
                self._has_turn = False
                self._client.turn.release()
