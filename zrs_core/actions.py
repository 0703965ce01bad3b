"""Actions that a session asks its driver to carry out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Send:
    """Send these bytes, in this order, and report with `sent` what the network accepts."""

    chunks: Sequence[bytes]


@dataclass(frozen=True, slots=True)
class Work:
    """Call `call`, which may wait for a disk, and report its outcome with `done` or `failed`.

    A session asks for the next `Work` only when the one before has been reported.

    :param nearby: True if what it reads was written a moment ago, so that an event loop may call it
        in its own thread: handing it to another thread would take longer.
    """

    call: Callable[[], object]
    nearby: bool = False


@dataclass(frozen=True, slots=True)
class HalfClose:
    """Tell the peer that nothing follows. The network has accepted all that was sent."""


@dataclass(frozen=True, slots=True)
class Close:
    """Close the connection, and report it with `lost`. The network has accepted all that was sent.

    :param reason: what to report.
    """

    reason: str


@dataclass(frozen=True, slots=True)
class Abort:
    """Drop the connection at once, with what the network has not taken, and report it with `lost`.

    :param reason: what to report.
    """

    reason: str


Action: TypeAlias = Send | Work | HalfClose | Close | Abort
