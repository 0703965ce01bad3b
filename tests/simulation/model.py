"""What the primary has committed, and whether others hold a gap-free beginning of it."""

from __future__ import annotations

import pickle
from bisect import bisect_right
from typing import Any, NamedTuple

from .reading import Transaction

NO_TID = b"\0" * 8


class Broken(Exception):
    """An invariant does not hold."""


class History:
    """All transactions whose `tpc_finish` has returned, with the records that they had then.

    A backup that is restored makes a new one, which has a beginning in common with the one before.
    """

    def __init__(self, transactions: list[Transaction] | None = None) -> None:
        self.transactions = transactions or []
        self.places = {each.tid: place for place, each in enumerate(self.transactions)}

    def append(self, transaction: Transaction) -> None:
        self.places[transaction.tid] = len(self.transactions)
        self.transactions.append(transaction)

    @property
    def last_tid(self) -> bytes:
        return self.transactions[-1].tid if self.transactions else NO_TID

    def until(self, tid: bytes) -> History:
        place = bisect_right(self.transactions, tid, key=lambda each: each.tid)
        return History(self.transactions[:place])


class Allowed(NamedTuple):
    """What may differ from the history."""

    #: Up to here a pack may have removed transactions, records and back-pointers.
    packed_to: bytes
    #: Whether any pack has made data of back-pointers, or another order of them.
    packed: bool
    #: Whether extensions came as protocol 1 has them: the same objects, and other bytes.
    pickled_again: bool
    #: Blobs whose files the primary has lost, by object and transaction.
    missing_blobs: dict[tuple[bytes, bytes], bool]


def check_continues(
    history: History, before: bytes, found: list[Transaction], allowed: Allowed
) -> None:
    """Whether `found` goes on in the history where the transaction `before` was the last.

    :raises Broken: it does not.
    """
    place = 0
    if before != NO_TID:
        if before not in history.places:
            raise Broken(f"transaction {before.hex()} is of another history")
        place = history.places[before] + 1
    for transaction in found:
        there = history.places.get(transaction.tid)
        name = transaction.tid.hex()
        if there is None:
            raise Broken(f"transaction {name} is not in the history")
        if there < place:
            raise Broken(f"transaction {name} is there again, or out of order")
        for skipped in history.transactions[place:there]:
            if skipped.tid > allowed.packed_to:
                raise Broken(f"transaction {skipped.tid.hex()} is missing before {name}")
        _check_same(history.transactions[there], transaction, allowed)
        place = there + 1


def _check_same(expected: Transaction, found: Transaction, allowed: Allowed) -> None:
    name = f"transaction {found.tid.hex()}"
    if allowed.pickled_again:
        expected = expected._replace(extension=_loaded(expected.extension))
        found = found._replace(extension=_loaded(found.extension))
    if found[2:5] != expected[2:5]:
        raise Broken(f"{name} has other texts: {found[2:5]}, not {expected[2:5]}")
    packed = found.tid <= allowed.packed_to
    if found.status != expected.status and not (packed and found.status == "p"):
        raise Broken(f"{name} has the status {found.status!r}, not {expected.status!r}")
    ours = [(each.oid, each.data) for each in expected.records]
    theirs = [(each.oid, each.data) for each in found.records]
    if packed:
        if any(each not in ours for each in theirs):
            raise Broken(f"{name} has a record that it never had")
    elif ours != theirs:
        raise Broken(f"{name} has {_names(theirs)}, not {_names(ours)}")
    elif not allowed.packed:
        pointers = [each.data_txn for each in expected.records]
        if [each.data_txn for each in found.records] != pointers:
            raise Broken(f"{name} has other back-pointers")
    blobs = {each.oid: each.blob for each in expected.records}
    for each in found.records:
        blob = blobs[each.oid]
        if each.blob == blob or (each.blob is None and not each.data):
            continue
        if each.blob is None and (each.oid, found.tid) in allowed.missing_blobs:
            continue
        raise Broken(
            f"{name} has a blob of object {each.oid.hex()} of {_size(each.blob)}, "
            f"not of {_size(blob)}"
        )


def _loaded(extension: bytes) -> Any:
    return pickle.loads(extension) if extension else {}


def _size(blob: bytes | None) -> str:
    return "no size" if blob is None else f"{len(blob)} bytes"


def _names(records: list[tuple[bytes, bytes]]) -> str:
    return ", ".join(f"{oid.hex()[-4:]}:{len(data)}" for oid, data in records) or "nothing"
