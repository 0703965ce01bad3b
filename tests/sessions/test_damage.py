"""Damage on the way while a secondary's last transaction comes again: it is not another history."""

from __future__ import annotations

import hashlib
import io

import pytest
from zope.interface import implementer

from tests.codec.helpers import fast_pickle, framed
from tests.sessions.helpers import connect, make_client
from zrs_core.held import HeldTransaction, digest
from zrs_core.interfaces import IComparableSink
from zrs_core.messages import BlobBlock, Commit, Store, StoreBlob, Transaction
from zrs_core.progress import State
from zrs_core.testing import Sink, stream

BEFORE, TID = (number.to_bytes(8, "big") for number in (1, 2))
OID, BLOB_OID = bytes(8), (1).to_bytes(8, "big")
HEADER = Transaction(TID, " ", b"user", b"note")

SEPARATE = stream(
    [
        HEADER,
        Store(OID, TID, b"record"),
        StoreBlob(BLOB_OID, TID, b"blob record", None, 1),
        BlobBlock(b"a blob"),
        Commit(),
    ],
    BEFORE,
)


def inline(record=b"record", *, checksum=True):
    """The transaction in the older dialect, without its blob."""
    payloads = [
        fast_pickle(("T", (TID, " ", b"user", b"note", {}))),
        fast_pickle(("S", (OID, TID, "", record, None))),
    ]
    md5 = hashlib.md5(BEFORE + b"".join(payloads), usedforsecurity=False).digest()
    return framed(*payloads, fast_pickle(("C", (md5,) if checksum else ())))


INLINE = inline()


@implementer(IComparableSink)
class Held(Sink):
    """A sink that holds the transaction of the streams above."""

    def __init__(self, blob):
        super().__init__()
        self.applied = [Transaction(BEFORE), Commit(), HEADER, Commit()]
        records = {OID: b"record", **({BLOB_OID: b"blob record"} if blob else {})}
        self._records = {oid: digest(data) for oid, data in records.items()}

    def last_transaction(self, limit):
        open_blob = {BLOB_OID: b"a blob"}.get
        return HeldTransaction(
            BEFORE, False, HEADER, self._records, lambda oid: io.BytesIO(open_blob(oid))
        )


def receive(data, *, blob, replication=None, **options):
    """The client of a secondary to which `data` was sent on one connection."""
    replication = replication or make_client(Held(blob), **options)
    session = connect(replication)
    session.receive(data)
    session.stop()
    return replication


def flipped(data):
    """`data` with each of its bits flipped."""
    for place in range(len(data)):
        for bit in range(8):
            yield place, data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :]


@pytest.mark.parametrize("policy", ["verify", "require", "ignore"])
@pytest.mark.parametrize(("data", "blob"), [(SEPARATE, True), (INLINE, False)])
def test_a_flipped_bit_is_no_divergence(data, blob, policy):
    assert receive(data, blob=blob, checksums=policy).progress.failure is None
    failed = 0
    for place, damaged in flipped(data):
        progress = receive(damaged, blob=blob, checksums=policy).progress
        assert progress.state in (State.FAILING, State.CONNECTING), place
        assert "diverged" not in f"{progress.failure}{progress.last_error}", place
        failed += progress.state is State.FAILING
    # Of the others, most make a length that is longer than what has come.
    assert failed > len(data) * 4


@pytest.mark.parametrize(("data", "blob"), [(SEPARATE, True), (INLINE, False)])
def test_it_replicates_again_when_the_same_comes_whole(data, blob, caplog):
    damaged = data.replace(b"note", b"nose")
    replication = receive(damaged, blob=blob)
    assert "checksum" in replication.progress.failure
    assert replication.progress.state is State.FAILING
    session = receive(data, blob=blob, replication=replication)
    assert replication.progress.failure is None
    assert session.progress.failures == 0


def test_ignored_checksums_tell_damage_from_another_history():
    damaged = receive(SEPARATE.replace(b"note", b"nose"), blob=True, checksums="ignore")
    assert damaged.progress.state is State.FAILING
    assert "with another description" in damaged.progress.failure
    assert "damaged on the way" in damaged.progress.failure


OTHERS = {
    "with another user": [Transaction(TID, " ", b"other", b"note"), Store(OID, TID, b"record")],
    "with another record": [HEADER, Store(OID, TID, b"other")],
    "with another blob": [
        HEADER,
        Store(OID, TID, b"record"),
        StoreBlob(BLOB_OID, TID, b"blob record", None, 1),
        BlobBlock(b"other!"),
    ],
    "but not that": [Transaction((3).to_bytes(8, "big"))],
}


@pytest.mark.parametrize("policy", ["verify", "require", "ignore"])
@pytest.mark.parametrize("what", OTHERS)
def test_another_history_counts_when_its_checksum_has_come(what, policy):
    data, whole = (stream([*OTHERS[what], *end], BEFORE) for end in ([], [Commit()]))
    cut = receive(data, blob=what == "with another blob", checksums=policy)
    assert cut.progress.failure is None
    found = receive(whole, blob=what == "with another blob", checksums=policy)
    assert found.progress.state is State.DIVERGED
    assert what in found.progress.failure


@pytest.mark.parametrize("policy", ["verify", "ignore"])
@pytest.mark.parametrize("checksum", [True, False])
def test_another_history_in_the_older_dialect_and_without_checksums(policy, checksum):
    found = receive(inline(b"other", checksum=checksum), blob=False, checksums=policy)
    assert found.progress.state is State.DIVERGED
    assert "with another record" in found.progress.failure
