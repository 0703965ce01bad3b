"""What is in `deploy/`, as far as it can be run without the service manager or the engine."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

DEPLOY = Path(__file__).parents[2] / "deploy"


def tool(name: str, how: str) -> str:
    """The path of a program; without it a skip, but not where all must be run."""
    path = shutil.which(name)
    if path is None:
        if os.environ.get("CI"):
            raise FileNotFoundError(f"{name} is not there: {how}")
        pytest.skip(f"there is no {name}: {how}")
    return path
