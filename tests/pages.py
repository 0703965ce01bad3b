"""The configurations that pages of the documents show, for tests that run them."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

_BLOCK = re.compile(
    r"^\.\. code-block:: \w+\n +:name: (?P<name>\S+)\n\n(?P<text>(?:    .*\n|\n)+)", re.MULTILINE
)


def named_blocks(page: str) -> dict[str, str]:
    """The code blocks of a page in `docs/` that have a name."""
    text = (Path(__file__).parent.parent / "docs" / page).read_text(encoding="utf-8")
    return {
        found["name"]: textwrap.dedent(found["text"]).strip() + "\n"
        for found in _BLOCK.finditer(text)
    }
