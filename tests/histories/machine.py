"""A primary and two secondaries, driven by hypothesis, and the list of what was committed.

The real thing: `Primary` and `Secondary` over FileStorages with blobs, joined by the network in
memory, of which each step is taken here. The model is a list of transactions. A pack takes nothing
out of it, but marks what a secondary that comes later need not get any more.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from base64 import encodebytes
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from persistent.TimeStamp import TimeStamp
from ZODB.Connection import TransactionMetaData
from ZODB.utils import p64, z64

from zrs_core import Primary, Secondary
from zrs_core.progress import State
from zrs_core.sessions import ANSWER_TIME
from zrs_core.sessions.search import MAX_PROBES
from zrs_core.transports.memory import MemoryNetwork

from ..databases import Stored, contents, open_file_storage, temporary_files

_ADDRESS = ("", 8000)

#: The beginning of the record of a blob, as ZODB writes it.
_BLOB = b"\x80\x03cZODB.blob\nBlob\nq\x00.\x80\x03N."

_OIDS = tuple(p64(number) for number in range(6))
_BLOB_OIDS = tuple(p64(number) for number in range(100, 103))
_SECONDARIES = (0, 1)

#: Seconds since 1970.
_BEGINNING = 1_500_000_000.0


#: Objects that are there from the beginning; all others are garbage for a pack.
_FIRST = (*_OIDS[:4], *_BLOB_OIDS)


def _references(data: bytes) -> list[bytes]:
    return list(_FIRST)


_texts = st.sampled_from([b"", b"user", "ünïcode".encode(), b"x" * 300])
changes = st.fixed_dictionaries(
    {
        "records": st.dictionaries(
            st.sampled_from(_OIDS), st.binary(min_size=1, max_size=40), max_size=4
        ),
        "blobs": st.dictionaries(
            st.sampled_from(_BLOB_OIDS), st.sampled_from([0, 1, 65_536, 65_537]), max_size=1
        ),
        "user": _texts,
        "description": _texts,
        "extension": st.sampled_from([{}, {}, {"request": "POST /", "numbers": [1, 2.5, None]}]),
    }
)


@dataclass
class Record:
    """A record of the list; `data` is None where a creation was undone."""

    data: bytes | None
    blob: bytes | None = None
    #: Whether a pack has taken it out of the primary.
    gone: bool = False


@dataclass
class Committed:
    """A transaction of the list."""

    tid: bytes
    user: bytes
    description: bytes
    extension: bytes
    records: dict[bytes, Record] = field(default_factory=dict)
    #: Whether a pack has taken it out of the primary, with all its records, if it had any.
    gone: bool = False


class Histories(RuleBasedStateMachine):
    """Commits, undo, packs, cuts, restarts, and catching up."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="zrs-histories-"))
        self.network = MemoryNetwork()
        self.history: list[Committed] = []
        self.packed = z64
        self.primary: Any = self.open_primary()
        self.secondaries: list[Any] = [self.open_secondary(number) for number in _SECONDARIES]
        #: What each secondary was seen to hold.
        self.seen: list[bytes] = [z64 for _ in _SECONDARIES]

    def open_primary(self) -> Primary:
        storage = open_file_storage(self.folder / "primary")
        return Primary(storage, _ADDRESS, self.network, transport="memory")

    def open_secondary(self, number: int, **options: Any) -> Secondary:
        storage = open_file_storage(self.folder / f"secondary{number}")
        return Secondary(
            storage,
            _ADDRESS,
            self.network,
            transport="memory",
            reconnect_delay=1.0,
            durability="none",
            **options,
        )

    # -- what is done to the primary

    @initialize()
    def begin(self) -> None:
        """A FileStorage whose transactions are all empty cannot be opened again (ZODB 6.4)."""
        self.commit_one(dict.fromkeys(_FIRST[:4], b"first"), dict.fromkeys(_FIRST[4:], 5))

    @rule(changes=st.lists(changes, min_size=1, max_size=4))
    def commit(self, changes: list[dict[str, Any]]) -> None:
        for change in changes:
            self.commit_one(**change)

    def commit_one(
        self,
        records: dict[bytes, bytes],
        blobs: dict[bytes, int],
        user: bytes = b"",
        description: bytes = b"",
        extension: dict[str, object] | None = None,
    ) -> None:
        metadata = TransactionMetaData(user, description, extension)
        made = {}
        self.primary.tpc_begin(metadata, self.next_tid())
        for oid, data in records.items():
            self.primary.store(oid, self.serial(oid), data, "", metadata)
            made[oid] = Record(data)
        for oid, size in blobs.items():
            content = bytes(size)
            path = self.folder / "uncommitted"
            path.write_bytes(content)
            self.primary.storeBlob(oid, self.serial(oid), _BLOB, str(path), "", metadata)
            made[oid] = Record(_BLOB, content)
        self.finish(metadata, made)

    def next_tid(self) -> bytes:
        """A second after the last one: what hypothesis makes must not depend on the clock."""
        last = TimeStamp(self.history[-1].tid).timeTime() if self.history else _BEGINNING
        return TimeStamp(*time.gmtime(last + 1)[:6]).raw()

    def serial(self, oid: bytes) -> bytes:
        """The tid of an object's last revision, be it that its creation was undone."""
        return next((each.tid for each in reversed(self.history) if oid in each.records), z64)

    def finish(self, metadata: TransactionMetaData, made: dict[bytes, Record]) -> None:
        self.primary.tpc_vote(metadata)
        tid = self.primary.tpc_finish(metadata)
        stored = metadata.extension_bytes
        self.history.append(Committed(tid, metadata.user, metadata.description, stored, made))

    @precondition(lambda self: self.undoable())
    @rule()
    def undo(self) -> None:
        """Undo the last transaction."""
        last = self.history[-1]
        before = {oid: self.record_before(oid) for oid in last.records}
        metadata = TransactionMetaData(b"", b"undo")
        self.primary.tpc_begin(metadata, self.next_tid())
        self.primary.undo(encodebytes(last.tid), metadata)
        self.finish(metadata, {oid: Record(each.data, each.blob) for oid, each in before.items()})

    def record_before(self, oid: bytes) -> Record:
        """An object's last record before the last transaction."""
        before = (each.records[oid] for each in self.history[-2::-1] if oid in each.records)
        return next(before, Record(None))

    def undoable(self) -> bool:
        """Whether the last transaction can be undone: no pack has taken away what that needs."""
        if len(self.history) == 1 or self.history[-1].tid <= self.packed:
            return False
        records = self.history[-1].records
        return bool(records) and not any(self.record_before(oid).gone for oid in records)

    @rule(to=st.integers(0, 100))
    def pack(self, to: int) -> None:
        """Pack to the time of some transaction."""
        tid = self.history[to % len(self.history)].tid
        self.primary.pack(TimeStamp(tid).timeTime() + 0.5, _references)
        left = {each.tid: each for each in contents(self.primary)}
        for each in self.history:
            each.gone = each.tid not in left
            kept = set() if each.gone else {record[0] for record in left[each.tid].records}
            for oid, record in each.records.items():
                record.gone = oid not in kept
        self.packed = max(self.packed, tid)

    @rule()
    def restart_primary(self) -> None:
        self.primary.close()
        self.network.cut()
        self.primary = self.open_primary()

    # -- what is done to the network and to the secondaries

    @rule(size=st.sampled_from([1, 3, 40, 400, 65_536, 300_000]), steps=st.integers(1, 20))
    def deliver(self, size: int, steps: int) -> None:
        self.network.chunk_size = size
        for _ in range(steps):
            self.network.step()

    @rule()
    def cut(self) -> None:
        self.network.cut()

    @rule(seconds=st.sampled_from([0.5, 1.0, 5.0]))
    def time_passes(self, seconds: float) -> None:
        self.network.advance(seconds)

    @rule(number=st.sampled_from(_SECONDARIES))
    def restart_secondary(self, number: int) -> None:
        self.secondaries[number].close()
        left = temporary_files(self.folder / f"secondary{number}" / "blobs")
        # That one is ZODB's own: what the last pack has taken out.
        assert set(left) <= {".removed"}
        self.secondaries[number] = self.open_secondary(number)

    @rule(number=st.sampled_from(_SECONDARIES))
    def pack_secondary(self, number: int) -> None:
        """To a time before all transactions: it takes nothing out, but writes the file anew."""
        secondary = self.secondaries[number]
        # It waits for the end of a transaction, and here there is one thread.
        if not secondary.progress.unfinished:
            secondary.pack(TimeStamp(self.history[0].tid).timeTime() - 0.5, _references)

    @rule()
    def catch_up(self) -> None:
        self.network.chunk_size = 65_536
        self.let_all_connect()
        for number in _SECONDARIES:
            if self.secondaries[number].progress.state is not State.REPLICATING:
                self.do_as_the_error_says(number)
            tid = self.secondaries[number].lastTransaction()
            assert all(each.gone for each in self.history if each.tid > tid)
            self.check_contents(number)

    def let_all_connect(self) -> None:
        for _ in range(3):
            self.network.run()
            self.network.advance(10.0)
        # Who was refused, as it looked, when the primary closed, knows by then that it is served.
        self.network.advance(ANSWER_TIME)
        self.network.run()
        for _ in range(2 * MAX_PROBES):
            if not any(each.progress.searching for each in self.secondaries):
                break
            self.network.advance(2.0)
            self.network.run()

    def do_as_the_error_says(self, number: int) -> None:
        """A pack has removed what the secondary has as its last one, and cannot be told from that.

        Connect once without comparing; if the primary was opened again since the pack, it cannot
        vouch for it: then replicate into an empty storage.
        """
        self.check_last_is_gone(number)
        assert self.secondaries[number].progress.state is State.DIVERGED
        self.secondaries[number].close()
        self.secondaries[number] = self.open_secondary(number, max_compared_size=0)
        self.let_all_connect()
        if self.secondaries[number].progress.state is not State.REPLICATING:
            self.check_last_is_gone(number)
            assert self.secondaries[number].progress.state in (State.REFUSED, State.DIVERGED)
            self.secondaries[number].close()
            shutil.rmtree(self.folder / f"secondary{number}")
            self.seen[number] = z64
            self.secondaries[number] = self.open_secondary(number)
            self.let_all_connect()
        assert self.secondaries[number].progress.state is State.REPLICATING

    def check_last_is_gone(self, number: int) -> None:
        tid = self.secondaries[number].lastTransaction()
        assert [each.gone for each in self.history if each.tid == tid] == [True]

    # -- what must hold

    def last_tid(self) -> bytes:
        return self.history[-1].tid

    @invariant()
    def what_was_seen_stays_and_is_no_more_than_there_is(self) -> None:
        for number, secondary in enumerate(self.secondaries):
            tid = secondary.lastTransaction()
            assert self.seen[number] <= tid <= self.last_tid()
            if tid != self.seen[number]:
                self.seen[number] = tid
                self.check_contents(number)

    def check_contents(self, number: int) -> None:
        """A secondary holds the list up to its last transaction, whole and without a gap."""
        tid = self.secondaries[number].lastTransaction()
        found = {each.tid: each for each in contents(self.secondaries[number])}
        assert list(found) == sorted(found)
        expected = [each for each in self.history if each.tid <= tid]
        assert found.keys() <= {each.tid for each in expected}
        for each in expected:
            if each.tid in found:
                _check_transaction(found[each.tid], each)
            else:
                assert each.gone

    def teardown(self) -> None:
        try:
            self.catch_up()
        finally:
            for storage in (*self.secondaries, self.primary):
                storage.close()
            shutil.rmtree(self.folder)


def _check_transaction(found: Stored, expected: Committed) -> None:
    assert (found.user, found.description) == (expected.user, expected.description)
    assert found.extension == expected.extension
    there = {record[0]: record for record in found.records}
    assert len(there) == len(found.records)
    assert there.keys() <= expected.records.keys()
    for oid, record in expected.records.items():
        if oid in there:
            assert there[oid][1] == expected.tid
            assert there[oid][2] == record.data
            assert there[oid][4] == record.blob
        else:
            assert record.gone
