"""The source distribution."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

#: What comes with the package, all of it.
TREES = ("deploy", "docs", "examples", "tests", "zrs_core", ".ci")
FILES = ("CHANGES.rst", "LICENSE", "MANIFEST.in", "Makefile", "README.rst", "pyproject.toml")

_LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.pyc", "*.egg-info")

_BUILD = "import setuptools.build_meta, sys; print(setuptools.build_meta.build_sdist(sys.argv[1]))"


def build(source: Path) -> set[str]:
    """Return the files in an sdist that is built of a copy at `source`, without a network."""
    for tree in TREES:
        shutil.copytree(ROOT / tree, source / tree, ignore=_LEFT_OUT)
    for file in FILES:
        shutil.copy(ROOT / file, source)
    # A directory that was worked in has such files.
    (source / "docs" / "__pycache__").mkdir()
    (source / "docs" / "__pycache__" / "conf.cpython-311.pyc").write_bytes(b"")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _BUILD, str(source / "dist")],
        cwd=source,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    [sdist] = (source / "dist").iterdir()
    with tarfile.open(sdist) as archive:
        return {each.name.partition("/")[2] for each in archive if each.isfile()}


def files_of(tree: str) -> set[str]:
    return {
        str(path.relative_to(ROOT))
        for path in (ROOT / tree).rglob("*")
        if path.is_file() and not re.search(r"__pycache__|\.egg-info|\.pyc$", str(path))
    }


@pytest.mark.long
def test_it_holds_documents_and_what_is_deployed(tmp_path: Path) -> None:
    members = build(tmp_path / "source")
    assert {"deploy/systemd/zrs-secondary@.service", "docs/index.rst"} <= members
    for tree in TREES:
        assert files_of(tree) - members == set()
    assert {*FILES} <= members
    assert [each for each in members if "__pycache__" in each or each.endswith(".pyc")] == []
