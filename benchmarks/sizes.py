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


FULL = Sizes(rounds=5, small_transactions=40_000, large_transactions=400, blobs=60)
QUICK = Sizes(rounds=1, small_transactions=2_000, large_transactions=100, blobs=15)
SMALLEST = Sizes(rounds=1, small_transactions=50, large_transactions=5, blobs=2)

SIZES = {"full": FULL, "quick": QUICK, "smallest": SMALLEST}
