"""Makes inputs for the targets: streams and pickles as peers write them, then damaged.

The damage is done where it tells: to a field before it is pickled, to an opcode, to a message of
a stream, to a length; lengths and checksums around it are made right again, mostly, so that what
comes behind is reached too. What is made depends on nothing but the random number generator and
the corpus.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import pickletools
import struct
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from zrs_core.codec import patterns
from zrs_core.codec.extension import encode_latin1
from zrs_core.messages import BLOB_BLOCK_SIZE, NO_TID

from ..codec.helpers import in_python_2, python2_pickle
from .targets import OID, TIDS, options_of

_OIDS = (OID, bytes(8), b"\xff" * 8)
_TEXTS = (b"", b"user", b"a description", b"\xff\xfe", b"x" * 256)
_DATA = (b"", b"data", b"x" * 41, b"}tR.", bytes(300))
_EXTENSIONS: tuple[Any, ...] = (
    {},
    {},
    {},
    {"key": "value"},
    {"key": [1, 2.5, None, True, ("x", b"x")], 1: {"deeper": []}},
    {"user": b"user", "again": "x" * 300},
    {"large": 2**80, "negative": -1},
)

#: In place of a checksum, until it is known.
_DIGEST = object()

#: Values that may stand in any field.
_VALUES: tuple[Any, ...] = (
    *(None, "", b"", "x", b"x", " ", "p", "c", "S", b"S", (), [], {}, 0, 1, -1, 3, 255, 256),
    *(2**31, 2**32 - 1, 2**32, 2**64, True, 1.5, OID, *TIDS[:3], b"\xff" * 8, b"x" * 7, b"x" * 9),
    *(bytes(16), "x" * 8, _DIGEST, {"a": 1}, b"x" * 65_536),
)

_Item = Any  # bytes, or (tag, fields)


def _items(chance: Random, blobs: bool) -> list[_Item]:
    """The messages of a few whole transactions, unpickled."""
    older = chance.random() < 0.15
    items: list[_Item] = []
    for tid in TIDS[: chance.choice((1, 1, 1, 2))]:
        texts = chance.choice(_TEXTS), chance.choice(_TEXTS)
        items.append(("T", (tid, chance.choice("  pu"), *texts, chance.choice(_EXTENSIONS))))
        for _ in range(chance.choice((0, 1, 1, 2))):
            oid, data = chance.choice(_OIDS), chance.choice(_DATA)
            data_txn = chance.choice((None, None, TIDS[0]))
            if older:
                items.append(("S", (oid, tid, "", data or None, data_txn)))
            elif blobs and chance.random() < 0.2:
                items += _blob((oid, tid, "", data_txn), data, chance)
            else:
                items += [("S", (oid, tid, "", data_txn)), data]
        items.append(("C", () if older else (_DIGEST,)))
    return items


_FULL_BLOCK = bytes(BLOB_BLOCK_SIZE)


def _blob(fields: tuple[Any, ...], data: bytes, chance: Random) -> list[_Item]:
    full = [_FULL_BLOCK] * (chance.random() < 0.1)
    last = [b"the last block"] * (chance.random() < 0.7)
    return [("B", (*fields, len(full + last))), data, *full, *last]


def _damage_items(items: list[_Item], chance: Random) -> None:
    """Change one message of `items`, or where it stands."""
    at = chance.randrange(len(items))
    item = items[at]
    other = items[chance.randrange(len(items))]
    damage = chance.randrange(8)
    if damage == 0:
        del items[at]
    elif damage == 1:
        items.insert(at, other)
    elif damage == 2:
        items.append(items.pop(at))
    elif damage == 3:
        del items[at + 1 :]
    elif damage == 4:
        items.insert(at, chance.choice((b"", b"data", b"x" * 65_536, ("C", (_DIGEST,)))))
    elif isinstance(item, tuple):
        items[at] = _damage_fields(item, chance)
    else:
        items[at] = chance.choice((b"", b"other data", b"x" * BLOB_BLOCK_SIZE, b"x" * 70_000))


def _damage_fields(item: tuple[str, tuple[Any, ...]], chance: Random) -> _Item:
    tag, fields = item[0], list(item[1])
    damage = chance.randrange(8)
    if damage == 0:
        return chance.choice("TSBCX"), tuple(fields)
    if damage == 1:
        fields.insert(chance.randrange(len(fields) + 1), chance.choice(_VALUES))
    elif fields and damage == 2:
        del fields[chance.randrange(len(fields))]
    elif fields:
        fields[chance.randrange(len(fields))] = chance.choice(_VALUES)
    return tag, tuple(fields)


# -- spelling


def _fast_pickle(value: Any, protocol: int) -> bytes:
    buffer = io.BytesIO()
    pickler = pickle.Pickler(buffer, protocol)
    pickler.fast = True
    pickler.dump(value)
    return buffer.getvalue()


#: The fast ones more often.
_SPELLINGS: tuple[Callable[[Any], bytes], ...] = (
    *[lambda value: _fast_pickle(value, 3)] * 8,
    *[lambda value: _fast_pickle(value, 1)] * 4,
    lambda value: python2_pickle(in_python_2(value)),
    lambda value: python2_pickle(in_python_2(value), memo=True),
    *(lambda value, protocol=protocol: pickle.dumps(value, protocol) for protocol in (0, 1, 4)),
)


def _spell(item: _Item, spelling: Callable[[Any], bytes], digest: bytes) -> bytes:
    if isinstance(item, bytes):
        return item
    tag, fields = item
    return spelling((tag, tuple(digest if field is _DIGEST else field for field in fields)))


# -- damage to bytes


def _pieces_of_pickles() -> tuple[bytes, ...]:
    """Each opcode at least once, with an argument; and names, ids, numbers, ends of texts."""
    arguments = {
        "uint1": (b"\0", b"\1", b"\xff"),
        "uint2": (b"\0\0", b"\xff\xff"),
        "int4": (b"\0\0\0\0", b"\xff\xff\xff\xff", b"\0\0\0\x80"),
        "uint4": (b"\1\0\0\0", b"\xff\xff\xff\x7f"),
        "uint8": (bytes(8), b"\5" + bytes(7), b"\xff" * 8),
        "decimalnl_short": (b"0\n", b"01\n", b"-1\n", b"9" * 30 + b"\n", b"1_0\n"),
        "decimalnl_long": (b"3L\n", b"4294967296L\n", b"9" * 5000 + b"L\n"),
        "floatnl": (b"1.5\n", b"nan\n", b"1e999\n", b".\n"),
        "float8": (bytes(8), b"\x7f\xf8" + bytes(6)),
        "stringnl": (b"'text'\n", b"'\\x00'\n", b"'\\", b'"\n'),
        "stringnl_noescape": (b"id\n", b"\n"),
        "stringnl_noescape_pair": (
            *(b"_codecs\nencode\n", b"__builtin__\nbytes\n", b"builtins\neval\n"),
            *(b"os\nsystem\n", b"copy_reg\n_reconstructor\n", b"\xff\n\n"),
        ),
        "unicodestringnl": (b"latin1\n", b"\\ud800\n", b"\\u12"),
        "unicodestring1": (b"\0", b"\6latin1", b"\2\xc3"),
        "unicodestring4": (b"\6\0\0\0latin1", b"\1\0\0\0\xff", b"\0\0\0\x80"),
        "unicodestring8": (bytes(8), b"\xff" * 8),
    }
    counted = {"string1": "B", "bytes1": "B", "string4": "i", "bytes4": "I", "long1": "B"}
    counted |= {"long4": "i", "bytes8": "Q", "bytearray8": "Q"}
    for name, size in counted.items():
        packed = struct.Struct(f"<{size}").pack
        arguments[name] = tuple(packed(len(each)) + each for each in (b"", b"x", OID, bytes(16)))
    pieces = [b"q\0", b"h\0", b"\x80\x06", b"c_codecs\nencode\n(X\1\0\0\0xX\6\0\0\0latin1tR"]
    for opcode in pickletools.opcodes:
        code = opcode.code.encode("latin-1")
        known = (b"",) if opcode.arg is None else arguments[opcode.arg.name]
        pieces += [code + argument for argument in known]
    return tuple(pieces)


_PIECES = _pieces_of_pickles()


def _damage_bytes(data: bytes, chance: Random) -> bytes:
    at = chance.randrange(len(data) + 1)
    damage = chance.randrange(7)
    if damage == 0 or not data:
        return data[:at] + chance.choice(_PIECES) + data[at:]
    if damage == 1:
        return data[:at] + bytes((chance.randrange(256),)) + data[at + 1 :]
    if damage == 2:
        at %= len(data)
        return data[:at] + bytes((data[at] ^ 1 << chance.randrange(8),)) + data[at + 1 :]
    if damage == 3:
        return data[:at] + data[at + chance.choice((1, 1, 2, 4, 8)) :]
    if damage == 4:
        return data[:at]
    end = chance.randrange(len(data) + 1)
    if damage == 5:
        return data[:at] + data[end : end + 20] + data[at:]
    return data[:at] + chance.choice(_PIECES) + data[end:]


def _damage_opcodes(payload: bytes, chance: Random) -> bytes:
    """Leave out, repeat, exchange or put in an opcode, each with its argument."""
    if len(payload) > 4096:
        return payload
    starts = [0]
    try:
        starts = [at for _, _, at in pickletools.genops(payload)]
    except Exception:
        return _damage_bytes(payload, chance)
    ends = [*starts[1:], len(payload)]
    opcodes = [payload[begin:end] for begin, end in zip(starts, ends, strict=True)]
    at = chance.randrange(len(opcodes))
    damage = chance.randrange(5)
    if damage == 0:
        del opcodes[at]
    elif damage == 1:
        opcodes.insert(at, chance.choice(opcodes))
    elif damage == 2:
        opcodes[at] = chance.choice(_PIECES)
    elif damage == 3:
        opcodes.insert(at, chance.choice(_PIECES))
    else:
        opcodes[at] = _damage_bytes(opcodes[at], chance)
    return b"".join(opcodes)


_DAMAGE = (_damage_bytes, _damage_opcodes)


# -- streams


def _split(stream: bytes) -> list[bytes]:
    """The payloads of a stream; what is no whole message at the end is one too."""
    payloads = []
    at = 0
    while at < len(stream):
        size = int.from_bytes(stream[at : at + 4], "big")
        payloads.append(stream[at + 4 : at + 4 + size])
        at += 4 + size
    return payloads


_LIES = (b"\0\0\0\0", b"\0\0\0\1", b"\0\x10\0\1", b"\x40\0\0\1", b"\xff\xff\xff\xff", b"\0\0")


def _framed(payload: bytes, chance: Random) -> bytes:
    length = struct.pack(">I", len(payload))
    if chance.random() < 0.01:
        length = chance.choice(_LIES)
    return length + payload


def _stream(chance: Random, start: bytes, blobs: bool) -> bytes:
    """What a primary may send, with some damage or none."""
    items = _items(chance, blobs)
    for _ in range(chance.choice((0, 0, 1, 1, 2))):
        if items:
            _damage_items(items, chance)
    spelling = chance.choice(_SPELLINGS)
    md5 = hashlib.md5(start)
    pieces = []
    for item in items:
        payload = _spell(item, spelling, md5.digest())
        if chance.random() < 0.03:
            payload = chance.choice(_DAMAGE)(payload, chance)
        md5.update(payload)
        pieces.append(_framed(payload, chance))
    return b"".join(pieces)


def _damaged_stream(stream: bytes, chance: Random, start: bytes) -> bytes:
    """A stream with one of its messages damaged, and its checksums made right."""
    payloads = _split(stream) or [b""]
    at = chance.randrange(len(payloads))
    damage = chance.randrange(6)
    if damage == 0:
        del payloads[at]
    elif damage == 1:
        payloads.insert(at, chance.choice(payloads))
    elif damage == 2:
        payloads.append(payloads.pop(at))
    else:
        payloads[at] = chance.choice(_DAMAGE)(payloads[at], chance)
    md5 = hashlib.md5(start)
    pieces = []
    for payload in payloads:
        found = patterns.find(payload)
        if found is not None and found[0] == "C" and chance.random() < 0.95:
            payload = _with_digest(payload, found[1][0] or b"", md5.digest())
        md5.update(payload)
        pieces.append(_framed(payload, chance))
    return b"".join(pieces)


def _with_digest(commit: bytes, old: bytes, new: bytes) -> bytes:
    if old in commit:
        return commit.replace(old, new)
    return commit.replace(encode_latin1(old), encode_latin1(new))


# -- inputs


def pickles(chance: Random, corpus: Sequence[bytes]) -> bytes:
    choice = chance.random()
    if choice < 0.25:
        payload = chance.choice(corpus)
    elif choice < 0.35:
        payload = b"".join(chance.choices(_PIECES, k=chance.randrange(12))) + b"."
    elif choice < 0.5:
        payload = chance.choice(_SPELLINGS)(chance.choice(_EXTENSIONS))
    else:
        items = [item for item in _items(chance, True) if isinstance(item, tuple)]
        item = chance.choice(items)
        if chance.random() < 0.3:
            item = _damage_fields(item, chance)
        payload = _spell(item, chance.choice(_SPELLINGS), bytes(16))
    for _ in range(chance.choice((0, 1, 1, 2, 4))):
        payload = chance.choice(_DAMAGE)(payload, chance)
    return payload


def framing(chance: Random, corpus: Sequence[bytes]) -> bytes:
    if chance.random() < 0.3:
        return _damage_bytes(chance.choice(corpus), chance)
    sizes = (0, 0, 1, 4, 8, 9, 64, 65, 300)
    payloads = [bytes((65,)) * chance.choice(sizes) for _ in range(chance.randrange(8))]
    stream = b"".join(_framed(payload, chance) for payload in payloads)
    if chance.random() < 0.3:
        stream = _damage_bytes(stream, chance)
    return chance.randbytes(2) + stream


def secondary(chance: Random, corpus: Sequence[bytes]) -> bytes:
    head = chance.randbytes(2)
    options = options_of(head)
    if chance.random() < 0.3:
        old = chance.choice(corpus)
        if chance.random() < 0.7:
            head = old[:2].ljust(2, b"\0")
            options = options_of(head)
        return head + _damaged_stream(old[2:], chance, options.start)
    return head + _stream(chance, options.start, options.word == "zrs2.1")


_HEARD = (b"zrs2.1", b"zrs2.0", b"zrs2.2", b"", bytes(8), TIDS[0], b"\xff" * 8, b"x" * 9, b"x")


def primary(chance: Random, corpus: Sequence[bytes]) -> bytes:
    choice = chance.random()
    if choice < 0.15:
        return _damage_bytes(chance.choice(corpus), chance)
    if choice < 0.35:
        payloads = [chance.choice(_HEARD) for _ in range(chance.randrange(5))]
    else:
        payloads = [chance.choice(_HEARD[:2]), chance.choice((NO_TID, TIDS[0]))]
        payloads += [b""] * chance.choice((0, 0, 1, 3))
    heard = b"".join(_framed(payload, chance) for payload in payloads)
    if chance.random() < 0.2:
        heard = _damage_bytes(heard, chance)
    heard = heard[:255]
    return chance.randbytes(2) + bytes((len(heard),)) + heard + _script(chance)


def _script(chance: Random) -> bytes:
    """Mostly whole transactions, for `targets.to_send`."""
    steps = bytearray()
    for tid in range(chance.randrange(4)):
        tid = chance.choice((tid, tid, tid, chance.randrange(16)))
        steps += bytes((0, tid, chance.randrange(256)))
        for _ in range(chance.randrange(4)):
            number = chance.randrange(256)
            steps += bytes((chance.choice((2, 2, 3, 4)), tid, number))
            if steps[-3] == 4:
                steps += b"".join(
                    b"\5\0" + bytes((chance.choice((0, 3, 7)),)) for _ in range(number % 4)
                )
        steps += bytes((6, 0, 0))
    for _ in range(chance.choice((0, 0, 1, 3))):
        at = chance.randrange(len(steps) + 1) // 3 * 3
        steps[at:at] = chance.randbytes(3)
    return bytes(steps)


INPUTS: dict[str, Callable[[Random, Sequence[bytes]], bytes]] = {
    "pickles": pickles,
    "framing": framing,
    "primary": primary,
    "secondary": secondary,
    "session": secondary,
}


def vary(target: str, data: bytes, chance: Random) -> bytes:
    """Another input for `target`, near `data`."""
    if target in ("secondary", "session"):
        head = data[:2].ljust(2, b"\0")
        return head + _damaged_stream(data[2:], chance, options_of(head).start)
    if target == "pickles":
        return chance.choice(_DAMAGE)(data, chance)
    return _damage_bytes(data, chance)
