"""What a process tells of itself, in the file `status` of its directory."""

from __future__ import annotations

import os
from pathlib import Path

RUNNING, QUIET, CLOSED = b"running", b"quiet..", b"closed."


class Status:
    """Where a process tells how far it is; a single write, of which nobody sees a part."""

    def __init__(self, directory: Path) -> None:
        self._fd = os.open(directory / "status", os.O_CREAT | os.O_WRONLY)

    def tell(self, tid: bytes, doing: bytes) -> None:
        os.pwrite(self._fd, tid + doing, 0)

    @staticmethod
    def read(directory: Path) -> tuple[bytes, bytes]:
        """The last transaction that a process has said to have, zeros for none, and its doing."""
        try:
            said = (directory / "status").read_bytes()
        except FileNotFoundError:
            said = b""
        return said[:8] or bytes(8), said[8:]
