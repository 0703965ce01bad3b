"""Blobs, side by side with the least that replicating them could take.

That is what no replication by this protocol can leave out, with one thread on each side: one reads
files, computes the MD5 of what it reads, and sends it; the other receives it, computes the same MD5
and writes files. There are no messages, transactions or records, and nothing is synced.
"""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing
import socket
import time
from collections.abc import Callable
from pathlib import Path

from .cases import SECONDS
from .catch_up import catch_up
from .contenders import BUILD, CONTENDERS
from .histories import History, generate_blobs
from .side_by_side import print_medians

_BLOCK_SIZE = 64 * 1024
_READ_SIZE = 1 << 20
_LEAST = "the least"

# Seconds after which the other process has failed.
_TIMEOUT = 60.0


class UnequalDigests(Exception):
    """What was received is not what was sent."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.least", description=__doc__)
    parser.add_argument("--blobs", type=int, default=60, help="how many")
    parser.add_argument("--size", type=int, default=4_000_000, help="bytes of each of them")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--directory", type=Path, default=BUILD, help="for the databases")
    arguments = parser.parse_args()
    history = generate_blobs(arguments.directory / "data", arguments.blobs, arguments.size)
    runs: dict[str, Callable[[Path], float]] = {
        _LEAST: lambda directory: _least(history, arguments.size, directory)
    }
    for contender in CONTENDERS:
        runs[contender.name] = lambda directory, contender=contender: catch_up(  # type: ignore[misc]
            contender, history, directory
        )[SECONDS.name]
    title = f"{arguments.blobs:,} blobs of {arguments.size:,} bytes"
    print_medians(title, "s", runs, arguments.rounds, arguments.directory)


def _least(history: History, size: int, directory: Path) -> float:
    """How many seconds it takes."""
    assert history.blobs is not None
    files = sorted(history.blobs.rglob("*.blob"))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(_TIMEOUT)
        address = listening.getsockname()
        sender = multiprocessing.get_context("spawn").Process(target=_send, args=(address, files))
        sender.start()
        connection, _ = listening.accept()
    with connection:
        connection.settimeout(_TIMEOUT)
        # It sends when it is told to, and its imports are over.
        connection.recv(1)
        begin = time.perf_counter()
        connection.sendall(b"\0")
        received = _receive(connection, len(files), size, directory)
        seconds = time.perf_counter() - begin
        with connection.makefile("rb") as rest:
            sent = rest.read(len(received))
    sender.join()
    if sent != received:
        raise UnequalDigests(f"{sent.hex()} was sent, {received.hex()} received")
    return seconds


def _send(address: tuple[str, int], files: list[Path]) -> None:
    checksum = hashlib.md5(usedforsecurity=False)
    with socket.create_connection(address) as connection:
        connection.sendall(b"\0")
        connection.recv(1)
        for path in files:
            with open(path, "rb", buffering=0) as file:
                while block := file.read(_BLOCK_SIZE):
                    checksum.update(block)
                    connection.sendall(block)
        connection.sendall(checksum.digest())


def _receive(connection: socket.socket, count: int, size: int, directory: Path) -> bytes:
    checksum = hashlib.md5(usedforsecurity=False)
    for number in range(count):
        left = size
        with open(directory / str(number), "wb", buffering=0) as file:
            while left:
                data = connection.recv(min(_READ_SIZE, left))
                if not data:
                    raise UnequalDigests(f"file {number} lacks {left} bytes")
                checksum.update(data)
                file.write(data)
                left -= len(data)
    return checksum.digest()


if __name__ == "__main__":
    main()
