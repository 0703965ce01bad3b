"""The database that reading and applying are measured with."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from ZODB.FileStorage import FileStorage

from zrs_core.storage.fs_source import FileStorageSource

from ..histories import generate_records

TRANSACTIONS, RECORDS = 1_000, 3


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FileStorageSource]:
    """A FileStorage as a source."""
    directory = tmp_path_factory.mktemp("history")
    storage = FileStorage(str(generate_records(directory, TRANSACTIONS, RECORDS, 300).path))
    yield FileStorageSource(storage)
    storage.close()
