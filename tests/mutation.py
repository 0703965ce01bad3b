"""Tells what `mutmut run` found, and fails if too much of it, or anything new, was not killed.

Run as `python tests/mutation.py`, by `make mutation`. A survivor is known by its module, its
function and the lines that differ; ``mutation-survivors.txt`` has those for which there is a
reason.
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

#: The share that must be killed.
ENOUGH = 0.90

#: How mutmut says that the tests of a mutant passed, or that none was run.
_SURVIVED = (0, 33)


def verdicts() -> dict[str, int | None]:
    """The exit code of each mutant's tests, by its name; None where they were not run."""
    found: dict[str, int | None] = {}
    for path in sorted(MUTANTS.glob("zrs_core/codec/*.meta")):
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


def main() -> int:
    found = verdicts()
    left = [name for name, code in found.items() if code in _SURVIVED]
    untried = sum(code is None for code in found.values())
    share = 1 - len(left) / max(len(found) - untried, 1)
    print(f"{len(found)} mutants, {untried} not tried, {len(left)} survived: {share:.1%} killed")
    known = set(KNOWN.read_text(encoding="utf-8").splitlines())
    new = [line for line in described(left) if line not in known]
    for line in new:
        print(f"not in {KNOWN.name}: {line}")
    return int(share < ENOUGH or bool(new) or bool(untried))


if __name__ == "__main__":
    sys.exit(main())
