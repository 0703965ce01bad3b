"""The least that a commit could take to become visible on a secondary.

That is what no replication can leave out, in Python and with one process a side: the bytes that a
commit has added to a FileStorage are read, go into an MD5 and are sent; the other side receives
them, computes the same MD5, writes and syncs them. There are no messages and no sessions. Once a
thread of its own sends, which the commit wakes; and once the commit's own thread does.
"""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing
import os
import socket
import statistics
import tempfile
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path

from ZODB.Connection import TransactionMetaData
from ZODB.FileStorage import FileStorage
from ZODB.utils import z64

from .contenders import BUILD

_RECORD = b"x" * 300
_A_SECOND = 100
_READ_SIZE = 64 * 1024

# Seconds after which the other process has failed.
_TIMEOUT = 60.0


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.least_lag", description=__doc__)
    parser.add_argument("--commits", type=int, default=600, help="how many, 100 a second")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--directory", type=Path, default=BUILD, help="for the databases")
    arguments = parser.parse_args()
    arguments.directory.mkdir(parents=True, exist_ok=True)
    found: dict[str, list[float]] = {"a thread sends": [], "the commit sends": []}
    for _ in range(arguments.rounds):
        for name, lags in found.items():
            with tempfile.TemporaryDirectory(dir=arguments.directory) as directory:
                direct = name == "the commit sends"
                lags.append(_median_lag(Path(directory), arguments.commits, direct) * 1000)
    for name, lags in found.items():
        print(f"{name}: half of the commits are visible in {statistics.median(lags):.2f} ms")


def _median_lag(directory: Path, commits: int, direct: bool) -> float:
    """The seconds in which half of the commits are visible."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(_TIMEOUT)
        where = (listening.getsockname(), directory / "copy", commits, theirs)
        receiver = context.Process(target=_receive, args=where)
        receiver.start()
        connection, _ = listening.accept()
    with connection:
        connection.settimeout(_TIMEOUT)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        committed = _commit(directory / "Data.fs", commits, connection, direct)
        if not ours.poll(_TIMEOUT):
            raise TimeoutError("not all commits were received")
        visible = ours.recv()
    receiver.join()
    return statistics.median(end - begin for begin, end in zip(committed, visible, strict=True))


def _commit(path: Path, commits: int, connection: socket.socket, direct: bool) -> list[float]:
    """When each commit was on the disk."""
    storage = FileStorage(str(path))
    oid, serial = storage.new_oid(), z64
    checksum = hashlib.md5(usedforsecurity=False)
    woken = threading.Semaphore(0)
    sent = storage.getSize()
    done = []

    def send() -> None:
        nonlocal sent
        size = storage.getSize()
        data = os.pread(file.fileno(), size - sent, sent)
        sent = size
        checksum.update(data)
        connection.sendall(data)

    def send_all() -> None:
        for _ in range(commits):
            woken.acquire()
            send()

    with open(path, "rb") as file:
        # Commits that fail are not waited for.
        thread = threading.Thread(target=send_all, daemon=True)
        if not direct:
            thread.start()
        begin = time.monotonic()
        for number in range(commits):
            time.sleep(max(0.0, begin + number / _A_SECOND - time.monotonic()))
            transaction = TransactionMetaData()
            storage.tpc_begin(transaction)
            storage.store(oid, serial, _RECORD, "", transaction)
            storage.tpc_vote(transaction)
            serial = storage.tpc_finish(transaction)
            done.append(time.monotonic())
            if direct:
                send()
            else:
                woken.release()
        if not direct:
            thread.join()
    storage.close()
    return done


def _receive(address: tuple[str, int], path: Path, commits: int, told: Connection) -> None:
    """Tell when each commit was written and synced."""
    # Its header, its record with the header of that, and its length again.
    size = 23 + 42 + len(_RECORD) + 8
    checksum = hashlib.md5(usedforsecurity=False)
    visible: list[float] = []
    written = 0
    with socket.create_connection(address) as connection, open(path, "wb", buffering=0) as file:
        while len(visible) < commits and (data := connection.recv(_READ_SIZE)):
            checksum.update(data)
            written += file.write(data)
            os.fsync(file.fileno())
            now = time.monotonic()
            visible += [now] * (written // size - len(visible))
    told.send(visible)


if __name__ == "__main__":
    main()
