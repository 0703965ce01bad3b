"""A secondary in another process, and how far it has come."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from ...messages import NO_TID
from ...storage.committed import CommittedFile
from ...storage.snapshot import new_transactions
from .output import Failed

_STOP_TIMEOUT = 30.0
#: Seconds between its attempts to connect.
_RECONNECT_DELAY = "0.2"


class FileFollower:
    """Counts the transactions in a FileStorage's file while another process adds to it.

    `transactions` are those complete at the last `update`, `tid` is the last of them.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.transactions = 0
        self.tid = NO_TID
        self._path = os.fspath(path)
        self._file: CommittedFile | None = None

    def update(self) -> None:
        """Look again; a file that is not there yet has no transactions.

        :raises DamagedFile: it holds something else than transactions.
        """
        if self._file is None:
            try:
                self._file = CommittedFile(self._path)
            except FileNotFoundError:
                return
        for tid in new_transactions(self._file):
            self.transactions += 1
            self.tid = tid

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def transactions_in(path: str | os.PathLike[str]) -> int:
    """How many complete transactions a FileStorage's file has now."""
    follower = FileFollower(path)
    try:
        follower.update()
    finally:
        follower.close()
    return follower.transactions


class SecondaryProcess:
    """`zrs secondary` in another process, while this context is entered.

    :param directory: where its database, `Data.fs` and `blobs`, is made, and its `output`.
    """

    def __init__(self, address: str, directory: Path) -> None:
        self._output = directory / "output"
        self._command = [sys.executable, "-m", "zrs_core.tools.cli", "secondary", address]
        self._command += [str(directory / "Data.fs"), "--blobs", str(directory / "blobs")]
        self._command += ["--reconnect-delay", _RECONNECT_DELAY]

    def __enter__(self) -> SecondaryProcess:
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(  # noqa: S603
                self._command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
            )
        return self

    def check(self) -> None:
        """:raises Failed: it has stopped by itself."""
        status = self._process.poll()
        if status is not None:
            raise self.failed(f"has stopped with exit status {status}")

    def failed(self, what: str) -> Failed:
        """An error that says so, with the last line of what it printed."""
        lines = self._output.read_text(errors="replace").splitlines()
        return Failed(f"the secondary {what}; its last line: {lines[-1] if lines else '(none)'}")

    def stop(self) -> None:
        """Ask it to stop, and wait.

        :raises Failed: it does not, or not properly.
        """
        self._process.send_signal(signal.SIGTERM)
        try:
            status = self._process.wait(_STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            raise self.failed("does not stop") from None
        if status:
            raise self.failed(f"has stopped with exit status {status}")

    def __exit__(self, *exc_info: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
