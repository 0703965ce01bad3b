"""The check whether a primary holds what its secondary holds, as a state machine.

A primary of zc.zrs serves any start that is not later than its last transaction, whether it holds
that or not. So a secondary asks from the transaction before its last one, and applies nothing until
the primary has sent its last one again, as it is held. Not every secondary can: and some primaries
have packed that transaction away. Then the secondary asks from its last transaction itself, and
looks at the first thing that comes.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from ..errors import NotComparable, OtherHistory
from ..interfaces import IComparableSink, ITransactionSink
from ..messages import NO_TID, Commit, PrimaryMessage, Transaction
from ..resent import Resent
from ..tids import describe_tid


class CheckState(enum.Enum):
    """A state of the check; the value describes it."""

    ASKING = "the primary was asked to send the last transaction again, and has sent nothing"
    COMPARING = "the primary sends the last transaction again"
    UNCONFIRMED = (
        "the primary has refused the transaction before the last one; the first transaction that "
        "it sends after the last one shows whether it looks for a start"
    )
    WITHHOLDING = (
        "the primary has sent nothing after the transaction before the last one; when it sends "
        "something after the last one, that is compared first, on another connection"
    )
    SKIPPED = "there is nothing to compare, or comparing is off: what comes is applied"
    CONFIRMED = "the primary holds what is held here: what comes is applied"
    REFUSED = "the primary refuses the transaction before the last one; the session ends"
    UNANSWERED = "the primary does not send the last transaction again; the session ends"
    COMPARE_FIRST = "something is to be compared before it is applied; the session ends"
    DIFFERENT = "the primary holds another history; the session ends"


class CheckEvent(enum.Enum):
    """An event that the check looks at; the value describes it."""

    DATA = "the first bytes come"
    SAME = "the last transaction has come as it is held, or a pack explains why not"
    DIFFERS = "something else has come than is held"
    VOUCHED = "a first transaction is complete, from a primary that looks for a start"
    UNVOUCHED = "a first transaction is complete, from a primary that does not look"
    CLOSED = "the primary closes without having sent anything"
    TIMEOUT = "the answer time is over"


_S, _E = CheckState, CheckEvent

#: The next state for each state and event. Other events change nothing.
CHECK_TABLE: dict[CheckState, dict[CheckEvent, CheckState]] = {
    _S.ASKING: {
        _E.DATA: _S.COMPARING,
        _E.CLOSED: _S.REFUSED,
        _E.TIMEOUT: _S.UNANSWERED,
    },
    _S.COMPARING: {_E.SAME: _S.CONFIRMED, _E.DIFFERS: _S.DIFFERENT},
    _S.UNCONFIRMED: {_E.VOUCHED: _S.CONFIRMED, _E.UNVOUCHED: _S.DIFFERENT},
    _S.WITHHOLDING: {_E.VOUCHED: _S.COMPARE_FIRST, _E.UNVOUCHED: _S.COMPARE_FIRST},
}


class Doubt(NamedTuple):
    """The reason why the next session does not ask for the last transaction again.

    :param before: the transaction before the last one, from which the primary was asked.
    :param why: what the primary did then, for the log.
    :param refused: True if it refused that start. Otherwise it serves it and had nothing to send.
    """

    before: bytes
    why: str
    refused: bool


@dataclass(frozen=True, slots=True)
class Apply:
    """The message is to be applied."""


@dataclass(frozen=True, slots=True)
class Held:
    """The message belongs to what is held already."""


@dataclass(frozen=True, slots=True)
class Confirmed:
    """The primary holds what is held here.

    :param applies: True if the message is to be applied, False if it belongs to what is held.
    :param remarks: what could not be compared, and why, for the log.
    """

    applies: bool
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CompareFirst:
    """The primary has something to send; it is to be compared first, on another connection."""


@dataclass(frozen=True, slots=True)
class Different:
    """The primary holds another history.

    :param compared: True if the last transaction was sent again, so that the search for the last
        common transaction knows what came.
    """

    error: OtherHistory
    compared: bool


Outcome: TypeAlias = Apply | Held | Confirmed | CompareFirst | Different

_APPLY, _HELD = Apply(), Held()


class Check:
    """The check of one session.

    :param sink: reads the last transaction; this may wait for a disk.
    :param limit: the most bytes of a last transaction that is compared; 0 to compare none.
    :param doubt: what the session before this one has found, if that is to be heeded.
    :raises OSError: the last transaction cannot be read.
    """

    def __init__(self, sink: ITransactionSink, limit: int, doubt: Doubt | None) -> None:
        self.last = self.start = sink.last_tid()
        self.state = CheckState.SKIPPED
        #: What there is to say about it behind the start, in the log.
        self.note = ""
        self._doubt: Doubt | None = None
        self._resent: Resent | None = None
        self._tid = NO_TID
        if self.last == NO_TID or not limit or not IComparableSink.providedBy(sink):
            return
        if doubt is not None:
            self._doubt = doubt
            self.state = CheckState.UNCONFIRMED if doubt.refused else CheckState.WITHHOLDING
            self.note = f", not compared: the primary {doubt.why}"
            return
        try:
            held = sink.last_transaction(limit)
        except NotComparable as error:
            self.note = f", not compared: {error}"
            return
        self._resent = Resent(held)
        self.start = held.before
        self.note = f", the one before {describe_tid(self.last)}"
        self.state = CheckState.ASKING

    @property
    def is_over(self) -> bool:
        """True if what comes is applied without a look at it."""
        return self.state in (CheckState.SKIPPED, CheckState.CONFIRMED)

    @property
    def compares(self) -> bool:
        """True while the last transaction is to be sent again, and if that has failed."""
        return self._resent is not None

    def happens(self, event: CheckEvent) -> None:
        """Go to the next state."""
        self.state = CHECK_TABLE.get(self.state, {}).get(event, self.state)

    def doubt(self) -> Doubt | None:
        """Return what the next session has to heed, None for nothing."""
        start = describe_tid(self.start)
        if self.state is CheckState.REFUSED:
            return Doubt(self.start, f"does not serve {start}", refused=True)
        if self.state is CheckState.UNANSWERED:
            return Doubt(self.start, f"has sent nothing after {start}", refused=False)
        return None

    def take(self, message: PrimaryMessage, *, newer_pickles: bool) -> Outcome:
        """Return what a message means. Not to be called once the check `is_over`.

        :param newer_pickles: True if the primary has sent pickles that zc.zrs does not write.
        :raises OSError: what is held cannot be read.
        """
        if isinstance(message, Transaction):
            self._tid = message.tid
        if self._resent is not None:
            return self._compare(self._resent, message)
        if not isinstance(message, Commit):
            return _APPLY
        self.happens(CheckEvent.VOUCHED if newer_pickles else CheckEvent.UNVOUCHED)
        if self.state is CheckState.CONFIRMED:
            return Confirmed(applies=True)
        if self.state is CheckState.COMPARE_FIRST or self._doubt is None:
            return CompareFirst()
        what = f"and {self._doubt.why}, so that nobody has seen whether it holds the last one"
        return Different(OtherHistory(self._doubt.before, self.last, self._tid, what), False)

    def _compare(self, resent: Resent, message: PrimaryMessage) -> Outcome:
        try:
            is_held = resent.take(message)
        except OtherHistory as error:
            self.happens(CheckEvent.DIFFERS)
            return Different(error, True)
        if not resent.over:
            return _HELD
        self.happens(CheckEvent.SAME)
        self.close()
        return Confirmed(not is_held, tuple(resent.remarks))

    def close(self) -> None:
        """Give up files. May be called again."""
        resent, self._resent = self._resent, None
        if resent is not None:
            resent.close()
