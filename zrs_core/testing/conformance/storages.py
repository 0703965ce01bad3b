"""Sources and sinks that the tests of the suite need."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

from zope.interface import implementer

from ...held import HeldTransaction
from ...interfaces import (
    IComparableSink,
    ITransactionReader,
    ITransactionSink,
    ITransactionSource,
)
from ...messages import NO_TID, Commit, PrimaryMessage, Store, Transaction
from ...sessions import BATCH_SIZE
from ..environments import DEADLINE
from ..fakes import WHOLE, Sink, Source
from .suite import TID


@implementer(IComparableSink)
class Holding(Sink):
    """One with a transaction to compare."""

    def last_tid(self) -> bytes:
        return TID

    def last_transaction(self, limit: int) -> HeldTransaction:
        return HeldTransaction(NO_TID, False, Transaction(TID), {}, lambda oid: None)


@implementer(ITransactionSource)
class Everyone:
    """A source that gives the same messages to everyone, then nothing."""

    blobs = True

    def __init__(self, messages: list[PrimaryMessage]) -> None:
        self._messages = messages

    def open(self, start: bytes) -> Source:
        return Source(list(self._messages))


class WakingAtOnce(Source):
    """It says that there is more before `wait` has returned."""

    def wait(self, wake: Callable[[], None]) -> None:
        if self.batches:
            wake()

    def read(self, budget: int) -> list[PrimaryMessage]:
        self._empty = not getattr(self, "_empty", False)
        return [] if self._empty else super().read(budget)


@implementer(ITransactionSource)
class Flood:
    """A source of `limit` batches that cost it no memory, for each reader; then a commit."""

    blobs = True

    def __init__(self, limit: int) -> None:
        self.readers: list[_FloodReader] = []
        self.limit = limit
        self.closed = 0

    def open(self, start: bytes) -> _FloodReader:
        self.readers.append(_FloodReader(self))
        return self.readers[-1]

    def messages(self) -> Iterator[PrimaryMessage]:
        """All that a reader gives."""
        yield Transaction(TID)
        for _ in range(self.limit):
            yield _BULK
        yield Commit()


_BULK = Store(b"\0" * 8, TID, b"x" * BATCH_SIZE)


@implementer(ITransactionReader)
class _FloodReader:
    at_end = nearby = False

    def __init__(self, source: Flood) -> None:
        self.batches = 0
        self._source = source
        self._messages = source.messages()

    def read(self, budget: int) -> list[PrimaryMessage]:
        self.batches += 1
        return [message for message in [next(self._messages, None)] if message is not None]

    def wait(self, wake: Callable[[], None]) -> None:
        pass

    def close(self) -> None:
        self._source.closed += 1


@implementer(ITransactionSink)
class Copy:
    """A sink that keeps finished transactions and forgets what is aborted."""

    blobs = True

    def __init__(self) -> None:
        self.finished: list[PrimaryMessage] = []
        self.unfinished: list[PrimaryMessage] = []
        #: Messages that were applied.
        self.count = 0

    def last_tid(self) -> bytes:
        return max((m.tid for m in self.finished if isinstance(m, Transaction)), default=NO_TID)

    def apply(self, message: PrimaryMessage) -> None:
        self.unfinished.append(message)
        if isinstance(message, Commit):
            self.finished += self.unfinished
            self.unfinished.clear()
        self.count += 1

    def flush(self) -> None:
        """Nothing is held back."""

    def abort(self) -> None:
        self.unfinished.clear()


def is_whole(copy: Copy) -> bool:
    """Return True if all of `WHOLE` was applied, and nothing else."""
    return copy.finished == WHOLE


class Late(Source):
    """A source that returns an empty batch when `answer` is set, and may have more by then."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = threading.Event()
        self.answer = threading.Event()
        self._tester = threading.current_thread()

    def read(self, budget: int) -> list[PrimaryMessage]:
        batch = super().read(budget)
        if not batch:
            self.asked.set()
            # A transport may run in the thread of the test, which then cannot answer.
            if threading.current_thread() is not self._tester:
                self.answer.wait(DEADLINE)
        return batch
