"""How Sphinx makes the site of these documents: `make docs`, without the network."""

from __future__ import annotations

import sys
from pathlib import Path

from zrs_core import __version__

# Where the extensions are that are of this project alone.
sys.path.insert(0, str(Path(__file__).parent / "extensions"))

project = "zrs_core"
copyright = "the contributors of zrs_core"
release = __version__
html_title = f"zrs_core {release}"
html_theme = "furo"
html_copy_source = False
html_show_sourcelink = False

extensions = [
    "sphinx.ext.autodoc",
    "sphinx_click",
    "sphinxcontrib.zopeext.autointerface",
    "option_table",
    "zconfig_keys",
    "zconfig_lexer",
    "links",
]

# In docstrings, what stands in single backquotes is a name: a link, where there is something of
# that name.
default_role = "py:obj"
highlight_language = "text"
# `--option` is no dash.
smartquotes = False

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
autodoc_class_signature = "separated"

# The types of what may be called must be there too; other names in docstrings may be of the inside.
# The documents of other projects would take the network.
nitpicky = True
nitpick_ignore_regex = [("py:.*", r"(?!zrs_core\.).*"), ("py:obj", ".*")]
# A variable for types has no place of its own, and the layout of a file is not for users.
nitpick_ignore = [("py:class", "zrs_core.codec.connection.Received")]
nitpick_ignore_regex += [("py:class", r"zrs_core\.storage\.committed\.\w+")]
