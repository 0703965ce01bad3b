"""The state of a secondary while its storage's files cannot be written to."""

from __future__ import annotations

import threading
from collections.abc import Callable

from .progress import Progress, State


class FilesFault:
    """Sets the state `failing` while the storage's files are not in place. Thread-safe.

    :param check: returns why the files cannot be written to, None if they can. It must not wait.
    """

    def __init__(self, progress: Progress, check: Callable[[], str | None]) -> None:
        self._progress = progress
        self._check = check
        self._lock = threading.Lock()
        # The fault that the last check found, and the failure and the state before it.
        self._fault: str | None = None
        self._before: tuple[str | None, State] = (None, State.CONNECTING)

    def check(self) -> str | None:
        """Return why the files cannot be written to, None if they can."""
        fault = self._check()
        with self._lock:
            before, self._fault = self._fault, fault
            progress = self._progress
            if progress.stopped is not None:
                return fault
            if fault is not None and progress.failure != fault:
                if before is None:
                    self._before = progress.failure, progress.state
                progress.failure, progress.state = fault, State.FAILING
                progress.failed(fault)
            elif fault is None and before is not None and progress.failure == before:
                self._restore()
        return fault

    def _restore(self) -> None:
        progress = self._progress
        failure, state = self._before
        progress.failure = failure
        if failure is None:
            progress.recovered()
        connected = progress.connected or failure is not None
        progress.state = state if connected else State.CONNECTING
