"""How-tos, the tutorial and the page about the codec import only what the reference lists."""

import ast
import importlib
import re
from pathlib import Path

import pytest

from tests.documents.blocks import Examples, steps_of

DOCS = Path(__file__).parents[2] / "docs"
PAGES = [*sorted((DOCS / "how-to").glob("*.rst")), DOCS / "tutorial.rst", DOCS / "codec.rst"]

REFERENCE = "".join(path.read_text("utf-8") for path in (DOCS / "reference").glob("*.rst"))
MODULES = {*re.findall(r"^\.\. automodule:: (\S+)$", REFERENCE, re.MULTILINE)}
OBJECTS = {*re.findall(r"^\.\. auto(?!module)\w+:: (\S+)$", REFERENCE, re.MULTILINE)}
COMMANDS = {
    each.replace(":", ".") for each in re.findall(r"^\.\. click:: (\S+)$", REFERENCE, re.MULTILINE)
}


def sources_in(path):
    """The Python code of a document: examples, and blocks that parse."""
    for step in steps_of(path):
        if isinstance(step, Examples):
            yield from (each.source for each in step.examples)
        elif step.language in ("", "python"):
            yield step.text


def used_in(sources):
    """The modules of this package, and the names in them, that the code uses."""
    aliases = {}
    for source in sources:
        try:
            tree = ast.parse(source)
        except SyntaxError:
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                yield from ((node.module, each.name) for each in node.names)
            elif isinstance(node, ast.Import):
                yield from ((each.name, None) for each in node.names)
                aliases |= {each.asname: each.name for each in node.names if each.asname}
            elif isinstance(node, ast.Attribute) and ast.unparse(node.value) in aliases:
                yield aliases[ast.unparse(node.value)], node.attr


def unlisted(uses):
    """Those of this package that are not listed."""
    ours = {use for use in uses if use[0].split(".")[0] == "zrs_core"}
    return sorted(".".join(filter(None, use)) for use in ours if not is_listed(*use))


def is_listed(module, name):
    if name is None or f"{module}.{name}" in MODULES | OBJECTS | COMMANDS:
        return name is not None or module in MODULES
    public = getattr(importlib.import_module(module), "__all__", None)
    if module == "zrs_core" and name in public:
        # The reference lists it by its home.
        found = getattr(importlib.import_module(module), name)
        return f"{found.__module__}.{found.__qualname__}" in OBJECTS
    if module not in MODULES:
        return False
    return not name.startswith("_") if public is None else name in public


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_a_page_imports_only_what_the_reference_lists(path):
    assert unlisted(used_in(sources_in(path))) == []


def test_imports_are_found():
    found = [use for path in PAGES for use in used_in(sources_in(path))]
    assert ("zrs_core", "Primary") in found
    assert ("zrs_core.codec", "NEED_DATA") in found
    assert ("zrs_core.storage", "source_of") in found


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("from zrs_core import Secondary", []),
        ("from zrs_core import committing", ["zrs_core.committing"]),
        ("from zrs_core.storage import source_of", []),
        ("from zrs_core.storage import opening", ["zrs_core.storage.opening"]),
        ("from zrs_core.storage.opening import source_of", ["zrs_core.storage.opening.source_of"]),
        ("import zrs_core.codec as zrs\nzrs.Hello", []),
        ("import zrs_core.codec as zrs\nzrs.primary", ["zrs_core.codec.primary"]),
        ("import zrs_core.codec.framing", ["zrs_core.codec.framing"]),
        ("from zrs_core.codec.secondary import MAX_RECORD_SIZE", []),
        ("from zrs_core.codec.secondary import Role", ["zrs_core.codec.secondary.Role"]),
        ("from ZODB import DB", []),
    ],
)
def test_what_is_not_listed_is_found(source, found):
    assert unlisted(used_in([source])) == found
