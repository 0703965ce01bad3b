"""From messages to bytes."""

from __future__ import annotations

from typing import Any

import pytest

from .streams import COUNT, KINDS, encode, primary

# Bytes of a commit with its length prefix.
_SMALLEST = 40


@pytest.mark.parametrize("pickle_protocol", [3, 1])
@pytest.mark.parametrize("kind", KINDS)
def test_encode(benchmark: Any, kind: str, pickle_protocol: int) -> None:
    before, messages = KINDS[kind]

    def setup() -> Any:
        connection = primary(pickle_protocol)
        encode(connection, before)
        return (connection, messages), {}

    chunks = benchmark.pedantic(encode, setup=setup, rounds=20, warmup_rounds=1)
    assert sum(map(len, chunks)) >= _SMALLEST * COUNT
