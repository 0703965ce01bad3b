"""The process of a primary."""

from __future__ import annotations

from .implementations import Address
from .node import Node, file_storage


class PrimaryNode(Node):
    """A primary, and what commits to it."""

    def open(self, path: str, blobs: str | None = None) -> Address:
        """Open it; where it listens."""
        self._storage = self._implementation.primary(file_storage(path, blobs))
        return self._implementation.address(self._storage)
