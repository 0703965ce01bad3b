"""The files of the page: a fixed list, read once."""

from __future__ import annotations

from importlib.resources import files
from typing import NamedTuple

_CONTENT_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".ico": "image/x-icon",
    ".js": "text/javascript; charset=utf-8",
    ".png": "image/png",
    ".svg": "image/svg+xml",
}

#: What a browser gets that asks for nothing in particular.
_INDEX = "index.html"


class File(NamedTuple):
    content_type: str
    content: bytes


class Page:
    """The files of `zrs_core/monitor/page` that a browser can use, as they are now."""

    def __init__(self) -> None:
        self._files: dict[str, File] = {}
        for each in files(__package__).joinpath("page").iterdir():
            content_type = _CONTENT_TYPES.get("." + each.name.rpartition(".")[2])
            if content_type is not None and each.is_file():
                self._files[f"/{each.name}"] = File(content_type, each.read_bytes())

    def find(self, path: str) -> File | None:
        """The file at a path of the server's, None if there is none."""
        return self._files.get(f"/{_INDEX}" if path == "/" else path)
