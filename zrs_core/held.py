"""The last transaction that a storage holds, to be compared with what a primary sends of it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO

from .messages import Transaction

#: The status of what a pack has gone over.
PACKED = "p"


def digest(data: bytes) -> bytes:
    """What is kept of a record to compare it with another: a transaction may be large."""
    return hashlib.sha256(data).digest()


@dataclass(frozen=True)
class HeldTransaction:
    """The last transaction of a storage.

    `before` is the tid of the one before it, `NO_TID` for none; `gaps` tells whether a pack may
    have removed others between the two. `records` has the digest of each object's record, of
    several the last; `open_blob` opens the blob of an object in it, None if there is none.
    """

    before: bytes
    gaps: bool
    header: Transaction
    records: dict[bytes, bytes]
    open_blob: Callable[[bytes], IO[bytes] | None]
