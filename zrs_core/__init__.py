"""Replication for ZODB: one primary, any number of read-only secondaries.

`Primary` and `Secondary` are storages; `zrs_core.codec` is the protocol without any I/O.
"""

from __future__ import annotations

from importlib import import_module as _import_module
from typing import TYPE_CHECKING, Any

from .moved import install as _install

if TYPE_CHECKING:
    from .primary import Primary
    from .secondary import Secondary

    __version__: str

__all__ = ["Primary", "Secondary", "__version__"]

_install()

_HOMES = {"Primary": ".primary", "Secondary": ".secondary"}


def __getattr__(name: str) -> Any:
    # Only when they are asked for: who uses the codec alone does not want ZODB loaded.
    if name == "__version__":
        return _import_module("importlib.metadata").version("zrs-core")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(_import_module(_HOMES[name], __name__), name)
