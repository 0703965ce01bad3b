"""Storages and transports in the child of a fork.

Threads do not survive a fork, while descriptors are shared with the parent. A storage that was
opened before the fork would show old data forever in the child, and would read and write through
file positions and sockets that its parent uses.
"""

from __future__ import annotations

import os
import weakref
from typing import Any, Protocol


class Inheritable(Protocol):
    """Something with threads, locks or descriptors that a child must not use."""

    def abandon(self) -> None:
        """Give everything up, in the child of a fork, without an effect on the parent.

        No other thread is running. Locks may be held by threads that do not exist here.
        """


_inheritable: weakref.WeakSet[Any] = weakref.WeakSet()

# Collecting these would flush buffers and close descriptors whose numbers may be in use again.
_abandoned: list[Any] = []


def inheritable(thing: Inheritable) -> None:
    """Have `thing` abandoned in each child that this process forks, as long as it exists."""
    _inheritable.add(thing)


def _in_child() -> None:
    things = [*_inheritable]
    _inheritable.clear()
    _abandoned.extend(things)
    for each in things:
        try:
            each.abandon()
        except Exception:  # noqa: BLE001, S112
            # Each is abandoned, and a fork must not fail.
            continue


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
