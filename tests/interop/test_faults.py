"""The faults of zc.zrs are still as docs/compatibility.rst shows them."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

_ROOT = Path(__file__).parents[2]
_DOCUMENT = (_ROOT / "docs" / "compatibility.rst").read_text(encoding="utf-8")
_SHOWN = re.findall(
    r"^    \$ \.venv-peers/(\S+)/bin/python tests/interop/faults/(\S+)\.py\n((?:    .+\n)+)",
    _DOCUMENT,
    re.MULTILINE,
)


def test_each_is_shown() -> None:
    scripts = {path.stem for path in (_ROOT / "tests" / "interop" / "faults").glob("*.py")}
    assert {name for _, name, _ in _SHOWN} == scripts - {"ends"}


@pytest.mark.long
@pytest.mark.parametrize(
    ("environment", "name", "output"), _SHOWN, ids=[each[1] for each in _SHOWN]
)
def test_it_is_there(environment: str, name: str, output: str, python_of: Any) -> None:
    path = _ROOT / "tests" / "interop" / "faults" / f"{name}.py"
    run = subprocess.run(
        [python_of(environment), str(path)], capture_output=True, text=True, timeout=120
    )
    assert run.stdout == re.sub("^    ", "", output, flags=re.MULTILINE), run.stderr
