"""Makes a database of a snapshot, as it was when that was taken or at a time before."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable

from ...errors import ConfigurationError
from ...storage.committed import CommittedFile
from ...storage.finding import RisingTids, find
from ...storage.fs_format import FIRST_OFFSET
from ...storage.snapshot import open_snapshot, transactions_of
from ...tids import describe_tid, parse_span
from .checking import Contents, check, sha256_of
from .copying import Damaged, Report, copy_all
from .manifest import BLOBS, DATA, NAME, Manifest
from .taking import check_apart
from .workspace import Workspace


def restore(snapshot: str, destination: str, until: str | None, report: Report) -> Contents:
    """Make a database, `Data.fs` and `blobs`, of a snapshot.

    :param destination: the directory that it will be; nothing may be in it.
    :param until: the last transaction to be in it, as `parse_until` takes it. None for all.
    :return: what it holds.
    :raises ConfigurationError: what is asked for cannot be done.
    :raises NoRoom: the disk has no room for it; nothing was copied.
    :raises Damaged: the snapshot is, or the disk.
    """
    manifest = Manifest.read(snapshot)
    last = None if until is None else parse_until(until)
    blobs: str | None = os.path.join(snapshot, BLOBS)
    if not os.path.isdir(str(blobs)):
        blobs = None
        if manifest.blobs:
            raise Damaged(f"{snapshot} is damaged: its {BLOBS} are not there")
    check_apart(destination, snapshot)
    with (
        Workspace(destination, _never(destination)) as workspace,
        contextlib.closing(open_snapshot(os.path.join(snapshot, DATA))) as file,
    ):
        if sha256_of(file.path, report) != manifest.sha256:
            raise Damaged(f"{file.path} is damaged: its sha256 is not that in {NAME}")
        end = file.end
        if last is not None:
            file.end = _boundary(file, last, manifest)
        missing = copy_all(file, blobs, workspace.new, report)
        contents = check(workspace.new, report)
        _compare(snapshot, manifest, contents, missing, whole=file.end == end)
        workspace.publish()
    return contents


def _never(destination: str) -> Callable[[str], None]:
    def may_replace(directory: str) -> None:
        raise ConfigurationError(
            f"{destination} is there already, and is never replaced: give a directory that is not "
            "there, or empty"
        )

    return may_replace


def parse_until(text: str) -> bytes:
    """Return the last tid that may be in a database, as `tids.parse_span` reads it.

    :raises ConfigurationError: it is neither a time nor a tid.
    """
    try:
        return parse_span(text)[1]
    except ValueError as error:
        raise ConfigurationError(
            f"{text!r} is neither a time, such as 2026-01-31T12:00:00 (UTC) or "
            "2026-01-31T13:00:00+01:00, nor a tid, 0x and 16 hex digits"
        ) from error


def _boundary(file: CommittedFile, last: bytes, manifest: Manifest) -> int:
    """Where the first transaction after `last` begins.

    :raises ConfigurationError: the snapshot does not hold what was then.
    """
    if manifest.tid is None:
        raise ConfigurationError("the snapshot holds nothing of then: it is empty")
    first = file.tid_at(FIRST_OFFSET)
    if last < first:
        raise ConfigurationError(
            f"the snapshot holds nothing of then: its first transaction is {describe_tid(first)}"
        )
    if last > max(file.last_tid(), parse_until(manifest.taken)):
        raise ConfigurationError(
            f"the snapshot holds nothing of then: it was taken at {manifest.taken}, and its last "
            f"transaction is {describe_tid(file.last_tid())}"
        )
    if not RisingTids().check(file):
        raise ConfigurationError(
            "a time does not say which transactions are wanted, since the tids of the snapshot do "
            "not rise throughout: restore all of it"
        )
    end = find(file, last)
    # A pack marks all that it leaves of what was before its time.
    packed = None
    for header, _ in transactions_of(file, end):
        if header.status != "p":
            break
        packed = header.tid
    if packed is not None:
        raise ConfigurationError(
            "the snapshot does not hold all that was then, since the database was packed: the "
            f"earliest transaction that it can be restored to is {describe_tid(packed)}"
        )
    return end


def _compare(
    snapshot: str, manifest: Manifest, contents: Contents, missing: int, *, whole: bool
) -> None:
    """:raises Damaged: what was restored is not what the snapshot says of itself."""
    found = contents.transactions, contents.records, contents.blobs, contents.blobs_size
    said = manifest.transactions, manifest.records, manifest.blobs, manifest.blobs_size
    if whole and found != said:
        raise Damaged(
            f"{snapshot} is damaged: its transactions, records, blobs and bytes of blobs are "
            f"{found}, and should be {said}"
        )
    if missing > manifest.missing_blobs or contents.missing_blobs != missing:
        raise Damaged(f"{snapshot} is damaged: {missing} of its blobs are missing")
