"""Requires 100 % branch coverage of each module of the codec, by its own test file alone.

Run as `python tests/codec_coverage.py`. It also fails when a module has no test file, or a test
file no module.
"""

import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CODEC = ROOT / "zrs_core" / "codec"
TESTS = ROOT / "tests"

#: Tests of the codec as a whole.
WITHOUT_MODULE = {TESTS / "codec" / name for name in ("test_names.py", "test_properties.py")}

CONFIGURATION = """\
[run]
branch = true
include = {module}
data_file = {data_file}
[report]
show_missing = true
"""


def pairs():
    """Each module with its test file."""
    modules = [path for path in CODEC.glob("*.py") if path.name != "__init__.py"]
    found = {path: TESTS / "codec" / f"test_{path.name}" for path in sorted(modules)}
    found[ROOT / "zrs_core" / "messages.py"] = TESTS / "test_messages.py"
    return found


def unmatched(found):
    """What is wrong with the mapping, a line each."""
    for module, tests in found.items():
        if not tests.exists():
            yield f"{module.relative_to(ROOT)} has no {tests.relative_to(ROOT)}"
    for tests in sorted((TESTS / "codec").glob("test_*.py")):
        if tests not in found.values() and tests not in WITHOUT_MODULE:
            yield f"{tests.relative_to(ROOT)} tests no module"


def run(*command, environment):
    return subprocess.run(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def measure(folder, module, tests):
    """Whether `tests` pass and cover all of `module`, and what to say about it."""
    configuration = Path(folder, f"{module.stem}.coveragerc")
    data_file = Path(folder, f"coverage.{module.stem}")
    configuration.write_text(CONFIGURATION.format(module=module, data_file=data_file))
    environment = {**os.environ, "COVERAGE_FILE": str(data_file)}
    option = f"--rcfile={configuration}"
    tested = run("coverage", "run", option, "-m", "pytest", "-q", tests, environment=environment)
    if tested.returncode:
        return False, f"tests fail\n{tested.stdout}"
    report = run("coverage", "report", option, "--fail-under=100", environment=environment)
    *_, total = report.stdout.split()
    return not report.returncode, total if not report.returncode else f"{total}\n{report.stdout}"


def main():
    found = pairs()
    problems = list(unmatched(found))
    for problem in problems:
        print(problem)
    failed = bool(problems)
    tested = {module: tests for module, tests in found.items() if tests.exists()}
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(os.cpu_count()) as pool:
        outcomes = pool.map(partial(measure, folder), *zip(*tested.items(), strict=True))
        for module, (good, text) in zip(tested, outcomes, strict=True):
            failed |= not good
            print(f"{module.relative_to(ROOT)}: {text}", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
