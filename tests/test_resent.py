"""What is sent again of a transaction that is held, and what of it is a divergence."""

from __future__ import annotations

import datetime
import io
import pickle
from typing import Any

import pytest

from zrs_core.errors import OtherHistory
from zrs_core.held import HeldTransaction, digest
from zrs_core.messages import BLOB_BLOCK_SIZE, BlobBlock, Commit, Store, StoreBlob, Transaction
from zrs_core.resent import Resent


def number(value):
    return value.to_bytes(8, "big")


BEFORE, TID, AFTER = number(10), number(20), number(30)
ONE, TWO = number(1), number(2)
RECORDS = {ONE: b"one", TWO: b"two"}


def held(records=RECORDS, blobs: dict[bytes, bytes] | None = None, gaps=False, **header: Any):
    blobs = blobs or {}
    return HeldTransaction(
        BEFORE,
        gaps,
        Transaction(TID, **header),
        {oid: digest(data) for oid, data in records.items()},
        lambda oid: io.BytesIO(blobs[oid]) if oid in blobs else None,
    )


def sent(records=RECORDS, tid=TID, **header: Any):
    return [
        Transaction(tid, **header),
        *(Store(oid, tid, data) for oid, data in records.items()),
        Commit(),
    ]


def sent_blob(blob, tid=TID):
    blocks = [blob[at : at + BLOB_BLOCK_SIZE] for at in range(0, len(blob), BLOB_BLOCK_SIZE)]
    return [
        Transaction(tid),
        StoreBlob(ONE, tid, b"blob", None, len(blocks)),
        *map(BlobBlock, blocks),
        Commit(),
    ]


def compare(held, *messages):
    """The remarks of a comparison that all messages belong to, and that is over with them."""
    resent = Resent(held)
    for message in messages:
        assert not resent.over
        assert resent.take(message)
    assert resent.over
    resent.close()
    return resent.remarks


def difference(held, *messages):
    """Return the difference, which is raised at the end of the last message's transaction."""
    resent = Resent(held)
    if not isinstance(messages[-1], Commit):
        messages = (*messages, Commit())
    for message in messages[:-1]:
        assert resent.take(message)
    with pytest.raises(OtherHistory) as caught:
        resent.take(messages[-1])
    assert not resent.over
    resent.close()
    error = caught.value
    assert (error.before, error.last) == (BEFORE, TID)
    for tid in (BEFORE, TID, error.sent):
        assert f"0x{tid.hex()}" in str(error)
    return error.sent, error.what


class TestEqual:
    def test_the_same(self):
        assert compare(held(), *sent()) == []

    def test_no_records(self):
        assert compare(held({}), *sent({})) == []

    def test_what_a_record_points_back_to_is_a_hint(self):
        again = Store(ONE, TID, b"one", BEFORE)
        assert compare(held({ONE: b"one"}), Transaction(TID), again, Commit()) == []

    def test_of_several_records_of_an_object_the_last_one_counts(self):
        earlier = Store(ONE, TID, b"zero")
        assert compare(held(), Transaction(TID), earlier, *sent()[1:]) == []

    @pytest.mark.parametrize("size", [0, 1, BLOB_BLOCK_SIZE, BLOB_BLOCK_SIZE + 1])
    def test_a_blob(self, size):
        blob = b"x" * size
        assert compare(held({ONE: b"blob"}, {ONE: blob}), *sent_blob(blob)) == []

    def test_a_blob_that_is_missing_here_or_there(self):
        assert compare(held({ONE: b"blob"}), *sent_blob(b"a blob")) == [
            "the blob of object 0x0000000000000001 is missing here"
        ]
        assert compare(held({ONE: b"blob"}, {ONE: b"a blob"}), *sent({ONE: b"blob"})) == []

    def test_the_records_of_an_undone_transaction_are_void(self):
        assert compare(held({}, status="u"), *sent(status="u")) == []


class TestDifferent:
    @pytest.mark.parametrize(
        ("header", "what"),
        [
            ({"user": b"somebody"}, "with another user"),
            ({"description": b"something"}, "with another description"),
            ({"status": "u"}, "with another status"),
            ({"extension": pickle.dumps({"a": 1}, 3)}, "with another extension"),
        ],
    )
    def test_headers(self, header, what):
        assert difference(held(), *sent(**header)[:1]) == (TID, what)
        assert difference(held(**header), *sent()[:1]) == (TID, what)

    @pytest.mark.parametrize(
        ("records", "what"),
        [
            ({ONE: b"one", TWO: b"other"}, "with another record of object 0x0000000000000002"),
            ({ONE: b"one", TWO: b""}, "with another record of object 0x0000000000000002"),
            (
                {**RECORDS, AFTER: b""},
                "with a record of object 0x000000000000001e, of which none is held here",
            ),
            (
                {TWO: b"two"},
                "with no record of object 0x0000000000000001, of which one is held here",
            ),
        ],
    )
    def test_records(self, records, what):
        assert difference(held(), *sent(records)) == (TID, what)

    @pytest.mark.parametrize("blob", [b"", b"a blo", b"a blob?", b"A blob", b"x" * 70_000])
    def test_blobs(self, blob):
        messages = sent_blob(blob)
        last = 2 if not blob else 3
        assert difference(held({ONE: b"blob"}, {ONE: b"a blob"}), *messages[:last]) == (
            TID,
            "with another blob of object 0x0000000000000001",
        )

    def test_a_transaction_between_the_two(self):
        between, what = difference(held(), Transaction(number(15)))
        assert between == number(15)
        assert what == "which comes before that and is not held here"

    def test_another_one_instead(self):
        other, what = difference(held(), Transaction(AFTER))
        assert other == AFTER
        assert what.startswith("but not that")


class TestPacked:
    def test_the_primary_keeps_less(self):
        assert compare(held(), *sent({TWO: b"two"}, status="p")) == []

    def test_but_nothing_else(self):
        for records in ({TWO: b"other"}, {AFTER: b"more"}):
            assert difference(held(), *sent(records, status="p"))[0] == TID

    def test_the_primary_has_removed_it(self):
        resent = Resent(held())
        assert not resent.take(Transaction(AFTER, "p"))
        assert resent.over
        assert resent.remarks == ["a pack of the primary may have removed it"]

    def test_others_may_be_removed_here_before_it(self):
        between = number(15)
        it = held(gaps=True)
        assert compare(it, *sent(tid=between), *sent_blob(b"a blob", between), *sent()) == []
        assert difference(it, *sent(tid=between), *sent({}))[0] == TID
        assert difference(it, *sent(tid=between), Transaction(AFTER))[0] == AFTER


class TestExtensions:
    VALUES = {"request": "POST /é", "numbers": [1, 1.5, None, (b"\xff", True)]}

    @pytest.mark.parametrize(("protocol", "other"), [(1, 3), (3, 1), (5, 3), (2, 4)])
    def test_the_same_values_pickled_anew_may_be_the_same(self, protocol, other):
        it = held(extension=pickle.dumps(self.VALUES, protocol))
        again = sent(extension=pickle.dumps(self.VALUES, other))
        assert compare(it, *again) == ["its extension was pickled in another way"]

    def test_other_values_are_not(self):
        it = held(extension=pickle.dumps(self.VALUES, 3))
        for values in ({**self.VALUES, "more": 1}, {"request": "GET /"}):
            [begin, *_] = sent(extension=pickle.dumps(values, 3))
            assert difference(it, begin) == (TID, "with another extension")

    def test_what_only_an_unpickler_could_tell_may_be(self):
        values = {"when": datetime.datetime(2026, 1, 31)}
        it = held(extension=pickle.dumps(values, 3))
        again = sent(extension=pickle.dumps(values, 1))
        assert compare(it, *again) == ["its extension was pickled in another way"]

    def test_what_is_no_pickle_is_not(self):
        [begin, *_] = sent(extension=pickle.dumps(self.VALUES, 3))
        assert difference(held(extension=b"junk"), begin) == (TID, "with another extension")


class TestExtensionsThatAreLeftOut:
    """A primary leaves out what it cannot carry, and may carry it with another pickle protocol."""

    LARGE = pickle.dumps({"a": b"\xff" * 40_000}, 3)

    @pytest.mark.parametrize("extension", [b"junk", LARGE])
    def test_one_end_has_it(self, extension):
        remark = "its extension cannot be carried to every secondary"
        assert compare(held(extension=extension), *sent()) == [remark]
        assert compare(held(), *sent(extension=extension)) == [remark]

    def test_both_have_one(self):
        [begin, *_] = sent(extension=self.LARGE)
        assert difference(held(extension=b"junk"), begin) == (TID, "with another extension")
