"""Takes a snapshot of a FileStorage from its file, whoever has it open."""

from __future__ import annotations

import contextlib
import os
import time
from datetime import datetime, timezone
from typing import Final

from ... import __version__
from ...errors import ConfigurationError, ReplicationError, UnsuitableStorage
from ...held import PACKED
from ...messages import NO_TID
from ...storage.committed import CommittedFile
from ...storage.finding import find
from ...storage.fs_format import FIRST_OFFSET
from ...storage.run_note import RunNote, incomplete_run
from ...storage.snapshot import (
    check_existing,
    check_existing_blobs,
    new_transactions,
    open_snapshot,
)
from ...tids import time_of
from .checking import Contents, check
from .copying import BlobsRemoved, Damaged, Report, copy_all
from .manifest import BLOBS, Manifest
from .workspace import Workspace

#: So many packs in a row may each take away blobs while they are looked for.
_ATTEMPTS: Final = 10

#: Seconds for which a pack may leave a file without its name.
_PACK_TIMEOUT: Final = 2.0


def take_snapshot(
    path: str, blobs: str | None, destination: str, report: Report, *, replace: bool = False
) -> Manifest:
    """Take a snapshot of the FileStorage at `path`, as far as it is committed now.

    It may be in use: it is read, and nothing else. Blobs are linked where that can be done. Of a
    secondary that has received a part of what a pack of its primary left, the snapshot holds what
    its readers see, the state before that part.

    :param blobs: the directory of its blobs. None: `blobs` beside it, if that is there.
    :param destination: the directory that the snapshot will be.
    :param replace: whether a snapshot that is there may be replaced.
    :raises ConfigurationError: what is asked for cannot be done.
    :raises NoRoom: the disk has no room for it; nothing was copied.
    :raises ReplicationError: the file or the disk is damaged, or the file has no complete state.
    """
    taken = now()
    # A file that is none is told before anything is made.
    _wait_for_pack(path)
    check_existing(path)
    check_existing_blobs(blobs)
    if blobs is None:
        blobs = _beside(path)
    if blobs is not None:
        check_apart(destination, blobs)
    with snapshot_workspace(destination, replace=replace) as workspace:
        for _ in range(_ATTEMPTS):
            with contextlib.closing(_open(path)) as file:
                try:
                    end_at_complete_state(file, RunNote(path))
                    missing = copy_all(file, blobs, workspace.new, report)
                    tid = file.last_tid()
                    break
                except BlobsRemoved:
                    workspace.clear()
        else:
            raise Damaged(f"{path} was packed {_ATTEMPTS} times while its blobs were looked for")
        contents = check(workspace.new, report)
        if (contents.tid, contents.missing_blobs) != (tid, missing):
            raise Damaged(f"what was written does not hold what {path} does")
        return finish(workspace, contents, os.path.abspath(path), taken)


def finish(workspace: Workspace, contents: Contents, source: str, taken: str) -> Manifest:
    """Say what was taken, and give it its name."""
    known = contents.tid != NO_TID
    manifest = Manifest(
        version=__version__,
        source=source,
        taken=taken,
        tid=f"0x{contents.tid.hex()}" if known else None,
        time=_iso(time_of(contents.tid)) if known else None,
        transactions=contents.transactions,
        records=contents.records,
        blobs=contents.blobs,
        missing_blobs=contents.missing_blobs,
        data_size=contents.data_size,
        blobs_size=contents.blobs_size,
        sha256=contents.sha256,
    )
    manifest.write(workspace.new)
    workspace.publish()
    return manifest


def now() -> str:
    return _iso(datetime.now(timezone.utc))


def _iso(when: datetime) -> str:
    return when.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def snapshot_workspace(destination: str, *, replace: bool) -> Workspace:
    """Where a snapshot is built; `replace` as for `take_snapshot`."""

    def may_replace(directory: str) -> None:
        if not replace:
            raise ConfigurationError(
                f"{destination} is there already: give --replace to put the new snapshot in its "
                "place"
            )
        try:
            Manifest.read(directory)
        except ConfigurationError as error:
            raise ConfigurationError(f"{destination} is not replaced: {error}") from error

    return Workspace(destination, may_replace)


def check_apart(destination: str, source: str) -> None:
    """:raises ConfigurationError: a directory would be made within what it is made from."""
    inner, outer = os.path.realpath(destination), os.path.realpath(source)
    if os.path.commonpath((inner, outer)) == outer:
        raise ConfigurationError(f"{destination} lies within {source}: give another place")


def _beside(path: str) -> str | None:
    blobs = os.path.join(os.path.dirname(os.path.abspath(path)), BLOBS)
    return blobs if os.path.isdir(blobs) else None


def _wait_for_pack(path: str) -> None:
    """Wait while a pack has given the file another name, and not yet its own to the new one."""
    deadline = time.monotonic() + _PACK_TIMEOUT
    while not os.path.lexists(path) and all(map(os.path.isfile, (path + ".old", path + ".pack"))):
        if time.monotonic() > deadline:
            break
        time.sleep(0.001)


def end_at_complete_state(file: CommittedFile, note: RunNote) -> None:
    """Let a file end with a state that its database was in.

    :param file: the file of a FileStorage that may be in use.
    :param note: the note beside it (`zrs_core.visibility`).
    :raises ReplicationError: the file has no such state.
    :raises BlobsRemoved: a pack has replaced the file, so the note may say nothing about it.
    """
    while (run := incomplete_run(file, note)) is None:
        if file.end == FIRST_OFFSET or file.status_at(file.before(file.end)) != PACKED:
            return
        # The file may end within a run that was completed before the note was looked for.
        if not list(new_transactions(file)):
            if file.was_replaced():
                raise BlobsRemoved
            return
    if run.before == NO_TID:
        raise ReplicationError(
            f"{file.path} is incomplete: its secondary has received only a part of what a pack of "
            "its primary left. Take the snapshot when the secondary has received the rest"
        )
    file.end = find(file, run.before)


def _open(path: str) -> CommittedFile:
    for _ in range(_ATTEMPTS):
        _wait_for_pack(path)
        # Another pack may be that far just now.
        with contextlib.suppress(FileNotFoundError, UnsuitableStorage):
            return open_snapshot(path)
    return open_snapshot(path)
