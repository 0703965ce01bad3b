"""From bytes to messages, cut as a transport reads them."""

from __future__ import annotations

from typing import Any

import pytest

from zrs_core.codec import SecondaryConnection

from .streams import COUNT, KINDS, encode, primary, secondary

_READ_SIZE = 256 * 1024


@pytest.mark.parametrize("pickle_protocol", [3, 1])
@pytest.mark.parametrize("kind", KINDS)
def test_decode(benchmark: Any, kind: str, pickle_protocol: int) -> None:
    before, messages = KINDS[kind]
    sender = primary(pickle_protocol)
    begin = b"".join(encode(sender, before))
    stream = b"".join(encode(sender, messages))
    pieces = [stream[pos : pos + _READ_SIZE] for pos in range(0, len(stream), _READ_SIZE)]

    def setup() -> Any:
        connection = secondary()
        connection.receive_data(begin)
        list(connection.messages())
        return (connection, pieces), {}

    assert benchmark.pedantic(_decode, setup=setup, rounds=20, warmup_rounds=1) == COUNT


def _decode(connection: SecondaryConnection, pieces: list[bytes]) -> int:
    count = 0
    for piece in pieces:
        connection.receive_data(piece)
        for _ in connection.messages():
            count += 1
    return count
