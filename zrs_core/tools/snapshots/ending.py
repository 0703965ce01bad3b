"""Decides where a snapshot that is received from a primary may end.

The protocol has no message for the end of what a primary holds, and the times of tids prove nothing
about it: a clock may have been wrong. A snapshot ends at a transaction for which two things hold.

The database was in that state once. A pack during the transfer removes records from transactions
that were not sent yet, and a primary sends what is left. What was received is then a mixture until
all transactions that the pack went over have come. It marks those (status `p`), and they come
before all others. So a transaction without the mark is such a state. After one with the mark, more
of them may follow, unless the primary refuses the next tid as a start: it refuses a start that it
does not hold, but not within what was packed.

The primary had no more to send. Either nothing came for a while; or, where it commits all the time,
it was waited for: what came within some seconds is asked for again, and if that and storing it take
less than half of these seconds, the primary had nothing to send for the rest of them.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Final, NamedTuple

from ZODB.utils import p64, u64

from ...errors import ReplicationError, Unverifiable
from ...held import PACKED
from ...messages import MAX_TID, NO_TID
from ...sessions import REFUSAL_TIME
from ..verify.stream import PrimaryStream
from .receiving import Receiver

# Seconds of which the transactions are asked for again.
_WINDOW: Final = 2.0

# Such windows in a row in which the primary was waited for: this process, or the primary, may have
# been stopped in one of them.
_WINDOWS_NEEDED: Final = 2

# Seconds after an answer that does not allow an end before the next question, at least and at most.
_PAUSES: Final = (1.0, 60.0)

# Questions in a row that the primary did not answer, after which it is given up.
_MOST_FAILURES: Final = 5


class _Mark(NamedTuple):
    time: float
    tid: bytes
    busy: float


class Ending:
    """Decides whether the reception of a primary's history may end now.

    :param waiting: called while the primary is waited for; what it raises ends the wait.
    """

    def __init__(self, receiver: Receiver, waiting: Callable[[], None]) -> None:
        self._receiver = receiver
        self._waiting = waiting
        # A transaction with the mark of a pack that no other one with it follows.
        self._proven: bytes | None = None
        self._mark: _Mark | None = None
        self._windows = 0
        self._failures = 0
        self._pause = _PAUSES[0]
        self._next_question = 0.0

    def is_state(self) -> bool:
        """Return True if the database was once in the state that was received.

        :raises ReplicationError: the primary cannot be asked.
        """
        last = self._receiver.received
        if last.status != PACKED or last.tid == self._proven:
            return True
        if not self._may_ask() or not self._ask(lambda: self._is_last_packed(last.tid)):
            return False
        self._proven = last.tid
        return True

    def has_kept_up(self) -> bool:
        """Return True if the primary was waited for lately. To be asked often.

        :raises ReplicationError: the primary cannot be asked.
        """
        last, busy, now = self._receiver.received, self._receiver.busy, time.monotonic()
        mark = self._mark
        if mark is None or last.packed > mark.tid:
            self._mark = None if last.tid == NO_TID else _Mark(now, last.tid, busy)
            self._windows = 0
            return False
        if now - mark.time < _WINDOW or last.tid == mark.tid or not self._may_ask():
            return False
        limit = (now - mark.time) / 2 - (busy - mark.busy)
        kept_up = limit > 0 and self._ask(lambda: self._comes_within(mark.tid, last.tid, limit))
        self._windows = self._windows + 1 if kept_up else 0
        self._mark = _Mark(time.monotonic(), last.tid, self._receiver.busy)
        return self._windows >= _WINDOWS_NEEDED

    # -- questions

    def _may_ask(self) -> bool:
        return time.monotonic() >= self._next_question

    def _ask(self, question: Callable[[], bool]) -> bool:
        try:
            answer = question()
            self._failures = 0
        except Unverifiable as error:
            answer = False
            self._failures += 1
            if self._failures >= _MOST_FAILURES:
                raise ReplicationError(
                    f"{error}; it is asked over another connection whether the snapshot may end"
                ) from error
        if answer:
            self._pause = _PAUSES[0]
        else:
            self._next_question = time.monotonic() + self._pause
            self._pause = min(2 * self._pause, _PAUSES[1])
        return answer

    def _is_last_packed(self, tid: bytes) -> bool:
        if tid >= MAX_TID:
            return True
        with contextlib.closing(self._stream(tid, tid, REFUSAL_TIME)) as stream:
            # A proxy before a primary that is gone closes connections too: this one stays open.
            return stream.refuses(p64(u64(tid) + 1)) and stream.next_header() is None

    def _comes_within(self, start: bytes, last: bytes, seconds: float) -> bool:
        with contextlib.closing(self._stream(start, last, seconds)) as stream:
            begin = time.monotonic()
            while time.monotonic() - begin < seconds:
                header = stream.next_header()
                if header is None:
                    break
                for _ in stream.records(header):
                    pass
            return stream.tid >= last and time.monotonic() - begin < seconds

    def _stream(self, start: bytes, expected: bytes, wait: float) -> PrimaryStream:
        return PrimaryStream(
            self._receiver.address,
            self._receiver.options.tls,
            expected=expected,
            wait=wait,
            common=start != expected,
            waiting=self._waiting,
            start=start,
        )
