"""The `zrs` command. What it needs beyond the core comes with the extra `cli`."""

from __future__ import annotations

import contextlib
import io
import signal
import sys

from .streams import give_up, open_closed

_EXTRA = {"click", "rich"}


def main() -> None:
    """Run the command with the arguments of the process, and exit."""
    open_closed()
    ignore_log_signals()
    forgive_characters()
    try:
        from .command import zrs
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in _EXTRA:
            raise
        print(
            f"zrs: {missing} is missing, which comes with the extra cli: "
            'pip install "zrs-core[cli]"',
            file=sys.stderr,
        )
        sys.exit(2)
    try:
        zrs(prog_name="zrs")
    except OSError as error:
        # The help, for one, is printed before a command begins.
        with contextlib.suppress(OSError):
            print(f"zrs: {error}", file=sys.stderr)
        sys.exit(1)
    finally:
        give_up()


def ignore_log_signals() -> None:
    """Ignore SIGUSR1 and SIGUSR2, by which log rotation has Zope, ZEO and zdaemon reopen logs.

    By default they would end the process. The commands have no log files.
    """
    for name in "SIGUSR1", "SIGUSR2":
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)


def forgive_characters() -> None:
    """Let the standard output show otherwise what its encoding lacks, as the one for errors does.

    A name in a status or in a path is no reason to fail.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
