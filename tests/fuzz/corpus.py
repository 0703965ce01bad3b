"""The inputs that are kept: a file each, in a folder for each target.

`python -m tests.fuzz.corpus TARGET` prints the folder.
"""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path

from zrs_core.testing import seeds
from zrs_core.testing.targets import TARGETS

_SESSION = Path(__file__).parent / "corpus" / "session"


def folder(target: str) -> Path:
    """Where the inputs of a target are: those of the published ones come with the package."""
    return seeds.folder(target) if target in TARGETS else _SESSION


@cache
def inputs(target: str) -> tuple[bytes, ...]:
    """The inputs that are kept for a target, in the same order everywhere."""
    return tuple(path.read_bytes() for path in sorted(folder(target).iterdir()))


if __name__ == "__main__":
    print(folder(sys.argv[1]))
