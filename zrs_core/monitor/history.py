"""The last hour, sampled at regular times."""

from __future__ import annotations

import time
from collections import deque
from typing import Any

from ..status.state import NodeStatus

#: Seconds between two samples.
INTERVAL = 5.0

#: How many samples are kept: those of an hour.
_SAMPLES = int(3600 / INTERVAL)

#: A time, the lag in seconds, and transactions and bytes a second.
Sample = tuple[float, float | None, float, float]


class History:
    """One thread adds; any reads."""

    def __init__(self) -> None:
        self._samples: deque[Sample] = deque(maxlen=_SAMPLES)

    def add(self, status: NodeStatus) -> None:
        self._samples.append(sample_of(status))

    def as_json(self) -> dict[str, Any]:
        samples = [[*each] for each in list(self._samples)]
        return {"now": time.time(), "interval": INTERVAL, "samples": samples}


def sample_of(status: NodeStatus) -> Sample:
    """What is kept of a status: of a primary the greatest lag of those that follow it."""
    primary, secondary = status.primary, status.secondary
    lag: float | None
    if secondary is not None:
        lag, rates = secondary.lag_seconds, secondary.rates
    else:
        assert primary is not None  # noqa: S101
        known = [peer.lag_seconds for peer in primary.peers if peer.lag_seconds is not None]
        lag, rates = max(known, default=None), primary.rates
    rate = rates.ten_seconds
    return status.now, lag, rate.transactions, rate.bytes
