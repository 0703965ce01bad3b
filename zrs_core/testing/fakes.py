"""A source and a sink without a storage, and the bytes that belong to them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from zope.interface import implementer

from ..errors import StartError
from ..interfaces import ITransactionReader, ITransactionSink, ITransactionSource
from ..messages import NO_TID, Commit, PrimaryMessage, Store, Transaction
from .outcomes import speaking
from .streams import framed

_TID = b"\0" * 7 + b"\1"

#: A whole transaction.
WHOLE: list[PrimaryMessage] = [Transaction(_TID), Store(b"\0" * 8, _TID, b"record"), Commit()]


def greeting(word: str = "zrs2.1", start: bytes = NO_TID) -> bytes:
    """What a secondary sends first."""
    return framed(word.encode(), start)


def stream(messages: Iterable[PrimaryMessage], start: bytes = NO_TID) -> bytes:
    """What a primary sends to a secondary that asked for all after `start`."""
    return b"".join(speaking(start=start).send_all(list(messages)))


@implementer(ITransactionSource, ITransactionReader)
class Source:
    """A source and its reader in one: gives each batch of a list, then nothing.

    `started` has the starts that were asked for, `waiting` the calls that would wake a session;
    `closed` counts the readers that were closed.

    :param error: raised when there are no more batches; a `StartError` at once.
    """

    blobs = True
    at_end = False
    nearby = False

    def __init__(self, *batches: list[PrimaryMessage], error: BaseException | None = None) -> None:
        self.batches = list(batches)
        self.error = error
        self.started: list[bytes] = []
        self.waiting: list[Callable[[], None]] = []
        self.closed = 0

    def open(self, start: bytes) -> Source:
        self.started.append(start)
        if isinstance(self.error, StartError):
            raise self.error
        return self

    def read(self, budget: int) -> list[PrimaryMessage]:
        if self.batches:
            return self.batches.pop(0)
        if self.error:
            raise self.error
        return []

    def wait(self, wake: Callable[[], None]) -> None:
        self.waiting.append(wake)

    def close(self) -> None:
        self.closed += 1


@implementer(ITransactionSink)
class Sink:
    """A sink that remembers what was applied, unfinished or not, and counts its aborts.

    :param failing: the types of the messages that it fails to apply.
    :param error: what it raises then.
    :param abort_error: raised by `abort`.
    """

    blobs = True

    def __init__(
        self,
        failing: type[PrimaryMessage] | tuple[type[PrimaryMessage], ...] = (),
        error: Exception | None = None,
        abort_error: BaseException | None = None,
    ) -> None:
        self.applied: list[PrimaryMessage] = []
        self.aborts = 0
        self._failing = failing
        self._error = error or OSError("No space left on device")
        self._abort_error = abort_error

    def last_tid(self) -> bytes:
        return max((m.tid for m in self.applied if isinstance(m, Transaction)), default=NO_TID)

    def apply(self, message: PrimaryMessage) -> None:
        if isinstance(message, self._failing):
            raise self._error
        self.applied.append(message)

    def flush(self) -> None:
        """Nothing is held back."""

    def abort(self) -> None:
        self.aborts += 1
        if self._abort_error:
            raise self._abort_error
