"""The configurations that docs/how-to/zeo.rst shows."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import transaction
import ZODB.config
from ZODB.POSException import ReadOnlyError

from ..conditions import wait_for
from ..documents.blocks import named_blocks
from . import configured

_PAGE = named_blocks("how-to/zeo.rst")


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory whose path is short enough for a Unix socket."""
    path = Path(tempfile.mkdtemp(prefix="zrs"))
    yield path
    shutil.rmtree(path)


def here(name: str, directory: Path) -> str:
    """A block of the page, with Unix sockets in `directory` in place of its addresses."""
    return (
        _PAGE[name]
        .replace("/var/lib/zrs/main/db", str(directory / name))
        .replace("primary.example:8100", f"{directory}/zrs.sock")
        .replace("replicate-to :8100", f"replicate-to {directory}/zrs.sock")
        .replace("primary.example:8000", f"{directory}/zeo-primary/zeo.sock")
        .replace("replica.example:8000", f"{directory}/zeo-secondary/zeo.sock")
        .replace("address :8000", f"address {directory}/{name}/zeo.sock")
    )


@contextlib.contextmanager
def client(text: str) -> Iterator[ZODB.Connection.Connection]:
    db = ZODB.config.databaseFromString(f"<zodb>\n{text}\n</zodb>")
    connection = db.open(transaction.TransactionManager())
    try:
        yield connection
    finally:
        connection.transaction_manager.abort()
        connection.close()
        db.close()


@pytest.mark.long
def test_a_server_its_replica_and_clients(directory: Path) -> None:
    def sees(connection: Any, number: int) -> bool:
        connection.transaction_manager.begin()
        return bool(connection.root().get("number") == number)

    reader = here("zeo-reader", directory)
    with (
        configured(directory / "zeo-primary", here("zeo-primary", directory)) as primary,
        client(here("zeo-fallback", directory)) as writer,
        configured(directory / "zeo-secondary", here("zeo-secondary", directory)) as secondary,
    ):
        writer.root()["number"] = 1
        writer.transaction_manager.commit()
        secondary.wait_for(r"(Connected)")
        data = directory / "zeo-secondary" / "Data.fs"
        wait_for(lambda: data.stat().st_size > 4, "the first transaction")
        with client(reader) as reading:
            wait_for(lambda: sees(reading, 1), "what was written")
            writer.root()["number"] = 2
            writer.transaction_manager.commit()
            wait_for(lambda: sees(reading, 2), "what was written then")
            reading.root()["number"] = 3
            with pytest.raises(ReadOnlyError):
                reading.transaction_manager.commit()
            reading.transaction_manager.abort()
    assert "Opening" in primary.log
