"""Takes and restores snapshots, and is killed on the way.

`python -m tests.snapshots.victims` reads lines, `ACTION SOURCE DESTINATION POINT`, and does each in
a process of its own, forked from one that has imported all. That kills itself just before its call
number POINT of those that change something on disk. The answer is `killed`, or `done` and the
number of such calls if there were not as many; or what has failed.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from types import FrameType
from typing import Any

from zrs_core.options import ClientOptions
from zrs_core.tools.snapshots.receiving import Receiver
from zrs_core.tools.snapshots.restoring import restore
from zrs_core.tools.snapshots.taking import finish, now, snapshot_workspace, take_snapshot
from zrs_core.transports import socket_thread  # noqa: F401

from ..conditions import wait_for

_CALLS = {
    *("open", "write", "pwrite", "pwritev", "flush", "truncate", "ftruncate", "close", "__exit__"),
    *("fsync", "fdatasync", "flock", "mkdir", "rmdir", "unlink", "remove", "rename", "link"),
    *("fchmod", "chmod", "utime"),
}


class Killer:
    """Kills this process before its call number `point`, in whichever thread; counts them all."""

    def __init__(self, point: int) -> None:
        self.calls = 0
        self._point = point

    def __call__(self, frame: FrameType, event: str, function: Any) -> None:
        if event != "c_call" or function.__name__ not in _CALLS:
            return
        # Of a method it is that of its object.
        module = getattr(function, "__module__", None) or type(function.__self__).__module__
        if module in ("posix", "_io", "io", "fcntl"):
            self.calls += 1
            if self.calls == self._point:
                os.kill(os.getpid(), signal.SIGKILL)


def _report(stage: str, done: int, total: int) -> None:
    """Nobody looks."""


def _take(source: str, destination: str) -> None:
    take_snapshot(source, None, destination, _report, replace=True)


def _receive(source: str, destination: str) -> None:
    options = ClientOptions(durability="none", reconnect_delay=0.05)
    with snapshot_workspace(destination, replace=True) as workspace:
        receiver = Receiver(source, "socket-thread", options, workspace.new)
        with receiver, receiver.receiving():
            last = bytes.fromhex(os.environ["LAST_TID"])
            wait_for(lambda: receiver.received.tid == last, "the last transaction")
        finish(workspace, receiver.check(_report), source, now())


def _restore(source: str, destination: str) -> None:
    restore(source, destination, None, _report)


_ACTIONS = {"take": _take, "receive": _receive, "restore": _restore}


def _do(action: str, source: str, destination: str, point: int, answer: int) -> None:
    killer = Killer(point)
    threading.setprofile(killer)
    sys.setprofile(killer)
    try:
        _ACTIONS[action](source, destination)
        said = f"done {killer.calls}"
    except BaseException:
        said = repr(traceback.format_exc())
    finally:
        sys.setprofile(None)
    os.write(answer, said.encode())


def main() -> None:
    print("ready", flush=True)
    for line in sys.stdin:
        action, source, destination, point = line.split()
        read, write = os.pipe()
        process = os.fork()
        if not process:
            _do(action, source, destination, int(point), write)
            os._exit(0)
        os.close(write)
        with open(read) as answer:
            said = answer.read()
        os.waitpid(process, 0)
        print(said or "killed", flush=True)


if __name__ == "__main__":
    main()
