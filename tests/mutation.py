"""Report what `mutmut run` found for each package; fail if too few mutants were killed.

Run as `python tests/mutation.py`, by `make mutation`. All survivors in a package of `LISTED` must
be in ``mutation-survivors.txt``, with the reason. A survivor is identified by its module, its
function and the lines that differ. With `--survivors`, print the survivors of the other packages.
"""

from __future__ import annotations

import ast
import difflib
import json
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MUTANTS = ROOT / "mutants"
KNOWN = ROOT / "tests" / "mutation-survivors.txt"

#: The share of the mutants of each package that must be killed.
ENOUGH = {"codec": 0.90, "storage": 0.85}

#: Packages of which each survivor must be listed.
LISTED = {"codec"}

#: How mutmut says that the tests of a mutant passed, or that none was run.
_SURVIVED = (0, 33)


def verdicts(package: str) -> dict[str, int | None]:
    """Return the exit code of each mutant's tests, by its name; None where they were not run."""
    found: dict[str, int | None] = {}
    for path in sorted(MUTANTS.glob(f"zrs_core/{package}/*.meta")):
        found |= json.loads(path.read_text(encoding="utf-8"))["exit_code_by_key"]
    return found


def described(names: list[str]) -> Iterator[str]:
    """Each mutant by its module, its function and the lines that differ."""
    for name in names:
        module, _, mutant = name.rpartition(".")
        functions = _functions(MUTANTS.joinpath(*module.split(".")).with_suffix(".py"))
        original = functions[re.sub(r"__mutmut_\d+$", "__mutmut_orig", mutant)]
        differences = difflib.unified_diff(original, functions[mutant], n=0, lineterm="")
        lines = [
            f"{line[0]} {line[1:].strip()}"
            for line in differences
            if line[0] in "+-" and not line.startswith(("---", "+++")) and "__mutmut_" not in line
        ]
        function = re.sub(r"__mutmut_\d+$", "", mutant).replace("ǁ", ".").removeprefix("x")
        yield f"{module.rpartition('.')[2]}.{function.lstrip('._')}: " + " ".join(lines)


@cache
def _functions(path: Path) -> dict[str, list[str]]:
    source = path.read_text(encoding="utf-8")
    lines = source.splitlines()
    return {
        node.name: lines[node.lineno - 1 : node.end_lineno]
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef)
    }


def passes(package: str, known: set[str], show: bool) -> bool:
    """Print the result of a package; return True if it is good enough."""
    found = verdicts(package)
    left = [name for name, code in found.items() if code in _SURVIVED]
    untried = sum(code is None for code in found.values())
    share = 1 - len(left) / max(len(found) - untried, 1)
    print(
        f"{package}: {len(found)} mutants, {untried} not tried, {len(left)} survived: "
        f"{share:.1%} killed, {ENOUGH[package]:.0%} required"
    )
    new = [line for line in described(left) if line not in known]
    listed = package in LISTED
    if listed or show:
        for line in new:
            print(f"not in {KNOWN.name}: {line}" if listed else line)
    return bool(found) and share >= ENOUGH[package] and not untried and not (listed and new)


def main() -> int:
    known = set(KNOWN.read_text(encoding="utf-8").splitlines())
    show = "--survivors" in sys.argv
    results = [passes(package, known, show) for package in ENOUGH]
    return int(not all(results))


if __name__ == "__main__":
    sys.exit(main())
