"""SIGINT, SIGTERM and SIGHUP: to be waited for, or as an exception."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any

# SIGHUP comes from a terminal that is closed. There is no log file to open again.
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopSignals:
    """While this context is entered, the signals ask to stop; the second one ends the process.

    To be used in the main thread.
    """

    def __enter__(self) -> StopSignals:
        # A signal may reach any thread, or this one just before it begins to wait: the interpreter
        # writes to this pipe at once, where a handler would be called after the wait.
        self._stopping = False
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        self._wakeup = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        self._before: dict[signal.Signals, Any] = {
            number: signal.signal(number, self._asked) for number in _SIGNALS
        }
        if self._before[signal.SIGHUP] is signal.SIG_IGN:
            # By nohup.
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
        return self

    def _asked(self, number: int, frame: FrameType | None) -> None:
        for each in _SIGNALS:
            if signal.getsignal(each) is not signal.SIG_IGN:
                signal.signal(each, signal.SIG_DFL)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for a signal, for `timeout` seconds at most; whether one has come."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._stopping:
            left = None if deadline is None else max(deadline - time.monotonic(), 0.0)
            if not select.select([self._read], [], [], left)[0]:
                return False
            # A byte each, its number; those for which somebody else has a handler come here too.
            self._stopping = any(number in _SIGNALS for number in os.read(self._read, 4096))
        return True

    def __exit__(self, *exc_info: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup)
        os.close(self._read)
        os.close(self._write)


@contextlib.contextmanager
def terminated_as_interrupted() -> Iterator[None]:
    """The other signals raise KeyboardInterrupt, as SIGINT does, so that everything is cleaned up.

    To be used in the main thread.
    """
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
