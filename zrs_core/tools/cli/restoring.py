"""`zrs secondary --restore-if-missing`: a database that is not there begins with a snapshot."""

from __future__ import annotations

import os

from rich.console import Console

from ...errors import ConfigurationError
from ...storage.preparing import undo_unfinished_pack
from ..snapshots.manifest import BLOBS, DATA
from .output import say
from .snapshot import restore_to
from .targets import Target


def restore_if_missing(console: Console, snapshot: str, storage: str, blobs: str | None) -> None:
    """Restore `snapshot` if there is no file `storage`; nothing is done if there is one.

    :raises ConfigurationError: the storage is not where a snapshot can be restored to, there is
        something beside it, or the snapshot cannot be used.
    :raises Interrupted: a signal came before it was restored.
    """
    target = Target(storage)
    path = target.path
    if path is None:
        raise ConfigurationError(
            f"--restore-if-missing is for the path of a FileStorage, and {target} is none"
        )
    directory, name = os.path.split(os.path.abspath(path))
    if name != DATA or (blobs and os.path.abspath(blobs) != os.path.join(directory, BLOBS)):
        raise ConfigurationError(
            f"--restore-if-missing makes a directory with {DATA} and {BLOBS} in it: give "
            f"{os.path.join(directory, DATA)} as STORAGE, and {os.path.join(directory, BLOBS)} "
            "as --blobs"
        )
    undo_unfinished_pack(path)
    if os.path.exists(path):
        return
    say(console, f"{path} is not there: restoring {snapshot}")
    restore_to(console, snapshot, directory, None)
