"""References of records: those that ZODB finds, and nothing is executed."""

from __future__ import annotations

import contextlib
import pickle
import pickletools
import random
import zlib

import pytest
import ZODB
from BTrees.OOBTree import OOBTree
from persistent.mapping import PersistentMapping
from persistent.wref import WeakRef
from transaction import get as get_transaction
from ZODB.blob import Blob
from ZODB.FileStorage import FileStorage
from ZODB.MappingStorage import MappingStorage
from ZODB.serialize import referencesf
from ZODB.utils import p64

from tests.databases import open_file_storage
from tests.storage.relstorages import open_on_sqlite
from tests.storage.test_compare import commit_records
from tests.verify.conftest import Database, verified
from zrs_core.errors import ConfigurationError
from zrs_core.tools.verify.references import BadRecord, references
from zrs_core.tools.verify.sources import Source


def test_as_zodb_finds_them():
    db = ZODB.DB(MappingStorage())
    with db.transaction() as connection:
        root = connection.root()
        for number in range(20):
            child = PersistentMapping()
            root[number] = PersistentMapping(
                child=child, weak=WeakRef(child), values=[1, 2.5, None, "x", b"12345678", (1, 2)]
            )
        root["tree"] = OOBTree({str(number): PersistentMapping() for number in range(100)})
    count = 0
    for transaction in db.storage.iterator():
        for record in transaction:
            assert references(record.data) == set(referencesf(record.data))
            count += 1
    assert count > 140
    db.close()


VALUES = [
    *(1, 300, 70_000, 2**40, 2**3000, -5, 1.5, "x", "y" * 300, b"z" * 400, b"12345678", None, True),
    *((), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), {1, 2}, frozenset([3]), {"a": [1, False]}),
    *(bytearray(b"x"), pickle.Pickler, random.Random(3), "\ud800", object()),
]


@pytest.mark.parametrize("protocol", range(6))
def test_every_opcode_that_python_writes(protocol):
    data = pickle.dumps(VALUES, protocol)
    assert references(data + data) == set()
    for end in range(1, len(data), 43):
        with pytest.raises(BadRecord):
            references(data[:end])


def test_the_stack_of_each_opcode():
    """It is as high after a pickle as an unpickler's would be: an opcode more finds nothing."""
    for protocol in range(6):
        data = pickle.dumps(VALUES, protocol)
        with pytest.raises(BadRecord):
            references(data[:-1] + b"00.")


OID = b"\0\0\0\0\0\0\0\x07"


@pytest.mark.parametrize(
    ("pickled", "found"),
    [
        (b"U\x08" + OID + b"Q.", {OID}),
        (b"C\x08" + OID + b"Nt", None),
        (b"(U\x08" + OID + b"c__main__\nX\ntQ.", {OID}),
        (b"U\x08" + OID + b"N\x86Q.", {OID}),
        (b"T\x08\0\0\0" + OID + b"q\x01h\x01\x85Q0h\x01Q.", {OID}),
        (b"U\x08" + OID + b"p12\n0g12\nQ.", {OID}),
        (b"U\x08" + OID + b"2\x86Q.", {OID}),
        (b"U\x08" + OID + b"\x940h\0Q.", {OID}),
        # Weak, or in another database.
        (b"](U\x01w(U\x08" + OID + b"teQ.", set()),
        (b"](U\x01m(U\x05otherU\x08" + OID + b"NeQ.", set()),
        # No oids at all.
        (b"U\x07" + OID[1:] + b"Q.", set()),
        (b"NQ.", set()),
        (b"P7\n.", set()),
        (b"(c__main__\nX\nU\x08" + OID + b"Qo.", {OID}),
        (b"(N0U\x08" + OID + b"Qt.", {OID}),
        (b"(0N.", set()),
    ],
)
def test_references(pickled, found):
    if found is None:
        with pytest.raises(BadRecord):
            references(pickled)
    else:
        assert references(pickled) == found


@pytest.mark.parametrize(
    "data",
    [
        *(b".", b"(", b"Q.", b"\x80", b"h\1.", b"N", b"B\xff\xff\xff\xff.", b"T\xff\xff\xff\xff."),
        *(b"t.", b"\xff", b"I1", b"cposix\nsystem", b"g\n.", b"0.", b"2.", b"1."),
    ],
)
def test_what_is_no_record(data):
    with pytest.raises(BadRecord, match="there is no pickle at byte 0 of it"):
        references(data)


def test_nothing_is_executed(tmp_path):
    canary = tmp_path / "canary"
    path = str(canary).encode()
    data = b"cposix\nmkdir\n(U%c%stR." % (len(path), path)
    assert references(data) == set()
    pickle.loads(data)
    assert canary.exists()
    canary.rmdir()
    assert references(data) == set()
    # And no number takes memory.
    assert references(b"Nr\0\0\0\x7f0j\0\0\0\x7f.") == set()
    assert not canary.exists()


def test_any_bytes():
    chance = random.Random(1)
    codes = [ord(each.code) for each in pickletools.opcodes]
    for _ in range(3000):
        data = bytes(chance.choice([*codes, 0, 1, 10]) for _ in range(chance.randrange(30)))
        with contextlib.suppress(BadRecord):
            references(data)


@pytest.fixture
def dangling(tmp_path):
    """A database whose root refers to an object that is not there."""

    def record(*oids):
        state = b"".join(b"U\x08%sQ" % oid for oid in oids)
        return b"cpersistent.mapping\nPersistentMapping\n.(%st." % state

    def make(compress=lambda data: data):
        commit_records(
            tmp_path / "Data.fs",
            (p64(0), compress(record(p64(1), p64(2)))),
            (p64(1), compress(record(p64(0), p64(77)))),
            (p64(2), compress(record())),
        )
        return Database(tmp_path)

    return make


def test_dangling_references(dangling):
    database = dangling()
    assert verified(database, database).equal
    report = verified(database, database, deep=True)
    assert report.counts == {"dangling reference": 2}
    one, other = report.differences
    assert (one.oid, other.oid) == (p64(1), p64(1))
    assert one.text == "refers to object 0x000000000000004d, which is not in A"
    assert other.text == "refers to object 0x000000000000004d, which is not in B"
    assert verified(database, database, deep=True, current=True).counts == report.counts


def test_compressed_records(dangling, monkeypatch):
    database = dangling(lambda data: b".z" + zlib.compress(data))
    assert verified(database, database, deep=True).counts == {"dangling reference": 2}
    monkeypatch.setattr("zrs_core.tools.verify.dangling._MOST", 10)
    report = verified(database, database, deep=True)
    assert report.counts == {"unreadable record": 6}
    assert "it has more than 10 bytes when it is decompressed" in report.differences[0].text


def test_records_that_cannot_be_read(tmp_path):
    commit_records(tmp_path / "Data.fs", (p64(0), b"no pickle"))
    database = Database(tmp_path)
    (one, _) = verified(database, database, deep=True).differences
    assert one.name == "unreadable record"
    assert one.text == "its record in A cannot be read: there is no pickle at byte 0 of it"


def test_a_blob_that_is_on_neither_side(tmp_path):
    (tmp_path / "it").mkdir()
    db = ZODB.DB(open_file_storage(tmp_path / "it"))
    with db.transaction() as connection:
        connection.root()["blob"] = Blob(b"x")
    db.close()
    database = Database(tmp_path / "it")
    assert verified(database, database, deep=True).equal
    (blob,) = database.all_blobs()
    blob.unlink()
    assert verified(database, database).equal
    report = verified(database, database, deep=True)
    assert report.counts == {"dangling reference": 2}
    assert report.differences[0].text == "its blob is not in A"


def test_open_storages(dangling):
    database = dangling()
    source = Source("it", open=lambda: FileStorage(str(database.path), read_only=True))
    report = verified(source, database, deep=True)
    assert report.transactions == 1
    assert report.counts == {"dangling reference": 2}
    source = Source("mapping", open=MappingStorage)
    with pytest.raises(ConfigurationError, match="the references in B cannot be looked at"):
        verified(database, source, deep=True)
    assert verified(database, source).counts == {"missing transaction": 1}


def empty_filestorage(path):
    file = path / "Empty.fs"
    return FileStorage(str(file), read_only=file.exists())


@pytest.mark.parametrize("open_empty", [empty_filestorage, open_on_sqlite])
def test_an_empty_storage(dangling, tmp_path, open_empty):
    """Nothing dangles in it; a RelStorage raises StopIteration, a FileStorage ValueError."""
    database = dangling()
    (tmp_path / "empty").mkdir()
    empty = Source("empty", open=lambda: open_empty(tmp_path / "empty"))
    for one, other, kind in ((database, empty, "missing"), (empty, database, "extra")):
        counts = verified(one, other, deep=True).counts
        assert counts == {f"{kind} transaction": 1, "dangling reference": 1}
    assert verified(empty, empty, deep=True).equal


def test_an_undone_creation_in_an_open_storage(tmp_path):
    (tmp_path / "it").mkdir()
    source = Source("it", open=lambda: open_on_sqlite(tmp_path / "it"))
    db = ZODB.DB(source.open())
    with db.transaction() as connection:
        connection.root()["child"] = PersistentMapping()
    db.undo(db.undoInfo(0, 1)[0]["id"])
    get_transaction().commit()
    db.close()
    assert verified(source, source, deep=True).equal
