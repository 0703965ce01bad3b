"""ZODB storages as sources and sinks of transactions.

`source_of` returns the source that reads a storage, and `sink_of` the sink that writes to one. The
contracts are `IStorageSource` and `ITransactionSink` in `zrs_core.interfaces`.
"""

from __future__ import annotations

from importlib import import_module as _import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .opening import sink_of, source_of

__all__ = ["sink_of", "source_of"]


def __getattr__(name: str) -> Any:
    # When they are asked for: other modules of this package do not need FileStorage.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(_import_module(".opening", __name__), name)
