"""A primary with a number of live secondaries, each in a process of its own."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from .contenders import Contender
from .processes import NodeProcess


class Group(NamedTuple):
    """They are live: each of the secondaries has all that the primary has."""

    primary: NodeProcess
    address: tuple[str, int]
    secondaries: list[NodeProcess]

    def wait(self) -> None:
        """Until all secondaries have what the primary has now."""
        tid = self.primary.call("last_tid")
        for waited_for in [each.start("wait_for", tid=tid) for each in self.secondaries]:
            waited_for()


@contextlib.contextmanager
def live_group(
    contender: Contender, directory: Path, secondaries: int, *, size: int, timed: bool = False
) -> Iterator[Group]:
    """Open them, ready for commits of a record of `size` bytes each."""
    with contextlib.ExitStack() as stack:
        primary = stack.enter_context(NodeProcess("primary", contender, directory))
        address = primary.call("open", path=str(directory / "primary.fs"), timed=timed)
        tid = primary.call("prepare_commits", size=size)
        nodes = []
        for number in range(secondaries):
            node = stack.enter_context(NodeProcess("secondary", contender, directory))
            path = str(directory / f"secondary-{number}.fs")
            node.call("catch_up", path=path, address=address, tid=tid)
            nodes.append(node)
        yield Group(primary, address, nodes)
