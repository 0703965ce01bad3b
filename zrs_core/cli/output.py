"""What the command says: lines, log lines, errors."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import IO, Any

import click
from rich.console import Console
from rich.filesize import decimal
from ZODB.POSException import POSError

from ..errors import ConfigurationError, ListenError, ReplicationError
from ..messages import NO_TID
from ..tids import describe_tid


class Failed(click.ClickException):
    """It ran and failed."""

    exit_code = 1

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(f"zrs: {self.format_message()}", file=file, err=file is None)


class Misconfigured(Failed):
    """It was asked for something that cannot work."""

    exit_code = 2


@contextlib.contextmanager
def errors_in_a_line() -> Iterator[None]:
    """Turn the errors that a person can cause into one line and an exit status.

    :raises Misconfigured: for arguments that are not understood, a configuration error, and an
        address that is not to be had.
    :raises Failed: for every other error of replication, of a storage, a database, the system.
    """
    try:
        yield
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "zrs"
        raise Misconfigured(f"{error.format_message()} See '{command} --help'.") from error
    except (ConfigurationError, ListenError) as error:
        raise Misconfigured(str(error)) from error
    except BrokenPipeError:
        raise
    except Exception as error:
        if not _is_known(error):
            raise
        raise Failed(" ".join(str(error).split())) from error


def say(console: Console, text: str) -> None:
    """Print a line as it is, however long."""
    console.print(text, soft_wrap=True, markup=False, highlight=False, emoji=False)


def describe_last(tid: bytes) -> str:
    """Where a storage's history ends."""
    return "no transaction yet" if tid == NO_TID else describe_tid(tid)


def size(number: float) -> str:
    """A number of bytes, for people."""
    return decimal(int(number))


def count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


class _Formatter(logging.Formatter):
    """One line a record; a traceback only for what nobody but a programmer can cause."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        line = f"{self.formatTime(record, self.datefmt)} "
        if record.levelno > logging.INFO:
            line += f"{record.levelname} "
        line += record.getMessage()
        error = record.exc_info[1] if record.exc_info else None
        if error is not None and not _is_known(error):
            line += "\n" + "".join(self.formatException(record.exc_info or (None, None, None)))
        return line


def _is_known(error: BaseException) -> bool:
    # Each module for a database has errors of its own; all have this name in common (PEP 249).
    is_database_error = any(each.__name__ == "DatabaseError" for each in type(error).__mro__)
    return is_database_error or isinstance(error, (ReplicationError, POSError, OSError))


class _Handler(logging.Handler):
    def __init__(self, console: Console, level: int) -> None:
        super().__init__(level)
        self._console = console
        self.setFormatter(_Formatter())

    def emit(self, record: logging.LogRecord) -> None:
        if record.name == "zc.lockfile":
            # A file in use: the command itself says so.
            return
        try:
            say(self._console, self.format(record))
        except Exception:  # noqa: BLE001
            self.handleError(record)


@contextlib.contextmanager
def logging_to(console: Console, level: int) -> Iterator[logging.Handler]:
    """Show what `zrs_core` logs from `level` on, and the warnings of everything else."""
    ours, everything = logging.getLogger("zrs_core"), logging.getLogger()
    handler = _Handler(console, level)
    before = ours.level
    ours.setLevel(logging.INFO)
    everything.addHandler(handler)
    try:
        yield handler
    finally:
        everything.removeHandler(handler)
        ours.setLevel(before)
