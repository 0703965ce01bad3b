import ast
import pathlib
import pickle
import tracemalloc

import pytest

import zrs_core.codec
from zrs_core import messages as messages_module
from zrs_core.codec.connection import CONNECTION_CLOSED, NEED_DATA
from zrs_core.codec.machine import State
from zrs_core.codec.primary import PrimaryConnection
from zrs_core.codec.secondary import ChecksumPolicy, SecondaryConnection
from zrs_core.errors import (
    ChecksumError,
    LimitExceeded,
    LocalProtocolError,
    RemoteProtocolError,
    TruncatedStream,
)
from zrs_core.messages import (
    NO_TID,
    BlobBlock,
    Commit,
    Hello,
    KeepAlive,
    Start,
    Store,
    StoreBlob,
    Transaction,
)

from .helpers import (
    OID,
    OID_2,
    TID,
    TID_2,
    bytewise,
    encode,
    fast_pickle,
    framed,
    interleavings,
    outcome,
    primary,
    refuse,
    secondary,
    take_all,
)

FULL = b"x" * 65536


def t(tid=TID, status=" "):
    return fast_pickle(("T", (tid, status, b"", b"", {})))


def s(oid=OID, serial=TID, version="", data_txn=None):
    return fast_pickle(("S", (oid, serial, version, data_txn)))


def inline(data=b"data", oid=OID, serial=TID):
    return fast_pickle(("S", (oid, serial, "", data, None)))


def b(blocks, oid=OID, serial=TID):
    return fast_pickle(("B", (oid, serial, "", None, blocks)))


def c(*md5):
    return fast_pickle(("C", md5))


def test_it_says_hello_start_and_signs_of_life():
    connection = SecondaryConnection()
    said = [connection.send(message) for message in (Hello("zrs2.1"), Start(TID), KeepAlive())]
    assert said == [framed(b"zrs2.1"), framed(TID), framed(b"")]


def test_what_it_says_a_primary_hears():
    said = [Hello("zrs2.0"), Start(TID), KeepAlive(), KeepAlive()]
    sender, hearer = SecondaryConnection(), PrimaryConnection(blobs=False)
    for message in said:
        hearer.receive_data(sender.send(message))
    assert list(hearer.messages()) == said


@pytest.mark.parametrize(
    ("before", "message", "reason"),
    [
        (
            [],
            Start(TID),
            "cannot send Start: a Start from the secondary, which is about to say hello",
        ),
        ([], Hello("zrs3"), "cannot send Hello: Invalid protocol 'zrs3'"),
        (
            [Hello("zrs2.1")],
            KeepAlive(),
            "cannot send KeepAlive: a KeepAlive from the secondary, which is about to name its "
            "start",
        ),
        (
            [Hello("zrs2.1"), Start(TID)],
            Start(TID_2),
            "cannot send Start: a Start from the secondary, which is listening",
        ),
        (
            [Hello("zrs2.1"), Start(TID)],
            Commit(),
            "cannot send Commit: a Commit from the secondary, which is listening",
        ),
        ([], None, "cannot send NoneType: a NoneType from the secondary, which is about to say"),
    ],
)
def test_what_the_state_forbids_is_refused_and_has_no_effect(before, message, reason):
    connection = SecondaryConnection()
    for earlier in before:
        connection.send(earlier)
    with pytest.raises(LocalProtocolError) as caught:
        connection.send(message)
    assert str(caught.value).startswith(reason)
    for later in [Hello("zrs2.1"), Start(TID)][len(before) :]:
        connection.send(later)
    whole = [Transaction(TID_2), Commit()]
    connection.receive_data(encode(whole, primary(start=TID)))
    assert list(connection.messages()) == whole


def test_a_sign_of_life_goes_between_any_two_messages():
    connection = secondary()
    whole = [Transaction(TID), StoreBlob(OID, TID, b"", None, 1), BlobBlock(b"x"), Commit()]
    sender = primary()
    for message in whole:
        assert connection.send(KeepAlive()) == framed(b"")
        connection.receive_data(sender.send(message))
        assert list(connection.messages()) == [message]


WHOLE = [
    Transaction(TID, "p", b"user", b"text", b"\x80\3}X\1\0\0\0kNs."),
    Store(OID, TID, b"data", NO_TID),
    Store(OID, TID),
    StoreBlob(OID, TID, b"an empty blob", None, 0),
    StoreBlob(OID_2, TID, b"a blob", None, 3),
    BlobBlock(FULL),
    BlobBlock(FULL),
    BlobBlock(b"end"),
    StoreBlob(OID_2, TID, b"one full block", None, 1),
    BlobBlock(FULL),
    Commit(),
    Transaction(TID_2, "u"),
    Commit(),
]


def test_it_reads_transactions():
    assert outcome(secondary(), [encode(WHOLE)]) == (WHOLE, None)


def test_it_reads_the_older_dialect():
    stream = framed(t(), inline(), inline(None), inline(b""), c(), t(TID_2), c())
    expected = [
        Transaction(TID),
        Store(OID, TID, b"data"),
        Store(OID, TID),
        Store(OID, TID),
        Commit(),
        Transaction(TID_2),
        Commit(),
    ]
    assert outcome(secondary("zrs2.0"), [stream]) == (expected, None)
    assert outcome(secondary("zrs2.0"), bytewise(stream)) == (expected, None)


def test_a_record_of_the_older_dialect_may_be_larger_than_a_pickle():
    stream = framed(t(), inline(b"x" * 5000), c())
    connection = secondary(max_pickle_size=1000, max_record_size=10_000)
    messages, error = outcome(connection, [stream])
    assert error is None
    assert len(messages[1].data) == 5000


def test_the_record_of_an_announced_blob_comes_with_it():
    connection = secondary()
    connection.receive_data(framed(t(), b(1)))
    assert list(connection.messages()) == [Transaction(TID)]
    connection.receive_data(framed(b"record"))
    assert list(connection.messages()) == [StoreBlob(OID, TID, b"record", None, 1)]
    connection.receive_data(framed(b"block"))
    assert list(connection.messages()) == [BlobBlock(b"block")]


BETWEEN = "from the primary, which is between transactions"

#: word, payloads (the last one is at fault), error, reason
REFUSED = [
    ("zrs2.1", [b""], RemoteProtocolError, "bad pickle: it ends without STOP"),
    ("zrs2.1", [t(), b""], RemoteProtocolError, "bad pickle: it ends without STOP"),
    (
        "zrs2.1",
        [b"Nr\0\0\0\x08."],
        RemoteProtocolError,
        "bad pickle: memo index 134217728 is higher than 85535",
    ),
    (
        "zrs2.1",
        [b"(X\1\0\0\0C(c__builtin__\nbytes\nJ\0\0\0\x40\x85Rtt."],
        RemoteProtocolError,
        "checksum must be bytes, not _Opaque",
    ),
    ("zrs2.1", [b"(" * 2**20], RemoteProtocolError, "bad pickle: it has more than 85535 opcodes"),
    (
        "zrs2.1",
        [b"N" + b"\x85" * 70 + b"."],
        RemoteProtocolError,
        "bad pickle: its values nest deeper than 64",
    ),
    ("zrs2.1", [c()], RemoteProtocolError, f"a Commit {BETWEEN}"),
    ("zrs2.1", [c(bytes(16))], RemoteProtocolError, f"a Commit {BETWEEN}"),
    ("zrs2.1", [s()], RemoteProtocolError, f"a Store {BETWEEN}"),
    ("zrs2.1", [b(1)], RemoteProtocolError, f"a StoreBlob {BETWEEN}"),
    ("zrs2.1", [inline()], RemoteProtocolError, f"a Store {BETWEEN}"),
    (
        "zrs2.1",
        [t(), t(TID_2)],
        RemoteProtocolError,
        "a Transaction from the primary, which is in a transaction",
    ),
    ("zrs2.1", [t(b"tid")], RemoteProtocolError, "tid must be 8 bytes, not b'tid'"),
    ("zrs2.1", [t(status="c")], RemoteProtocolError, "status must be ' ', 'p' or 'u', not 'c'"),
    (
        "zrs2.1",
        [t(NO_TID)],
        RemoteProtocolError,
        f"transaction 0x{NO_TID.hex()} does not follow 0x{NO_TID.hex()}: tids rise",
    ),
    (
        "zrs2.1",
        [t(TID_2), c(), t(TID)],
        RemoteProtocolError,
        f"transaction 0x{TID.hex()} does not follow 0x{TID_2.hex()}: tids rise",
    ),
    ("zrs2.1", [t(), s(oid=b"oid")], RemoteProtocolError, "oid must be 8 bytes, not b'oid'"),
    (
        "zrs2.1",
        [t(), s(oid=b"nine oids")],
        RemoteProtocolError,
        "oid must be 8 bytes, not b'nine oids'",
    ),
    (
        "zrs2.1",
        [t(), s(serial=TID_2)],
        RemoteProtocolError,
        f"a record's serial 0x{TID_2.hex()} is not the tid of its transaction",
    ),
    (
        "zrs2.1",
        [t(), inline(serial=TID_2)],
        RemoteProtocolError,
        f"a record's serial 0x{TID_2.hex()} is not the tid of its transaction",
    ),
    (
        "zrs2.1",
        [t(), b(1, serial=TID_2)],
        RemoteProtocolError,
        f"a record's serial 0x{TID_2.hex()} is not the tid of its transaction",
    ),
    (
        "zrs2.1",
        [t(), s(version="v")],
        RemoteProtocolError,
        "version must be empty: ZODB has no versions any more",
    ),
    (
        "zrs2.1",
        [t(), b(-1)],
        RemoteProtocolError,
        "blocks must be a number from 0 to 4294967295, not -1",
    ),
    (
        "zrs2.1",
        [t(), b(2**32)],
        RemoteProtocolError,
        "blocks must be a number from 0 to 4294967295, not 4294967296",
    ),
    (
        "zrs2.1",
        [t(), b"(U\1B(U\x08oid-one!U\x08\3tid-oneU\0NL9999999999L\ntt."],
        RemoteProtocolError,
        "blocks must be a number from 0 to 4294967295, not 9999999999",
    ),
    (
        "zrs2.1",
        [t(), b(2**70)],
        RemoteProtocolError,
        "blocks must be a number from 0 to 4294967295, not a value of type _Opaque",
    ),
    ("zrs2.0", [t(), b(0)], RemoteProtocolError, "a blob in zrs2.0, which has none"),
    (
        "zrs2.1",
        [t(), b(2), b"record", b"short"],
        RemoteProtocolError,
        "a blob block of 5 bytes that is not the last one; all others have 65536",
    ),
    (
        "zrs2.1",
        [t(), b(1), b"record", b""],
        RemoteProtocolError,
        "a blob block has 1 to 65536 bytes, not 0",
    ),
    (
        "zrs2.1",
        [t(), b(1), b"record", FULL + b"x"],
        LimitExceeded,
        "a message of 65537 bytes, where at most 65536 are allowed",
    ),
]


@pytest.mark.parametrize(("word", "payloads", "kind", "reason"), REFUSED, ids=range(len(REFUSED)))
def test_what_breaks_the_protocol_is_refused(word, payloads, kind, reason):
    connection = secondary(word, checksums="ignore")
    before = framed(*payloads[:-1])
    messages, error = refuse(connection, before + framed(payloads[-1]))
    assert type(error) is kind
    assert error.reason == reason
    assert error.offset == len(before)
    under_way = None
    for message in messages:
        if isinstance(message, Transaction):
            under_way = message.tid
        if isinstance(message, Commit):
            under_way = None
    assert error.tid == under_way
    expected = len(payloads) - 1 - (b"record" in payloads)
    assert len(messages) == expected


def test_the_primary_may_not_speak_before_it_is_asked():
    for said in ([], [Hello("zrs2.1")]):
        connection = SecondaryConnection()
        for message in said:
            connection.send(message)
        assert connection.next_message() is NEED_DATA
        messages, error = refuse(connection, b"\0")
        assert messages == []
        assert error.reason == "the primary spoke before it was asked"
        assert (error.offset, error.tid) == (0, None)


LIMITS = [
    ({}, [], 2**20 + 1, 2**20),
    ({}, [t()], 2**20 + 2**30 + 1, 2**20 + 2**30),
    ({}, [t(), s()], 2**30 + 1, 2**30),
    ({}, [t(), s(), b"data"], 2**20 + 1, 2**20),
    ({}, [t(), b(1), b"data"], 65537, 65536),
    ({}, [t(), b(1), b"data", b"block"], 2**20 + 1, 2**20),
    ({"max_pickle_size": 100}, [], 101, 100),
    ({"max_record_size": 7}, [t(), s()], 8, 7),
    ({"max_record_size": 7, "max_pickle_size": 200}, [t()], 208, 207),
]


@pytest.mark.parametrize(("options", "payloads", "size", "limit"), LIMITS)
def test_a_length_above_its_limit_is_refused_before_it_arrives(options, payloads, size, limit):
    connection = secondary(**options)
    before = framed(*payloads)
    _, error = refuse(connection, before + size.to_bytes(4, "big"))
    assert type(error) is LimitExceeded
    assert error.reason == f"a message of {size} bytes, where at most {limit} are allowed"
    assert error.offset == len(before)


@pytest.mark.parametrize("feed", [lambda data: [data], bytewise], ids=["whole", "bytewise"])
@pytest.mark.parametrize(
    "payloads", [[t()], [t(), s()], [t(), inline()], [t(), c()]], ids=["T", "S", "inline", "C"]
)
def test_a_length_that_is_longer_than_its_pickle_is_refused_before_the_rest_arrives(payloads, feed):
    connection = secondary()
    before, last = framed(*payloads[:-1]), framed(payloads[-1])
    damaged = bytes([0, 8]) + last[2:]
    messages = []
    for piece in feed(before + damaged):
        assert connection.error is None
        connection.receive_data(piece)
        messages += take_all(connection)
    assert len(messages) == len(payloads) - 1
    assert connection.error.reason == "bad pickle: 524288 bytes follow its STOP"
    assert connection.error.offset == len(before)
    assert connection.incomplete is None


def test_looking_for_the_end_of_a_partial_pickle_takes_linear_time(monkeypatch):
    looked = []
    monkeypatch.setattr("zrs_core.codec.secondary.end_of", lambda data: looked.append(len(data)))
    connection = secondary()
    connection.receive_data((1 << 20).to_bytes(4, "big"))
    for _ in range(5000):
        connection.receive_data(b"." * 100)
        assert connection.next_message() is NEED_DATA
    assert sum(looked) < 20 * 500_000


def test_what_has_come_in_part():
    connection = secondary(start=TID)
    assert connection.incomplete is None
    whole = framed(t(TID_2))
    connection.receive_data(whole[:2])
    assert connection.next_message() is NEED_DATA
    assert connection.incomplete == (TID, 0, None, 2)
    connection.receive_data(whole[2:9])
    assert connection.next_message() is NEED_DATA
    assert connection.incomplete == (TID, 0, len(whole) - 4, 9)
    connection.receive_data(whole[9:])
    assert list(connection.messages()) == [Transaction(TID_2)]
    assert connection.incomplete == (TID, len(whole), None, 0)
    connection.receive_data(framed(c()))
    assert list(connection.messages()) == [Commit()]
    assert connection.incomplete is None


def test_a_length_within_its_limit_costs_no_memory_before_it_arrives():
    connection = secondary()
    connection.receive_data(framed(t(), s()))
    tracemalloc.start()
    connection.receive_data((2**30).to_bytes(4, "big") + b"x")
    assert list(connection.messages()) == [Transaction(TID)]
    assert tracemalloc.get_traced_memory()[1] < 100_000
    tracemalloc.stop()
    assert connection._frames.waiting == 5


def test_a_record_of_the_older_dialect_has_the_limit_of_records():
    connection = secondary(max_record_size=7)
    connection.receive_data(framed(t(), inline(b"x" * 7)))
    assert len(list(connection.messages())) == 2
    connection = secondary(max_record_size=7)
    _, error = refuse(connection, framed(t(), inline(b"x" * 8)))
    assert type(error) is LimitExceeded
    assert error.reason == "a record of 8 bytes, where at most 7 are allowed"
    assert (error.offset, error.tid) == (len(framed(t())), TID)


def test_a_blob_of_more_blocks_than_the_limit_is_refused_before_its_record():
    connection = secondary(max_blob_blocks=3)
    before = framed(t(), b(3), b"", FULL, FULL, FULL)
    connection.receive_data(before)
    assert len(list(connection.messages())) == 5
    _, error = refuse(connection, framed(b(4)))
    assert type(error) is LimitExceeded
    assert error.reason == "a blob of 4 blocks, where at most 3 are allowed"
    assert (error.offset, error.tid) == (len(before), TID)


@pytest.mark.parametrize(
    ("payloads", "reason"),
    [
        ([t()], "the stream ended in the middle of a transaction"),
        ([t(), s()], "the stream ended in the middle of a transaction"),
        ([t(), s(), b""], "the stream ended in the middle of a transaction"),
        (
            [t(), b(2), b"record", FULL],
            "the stream ended in the middle of a transaction, 1 blob blocks before its next "
            "message",
        ),
    ],
)
def test_an_end_in_the_middle_of_a_transaction_is_an_error(payloads, reason):
    stream = framed(*payloads)
    for pieces in ([stream], [*bytewise(stream[:200]), stream[200:]]):
        _, error = outcome(secondary(), pieces)
        assert error[0] is TruncatedStream
        assert error[1].startswith(reason)
        assert error[2:] == (TID, len(stream))


def test_an_end_in_a_message_of_a_transaction_is_an_error():
    stream = framed(t(), s(), b"data")
    _, error = refuse(secondary(), stream[:-1], eof=True)
    assert type(error) is TruncatedStream
    assert error.reason == (
        "the stream ended 7 bytes into a message of 4 bytes, length prefix included"
    )
    assert (error.offset, error.tid) == (len(framed(t(), s())), TID)


@pytest.mark.parametrize("said", [[], [Hello("zrs2.1")], [Hello("zrs2.1"), Start(TID)]])
def test_an_end_between_transactions_is_an_end(said):
    connection = SecondaryConnection()
    for message in said:
        connection.send(message)
    connection.receive_eof()
    assert connection.next_message() is CONNECTION_CLOSED
    assert connection.their_state is State.CLOSED
    assert connection.at_eof


@pytest.mark.parametrize("protocol", [1, 3])
def test_their_state_is_that_after_the_last_message_that_was_returned(protocol):
    """However many messages were read at once."""
    sender, reader = primary(pickle_protocol=protocol), secondary()
    messages = [
        Transaction(TID),
        Store(OID, TID),
        StoreBlob(OID, TID, b"data", None, 2),
        BlobBlock(FULL),
        BlobBlock(b"end"),
        Commit(),
        Transaction(TID_2),
        Store(OID, TID_2),
        Commit(),
    ]
    states = []
    for message in messages:
        reader.receive_data(sender.send(message))
        states.append(sender.our_state)
    assert len({*states}) == 3
    found = []
    while reader.next_message() is not NEED_DATA:
        found.append(reader.their_state)
    assert found == states


@pytest.mark.parametrize("protocol", [1, 3])
@pytest.mark.parametrize(("tid", "good"), [(TID_2, True), (TID, False)])
def test_another_thread_may_read_while_the_start_is_sent(protocol, tid, good):
    """What it reads is judged by all of the start: the state, the tid and the checksum."""
    sender = primary(start=TID if good else NO_TID, pickle_protocol=protocol)
    sent = [Transaction(tid), Commit()]
    stream = encode(sent, sender)
    outcomes = []

    def prepare():
        connection = SecondaryConnection()
        connection.send(Hello("zrs2.1"))
        return (
            lambda: connection.send(Start(TID)),
            lambda: outcomes.append(outcome(connection, [stream])),
        )

    assert interleavings(prepare) > 10
    found = {(len(messages), error and error[1].split(" (")[0]) for messages, error in outcomes}
    early = (0, "the primary spoke before it was asked")
    if good:
        assert found == {early, (2, None)}
    else:
        assert found == {
            early,
            (0, f"transaction 0x{TID.hex()} does not follow 0x{TID.hex()}: tids rise"),
        }


@pytest.mark.parametrize("protocol", [1, 3])
def test_signs_of_life_may_be_sent_by_another_thread_at_any_time(protocol):
    messages = [
        Transaction(TID),
        Store(OID, TID, b"data"),
        StoreBlob(OID, TID, b"data", None, 1),
        BlobBlock(b"blob"),
        Commit(),
    ]
    stream = encode(messages, primary(pickle_protocol=protocol))
    outcomes, said = [], []

    def prepare():
        connection = secondary()
        return (
            lambda: outcomes.append(outcome(connection, [stream])),
            lambda: said.append(connection.send(KeepAlive())),
        )

    count = interleavings(prepare)
    assert count > 50
    assert said == [framed(b"")] * count
    assert outcomes == [(messages, None)] * (count + 1)


WITH = [Transaction(TID), Store(OID, TID, b"data"), Commit()]
RIGHT = encode(WITH)
DAMAGED = RIGHT.replace(b"data", b"dara")
WITHOUT = framed(t(), s(), b"data", c())
THEN_WITHOUT = RIGHT + framed(t(TID_2), c())
MISSING = "a commit without a checksum"


def checksum_reason(stream, **options):
    """How many messages come out of a stream, and why no more."""
    messages, error = outcome(secondary(**options), [stream])
    if error is None:
        return len(messages), None
    _, error = refuse(secondary(**options), stream)
    assert type(error) is ChecksumError
    return len(messages), error.reason


@pytest.mark.parametrize("policy", ["require", "verify", "ignore"])
def test_a_right_checksum_passes_under_every_policy(policy):
    assert checksum_reason(RIGHT, checksums=policy) == (3, None)
    assert checksum_reason(RIGHT, checksums=ChecksumPolicy(policy)) == (3, None)


@pytest.mark.parametrize(
    ("policy", "result"), [("require", (2, MISSING)), ("verify", (3, None)), ("ignore", (3, None))]
)
def test_a_missing_checksum_passes_where_none_is_required(policy, result):
    assert checksum_reason(WITHOUT, checksums=policy) == result


@pytest.mark.parametrize(
    ("policy", "result"),
    [("require", (4, MISSING)), ("verify", (4, MISSING)), ("ignore", (5, None))],
)
def test_a_checksum_must_go_on_where_one_was_shown(policy, result):
    assert checksum_reason(THEN_WITHOUT, checksums=policy) == result


@pytest.mark.parametrize("policy", ["require", "verify"])
def test_a_wrong_checksum_is_refused(policy):
    found, reason = checksum_reason(DAMAGED, checksums=policy)
    assert found == 2
    right, wrong = RIGHT[-19:-3].hex(), reason.split()[-1]
    assert reason == (f"the checksum {right} does not match what was received, which has {wrong}")
    assert wrong != right


def test_a_wrong_checksum_does_not_count_where_it_is_ignored():
    assert checksum_reason(DAMAGED, checksums="ignore") == (3, None)


def test_verifying_is_the_default():
    assert checksum_reason(WITHOUT) == (3, None)
    assert checksum_reason(DAMAGED)[0] == 2


def test_the_checksum_begins_with_the_start():
    other_start = encode(WITH, primary(start=b"\1" * 8))
    assert checksum_reason(other_start)[0] == 2
    assert outcome(secondary(start=b"\1" * 8), [other_start]) == (WITH, None)


def test_a_commit_tells_its_checksum():
    connection = secondary()
    connection.receive_data(RIGHT)
    commit = list(connection.messages())[-1]
    assert commit.checksum == RIGHT[-19:-3]
    connection = secondary()
    connection.receive_data(WITHOUT)
    assert list(connection.messages())[-1].checksum is None


def test_an_unknown_policy_is_refused():
    with pytest.raises(ValueError, match="'always' is not a valid ChecksumPolicy"):
        SecondaryConnection(checksums="always")


@pytest.mark.parametrize("protocol", [1, 3])
def test_a_checksum_must_go_on_in_every_spelling(protocol):
    stream = encode([Transaction(TID), Commit()], primary(pickle_protocol=protocol))
    assert checksum_reason(stream + framed(t(TID_2), c())) == (3, MISSING)


@pytest.mark.parametrize("protocol", [1, 3])
def test_the_dialect_of_a_peer_is_known_from_its_first_checksum(protocol):
    connection = secondary()
    whole = encode([Transaction(TID), Commit()], primary(pickle_protocol=protocol))
    connection.receive_data(whole + framed(t(TID_2)))
    assert len(list(connection.messages())) == 3
    _, error = refuse(connection, (2**20 + 1).to_bytes(4, "big"))
    assert error.reason == "a message of 1048577 bytes, where at most 1048576 are allowed"


@pytest.mark.parametrize(
    "path",
    [messages_module.__file__, *pathlib.Path(zrs_core.codec.__file__).parent.glob("*.py")],
    ids=lambda path: pathlib.Path(path).name,
)
def test_no_check_goes_away_under_optimization(path):
    tree = ast.parse(pathlib.Path(path).read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        assert not isinstance(node, ast.Assert)
        assert getattr(node, "id", None) != "__debug__"


@pytest.mark.parametrize("policy", ["require", "verify", "ignore"])
@pytest.mark.parametrize("protocol", [1, 3])
def test_right_checksums_pass_in_every_spelling(protocol, policy):
    messages = [Transaction(TID), Store(OID, TID, b"data"), Commit(), Transaction(TID_2), Commit()]
    stream = encode(messages, primary(pickle_protocol=protocol))
    assert outcome(secondary(checksums=policy), [stream]) == outcome(secondary(), [stream])
    assert outcome(secondary(checksums=policy), [stream])[0] == messages


def test_a_transaction_alone_does_not_tell_the_dialect():
    """It is spelled as this package does, and a record of the older dialect may follow."""
    data = b"x" * 5000
    older = pickle.dumps(("S", (OID, TID, "", data, None)), 3)
    stream = encode([Transaction(TID)]) + framed(older, pickle.dumps(("C", ()), 3))
    messages, error = outcome(secondary(max_pickle_size=2000), [stream])
    assert error is None
    assert messages == [Transaction(TID), Store(OID, TID, data), Commit()]


def test_a_small_limit_of_pickles_holds_for_all_spellings():
    stream = encode([Transaction(TID, " ", b"x" * 200)])
    messages, error = outcome(secondary(max_pickle_size=100), [stream])
    assert messages == []
    assert "at most 100" in str(error)


def test_what_is_written_from_templates_is_read_by_them(monkeypatch):
    messages = [Transaction(TID), Store(OID, TID, b"data"), Commit(), Transaction(TID_2), Commit()]
    stream = encode(messages)
    monkeypatch.delattr("zrs_core.codec.secondary.decode")
    assert outcome(secondary(), [stream]) == (messages, None)
