"""What zc.zrs on Python 2 has sent, as it was captured, ends up in a secondary's storage."""

from __future__ import annotations

import contextlib
import hashlib
import random
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from zrs_core import Secondary
from zrs_core.messages import NO_TID, Transaction
from zrs_core.testing.environments import Environment, MemoryEnvironment, SocketEnvironment

from ..codec import helpers
from ..codec.vectors import VECTORS, Vector, described, stored_messages
from ..databases import open_file_storage, temporary_files

CAPTURED = [name for name in VECTORS if name.startswith("py2-")]


@pytest.fixture
def env(transport: str) -> Iterator[Environment]:
    env = MemoryEnvironment() if transport == "memory" else SocketEnvironment()
    with contextlib.closing(env):
        yield env


def payloads(stream: bytes) -> Iterator[bytes]:
    while stream:
        end = 4 + struct.unpack(">I", stream[:4])[0]
        yield stream[4:end]
        stream = stream[end:]


def answer(vector: Vector, start: bytes) -> bytes:
    """What the primary would have sent to who asks for what is after `start`.

    That is what was captured, with checksums that begin there.
    """
    connection = helpers.secondary(vector.word, vector.start)
    captured, sent = hashlib.md5(vector.start), hashlib.md5(start)
    tid, frames = NO_TID, []
    for payload in payloads(vector.stream):
        connection.receive_data(helpers.framed(payload))
        for message in connection.messages():
            tid = message.tid if isinstance(message, Transaction) else tid
        if tid > start:
            message = payload.replace(captured.digest(), sent.digest())
            sent.update(message)
            frames.append(message)
        captured.update(payload)
    return helpers.framed(*frames)


@pytest.mark.parametrize("transport", ["memory", "socket-thread", "twisted-tcp"])
@pytest.mark.parametrize("name", CAPTURED)
def test_a_secondary_holds_what_was_captured(
    name: str, transport: str, env: Environment, chance: random.Random, tmp_path: Path
) -> None:
    vector, path = VECTORS[name], tmp_path / "secondary"
    server = env.listen()
    secondary = Secondary(
        open_file_storage(path, blobs=vector.word == "zrs2.1"),
        server.address,
        env.reactor,
        transport=transport,
        reconnect_delay=0.01,
        check_checksums="verify" if name == "py2-inline" else "require",
    )
    last = [bytes.fromhex(line["tid"]) for line in vector.expected if line["type"] == "T"][-1]
    with contextlib.closing(secondary):
        for lost in (True, True, True, False):
            end = server.accept()
            greeting = end.receive(len(vector.hello))
            assert greeting[:-8] == vector.hello[:-8]
            stream = answer(vector, greeting[-8:])
            assert stream == vector.stream or greeting != vector.hello
            cuts = sorted(chance.sample(range(1, len(stream)), 9))
            for piece in helpers.pieces(stream, cuts)[: 9 if lost else None]:
                end.send(piece)
            if lost:
                end.cut()
        env.wait_for(lambda: secondary.progress.tid == last, "all to be applied")
        end.close()
    assert described(stored_messages(path, tmp_path)) == vector.expected
    assert temporary_files(path / "blobs") == []
