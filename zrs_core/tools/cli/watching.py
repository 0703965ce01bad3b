"""`zrs status --watch`: nodes as they are now, and the lag of the last minutes as a plot."""

from __future__ import annotations

import abc
import contextlib
import json
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Protocol

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.text import Text

from ...errors import NoStatus
from ...monitor.fetch import StatusAddress, fetch_status
from .answers import Distance, Node, distances, document, node
from .output import say
from .overview import in_words, lag_of, overview, state_in_words
from .signals import StopSignals
from .words import duration, moment, plain, rate

#: As many are kept as a wide terminal has columns.
_SAMPLES = 500
_PLOT_HEIGHT = 4
_BLOCKS = " ▁▂▃▄▅▆▇█"
_ASCII_BLOCKS = " .:-=+*#@"


def watch(
    console: Console,
    addresses: Sequence[StatusAddress],
    *,
    interval: float,
    timeout: float,
    as_json: bool,
) -> None:
    """Show how the nodes are doing, until SIGINT or SIGTERM."""
    with StopSignals() as stop, contextlib.ExitStack() as stack:
        asked = [_Asker(each, interval, timeout) for each in addresses]
        apart = _Distances(asked, interval, timeout)
        for each in (*asked, apart):
            each.start()
            stack.callback(each.stop)
        # The first ones are waited for, so that it does not begin with nothing.
        until = time.monotonic() + timeout
        while any(each.latest is None for each in asked) and time.monotonic() < until:
            if stop.wait(_SHORT):
                return
        live = console.is_terminal and not console.is_dumb_terminal and not as_json
        view = stack.enter_context(_screen(console) if live else _lines(console, as_json))
        while True:
            view.show(asked, apart.latest)
            if stop.wait(interval):
                return


#: Seconds between two looks whether the first answers are there.
_SHORT = 0.02


class _Repeated(abc.ABC):
    """Asks again and again in a thread of its own, so that it holds nobody up."""

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._stopped = threading.Event()
        # What it waits for when it is to stop, nobody else waits for.
        self._thread = threading.Thread(target=self._run, name="zrs status", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()

    def _run(self) -> None:
        while not self._stopped.is_set():
            self.ask()
            self._stopped.wait(self._interval)

    @abc.abstractmethod
    def ask(self) -> None:
        """Ask once, and keep what was said."""


class _Asker(_Repeated):
    """Asks an address for its status; `lags` are those at each answer, None for unknown ones."""

    def __init__(self, address: StatusAddress, interval: float, timeout: float) -> None:
        super().__init__(interval)
        self.latest: Node | None = None
        self.lags: deque[float | None] = deque(maxlen=_SAMPLES)
        self._address = address
        self._timeout = timeout

    @property
    def node(self) -> Node:
        return self.latest or node(self._address, NoStatus(self._address.text, "no answer yet"))

    @property
    def is_primary(self) -> bool:
        said = self.node.status
        return said is not None and said["secondary"] is None

    def ask(self) -> None:
        try:
            answer = fetch_status(self._address, self._timeout)
        except NoStatus as error:
            self.lags.append(None)
            self.latest = node(self._address, error)
        else:
            part = answer["secondary"]
            self.lags.append(part["lag_seconds"] if part else None)
            self.latest = node(self._address, answer)


class _Distances(_Repeated):
    """Asks primaries how far behind them the secondaries are."""

    def __init__(self, asked: Sequence[_Asker], interval: float, timeout: float) -> None:
        super().__init__(interval)
        self.latest: Sequence[Distance] = ()
        self._asked = asked
        self._timeout = timeout

    def ask(self) -> None:
        self.latest = distances([each.node for each in self._asked], self._timeout)


class _View(Protocol):
    def show(self, asked: Sequence[_Asker], apart: Sequence[Distance]) -> None: ...


class _Screen:
    def __init__(self, live: Live) -> None:
        self._live = live
        self.last: RenderableType = ""

    def show(self, asked: Sequence[_Asker], apart: Sequence[Distance]) -> None:
        nodes = [each.node for each in asked]
        plots = [LagPlot(each.node.address, [*each.lags]) for each in asked if not each.is_primary]
        self.last = overview(nodes, apart)
        head = Text(f"{moment(time.time())} UTC. Ctrl-C ends it.\n", style="dim")
        self._live.update(Group(head, overview(nodes, apart, plots)), refresh=True)


@contextlib.contextmanager
def _screen(console: Console) -> Iterator[_View]:
    """All of the terminal; in the end what was last to be seen is left there."""
    with Live(console=console, screen=True, auto_refresh=False) as live:
        screen = _Screen(live)
        yield screen
    console.print(screen.last)


class _Lines:
    def __init__(self, console: Console, as_json: bool) -> None:
        self._console = console
        self._as_json = as_json

    def show(self, asked: Sequence[_Asker], apart: Sequence[Distance]) -> None:
        nodes = [each.node for each in asked]
        if self._as_json:
            say(self._console, json.dumps(document(nodes, apart)))
            return
        now = moment(time.time())
        for each in nodes:
            say(self._console, f"{now} {each.address} {_in_a_line(each)}")
        for pair in apart:
            say(self._console, f"{now} {in_words(pair)}")


def _in_a_line(shown: Node) -> str:
    said = shown.status
    if said is None:
        return f"could not be asked: {plain(shown.error or '')}"
    part = said["secondary"]
    name = part.get("name") if part else None
    role = said["role"] if name is None else f"{said['role']} {plain(name)}"
    words = [role, *state_in_words(said).split("\n")]
    if part is not None:
        words.append(f"lag {lag_of(said)}")
    if (first := part or said["primary"]) is not None:
        words.append(rate(first["rates"]["10s"]))
    return ", ".join(words)


@contextlib.contextmanager
def _lines(console: Console, as_json: bool) -> Iterator[_View]:
    yield _Lines(console, as_json)


class LagPlot:
    """A plot as wide as there is room, the newest lag at the right, None as a gap."""

    def __init__(self, title: str, lags: Sequence[float | None]) -> None:
        self._title = title
        self._lags = lags

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        blocks = _ASCII_BLOCKS if options.ascii_only else _BLOCKS
        known = [each for each in self._lags if each is not None]
        top = max([*known, _LEAST_TOP])
        labels = [duration(top), *[""] * (_PLOT_HEIGHT - 2), "0 s"]
        margin = max(map(len, labels)) + 1
        shown = self._lags[-max(options.max_width - margin, 1) :]
        newest = shown[-1] if shown else None
        now = "not known" if newest is None else duration(newest)
        yield Text(f"{self._title}: lag {now}", overflow="ellipsis", no_wrap=True)
        for row, label in enumerate(labels):
            below = (_PLOT_HEIGHT - 1 - row) * _LEVELS
            bars = "".join(blocks[_level(each, top, below)] for each in shown)
            yield Text(f"{label:>{margin - 1}} {bars}", no_wrap=True, overflow="crop")


#: Steps of a bar in one line.
_LEVELS = len(_BLOCKS) - 1
#: What a plot shows at least, in seconds: noise is not to fill it.
_LEAST_TOP = 0.1


def _level(lag: float | None, top: float, below: int) -> int:
    """How much of a line is filled by a bar, which has `below` steps in the lines below it."""
    if lag is None:
        return 0
    # What is known to be nothing is not a gap.
    steps = max(1, round(lag / top * _PLOT_HEIGHT * _LEVELS))
    return min(max(steps - below, 0), _LEVELS)
