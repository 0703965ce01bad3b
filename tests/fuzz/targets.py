"""What is fuzzed: each target takes any bytes, and raises if something that must hold does not.

What must hold everywhere: no exception but the documented ones; a message only where the state
table allows it; the same whether a stream comes whole, in pieces or byte by byte; an error that
stays, with nothing kept of what follows it; and nothing that was not committed to be seen.
"""

from __future__ import annotations

import io
import pickle
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from zrs_core.addresses import parse_address
from zrs_core.codec import PrimaryConnection, SecondaryConnection, extension, patterns
from zrs_core.codec.connection import Connection
from zrs_core.codec.framing import FrameReader
from zrs_core.codec.opcodes import PickleError
from zrs_core.codec.pickles import WRITERS, RecordHeader, decode
from zrs_core.errors import InvalidMessage, LimitExceeded, LocalProtocolError, RemoteProtocolError
from zrs_core.messages import (
    MAX_METADATA_SIZE,
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
from zrs_core.options import ClientOptions
from zrs_core.sessions import ReplicationClient

from .model import Order

TIDS = tuple(bytes((3, 0, 0, 0, 0, 0, 0, number)) for number in range(1, 17))
OID = b"\0" * 7 + b"\1"


class Fault(Exception):
    """Something that must hold does not."""


def check(holds: object, what: str, *values: object) -> None:
    """:raises Fault: not `holds`; `values` tell more."""
    if not holds:
        raise Fault("; ".join((what, *map(repr, values))))


# -- what the targets share


def in_pieces(stream: bytes, seed: int) -> list[bytes]:
    """`stream` cut at random, or byte by byte if it is short."""
    if len(stream) <= 64 or (seed == 0 and len(stream) <= 4096):
        return [stream[at : at + 1] for at in range(len(stream))]
    chance = random.Random(seed)
    pieces = []
    begin = 0
    while begin < len(stream):
        end = begin + chance.choice((1, 3, 4, 5, 30, 400, 70_000))
        pieces.append(stream[begin:end])
        begin = end
    return pieces


def outcome(connection: Connection[Any], pieces: Sequence[bytes]) -> tuple[list[Any], Any]:
    """All that can be seen of a stream that comes in `pieces` and ends."""
    messages: list[Any] = []
    for piece in pieces:
        connection.receive_data(piece)
        if not _take(connection, messages):
            break
    else:
        connection.receive_eof()
        _take(connection, messages)
    error = connection.error
    check(connection.at_eof is (error is None), "the end is a good one or an error")
    if error is None:
        return messages, None
    _check_that_it_stays(connection, error)
    return messages, (type(error), str(error), error.tid, error.offset)


def _take(connection: Connection[Any], messages: list[Any]) -> bool:
    """Take the messages that are complete; whether there was no error."""
    try:
        messages.extend(connection.messages())
    except RemoteProtocolError as error:
        check(connection.error is error, "the error is kept")
        return False
    return True


def _check_that_it_stays(connection: Connection[Any], error: RemoteProtocolError) -> None:
    if not connection._eof:
        connection.receive_data(b"\0\0\0\0 and more")
    check(connection._frames.waiting == 0, "nothing is kept after an error")
    try:
        connection.next_message()
    except RemoteProtocolError as again:
        check(again is error, "the first error stays")
    else:
        raise Fault("nothing is read after an error")


def compare(
    connect: Callable[[], Connection[Any]], stream: bytes, seed: int
) -> tuple[list[Any], Any]:
    """The outcome of a stream, however it comes."""
    whole = outcome(connect(), [stream])
    pieces = outcome(connect(), in_pieces(stream, seed))
    check(whole == pieces, "the same whole and in pieces", whole, pieces)
    return whole


def _joined(
    word: str, start: bytes, pickle_protocol: int = 3
) -> tuple[PrimaryConnection, SecondaryConnection]:
    """Both ends of a connection on which the primary may speak."""
    primary = PrimaryConnection(blobs=word == "zrs2.1", pickle_protocol=pickle_protocol)
    secondary = SecondaryConnection(checksums="require")
    primary.receive_data(secondary.send(Hello(word)) + secondary.send(Start(start)))
    list(primary.messages())
    return primary, secondary


def _without_extension(message: object) -> object:
    if isinstance(message, Transaction):
        return Transaction(message.tid, message.status, message.user, message.description)
    return message


# -- pickles


class _NotKnown(Exception):
    """The pickle asks for more than the two calls that make bytes."""


def _encode(*arguments: object) -> bytes:
    if len(arguments) == 2 and isinstance(arguments[0], str) and arguments[1] == "latin1":
        return arguments[0].encode("latin-1")
    raise _NotKnown


def _no_bytes(*arguments: object) -> bytes:
    if arguments:
        raise _NotKnown
    return b""


_CALLS = {
    ("_codecs", "encode"): _encode,
    ("__builtin__", "bytes"): _no_bytes,
    ("builtins", "bytes"): _no_bytes,
}


class _Loader(pickle.Unpickler):
    """Python's own reading of a pickle, without its imports and calls."""

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _CALLS[module, name]
        except KeyError:
            raise _NotKnown from None


def _load(payload: bytes) -> Any:
    """:raises Exception: it is not known what Python would make of it."""
    return _Loader(io.BytesIO(payload), fix_imports=False, encoding="bytes").load()


def _read(payload: bytes) -> Transaction | RecordHeader | Store | Commit | None:
    try:
        message = decode(payload)
        if isinstance(message, RecordHeader):
            message.with_data(b"")
    except (PickleError, InvalidMessage):
        return None
    return message


def _find_nothing(payload: bytes) -> None:
    return None


def pickles(data: bytes) -> None:
    """Any bytes as a pickled message, and as the extension of a stored transaction."""
    message = _read(data)
    find = patterns.find
    patterns.find = _find_nothing
    try:
        slowly = _read(data)
    finally:
        patterns.find = find
    check(message == slowly, "the fast and the slow way agree")
    check(_digest(message) == _digest(slowly), "the fast and the slow way agree on checksums")
    if message is not None:
        _check_with_python(data, message)
    if isinstance(message, Transaction):
        _check_written(message)
    if len(data) <= MAX_METADATA_SIZE:
        _check_stored(data)


def _digest(message: object) -> bytes | None:
    return message.checksum if isinstance(message, Commit) else None


def _check_with_python(payload: bytes, message: object) -> None:
    try:
        tag, fields = _load(payload)
    except Exception:
        return
    if isinstance(tag, bytes):
        tag = tag.decode("ascii")
    match message:
        case Transaction():
            tid, status, user, description, stored = fields
            if isinstance(status, bytes):
                status = status.decode("latin-1")
            found: Any = (message.tid, message.status, message.user, message.description)
            expected: Any = (tid, status, user, description)
            _check_extension(message.extension, stored)
        case RecordHeader():
            found = tuple(message)
            expected = (*fields[:2], *fields[3:4], fields[4] if tag == "B" else None)
        case Store():
            found = (message.oid, message.serial, message.data, message.data_txn)
            expected = (*fields[:2], fields[3] or b"", fields[4])
        case _:
            found, expected = _digest(message), fields[0] if fields else None
    check(found == expected, "what Python reads", message, expected)


def _check_extension(found: bytes, expected: object) -> None:
    try:
        value = _load(found or b"}.")
    except Exception:
        return
    check(repr(value) == repr(expected), "the extension is kept", value, expected)


def _check_written(message: Transaction) -> None:
    """What may be received may be sent, and is received again."""
    if message.tid == NO_TID:
        return
    again = decode(WRITERS[3].transaction(message))
    check(again == message, "a message comes as it was sent", again, message)
    again = decode(WRITERS[1].transaction(message))
    check(
        _without_extension(again) == _without_extension(message),
        "a message in protocol 1 comes as it was sent",
        again,
        message,
    )


def _check_stored(stored: bytes) -> None:
    try:
        extension.splice(stored)
    except PickleError:
        spliced = False
    else:
        spliced = True
    try:
        extension.for_protocol_1(stored)
    except PickleError:
        check(not spliced, "an extension can be written in both protocols or in none")
    else:
        check(spliced, "an extension can be written in both protocols or in none")
    if spliced and stored:
        message = decode(WRITERS[3].transaction(Transaction(TIDS[0], extension=stored)))
        _check_kept(message, stored)


def _check_kept(message: object, stored: bytes) -> None:
    check(isinstance(message, Transaction), "a T is a T")
    if message.extension == stored:
        return
    # An empty dict is kept as no extension at all; frames are made again, one around the whole.
    try:
        value = _load(stored)
    except Exception:
        return
    _check_extension(message.extension, value)


# -- framing

_FRAME_LIMITS = (0, 1, 8, 64, 1024, 2**32 - 1)


def framing(data: bytes) -> None:
    """A limit and a seed for the pieces, a byte each, then a stream of messages."""
    limit = _FRAME_LIMITS[data[0] % len(_FRAME_LIMITS)] if data else 0
    seed = data[1] if data[1:] else 0
    stream = data[2:]
    expected = list(_cut(stream, limit))
    for pieces in [stream], in_pieces(stream, seed):
        _check_frames(pieces, limit, expected)


def _cut(stream: bytes, limit: int) -> Iterator[tuple[int, bytes | None]]:
    """Where each message begins, and its payload; None if it is too long."""
    at = 0
    while len(stream) - at >= 4:
        size = int.from_bytes(stream[at : at + 4], "big")
        if size > limit:
            yield at, None
            return
        if len(stream) - at - 4 < size:
            return
        yield at, stream[at + 4 : at + 4 + size]
        at += 4 + size


def _check_frames(
    pieces: Sequence[bytes], limit: int, expected: list[tuple[int, bytes | None]]
) -> None:
    reader = FrameReader()
    found: list[tuple[int, bytes | None]] = []
    fed = taken = 0
    for piece in pieces:
        reader.feed(piece)
        fed += len(piece)
        try:
            while (payload := reader.take(limit)) is not None:
                found.append((reader.offset, payload))
                taken += 4 + len(payload)
        except LimitExceeded:
            found.append((reader.offset, None))
            break
        finally:
            check(reader.waiting == fed - taken, "what is held is what was fed and not taken")
        check(reader.offset == taken, "the offset is that of the message that is not complete")
    check(found == expected, "the stream is cut where it says", found, expected)
    reader.discard()
    check(reader.waiting == 0 and reader.announced() is None, "nothing is left")


# -- the secondary's end


class _Options(NamedTuple):
    """How a secondary listens, as the first byte of an input says; the second seeds the pieces."""

    word: str
    checksums: str
    start: bytes
    limits: dict[str, int]

    def connection(self) -> SecondaryConnection:
        connection = SecondaryConnection(checksums=self.checksums, **self.limits)
        connection.send(Hello(self.word))
        connection.send(Start(self.start))
        return connection


_POLICIES = ("verify", "require", "ignore", "ignore")
_SMALL = {"max_pickle_size": 200, "max_record_size": 40, "max_blob_blocks": 2}


def options_of(data: bytes) -> _Options:
    bits = data[0] if data else 0
    return _Options(
        word="zrs2.0" if bits & 1 else "zrs2.1",
        checksums=_POLICIES[bits >> 1 & 3],
        start=(NO_TID, TIDS[0])[bits >> 3 & 1],
        limits=_SMALL if bits >> 4 & 3 == 3 else {},
    )


def secondary(data: bytes) -> None:
    """Options and a seed for the pieces, a byte each, then what a primary sends."""
    options = options_of(data)
    messages, _ = compare(options.connection, data[2:], data[1] if data[1:] else 0)
    order = Order(options.start, options.word == "zrs2.1")
    for message in messages:
        check(order.allows(message), "a message has its place", message, messages)
    if messages:
        _send_on(messages, options)


def _send_on(messages: list[Any], options: _Options) -> None:
    """What may be received may be sent, and is received again."""
    protocol = 1 if len(messages) % 8 == 3 else 3
    primary, receiver = _joined(options.word, options.start, protocol)
    receiver.receive_data(b"".join(primary.send_all(messages)))
    again = list(receiver.messages())
    if protocol == 1:
        again, messages = (list(map(_without_extension, each)) for each in (again, messages))
    check(again == messages, "messages come as they were sent", again, messages)


# -- the primary's end


def primary(data: bytes) -> None:
    """Options, a seed, the size of what a secondary says, that, then what is to be sent."""
    bits, seed, size = (*data[:3], 0, 0, 0)[:3]
    heard = data[3 : 3 + size]
    blobs, protocol = bool(bits & 1), 1 if bits & 2 else 3

    def connect() -> PrimaryConnection:
        return PrimaryConnection(blobs=blobs, pickle_protocol=protocol)

    messages, _ = compare(connect, heard, seed)
    kinds = [Hello, Start, *[KeepAlive] * len(messages)]
    check(
        all(type(message) is kind for message, kind in zip(messages, kinds, strict=False)),
        "a greeting is in order",
        messages,
    )
    connection = connect()
    connection.receive_data(heard)
    _take(connection, [])
    _check_sending(connection, messages, list(to_send(data[3 + size :])), protocol)


def _check_sending(
    connection: PrimaryConnection, heard: list[Any], messages: list[Any], protocol: int
) -> None:
    """What is out of order is refused and changes nothing; the rest comes as it was sent."""
    started = len(heard) >= 2
    word, start = (heard[0].protocol, heard[1].tid) if started else ("zrs2.1", NO_TID)
    order = Order(start, word == "zrs2.1")
    stream = b""
    sent = []
    for message in messages:
        legal = started and not _is_bad(message) and order.allows(message)
        try:
            stream += connection.send(message)
        except LocalProtocolError:
            check(not legal, "it may be sent after these", message, sent)
        else:
            check(legal, "it may not be sent after these", message, sent)
            sent.append(message)
    if not started:
        return
    sender, receiver = _joined(word, start, protocol)
    check(b"".join(sender.send_all(sent)) == stream, "the same one by one and at once", sent)
    receiver.receive_data(stream)
    found = list(receiver.messages())
    sent = [_as_received(message) for message in sent]
    if protocol == 1:
        found, sent = (list(map(_without_extension, each)) for each in (found, sent))
    check(found == sent, "messages come as they were sent", found, sent)


def _as_received(message: object) -> object:
    """An empty dict is no extension."""
    if isinstance(message, Transaction) and message.extension == b"}.":
        return Transaction(message.tid, message.status, message.user, message.description)
    return message


def _is_bad(message: object) -> bool:
    return isinstance(message, Transaction) and message.extension in _BAD_EXTENSIONS


_EXTENSIONS = (
    b"",
    b"}.",
    pickle.dumps({"key": [1, 2.5, None, "text", b"bytes"]}, 0),
    pickle.dumps({"key": ["x", b"x", (True,)]}, 3),
    pickle.dumps({"key": {1, 2}, "again": "key"}, 4),
    b"}U\3keyU\5valuesq\1h\1b.",
)
_BAD_EXTENSIONS = (b"].", b"}", b"}..", b"\x80\x06}.", b"no pickle", b"c__builtin__\neval\n(tR")


def to_send(script: bytes) -> Iterator[Any]:
    """Messages, a few bytes each: what they are, then small numbers for what is in them.

    Every message that a primary can build comes of some script, and bad extensions too.
    """
    numbers = iter(script)
    for kind in numbers:
        first, second = next(numbers, 0), next(numbers, 0)
        tid = TIDS[first % len(TIDS)]
        data = bytes((second,)) * (second % 40)
        data_txn = TIDS[second % len(TIDS)] if second & 64 else None
        match kind % 8:
            case 0 | 1:
                stored = (_EXTENSIONS * 2 + _BAD_EXTENSIONS)[second % 18]
                yield Transaction(tid, " pu"[second % 3], data, data * 8, stored)
            case 2 | 3:
                yield Store(OID, tid, data, data_txn)
            case 4:
                yield StoreBlob(OID, tid, data, data_txn, second % 4)
            case 5:
                yield BlobBlock(bytes(65_536) if second % 3 == 0 else data or b"a block")
            case 6:
                yield Commit()
            case _:
                yield KeepAlive()


# -- a session, and what of a stream can be seen behind it


def _whole(messages: list[Any]) -> int:
    """How many messages belong to whole transactions."""
    return max((at for at, each in enumerate(messages, 1) if type(each) is Commit), default=0)


class _Store:
    """A sink in memory: all or nothing, and what it holds can be looked at."""

    def __init__(self, start: bytes, blobs: bool) -> None:
        self.blobs = blobs
        self.seen: list[Any] = []
        self.unseen: list[Any] = []
        self._start = start

    def last_tid(self) -> bytes:
        return self._start

    def apply(self, message: object) -> None:
        self.unseen.append(message)

    def flush(self) -> None:
        whole = _whole(self.unseen)
        self.seen += self.unseen[:whole]
        del self.unseen[:whole]

    def abort(self) -> None:
        self.unseen.clear()


_ADDRESS = parse_address("127.0.0.1:1")


def session(data: bytes) -> None:
    """Options and a seed for the pieces, a byte each, then what a primary sends to a session."""
    options = options_of(data)
    reader = SecondaryConnection(
        checksums=options.checksums, max_record_size=_record_limit(options)
    )
    reader.send(Hello(options.word))
    reader.send(Start(options.start))
    messages, _ = outcome(reader, [data[2:]])
    whole = _whole(messages)
    store = _Store(options.start, options.word == "zrs2.1")
    client = ReplicationClient(
        store,
        _ADDRESS,
        options=ClientOptions(checksums=options.checksums, max_record_size=_record_limit(options)),
    )
    end = client.session("peer")
    end.greeting()
    for piece in in_pieces(data[2:], data[1] if data[1:] else 0):
        end.receive_data(piece)
        check(not any(type(each) is Commit for each in store.unseen), "what is whole is seen")
    end.receive_eof()
    check(end.finished, "the end of the stream ends the session")
    end.close("the end")
    check(store.seen == messages[:whole], "what was committed is seen, and nothing else")
    check(not store.unseen, "nothing is left of what was not committed")
    check(not client.turn.locked(), "the next session may begin")


def _record_limit(options: _Options) -> int:
    return options.limits.get("max_record_size", 2**30)


TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target for target in (pickles, framing, primary, secondary, session)
}
