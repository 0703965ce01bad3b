"""How a secondary catches up, measured and shown."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime, timezone
from typing import NamedTuple, Protocol

from persistent.timestamp import TimeStamp
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from ...messages import NO_TID
from ...progress import Progress as ReplicationProgress
from ...progress import State
from .output import count, say, size

#: Seconds that the rate is taken over.
_WINDOW = 5.0

#: Seconds between two lines where there is no terminal.
_LINE_INTERVAL = 5.0


class Sample(NamedTuple):
    """`reached` is a time in seconds since 1970, None for none; `part` is between 0 and 1."""

    transactions: int
    bytes: int
    rate: float
    reached: float | None
    part: float

    def __str__(self) -> str:
        text = (
            f"{count(self.transactions, 'transaction')}, {size(self.bytes)}, {size(self.rate)}/s, "
        )
        return text + ("none applied yet" if self.reached is None else f"at {self.time}")

    @property
    def time(self) -> str:
        if self.reached is None:
            return "-"
        when = datetime.fromtimestamp(self.reached, timezone.utc)
        return f"{when:%Y-%m-%d %H:%M:%S} UTC"


class Meter:
    """Measures what a secondary receives.

    The protocol does not say how much is to come. What can be said is how far the time of the
    last transaction has come, on the way from that of the first to now.
    """

    def __init__(self, progress: ReplicationProgress) -> None:
        self._progress = progress
        self._first = _time_of(progress.tid)
        self._recent: deque[tuple[float, int]] = deque([(time.monotonic(), progress.bytes)])

    def sample(self) -> Sample:
        progress = self._progress
        reached = _time_of(progress.tid)
        if self._first is None:
            self._first = reached
        return Sample(
            progress.transactions, progress.bytes, self._rate(), reached, self._part(reached)
        )

    def _rate(self) -> float:
        now, received = time.monotonic(), self._progress.bytes
        self._recent.append((now, received))
        while len(self._recent) > 2 and self._recent[1][0] < now - _WINDOW:
            self._recent.popleft()
        then, before = self._recent[0]
        return (received - before) / (now - then) if now > then else 0.0

    def _part(self, reached: float | None) -> float:
        if reached is None or self._first is None:
            return 0.0
        way = time.time() - self._first
        return min(max((reached - self._first) / way, 0.0), 1.0) if way > 0 else 1.0


def _time_of(tid: bytes) -> float | None:
    return None if tid == NO_TID else TimeStamp(tid).timeTime()


class CatchUp:
    """Tells when a secondary seems to have caught up: connected, and nothing comes any more.

    :param quiet: for how many seconds.
    """

    def __init__(self, progress: ReplicationProgress, quiet: float) -> None:
        self._progress = progress
        self._quiet = quiet
        self._state = self._current()
        self._since = time.monotonic()

    def _current(self) -> tuple[int, int, int, bool, bool]:
        progress = self._progress
        return (
            progress.connections,
            progress.bytes,
            progress.transactions,
            progress.connected,
            # Also one that has come whole: it may still be on its way to the disk.
            progress.unapplied > 0 or progress.state is State.COMPARING,
        )

    def done(self) -> bool:
        """To be asked often: what changed between two questions counts from the second."""
        now, state = time.monotonic(), self._current()
        if state != self._state:
            self._state, self._since = state, now
        *_, connected, busy = state
        return connected and not busy and now - self._since >= self._quiet


class View(Protocol):
    def show(self, sample: Sample, connected: bool) -> None: ...


def view(console: Console, address: str) -> AbstractContextManager[View]:
    """A bar on a terminal, elsewhere a line every few seconds, while the context is entered."""
    if console.is_terminal and not console.is_dumb_terminal:
        return _bar(console, address)
    return _lines(console)


@contextmanager
def _bar(console: Console, address: str) -> Iterator[View]:
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[sample]}", markup=False),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        yield _Bar(progress, address)


class _Bar:
    def __init__(self, progress: Progress, address: str) -> None:
        self._progress = progress
        self._address = address
        self._task = progress.add_task(f"Connecting to {address}", total=1.0, sample="")

    def show(self, sample: Sample, connected: bool) -> None:
        doing = "Catching up with" if connected else "Connecting to"
        self._progress.update(
            self._task,
            description=f"{doing} {self._address}",
            completed=sample.part,
            sample=str(sample),
        )


@contextmanager
def _lines(console: Console) -> Iterator[View]:
    yield _Lines(console)


class _Lines:
    def __init__(self, console: Console) -> None:
        self._console = console
        self._next = time.monotonic() + _LINE_INTERVAL

    def show(self, sample: Sample, connected: bool) -> None:
        now = time.monotonic()
        if connected and now >= self._next:
            self._next = now + _LINE_INTERVAL
            say(self._console, f"Catching up: {sample}")
