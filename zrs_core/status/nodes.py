"""The other nodes, as their own status servers tell of them."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from ..addresses import Address
from .client import NoStatus, ask, url_of

#: Seconds between two questions to each of them.
INTERVAL = 0.5

#: Seconds within which one must have answered.
_TIMEOUT = 2.0


class Nodes:
    """Asks each of several status servers again and again, each in a thread."""

    def __init__(self, addresses: Sequence[Address]) -> None:
        self._nodes = [_Node(each) for each in addresses]

    def start(self) -> None:
        for node in self._nodes:
            node.thread.start()

    def as_json(self) -> list[dict[str, Any]]:
        """The last answer of each, in their order."""
        return [node.latest for node in self._nodes]

    def close(self) -> None:
        for node in self._nodes:
            node.closing.set()
        for node in self._nodes:
            if node.thread.ident is not None:
                node.thread.join()


class _Node:
    def __init__(self, address: Address) -> None:
        self._address = address
        self.closing = threading.Event()
        self.latest: dict[str, Any] = self._entry(None, "it was not asked yet")
        self.thread = threading.Thread(
            target=self._run, name=f"zrs_core asking {address}", daemon=True
        )

    def _entry(self, status: Any, error: str | None) -> dict[str, Any]:
        return {"url": url_of(self._address), "status": status, "error": error}

    def _run(self) -> None:
        while True:
            try:
                self.latest = self._entry(ask(self._address, timeout=_TIMEOUT), None)
            except NoStatus as error:
                self.latest = self._entry(None, str(error))
            if self.closing.wait(INTERVAL):
                break
