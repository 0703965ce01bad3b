"""Waiting for conditions, never for time."""

from __future__ import annotations

import time
from collections.abc import Callable

DEADLINE = 120.0


def wait_for(condition: Callable[[], object], what: str) -> None:
    """Return as soon as `condition()` holds; fail if it does not within two minutes."""
    deadline = time.monotonic() + DEADLINE
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited in vain for {what}")
        time.sleep(0.005)
