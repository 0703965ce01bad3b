"""The secondary's end of a connection, joined to a sink."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import NamedTuple

from zope.interface import implementer

from ..codec import SecondaryConnection
from ..codec.secondary import Incomplete
from ..errors import LimitExceeded, NotWritten, OtherHistory, RemoteProtocolError
from ..interfaces import ISession
from ..logs import event
from ..messages import NO_TID, Hello, KeepAlive, Start
from ..progress import State
from ..tids import describe_tid
from .applying import Applied, Applier
from .check import Check, CheckEvent, CheckState, CompareFirst, Confirmed, Different
from .deadlines import Deadline
from .following import Following
from .log import PeerLog
from .machine import CLOSE, CLOSED_THERE, Machine

log = logging.getLogger("zrs_core.secondary")

# How the first record of a peer begins that speaks TLS and takes this end for a stranger; as a
# length it would be above any limit.
_TLS_ALERT = b"\x15\x03"

#: So many sessions in a row that the primary ends early are a failure.
EARLY_ENDS = 3

KEEP_ALIVE = Deadline(
    "keep-alive",
    "the session has sent its start, or a keep-alive, for `keep_alive_delay`",
    "a keep-alive is sent",
)
ANSWER = Deadline(
    "answer",
    "the session has asked for its last transaction again, for 30 seconds",
    "if the primary has sent nothing, the session ends, and the next one asks from there",
)
SERVED = Deadline(
    "served",
    "the session has sent its start, for 2 seconds, or 10 after sessions that ended early",
    "a primary that has not closed the connection serves the start: earlier refusals are over",
)
MESSAGE = Deadline(
    "message",
    "a message comes in part, for `peer_timeout`, and longer if it has come again like that",
    "the connection is closed: the length of the message may be damaged",
)
HOLD = Deadline(
    "hold",
    "something was applied that is not visible, since more had come already, for 0.1 seconds",
    "what was applied is made visible",
)
SETTLE = Deadline(
    "settle",
    "the primary has sent something, for 5 seconds",
    "the secondary has all that its primary has: the end of what a pack has left is shown",
)
CHECK_FILES = Deadline(
    "check files",
    "the session has sent its start, or has checked, for 2 seconds",
    "the storage's files are checked",
)

#: All deadlines of a secondary's session.
SECONDARY_DEADLINES = (KEEP_ALIVE, ANSWER, SERVED, MESSAGE, HOLD, SETTLE, CHECK_FILES, CLOSE)


class Found(NamedTuple):
    """The state of the search for the last common transaction.

    :param divergence: what it has found, for people; None if it has found nothing.
    :param searches: True if the next sessions search.
    """

    divergence: str | None
    searches: bool


@implementer(ISession)
class SecondarySession(Machine):
    """The secondary's end of one connection.

    :param peer: the name of the other end in the log.
    :param now: the time.
    :param readable: returns True if more can be read from the connection at once.
    """

    def __init__(
        self,
        client: Following,
        peer: str,
        now: float,
        readable: Callable[[], bool] = lambda: False,
    ) -> None:
        super().__init__(
            peer,
            {
                KEEP_ALIVE: self._keep_alive_due,
                ANSWER: self._answer_due,
                SERVED: self._served_due,
                MESSAGE: self._message_due,
                HOLD: self._hold_due,
                SETTLE: self._settle_due,
                CHECK_FILES: self._check_files_due,
            },
            client.times.close,
        )
        self._client = client
        self._readable = readable
        self._connection = SecondaryConnection(
            checksums=client.checksums, max_record_size=client.max_record_size
        )
        self._applier = Applier(client, self._connection, self._confirmed)
        self._log = PeerLog(log, peer, lambda: client.progress.tid, lambda: client.name)
        # None before the start is chosen.
        self._check: Check | None = None
        # When the start was sent; None before that.
        self._greeted_at: float | None = None
        # What has come and was not handed to the applier; True if the peer sends nothing more.
        self._received: list[bytes] = []
        self._eof = False
        # True as long as the peer has sent nothing.
        self._silent = True
        # True once the session has made a transaction visible.
        self._has_applied = False
        # What has come in part, as it was last seen, and since when its message has.
        self._incomplete: Incomplete | None = None
        self._incomplete_since = 0.0
        # Until when what was applied may be held back; None if nothing is.
        self._hold_until: float | None = None
        # True once a reason to end was found here: nothing more is applied.
        self._ended = False
        # One of several sessions that fail one after the other, of which the first was news.
        self._one_of_many = client.failing
        # True if the log tells already why this session failed.
        self._told = False
        self._info(event("connected"), "Connected")
        if client.progress.stopped is not None:
            self._ended = True
            self._close(now)
        elif client.check_files() is not None:
            self._leave_files_alone(now)
        else:
            client.progress.unapplied = 0
            self._do(self._applier.prepare, self._prepared, self._cannot_prepare)

    # -- the start

    def _prepared(self, check: Check, now: float) -> None:
        self._check = check
        if self._closing or self._lost:
            return
        if self._eof:
            self._close(now, CLOSED_THERE)
            return
        self._greeted_at = now
        start = check.start
        self._info(event("start", start=start), "start %s%s", describe_tid(start), check.note)
        sure = check.is_over or check.state is CheckState.UNCONFIRMED
        self._client.greeted(sure=sure)
        hello = Hello(self._client.protocol)
        self._send([self._connection.send(hello) + self._connection.send(Start(start))])
        times = self._client.times
        if self._client.keep_alive_delay:
            self._timers.set(KEEP_ALIVE, now + self._client.keep_alive_delay)
        if check.state is CheckState.ASKING:
            self._timers.set(ANSWER, now + times.answer)
        self._timers.set(SERVED, now + (times.early if self._client.early_ends else times.refusal))
        self._timers.set(SETTLE, now + times.settle)
        self._timers.set(CHECK_FILES, now + times.check)

    def _cannot_prepare(self, error: BaseException, now: float) -> None:
        self._fail(f"cannot read what is held: {error}", now, exc_info=error)

    # -- what comes

    @property
    def wants_data(self) -> bool:
        return super().wants_data and not self._working

    def _on_data(self, data: bytes, now: float) -> None:
        if not data:
            return
        if self._silent and data.startswith(_TLS_ALERT):
            self._fail("the primary speaks TLS, and this secondary does not", now)
            return
        self._silent = False
        if self._check is not None:
            self._check.happens(CheckEvent.DATA)
        progress = self._client.progress
        progress.bytes += len(data)
        self._client.meter.add(0, len(data))
        progress.refusals = 0
        progress.heard()
        self._timers.set(SETTLE, now + self._client.times.settle)
        self._received.append(data)
        self._apply(now)

    def _on_eof(self, now: float) -> None:
        self._eof = True
        self._apply(now)

    def _apply(self, now: float) -> None:
        """Have what has come applied, unless that is being done."""
        if self._working or self._check is None:
            return
        if self._client.check_files() is not None:
            self._leave_files_alone(now)
            return
        received, self._received = self._received, []
        eof = self._eof
        may_hold = not eof and (self._hold_until is None or now < self._hold_until)

        def apply() -> Applied:
            return self._applier.apply(received, lambda: may_hold and self._readable(), eof=eof)

        def then(applied: Applied, now: float) -> None:
            self._has_applied_some(applied, now, eof=eof)

        self._do(apply, then, self._cannot_apply)

    def _has_applied_some(self, applied: Applied, now: float, *, eof: bool) -> None:
        self._has_applied = self._has_applied or applied.transactions > 0
        self._note_held_back(now, holds=applied.holds)
        self._note_incomplete(applied.incomplete, now)
        match applied.end:
            case None:
                pass
            case RemoteProtocolError() as error:
                self._fail(f"{error}{self._remedy(error)}", now)
            case CompareFirst():
                what = "the primary has something to send; will compare first"
                self._info(event("compare-first"), what)
                self._end(now)
            case Different() as different:
                self._is_different(different, now)
        if self._ended:
            return
        if eof:
            self._peer_has_closed(now)
        else:
            self._go_on(now)

    def _go_on(self, now: float) -> None:
        """Apply what has come meanwhile."""
        if (self._received or self._eof) and not self._ended:
            self._apply(now)

    def _note_held_back(self, now: float, *, holds: bool) -> None:
        if not holds:
            self._hold_until = None
            self._timers.clear(HOLD)
            return
        if self._hold_until is None:
            self._hold_until = now + self._client.times.hold
        self._timers.set(HOLD, self._hold_until)

    def _confirmed(self, confirmed: Confirmed) -> None:
        """The primary holds what is held here. Called within work."""
        for remark in confirmed.remarks:
            fields = event("compared", reason=remark)
            self._info(fields, "the last transaction was compared: %s", remark)
        self._info(event("replicating"), "the primary holds the same; replicating")
        self._client.compared()

    def _cannot_apply(self, error: BaseException, now: float) -> None:
        if isinstance(error, NotWritten):
            self._client.progress.stopped = error
            self._fail(f"stopped for good: {error}", now, State.STOPPED)
            return
        # A full disk, a storage that was closed: what is not on disk is aborted and asked for
        # again later; what is known here is only that it cannot be applied now.
        where = ""
        if self._client.progress.unfinished:
            where = f" (transaction {describe_tid(self._applier.position.begun)})"
        self._fail(f"cannot apply what was received: {error}{where}", now, exc_info=error)

    def _remedy(self, error: RemoteProtocolError) -> str:
        """Return the remedy for a record above this secondary's limit, empty for another error."""
        in_record = isinstance(error, LimitExceeded) and error.tid is not None
        if not in_record or f"at most {self._client.max_record_size} are" not in error.reason:
            return ""
        return "; if the primary holds a record of that size, raise max_record_size here"

    def _note_incomplete(self, incomplete: Incomplete | None, now: float) -> None:
        """Note what has come in part."""
        progress = self._client.progress
        seen, self._incomplete = self._incomplete, incomplete
        if incomplete is None or self._ended:
            progress.partial_since = None
            self._timers.clear(MESSAGE)
            return
        if seen is None or seen.after != incomplete.after:
            progress.partial_begins()
        if seen is None or seen.offset != incomplete.offset:
            self._incomplete_since = now
        self._timers.set(MESSAGE, self._incomplete_since + self._client.patience.limit)

    # -- the primary refuses, or holds something else

    def _peer_has_closed(self, now: float) -> None:
        client, check = self._client, self._check
        if not self._silent or self._greeted_at is None or check is None:
            self._end_early(now)
            return
        # Who compares is to be sent something at once, however slow the primary is; to one who asks
        # from the last transaction, it may well have nothing to send until the line is cut.
        longest = client.times.answer if check.compares else client.times.refusal
        if now - self._greeted_at > longest:
            client.progress.refusals = 0
            self._end_early(now)
        elif check.compares:
            check.happens(CheckEvent.CLOSED)
            self._doubt()
            client.progress.refusals += 1
            self._end_early(now)
        elif check.start == NO_TID:
            self._is_refused(check.start, None, now)
        else:
            self._search(None, lambda found, now: self._is_refused(check.start, found, now))

    def _is_refused(self, start: bytes, found: Found | None, now: float) -> None:
        """The primary has refused the start; `found` tells what a search has found about it."""
        refusal = (
            f"closed the connection without sending anything after start {describe_tid(start)}"
        )
        if found is None:
            self._failed(logging.WARNING, f"the primary {refusal}; its log tells why")
        elif found.divergence is not None:
            self._failed(logging.ERROR, found.divergence, State.DIVERGED)
        elif not found.searches:
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
        self._end_early(now)

    def _search(
        self, difference: OtherHistory | None, then: Callable[[Found, float], None]
    ) -> None:
        """Begin a search for the last common transaction, unless one has ended already."""
        client = self._client

        def look() -> Found:
            divergence = client.found
            return Found(divergence, divergence is None and client.search(difference))

        self._do(look, then, self._cannot_apply)

    def _end_early(self, now: float) -> None:
        """The primary has closed the connection: it may be unable to send what comes next."""
        self._check_early_end(now)
        self._end(now, CLOSED_THERE)

    def _check_early_end(self, now: float) -> None:
        if self._greeted_at is None or self._told or self._has_applied or self._check is None:
            return
        client, age = self._client, now - self._greeted_at
        if self._silent and (self._check.compares or age <= client.times.refusal):
            # It has refused the start.
            return
        if age > client.times.early:
            client.early_ends = 0
            return
        client.early_ends += 1
        if client.early_ends >= EARLY_ENDS:
            last = describe_tid(client.progress.tid)
            self._failed(
                logging.ERROR,
                f"the primary has closed {EARLY_ENDS} connections in a row without sending "
                f"anything after {last}: it cannot send what follows, or it is being restarted; "
                "its log has the reason",
            )

    def _doubt(self) -> None:
        """The primary does not send again what is held: it may have packed that away."""
        doubt = None if self._check is None else self._check.doubt()
        if doubt is not None:
            self._client.doubt = doubt
            fields = event("not-sent-again", reason=doubt.why)
            text = "the primary %s; will ask from the last transaction itself"
            self._info(fields, text, doubt.why)

    def _is_different(self, different: Different, now: float) -> None:
        error: OtherHistory = different.error
        if self._connection.mismatch:
            self._fail(
                f"transaction {describe_tid(error.sent)} came {error.what}, and with a "
                "checksum that does not match it (check_checksums=ignore): it was damaged on "
                "the way",
                now,
            )
            return
        # Nothing more is applied meanwhile.
        self._ended = True

        def then(found: Found, now: float) -> None:
            if found.searches:
                self._told = True
                self._info(event("hanging-up"), "Closed")
                self._end(now)
            else:
                self._fail(found.divergence or str(error), now, State.DIVERGED)

        self._search(error if different.compared else None, then)

    def refused(self, reason: str, now: float) -> None:
        """The peer has refused this end by TLS; `reason` is for the log.

        In TLS 1.3 the handshake is over here before the peer has looked at a certificate.
        """
        if not (self._closing or self._lost):
            self._ended = True
            self._client.refused(reason)
            self._abort(reason)

    # -- deadlines

    def _keep_alive_due(self, now: float) -> None:
        self._timers.set(KEEP_ALIVE, now + self._client.keep_alive_delay)
        if not self._unsent:
            self._send([self._connection.send(KeepAlive())])

    def _answer_due(self, now: float) -> None:
        if self._check is not None and self._check.state is CheckState.ASKING:
            self._check.happens(CheckEvent.TIMEOUT)
            self._doubt()
            self._end(now)

    def _served_due(self, now: float) -> None:
        self._timers.set(SERVED, now + self._client.times.check)
        client = self._client
        early_ends = client.early_ends
        checked = self._check is not None and self._check.is_over
        quiet = self._silent or early_ends > 0
        whole = not (early_ends and client.progress.unfinished)
        if checked and quiet and whole and client.check_files() is None:
            client.served()

    def _message_due(self, now: float) -> None:
        """Leave a connection on which a message does not become complete."""
        incomplete = self._incomplete
        if incomplete is None:
            return
        if self._working:
            self._timers.set(MESSAGE, now + self._client.times.check)
            return
        patience, seconds = self._client.patience, now - self._incomplete_since
        if now >= self._incomplete_since + patience.limit:
            # As the deadline was computed: the difference may be smaller by a rounding error.
            seconds = max(seconds, patience.limit)
        if not patience.is_over(seconds, (incomplete.after, incomplete.size)):
            self._timers.set(MESSAGE, self._incomplete_since + patience.limit)
            return
        size = "" if incomplete.size is None else f" of {incomplete.size} bytes"
        self._fail(
            f"a message{size} after {describe_tid(incomplete.after)} is not complete after "
            f"{seconds:.0f} s, and {incomplete.received} bytes of it are here: its length may "
            "have been damaged on the way; will connect again, and wait longer if it is the "
            "same then",
            now,
        )

    def _hold_due(self, now: float) -> None:
        if self._working:
            # It is looked at when that is done.
            return

        def then(transactions: int, now: float) -> None:
            self._has_applied = self._has_applied or transactions > 0
            self._note_held_back(now, holds=False)
            self._go_on(now)

        self._do(self._applier.flush, then, self._cannot_apply)

    def _settle_due(self, now: float) -> None:
        client, progress = self._client, self._client.progress
        self._timers.set(SETTLE, now + client.times.settle)
        has_all = (
            progress.state is State.REPLICATING
            and self._check is not None
            and self._check.is_over
            and not (self._working or progress.unfinished)
            and self._incomplete is None
        )
        if has_all and progress.incomplete:
            self._do(client.settle, lambda _, now: self._go_on(now), self._cannot_apply)

    def _check_files_due(self, now: float) -> None:
        self._timers.set(CHECK_FILES, now + self._client.times.check)
        self._client.check_files()

    # -- the end

    def _end(self, now: float, reason: str | None = None) -> None:
        """Close the connection; nothing more is applied."""
        self._ended = True
        if reason is None:
            self._close(now)
        else:
            self._close(now, reason)

    def _fail(
        self,
        reason: str,
        now: float,
        state: State = State.FAILING,
        *,
        exc_info: BaseException | None = None,
    ) -> None:
        self._failed(logging.ERROR, reason, state, exc_info=exc_info)
        self._info(event("hanging-up"), "Closed")
        self._end(now)

    def _leave_files_alone(self, now: float) -> None:
        """End the session: the storage's files are not in place, which is logged already."""
        self._told = True
        self._info(event("hanging-up"), "Closed")
        self._end(now)

    def _failed(
        self,
        level: int,
        reason: str,
        state: State = State.FAILING,
        *,
        exc_info: BaseException | None = None,
    ) -> None:
        self._told = True
        comparing = self._check is not None and self._check.compares
        # The same again is no news.
        news = self._client.session_failed(reason, state, comparing=comparing)
        level = level if news else logging.DEBUG
        fields = event(state.value, reason=reason)
        self._log.log(level, "%s", reason, exc_info=exc_info, extra=fields)

    def _info(self, fields: dict[str, object], message: str, *args: object) -> None:
        again = self._one_of_many and self._client.failing
        self._log.log(logging.DEBUG if again else logging.INFO, message, *args, extra=fields)

    def _on_lost(self, reason: str, now: float) -> None:
        if self._check is None:
            # Nothing was begun.
            self._disconnect(reason)
            return
        if self._ended:
            self._give_up(reason)
            return
        # What came whole counts. Unless this end has closed, the primary has.
        received, self._received = self._received, []
        eof = not self._closing

        def then(applied: Applied, now: float) -> None:
            self._has_applied_some(applied, now, eof=eof)
            self._give_up(reason)

        def otherwise(error: BaseException, now: float) -> None:
            self._cannot_apply(error, now)
            self._give_up(reason)

        self._do(lambda: self._applier.apply(received, lambda: False, eof=eof), then, otherwise)

    def _give_up(self, reason: str) -> None:
        progress = self._client.progress
        progress.unfinished = False
        progress.partial_since = None

        def otherwise(error: BaseException, now: float) -> None:
            fields = event("cannot-clean-up")
            text = "cannot clean up after an unfinished transaction"
            self._log.error(text, exc_info=error, extra=fields)
            self._disconnect(reason)

        self._do(self._applier.abort, lambda _, now: self._disconnect(reason), otherwise)

    def _disconnect(self, reason: str) -> None:
        try:
            fields = event("disconnected", reason=reason)
            self._info(fields, "Disconnected (%s)%s", reason, self._log.last())
        finally:
            # Whatever has failed, logging too: without it nothing would connect again.
            self._client.disconnected(reason, news=not self._told)
            self._finish()
