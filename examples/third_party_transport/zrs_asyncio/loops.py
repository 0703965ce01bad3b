"""An event loop in a thread."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine
from typing import Any


class LoopThread:
    """Runs a coroutine in a thread with an event loop of its own. Thread-safe."""

    def __init__(self, main: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._main = main
        self._thread: threading.Thread | None = None

    def start(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with contextlib.closing(self._loop):
            self._loop.run_until_complete(self._main())
            self._loop.run_until_complete(self._loop.shutdown_default_executor())

    def call(self, function: Callable[[], object]) -> None:
        """Have the loop call a function, unless the coroutine has returned."""
        if self._thread is not None:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(function)

    def finish(self, function: Callable[[], object]) -> None:
        """Have the loop call a function, and wait until the coroutine has returned."""
        self.call(function)
        if self._thread is not None:
            self._thread.join()
