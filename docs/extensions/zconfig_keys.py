"""The directive `zconfig-keys`: the section types of a component for ZConfig, and their keys.

ZConfig has a directive of its own, but for components that refer to no other.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective


class ZConfigKeys(SphinxDirective):
    """Its argument is the path of the component, relative to the directory of `conf.py`."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        path = Path(self.env.srcdir, self.arguments[0]).resolve()
        self.env.note_dependency(path)
        component = ElementTree.parse(path).getroot()
        lines = [line for each in component.iter("sectiontype") for line in _section(each)]
        return self.parse_text_to_nodes("\n".join(lines), allow_section_headings=True)


def _section(sectiontype: ElementTree.Element) -> Iterator[str]:
    title = f"``<{sectiontype.attrib['name']}>``"
    yield from (title, "=" * len(title), "", _described(sectiontype), "")
    for each in sectiontype:
        if each.tag != "description":
            yield " : ".join([f"``{_name(each)}``", *_particulars(each)])
            yield f"    {_described(each)}"
            yield ""


def _name(entry: ElementTree.Element) -> str:
    return f"<{entry.attrib['type']}>" if entry.tag == "section" else entry.attrib["name"]


def _particulars(entry: ElementTree.Element) -> Iterator[str]:
    if entry.tag != "key":
        yield {"section": "section", "multikey": "any number of times"}[entry.tag]
    if entry.get("required") == "yes":
        yield "required"
    if (default := entry.get("default")) is not None:
        yield f"default ``{default}``"


def _described(element: ElementTree.Element) -> str:
    (description,) = element.findall("description")
    return " ".join((description.text or "").split())


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.add_directive("zconfig-keys", ZConfigKeys)
    return {"parallel_read_safe": True}
