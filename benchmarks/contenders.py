"""Who is compared with whom."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
#: Where databases and results go, unless told otherwise.
BUILD = ROOT / "build" / "benchmarks"
_PEERS = ROOT / ".venv-peers"

_DISTRIBUTIONS = ["zrs-core", "zc.zrs", "ZODB", "Twisted", "persistent", "zodbpickle"]
_LIST_VERSIONS = """
import importlib.metadata, json, platform, sys
found = {each.name: each.version for each in importlib.metadata.distributions()}
found = {name: found[name] for name in sys.argv[1:] if name in found}
print(json.dumps({"Python": platform.python_version(), **found}))
"""


class Contender(NamedTuple):
    """An implementation, over one of its transports, and the Python that runs each of its ends."""

    name: str
    implementation: str
    transport: str
    pythons: dict[str, str]

    def versions(self) -> dict[str, dict[str, str]]:
        """The versions of what its ends run on, by end and distribution."""
        return {role: _versions(python) for role, python in self.pythons.items()}


def _versions(python: str) -> dict[str, str]:
    found: dict[str, str] = json.loads(
        subprocess.run(
            [python, "-c", _LIST_VERSIONS, *_DISTRIBUTIONS],
            check=True,
            capture_output=True,
            text=True,
            # Away from the project's own metadata.
            cwd="/",
        ).stdout
    )
    return found


OURS = [
    Contender(
        transport,
        "zrs_core",
        transport,
        dict.fromkeys(("primary", "secondary"), sys.executable),
    )
    for transport in ("socket-thread", "twisted-tcp")
]
# Its secondary does not run on a newer ZODB, which asks a transaction for `extension_bytes`.
PEER = Contender(
    "zc.zrs",
    "zc.zrs",
    "",
    {
        "primary": str(_PEERS / "zodb-6.4" / "bin" / "python"),
        "secondary": str(_PEERS / "zodb-5.5.1" / "bin" / "python"),
    },
)
CONTENDERS = [*OURS, PEER]
# What replication is laid over, to compare commits with.
BARE = Contender(
    "FileStorage", "FileStorage", "", dict.fromkeys(("primary", "readers"), sys.executable)
)
