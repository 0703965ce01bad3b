"""What the exit statuses mean: one table, for the help, the documents and the units of systemd."""

from __future__ import annotations

#: Of every command that has no meanings of its own.
STATUSES = {
    0: "when done or stopped by SIGINT, SIGTERM or SIGHUP",
    1: "when it ran and failed",
    2: "for arguments, files or addresses that cannot work",
}

#: What the help of these commands ends with.
EPILOG = (
    f"Exit status: {', '.join(f'{number} {meaning}' for number, meaning in STATUSES.items())}. "
    "Errors are one line on the standard error output."
)
