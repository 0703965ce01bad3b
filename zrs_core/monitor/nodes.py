"""The other nodes, as their own status servers tell of them."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from ..addresses import Address, TCPAddress, parse_address
from ..errors import InvalidAddress, NoStatus
from ..logs import event
from ..messages import NO_TID
from ..status.state import KnownPosition, NodeStatus, as_json
from .document import HexTid, Status
from .fetch import StatusAddress, fetch_apart, fetch_status
from .health import SILENT, pairs
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
        # The node that was found to be the primary, and the address that this node followed then.
        self._primary: tuple[str, _Node] | None = None
        self._own = own
        self._nodes = [_Node(each, self._ask_primary) for each in addresses]

    def start(self) -> None:
        for node in self._nodes:
            node.thread.start()

    def as_json(self) -> list[dict[str, Any]]:
        """The last answer of each, in their order."""
        return [node.as_json() for node in self._nodes]

    def primary_status_age(self, address: str) -> float | None:
        """Return for how many seconds the primary's status server has given no new status.

        None if the primary is not among the nodes.

        :param address: the address that this node follows.
        """
        found = self._primary
        if found is not None and found[0] == address:
            return found[1].age
        node = self._likely_primary(address)
        return None if node is None else node.age

    def _likely_primary(self, address: str) -> _Node | None:
        """Among nodes that never answered, the one on the primary's host, or the only one."""
        unknown = [each for each in self._nodes if each.known is None and each.error is not None]
        host = _host_of(address)
        near = [each for each in unknown if host is not None and _host(each) == host]
        for candidates in (near, unknown):
            if len(candidates) == 1:
                return candidates[0]
        return None

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
        self._primary = own.secondary.primary_address, asked
        position = own.secondary.position
        tid = NO_TID if position is None else position.tid
        apart = fetch_apart(asked.address, HexTid(f"0x{tid.hex()}"), _TIMEOUT)
        # No sooner: what is added for the time since then must not be too much.
        now = time.monotonic()
        self.told = Told(tid, apart["seconds"], apart["transactions"], _end_of(asked.status), now)


def url_of(text: str, address: Address) -> str:
    """An address as a URL; of a Unix socket its path."""
    return f"http://{address}" if isinstance(address, TCPAddress) and "://" not in text else text


def _host_of(text: str) -> str | None:
    try:
        address = parse_address(text)
    except InvalidAddress:
        return None
    return (address.host or "localhost") if isinstance(address, TCPAddress) else None


def _host(node: _Node) -> str | None:
    return _host_of(str(node.address.address))


def _end_of(status: Status) -> KnownPosition | None:
    primary = status["primary"]
    if primary is None or primary["position"] is None:
        return None
    position = primary["position"]
    return KnownPosition(bytes.fromhex(position["tid"][2:]), position["time"], time.time())


def _summary(status: Status) -> dict[str, Any]:
    """What tells a node, and its place among the others, when it does not answer any more."""
    primary, secondary = status["primary"], status["secondary"]
    return {
        "time": status["now"],
        "role": status["role"],
        "address": primary["address"] if primary else None,
        "secondary": secondary
        and {
            "name": secondary.get("name"),
            "primary_address": secondary["primary_address"],
            "connected": secondary["connected"],
            "local_address": secondary["local_address"],
        },
    }


class _Node:
    """One of them; `status` and `error` are its last answer, or why there is none.

    `known` is the last answer, also when it does not answer any more.
    """

    def __init__(self, address: StatusAddress, answered: Callable[[_Node], None]) -> None:
        self.address = address
        self.status: Status | None = None
        self.error: str | None = "it was not asked yet"
        self.known: Status | None = None
        # When there was a new answer, by the monotonic clock.
        self._changed = time.monotonic()
        self.closing = threading.Event()
        self.thread = threading.Thread(
            target=self._run, name=f"zrs_core asking {address}", daemon=True
        )
        self._answered = answered

    @property
    def age(self) -> float:
        """Seconds since there was a new answer, or since the node is asked."""
        return time.monotonic() - self._changed

    def as_json(self) -> dict[str, Any]:
        status, error, known = self.status, self.error, self.known
        if status is not None and self.age > SILENT:
            # Looking up a name may take long, and a proxy may repeat an old answer.
            status, error = None, f"its last answer is {self.age:.0f} s old"
        return {
            "url": url_of(self.address.text, self.address.address),
            "status": status,
            "error": error,
            "last": None if known is None else _summary(known),
        }

    def _ask(self) -> None:
        try:
            status = fetch_status(self.address, _TIMEOUT)
        except NoStatus as error:
            self.status, self.error = None, str(error)
            return
        if self.known is None or status["now"] != self.known["now"]:
            self._changed = time.monotonic()
        self.status, self.error, self.known = status, None, status

    def _run(self) -> None:
        while True:
            self._ask()
            try:
                self._answered(self)
            except Exception as error:  # noqa: BLE001
                # A node that does not tell, or a storage that is being closed.
                fields = event("not-learned", address=self.address, reason=error)
                log.debug("%s: %s", self.address, error, extra=fields)
            if self.closing.wait(INTERVAL):
                break
