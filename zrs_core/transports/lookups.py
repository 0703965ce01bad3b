"""Look-ups of host names, in threads of their own.

The system waits 10 to 30 seconds for name servers that do not answer, and no look-up can be
interrupted. So look-ups do not occupy the threads that replicate, and closing a storage does not
wait for them.
"""

from __future__ import annotations

import contextlib
import ipaddress
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, TypeAlias

from ..addresses import Address, UnixAddress
from ..forks import inheritable
from .sockets import look_up

#: Threads that look up names, at most. Further names wait for their turn.
THREADS = 16

#: The places of an address, as `sockets.look_up` returns them.
Places: TypeAlias = list[tuple[int, tuple[Any, ...]]]


def needs_look_up(address: Address) -> bool:
    """Return True for a host that has to be looked up, False for an IP address or a Unix socket."""
    if isinstance(address, UnixAddress):
        return False
    try:
        ipaddress.ip_address(address.host)
    except ValueError:
        return True
    return False


class LookUp:
    """A look-up that is under way. Thread-safe.

    :param done: called once, in another thread, when the look-up has ended.
    """

    def __init__(self, address: Address, done: Callable[[], object]) -> None:
        self.address = address
        #: True when the look-up has ended.
        self.over = False
        self._lock = threading.Lock()
        self._done: Callable[[], object] | None = done
        self._places: Places = []
        self._error: Exception | None = None
        _look_ups.add(self)

    @property
    def cancelled(self) -> bool:
        """True if `cancel` was called, or the look-up has ended."""
        return self._done is None

    def cancel(self) -> None:
        """Wait no longer: `done` is not called from now on."""
        with self._lock:
            self._done = None

    def finish(self, places: Places, error: Exception | None) -> None:
        """Set the result, and call `done`."""
        with self._lock:
            done, self._done = self._done, None
            self._places, self._error, self.over = places, error, True
            if done is not None:
                # While the lock is held, so that it is not called after `cancel`.
                done()

    def result(self) -> Places:
        """Return the places of the address, once the look-up has ended.

        :raises Exception: as `sockets.look_up`.
        """
        if self._error is not None:
            raise self._error.with_traceback(None)
        return self._places


class _LookUps:
    """All look-ups of this process: one for each address at a time."""

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.Lock()
        # Those that wait for an address, and the addresses that no thread has begun with.
        self._waiting: dict[Address, list[LookUp]] = {}
        self._queue: deque[Address] = deque()
        self._threads = 0
        inheritable(self)

    def abandon(self) -> None:
        """Start over in the child of a fork, where the threads do not exist."""
        self._reset()

    def add(self, added: LookUp) -> None:
        """Have an address looked up."""
        with self._lock:
            waiting = self._waiting.setdefault(added.address, [])
            waiting.append(added)
            if len(waiting) > 1:
                return
            self._queue.append(added.address)
            if self._threads >= THREADS:
                return
            self._threads += 1
        thread = threading.Thread(target=self._run, name="zrs_core look-up", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            self._give_up(added.address, OSError(f"no thread to look it up: {error}"))

    def _give_up(self, address: Address, error: OSError) -> None:
        with self._lock:
            self._threads -= 1
            # Another thread may have begun with it meanwhile.
            with contextlib.suppress(ValueError):
                self._queue.remove(address)
                self._finish(self._waiting.pop(address), [], error)

    def _run(self) -> None:
        while (address := self._next()) is not None:
            places: Places = []
            failure: Exception | None = None
            try:
                places = look_up(address)
            except Exception as error:  # noqa: BLE001
                failure = error
            with self._lock:
                waiting = self._waiting.pop(address)
            self._finish(waiting, places, failure)

    def _next(self) -> Address | None:
        with self._lock:
            while self._queue:
                address = self._queue.popleft()
                if not all(each.cancelled for each in self._waiting[address]):
                    return address
                del self._waiting[address]
            self._threads -= 1
            return None

    @staticmethod
    def _finish(waiting: list[LookUp], places: Places, error: Exception | None) -> None:
        for each in waiting:
            each.finish(places, error)


_look_ups = _LookUps()
