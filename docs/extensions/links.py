"""Links from page to page, written as `storages.rst <storages.rst>`_.

A program that shows single files, as those that host repositories do, follows them as they are.
Here they become links to the pages of the site, and one that leads nowhere is a warning.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform


class PageLinks(SphinxTransform):
    """Makes a link to another page, by its path, a cross-reference of Sphinx."""

    # After docutils has resolved `text`_ to where it leads.
    default_priority = 800

    def apply(self, **kwargs: Any) -> None:
        for node in list(self.document.findall(nodes.reference)):
            target = urlsplit(node.get("refuri", ""))
            if target.scheme or target.netloc or not target.path.endswith(".rst"):
                continue
            if target.fragment:
                message = f"{node['refuri']}: a link to a page, not to a place in it, is wanted"
                self.document.reporter.warning(message, base_node=node)
            text = node.astext()
            link = addnodes.pending_xref(
                "",
                nodes.inline(text, text),
                reftype="doc",
                refdomain="std",
                # A page is called by its title, where its path was all that there was to say.
                refexplicit=not text.endswith(".rst"),
                refwarn=True,
                reftarget=target.path.removesuffix(".rst"),
                refdoc=self.env.docname,
            )
            link.source, link.line = node.source, node.line
            node.replace_self(link)


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.add_transform(PageLinks)
    return {"parallel_read_safe": True}
