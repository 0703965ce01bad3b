"""A fresh secondary: from connecting until the last transaction of the primary is visible."""

from __future__ import annotations

from pathlib import Path

from zrs_core.storage.compare import compare

from .cases import SECONDS, USED, Case, Values
from .contenders import Contender
from .histories import History, generate_blobs, generate_records
from .processes import NodeProcess, used_by
from .sizes import Sizes


def cases(sizes: Sizes, data: Path) -> list[Case]:
    return [
        _case("small transactions", generate_records(data, sizes.small_transactions, 3, 300)),
        _case("large records", generate_records(data, sizes.large_transactions, 5, 60_000)),
        _case("blobs", generate_blobs(data, sizes.blobs, 4_000_000)),
    ]


def _case(what: str, history: History) -> Case:
    return Case(
        f"fresh secondary, {what}",
        f"{history.transactions:,} transactions, {history.records:,} records, "
        f"{history.size / 1e6:,.0f} MB, from connecting until the last is visible",
        [SECONDS, *USED],
        lambda contender, directory: catch_up(contender, history, directory),
    )


class UnequalCopy(Exception):
    """A secondary does not hold what its primary does."""


def catch_up(contender: Contender, history: History, directory: Path) -> Values:
    """Replicate it once: seconds, and what either side has used for it."""
    with (
        NodeProcess("primary", contender, directory) as primary,
        NodeProcess("secondary", contender, directory) as secondary,
    ):
        address = primary.call("open", **_paths(history.path, history.blobs))
        copy, copied_blobs = directory / "Data.fs", history.blobs and directory / "blobs"
        seconds = secondary.call(
            "catch_up",
            **_paths(copy, copied_blobs),
            address=address,
            tid=history.last_tid.hex(),
        )
        used = used_by(primary=primary, secondary=secondary)
    result = compare(history.path, copy, primary_blobs=history.blobs, secondary_blobs=copied_blobs)
    if not result.equal:
        raise UnequalCopy(f"{contender.name}: {result.differences[0]}")
    return {SECONDS.name: seconds, **used}


def _paths(path: Path, blobs: Path | None) -> dict[str, str | None]:
    return {"path": str(path), "blobs": None if blobs is None else str(blobs)}
