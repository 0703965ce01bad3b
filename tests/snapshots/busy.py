"""A primary that commits and packs without rest.

Arguments: a directory for its database, the path of a socket, and a directory where all its blobs
are kept, also those that a pack removes. It packs when those who are connected were sent all there
is, so that none of them gets what a pack has left. A line `packs` is answered with how often it has
packed. It closes and ends when its input does.
"""

from __future__ import annotations

import os
import select
import sys
from pathlib import Path

from zrs_core import Primary

from ..conditions import wait_for
from ..databases import open_file_storage, traffic


def keep(blobs: Path, kept: Path) -> None:
    for path in blobs.rglob("*.blob"):
        place = kept / path.relative_to(blobs)
        if not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            os.link(path, place)


def all_is_sent(primary: Primary) -> bool:
    last, peers = primary.lastTransaction(), primary.status().peers
    return all(each.position is not None and each.position.tid == last for each in peers)


def main(directory: str, address: str, kept: str) -> None:
    packs = 0
    primary = Primary(open_file_storage(Path(directory)), address, close_timeout=60)
    with traffic(primary) as commits:
        commits.commit(50)
        print("ready", flush=True)
        while True:
            commits.commit(15)
            keep(Path(directory, "blobs"), Path(kept))
            wait_for(lambda: all_is_sent(primary), "all to be sent what there is")
            commits.pack()
            packs += 1
            while select.select([sys.stdin], [], [], 0.01)[0]:
                if not sys.stdin.readline():
                    return
                print(packs, flush=True)


main(*sys.argv[1:])
