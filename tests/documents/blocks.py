"""The blocks of code in a document, in their order."""

from __future__ import annotations

import doctest
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_DIRECTIVE = re.compile(r"( *)\.\. code-block:: (\S+)$")
_OPTION = re.compile(r" +:(\w+): (.+)$")


@dataclass(frozen=True)
class Block:
    """One that is shown as it is: `.. code-block::`, or a paragraph with `::` at its end.

    `line` counts from 1. `language` is empty for the latter. `caption` is the name of the file that
    the block is the content of, or of the terminal that it is typed into; empty without one. By its
    `name` a test finds it.
    """

    line: int
    language: str
    caption: str
    text: str
    name: str = ""

    @property
    def first_line(self) -> str:
        return self.text.partition("\n")[0]


@dataclass(frozen=True)
class Examples:
    """Consecutive examples of doctest's, without a `Block` in between."""

    line: int
    examples: list[doctest.Example]


def blocks_in(text: str) -> Iterator[Block]:
    """All there are of the first kind.

    :raises ValueError: one is marked in a way that is not used here, and would be missed.
    """
    lines = text.splitlines()
    number = 0
    while number < len(lines):
        line = lines[number]
        if re.match(r" *\.\. (code|sourcecode|parsed-literal|literalinclude|highlight)::", line):
            raise ValueError(f"line {number + 1}: {line.strip()} is none of the known kinds")
        directive = _DIRECTIVE.match(line)
        if directive is None and not _begins_literal(line):
            number += 1
            continue
        options = {}
        begin = number + 1
        if directive is not None:
            while begin < len(lines) and (option := _OPTION.match(lines[begin])):
                options[option[1]] = option[2]
                begin += 1
        while begin < len(lines) and not lines[begin].strip():
            begin += 1
        end, indent = begin, max(_indent(lines[begin]), _indent(line) + 1)
        while end < len(lines) and (not lines[end].strip() or _indent(lines[end]) >= indent):
            end += 1
        content = textwrap.dedent("\n".join(lines[begin:end])).strip("\n")
        if not content:
            raise ValueError(f"line {number + 1}: the block is empty")
        yield Block(
            line=begin + 1,
            language=directive[2] if directive else "",
            caption=options.pop("caption", ""),
            text=content + "\n",
            name=options.pop("name", ""),
        )
        if options:
            raise ValueError(f"line {number + 1}: unknown options {', '.join(options)}")
        number = end


def named_blocks(page: str) -> dict[str, str]:
    """The text of each block that has a name, on a page in `docs/`."""
    text = (Path(__file__).parents[2] / "docs" / page).read_text(encoding="utf-8")
    return {each.name: each.text for each in blocks_in(text) if each.name}


def _begins_literal(line: str) -> bool:
    text = line.strip()
    return text.endswith("::") and not text.startswith((".. ", ">>> ", "... "))


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def steps_of(path: Path) -> list[Block | Examples]:
    """All that is to be tried in a document, in its order."""
    text = path.read_text(encoding="utf-8")
    steps: list[Block | Examples] = []
    examples = [*doctest.DocTestParser().get_examples(text, path.name)]
    for block in [*blocks_in(text), None]:
        before = [each for each in examples if block is None or each.lineno < block.line]
        if before:
            steps.append(Examples(before[0].lineno + 1, before))
            examples = examples[len(before) :]
        if block is not None:
            steps.append(block)
    return steps
