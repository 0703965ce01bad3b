import pickle

import pytest

from zrs_core.codec import patterns
from zrs_core.codec.opcodes import PickleError
from zrs_core.codec.pickles import WRITERS, RecordHeader, decode
from zrs_core.errors import InvalidMessage
from zrs_core.messages import MAX_TID, Commit, Store, StoreBlob, Transaction

from .helpers import OID, TID, TID_2, fast_pickle, in_python_2, python2_pickle

MD5 = bytes(range(240, 256))
HIGH = bytes(range(248, 256))
LONG = bytes(range(256)) * 255

PLAIN = {"user": "bob", "n": 7, "flag": True, "none": None, "list": ["a", 0.5], "raw": b"\xff"}


#: How a message may be spelled.
SPELLINGS = {
    "Python 3 peer": fast_pickle,
    "Python 2 peer": lambda value: python2_pickle(in_python_2(value)),
    "Python 2 peer, with a memo": lambda value: python2_pickle(in_python_2(value), memo=True),
    **{
        f"Python, protocol {protocol}, {how}": lambda value, dumps=dumps, protocol=protocol: dumps(
            value, protocol
        )
        for protocol in range(6)
        for how, dumps in (("memo", pickle.dumps), ("fast", fast_pickle))
    },
}

#: The value that is pickled, and the message that it is.
MESSAGES = [
    (("T", (TID, " ", b"", b"", {})), Transaction(TID)),
    (
        ("T", (TID, "p", b"user", b"caf\xc3\xa9", {})),
        Transaction(TID, "p", b"user", b"caf\xc3\xa9"),
    ),
    (("T", (MAX_TID, "u", LONG, LONG[::-1], {})), Transaction(MAX_TID, "u", LONG, LONG[::-1])),
    (("T", (TID, " ", TID, TID, {})), Transaction(TID, " ", TID, TID)),
    (("S", (OID, TID, "", None)), RecordHeader(OID, TID, None, None)),
    (("S", (OID, TID, "", TID_2)), RecordHeader(OID, TID, TID_2, None)),
    (("S", (HIGH, HIGH, "", HIGH)), RecordHeader(HIGH, HIGH, HIGH, None)),
    (("S", (OID, TID, "", b"data", None)), Store(OID, TID, b"data")),
    (("S", (OID, TID, "", None, TID_2)), Store(OID, TID, b"", TID_2)),
    (("S", (OID, TID, "", b"", None)), Store(OID, TID)),
    (("B", (OID, TID, "", None, 0)), RecordHeader(OID, TID, None, 0)),
    (("B", (OID, TID, "", TID_2, 255)), RecordHeader(OID, TID, TID_2, 255)),
    (("B", (OID, TID, "", None, 65535)), RecordHeader(OID, TID, None, 65535)),
    (("B", (OID, TID, "", None, 65536)), RecordHeader(OID, TID, None, 65536)),
    (("B", (OID, TID, "", None, 2**31 - 1)), RecordHeader(OID, TID, None, 2**31 - 1)),
    (("B", (OID, TID, "", None, 2**32 - 1)), RecordHeader(OID, TID, None, 2**32 - 1)),
    (("C", (MD5,)), Commit(MD5)),
    (("C", ()), Commit()),
]


@pytest.mark.parametrize("spell", SPELLINGS.values(), ids=SPELLINGS)
@pytest.mark.parametrize(("value", "message"), MESSAGES)
def test_a_message_is_read_in_every_spelling(value, message, spell, monkeypatch):
    payload = spell(value)
    found = decode(payload)
    assert found == message
    assert getattr(found, "checksum", None) == getattr(message, "checksum", None)
    monkeypatch.setattr(patterns, "find", lambda payload: None)
    assert decode(payload) == message


@pytest.mark.parametrize("spell", SPELLINGS.values(), ids=SPELLINGS)
@pytest.mark.parametrize("user", [b"user", b"", b"bob" * 100])
def test_an_extension_is_read_in_every_spelling(user, spell):
    extension = {**PLAIN, "who": user, "again": user}
    found = decode(spell(("T", (TID, "p", user, user, extension))))
    assert (found.tid, found.status, found.user, found.description) == (TID, "p", user, user)
    loaded = pickle.loads(found.extension, encoding="bytes")
    assert loaded in (extension, in_python_2(extension))


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (b"(U\1S(U\x08oid-one!U\x08\3tid-oneU\0Ntt.", RecordHeader(OID, TID, None, None)),
        (b"(U\1B(U\x08oid-one!U\x08\3tid-oneU\0NL3L\ntt.", RecordHeader(OID, TID, None, 3)),
        (b"(U\1T(U\x08\3tid-oneU\1 U\1uU\1d}tt.", Transaction(TID, " ", b"u", b"d")),
        (
            b"(U\1T(U\x08\3tid-oneU\1 U\1uU\1d}(U\1kU\1vutt.",
            Transaction(TID, " ", b"u", b"d", b"}(U\1kU\1vu."),
        ),
        (
            b"(U\1Tq\1(U\x08\3tid-oneq\2U\1 q\3U\1uq\4h\4}q\5(U\1kh\4utq\6tq\7.",
            Transaction(TID, " ", b"u", b"u", b"T\1\0\0\0ur\4\0\0\x000}q\5(U\1kh\4u."),
        ),
        (
            b"(S'S'\n(S'oid-one!'\nS'\\x03tid-one'\nS''\nS'data'\nNtt.",
            Store(OID, TID, b"data"),
        ),
        (b"(U\1C(tt.", Commit()),
        (
            b"(X\1\0\0\0S(c_codecs\nencode\n(X\x08\0\0\0oid-one!X\6\0\0\0latin1tR"
            b"c_codecs\nencode\n(X\x08\0\0\0\3tid-oneX\6\0\0\0latin1tRX\0\0\0\0Ntt.",
            RecordHeader(OID, TID, None, None),
        ),
        (
            b"\x80\3X\1\0\0\0S(C\x08oid-one!C\x08\3tid-oneX\0\0\0\0Nt\x86.",
            RecordHeader(OID, TID, None, None),
        ),
        (
            b"\x80\3X\1\0\0\0T(C\x08\3tid-oneX\1\0\0\0 C\1uC\1d}X\1\0\0\0kNst\x86.",
            Transaction(TID, " ", b"u", b"d", b"\x80\3}X\1\0\0\0kNs."),
        ),
    ],
)
def test_messages_as_bytes(payload, message):
    assert decode(payload) == message


EXTENSIONS = [b"", *(pickle.dumps(PLAIN, protocol) for protocol in range(6))]

TO_WRITE = [
    *(Transaction(TID, "p", b"user", b"text", extension) for extension in EXTENSIONS),
    Transaction(TID),
    Transaction(MAX_TID, " ", LONG, LONG),
    Store(OID, TID, b"data"),
    Store(OID, TID, b"", HIGH),
    StoreBlob(OID, TID, b"data", None, 0),
    StoreBlob(OID, TID, b"data", HIGH, 255),
    StoreBlob(OID, TID, b"data", None, 256),
    StoreBlob(OID, TID, b"data", None, 65535),
    StoreBlob(OID, TID, b"data", None, 65536),
    StoreBlob(OID, TID, b"data", None, 2**31 - 1),
    StoreBlob(OID, TID, b"data", None, 2**31),
    StoreBlob(OID, TID, b"data", None, 2**32 - 1),
    Commit(MD5),
]


def write(writer, message):
    if isinstance(message, Transaction):
        return writer.transaction(message)
    if isinstance(message, Commit):
        return writer.commit(message.checksum)
    return writer.record(message)


def as_value(message):
    """What a Python 3 peer pickles, and unpickles, for a message."""
    if isinstance(message, Commit):
        return ("C", (message.checksum,))
    if isinstance(message, Transaction):
        extension = pickle.loads(message.extension) if message.extension else {}
        return ("T", (message.tid, message.status, message.user, message.description, extension))
    header = (message.oid, message.serial, "", message.data_txn)
    return ("S", header) if isinstance(message, Store) else ("B", (*header, message.blocks))


@pytest.mark.parametrize("protocol", WRITERS)
@pytest.mark.parametrize("message", TO_WRITE, ids=range(len(TO_WRITE)))
def test_what_is_written_is_what_a_peer_unpickles(message, protocol):
    payload = write(WRITERS[protocol], message)
    assert pickle.loads(payload) == as_value(message)


@pytest.mark.parametrize("message", TO_WRITE, ids=range(len(TO_WRITE)))
def test_protocol_1_is_what_a_peer_writes(message):
    assert write(WRITERS[1], message) == fast_pickle(as_value(message))


@pytest.mark.parametrize("protocol", WRITERS)
@pytest.mark.parametrize("message", TO_WRITE, ids=range(len(TO_WRITE)))
def test_what_is_written_is_read_again(message, protocol):
    found = decode(write(WRITERS[protocol], message))
    if isinstance(found, RecordHeader):
        found = found.with_data(message.data)
    if isinstance(found, Transaction) and protocol == 1:
        assert as_value(found) == as_value(message)
    else:
        assert found == message


@pytest.mark.parametrize("protocol", WRITERS)
def test_what_is_no_extension_cannot_be_written(protocol):
    with pytest.raises(PickleError, match="it is not the pickle of a dict"):
        WRITERS[protocol].transaction(Transaction(TID, extension=b"N."))


NO_MESSAGES = {
    "a number": 7,
    "a text": "T",
    "nothing": (),
    "a tag alone": ("C",),
    "three": ("C", (), ()),
    "a list": ["C", ()],
    "a T in a list": ["T", (TID, " ", b"", b"", {})],
    "fields in a list": ("S", [OID, TID, "", None]),
    "fields in a dict": ("C", {}),
    "a T with fields in a list": ("T", [TID, " ", b"", b"", {}]),
}


@pytest.mark.parametrize("value", NO_MESSAGES.values(), ids=NO_MESSAGES)
def test_what_is_no_pair_of_a_tag_and_fields_is_refused(value):
    with pytest.raises(PickleError) as caught:
        decode(fast_pickle(value))
    assert str(caught.value) == "it is not a pair of a tag and a tuple"


WRONG_FIELDS = {
    "an unknown tag": ("X", ()),
    "a number for a tag": (1, ()),
    "no text for a tag": (None, (MD5,)),
    "a T without fields": ("T", ()),
    "a T of four": ("T", (TID, " ", b"", b"")),
    "a T of six": ("T", (TID, " ", b"", b"", {}, {})),
    "an S of three": ("S", (OID, TID, "")),
    "an S of six": ("S", (OID, TID, "", None, None, None)),
    "a B of four": ("B", (OID, TID, "", None)),
    "a C of two": ("C", (MD5, MD5)),
}


@pytest.mark.parametrize("value", WRONG_FIELDS.values(), ids=WRONG_FIELDS)
def test_a_tag_with_other_fields_is_refused(value):
    with pytest.raises(PickleError) as caught:
        decode(fast_pickle(value))
    assert str(caught.value) == "it is no T, S, B or C with its fields"


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (("T", (b"tid", " ", b"", b"", {})), "tid must be 8 bytes, not b'tid'"),
        (("T", (TID, "c", b"", b"", {})), "status must be ' ', 'p' or 'u', not 'c'"),
        (("T", (TID, b"\xe9", b"", b"", {})), "status must be ' ', 'p' or 'u', not 'é'"),
        (("T", (TID, 1, b"", b"", {})), "status must be ' ', 'p' or 'u', not 1"),
        (("T", (TID, " ", "user", b"", {})), "user must be bytes, not str"),
        (("T", (TID, " ", b"", None, {})), "description must be bytes, not NoneType"),
        (("T", (TID, " ", b"", b"", None)), "extension must be a dict"),
        (("T", (TID, " ", b"", b"", b"}.")), "extension must be a dict"),
        (("T", (TID, " ", LONG + LONG, b"", {})), "user has 130560 bytes, more than 65535"),
        (
            ("T", (TID, " ", b"", b"", {"k": "x" * 65536})),
            "extension has 65550 bytes, more than 65535",
        ),
        (("S", (OID, TID, "v", None)), "version must be empty: ZODB has no versions any more"),
        (("S", (OID, TID, None, None)), "version must be empty: ZODB has no versions any more"),
        (("S", (OID, TID, "v", b"", None)), "version must be empty: ZODB has no versions any more"),
        (("B", (OID, TID, "v", None, 1)), "version must be empty: ZODB has no versions any more"),
        (("B", (OID, TID, "", None, None)), "blocks must be a number, not None"),
        (("S", (b"oid", TID, "", b"", None)), "oid must be 8 bytes, not b'oid'"),
        (("S", (OID, TID, "", "data", None)), "data must be bytes, not str"),
        (("C", (None,)), "checksum must be 16 bytes, not None"),
        (("C", (MD5[1:],)), f"checksum must be 16 bytes, not {MD5[1:]!r}"),
        (("C", ("",)), "checksum must be bytes, not str"),
    ],
)
def test_a_field_that_breaks_the_schema_is_refused(value, reason):
    with pytest.raises(InvalidMessage) as caught:
        decode(fast_pickle(value))
    assert str(caught.value) == reason


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (RecordHeader(b"oid", TID, None, None), "oid must be 8 bytes, not b'oid'"),
        (RecordHeader(OID, b"", None, 0), "serial must be 8 bytes, not b''"),
        (
            RecordHeader(OID, TID, None, -1),
            "blocks must be a number from 0 to 4294967295, not -1",
        ),
    ],
)
def test_the_fields_of_a_header_are_checked_with_its_data(header, reason):
    with pytest.raises(InvalidMessage) as caught:
        header.with_data(b"")
    assert str(caught.value) == reason


def test_an_extension_emptied_or_filled_through_the_memo_is_carried():
    payload = b"\x80\3X\1\0\0\0T(C\x08\3tid-oneX\1\0\0\0 C\0C\0}q\1h\1X\1\0\0\0kNs0t\x86."
    assert decode(payload).extension == b"\x80\3}q\1h\1X\1\0\0\0kNs0."


def test_what_holds_application_values_is_carried_without_being_called():
    body = b"}X\1\0\0\0kcno.such.module\nThing\n)Rs"
    payload = b"\x80\3X\1\0\0\0T(C\x08\3tid-oneX\1\0\0\0 C\0C\0" + body + b"t\x86."
    assert decode(payload).extension == b"\x80\3" + body + b"."


@pytest.mark.parametrize(
    "field",
    [
        b"cno.such.module\nThing\n",
        b"cno.such.module\nThing\n)R",
        b"c__builtin__\nbytes\nJ\0\0\0\x40\x85R",
    ],
)
def test_a_call_outside_the_extension_is_no_value(field):
    payload = b"\x80\3X\1\0\0\0C(" + field + b"t\x86."
    with pytest.raises(InvalidMessage, match="checksum must be bytes, not _Opaque"):
        decode(payload)
