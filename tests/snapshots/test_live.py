"""Snapshots in processes of their own, of a primary that commits and packs and of its secondary."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest
from ZODB.blob import is_blob_record
from ZODB.FileStorage import FileStorage
from ZODB.serialize import referencesf
from ZODB.utils import p64, u64, z64

from tests.cli.conftest import zrs  # noqa: F401
from tests.conditions import wait_for
from tests.databases import stored
from tests.driven import driven
from zrs_core.storage.compare import compare
from zrs_core.storage.snapshot import BlobFiles
from zrs_core.tools.snapshots.restoring import restore

from .helpers import read, report

_ROUNDS = 2


def state(path: Path, blobs: Path, tid: bytes) -> dict[bytes, tuple[bytes, bytes | None]]:
    """All objects that can be reached in a database as it was: their records and blobs."""
    found: dict[bytes, tuple[bytes, bytes | None]] = {}
    files = BlobFiles(blobs)
    with contextlib.closing(FileStorage(str(path / "Data.fs"), read_only=True)) as storage:
        oids = {z64}
        while oids:
            oid = oids.pop()
            data, serial, _ = storage.loadBefore(oid, p64(u64(tid) + 1))
            blob = Path(files.path(oid, serial))
            found[oid] = data, blob.read_bytes() if blob.exists() else None
            assert is_blob_record(data) or found[oid][1] is None
            oids |= set(referencesf(data)) - found.keys()
    return found


@pytest.mark.long
def test_while_a_primary_commits_and_packs_and_a_secondary_streams(zrs, tmp_path):  # noqa: F811
    address = tmp_path / "socket"
    primary, secondary, kept = (tmp_path / each for each in ("primary", "secondary", "kept"))
    kept.mkdir()
    (kept / ".layout").write_text("bushy")
    secondary.mkdir()
    taken = []
    with driven("tests.snapshots.busy", primary, address, kept) as busy:
        # It has the whole history: packs are not replicated.
        following = zrs(
            *("secondary", address, secondary / "Data.fs", "--blobs", secondary / "blobs")
        )
        wait_for(
            lambda: (secondary / "Data.fs").exists() and os.path.getsize(secondary / "Data.fs") > 4,
            "the first transaction",
        )
        for number in range(_ROUNDS):
            packs = int(busy.ask("packs"))
            running = []
            for source in (primary / "Data.fs", secondary / "Data.fs", address):
                place = tmp_path / f"{source.parent.name}-{source.name}-{number}"
                running.append((source, place, zrs("snapshot", source, place)))
            wait_for(lambda packs=packs: int(busy.ask("packs")) > packs, "a pack")
            for _, _, process in running:
                assert process.finish() == 0, process.err
            taken += running
    assert following.stop() == 0
    history = stored(secondary)
    for source, place, _ in taken:
        restored = place.with_name(f"{place.name}-restored")
        restore(str(place), str(restored), None, report)
        manifest = read(place)
        tid = bytes.fromhex(manifest["tid"][2:])
        ours, theirs = state(restored, restored / "blobs", tid), state(secondary, kept, tid)
        if source == primary / "Data.fs":
            assert manifest["missing_blobs"] == 0
        # What was packed away before it was sent is missing on a secondary too.
        lacking = [oid for oid in theirs if ours[oid] != theirs[oid]]
        assert len(lacking) <= manifest["missing_blobs"]
        assert ours == theirs | {oid: (theirs[oid][0], None) for oid in lacking}
        assert stored(restored)[-1].tid == tid
        if source == secondary / "Data.fs":
            assert stored(restored) == history[: manifest["transactions"]]
        else:
            # What a pack has left until then.
            assert compare(restored / "Data.fs", secondary / "Data.fs", subset=True).equal
