"""How much is measured."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Sizes:
    """Numbers of transactions and the like; blobs and records in bytes, times in seconds."""

    rounds: int
    small_transactions: int
    large_transactions: int
    blobs: int
    commits: int
    secondaries: tuple[int, ...]
    lag_commits: int
    many_fresh_transactions: int
    idle_seconds: int
    memory_transactions: int
    memory_blob: int
    stopped_seconds: int
    growth: tuple[int, ...]
    growth_last: int


FULL = Sizes(
    rounds=5,
    small_transactions=40_000,
    large_transactions=400,
    blobs=60,
    commits=10_000,
    secondaries=(0, 1, 4, 8),
    lag_commits=1_000,
    many_fresh_transactions=3_000,
    idle_seconds=10,
    memory_transactions=10_000,
    memory_blob=2_000_000_000,
    stopped_seconds=60,
    growth=(10_000, 100_000, 1_000_000),
    growth_last=10_000,
)
QUICK = Sizes(
    rounds=1,
    small_transactions=1_000,
    large_transactions=50,
    blobs=10,
    commits=500,
    secondaries=(0, 1),
    lag_commits=100,
    many_fresh_transactions=100,
    idle_seconds=1,
    memory_transactions=500,
    memory_blob=100_000_000,
    stopped_seconds=1,
    growth=(100_000,),
    growth_last=1_000,
)
SMALLEST = Sizes(
    rounds=1,
    small_transactions=50,
    large_transactions=5,
    blobs=2,
    commits=20,
    secondaries=(0, 1),
    lag_commits=20,
    many_fresh_transactions=20,
    idle_seconds=1,
    memory_transactions=20,
    memory_blob=5_000_000,
    stopped_seconds=1,
    growth=(20, 100),
    growth_last=20,
)

SIZES = {"full": FULL, "quick": QUICK, "smallest": SMALLEST}
