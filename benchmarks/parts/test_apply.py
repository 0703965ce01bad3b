"""From messages into a FileStorage, with its fsync.

Without that of the disk, too, where there is a file system in memory:
`python -m pytest --basetemp=/dev/shm/parts benchmarks/parts`
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

from ZODB.FileStorage import FileStorage

from zrs_core.interfaces import ITransactionSink
from zrs_core.messages import PrimaryMessage, Transaction
from zrs_core.options import ClientOptions
from zrs_core.storage.fs_source import FileStorageSource
from zrs_core.storage.opening import sink_of

from .test_read import read_all


def test_apply(benchmark: Any, source: FileStorageSource, tmp_path: Path) -> None:
    messages = read_all(source)
    (*_, last) = (message.tid for message in messages if isinstance(message, Transaction))
    numbers = itertools.count()
    storages = []

    def setup() -> Any:
        storages.append(FileStorage(str(tmp_path / f"{next(numbers)}.fs")))
        sink = sink_of(storages[-1], lambda tid, oids: None, ClientOptions().durability)
        return (sink, messages), {}

    benchmark.pedantic(_apply, setup=setup, rounds=5)
    for storage in storages:
        assert storage.lastTransaction() == last
        storage.close()


def _apply(sink: ITransactionSink, messages: list[PrimaryMessage]) -> None:
    for message in messages:
        sink.apply(message)
    sink.flush()
