"""The `zrs` command. What it needs beyond the core comes with the extra `cli`."""

from __future__ import annotations

import io
import sys

_EXTRA = {"click", "rich"}


def main() -> None:
    """Run the command with the arguments of the process, and exit."""
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
    zrs(prog_name="zrs")


def forgive_characters() -> None:
    """Let the standard output show otherwise what its encoding lacks, as the one for errors does.

    A name in a status or in a path is no reason to fail.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
