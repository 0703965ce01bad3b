"""Damage to streams and pickles, for fuzzers that have a random number generator.

A random change of a byte is mostly refused at once. These functions also change what a peer would
have to write on purpose: an opcode with its argument, a message of a stream, its place. They then
make lengths and checksums right again, mostly, so that what follows is reached too. The result
depends on the arguments alone.

`zrs_core.testing.strategies.mutated` does the same with hypothesis, which reduces what fails.
"""

from __future__ import annotations

import pickletools
import struct
from random import Random
from typing import Final

from ..codec.framing import prefix
from ..messages import NO_TID
from .streams import split, with_checksums

_OID = bytes(7) + b"\1"
#: Lengths that are not those of what follows.
_LIES = (b"\0\0\0\0", b"\0\0\0\1", b"\0\x10\0\1", b"\x40\0\0\1", b"\xff\xff\xff\xff", b"\0\0")


def _pieces_of_pickles() -> tuple[bytes, ...]:
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
        arguments[name] = tuple(packed(len(each)) + each for each in (b"", b"x", _OID, bytes(16)))
    pieces = [b"q\0", b"h\0", b"\x80\x06", b"c_codecs\nencode\n(X\1\0\0\0xX\6\0\0\0latin1tR"]
    for opcode in pickletools.opcodes:
        code = opcode.code.encode("latin-1")
        known = (b"",) if opcode.arg is None else arguments[opcode.arg.name]
        pieces += [code + argument for argument in known]
    return tuple(pieces)


#: Each opcode at least once, with an argument; and names, ids, numbers, ends of texts.
PICKLE_PIECES: Final = _pieces_of_pickles()


def damage_bytes(data: bytes, random: Random) -> bytes:
    """Return `data` with a byte or a part of it changed, removed, repeated or inserted."""
    at = random.randrange(len(data) + 1)
    damage = random.randrange(7)
    if damage == 0 or not data:
        return data[:at] + random.choice(PICKLE_PIECES) + data[at:]
    if damage == 1:
        return data[:at] + bytes((random.randrange(256),)) + data[at + 1 :]
    if damage == 2:
        at %= len(data)
        return data[:at] + bytes((data[at] ^ 1 << random.randrange(8),)) + data[at + 1 :]
    if damage == 3:
        return data[:at] + data[at + random.choice((1, 1, 2, 4, 8)) :]
    if damage == 4:
        return data[:at]
    end = random.randrange(len(data) + 1)
    if damage == 5:
        return data[:at] + data[end : end + 20] + data[at:]
    return data[:at] + random.choice(PICKLE_PIECES) + data[end:]


def damage_pickle(payload: bytes, random: Random) -> bytes:
    """Return a pickle with an opcode removed, repeated, exchanged, inserted or changed.

    Bytes that are not a pickle are changed as `damage_bytes` does. A payload of more than 4,096
    bytes is returned as it is.
    """
    if len(payload) > 4096:
        return payload
    starts = [0]
    try:
        starts = [at for _, _, at in pickletools.genops(payload) if at is not None]
    except Exception:  # noqa: BLE001, pickletools raises anything
        return damage_bytes(payload, random)
    ends = [*starts[1:], len(payload)]
    opcodes = [payload[begin:end] for begin, end in zip(starts, ends, strict=True)]
    at = random.randrange(len(opcodes))
    damage = random.randrange(5)
    if damage == 0:
        del opcodes[at]
    elif damage == 1:
        opcodes.insert(at, random.choice(opcodes))
    elif damage == 2:
        opcodes[at] = random.choice(PICKLE_PIECES)
    elif damage == 3:
        opcodes.insert(at, random.choice(PICKLE_PIECES))
    else:
        opcodes[at] = damage_bytes(opcodes[at], random)
    return b"".join(opcodes)


def damage_payload(payload: bytes, random: Random) -> bytes:
    """Return a payload damaged by `damage_bytes` or by `damage_pickle`."""
    return random.choice((damage_bytes, damage_pickle))(payload, random)


def framed_mostly(payload: bytes, random: Random) -> bytes:
    """Return a payload with its length in front. One length in a hundred is wrong."""
    length = random.choice(_LIES) if random.random() < 0.01 else prefix(len(payload))
    return length + payload


def damage_stream(stream: bytes, random: Random, start: bytes = NO_TID) -> bytes:
    """Return a stream with one of its messages changed, removed, repeated or moved.

    Lengths and checksums are made right, mostly.

    :param start: the tid that the secondary has asked for, with which checksums begin.
    """
    payloads = split(stream) or [b""]
    at = random.randrange(len(payloads))
    damage = random.randrange(6)
    if damage == 0:
        del payloads[at]
    elif damage == 1:
        payloads.insert(at, random.choice(payloads))
    elif damage == 2:
        payloads.append(payloads.pop(at))
    else:
        payloads[at] = damage_payload(payloads[at], random)
    if random.random() < 0.95:
        payloads = with_checksums(payloads, start)
    return b"".join(framed_mostly(payload, random) for payload in payloads)
