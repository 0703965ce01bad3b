"""Primaries and secondaries in processes of their own, forked from one that has imported all.

`python -m tests.kills.nodes` reads lines: `primary|secondary DIRECTORY SOCKET TRANSPORT`. It
answers with the number of the process, which stops itself at once: it goes on when it is told to
(SIGCONT). SIGTERM closes it; SIGUSR1 makes a primary commit no more.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import signal
import sys
from pathlib import Path

from ZODB.Connection import TransactionMetaData
from ZODB.utils import p64, u64, z64

from zrs_core import Primary, Secondary
from zrs_core.tools.cli.signals import StopSignals
from zrs_core.transports import socket_thread, twisted_tcp  # noqa: F401

from .status import CLOSED, QUIET, RUNNING, Status

_BLOB = b"\x80\x03cZODB.blob\nBlob\nq\x01.\x80\x03N."
_BLOB_SIZES = (0, 1, 65_536, 65_537)


def secondary(directory: Path, address: str, transport: str) -> None:
    status = Status(directory)
    with StopSignals() as stop:
        storage = Secondary(
            directory / "Data.fs",
            address,
            blob_dir=directory / "blobs",
            transport=transport,
            reconnect_delay=(0.01, 0.05),
        )
        status.tell(storage.progress.tid, RUNNING)
        storage.on_commit(lambda: status.tell(storage.progress.tid, RUNNING))
        stop.wait()
        storage.close()
    status.tell(storage.progress.tid, CLOSED)


def primary(directory: Path, address: str, transport: str) -> None:
    status = Status(directory)
    quiet = []
    signal.signal(signal.SIGUSR1, lambda *_: quiet.append(True))
    with StopSignals() as stop:
        storage = Primary(
            directory / "Data.fs",
            address,
            blob_dir=directory / "blobs",
            transport=transport,
            close_timeout=60,
        )
        tid = storage.lastTransaction()
        status.tell(tid, RUNNING)
        chance = random.Random(tid)
        while not (quiet or stop.wait(0.004)):
            tid = _commit(storage, directory, chance)
            status.tell(tid, RUNNING)
        status.tell(tid, QUIET)
        stop.wait()
        storage.close()
    status.tell(tid, CLOSED)


def _commit(storage: Primary, directory: Path, chance: random.Random) -> bytes:
    metadata = TransactionMetaData("", "ünïcode", {"number": chance.random()})
    storage.tpc_begin(metadata)
    kind = chance.random()
    if kind < 0.1 and (undoable := storage.undoLog(0, 1)):
        storage.undo(undoable[0]["id"], metadata)
    elif kind < 0.4:
        path = directory / "incoming"
        path.write_bytes(os.urandom(chance.choice(_BLOB_SIZES)))
        storage.storeBlob(storage.new_oid(), z64, _BLOB, str(path), "", metadata)
    else:
        stored: set[bytes] = set()
        for _ in range(40 if kind < 0.5 else chance.randrange(1, 4)):
            size = chance.randrange(5_000)
            data = b"\x80\x03N." + os.urandom(size // 2) + bytes(size // 2)
            oid, serial = storage.new_oid(), z64
            if chance.random() < 0.3 and u64(oid) > 9:
                old = p64(chance.randrange(1, u64(oid)))
                if old not in stored:
                    oid, serial = _newest(storage, old, oid)
            stored.add(oid)
            storage.store(oid, serial, data, "", metadata)
    storage.tpc_vote(metadata)
    tid: bytes = storage.tpc_finish(metadata)
    return tid


def _newest(storage: Primary, oid: bytes, new: bytes) -> tuple[bytes, bytes]:
    """An object and the serial of its newest record, or a new one, if it is a blob or undone."""
    try:
        data, serial, _ = storage.loadBefore(oid, b"\x7f" + b"\xff" * 7)
    except Exception:
        return new, z64
    return (new, z64) if data == _BLOB else (oid, serial)


def main() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    print("ready", flush=True)
    processes = []
    for line in sys.stdin:
        role, directory, address, transport = line.split()
        process = os.fork()
        if process:
            processes.append(process)
            print(process, flush=True)
            continue
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        logging.basicConfig(filename=Path(directory, "log"), level=logging.INFO)
        os.kill(os.getpid(), signal.SIGSTOP)
        try:
            {"primary": primary, "secondary": secondary}[role](Path(directory), address, transport)
        except BaseException:
            logging.exception("ended")
        os._exit(0)
    # Whoever has asked for them is gone, maybe without having ended them.
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


if __name__ == "__main__":
    main()
