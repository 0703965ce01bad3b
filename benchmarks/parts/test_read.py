"""From a FileStorage's file to messages."""

from __future__ import annotations

from typing import Any

from zrs_core.messages import NO_TID, PrimaryMessage
from zrs_core.sessions import BATCH_SIZE
from zrs_core.storage.fs_source import FileStorageSource

from .conftest import RECORDS, TRANSACTIONS


def test_read(benchmark: Any, source: FileStorageSource) -> None:
    messages = benchmark.pedantic(read_all, [source], rounds=20, warmup_rounds=1)
    assert len(messages) == TRANSACTIONS * (RECORDS + 2)


def read_all(source: FileStorageSource) -> list[PrimaryMessage]:
    reader = source.open(NO_TID)
    messages = []
    while batch := reader.read(BATCH_SIZE):
        messages += batch
    reader.close()
    return messages
