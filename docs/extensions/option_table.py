"""The directives `options` and `option-names`, which print the table of options.

`.. options:: primary` lists the options of a group of `zrs_core.config.table`, as keys of ZConfig.
`.. option-names::` is a table of the names that each option has in ZConfig, URIs and commands.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from zrs_core.config import table, uri
from zrs_core.config.table import Option


class Options(SphinxDirective):
    """Its argument is the name of a group, in small letters."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        self.env.note_dependency(table.__file__)
        group: dict[str, Option] = getattr(table, self.arguments[0].upper())
        lines = [line for option in group.values() for line in _entry(option)]
        return self.parse_text_to_nodes("\n".join(lines))


def _entry(option: Option) -> Iterator[str]:
    yield f"``{option.key} {option.value}``"
    yield f"    {option.reference()}"
    yield ""


class OptionNames(SphinxDirective):
    """It has no arguments."""

    def run(self) -> list[nodes.Node]:
        self.env.note_dependency(table.__file__)
        lines = [".. list-table::", "   :header-rows: 1", ""]
        for first, *others in (_HEAD, *_rows()):
            lines += [f"   * - {first}", *(f"     - {cell}" for cell in others)]
        return self.parse_text_to_nodes("\n".join(lines))


_HEAD = ("ZConfig", "URI", "``zrs primary``", "``zrs secondary``")


def _rows() -> Iterator[tuple[str, ...]]:
    in_uris = {option: name for name, option in uri.ARGUMENTS.items()}
    for group in (table.BOTH, table.SECONDARY, table.PRIMARY, table.STATUS, table.TLS):
        for option in group.values():
            primary = "" if option.needs == "replicate_from" else option.flag
            secondary = "" if option.needs == "replicate_to" else option.flag
            cells = (option.key, in_uris.get(option), primary, secondary)
            yield tuple(f"``{cell}``" if cell else "" for cell in cells)


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.add_directive("options", Options)
    app.add_directive("option-names", OptionNames)
    return {"parallel_read_safe": True}
