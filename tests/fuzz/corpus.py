"""The inputs that are kept: a file each, in a folder for each target."""

from __future__ import annotations

from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent / "corpus"


@cache
def inputs(target: str) -> tuple[bytes, ...]:
    """The inputs that are kept for a target, in the same order everywhere."""
    return tuple(path.read_bytes() for path in sorted((FOLDER / target).iterdir()))
