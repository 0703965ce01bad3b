"""Standard output and standard error that cannot be written to, as on a full disk."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any


class Forgiving:
    """A standard stream, for commands that run for long: what cannot be written is left out.

    The data of a replica are on another disk than the log, mostly.

    :param name: `stdout` or `stderr`.
    :param ends_with_reader: raise BrokenPipeError, which ends a command whose output is read by
        another one that has ended.
    """

    def __init__(self, name: str, *, ends_with_reader: bool) -> None:
        self._name = name
        self._ends_with_reader = ends_with_reader

    def write(self, text: str) -> int:
        with self._forgive():
            getattr(sys, self._name).write(text)
        return len(text)

    def flush(self) -> None:
        with self._forgive():
            getattr(sys, self._name).flush()

    @contextlib.contextmanager
    def _forgive(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            if self._ends_with_reader:
                raise
        except (OSError, AttributeError):
            # The disk is full; or the stream was closed before the start, and is None.
            pass

    def __getattr__(self, name: str) -> Any:
        return getattr(getattr(sys, self._name), name)


def open_closed() -> None:
    """Open the null device for each standard stream that was closed before the process started.

    Otherwise, the next file that is opened, such as the database, gets the number of the standard
    output.
    """
    for number, name, mode in (0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w"):
        try:
            os.fstat(number)
        except OSError:
            # A new descriptor gets the lowest free number.
            os.open(os.devnull, os.O_RDWR)
            os.set_inheritable(number, True)
            stream = os.fdopen(number, mode, errors="backslashreplace", closefd=False)
            setattr(sys, name, stream)


def give_up() -> bool:
    """Flush the standard streams; return False if the standard output could not be.

    What a stream could not write, Python would try to write again when it ends, and it would
    replace the exit status.
    """
    written = True
    for stream in sys.stdout, sys.stderr:
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError):
            written = written and stream is not sys.stdout
            with contextlib.suppress(OSError, ValueError):
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, stream.fileno())
                os.close(null)
    return written
