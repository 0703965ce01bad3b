import dataclasses

import pytest

from zrs_core.errors import InvalidMessage
from zrs_core.messages import (
    BLOB_BLOCK_SIZE,
    MAX_BLOB_BLOCKS,
    MAX_METADATA_SIZE,
    MAX_TID,
    NO_TID,
    BlobBlock,
    Commit,
    Hello,
    KeepAlive,
    Start,
    Store,
    StoreBlob,
    Transaction,
    unchecked_store,
    unchecked_transaction,
)

TID = b"\x03tid-one"
OID = b"oid-one!"
LONGEST = b"x" * MAX_METADATA_SIZE
TOO_LONG = LONGEST + b"x"


@pytest.mark.parametrize(
    "message",
    [
        Hello("zrs2.1"),
        Hello("x"),
        Hello("12345678"),
        Start(NO_TID),
        KeepAlive(),
        Transaction(TID),
        Transaction(TID, "p", LONGEST, LONGEST, LONGEST),
        Transaction(TID, "u"),
        Store(OID, TID),
        Store(OID, TID, b"data", NO_TID),
        StoreBlob(OID, TID, b"data", None, 0),
        StoreBlob(OID, TID, b"", NO_TID, MAX_BLOB_BLOCKS),
        BlobBlock(b"x"),
        BlobBlock(b"x" * BLOB_BLOCK_SIZE),
        Commit(),
        Commit(b"0123456789abcdef"),
    ],
)
def test_a_valid_message_is_immutable_hashable_and_equals_its_copy(message):
    fields = {f.name: getattr(message, f.name) for f in dataclasses.fields(message)}
    copy = type(message)(**fields)
    assert copy == message
    assert hash(copy) == hash(message)
    assert not hasattr(message, "__dict__")
    for name in fields:
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(message, name, None)


def test_commits_compare_equal_whatever_their_checksums():
    assert Commit(b"0123456789abcdef") == Commit()


class Text(str):
    pass


class Bytes(bytes):
    pass


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (lambda: Hello(b"zrs2.1"), "protocol must be str, not bytes"),
        (lambda: Hello(Text("zrs2.1")), "protocol must be str, not Text"),
        (lambda: Hello(""), "protocol must be 1 to 8 ASCII characters, not ''"),
        (lambda: Hello("123456789"), "protocol must be 1 to 8 ASCII characters, not '123456789'"),
        (lambda: Hello("zrsé"), "protocol must be 1 to 8 ASCII characters, not 'zrsé'"),
        (
            lambda: Hello("x" * 1000),
            "protocol must be 1 to 8 ASCII characters, not 'xxxxxxxxxxxxxxxx'... (1000 long)",
        ),
        (lambda: Start(b"1234567"), "tid must be 8 bytes, not b'1234567'"),
        (lambda: Start("12345678"), "tid must be 8 bytes, not '12345678'"),
        (lambda: Start(None), "tid must be 8 bytes, not None"),
        (lambda: Start(17), "tid must be 8 bytes, not 17"),
        (lambda: Start(2**64), "tid must be 8 bytes, not a value of type int"),
        (lambda: Start([]), "tid must be 8 bytes, not a value of type list"),
        (lambda: Start(Bytes(TID)), "tid must be 8 bytes, not b'\\x03tid-one'"),
        (lambda: Start(bytearray(8)), "tid must be 8 bytes, not a value of type bytearray"),
        (
            lambda: Start(b"x" * 17),
            "tid must be 8 bytes, not b'xxxxxxxxxxxxxxxx'... (17 long)",
        ),
        (lambda: Transaction(b""), "tid must be 8 bytes, not b''"),
        (lambda: Transaction(TID, "c"), "status must be ' ', 'p' or 'u', not 'c'"),
        (lambda: Transaction(TID, b" "), "status must be ' ', 'p' or 'u', not b' '"),
        (lambda: Transaction(TID, ""), "status must be ' ', 'p' or 'u', not ''"),
        (lambda: Transaction(TID, " ", "user"), "user must be bytes, not str"),
        (lambda: Transaction(TID, " ", b"", None), "description must be bytes, not NoneType"),
        (lambda: Transaction(TID, " ", b"", b"", {}), "extension must be bytes, not dict"),
        (lambda: Transaction(TID, " ", TOO_LONG), "user has 65536 bytes, more than 65535"),
        (
            lambda: Transaction(TID, " ", b"", TOO_LONG),
            "description has 65536 bytes, more than 65535",
        ),
        (
            lambda: Transaction(TID, " ", b"", b"", TOO_LONG),
            "extension has 65536 bytes, more than 65535",
        ),
        (lambda: Store(b"oid", TID), "oid must be 8 bytes, not b'oid'"),
        (lambda: Store(OID, b""), "serial must be 8 bytes, not b''"),
        (lambda: Store(OID, TID, None), "data must be bytes, not NoneType"),
        (lambda: Store(OID, TID, b"", b"tid"), "data_txn must be 8 bytes, not b'tid'"),
        (lambda: StoreBlob(b"oid", TID, b"", None, 0), "oid must be 8 bytes, not b'oid'"),
        (lambda: StoreBlob(OID, b"", b"", None, 0), "serial must be 8 bytes, not b''"),
        (lambda: StoreBlob(OID, TID, None, None, 0), "data must be bytes, not NoneType"),
        (lambda: StoreBlob(OID, TID, b"", b"", 0), "data_txn must be 8 bytes, not b''"),
        (
            lambda: StoreBlob(OID, TID, b"", None, -1),
            "blocks must be a number from 0 to 4294967295, not -1",
        ),
        (
            lambda: StoreBlob(OID, TID, b"", None, 2**32),
            "blocks must be a number from 0 to 4294967295, not 4294967296",
        ),
        (
            lambda: StoreBlob(OID, TID, b"", None, True),
            "blocks must be a number from 0 to 4294967295, not True",
        ),
        (
            lambda: StoreBlob(OID, TID, b"", None, 1.0),
            "blocks must be a number from 0 to 4294967295, not a value of type float",
        ),
        (lambda: BlobBlock("x"), "data must be bytes, not str"),
        (lambda: BlobBlock(b""), "a blob block has 1 to 65536 bytes, not 0"),
        (lambda: BlobBlock(bytes(65537)), "a blob block has 1 to 65536 bytes, not 65537"),
        (lambda: Commit(b"short"), "checksum must be 16 bytes, not b'short'"),
        (lambda: Commit("0123456789abcdef"), "checksum must be bytes, not str"),
    ],
)
def test_a_field_that_breaks_the_schema_is_refused_by_name(build, reason):
    with pytest.raises(InvalidMessage) as caught:
        build()
    assert str(caught.value) == reason


def test_no_transaction_is_above_the_highest_tid():
    assert Transaction(MAX_TID).tid == MAX_TID
    for tid in (b"\x80" + bytes(7), b"\xff" * 8):
        with pytest.raises(InvalidMessage, match=f"tid 0x{tid.hex()} is above the highest"):
            Transaction(tid)


def test_an_unchecked_record_is_the_same_as_a_checked_one():
    fields = (b"oid-one!", b"serial-1", b"data", None)
    store = unchecked_store(*fields)
    assert store == Store(*fields)
    assert hash(store) == hash(Store(*fields))
    with pytest.raises(AttributeError):
        store.data = b""


def test_an_unchecked_transaction_is_the_same_as_a_checked_one():
    fields = (TID, "p", b"jim", b"an example")
    transaction = unchecked_transaction(*fields)
    assert transaction == Transaction(*fields)
    assert hash(transaction) == hash(Transaction(*fields))
    with pytest.raises(AttributeError):
        transaction.user = b""
