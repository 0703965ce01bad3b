"""The exit statuses that docs/running.rst shows are those of the code."""

from __future__ import annotations

import re
from pathlib import Path

from zrs_core.tools.cli.output import Failed, Misconfigured
from zrs_core.tools.cli.statuses import STATUSES

_PAGE = Path(__file__).parents[2] / "docs" / "running.rst"


def test_the_table():
    text = _PAGE.read_text(encoding="utf-8")
    rows = re.findall(r"^(\d+) {2,}(\S.*)$", text, re.MULTILINE)
    assert {int(number): meaning for number, meaning in rows} == STATUSES


def test_errors_have_these_and_not_that_of_success():
    assert {Failed.exit_code, Misconfigured.exit_code} == {*STATUSES} - {0}
