"""A soak of a few seconds."""

from __future__ import annotations

import itertools
import sys

import pytest

from . import soak

_run = soak._run


@pytest.fixture
def machine_of(monkeypatch, tmp_path):
    """Makes a machine of a script; it is given a start and a count."""

    def make(source):
        script = tmp_path / "machine.py"
        script.write_text(
            "import sys\nstart, count = int(sys.argv[4]), int(sys.argv[6])\n" + source
        )
        monkeypatch.setattr(
            soak, "_run", lambda command: _run([sys.executable, str(script), *command[1:]])
        )
        return tmp_path / "report.md"

    return make


def test_machines_take_turns_with_rising_numbers(machine_of, monkeypatch, tmp_path):
    # A second goes by whenever somebody looks: eighteen are two turns of both.
    monkeypatch.setattr(soak.time, "monotonic", itertools.count().__next__)
    seen = tmp_path / "seen"
    report = machine_of(f"open({str(seen)!r}, 'a').write(f'{{start}} {{count}}\\n')")
    assert soak.soak(18 / 3600, ["simulation", "kills"], report) == 0
    turns = [tuple(map(int, line.split())) for line in seen.read_text().splitlines()]
    # Two machines, each of which has numbers of its own.
    assert turns[0] == turns[1] == (soak.FIRST_NUMBER, soak._FIRST_COUNT)
    assert turns[2][0] == turns[3][0] == soak.FIRST_NUMBER + soak._FIRST_COUNT
    told = report.read_text()
    assert "| simulation | 1000000 to " in told
    assert "| kills | 1000000 to " in told
    assert "None." in told
    assert "- ZODB " in told


def test_a_failure_is_told_with_what_was_printed(machine_of):
    report = machine_of("print('replay it so'); sys.exit(1)")
    assert soak.soak(0.01 / 3600, ["simulation"], report) == 1
    told = report.read_text()
    assert "replay it so" in told
    assert "-m tests.simulation --start 1000000 --count 10\nended with 1" in told


def test_what_is_stuck_is_killed(machine_of, monkeypatch):
    monkeypatch.setattr(soak, "_STUCK", 0.5)
    report = machine_of("import time; time.sleep(1000)")
    assert soak.soak(0.01 / 3600, ["fuzz"], report) == 1
    assert "stuck: no end" in report.read_text()


def test_the_exit_status_tells(machine_of):
    report = machine_of("sys.exit(1)")
    arguments = ["--hours", "0.000001", "--machines", "simulation", "--report", str(report)]
    assert soak.main(arguments) == 1
    report = machine_of("sys.exit(0)")
    assert soak.main(arguments) == 0
