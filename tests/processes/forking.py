"""A process that opens storages and then forks, for test_forks: `forking.py TRANSPORT DIRECTORY`.

It prints what was found, one JSON object for the child and one for the parent.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import transaction
from ZODB.DB import DB

from zrs_core import Primary, Secondary
from zrs_core.errors import UnsuitableStorage
from zrs_core.monitor import StatusServer
from zrs_core.storage import inherited

DEADLINE = 60.0


def wait_for(condition: Any) -> bool:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def outcome(function: Any) -> Any:
    try:
        return function()
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def sockets() -> set[str]:
    found = set()
    for each in os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else []:
        with contextlib.suppress(FileNotFoundError):
            name = os.readlink(f"/proc/self/fd/{each}")
            if name.startswith(("socket:", "anon_inode:[eventpoll]")):
                found.add(name)
    return found


def commit(db: Any, value: int) -> bytes:
    with db.transaction() as connection:
        connection.root()["value"] = value
    tid: bytes = db.storage.lastTransaction()
    return tid


def value(db: Any) -> Any:
    connection = db.open(transaction.TransactionManager())
    try:
        return connection.root().get("value")
    finally:
        connection.close()


def main(transport: str, directory: str, grace: float) -> None:
    os.chdir(directory)
    inherited.GRACE = grace  # type: ignore[misc]
    options: dict[str, Any] = {"transport": transport}
    primary = Primary("p.fs", "./p.sock", **options)
    primary_db = DB(primary)
    last = commit(primary_db, 1)
    secondary = Secondary("s.fs", "./p.sock", reconnect_delay=0.05, **options)
    wait_for(lambda: secondary.lastTransaction() == last)
    db = DB(secondary)
    server = StatusServer(secondary, "./status.sock")
    files = {name: Path(name).read_bytes() for name in ("p.fs", "s.fs")}
    before = sockets()
    read, write = os.pipe()
    child = os.fork()
    if not child:
        found: dict[str, Any] = {}
        try:
            found["sockets"] = sorted(sockets() & before)
            found["state"] = str(secondary.progress.state)
            found["status"] = secondary.status().last_error.message
            found["read"] = outcome(lambda: value(db))
            found["read primary"] = outcome(lambda: value(primary_db))
            found["commit"] = outcome(lambda: commit(primary_db, 0))
            found["pack"] = outcome(lambda: secondary.pack(time.time(), None))
            found["pack primary"] = outcome(lambda: primary_db.pack())
            found["redirect"] = outcome(lambda: secondary.setReplicationAddress("127.0.0.1:1"))
            # A database that could not be opened cannot be closed either, in ZODB 6.
            for each in (server, db, primary_db) if grace else (server, secondary, primary):
                each.close()
            with contextlib.closing(Secondary("mine.fs", "./p.sock", **options)) as mine:
                found["mine"] = wait_for(lambda: mine.lastTransaction() == last)
            with contextlib.closing(Primary("mine.fs", "./mine.sock", **options)) as mine:
                found["my sockets"] = mine.replication_address.path
        except BaseException as error:
            found["failed"] = "".join(traceback.format_exception(error))
        os.write(write, json.dumps(found).encode())
        os._exit(0)
    os.close(write)
    said = b""
    while data := os.read(read, 65_536):
        said += data
    os.waitpid(child, 0)
    print(said.decode())
    parent: dict[str, Any] = {
        "unchanged": {name: Path(name).read_bytes() for name in files} == files,
        "locked": outcome(lambda: Primary("p.fs", "./other.sock", **options)),
        "listens": os.path.exists("p.sock"),
    }
    last = commit(primary_db, 2)
    parent["replicates"] = wait_for(lambda: secondary.lastTransaction() == last)
    parent["value"] = value(db)
    parent["connections"] = secondary.status().connections
    parent["in use"] = parent["locked"].startswith(UnsuitableStorage.__name__)
    server.close()
    db.close()
    primary_db.close()
    print(json.dumps(parent))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]))
