"""Fuzz targets: each function in `TARGETS` accepts any bytes, and raises `Fault` on a bug.

They check the codec: it raises no exception but the documented ones; a message comes out only
where the state table allows it; a stream gives the same whether it comes whole, in pieces or byte
by byte; an error stays, and nothing that follows it is kept; a message that was received can be
sent.

Targets for your own code compare it with the codec, see `zrs_core.testing.outcomes`.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Any, Final, NamedTuple

from ..codec import PrimaryConnection, SecondaryConnection, extension
from ..codec.framing import FrameReader
from ..codec.opcodes import PickleError
from ..codec.pickles import WRITERS, RecordHeader, decode, decode_opcodes
from ..errors import InvalidMessage, LimitExceeded, LocalProtocolError
from ..messages import (
    MAX_METADATA_SIZE,
    NO_TID,
    BlobBlock,
    Commit,
    Hello,
    KeepAlive,
    PrimaryMessage,
    Start,
    Store,
    StoreBlob,
    Transaction,
)
from . import mutations
from .order import Order
from .outcomes import Fault, check, compare, in_pieces, listening, speaking, take

#: The tids in seeds and inputs, in rising order.
TIDS: Final = tuple(bytes((3, 0, 0, 0, 0, 0, 0, number)) for number in range(1, 17))
OID: Final = b"\0" * 7 + b"\1"


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


_Decoded = Transaction | RecordHeader | Store | Commit


def _read(payload: bytes, decode: Callable[[bytes], _Decoded]) -> _Decoded | None:
    try:
        message = decode(payload)
        if isinstance(message, RecordHeader):
            message.with_data(b"")
    except (PickleError, InvalidMessage):
        return None
    return message


def pickles(data: bytes) -> None:
    """Read any bytes as a pickled message, and as the extension of a stored transaction.

    :raises Fault: the codec is wrong.
    """
    message = _read(data, decode)
    slowly = _read(data, decode_opcodes)
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
    except Exception:  # noqa: BLE001, an unpickler raises anything
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
    except Exception:  # noqa: BLE001, an unpickler raises anything
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
    if not isinstance(message, Transaction):
        raise Fault("a T is a T")
    if message.extension == stored:
        return
    # An empty dict is kept as no extension at all; frames are made again, one around the whole.
    try:
        value = _load(stored)
    except Exception:  # noqa: BLE001, an unpickler raises anything
        return
    _check_extension(message.extension, value)


def _without_extension(message: object) -> object:
    if isinstance(message, Transaction):
        return Transaction(message.tid, message.status, message.user, message.description)
    return message


# -- framing

_FRAME_LIMITS = (0, 1, 8, 64, 1024, 2**32 - 1)


def framing(data: bytes) -> None:
    """Cut any bytes into messages.

    :param data: a limit for their size and a seed for the pieces, a byte each, then the stream.
    :raises Fault: the codec is wrong.
    """
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


class Options(NamedTuple):
    """Options of a secondary's end, from the first byte of an input."""

    word: str
    checksums: str
    start: bytes
    limits: dict[str, int]

    def connection(self) -> SecondaryConnection:
        """Return a secondary's end with these options, which listens."""
        return listening(self.word, self.start, checksums=self.checksums, **self.limits)


_POLICIES = ("verify", "require", "ignore", "ignore")
_SMALL = {"max_pickle_size": 200, "max_record_size": 40, "max_blob_blocks": 2}


def options_of(data: bytes) -> Options:
    """Return the options that an input of `secondary` begins with."""
    bits = data[0] if data else 0
    return Options(
        word="zrs2.0" if bits & 1 else "zrs2.1",
        checksums=_POLICIES[bits >> 1 & 3],
        start=(NO_TID, TIDS[0])[bits >> 3 & 1],
        limits=_SMALL if bits >> 4 & 3 == 3 else {},
    )


def secondary(data: bytes) -> None:
    """Let a secondary's end read any bytes.

    :param data: options and a seed for the pieces, a byte each, then what a primary sends.
    :raises Fault: the codec is wrong.
    """
    options = options_of(data)
    messages, _ = compare(options.connection, data[2:], data[1] if data[1:] else 0)
    order = Order(options.start, options.word == "zrs2.1")
    for message in messages:
        check(order.allows(message), "a message has its place", message, messages)
    if messages:
        _send_on(messages, options)


def _ends(
    word: str, start: bytes, pickle_protocol: int
) -> tuple[PrimaryConnection, SecondaryConnection]:
    """Return both ends of a connection on which the primary may speak."""
    blobs = word == "zrs2.1"
    return (
        speaking(word, start, blobs=blobs, pickle_protocol=pickle_protocol),
        listening(word, start, checksums="require"),
    )


def _send_on(messages: list[Any], options: Options) -> None:
    """What may be received may be sent, and is received again."""
    protocol = 1 if len(messages) % 8 == 3 else 3
    primary, receiver = _ends(options.word, options.start, protocol)
    receiver.receive_data(b"".join(primary.send_all(messages)))
    again: list[object] = list(receiver.messages())
    if protocol == 1:
        again, messages = (list(map(_without_extension, each)) for each in (again, messages))
    check(again == messages, "messages come as they were sent", again, messages)


# -- the primary's end


def primary(data: bytes) -> None:
    """Let a primary's end read any bytes, and send messages in any order.

    :param data: options, a seed for the pieces and the size of what a secondary says, a byte each;
        that; then a script for `to_send`.
    :raises Fault: the codec is wrong.
    """
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
    take(connection, [])
    _check_sending(connection, messages, list(to_send(data[3 + size :])), protocol)


def _check_sending(
    connection: PrimaryConnection, heard: list[Any], messages: list[Any], protocol: int
) -> None:
    """What is out of order is refused and changes nothing; the rest comes as it was sent."""
    started = len(heard) >= 2
    word, start = (heard[0].protocol, heard[1].tid) if started else ("zrs2.1", NO_TID)
    order = Order(start, word == "zrs2.1")
    stream = b""
    sent: list[PrimaryMessage] = []
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
    sender, receiver = _ends(word, start, protocol)
    check(b"".join(sender.send_all(sent)) == stream, "the same one by one and at once", sent)
    receiver.receive_data(stream)
    found: list[object] = list(receiver.messages())
    expected: list[object] = [_as_received(message) for message in sent]
    if protocol == 1:
        found, expected = (list(map(_without_extension, each)) for each in (found, expected))
    check(found == expected, "messages come as they were sent", found, expected)


def _as_received(message: PrimaryMessage) -> PrimaryMessage:
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
    """Yield messages, each from three bytes: its kind, then small numbers for what is in it.

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


TARGETS: Final[dict[str, Callable[[bytes], None]]] = {
    target.__name__: target for target in (pickles, framing, primary, secondary)
}


def vary(target: str, data: bytes, random: Random) -> bytes:
    """Return another input for a target, near `data`. A custom mutator of a fuzzer calls it.

    :param target: a name in `TARGETS`.
    """
    if target == "secondary":
        head = data[:2].ljust(2, b"\0")
        return head + mutations.damage_stream(data[2:], random, options_of(head).start)
    if target == "pickles":
        return mutations.damage_payload(data, random)
    return mutations.damage_bytes(data, random)
