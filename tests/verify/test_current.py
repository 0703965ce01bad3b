"""The current records of two sides, compared object by object."""

from __future__ import annotations

import pytest

from zrs_core.storage.sides import BlobDigest
from zrs_core.tools.verify.current import Current, CurrentPair
from zrs_core.tools.verify.references import BadRecord

ROOT, OID, OTHER = (bytes(7) + bytes([number]) for number in range(3))
TID, LATER = b"\3" + bytes(7), b"\4" + bytes(7)

RECORD = Current(OID, TID, 100, b"digest", False)
BLOB = Current(OTHER, TID, 10, b"digest", True)


class Objects:
    """Current objects that are given by hand; by default all are reachable."""

    def __init__(self, *found, blobs=None, reachable=None):
        self._found = found
        self._blobs = blobs or {}
        self._reachable = reachable

    def current(self):
        return iter(sorted(self._found))

    def blob_digest(self, current):
        return self._blobs.get(current.oid)

    def reachable(self):
        if self._reachable is None:
            raise BadRecord("the root cannot be read")
        return self._reachable


def compared(ours, theirs, blobs=True):
    pair = CurrentPair(ours, theirs, blobs=blobs)
    steps = []
    found = [(each.name, each.oid, each.text) for each in pair.differences(lambda: steps.append(1))]
    assert steps
    return pair, found


def test_what_is_counted():
    digest = {OTHER: BlobDigest(1000, b"digest")}
    pair, found = compared(Objects(RECORD, BLOB, blobs=digest), Objects(RECORD, BLOB, blobs=digest))
    assert found == []
    assert (pair.records, pair.bytes, pair.blobs, pair.garbage) == (2, 1110, 1, 0)
    assert pair.keys == []
    pair, found = compared(Objects(RECORD, BLOB), Objects(RECORD, BLOB), blobs=False)
    assert (pair.records, pair.bytes, pair.blobs, pair.keys) == (2, 110, 0, [(TID, OTHER)])


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"tid": LATER}, f"its current record is of 0x{TID.hex()} in A, 0x{LATER.hex()} in B"),
        ({"digest": b"another"}, "the data differ"),
    ],
)
def test_another_record(change, text):
    _, found = compared(Objects(RECORD), Objects(RECORD._replace(**change)))
    assert found == [("record", OID, text)]


@pytest.mark.parametrize(
    ("ours", "theirs", "difference"),
    [
        ((5, b"x"), (6, b"y"), ("blob", "the blob's size is 5 in A, 6 in B")),
        ((5, b"x"), (5, b"y"), ("blob", "the blobs differ")),
        (None, (5, b"x"), ("extra blob", "A has no blob")),
        ((5, b"x"), None, ("missing blob", "B has no blob")),
        (None, None, None),
    ],
)
def test_another_blob(ours, theirs, difference):
    sides = [
        Objects(BLOB, blobs=None if each is None else {OTHER: BlobDigest(*each)})
        for each in (ours, theirs)
    ]
    pair, found = compared(*sides)
    assert found == ([] if difference is None else [(difference[0], OTHER, difference[1])])
    assert pair.blobs == (ours is not None)


def test_an_object_that_one_side_alone_has():
    one, both = Objects(RECORD), Objects(RECORD, BLOB)
    assert compared(both, one)[1] == [("missing record", OTHER, "is not in B")]
    assert compared(one, both)[1] == [("extra record", OTHER, "is not in A")]
    reached = Objects(RECORD, BLOB, reachable={ROOT, OTHER})
    assert compared(reached, one)[1] == [("missing record", OTHER, "is not in B")]
    garbage = Objects(RECORD, BLOB, reachable={ROOT, OID})
    for sides in ((garbage, one), (one, garbage)):
        pair, found = compared(*sides)
        assert found == []
        assert (pair.records, pair.garbage) == (1, 1)
