"""The network of the memory transport: connections in memory, and a clock that stands still."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from typing import Protocol, TypeAlias

from ..addresses import Address, parse_address
from ..errors import ListenError

#: Bytes that a receiver takes before it has read them, as a socket's buffer does.
CAPACITY = 256 * 1024

#: The most seconds that `MemoryNetwork.run` lets pass. A session that has sent everything pauses
#: for up to this time before it waits for the next commit, to coalesce commits.
BRIEF = 0.05


_Timer: TypeAlias = tuple[float, int, Callable[[], object]]


class _Acceptor(Protocol):
    def accepted(self, end: MemoryEnd) -> None:
        """A connection has come in."""


class _EndDriver(Protocol):
    """The owner of an end that is not driven by hand."""

    #: The next deadline of the session; None for none.
    due: float | None

    def turn(self) -> bool:
        """Do what is due now; return True if there was anything."""

    def received(self) -> None:
        """Data, or the end of the data, have arrived."""

    def sent(self, size: int) -> None:
        """`size` bytes have been delivered."""

    def lost(self, reason: str) -> None:
        """The connection is gone."""


class MemoryNetwork:
    """Connects listeners and connectors. Single-threaded.

    :param chunk_size: the most bytes that one step delivers.
    """

    def __init__(self, *, chunk_size: int = 65_536) -> None:
        self.chunk_size = chunk_size
        #: Seconds on the clock, which is that of all sessions.
        self.now = 0.0
        self._acceptors: dict[Address, _Acceptor] = {}
        self._ends: list[MemoryEnd] = []
        self._timers: list[_Timer] = []
        self._attempts: list[_Timer] = []
        self._connections = itertools.count(1)
        self._timer_order = itertools.count()
        self._ports = itertools.count(49_152)

    # -- driving it

    def run(self) -> None:
        """Step until nothing is left to do, and no deadline of a session is closer than `BRIEF`."""
        until = self.now + BRIEF
        self._deliver()
        while (due := self._next_due()) is not None and due <= until:
            self._pass_time(due)
            self._deliver()

    def _next_due(self) -> float | None:
        # Networks that share their ends have a clock each.
        drivers = [each.driver for each in self._ends if each.network is self]
        dues = [each.due for each in drivers if each is not None and each.due is not None]
        return min(dues, default=None)

    def _deliver(self) -> None:
        while self.step():
            pass

    def step(self) -> bool:
        """Give each end its turn and deliver one chunk each way; return True if there was any."""
        happened = False
        for end in list(self._ends):
            happened |= end.step()
        return happened

    def advance(self, seconds: float) -> None:
        """Move the clock on, and do what falls due on the way.

        Nothing is delivered meanwhile. Data on its way are not late: the deadlines of the sessions
        at both ends pass after the data have arrived. Attempts to connect are made at the end.
        """
        self._pass_time(self.now + seconds)
        due = [each for each in self._attempts if each[0] <= self.now]
        self._attempts = [each for each in self._attempts if each[0] > self.now]
        for _, _, attempt in sorted(due):
            attempt()

    def _pass_time(self, until: float) -> None:
        while self._timers and self._timers[0][0] <= until:
            time, _, due = heapq.heappop(self._timers)
            self.now = max(self.now, time)
            due()
        self.now = max(self.now, until)

    def is_late(self, end: MemoryEnd) -> bool:
        """Return True if nothing is on its way to an end or from it, so that deadlines pass."""
        return not (end.can_deliver or end.peer.can_deliver)

    def cut(self) -> None:
        """Lose every connection at once, with what is on its way."""
        for end in list(self._ends):
            end.cut()

    # -- taking part by hand

    def listen(self, address: object) -> MemoryListener:
        """Listen by hand: connections wait in `MemoryListener.accept`.

        :raises ListenError: something listens there already.
        """
        listener = MemoryListener(self, parse_address(address))
        self.add_acceptor(listener.address, listener)
        return listener

    def connect(self, address: object) -> MemoryEnd:
        """Connect by hand.

        :raises ConnectionRefusedError: nothing listens at `address`.
        """
        ours, theirs, accept = self.link(parse_address(address))
        accept(theirs)
        return ours

    # -- for listeners and connectors

    def link(self, address: Address) -> tuple[MemoryEnd, MemoryEnd, Callable[[MemoryEnd], None]]:
        """Return both ends of a new connection, and the function that accepts the second one.

        :raises ConnectionRefusedError: nothing listens at `address`.
        """
        acceptor = self._acceptors.get(address)
        if acceptor is None:
            raise ConnectionRefusedError(f"nothing listens at {address}")
        number = next(self._connections)
        ours, theirs = MemoryEnd(self, f"memory:{number}"), MemoryEnd(self, f"memory:{number}")
        ours.peer, theirs.peer = theirs, ours
        self._ends += [ours, theirs]
        return ours, theirs, acceptor.accepted

    def add_acceptor(self, address: Address, acceptor: _Acceptor) -> None:
        """:raises ListenError: something listens there already."""
        if address in self._acceptors:
            raise ListenError(f"cannot listen on {address}: something listens there already")
        self._acceptors[address] = acceptor

    def remove_acceptor(self, address: Address) -> None:
        self._acceptors.pop(address, None)

    def free_port(self) -> int:
        return next(self._ports)

    def call_at(self, time: float, function: Callable[[], object]) -> Callable[[], None]:
        """Call `function` once the clock shows `time`. Calling the result before cancels it."""
        timer = time, next(self._timer_order), function
        heapq.heappush(self._timers, timer)

        def cancel() -> None:
            if timer in self._timers:
                self._timers.remove(timer)
                heapq.heapify(self._timers)

        return cancel

    def connect_at(self, time: float, function: Callable[[], object]) -> Callable[[], None]:
        """Call `function`, which connects, once the clock has been moved to `time` or beyond it."""
        attempt = time, next(self._timer_order), function
        self._attempts.append(attempt)

        def cancel() -> None:
            if attempt in self._attempts:
                self._attempts.remove(attempt)

        return cancel

    def forget(self, end: MemoryEnd) -> None:
        if end in self._ends:
            self._ends.remove(end)


class MemoryEnd:
    """One end of a connection. Without a driver it is driven by hand: `write`, `read`, `close`."""

    def __init__(self, network: MemoryNetwork, name: str) -> None:
        self.name = name
        self.network = network
        self.driver: _EndDriver | None = None
        self.peer: MemoryEnd
        #: Bytes that have arrived and were not read.
        self.incoming = bytearray()
        #: True once the other end sends nothing more, and all that it sent has arrived.
        self.at_eof = False
        # True from `notify` until the next step.
        self.notified = False
        self._outgoing = bytearray()
        # True while the other end is to learn that nothing follows.
        self._ending = False
        self._finished = False
        self._closing = False
        self._open = True

    @property
    def drained(self) -> bool:
        """True if all that was written has been delivered."""
        return not self._outgoing

    @property
    def room(self) -> int:
        """The number of bytes that it takes now."""
        return CAPACITY - len(self.incoming)

    @property
    def can_deliver(self) -> bool:
        """True if the next step delivers something of what was written, or its end."""
        if self._outgoing:
            return self.peer.room > 0
        return self._open and self._ending

    def notify(self) -> None:
        """Have the driver call `wake` at the next step. For any thread."""
        self.notified = True

    def write(self, data: bytes) -> None:
        """Send bytes; after `finish` and `close` they are dropped."""
        if self._open and not self._finished:
            self._outgoing += data

    def read(self, size: int | None = None) -> bytes:
        """Return what has arrived, at most `size` bytes of it."""
        data = bytes(self.incoming[:size])
        del self.incoming[: len(data)]
        return data

    def finish(self) -> None:
        """Send nothing more: the other end learns of it when it has all that was written."""
        self._ending = self._ending or not self._finished
        self._finished = True

    def close(self) -> None:
        """Close once all that was written has been delivered."""
        self._ending = self._finished = self._closing = True

    def cut(self, reason: str = "the connection was lost") -> None:
        """Lose the connection at both ends, with what is on its way; `reason` is for this end."""
        self._lose(reason)
        self.peer._lose("the connection was lost")

    def _lose(self, reason: str) -> None:
        if self._open:
            self._open = False
            self.at_eof = True
            self._outgoing.clear()
            self.network.forget(self)
            if self.driver is not None:
                self.driver.lost(reason)

    def step(self) -> bool:
        happened = self._open and self.driver is not None and self.driver.turn()
        chunk = bytes(self._outgoing[: min(self.network.chunk_size, self.peer.room)])
        if chunk:
            del self._outgoing[: len(chunk)]
            self.peer._receive(chunk)
            if self.driver is not None:
                self.driver.sent(len(chunk))
            return True
        if self._open and self._ending and not self._outgoing:
            self._ending = False
            self.peer._receive_eof()
            if self._closing:
                self.peer._lose("closed by the other end")
                self._lose("closed here")
            return True
        return happened

    def _receive(self, data: bytes) -> None:
        self.incoming += data
        if self.driver is not None:
            self.driver.received()

    def _receive_eof(self) -> None:
        self.at_eof = True
        if self.driver is not None:
            self.driver.received()


class MemoryListener:
    """A listener by hand."""

    def __init__(self, network: MemoryNetwork, address: Address) -> None:
        self.address = address
        self._network = network
        self._waiting: list[MemoryEnd] = []

    def accepted(self, end: MemoryEnd) -> None:
        self._waiting.append(end)

    def accept(self) -> MemoryEnd | None:
        """Return the connection that has waited longest, if there is one."""
        self._network.run()
        return self._waiting.pop(0) if self._waiting else None

    def close(self) -> None:
        """Listen no more; connections stay."""
        self._network.remove_acceptor(self.address)
