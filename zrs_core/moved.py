"""Import paths that programs used before the modules moved: they still work."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

#: For each module, the names that were imported from it, and their modules now.
MOVED: dict[str, dict[str, str]] = {
    "zrs_core.dump": dict.fromkeys(
        ("Analyser", "Entry", "as_json", "as_text"), "zrs_core.tools.dump"
    ),
    "zrs_core.snapshots": {},
    "zrs_core.snapshots.restoring": {"restore": "zrs_core.tools.snapshots.restoring"},
    "zrs_core.snapshots.taking": {"take_snapshot": "zrs_core.tools.snapshots.taking"},
    "zrs_core.status": {"StatusServer": "zrs_core.monitor"},
    "zrs_core.status.node": {"Node": "zrs_core.monitor.node"},
    "zrs_core.status.options": {"StatusOptions": "zrs_core.monitor.options"},
    "zrs_core.storage.filestorage": {
        "FileStorageSource": "zrs_core.storage.fs_source",
        "file_storage_sink": "zrs_core.storage.fs_sink",
    },
    "zrs_core.storage.primary": {"Primary": "zrs_core.primary"},
    "zrs_core.storage.secondary": {"Secondary": "zrs_core.secondary"},
    "zrs_core.zconfig": {"SettingError": "zrs_core.config.zconfig"},
}


def find_moved(module: str, name: str) -> Any:
    """Return what a module had under a name.

    :raises AttributeError: nothing of that name was imported from it.
    """
    home = MOVED[module].get(name)
    if home is None:
        raise AttributeError(f"module {module!r} has no attribute {name!r}")
    return getattr(importlib.import_module(home), name)


class _Finder:
    """Finds the modules that have moved, where no other finder finds them."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return ModuleSpec(name, _Loader(), is_package=True) if name in MOVED else None


class _Loader(Loader):
    def exec_module(self, module: ModuleType) -> None:
        def find(name: str) -> Any:
            return find_moved(module.__name__, name)

        module.__getattr__ = find  # type: ignore[method-assign]


def install() -> None:
    """Make the paths work."""
    sys.meta_path.append(_Finder)
