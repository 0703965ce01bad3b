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


class Interruption:
    """While this context is entered, the signals raise KeyboardInterrupt: all is cleaned up.

    To be used in the main thread.
    """

    def __init__(self) -> None:
        self._asked = self._deferring = False

    def __enter__(self) -> Interruption:
        self._before = {number: signal.getsignal(number) for number in _SIGNALS}
        for number, handler in self._before.items():
            # By nohup.
            if number is not signal.SIGHUP or handler is not signal.SIG_IGN:
                signal.signal(number, self._interrupt)
        return self

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if not self._asked:
            self._asked = True
            if self._deferring:
                return
        raise KeyboardInterrupt

    def check(self) -> None:
        """:raises KeyboardInterrupt: a signal has come before.

        To be called wherever something may go on for long. A signal raises it at any place, and
        some swallow it: FileStorage does while it saves its index (a bare `except`), finalizers do.
        """
        if self._asked:
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Within this, the first signal is left to `check`, which is called in the end too.

        For what starts threads: they have to be known to be stopped.
        """
        self._deferring = True
        try:
            yield
            self.check()
        finally:
            self._deferring = False

    def __exit__(self, *exc_info: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
