"""Seeds of the simulation, in processes of their own, since it replaces the system's calls."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]


def simulate(*arguments: object, hash_seed: int = 0) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.simulation", *map(str, arguments)],
        check=False,
        capture_output=True,
        text=True,
        cwd=_ROOT,
        env=os.environ | {"PYTHONHASHSEED": str(hash_seed)},
    )


def find_without(guard: str, count: int) -> str:
    """What is told of the seeds from 0 on, with a guard taken out; at least one fails."""
    done = simulate("--count", count, "--without", guard)
    found = re.search(rf"{count} seeds from 0 on, (\d+) failed", done.stdout)
    assert found, done.stdout + done.stderr
    print(f"without the guard against {guard}: found in {found[1]} of {count} seeds")
    assert int(found[1]) > 0
    assert done.returncode == 1
    return done.stdout


def test_nothing_is_lost_in_some_seeds():
    done = simulate("--count", 30)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.long
@pytest.mark.parametrize("start", range(0, 8000, 400))
def test_nothing_is_lost(start):
    done = simulate("--start", start, "--count", 400)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_same_seed_gives_the_same_trace():
    one, other = (simulate("--count", 2, "--trace", hash_seed=each) for each in (1, 2))
    assert one.returncode == 0, one.stdout + one.stderr
    assert one.stdout.count("digest") == 2
    assert one.stdout == other.stdout


# The more seldom a fault is, the more seeds it takes.


def test_a_missing_guard_against_being_ahead_of_the_disk_is_found():
    told = find_without("D8", 10)
    # A failing seed tells how to see it.
    replay = re.search(r"python -m tests.simulation (.*--trace)", told)
    assert replay, told
    traced = simulate(*replay[1].split())
    assert traced.returncode == 1
    assert "Broken" in traced.stdout


def test_a_missing_guard_for_empty_blobs_is_found():
    find_without("D5", 20)


@pytest.mark.long
@pytest.mark.parametrize("guard", ["D1", "D2", "D3"])
def test_a_guard_that_is_missed_seldom_is_found(guard):
    find_without(guard, 200)
