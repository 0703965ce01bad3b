"""Snapshots in a test: taken without a look, and what is in them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.databases import Stored, blob_files, stored
from zrs_core.tools.snapshots.taking import take_snapshot


def report(stage: str, done: int, total: int) -> None:
    """Nobody looks, but a file of no bytes has no parts."""
    assert 0 <= done <= max(total, 1)


def take(source: Path, destination: Path, **options: Any) -> dict[str, Any]:
    """What a snapshot of a directory's database says of itself, when that is true."""
    options = {"blobs": None, "report": report, **options}
    take_snapshot(str(source / "Data.fs"), destination=str(destination), **options)
    return read(destination)


def read(directory: Path) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads((directory / "snapshot.json").read_text())
    assert manifest["sizes"]["Data.fs"] == (directory / "Data.fs").stat().st_size
    files = blob_files(directory / "blobs")
    assert manifest["blobs"] == len(files)
    assert manifest["sizes"]["blobs"] == sum(map(len, files.values()))
    content: list[Stored] = stored(directory)
    assert manifest["transactions"] == len(content)
    assert manifest["records"] == sum(len(each.records) for each in content)
    assert manifest["tid"] == (f"0x{content[-1].tid.hex()}" if content else None)
    return manifest


def names(directory: Path) -> set[str]:
    return {each.name for each in directory.iterdir()}
