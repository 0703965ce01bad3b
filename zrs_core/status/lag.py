"""How far a secondary is behind, as far as it can know.

The protocol has nothing for a primary to say but transactions: when none come, either there are
none, or they are held up on the way. So there are three cases.

- A transaction has come in part, or is not visible yet. The lag is the age of the first such one,
  and grows. It is at least the time since the first byte of what is not whole.
- Everything that has come is visible. The lag is the time from the commit of the last one, by its
  tid, until it became visible here, by the clocks of both machines. If by these it has not been
  committed yet, it is 0 where they differ by no more than `CLOCK_TOLERANCE`, and unknown otherwise.
- Nothing can be said: there is no connection; or the last transaction is from before this
  connection, so that its age is no measure of the way, and nothing has followed for `QUIET`
  seconds.
"""

from __future__ import annotations

import time

from ..messages import NO_TID
from ..progress import QUIET, Progress, State
from ..tids import age_of
from .rates import Meter, rates_of
from .state import DivergenceStatus, KnownPosition, SecondaryStatus, position_of, time_of


def secondary_status(
    progress: Progress,
    meter: Meter,
    *,
    name: str,
    primary_address: str,
    transport: str,
    tls: bool,
    protocol: str,
    blobs_written: int,
    missing_blobs: int,
) -> SecondaryStatus:
    """How replication is going now."""
    silence = progress.silence
    heard = None if silence is None else time.time() - silence
    known = max(progress.known, progress.tid)
    waiting = unapplied(progress)
    connected = progress.connected
    return SecondaryStatus(
        name=name,
        primary_address=primary_address,
        transport=transport,
        tls=tls,
        protocol=protocol,
        state=progress.state,
        connected=connected,
        connected_since=progress.connected_since if connected else None,
        local_address=progress.local_address if connected else None,
        connections=progress.connections,
        last_error=progress.last_failure,
        failures=progress.failures,
        divergence=_divergence(progress),
        position=position_of(progress.tid),
        primary_position=_known_position(known, heard),
        lag_seconds=lag_of(progress),
        lag_transactions=waiting,
        primary_status_age=None,
        last_heard=heard,
        silence_seconds=silence,
        news=news_of(heard, waiting),
        rates=rates_of([meter]),
        bytes=progress.bytes,
        transactions=progress.transactions,
        blobs_written=blobs_written,
        missing_blobs=missing_blobs,
    )


def _divergence(progress: Progress) -> DivergenceStatus | None:
    found = progress.divergence
    if found is None:
        return None
    common = None if found.common is None else position_of(found.common)
    return DivergenceStatus(common, found.transactions)


def _known_position(tid: bytes, heard: float | None) -> KnownPosition | None:
    if heard is None or tid == NO_TID:
        return None
    return KnownPosition(tid, time_of(tid), heard)


def lag_of(progress: Progress) -> float | None:
    """Seconds that a secondary is behind; None if it cannot know."""
    lag, partial = _lag_of_whole(progress), progress.partial
    if partial is None or (lag is None and partial < QUIET):
        return lag
    return max(partial, lag or 0.0)


def _lag_of_whole(progress: Progress) -> float | None:
    """The lag by the tids that have come."""
    first = progress.first_unapplied
    if first is not None and first > progress.tid:
        return age_of(first)
    if not progress.connected:
        return None
    if progress.applied_is_old and (progress.quiet or 0.0) >= QUIET:
        return None
    return progress.lag


def unapplied(progress: Progress) -> int | None:
    """How many transactions are known that are not visible yet; None for none that are known."""
    first = progress.first_unapplied
    if first is not None and first > progress.tid:
        return max(progress.unapplied, 1)
    return 1 if (progress.partial or 0.0) >= QUIET else None


def readiness(
    status: SecondaryStatus,
    quiet: float | None,
    max_lag: float,
    late: float | None = None,
    *,
    incomplete: bool = False,
) -> tuple[bool, str]:
    """Whether a secondary can be read from, and why, or why not.

    :param quiet: seconds since anything has happened on the connection.
    :param max_lag: seconds that it may be behind.
    :param late: `Progress.late`, which counts where the clocks differ too much.
    :param incomplete: True if it has received a part of a run of packed transactions.
    """
    if status.state is not State.REPLICATING or not status.connected:
        why = f": {status.last_error.message}" if status.last_error else ""
        return False, f"{status.state}{why}"
    if status.position is None:
        return False, "it has no transaction yet"
    if incomplete:
        return False, "it has received only a part of what a pack of its primary has left"
    lag = status.lag_seconds
    if lag is not None and lag <= max_lag:
        return True, f"{lag:.3f} s behind its primary, where {max_lag:g} s are allowed"
    if lag is not None:
        return False, f"{lag:.3f} s behind its primary, where {max_lag:g} s are allowed"
    if late is not None and (quiet is None or quiet < QUIET):
        why = "its primary's clock is ahead; commits take"
        longer = f"{late:.3f} s longer than when it had all, where {max_lag:g} s are allowed"
        return late <= max_lag, f"{why} {longer}"
    if quiet is None or quiet < QUIET:
        return False, f"it has been connected for less than {QUIET:g} s, and more may come"
    return True, f"connected, and nothing has come for {quiet:.0f} s: {status.news}"


def news_of(heard: float | None, waiting: int | None) -> str:
    """When a primary was last heard, in words."""
    if heard is None:
        return "no news yet"
    moment = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(heard))
    if waiting is None:
        return f"no news since {moment}"
    return f"{waiting} transaction(s) on the way, heard of at {moment}"
