"""The other nodes, as their own status servers tell of them."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from ..addresses import Address, TCPAddress
from ..errors import NoStatus
from ..logs import event
from ..messages import NO_TID
from .document import HexTid, Status
from .fetch import StatusAddress, fetch_apart, fetch_status
from .health import pairs
from .state import KnownPosition, NodeStatus, as_json
from .told import Told

log = logging.getLogger("zrs_core.status")

#: Seconds between two questions to each of them.
INTERVAL = 0.5

#: Seconds within which one must have answered.
_TIMEOUT = 2.0

# The key of this node among the others, who have addresses.
_HERE = ""


class Nodes:
    """Asks each of several status servers again and again, each in a thread.

    The primary of this node, if it is among them, is asked too how far this node is behind.

    :param own: the status of this node, as it knows itself.
    """

    def __init__(self, addresses: Sequence[StatusAddress], own: Callable[[], NodeStatus]) -> None:
        #: What the primary has told last.
        self.told: Told | None = None
        self._own = own
        self._nodes = [_Node(each, self._ask_primary) for each in addresses]

    def start(self) -> None:
        for node in self._nodes:
            node.thread.start()

    def as_json(self) -> list[dict[str, Any]]:
        """The last answer of each, in their order."""
        return [node.as_json() for node in self._nodes]

    def close(self) -> None:
        for node in self._nodes:
            node.closing.set()
        for node in self._nodes:
            if node.thread.ident is not None:
                node.thread.join()

    def _ask_primary(self, asked: _Node) -> None:
        """Ask a node how far this one is behind it, if it is its primary."""
        own = self._own()
        if own.secondary is None or asked.status is None:
            return
        known = {each.address.text: each.status for each in self._nodes if each.status is not None}
        followed = [
            each.primary for each in pairs({_HERE: as_json(own), **known}) if not each.secondary
        ]
        if followed != [asked.address.text]:
            return
        position = own.secondary.position
        tid = NO_TID if position is None else position.tid
        apart = fetch_apart(asked.address, HexTid(f"0x{tid.hex()}"), _TIMEOUT)
        # No sooner: what is added for the time since then must not be too much.
        now = time.monotonic()
        self.told = Told(tid, apart["seconds"], apart["transactions"], _end_of(asked.status), now)


def url_of(text: str, address: Address) -> str:
    """An address as a URL; of a Unix socket its path."""
    return f"http://{address}" if isinstance(address, TCPAddress) and "://" not in text else text


def _end_of(status: Status) -> KnownPosition | None:
    primary = status["primary"]
    if primary is None or primary["position"] is None:
        return None
    position = primary["position"]
    return KnownPosition(bytes.fromhex(position["tid"][2:]), position["time"], time.time())


class _Node:
    """One of them; `status` and `error` are its last answer, or why there is none."""

    def __init__(self, address: StatusAddress, answered: Callable[[_Node], None]) -> None:
        self.address = address
        self.status: Status | None = None
        self.error: str | None = "it was not asked yet"
        self.closing = threading.Event()
        self.thread = threading.Thread(
            target=self._run, name=f"zrs_core asking {address}", daemon=True
        )
        self._answered = answered

    def as_json(self) -> dict[str, Any]:
        status, error = self.status, self.error
        return {
            "url": url_of(self.address.text, self.address.address),
            "status": status,
            "error": error,
        }

    def _run(self) -> None:
        while True:
            try:
                self.status, self.error = fetch_status(self.address, _TIMEOUT), None
            except NoStatus as error:
                self.status, self.error = None, str(error)
            try:
                self._answered(self)
            except Exception as error:  # noqa: BLE001
                # A node that does not tell, or a storage that is being closed.
                fields = event("not-learned", address=self.address, reason=error)
                log.debug("%s: %s", self.address, error, extra=fields)
            if self.closing.wait(INTERVAL):
                break
