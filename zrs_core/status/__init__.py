"""Values that describe what primaries and secondaries do, and the counters that they come from.

`Primary.status` and `Secondary.status` return them. Sessions count into them; the status server,
which shows them, is `zrs_core.monitor`.
"""

from __future__ import annotations

from typing import Any

from ..moved import find_moved


def __getattr__(name: str) -> Any:
    return find_moved(__name__, name)
