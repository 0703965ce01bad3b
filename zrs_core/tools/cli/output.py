"""What the command says: lines, log lines, errors."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from typing import IO, Any, cast

import click
from rich.console import Console
from rich.filesize import decimal
from ZODB.POSException import POSError

from ...errors import ConfigurationError, ListenError, ReplicationError
from ...logs import JSONFormatter, event
from ...messages import NO_TID
from ...texts import escaped
from ...tids import describe_tid
from .streams import Forgiving

#: How the commands that serve and follow can print what they say and log.
LOG_FORMATS = ("text", "json")


class Failed(click.ClickException):
    """It ran and failed."""

    exit_code = 1

    def show(self, file: IO[Any] | None = None) -> None:
        # The exit status says it too.
        with contextlib.suppress(OSError):
            click.echo(f"zrs: {self.format_message()}", file=file, err=file is None)


class Interrupted(Failed):
    """It was stopped by a signal before it was done."""


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
        raise Misconfigured(_lines(str(error))) from error
    except BrokenPipeError:
        raise
    except Exception as error:
        if not _is_known(error):
            raise
        raise Failed(escaped(" ".join(str(error).split()))) from error


def complain(text: str) -> None:
    """Print an error, where that is possible: the exit status says it too."""
    with contextlib.suppress(OSError):
        click.echo(f"zrs: {_lines(text)}", err=True)


@contextlib.contextmanager
def until_closed(file: IO[Any]) -> Iterator[None]:
    """End without an error if the reader of what is written to a file closes it."""
    try:
        yield
        file.flush()
    except BrokenPipeError:
        # Python writes the rest when it ends.
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), file.fileno())


def say(console: Console, text: str) -> None:
    """Print a line as it is, however long, with control characters escaped."""
    console.print(_lines(text), soft_wrap=True, markup=False, highlight=False, emoji=False)


def _lines(text: str) -> str:
    return "\n".join(map(escaped, text.split("\n")))


def describe_last(tid: bytes) -> str:
    """Where a storage's history ends."""
    return "no transaction yet" if tid == NO_TID else describe_tid(tid)


def size(number: float) -> str:
    """A number of bytes, for people."""
    return decimal(int(number))


def count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


class JSONLines(Console):
    """Prints each line as a JSON object, as what is logged is then."""

    def __init__(self) -> None:
        # Else a bar would be drawn between them.
        super().__init__(force_terminal=False, file=_forgiving(ends_with_reader=False))

    def print(self, *objects: Any, **options: Any) -> None:
        text = " ".join(map(str, objects))
        said = {"name": "zrs_core.cli", "levelname": "INFO", "msg": text, **event("said")}
        self.print_line(JSONFormatter().format(logging.makeLogRecord(said)))

    def print_line(self, line: str) -> None:
        """Print what is an object already."""
        super().print(line, soft_wrap=True, markup=False, highlight=False, emoji=False)


def console_for(log_format: str) -> Console:
    """Where a service prints, in one of `LOG_FORMATS`: what cannot be printed is left out."""
    if log_format == "json":
        return JSONLines()
    return Console(file=_forgiving(ends_with_reader=False))


def lasting_console() -> Console:
    """Return the console of another command that runs for long, which ends with its reader."""
    return Console(file=_forgiving(ends_with_reader=True))


def error_console() -> Console:
    """Return the console of a progress bar, on the standard error output."""
    return Console(file=_forgiving("stderr", ends_with_reader=True))


def _forgiving(name: str = "stdout", *, ends_with_reader: bool) -> IO[str]:
    return cast("IO[str]", Forgiving(name, ends_with_reader=ends_with_reader))


class _Formatter(logging.Formatter):
    """One line a record; a traceback only for what nobody but a programmer can cause."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        line = f"{self.formatTime(record, self.datefmt)} "
        if record.levelno > logging.INFO:
            line += f"{record.levelname} "
        message = record.getMessage()
        # A peer's text must not look like another record.
        line += escaped(message) if record.name.startswith("zrs_core") else message
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
        self.setFormatter(JSONFormatter() if isinstance(console, JSONLines) else _Formatter())

    def emit(self, record: logging.LogRecord) -> None:
        if record.name == "zc.lockfile":
            # A file in use: the command itself says so.
            return
        try:
            line = self.format(record)
            if isinstance(self._console, JSONLines):
                self._console.print_line(line)
            else:
                say(self._console, line)
        except (BrokenPipeError, SystemExit):
            # Whoever read it has left, at which rich ends the thread that prints. That one has a
            # connection to look after: it goes on, and nothing more is printed.
            self._console.quiet = True
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
