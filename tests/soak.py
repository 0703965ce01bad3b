"""All machines that make cases from numbers, in turn and with rising numbers, for as long as asked.

`python -m tests.soak --hours 0.5` writes `build/soak/report.md`: what was run for how long, and
each failure with what it printed, the command that shows it again included. The exit status is 1 if
anything failed.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import os
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path

_ROOT = Path(__file__).parent.parent

#: Modules that are run as `python -m tests.NAME --start S --count N`.
MACHINES = ("simulation", "crashes", "fuzz", "histories", "kills")

#: Beyond the numbers that the tests run.
FIRST_NUMBER = 1_000_000

#: Seconds that one turn of a machine should take.
TURN = 60.0

# Cases in a machine's first turn, and seconds after which a turn counts as stuck.
_FIRST_COUNT = 10
_STUCK = 1800.0

_PACKAGES = ("zrs-core", "ZODB", "ZEO", "Twisted", "persistent", "BTrees", "hypothesis")

# What of the output of a failure is kept, from its end.
_OUTPUT_SIZE = 8000


class Machine:
    """One module, and how far it has come."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.next = FIRST_NUMBER
        self.count = _FIRST_COUNT
        self.cases = 0
        self.seconds = 0.0
        self.failures: list[str] = []

    def take_turn(self, limit: float) -> None:
        """Run the next cases; `limit` is how many seconds are left."""
        if self.cases:
            rate = self.cases / self.seconds
            self.count = max(1, min(self.count * 8, int(min(TURN, limit) * rate)))
        arguments = ["-m", f"tests.{self.name}", "--start", str(self.next), "--count"]
        command = [sys.executable, *arguments, str(self.count)]
        began = time.monotonic()
        status, output = _run(command)
        self.seconds += time.monotonic() - began
        self.cases += self.count
        self.next += self.count
        print(f"{self.name}: {self.cases} cases, {self.seconds:.0f} s", flush=True)
        if status:
            told = f"python {' '.join(command[1:])}\nended with {status}:\n\n{output}"
            self.failures.append(told)
            print(told, flush=True)


def _run(command: list[str]) -> tuple[int, str]:
    """The exit status and the end of the output. What is stuck is killed with its children."""
    process = subprocess.Popen(
        command,
        cwd=_ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=_STUCK)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output = process.communicate()[0] + f"\nstuck: no end after {_STUCK:.0f} s"
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise
    return process.returncode, output[-_OUTPUT_SIZE:]


def soak(hours: float, names: list[str], report: Path) -> int:
    """Run the machines for so long, each once at least; how many turns failed."""
    machines = [Machine(name) for name in names]
    began = time.time()
    end = time.monotonic() + hours * 3600
    report.parent.mkdir(parents=True, exist_ok=True)
    while True:
        left = max(end - time.monotonic(), 0.0)
        for machine in machines:
            machine.take_turn(max(end - time.monotonic(), left / len(machines)))
            report.write_text(_report(machines, began))
            if time.monotonic() > end and all(each.cases for each in machines):
                break
        if time.monotonic() >= end:
            break
    return sum(len(each.failures) for each in machines)


def _report(machines: list[Machine], began: float) -> str:
    def moment(seconds: float) -> str:
        return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))

    lines = [
        "# Soak",
        "",
        f"From {moment(began)} to {moment(time.time())}, on {platform.platform()} with "
        f"{os.cpu_count()} processors.",
        "",
        "| machine | numbers | cases | seconds | failed turns |",
        "|---|---|---|---|---|",
    ]
    for each in machines:
        numbers = f"{FIRST_NUMBER} to {each.next - 1}" if each.cases else ""
        cells = each.name, numbers, each.cases, f"{each.seconds:.0f}", len(each.failures)
        lines.append(f"| {' | '.join(map(str, cells))} |")
    lines += ["", "## Versions", "", f"- Python {platform.python_version()}"]
    lines += [f"- {name} {_version(name)}" for name in _PACKAGES]
    lines += ["", "## Failures", ""]
    failures = [told for each in machines for told in each.failures]
    for told in failures:
        lines += ["```", told, "```", ""]
    if not failures:
        lines.append("None.")
    return "\n".join(lines) + "\n"


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak")
    parser.add_argument("--hours", type=float, required=True, help="may be a fraction")
    parser.add_argument("--machines", nargs="+", choices=MACHINES, help="not all of them")
    parser.add_argument("--report", type=Path, default=_ROOT / "build" / "soak" / "report.md")
    options = parser.parse_args(arguments)
    names = options.machines or [
        name for name in MACHINES if importlib.util.find_spec(f"tests.{name}")
    ]
    failed = soak(options.hours, names, options.report)
    print(f"{failed} turns failed; {options.report}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
