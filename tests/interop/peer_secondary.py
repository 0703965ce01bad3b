"""A secondary of zc.zrs in a process of its own, driven over its standard input.

Arguments: the port of 127.0.0.1 where its primary listens; its directory; `zrs2.1` for one with
blobs, `zrs2.0` for one without. Commands, a line each, are answered with its last transaction:
`pack` packs, `last` does nothing. It closes and ends when its input does.
"""

from __future__ import annotations

import logging
import sys
import time
from pathlib import Path

from zc.zrs.secondary import Secondary
from ZODB.serialize import referencesf

from ..databases import open_file_storage


def main(port: str, directory: str, word: str) -> None:
    logging.basicConfig(level=logging.WARNING)
    storage = open_file_storage(Path(directory), blobs=word == "zrs2.1")
    primary = ("127.0.0.1", int(port))
    secondary = Secondary(storage, primary, reconnect_delay=0.01, keep_alive_delay=0.01)
    print("ready", flush=True)
    for line in sys.stdin:
        if line == "pack\n":
            secondary.pack(time.time(), referencesf)
        print(secondary.lastTransaction().hex(), flush=True)
    secondary.close()


main(*sys.argv[1:])
