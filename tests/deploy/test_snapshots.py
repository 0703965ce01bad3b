"""Snapshots that are taken each night, by systemd or by cron."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import make_database
from tests.conditions import DEADLINE
from tests.databases import stored

from . import DEPLOY, tool
from .units import SYSTEMD, environment, settings


def run(line: str, directory: Path, paths: dict[str, str]) -> None:
    for old, new in {**paths, "/opt/zrs/bin": str(Path(sys.executable).parent)}.items():
        line = line.replace(old, new)
    done = subprocess.run(
        ["/bin/sh", "-c", line],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        env={**os.environ, "STORAGE": str(directory / "database" / "Data.fs")},
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "is a snapshot of" in done.stdout


def check(snapshots: Path, database: Path) -> None:
    """There is one, with the name of a day."""
    [snapshot] = snapshots.iterdir()
    assert len(snapshot.name) == 3
    assert stored(snapshot) == stored(database)


@pytest.mark.long
def test_by_systemd(tmp_path: Path) -> None:
    assert environment(SYSTEMD / "primary.env")["STORAGE"].endswith("/Data.fs")
    database = make_database(tmp_path / "database")
    unit = settings((SYSTEMD / "zrs-snapshot@.service").read_text())
    [before], [line] = unit["ExecStartPre"], unit["ExecStart"]
    # As systemd has it, `$$` and `%%` are one.
    line = line.replace("$$", "$").replace("%%", "%")
    for _ in range(2):
        run(f"{before} && {line}", tmp_path, {"/var/lib/zrs/%i": str(tmp_path)})
        check(tmp_path / "snapshots", database)


def test_systemd_understands_the_timer() -> None:
    timer = settings((SYSTEMD / "zrs-snapshot@.timer").read_text())
    analyze = tool("systemd-analyze", ".ci/install-systemd installs it")
    subprocess.run([analyze, "calendar", *timer["OnCalendar"]], capture_output=True, check=True)


@pytest.mark.long
def test_by_cron(tmp_path: Path) -> None:
    database = make_database(tmp_path / "database")
    (tmp_path / "snapshots").mkdir()
    [entry] = [
        line
        for line in (DEPLOY / "cron" / "zrs-snapshot").read_text().splitlines()
        if not line.startswith("#")
    ]
    *times, user, line = entry.split(" ", 6)
    assert len(times) == 5
    assert user.isalpha()
    # As cron has it, an escaped % is one.
    line = line.replace("\\%", "%")
    places = {"/var/zodb": str(database), "/var/backups/zodb": str(tmp_path / "snapshots")}
    for _ in range(2):
        run(line, tmp_path, places)
        check(tmp_path / "snapshots", database)
