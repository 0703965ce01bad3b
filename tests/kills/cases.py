"""The cases: a primary and a secondary, one of which is killed, stopped or told to end."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from ZODB.blob import FilesystemHelper, is_blob_record

from zrs_core.storage.snapshot import open_snapshot

from ..conditions import DEADLINE, wait_for
from ..databases import Stored, blob_files, stored, temporary_files
from ..driven import Driven, driven
from .status import CLOSED, QUIET, Status

TRANSPORTS = ("socket-thread", "twisted-tcp")

#: The system calls at which each is killed; it is not made any more.
_CALLS = {
    "primary": ("write", "fsync", "openat", "sendto,sendmsg,writev", "lseek", "chmod,rename"),
    "secondary": (
        "pwrite64,pwritev,pwritev2",
        "fdatasync",
        "fsync",
        "rename",
        "mkdir",
        "openat",
        "write",
        "recvfrom,recvmsg",
        "close",
    ),
}

#: Of 28 cases, so many of each kind.
_KINDS = ("kill",) * 10 + ("system call",) * 15 + ("stop",) + ("end",) * 2


class Unsound(Exception):
    """What must hold does not."""


class Case:
    """What is done to whom; the same number is the same case, but for the time that it takes."""

    def __init__(self, number: int) -> None:
        chance = random.Random(number)
        self.kind = _KINDS[number % len(_KINDS)]
        self.role = "primary" if number % 2 else "secondary"
        self.transports = chance.choice(TRANSPORTS), chance.choice(TRANSPORTS)
        self.after = chance.random() * 0.2
        self.call = chance.choice(_CALLS[self.role])
        self.when = chance.randrange(1, 25)

    def __str__(self) -> str:
        what = f"{self.kind} of the {self.role}"
        if self.kind == "system call":
            what += f" at {self.call} number {self.when}"
        return f"{what}, {' to '.join(self.transports)}"


class Node:
    """One end of the replication: its files, and the process that has them open."""

    def __init__(self, server: Driven, role: str, directory: Path, address: Path, transport: str):
        self.directory = directory
        self.process = 0
        self._server = server
        self._command = f"{role} {directory} {address} {transport}"
        directory.mkdir()

    def start(self, *, call: str | None = None, when: int = 0) -> None:
        """Start it; it may be killed at a system call."""
        self.process = int(self._server.ask(self._command))
        wait_for(lambda: self._state() == "T", "the process to stop itself")
        if call is not None:
            _kill_at(self.process, call, when, self.directory / "strace")
        self.signal(signal.SIGCONT)

    def signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process, number)

    def _state(self) -> str:
        try:
            return Path(f"/proc/{self.process}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return ""

    @property
    def ended(self) -> bool:
        # Not as long as one of its threads has its files.
        return not self._state()

    def wait_for_end(self) -> None:
        wait_for(lambda: self.ended, f"the end of process {self.process}")

    @property
    def tid(self) -> bytes:
        """The last transaction that it has said to have, zeros if it has said nothing."""
        return Status.read(self.directory)[0]

    @property
    def doing(self) -> bytes:
        return Status.read(self.directory)[1]

    def stored(self) -> list[Stored]:
        return stored(self.directory)

    @property
    def log(self) -> str:
        return (self.directory / "log").read_text()


def _kill_at(process: int, call: str, when: int, output: Path) -> None:
    strace = subprocess.Popen(
        [
            *("strace", "-f", "-p", str(process), "-o", str(output)),
            *("-e", f"trace={call}", "-e", f"inject={call}:signal=KILL:when={when}"),
        ],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    assert strace.stderr is not None
    said = strace.stderr.readline()
    if b"attached" not in said:
        strace.kill()
        strace.wait()
        raise RuntimeError(f"strace cannot be used: {said.decode().strip()}")
    _STRACES.append(strace)


_STRACES: list[subprocess.Popen[bytes]] = []


def have_strace() -> bool:
    """Whether it is there. Where all must be run it has to be."""
    found = shutil.which("strace") is not None
    if not found and os.environ.get("CI"):
        raise RuntimeError("there is no strace; .ci/install-strace installs it")
    return found


@contextlib.contextmanager
def server() -> Iterator[Driven]:
    """The process that the others are forked from."""
    with driven("tests.kills.nodes") as process:
        yield process


def try_case(process: Driven, number: int) -> str | None:
    """Try a case; what it was, None if it needs strace and there is none.

    :raises Exception: what must hold does not.
    """
    case = Case(number)
    if case.kind == "system call" and not have_strace():
        return None
    with tempfile.TemporaryDirectory(prefix="zrs-kills-") as directory:
        nodes = {}
        for role, transport in zip(("primary", "secondary"), case.transports, strict=True):
            place = Path(directory, role)
            nodes[role] = Node(process, role, place, Path(directory, "socket"), transport)
        try:
            _try(case, nodes["primary"], nodes["secondary"], nodes[case.role])
        except BaseException:
            for role, node in nodes.items():
                with contextlib.suppress(OSError):
                    print(f"--- the {role}'s log\n{node.log[-3000:]}", file=sys.stderr)
            raise
        finally:
            for node in nodes.values():
                if node.process and not node.ended:
                    node.signal(signal.SIGKILL)
                    node.wait_for_end()
            while _STRACES:
                with _STRACES.pop() as strace:
                    strace.wait(DEADLINE)
    return str(case)


def _try(case: Case, primary: Node, secondary: Node, victim: Node) -> None:
    for node in (primary, secondary):
        if node is victim and case.kind == "system call":
            node.start(call=case.call, when=case.when)
        else:
            node.start()
    other = secondary if victim is primary else primary
    if case.kind == "system call":
        wait_for(lambda: victim.ended or other.ended, "the kill")
        _demand(not other.ended, "the other one has ended")
    else:
        wait_for(lambda: secondary.tid > bytes(8), "the first transaction")
        time.sleep(case.after)
    match case.kind:
        case "kill":
            victim.signal(signal.SIGKILL)
            victim.wait_for_end()
        case "end":
            victim.signal(signal.SIGTERM)
            victim.wait_for_end()
            _demand(victim.doing == CLOSED, "it did not close by itself")
            _check_tidy(victim)
        case "stop":
            _stop_for_a_while(primary, secondary, victim)
    if case.kind != "stop":
        _check_beginning(primary, secondary)
        victim.start()
    _demand(not other.ended, "the other one has ended too")
    _finish(primary, secondary)


def _stop_for_a_while(primary: Node, secondary: Node, victim: Node) -> None:
    victim.signal(signal.SIGSTOP)
    if victim is secondary:
        # It keeps nobody from committing.
        size = os.path.getsize(primary.directory / "Data.fs")
        wait_for(
            lambda: os.path.getsize(primary.directory / "Data.fs") > size + 1_000_000,
            "commits meanwhile",
        )
    else:
        time.sleep(1)
    victim.signal(signal.SIGCONT)


def _check_beginning(primary: Node, secondary: Node) -> None:
    """What the secondary has on disk is the beginning of what the primary has."""
    if not (secondary.directory / "Data.fs").exists():
        return
    # The order matters: the primary goes on.
    said = secondary.tid if secondary.ended else bytes(8)
    with contextlib.closing(open_snapshot(secondary.directory / "Data.fs")) as held:
        last = held.last_tid()
        ours = held.read(4, held.end - 4) if held.end > 4 else b""
    _demand(last >= said, f"it had 0x{said.hex()}, and has 0x{last.hex()} as its last")
    file = primary.directory / "Data.fs"
    theirs = file.read_bytes()[4:] if file.exists() else b""
    _demand(theirs.startswith(ours), "it is not the beginning of the primary's")


def _finish(primary: Node, secondary: Node) -> None:
    """Let the secondary catch up, close both, compare."""
    before = primary.tid
    wait_for(lambda: primary.tid > before or primary.ended, "another commit")
    primary.signal(signal.SIGUSR1)
    wait_for(lambda: primary.doing == QUIET or primary.ended, "the primary to be quiet")
    wait_for(
        lambda: secondary.tid == primary.tid or secondary.ended, "the secondary to have it all"
    )
    for node in (secondary, primary):
        node.signal(signal.SIGTERM)
        node.wait_for_end()
        _demand(node.doing == CLOSED, "it did not close by itself")
    ours, theirs = secondary.stored(), primary.stored()
    _demand(ours == theirs, "not all is equal")
    equal = (secondary.directory / "Data.fs").read_bytes() == (
        primary.directory / "Data.fs"
    ).read_bytes()
    _demand(equal, "the files are not equal")
    _check_tidy(secondary)


def _check_tidy(node: Node) -> None:
    """No blob without a record, and nothing that is temporary."""
    blobs = node.directory / "blobs"
    if not blobs.exists():
        return
    _demand(temporary_files(blobs) == [], f"there are {temporary_files(blobs)}")
    helper = FilesystemHelper(str(blobs))
    needed = {
        os.path.relpath(helper.getBlobFilename(record[0], record[1]), blobs)
        for each in node.stored()
        for record in each.records
        if record[2] and is_blob_record(record[2])
    }
    _demand(blob_files(blobs).keys() == needed, "there are blobs without a record, or the reverse")


def _demand(condition: bool, otherwise: str) -> None:
    if not condition:
        raise Unsound(otherwise)
