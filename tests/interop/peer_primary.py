"""A primary of zc.zrs in a process of its own, driven over its standard input.

Arguments: its directory; `zrs2.1` for a database with blobs, `zrs2.0` for one without; a seed. It
says at which port of 127.0.0.1 it listens. Commands, a line each, are answered with its last
transaction: `commit N` commits N times, `pack` packs, `last` does nothing. It closes and ends when
its input does.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from zc.zrs.primary import Primary

from ..conditions import wait_for
from ..databases import open_file_storage, traffic


def main(directory: str, word: str, seed: str) -> None:
    logging.basicConfig(level=logging.WARNING)
    blobs = word == "zrs2.1"
    primary = Primary(open_file_storage(Path(directory), blobs), ("127.0.0.1", 0))
    with traffic(primary, int(seed), blobs) as commits:
        wait_for(lambda: primary._listener, "it to listen")
        print("ready", primary._listener.getHost().port, flush=True)
        for line in sys.stdin:
            match line.split():
                case ["commit", count]:
                    commits.commit(int(count))
                case ["pack"]:
                    commits.pack()
            print(primary.lastTransaction().hex(), flush=True)


main(*sys.argv[1:])
