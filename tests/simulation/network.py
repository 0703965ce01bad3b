"""The memory transport's network as each of several processes sees it, with links that fail."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from zrs_core.addresses import Address
from zrs_core.transports.memory import MemoryEnd, MemoryNetwork

if TYPE_CHECKING:
    from .nodes import Node


class Links:
    """What the processes' networks have in common."""

    def __init__(self) -> None:
        self.owners: dict[Address, ProcessNetwork] = {}
        self.ends: list[MemoryEnd] = []
        #: Pairs of names between which nothing goes through.
        self.cut_off: list[tuple[str, str]] = []
        #: Ends on which nothing arrives, and until when they believe in it.
        self.black_holes: dict[MemoryEnd, float] = {}
        #: How an end does what it can: `World.step_end`.
        self.step_end: Callable[[MemoryEnd, int], bool]
        self.prototype = MemoryNetwork()

    def separated(self, one: str, other: str) -> bool:
        return (one, other) in self.cut_off or (other, one) in self.cut_off


class ProcessNetwork(MemoryNetwork):
    """The network as one process has it, which takes its timers and connections along."""

    def __init__(self, links: Links, node: Node) -> None:
        super().__init__()
        self.links = links
        self.node = node
        self.alive = True
        # Shared by all of them.
        self._acceptors = links.prototype._acceptors
        self._ends = links.ends
        self._connections = links.prototype._connections

    def add_acceptor(self, address: Address, acceptor: Any) -> None:
        super().add_acceptor(address, acceptor)
        self.links.owners[address] = self

    def step(self) -> bool:
        happened = False
        for end in list(self._ends):
            happened |= end._open and self.links.step_end(end, 1 << 20)
        return happened

    def link(self, address: Address) -> tuple[MemoryEnd, MemoryEnd, Callable[[MemoryEnd], None]]:
        owner = self.links.owners.get(address)
        if owner is None or self.links.separated(self.node.name, owner.node.name):
            raise ConnectionRefusedError(f"nothing listens at {address}")
        ours, theirs, accept = super().link(address)
        theirs.network = owner
        return ours, theirs, accept

    def remove_acceptor(self, address: Address) -> None:
        super().remove_acceptor(address)
        self.links.owners.pop(address, None)

    def is_late(self, end: MemoryEnd) -> bool:
        """Links are slow: what is on its way may be late."""
        return True

    def vanish(self) -> list[MemoryEnd]:
        """The process is gone, and says nothing; the ends that led to it."""
        self.alive = False
        for address, owner in list(self.links.owners.items()):
            if owner is self:
                self.remove_acceptor(address)
        self._timers.clear()
        self._attempts.clear()
        left = []
        for end in list(self._ends):
            if end.network is self:
                end._open = False
                self._ends.remove(end)
                left.append(end.peer)
        return [end for end in left if end._open]
