import pickle
import pickletools
import warnings

from hypothesis import given, settings
from hypothesis import strategies as st

from zrs_core.codec import PrimaryConnection, opcodes
from zrs_core.codec.opcodes import OPAQUE, PickleError
from zrs_core.codec.pickles import RecordHeader, decode, decode_opcodes
from zrs_core.errors import InvalidMessage, RemoteProtocolError
from zrs_core.messages import BlobBlock, Commit, Hello, Start, Store, StoreBlob, Transaction
from zrs_core.testing import strategies

from . import opcode_strategies
from .helpers import (
    OID,
    TID,
    TID_2,
    bytewise,
    encode,
    fast_pickle,
    framed,
    in_python_2,
    outcome,
    pieces,
    primary,
    python2_pickle,
    secondary,
    take_all,
)

MD5 = bytes(16)

dumpers = st.sampled_from([pickle.dumps, fast_pickle])
protocols = st.integers(0, 5)

SAMPLE = [
    Transaction(TID, " ", b"user", b"text", pickle.dumps({"key": ["x", b"x", 1]}, 3)),
    Store(OID, TID, b"data", TID),
    StoreBlob(OID, TID, b"blob record", None, 1),
    BlobBlock(b"blob"),
    Commit(),
    Transaction(TID_2, "p", extension=pickle.dumps({"key": 1.5, "more": {1, 2}}, 4)),
    Commit(),
]

PICKLED = [
    ("T", (TID, " ", b"user", b"text", {})),
    ("T", (TID, "p", b"user", b"user", {"who": b"user", "when": [1, (2.5, None)]})),
    ("S", (OID, TID, "", None)),
    ("S", (OID, TID, "", b"data", TID)),
    ("B", (OID, TID, "", TID, 3)),
    ("C", (MD5,)),
    ("C", ()),
]

PAYLOADS = [
    *(pickle.dumps(value, protocol) for value in PICKLED for protocol in range(6)),
    *(fast_pickle(value, protocol) for value in PICKLED for protocol in (1, 3, 4)),
    *(python2_pickle(in_python_2(value)) for value in PICKLED),
    *(python2_pickle(in_python_2(value), memo=True) for value in PICKLED),
]

STREAMS = [
    encode(SAMPLE),
    encode(SAMPLE, primary(pickle_protocol=1)),
    framed(
        *(python2_pickle(in_python_2(value), memo=True) for value in PICKLED[1:3]),
        b"data",
        python2_pickle(in_python_2(PICKLED[3]), memo=True),
        python2_pickle((b"C", ())),
    ),
]

HELLO = framed(b"zrs2.1", TID, b"", b"")


def without_extension(messages):
    return [
        Transaction(message.tid, message.status, message.user, message.description)
        if isinstance(message, Transaction)
        else message
        for message in messages
    ]


@given(st.data())
def test_transactions_are_read_as_they_were_sent(data):
    messages = data.draw(strategies.transactions())
    stream = encode(messages)
    fed = pieces(stream, data.draw(strategies.cuts(stream)))
    assert outcome(secondary(checksums="require"), fed) == (messages, None)


@given(st.data())
def test_transactions_in_protocol_1_mean_what_was_sent(data):
    messages = data.draw(strategies.transactions())
    stream = encode(messages, primary(pickle_protocol=1))
    fed = pieces(stream, data.draw(strategies.cuts(stream)))
    found, error = outcome(secondary(checksums="require"), fed)
    assert error is None
    assert without_extension(found) == without_extension(messages)
    for there, here in zip(found, messages, strict=True):
        if isinstance(here, Transaction) and here.extension:
            assert same(pickle.loads(there.extension), pickle.loads(here.extension))


def same(left, right):
    return repr(left) == repr(right)


@settings(max_examples=50)
@given(strategies.transactions(blobs=False))
def test_transactions_are_the_same_byte_by_byte(messages):
    stream = encode(messages)
    assert outcome(secondary(), bytewise(stream)) == (messages, None)


@settings(max_examples=50)
@given(strategies.transactions(blobs=False))
def test_without_blobs_all_of_it_goes_in_the_older_dialect(messages):
    stream = encode(messages, primary("zrs2.0", blobs=False))
    assert outcome(secondary("zrs2.0"), [stream]) == (messages, None)


def check_any_cuts(connect, stream, cuts):
    """Whatever `stream` is, what comes out does not depend on how it comes in."""
    whole = outcome(connect(), [stream])
    assert outcome(connect(), pieces(stream, cuts)) == whole
    messages, error = whole
    assert error is None or issubclass(error[0], RemoteProtocolError)
    return messages


def send_on(messages):
    """What may be received may be sent, and is received again."""
    receiver = secondary()
    receiver.receive_data(encode(messages))
    assert take_all(receiver) == messages
    receiver = secondary()
    receiver.receive_data(encode(messages, primary(pickle_protocol=1)))
    assert without_extension(take_all(receiver)) == without_extension(messages)


@given(st.data())
def test_any_bytes_make_messages_or_an_error_at_a_secondary(data):
    stream = data.draw(st.binary() | st.lists(st.binary()).map(lambda each: framed(*each)))
    check_any_cuts(secondary, stream, data.draw(strategies.cuts(stream)))


@given(st.data())
def test_any_bytes_make_messages_or_an_error_at_a_primary(data):
    beginning = data.draw(st.sampled_from([HELLO[:size] for size in (0, 9, 10, 22, 26, 30)]))
    stream = beginning + data.draw(
        st.binary() | st.lists(st.binary(max_size=9)).map(lambda each: framed(*each))
    )
    messages = check_any_cuts(PrimaryConnection, stream, data.draw(strategies.cuts(stream)))
    assert [type(message) for message in messages[:2]] == [Hello, Start][: len(messages)]


@given(st.data())
def test_damaged_words_make_messages_or_an_error_at_a_primary(data):
    stream = data.draw(strategies.mutated(st.just(HELLO)))
    check_any_cuts(PrimaryConnection, stream, data.draw(strategies.cuts(stream)))


@settings(max_examples=150)
@given(st.data())
def test_damaged_streams_make_messages_or_an_error_at_a_secondary(data):
    stream = data.draw(strategies.mutated(st.sampled_from(STREAMS) | strategies.from_primary()))
    messages = check_any_cuts(
        lambda: secondary(checksums="ignore"), stream, data.draw(strategies.cuts(stream))
    )
    send_on(messages)


def read_or_refuse(payload, decode=decode):
    """The message in a pickle, its fields checked, or None."""
    try:
        message = decode(payload)
        if isinstance(message, RecordHeader):
            message.with_data(b"")
    except (PickleError, InvalidMessage):
        return None
    return message


def check_both_ways(payload):
    """The fast and the slow way to read a pickle agree."""
    found = read_or_refuse(payload)
    slowly = read_or_refuse(payload, decode_opcodes)
    assert found == slowly
    assert getattr(found, "checksum", None) == getattr(slowly, "checksum", None)
    return found


@settings(max_examples=150)
@given(strategies.damaged(st.sampled_from(PAYLOADS)))
def test_a_damaged_pickle_is_a_message_or_refused(payload):
    message = check_both_ways(payload)
    if isinstance(message, Transaction) and message.tid > bytes(8):
        send_on([message])


values_of_fields = st.sampled_from([OID, TID, b"", b"x" * 9, MD5, "", "x", None, 0, 3, 2**32])
shapes = st.tuples(
    st.sampled_from("TSBCX"),
    st.lists(values_of_fields | strategies.ids, max_size=6).map(tuple),
)
T_shapes = st.tuples(
    st.just("T"),
    st.tuples(
        strategies.ids,
        st.sampled_from(" puc"),
        strategies.texts,
        strategies.texts,
        st.just({}) | strategies.extension_dicts,
    ),
)
S_shapes = st.tuples(
    st.just("S"),
    st.tuples(strategies.ids, strategies.ids, st.just(""), st.none() | strategies.ids),
)
B_shapes = st.tuples(
    st.just("B"),
    st.tuples(
        strategies.ids,
        strategies.ids,
        st.just(""),
        st.none() | strategies.ids,
        st.integers(-1, 2**32) | st.integers(0, 300),
    ),
)
C_shapes = st.tuples(st.just("C"), st.tuples(st.binary(min_size=15, max_size=16)))
any_shape = shapes | T_shapes | S_shapes | B_shapes | C_shapes


@settings(max_examples=100)
@given(any_shape, dumpers, protocols)
def test_what_python_pickles_is_read_as_the_message_it_is(value, dumps, protocol):
    payload = dumps(value, protocol)
    found = check_both_ways(payload)
    match found, value:
        case Transaction(), (_, (*fixed, _)):
            assert [found.tid, found.status, found.user, found.description] == fixed
            assert same(pickle.loads(found.extension or b"}."), pickle.loads(payload)[1][4])
        case RecordHeader(), (_, (oid, serial, _, data_txn, *blocks)):
            assert found == (oid, serial, data_txn, *(blocks or [None]))
        case Store(), (_, (oid, serial, _, data, data_txn)):
            assert found == Store(oid, serial, data or b"", data_txn)
        case Commit(), (_, md5):
            assert (found.checksum,) == (md5 or (None,))
        case None, _:
            assert not is_valid(value)


def is_valid(value):
    """Whether one of our own messages could be built from `value`."""
    try:
        match value:
            case ("T", (tid, status, user, description, {})):
                Transaction(tid, status, user, description)
            case ("S", (oid, serial, "" | b"", data_txn)):
                Store(oid, serial, b"", data_txn)
            case ("S", (oid, serial, "" | b"", data, data_txn)):
                Store(oid, serial, b"" if data is None else data, data_txn)
            case ("B", (oid, serial, "" | b"", data_txn, blocks)):
                StoreBlob(oid, serial, b"", data_txn, blocks)
            case ("C", (bytes(md5),)):
                Commit(md5)
            case ("C", ()):
                Commit()
            case _:
                return False
    except InvalidMessage:
        return False
    return True


@given(S_shapes | B_shapes | C_shapes | T_shapes)
def test_what_python_2_peers_pickle_is_read_both_ways(value):
    tag, fields = value
    if tag == "T":
        fields = (*fields[:4], {})
    for memo in (False, True):
        check_both_ways(python2_pickle(in_python_2((tag, fields)), memo=memo))


def holds_opaque(value):
    if isinstance(value, (tuple, list)):
        return any(map(holds_opaque, value))
    return value is OPAQUE


def throws_away(payload):
    """Whether something that Python could not make may have been taken from the stack again."""
    return any(opcode.name in ("POP", "POP_MARK") for opcode, _, _ in pickletools.genops(payload))


@settings(max_examples=150)
@given(opcode_strategies.plain_opcodes | opcode_strategies.programs(plain=True))
def test_opcodes_in_any_order_are_refused_or_read_as_python_reads_them(sequence):
    payload = sequence + b"."
    try:
        message = opcodes.read(payload)
    except PickleError:
        return
    value = message.root.value
    if holds_opaque(value) or message.shares_containers:
        return
    try:
        loaded = pickle.loads(payload, encoding="bytes")
    except Exception:
        assert throws_away(payload)
    else:
        assert same(loaded, value)


def transaction_around(body):
    """A T whose four fields fill the memo from 1 to 4, and whose extension is `body`."""
    return b"\x80\4(VT\n(C\x08\3tid-oneq\1V \nq\2C\1uq\3C\0q\4" + body + b"tt."


@settings(max_examples=100)
@given(opcode_strategies.opcodes, st.sampled_from([b"", b"0}", b"1}", b"}"]))
def test_opcodes_in_any_order_in_a_transaction_are_refused_or_can_be_sent_on(sequence, ending):
    message = check_both_ways(transaction_around(sequence + ending))
    if message is not None:
        send_on([message])


@settings(max_examples=150)
@given(opcode_strategies.programs(memo=range(1, 5)))
def test_opcodes_in_a_sensible_order_in_an_extension_are_carried(program):
    message = check_both_ways(transaction_around(b"}Vkey\n" + program + b"s"))
    if message is not None:
        assert message.extension.endswith(program + b"s.")
        send_on([message])


@settings(max_examples=50)
@given(strategies.extension_dicts, protocols)
def test_an_extension_that_shares_values_with_the_fields_is_cut_out_whole(extension, protocol):
    user = b"user of the field"
    extension = {**extension, "user": user, "status": " ", "twice": [user, user]}
    payload = pickle.dumps(("T", (TID, " ", user, user, extension)), protocol)
    found = decode(payload)
    assert same(pickle.loads(found.extension), pickle.loads(payload)[1][4])
    send_on([found])


def test_no_warning_is_given_for_any_of_the_samples():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for payload in PAYLOADS:
            assert decode(payload) is not None
