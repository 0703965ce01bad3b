"""A process with secondaries, driven over its standard input.

Arguments: HOST:PORT, then a directory for each secondary. Commands, a line each: `wait TID` answers
`ok` once every secondary has that transaction; `seen` answers with the number of transactions that
each has applied. It closes them and ends when its input does.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

from zrs_core import Secondary

from ..conditions import wait_for
from ..databases import open_file_storage


def have_all(secondaries: list[Secondary], tid: bytes) -> bool:
    return all(each.progress.tid >= tid for each in secondaries)


def main(address: str, *directories: str) -> None:
    secondaries = [
        Secondary(open_file_storage(Path(each)), address, reconnect_delay=(0.01, 0.02))
        for each in directories
    ]
    print("ready", flush=True)
    for line in sys.stdin:
        match line.split():
            case ["wait", tid]:
                wait_for(partial(have_all, secondaries, bytes.fromhex(tid)), tid)
                print("ok", flush=True)
            case ["seen"]:
                print(*(each.progress.transactions for each in secondaries), flush=True)
    for each in secondaries:
        each.close()


main(*sys.argv[1:])
