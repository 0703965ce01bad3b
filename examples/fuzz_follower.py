#!/usr/bin/env python3
"""A program that reads a primary's stream with the codec, fuzzed by Atheris.

``./fuzz_follower.py --seeds FOLDER`` writes the seeds to a folder. ``./fuzz_follower.py FOLDER``
adds each stream that reaches more of the code. Options of libFuzzer come before the folder.
"""

from __future__ import annotations

import sys
from pathlib import Path
from random import Random

import atheris

with atheris.instrument_imports(include=["zrs_core.codec"]):
    import zrs_core.codec as zrs

from zrs_core.testing import mutations, seeds
from zrs_core.testing.outcomes import committed, in_pieces, listening, outcome


@atheris.instrument_func
def follow(pieces: list[bytes], changed: list[bytes]) -> None:
    """Add the id of each object that the stream of a primary changes to `changed`.

    :raises RemoteProtocolError: the primary broke the protocol.
    """
    connection = zrs.SecondaryConnection()
    connection.send(zrs.Hello("zrs2.1"))
    connection.send(zrs.Start(zrs.NO_TID))
    oids: list[bytes] = []
    for data in pieces:
        connection.receive_data(data)
        for message in connection.messages():
            if isinstance(message, (zrs.Store, zrs.StoreBlob)):
                oids.append(message.oid)
            elif isinstance(message, zrs.Commit):
                changed += oids
                oids.clear()


def check(stream: bytes) -> None:
    """The target: `follow` gives the objects of whole transactions, in any pieces."""
    messages = committed(outcome(listening(), [stream]).messages)
    expected = [each.oid for each in messages if isinstance(each, (zrs.Store, zrs.StoreBlob))]
    changed: list[bytes] = []
    try:
        follow(in_pieces(stream, seed=len(stream)), changed)
    except zrs.RemoteProtocolError:
        pass
    assert changed == expected


def mutate(data: bytes, max_size: int, seed: int) -> bytes:
    """Change bytes, as Atheris does, or a message, with the checksums made right."""
    random = Random(seed)
    if random.random() < 0.3:
        return atheris.Mutate(data, max_size)
    return mutations.damage_stream(data, random)[:max_size]


def write_seeds(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    for number, stream in enumerate(seeds.from_primary()):
        (folder / f"seed-{number}").write_bytes(stream)


if __name__ == "__main__":
    if sys.argv[1] == "--seeds":
        write_seeds(Path(sys.argv[2]))
    else:
        atheris.Setup(sys.argv, check, custom_mutator=mutate)
        atheris.Fuzz()
