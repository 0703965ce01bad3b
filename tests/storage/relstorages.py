"""RelStorages, on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from relstorage.adapters.postgresql import PostgreSQLAdapter
from relstorage.adapters.sqlite.adapter import Sqlite3Adapter
from relstorage.options import Options
from relstorage.storage import RelStorage


def open_on_sqlite(path: Path, **options: Any) -> RelStorage:
    """A RelStorage in the directory `path`, with `blobs` there."""
    path.mkdir(exist_ok=True)
    return _open(path, lambda found: Sqlite3Adapter(str(path), {}, found), options)


def open_on_postgresql(dsn: str, path: Path, **options: Any) -> RelStorage:
    """A RelStorage in the database `dsn`, with `blobs` in the directory `path`."""
    path.mkdir(exist_ok=True)
    return _open(path, lambda found: PostgreSQLAdapter(dsn, found), options)


def _open(path: Path, adapter: Callable[[Options], Any], options: dict[str, Any]) -> RelStorage:
    found = Options(**{"keep_history": True, "blob_dir": str(path / "blobs"), **options})
    return RelStorage(adapter(found), name=path.name, options=found)
