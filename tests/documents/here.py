"""The machines and the directories of the documents, on this machine."""

from __future__ import annotations

import random
import re
import socket
from pathlib import Path

_HOST = re.compile(r"\b[a-z][a-z0-9-]*\.example\b")
_PORT = re.compile(r"(?<=:)\d{4,5}\b")
_PATH = re.compile(r"(?<![\w./-])/(?=(?:etc|run|srv|var)/)")

# What an administrator has made before he comes to these documents.
_DIRECTORIES = (
    "run/zrs",
    "srv/zope/var",
    "var/backups/zodb",
    "var/lib/zrs/main/catalog",
    "var/lib/zrs/main/db",
    "var/zodb",
)

# Below those that Linux gives to who asks for none in particular: nobody comes upon them by chance.
_PORTS = range(20000, 32000)


class Here:
    """Replaces, in what a document shows, what a test cannot use.

    Hosts in `.example` become this one, absolute paths lead below `directory`, and each port is one
    that was free when it first came up.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._ports: dict[str, str] = {}
        for each in _DIRECTORIES:
            (directory / each).mkdir(parents=True, exist_ok=True)

    def __call__(self, text: str) -> str:
        text = _HOST.sub("127.0.0.1", text)
        text = _PORT.sub(lambda found: self._port(found[0]), text)
        return _PATH.sub(f"{self._directory}/", text)

    def _port(self, shown: str) -> str:
        if shown not in self._ports:
            self._ports[shown] = str(_free_port())
        return self._ports[shown]


def _free_port() -> int:
    while True:
        port = random.choice(_PORTS)
        with socket.socket() as attempt:
            try:
                attempt.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
