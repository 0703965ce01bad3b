"""What primaries and secondaries do, as it can be read: snapshots, and a server that shows them.

`Primary.status` and `Secondary.status` give the snapshots, `StatusServer` serves them over HTTP.
"""

from __future__ import annotations

from importlib import import_module as _import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .server import StatusServer

__all__ = ["StatusServer"]


def __getattr__(name: str) -> Any:
    # Only when it is asked for: storages keep their state and need no server for that.
    if name != "StatusServer":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _import_module(".server", __name__).StatusServer
