"""What the page consists of, without a browser."""

from __future__ import annotations

import fnmatch
import re
import sys
from pathlib import Path

import pytest

from zrs_core.monitor.files import Page

from .fake import PAGE

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pytest brings it

FILES = sorted(each.name for each in PAGE.iterdir())


def test_all_files_are_in_the_package() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    patterns = project["tool"]["setuptools"]["package-data"]["zrs_core.monitor"]
    left = [
        each
        for each in FILES
        if not any(fnmatch.fnmatch(f"page/{each}", pattern) for pattern in patterns)
    ]
    assert {"index.html", "style.css", "page.js"} <= {*FILES}
    assert left == []


@pytest.mark.parametrize("name", FILES)
def test_all_files_are_served(name: str) -> None:
    file = Page().find(f"/{name}")
    assert file is not None
    assert file.content == (PAGE / name).read_bytes()


@pytest.mark.parametrize("name", FILES)
def test_nothing_comes_from_elsewhere_or_stands_in_the_page(name: str) -> None:
    text = (PAGE / name).read_text(encoding="utf-8")
    # The name of a kind of elements is no address.
    assert "//" not in re.sub(r'"http://www.w3.org/2000/svg"|^ *//.*$', "", text, flags=re.M)
    assert not re.search(
        r"\bstyle=|\bon\w+=|<style|innerHTML|outerHTML|insertAdjacent|eval\(", text
    )
    if name == "index.html":
        assert re.findall(r"<script.*?</script>", text) == [
            '<script type="module" src="page.js"></script>'
        ]
