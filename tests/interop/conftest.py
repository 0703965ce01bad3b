"""Chance that can be repeated, and the peers in environments of their own."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

_PEERS = Path(__file__).parents[2] / ".venv-peers"


@pytest.fixture
def chance() -> random.Random:
    """Another chance at each run, or that of the environment variable SEED."""
    seed = os.environ.get("SEED") or str(random.randrange(1 << 32))
    print(f"SEED={seed}")
    return random.Random(int(seed))


@pytest.fixture(scope="session")
def python_of():
    """The interpreter of one of the environments in `peers/`."""

    def find(environment: str) -> str:
        python = _PEERS / environment / "bin" / "python"
        if not python.exists():
            raise FileNotFoundError(f"{python} is not there: `make peers` installs it")
        return str(python)

    return find
