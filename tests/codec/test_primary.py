import hashlib
import tracemalloc

import pytest

from zrs_core.codec import primary as primary_module
from zrs_core.codec.dialects import ZRS_2_0, ZRS_2_1
from zrs_core.codec.primary import PrimaryConnection
from zrs_core.errors import (
    LimitExceeded,
    LocalProtocolError,
    RemoteProtocolError,
    UnsupportedProtocol,
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
    encode,
    fast_pickle,
    framed,
    interleavings,
    outcome,
    primary,
    refuse,
    secondary,
)

MESSAGES = [
    Transaction(TID, " ", b"user", b"text", b"\x80\3}X\1\0\0\0kNs."),
    Store(OID, TID, b"data", NO_TID),
    StoreBlob(OID, TID, b"blob record", None, 1),
    BlobBlock(b"blob"),
    Commit(),
    Transaction(TID_2),
    Commit(),
]


@pytest.mark.parametrize("blobs", [True, False])
def test_it_hears_hello_start_and_signs_of_life(blobs):
    connection = PrimaryConnection(blobs=blobs)
    assert connection.dialect is ZRS_2_0
    connection.receive_data(framed(b"zrs2.1", TID, b"", b""))
    assert list(connection.messages()) == [Hello("zrs2.1"), Start(TID), KeepAlive(), KeepAlive()]
    assert connection.dialect is ZRS_2_1


def test_it_serves_the_older_word_when_there_are_no_blobs():
    assert primary("zrs2.0", blobs=False).dialect is ZRS_2_0


LONG = b"x" * 9


@pytest.mark.parametrize(
    ("payloads", "kind", "reason"),
    [
        ([b"zrs2.0"], UnsupportedProtocol, "Invalid protocol 'zrs2.0'. Require >= 2.1"),
        ([b"zrs2.2"], UnsupportedProtocol, "Invalid protocol 'zrs2.2'"),
        ([b""], UnsupportedProtocol, "Invalid protocol ''"),
        ([b"\xff\0'"], UnsupportedProtocol, 'Invalid protocol "\\\\xff\\x00\'"'),
        ([LONG], LimitExceeded, "a message of 9 bytes, where at most 8 are allowed"),
        ([b"zrs2.1", b""], RemoteProtocolError, "Invalid transaction id, b''"),
        ([b"zrs2.1", b"seven b"], RemoteProtocolError, "Invalid transaction id, b'seven b'"),
        (
            [b"zrs2.1", LONG],
            LimitExceeded,
            "a message of 9 bytes, where at most 8 are allowed",
        ),
        ([b"zrs2.1", TID, b"x"], RemoteProtocolError, "Too many messages"),
        ([b"zrs2.1", TID, b"", TID], RemoteProtocolError, "Too many messages"),
        (
            [b"zrs2.1", TID, LONG],
            LimitExceeded,
            "a message of 9 bytes, where at most 8 are allowed",
        ),
    ],
)
def test_it_refuses_whatever_else_a_secondary_says(payloads, kind, reason):
    connection = PrimaryConnection()
    messages, error = refuse(connection, framed(*payloads))
    assert len(messages) == len(payloads) - 1
    assert type(error) is kind
    assert error.reason == reason
    assert error.offset == len(framed(*payloads[:-1]))
    assert error.tid is None


def test_an_error_names_the_transaction_that_is_being_sent():
    connection = primary()
    connection.send(Transaction(TID))
    _, error = refuse(connection, framed(b"x"))
    assert error.tid == TID


def test_a_length_that_a_secondary_only_announces_costs_no_memory():
    connection = PrimaryConnection()
    tracemalloc.start()
    _, error = refuse(connection, b"\xff\xff\xff\xff" + bytes(100))
    assert tracemalloc.get_traced_memory()[1] < 100_000
    tracemalloc.stop()
    assert error.reason == "a message of 4294967295 bytes, where at most 8 are allowed"


def test_a_burst_of_signs_of_life_is_heard():
    connection = primary()
    connection.receive_data(bytes(64 * 1024))
    assert list(connection.messages()) == [KeepAlive()] * (16 * 1024)


@pytest.mark.parametrize("protocol", [1, 3])
def test_what_it_sends_a_secondary_reads(protocol):
    stream = encode(MESSAGES, primary(pickle_protocol=protocol))
    connection = secondary(checksums="require")
    connection.receive_data(stream)
    found = list(connection.messages())
    assert found[1:] == MESSAGES[1:]
    assert found[0] == MESSAGES[0] or protocol == 1


def test_what_it_sends_in_protocol_1_are_the_bytes_of_a_python_3_peer():
    start = TID
    fields = (TID_2, " ", b"user", b"text", {"k": None})
    payloads = [
        fast_pickle(("T", fields)),
        fast_pickle(("S", (OID, TID_2, "", TID))),
        b"data",
        fast_pickle(("B", (OID, TID_2, "", None, 1))),
        b"record",
        b"blob",
    ]
    md5 = hashlib.md5(start + b"".join(payloads))
    payloads.append(fast_pickle(("C", (md5.digest(),))))
    sent = encode(
        [
            Transaction(TID_2, " ", b"user", b"text", b"\x80\3}X\1\0\0\0kNs."),
            Store(OID, TID_2, b"data", TID),
            StoreBlob(OID, TID_2, b"record", None, 1),
            BlobBlock(b"blob"),
            Commit(),
        ],
        primary(start=start, pickle_protocol=1),
    )
    assert sent == framed(*payloads)


def test_the_checksum_of_a_commit_covers_earlier_commits():
    connection = primary()
    sent = encode(MESSAGES, connection)
    second = encode(MESSAGES[5:], primary())
    assert sent[-20:] != second[-20:]


def test_a_commit_is_sent_with_the_checksum_of_the_connection_whatever_it_carries():
    stale = [Commit(bytes(16)) if message == Commit() else message for message in MESSAGES]
    assert encode(stale) == encode(MESSAGES)


def test_records_and_blocks_are_sent_without_a_copy():
    connection = primary()
    data, block = b"record" * 10, b"block" * 10
    connection.send(Transaction(TID))
    assert connection.send_chunks(StoreBlob(OID, TID, data, None, 1))[3] is data
    assert connection.send_chunks(BlobBlock(block))[1] is block


def test_there_are_two_pickle_protocols():
    with pytest.raises(ValueError, match="pickle_protocol must be 1 or 3, not 2"):
        PrimaryConnection(pickle_protocol=2)


REFUSED = [
    (
        [],
        Commit(),
        "cannot send Commit: a Commit from the primary, which is between transactions",
    ),
    (
        [],
        Store(OID, TID),
        f"cannot send Store of object 0x{OID.hex()}: a Store from the primary, which is between "
        "transactions",
    ),
    (
        [],
        Transaction(NO_TID),
        f"cannot send Transaction 0x{NO_TID.hex()}: transaction 0x{NO_TID.hex()} does not follow "
        f"0x{NO_TID.hex()}: tids rise",
    ),
    (
        [],
        Transaction(TID, extension=b"N."),
        f"cannot send Transaction 0x{TID.hex()}: it is not the pickle of a dict",
    ),
    (
        MESSAGES[:1],
        StoreBlob(OID, TID_2, b"", None, 0),
        f"cannot send StoreBlob of object 0x{OID.hex()}: a record's serial 0x{TID_2.hex()} is not "
        "the tid of its transaction",
    ),
    (
        MESSAGES[:1],
        BlobBlock(b"x"),
        "cannot send BlobBlock: a BlobBlock from the primary, which is in a transaction",
    ),
    (
        [*MESSAGES[:1], StoreBlob(OID, TID, b"", None, 2)],
        BlobBlock(b"x"),
        "cannot send BlobBlock: a blob block of 1 bytes that is not the last one; all others "
        "have 65536",
    ),
    (
        MESSAGES[:3],
        Commit(),
        "cannot send Commit: a Commit from the primary, which is in a blob",
    ),
    (
        MESSAGES[:3],
        KeepAlive(),
        "cannot send KeepAlive: a KeepAlive from the primary, which is in a blob",
    ),
    ([], b"bytes", "cannot send bytes: a bytes from the primary, which is between transactions"),
]


def rest_of(messages):
    """What completes the transactions that `messages` begin."""
    if messages and messages[-1] == StoreBlob(OID, TID, b"", None, 2):
        return [BlobBlock(bytes(65536)), BlobBlock(b"x"), *MESSAGES[4:]]
    return MESSAGES[len(messages) :]


@pytest.mark.parametrize(("before", "message", "reason"), REFUSED)
def test_what_the_state_forbids_is_refused_and_has_no_effect(before, message, reason):
    connection = primary()
    stream = encode(before, connection)
    with pytest.raises(LocalProtocolError) as caught:
        connection.send(message)
    assert str(caught.value) == reason
    stream += encode(rest_of(before), connection)
    receiver = secondary(checksums="require")
    receiver.receive_data(stream)
    assert list(receiver.messages()) == [*before, *rest_of(before)]


def test_nothing_is_sent_before_a_start():
    connection = PrimaryConnection()
    with pytest.raises(LocalProtocolError) as caught:
        connection.send(Transaction(TID))
    assert str(caught.value) == (
        f"cannot send Transaction 0x{TID.hex()}: a Transaction from the primary, which is waiting "
        "for a start"
    )


def test_no_blob_is_sent_to_a_secondary_that_asked_for_none():
    connection = primary("zrs2.0", blobs=False)
    connection.send(Transaction(TID))
    with pytest.raises(LocalProtocolError, match=r"a blob in zrs2\.0, which has none"):
        connection.send(StoreBlob(OID, TID, b"", None, 0))


def test_a_record_that_no_length_prefix_could_announce_is_refused(monkeypatch):
    monkeypatch.setattr(primary_module, "MAX_PAYLOAD_SIZE", 10)
    connection = primary()
    connection.send(Transaction(TID))
    connection.send(Store(OID, TID, b"x" * 10))
    with pytest.raises(LocalProtocolError) as caught:
        connection.send(Store(OID, TID, b"x" * 11))
    assert str(caught.value) == (
        f"cannot send Store of object 0x{OID.hex()}: its record has more than 10 bytes"
    )


class TestManyMessages:
    MESSAGES = [
        Transaction(TID, " ", b"somebody"),
        Store(OID, TID, b"data"),
        Store(OID_2, TID, b"more", None),
        StoreBlob(OID, TID, b"blob", None, 1),
        BlobBlock(b"x"),
        Store(OID, TID, b"data", TID_2),
        Store(OID, TID),
        Commit(),
        Transaction(TID_2),
        Commit(),
    ]

    @pytest.mark.parametrize("protocol", [1, 3])
    def test_they_are_written_as_one_by_one(self, protocol):
        stream = encode(self.MESSAGES, primary(pickle_protocol=protocol))
        assert b"".join(primary(pickle_protocol=protocol).send_all(self.MESSAGES)) == stream
        for size in range(1, 5):
            connection = primary(pickle_protocol=protocol)
            parts = [self.MESSAGES[i : i + size] for i in range(0, 10, size)]
            assert b"".join(b"".join(connection.send_all(part)) for part in parts) == stream

    def test_small_ones_go_together(self):
        small = [Transaction(TID), Store(OID, TID, b"data"), Commit(), Transaction(TID_2)]
        connection = primary()
        assert len(connection.send_all(small)) == 1
        assert len(connection.send_all([Store(OID, TID_2, b"data"), Commit()])) == 1

    def test_records_pass_through_uncopied(self):
        large = Store(OID, TID, bytes(20_000))
        chunks = primary().send_all([self.MESSAGES[0], large, *self.MESSAGES[1:]])
        assert any(each is large.data for each in chunks)
        assert any(each is self.MESSAGES[4].data for each in chunks)

    @pytest.mark.parametrize("protocol", [1, 3])
    def test_an_extension_that_cannot_be_carried_may_be_left_out(self, protocol):
        left_out = []
        messages = [Transaction(TID, " ", b"u", b"d", b"garbage"), Commit(), Transaction(TID_2)]
        connection = primary(pickle_protocol=protocol)
        chunks = connection.send_all(messages, lambda *each: left_out.append(each))
        receiver = secondary()
        receiver.receive_data(b"".join(chunks))
        bare = Transaction(TID, " ", b"u", b"d")
        assert list(receiver.messages()) == [bare, *messages[1:]]
        assert left_out == [(TID, "a line has no end")]
        with pytest.raises(LocalProtocolError, match="a line has no end"):
            primary(pickle_protocol=protocol).send_all(messages)

    @pytest.mark.parametrize("number", range(10))
    def test_one_that_is_illegal_leaves_those_before_it_sent(self, number):
        connection = primary()
        wrong = Store(OID, b"\x03another", b"data")
        with pytest.raises(LocalProtocolError):
            connection.send_all([*self.MESSAGES[:number], wrong])
        rest = b"".join(connection.send_all(self.MESSAGES[number:]))
        assert encode(self.MESSAGES).endswith(rest)


@pytest.mark.parametrize("protocol", [1, 3])
def test_another_thread_may_send_while_the_start_is_read(protocol):
    """It is refused until all of the start is known: the state, the tid and the checksum."""
    messages = [Transaction(TID_2), Store(OID, TID_2, b"data"), Commit()]
    streams = []

    def prepare():
        connection = PrimaryConnection(pickle_protocol=protocol)
        connection.receive_data(framed(b"zrs2.1", TID))

        def send():
            with pytest.raises(LocalProtocolError):
                connection.send(Transaction(TID))
            try:
                streams.append(b"".join(connection.send_all(messages)))
            except LocalProtocolError:
                streams.append(b"")

        return lambda: list(connection.messages()), send

    assert interleavings(prepare) > 20
    found = {*streams}
    assert len(found) == 2
    assert outcome(secondary(start=TID), [max(found, key=len)]) == (messages, None)


@pytest.mark.parametrize("protocol", [1, 3])
def test_signs_of_life_may_be_read_by_another_thread_at_any_time(protocol):
    whole = encode(MESSAGES, primary(pickle_protocol=protocol))
    streams, heard = [], []

    def prepare():
        connection = primary(pickle_protocol=protocol)

        def hear():
            connection.receive_data(framed(b""))
            heard.extend(connection.messages())

        return lambda: streams.append(b"".join(connection.send_all(MESSAGES))), hear

    count = interleavings(prepare)
    assert count > 50
    assert heard == [KeepAlive()] * count
    assert streams == [whole] * (count + 1)
