"""What both ends share: an event loop in a thread, and what the transport does not do."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine
from typing import Any

from zrs_core.addresses import Address, TCPAddress
from zrs_core.errors import ConfigurationError


class LoopThread:
    """Runs a coroutine in a thread with an event loop of its own."""

    def __init__(self, main: Coroutine[Any, Any, None], name: str) -> None:
        self._loop: asyncio.AbstractEventLoop
        self._running = threading.Event()
        self._thread = threading.Thread(
            target=asyncio.run, args=(self._run(main),), name=name, daemon=True
        )
        self._thread.start()
        self._running.wait()

    async def _run(self, main: Coroutine[Any, Any, None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._running.set()
        await main

    def call(self, function: Callable[..., object], *args: Any) -> None:
        """Call in the loop's thread, from any thread and without waiting; not after its end."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(function, *args)

    def join(self) -> None:
        """Wait until the coroutine has returned."""
        self._thread.join()


def check(address: Address, tls: object) -> TCPAddress:
    """Refuse what this transport cannot do.

    :raises ConfigurationError: a Unix socket, or TLS.
    """
    if not isinstance(address, TCPAddress):
        raise ConfigurationError(f"asyncio-tcp has no Unix sockets: {address}")
    if tls is not None:
        raise ConfigurationError("asyncio-tcp has no TLS")
    return address
