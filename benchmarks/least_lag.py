"""A commit's way to a secondary, side by side with the least that it could take.

*Bytes* is what no replication can leave out, in Python and with one process a side: the bytes that
a commit has added to a FileStorage are read, go into an MD5 and are sent; the other side receives
them, computes the same MD5, writes and syncs them. *Messages* is that with this package's codec and
storages: the bytes are read as messages and encoded; the other side decodes and applies them. There
are no sessions and no transport. Of each there are two: a thread of its own sends, which the commit
wakes; and the commit's own thread does.
"""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing
import os
import socket
import statistics
import threading
import time
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

from ZODB.FileStorage import FileStorage

from zrs_core.storage.fs_sink import file_storage_sink
from zrs_core.storage.runs import read_run

from . import lag
from .contenders import BUILD, CONTENDERS
from .nodes.commits import Committer
from .parts.streams import primary, secondary
from .side_by_side import print_medians

_RECORD_SIZE = 300
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
    commits: int = arguments.commits
    runs: dict[str, Callable[[Path], float]] = {
        f"{what}, {sender} sends": partial(
            _median_lag, commits, what == "messages", sender == "the commit"
        )
        for what in ("bytes", "messages")
        for sender in ("a thread", "the commit")
    }
    for contender in CONTENDERS:
        runs[contender.name] = lambda directory, contender=contender: lag.measure(  # type: ignore[misc]
            commits, _A_SECOND, 1, contender, directory
        )[lag.P50.name]
    title = f"Until half of {commits:,} commits, {_A_SECOND} a second, are visible"
    print_medians(title, "ms", runs, arguments.rounds, arguments.directory)


def _median_lag(commits: int, messages: bool, direct: bool, directory: Path) -> float:
    """The milliseconds in which half of the commits are visible.

    :param messages: whether messages are sent, or mere bytes.
    :param direct: whether the commit's own thread sends.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    receive = _receive_messages if messages else _receive_bytes
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(_TIMEOUT)
        where = (listening.getsockname(), directory / "copy", commits, theirs)
        receiver = context.Process(target=receive, args=where)
        receiver.start()
        connection, _ = listening.accept()
    with connection:
        connection.settimeout(_TIMEOUT)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        committed = _commit(directory / "Data.fs", commits, connection, messages, direct)
        if not ours.poll(_TIMEOUT):
            raise TimeoutError("not all commits were received")
        visible = ours.recv()
    receiver.join()
    lags = (end - begin for begin, end in zip(committed, visible, strict=True))
    return statistics.median(lags) * 1000


def _commit(
    path: Path, commits: int, connection: socket.socket, messages: bool, direct: bool
) -> list[float]:
    """When each commit was on the disk."""
    storage = FileStorage(str(path))
    committer = Committer(storage, _RECORD_SIZE)
    encode = _message_encoder() if messages else _byte_encoder()
    woken = threading.Semaphore(0)
    sent = storage.getSize()
    done = []

    def send() -> None:
        nonlocal sent
        begin, sent = sent, storage.getSize()
        connection.sendmsg(encode(os.pread(file.fileno(), sent - begin, begin), begin))

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
            committer.commit()
            done.append(time.monotonic())
            if direct:
                send()
            else:
                woken.release()
        if not direct:
            thread.join()
    storage.close()
    return done


def _byte_encoder() -> Callable[[bytes, int], list[bytes]]:
    checksum = hashlib.md5(usedforsecurity=False)

    def encode(data: bytes, begin: int) -> list[bytes]:
        checksum.update(data)
        return [data]

    return encode


def _message_encoder() -> Callable[[bytes, int], list[bytes]]:
    codec = primary(pickle_protocol=3)

    def encode(data: bytes, begin: int) -> list[bytes]:
        return codec.send_all(read_run(data, begin, begin, len(data)).messages)

    return encode


def _receive_bytes(address: tuple[str, int], path: Path, commits: int, told: Connection) -> None:
    """Tell when each commit was written and synced."""
    # Its header with a description, its record with the header of that, and its length again.
    size = 23 + len(Committer.DESCRIPTION) + 42 + _RECORD_SIZE + 8
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


def _receive_messages(address: tuple[str, int], path: Path, commits: int, told: Connection) -> None:
    """Tell when each commit was applied."""
    storage = FileStorage(str(path))
    done: list[bytes] = []
    sink = file_storage_sink(storage, lambda tid, oids: done.append(tid), "batch")
    codec = secondary()
    visible: list[float] = []
    with socket.create_connection(address) as connection:
        while len(visible) < commits and (data := connection.recv(_READ_SIZE)):
            codec.receive_data(data)
            for message in codec.messages():
                sink.apply(message)
            sink.flush()
            now = time.monotonic()
            visible += [now] * (len(done) - len(visible))
    storage.close()
    told.send(visible)


if __name__ == "__main__":
    main()
