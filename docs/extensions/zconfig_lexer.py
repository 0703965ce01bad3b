"""Colours for `.. code-block:: zconfig`, which Pygments knows nothing of."""

from __future__ import annotations

from typing import Any, ClassVar

from pygments.lexer import RegexLexer, bygroups
from pygments.token import Comment, Keyword, Name, String, Text
from sphinx.application import Sphinx


class ZConfigLexer(RegexLexer):
    """Sections, directives, keys and their values, a line each."""

    name = "ZConfig"
    aliases: ClassVar = ["zconfig"]
    tokens: ClassVar = {
        "root": [
            (r"\s+", Text),
            (r"#.*", Comment),
            (r"(%\w+)(.*)", bygroups(Keyword, String)),
            (r"</?[^>]*>", Name.Tag),
            (r"([\w-]+)(.*)", bygroups(Name.Attribute, String)),
        ]
    }


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.add_lexer("zconfig", ZConfigLexer)
    return {"parallel_read_safe": True}
