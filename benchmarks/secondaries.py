"""How much memory each secondary costs its primary, for both network transports.

    python benchmarks/secondaries.py [SECONDARIES]

A secondary is a plain socket here, which costs next to nothing. `live` ones have all there is and
wait; `stopped` ones read nothing of a stream that is longer than the system's buffers. Each is
measured in a process of its own: resident memory, before the first secondary and with all; and,
with TRACE=1 in the environment, what Python has allocated.
"""

from __future__ import annotations

import contextlib
import gc
import os
import socket
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ZODB
from persistent.mapping import PersistentMapping
from ZODB.FileStorage import FileStorage

from zrs_core import Primary
from zrs_core.testing import greeting


def resident() -> int:
    """Bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@contextlib.contextmanager
def measured(what: str, transport: str, count: int) -> Iterator[None]:
    """Print what a secondary costs by the end of the block."""
    gc.collect()
    before = resident(), tracemalloc.get_traced_memory()[0]
    yield
    gc.collect()
    after = resident(), tracemalloc.get_traced_memory()[0]
    rss, traced = ((b - a) / count / 1024 for a, b in zip(before, after, strict=True))
    print(f"{transport:14} {what:12} {count:4} secondaries: {rss:8.1f} KiB RSS", end="")
    print(f" {traced:8.1f} KiB Python, each" if tracemalloc.is_tracing() else ", each")


def settle() -> None:
    """Until nothing happens any more."""
    used = -1.0
    while time.process_time() - used > 0.02:
        used = time.process_time()
        time.sleep(0.5)


def run(what: str, transport: str, count: int, directory: Path) -> None:
    """Measure one state of secondaries: `live` have all there is, `stopped` read nothing of it."""
    primary = Primary(
        FileStorage(str(directory / f"{transport}-{what}.fs")),
        "127.0.0.1:0",
        transport=transport,
        close_timeout=0,
    )
    db = ZODB.DB(primary)
    if what == "stopped":
        # More than the system's buffers take.
        with db.transaction() as connection:
            for number in range(64):
                connection.root()[number] = PersistentMapping(data=os.urandom(200_000))
    address: Any = primary.replication_address
    peers: list[socket.socket] = []
    with measured(what, transport, count):
        for _ in range(count):
            peers.append(socket.create_connection(address))
            peers[-1].sendall(greeting())
        settle()
    for peer in peers:
        peer.close()
    db.close()


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 64
    with tempfile.TemporaryDirectory() as directory:
        for transport in ("socket-thread", "twisted-tcp"):
            for what in ("live", "stopped"):
                child = os.fork()
                if not child:
                    if os.environ.get("TRACE"):
                        tracemalloc.start()
                    run(what, transport, count, Path(directory))
                    sys.stdout.flush()
                    os._exit(0)
                os.waitpid(child, 0)


main()
