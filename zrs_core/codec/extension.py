"""A transaction's extension: a pickle of its own in the storage, a part of a pickle on the wire.

In T the extension is the fifth field of a tuple; ZODB keeps it as the pickle of a dict. It is cut
out and put in as bytes, never loaded, so that what a storage here holds arrives bit for bit
(protocol, section 4)::

    stored      [PROTO p] [FRAME n]  body  STOP
    on the wire [PROTO p] [FRAME n]  'T' (tid status user description  body ) STOP

T's own fields use no memo, so the memo of the body keeps its numbers. A peer whose pickles do use
one (Python's defaults; the older dialect) may refer from inside the extension to what it stored
before; `cut_out` then puts those entries in front of the body, each popped again.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Collection
from io import BytesIO
from typing import Final, NamedTuple

from ..messages import MAX_METADATA_SIZE
from .opcodes import MAX_DEPTH, OPAQUE, MemoWrite, Node, Pickle, PickleError, read

PROTO: Final = 0x80
_FRAME_SIZE: Final = 9
_STOP: Final = b"."
# T puts two tuples around it.
_MAX_DEPTH: Final = MAX_DEPTH - 2
_frame = struct.Struct("<BQ").pack
_u32 = struct.Struct("<I").pack


class Spliced(NamedTuple):
    """An extension made ready to stand in a T: T's PROTO (may be empty), whether a FRAME, body."""

    proto: bytes
    framed: bool
    body: bytes


def frame(size: int) -> bytes:
    """A FRAME opcode (9 bytes) over `size` bytes."""
    return _frame(0x95, size)


def encode_latin1(value: bytes) -> bytes:
    """The opcodes with which Python 3 writes bytes in protocols 0 to 2."""
    if not value:
        return b"c__builtin__\nbytes\n)R"
    text = value.decode("latin-1").encode("utf-8")
    return b"c_codecs\nencode\n(X" + _u32(len(text)) + text + b"X\x06\0\0\0latin1tR"


def encode_bytes(value: bytes) -> bytes:
    """The opcodes for bytes from protocol 3 on."""
    if len(value) < 256:
        return b"C" + bytes((len(value),)) + value
    return b"B" + _u32(len(value)) + value


def cut_out(message: Pickle, before: Node, close: int) -> bytes:
    """The extension of a T as a pickle of its own.

    :param before: the node in front of the extension.
    :param close: where the opcode that ends the tuple stands.
    :raises PickleError: it needs values stored before it that cannot be written again, or too
        many of them.
    """
    begin = before.end
    body = _without_frames(message, begin, close)
    proto = b"" if message.protocol is None else bytes((PROTO, message.protocol))
    rest = _memo_prelude(message, begin, close) + body + _STOP
    if message.frames:
        return proto + frame(len(rest)) + rest
    return proto + rest


def _without_frames(message: Pickle, begin: int, end: int) -> bytes:
    pieces = []
    for offset in message.frames:
        if begin <= offset < end:
            pieces.append(message.data[begin:offset])
            begin = offset + _FRAME_SIZE
    pieces.append(message.data[begin:end])
    return b"".join(pieces)


def _memo_prelude(message: Pickle, begin: int, end: int) -> bytes:
    """What fills the memo as the fields before the extension did, as far as it matters."""
    outside = {write.index: write for write in message.memo_writes if write.offset < begin}
    inside: set[int] = set()
    needed: set[int] = set()
    writes = [write for write in message.memo_writes if begin <= write.offset < end]
    events = [(write.offset, write.index, True) for write in writes]
    events += [(at, index, False) for at, index in message.memo_reads if begin <= at < end]
    for _, index, is_write in sorted(events):
        if is_write:
            inside.add(index)
        elif index not in inside:
            needed.add(index)
    # MEMOIZE numbers by the count of entries, so that all of them must be there.
    counts = any(begin <= offset < end for offset in message.memoizes)
    prelude = bytearray()
    for index, write in outside.items():
        if index in needed or counts:
            value = _write_again(message, write) if index in needed else b"N"
            prelude += value + b"r" + _u32(index) + b"0"
            # One long text may have been stored many times.
            if len(prelude) > MAX_METADATA_SIZE:
                raise PickleError(
                    f"the extension needs more than {MAX_METADATA_SIZE} bytes from outside itself"
                )
    return bytes(prelude)


def _write_again(message: Pickle, write: MemoWrite) -> bytes:
    node = write.node
    if node.name is not None:
        module, name = node.name
        return b"c" + module.encode("utf-8") + b"\n" + name.encode("utf-8") + b"\n"
    if isinstance(node.value, str):
        text = node.value.encode("utf-8", "surrogatepass")
        return b"X" + _u32(len(text)) + text
    if isinstance(node.value, bytes):
        if message.has_native_strings:
            return b"T" + _u32(len(node.value)) + node.value
        if message.protocol is not None and message.protocol >= 3:
            return encode_bytes(node.value)
        return encode_latin1(node.value)
    raise PickleError("the extension refers to a value outside itself that is no text")


def splice(stored: bytes) -> Spliced:
    """A stored extension, ready to stand in a T; `b""` stands as an empty dict.

    :raises PickleError: `stored` is not the pickle of a dict.
    """
    if not stored:
        return Spliced(b"\x80\x03", False, b"}")
    extension = _read_dict(stored)
    proto = b"" if extension.protocol is None else stored[:2]
    body = _without_frames(extension, len(proto), len(stored) - 1)
    return Spliced(proto, bool(extension.frames), body)


def _read_dict(stored: bytes) -> Pickle:
    extension = read(stored)
    if not extension.root.may_be_dict:
        raise PickleError("it is not the pickle of a dict")
    if extension.root.depth > _MAX_DEPTH:
        raise PickleError(f"its values nest deeper than {_MAX_DEPTH}")
    return extension


def for_protocol_1(stored: bytes) -> bytes:
    """The body of a stored extension as a pickle of protocol 1, for Python 2 receivers.

    What holds plain values alone is written as Python 3 peers write it. Anything else keeps its
    opcodes, but that bytes, which Python 2 could not read, are spelled as protocol 1 does; what
    else only protocols 4 and 5 have stays as it is.

    :raises PickleError: `stored` is not the pickle of a dict, or too large when it is respelled.
    """
    if not stored:
        return b"}"
    body = _body_of_protocol_1(_read_dict(stored))
    # A receiver stores it with a STOP behind it.
    if len(body) + len(_STOP) > MAX_METADATA_SIZE:
        raise PickleError(
            f"as a pickle of protocol 1 it has {len(body) + len(_STOP)} bytes, more than "
            f"{MAX_METADATA_SIZE}"
        )
    return body


def _body_of_protocol_1(extension: Pickle) -> bytes:
    plain = extension.root.value is not OPAQUE and not extension.shares_containers
    if plain and not extension.has_native_strings:
        buffer = BytesIO()
        pickler = pickle.Pickler(buffer, 1)
        pickler.fast = True
        pickler.dump(extension.root.value)
        return buffer.getvalue()[:-1]
    return _respell_bytes(extension)


def why_not_carried(stored: bytes, pickle_protocols: Collection[int] = (1, 3)) -> str | None:
    """Return why a T of one of these protocols cannot carry an extension; None if all of them can.

    :param stored: it has at most `MAX_METADATA_SIZE` bytes.
    """
    try:
        if 3 in pickle_protocols:
            splice(stored)
        if 1 in pickle_protocols:
            for_protocol_1(stored)
    except PickleError as error:
        return str(error)
    return None


def _respell_bytes(extension: Pickle) -> bytes:
    data = extension.data
    begin = 0 if extension.protocol is None else 2
    skipped = [(offset, offset + _FRAME_SIZE, b"") for offset in extension.frames]
    spelled = [(offset, end, encode_latin1(value)) for offset, end, value in extension.bytes_leaves]
    pieces = []
    for offset, end, instead in sorted(skipped + spelled):
        pieces += [data[begin:offset], instead]
        begin = end
    pieces.append(data[begin:-1])
    return b"".join(pieces)
