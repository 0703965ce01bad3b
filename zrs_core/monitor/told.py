"""What the status server of its primary tells of a secondary, which cannot know it by itself."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from ..messages import NO_TID
from ..status.state import KnownPosition, SecondaryStatus

#: Seconds for which it counts that nothing is missing.
_FRESH = 5.0


@dataclass(frozen=True, slots=True)
class Told:
    """How far behind its primary one is who holds all up to the transaction `tid`.

    :param seconds: how old the first commit is that it lacks; 0 if it lacks none.
    :param transactions: how many it lacks.
    :param position: where the primary is.
    :param told: when it was told, by the monotonic clock.
    """

    tid: bytes
    seconds: float | None
    transactions: int | None
    position: KnownPosition | None
    told: float


def with_told(status: SecondaryStatus, told: Told | None) -> SecondaryStatus:
    """A secondary's status, with what its primary has told where that is more."""
    if told is None:
        return status
    known, heard = status.primary_position, told.position
    if heard is not None and (known is None or known.tid < heard.tid):
        status = replace(status, primary_position=heard)
    position = NO_TID if status.position is None else status.position.tid
    if told.seconds is None or told.tid != position:
        # It was about another position: what has come since then says more.
        return status
    age, lag = time.monotonic() - told.told, status.lag_seconds
    if told.seconds > 0:
        # As long as it lacks that commit, this grows.
        behind = told.seconds + age
        return replace(
            status,
            lag_seconds=behind if lag is None else max(lag, behind),
            lag_transactions=told.transactions or status.lag_transactions,
        )
    if age > _FRESH or status.lag_transactions is not None:
        return status
    return replace(status, lag_seconds=0.0 if lag is None else lag, lag_transactions=0)
