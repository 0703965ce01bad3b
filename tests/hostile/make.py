"""Makes the hostile files, and what they are refused with: `python -m tests.hostile.make`.

Each way in that is known is here: code in pickles, every opcode, numbers and lengths that would
take memory or time, fields that no message may have, messages where none may stand.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Iterator
from pathlib import Path

from zrs_core.codec.opcodes import MAX_DEPTH, MAX_OPCODES
from zrs_core.codec.secondary import MAX_PICKLE_SIZE, MAX_RECORD_SIZE
from zrs_core.messages import BLOB_BLOCK_SIZE, NO_TID

from ..codec.helpers import encode, fast_pickle, framed, in_python_2, python2_pickle
from ..codec.test_properties import SAMPLE

FOLDER = Path(__file__).parent
TID, TID_2, TID_3 = (b"\3" + bytes(6) + bytes((number,)) for number in (1, 2, 3))
OID = bytes(7) + b"\1"
MD5 = bytes(16)
_CANARY = b"tests.hostile.canary\nbang\n"
_GLOBAL = b"c" + _CANARY

Cases = Iterator[tuple[str, bytes]]


def ours(value: object) -> bytes:
    """As this package spells messages."""
    return fast_pickle(value, 3)


def peers(value: object) -> bytes:
    """As Python 3 peers do."""
    return fast_pickle(value, 1)


def python2(value: object) -> bytes:
    """As Python 2 peers do."""
    return python2_pickle(in_python_2(value))


def begun(payload: bytes = b"", *more: bytes) -> bytes:
    """A transaction that has begun, and a message in it."""
    return framed(ours(("T", (TID, " ", b"", b"", {}))), payload, *more)


def text(value: bytes) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value


def message(tag: bytes, *fields: bytes) -> bytes:
    """A message whose fields are opcodes."""
    return b"(" + text(tag) + b"(" + b"".join(fields) + b"tt."


def id_of(value: bytes) -> bytes:
    return b"C" + bytes((len(value),)) + value


def record_of(oid: bytes) -> bytes:
    return begun(message(b"S", oid, id_of(TID), text(b""), b"N"), b"data")


def extended(body: bytes) -> bytes:
    """A whole transaction whose extension is `body`."""
    begin = message(b"T", id_of(TID), text(b" "), id_of(b""), id_of(b""), body)
    return framed(begin, ours(("C", ())))


#: Each opcode of pickle, and what it needs: they leave one value.
OPCODES: dict[str, bytes] = {
    "MARK": b"(t",
    "STOP": b"N.",
    "POP": b"NN0",
    "POP_MARK": b"N(N1",
    "DUP": b"N20",
    "FLOAT": b"F1.5\n",
    "INT": b"I5\n",
    "BININT": b"J\5\0\0\0",
    "BININT1": b"K\5",
    "BININT2": b"M\5\0",
    "LONG": b"L5L\n",
    "LONG1": b"\x8a\1\5",
    "LONG4": b"\x8b\1\0\0\0\5",
    "NONE": b"N",
    "NEWTRUE": b"\x88",
    "NEWFALSE": b"\x89",
    "BINFLOAT": b"G" + bytes(8),
    "PERSID": b"Pid\n",
    "BINPERSID": b"NQ",
    "STRING": b"S'text'\n",
    "BINSTRING": b"T\4\0\0\0text",
    "SHORT_BINSTRING": b"U\4text",
    "UNICODE": b"Vtext\n",
    "BINUNICODE": b"X\4\0\0\0text",
    "SHORT_BINUNICODE": b"\x8c\4text",
    "BINUNICODE8": b"\x8d\4" + bytes(7) + b"text",
    "BINBYTES": b"B\4\0\0\0text",
    "SHORT_BINBYTES": b"C\4text",
    "BINBYTES8": b"\x8e\4" + bytes(7) + b"text",
    "BYTEARRAY8": b"\x96\4" + bytes(7) + b"text",
    "NEXT_BUFFER": b"\x97",
    "READONLY_BUFFER": b"N\x98",
    "EMPTY_TUPLE": b")",
    "TUPLE": b"(Nt",
    "TUPLE1": b"N\x85",
    "TUPLE2": b"NN\x86",
    "TUPLE3": b"NNN\x87",
    "EMPTY_LIST": b"]",
    "LIST": b"(Nl",
    "APPEND": b"]Na",
    "APPENDS": b"](NNe",
    "EMPTY_DICT": b"}",
    "DICT": b"(NNd",
    "SETITEM": b"}NNs",
    "SETITEMS": b"}(NNu",
    "EMPTY_SET": b"\x8f",
    "ADDITEMS": b"\x8f(N\x90",
    "FROZENSET": b"(N\x91",
    "GLOBAL": _GLOBAL,
    "STACK_GLOBAL": b"Vtests.hostile.canary\nVbang\n\x93",
    "REDUCE": _GLOBAL + b")R",
    "BUILD": _GLOBAL + b"}b",
    "INST": b"(i" + _CANARY,
    "OBJ": b"(" + _GLOBAL + b"o",
    "NEWOBJ": _GLOBAL + b")\x81",
    "NEWOBJ_EX": _GLOBAL + b")}\x92",
    "EXT1": b"\x82\1",
    "EXT2": b"\x83\1\1",
    "EXT4": b"\x84\1\1\1\1",
    "PUT": b"Np0\n",
    "BINPUT": b"Nq\0",
    "LONG_BINPUT": b"Nr\0\0\0\0",
    "MEMOIZE": b"N\x94",
    "GET": b"Np0\n0g0\n",
    "BINGET": b"Nq\0000h\0",
    "LONG_BINGET": b"Nr\0\0\0\0000j\0\0\0\0",
    "PROTO": b"\x80\4N",
    "FRAME": b"\x95\1" + bytes(7) + b"N",
}

#: What no pickle of its own has, or has elsewhere.
_NOWHERE = {"STOP", "DUP", "NEXT_BUFFER", "READONLY_BUFFER", "PROTO"}


def opcodes() -> Cases:
    """Every opcode: as a whole message, in a field, in an extension."""
    for name, body in OPCODES.items():
        yield f"secondary/RemoteProtocolError.{name}-as-a-message", framed(body + b".")
        yield f"secondary/RemoteProtocolError.{name}-in-a-field", record_of(body)
        verdict = "RemoteProtocolError" if name in _NOWHERE else "legal"
        yield f"secondary/{verdict}.{name}-in-an-extension", extended(b"}Vkey\n" + body + b"s")


_CALLS: dict[str, bytes] = {
    "os.system": b"cos\nsystem\n(X\4\0\0\0truetR",
    "posix.system": b"cposix\nsystem\n(X\4\0\0\0truetR",
    "builtins.eval": b"cbuiltins\neval\n(X\5\0\0\0" + b"1/0()tR",
    "__builtin__.exec": b"c__builtin__\nexec\n(X\3\0\0\0" + b"1/0tR",
    "sys.exit": b"csys\nexit\n)R",
    "a-submodule": b"cxml.dom.minidom\nDocument\n)R",
    "a-canary-by-INST": b"(N" + b"i" + _CANARY,
    "a-canary-by-OBJ": b"(" + _GLOBAL + b"No",
    "a-canary-by-NEWOBJ": _GLOBAL + b"N\x85\x81",
    "a-canary-by-STACK_GLOBAL": b"Vtests.hostile.canary\nVbang\n\x93)R",
    "a-canary-that-is-built": _GLOBAL + b")R}Vkey\nNsb",
    "copy_reg": b"ccopy_reg\n_reconstructor\n(" + _GLOBAL + b"c__builtin__\nobject\nNtR",
    "bytes-of-a-number": b"c__builtin__\nbytes\nJ\0\0\0\x40\x85R",
    "bytes-of-a-list": b"cbuiltins\nbytes\n](K\1K\2e\x85R",
    "encode-with-another-codec": b"c_codecs\nencode\n(X\1\0\0\0xX\3\0\0\0hextR",
    "encode-with-one-argument": b"c_codecs\nencode\n(X\1\0\0\0xtR",
    "encode-with-three-arguments": b"c_codecs\nencode\n(X\1\0\0\0xX\6\0\0\0latin1NtR",
    "encode-of-no-latin1": b"c_codecs\nencode\n(X\3\0\0\0\xe2\x98\x83X\6\0\0\0latin1tR",
    "encode-of-bytes": b"c_codecs\nencode\n(C\1xX\6\0\0\0latin1tR",
    "encode-by-another-name": b"ccodecs\nencode\n(X\1\0\0\0xX\6\0\0\0latin1tR",
    "a-dotted-name": b"\x8c\7_codecs\x8c\x0fencode.__self__\x93)R",
    "encode-of-what-is-called": b"c_codecs\nencode\n" + _GLOBAL + b")R\x85R",
    "encode-built": b"c_codecs\nencode\n}b(X\1\0\0\0xX\6\0\0\0latin1tR",
}


def calls() -> Cases:
    """Code that would run, or be imported, in every place (X1 to X3)."""
    for name, body in _CALLS.items():
        yield f"secondary/RemoteProtocolError.code-{name}-in-an-id", record_of(body)
        yield f"secondary/RemoteProtocolError.code-{name}-as-a-message", framed(body + b".")
        yield f"secondary/legal.code-{name}-in-an-extension", extended(b"}Vkey\n" + body + b"s")
    places = {
        "a-tag": b"(" + _GLOBAL + b")R(Ntt.",
        "a-tid": message(b"T", _GLOBAL + b")R", text(b" "), id_of(b""), id_of(b""), b"}"),
        "a-status": message(b"T", id_of(TID), _GLOBAL + b")R", id_of(b""), id_of(b""), b"}"),
        "a-user": message(b"T", id_of(TID), text(b" "), _GLOBAL + b")R", id_of(b""), b"}"),
        "a-description": message(b"T", id_of(TID), text(b" "), id_of(b""), _GLOBAL + b")R", b"}"),
        "the-fields": b"(" + text(b"T") + _GLOBAL + b")Rt.",
    }
    for name, payload in places.items():
        yield f"secondary/RemoteProtocolError.code-in-{name}", framed(payload)
    places = {
        "a-serial": message(b"S", id_of(OID), _GLOBAL + b")R", text(b""), b"N"),
        "a-version": message(b"S", id_of(OID), id_of(TID), _GLOBAL + b")R", b"N"),
        "a-data_txn": message(b"S", id_of(OID), id_of(TID), text(b""), _GLOBAL + b")R"),
        "the-data": message(b"S", id_of(OID), id_of(TID), text(b""), _GLOBAL + b")R", b"N"),
        "a-number-of-blocks": message(
            b"B", id_of(OID), id_of(TID), text(b""), b"N", _GLOBAL + b")R"
        ),
        "a-checksum": message(b"C", _GLOBAL + b")R"),
    }
    for name, payload in places.items():
        yield f"secondary/RemoteProtocolError.code-in-{name}", begun(payload)
    as_an_extension = {
        "the-extension-itself": _GLOBAL + b")R",
        "a-dict-that-is-built": b"}" + _GLOBAL + b")Rb",
        "a-key": b"}" + _GLOBAL + b")RNs",
    }
    for name, body in as_an_extension.items():
        yield f"secondary/legal.code-as-{name}", extended(body)


def sizes() -> Cases:
    """Few bytes that ask for much (R1 to R3)."""
    huge = b"\xff\xff\xff\x7f"
    bodies = {
        "a-memo-index-by-LONG_BINPUT": b"Nr" + b"\0\0\0\x08",
        "a-memo-index-by-PUT": b"Np" + b"9" * 18 + b"\n",
        "a-memo-index-of-many-digits": b"Np" + b"9" * 5000 + b"\n",
        "a-memo-index-that-is-negative": b"Np-1\n",
        "a-memo-index-never-stored": b"h\7",
        "BINBYTES": b"B" + huge,
        "BINBYTES8": b"\x8e" + b"\xff" * 8,
        "BINUNICODE": b"X" + huge,
        "BINUNICODE8": b"\x8d" + b"\xff" * 7 + b"\x7f",
        "BINSTRING": b"T" + huge,
        "BINSTRING-of-a-negative-length": b"T\xff\xff\xff\xff",
        "BYTEARRAY8": b"\x96" + b"\xff" * 8,
        "LONG4": b"\x8b" + huge,
        "FRAME": b"\x95" + b"\xff" * 8,
        "a-frame-that-ends-in-an-opcode": b"\x95\5" + bytes(7) + id_of(OID),
        "a-frame-in-a-frame": b"\x95\x15" + bytes(7) + b"\x95\1" + bytes(7) + b"N" * 12,
        "a-line-without-an-end": b"Itext",
        "a-long-name": b"c" + b"m" * 257 + b"\nname\n",
        "a-global-of-no-text": b"NN\x93",
        "a-depth": b"(" * MAX_DEPTH + b"t" * MAX_DEPTH,
        "a-depth-by-lists": b"]" * MAX_DEPTH + b"a" * (MAX_DEPTH - 1),
        "a-depth-by-calls": b"N" * MAX_DEPTH + b"R" * (MAX_DEPTH - 1),
        "many-opcodes": b"N" + b"N0" * (MAX_OPCODES // 2),
        "an-integer-that-is-no-number": b"I0x10\n",
        "a-float-that-is-no-number": b"F1_0\n",
        "a-text-that-is-no-UTF-8": b"X\1\0\0\0\xff",
        "a-text-with-a-bad-escape": b"V\\u12\n",
        "a-string-without-quotes": b"Stext\n",
        "a-mark-that-is-missing": b"t",
        "a-stack-that-is-empty": b"0" * 20,
        "a-key-without-a-value": b"}(Nu",
        "a-leaf-with-items": b"K\1Na",
        "an-unknown-opcode": b"\xff",
        "an-unknown-protocol": b"\x80\x06N",
    }
    for name, body in bodies.items():
        yield f"secondary/RemoteProtocolError.{name}", extended(b"}Vkey\n" + body + b"s")
        yield f"extension/PickleError.{name}", b"}Vkey\n" + body + b"s."
    legal = {
        "an-integer-of-many-digits": b"L" + b"9" * 6000 + b"L\n",
        "a-LONG1-of-many-bytes": b"\x8a\xff" + b"\x7f" * 255,
        "tuples-that-double": b")" + b"q\0h\0\x86" * 30,
        "keys-that-collide": b"}("
        + b"".join(
            b"\x8a\x09" + (number * (2**61 - 1)).to_bytes(9, "little") + b"N"
            for number in range(300)
        )
        + b"u",
        "lone-surrogates": b"X\3\0\0\0\xed\xb2\x80",
        "a-dict-that-holds-itself": b"}q\0Vkey\nh\0s",
    }
    for name, body in legal.items():
        yield f"secondary/legal.{name}-in-an-extension", extended(b"}Vkey\n" + body + b"s")
        yield f"extension/legal.{name}", b"}Vkey\n" + body + b"s."
    yield "secondary/RemoteProtocolError.29-bytes-for-600-MiB", framed(b"Nr\0\0\0\x08.")
    yield (
        "secondary/RemoteProtocolError.a-text-fetched-often",
        framed(message(b"T", id_of(TID), text(b"x" * 3000) + b"q\0", b"h\0" * 2000, b"N", b"}")),
    )
    long_text = text(b"x" * 60_000) + b"".join(b"r" + struct.pack("<I", at) for at in range(9))
    fetched = b"}" + b"".join(b"j" + struct.pack("<I", at) + b"Ns" for at in range(9))
    yield (
        "secondary/RemoteProtocolError.an-extension-that-grows-by-what-is-outside-it",
        framed(message(b"T", id_of(TID), text(b" "), long_text, id_of(b""), fetched)),
    )
    yield (
        "secondary/RemoteProtocolError.an-extension-that-needs-a-number-outside-it",
        framed(b"(X\1\0\0\0T(K\1q\1" + b"0C\x08" + TID + text(b" ") + b"C\0C\0}h\1Nstt."),
    )
    limits = {
        "a-length-of-4-GiB": b"\xff\xff\xff\xff",
        "a-length-of-512-MiB": b"\x20\0\0\0",
        "a-pickle-above-its-limit": struct.pack(">I", MAX_PICKLE_SIZE + 1),
        "TLS-instead": b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03",
        "HTTP-instead": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    }
    for name, stream in limits.items():
        yield f"secondary/LimitExceeded.{name}", stream
    yield "primary/LimitExceeded.HTTP", b"GET / HTTP/1.1\r\n\r\n"
    for name in ("a-length-of-4-GiB", "a-length-of-512-MiB", "TLS-instead"):
        yield f"primary/LimitExceeded.{name}", limits[name]
    header = ours(("S", (OID, TID, "", None)))
    too_long = struct.pack(">I", MAX_RECORD_SIZE + 1)
    yield "secondary/LimitExceeded.a-record-above-its-limit", begun(header) + too_long
    pickled = struct.pack(">I", MAX_PICKLE_SIZE + MAX_RECORD_SIZE + 1)
    yield (
        "secondary/LimitExceeded.a-record-above-its-limit-in-the-older-dialect",
        begun()[:-4] + pickled,
    )
    blob = begun(ours(("B", (OID, TID, "", None, 2))), b"record")
    block = struct.pack(">I", BLOB_BLOCK_SIZE + 1)
    yield "secondary/LimitExceeded.a-block-above-its-limit", blob + block


_BAD_IDS = {
    "7-bytes": b"x" * 7,
    "9-bytes": b"x" * 9,
    "3-bytes": b"xxx",
    "text": "x" * 8,
    "a-number": 8,
}
_BAD_TEXTS = {"text": "user", "None": None, "65536-bytes": b"x" * 65_536, "a-tuple": (b"x",)}


def _fields() -> Iterator[tuple[str, tuple[str, tuple[object, ...]]]]:
    """Fields that break the schema (D9 to D11, R10)."""
    good = (TID, " ", b"", b"", {})

    def changed(fields: tuple[object, ...], at: int, value: object) -> tuple[object, ...]:
        return (*fields[:at], value, *fields[at + 1 :])

    tids = {**_BAD_IDS, "None": None, "zero": NO_TID, "above-the-highest": b"\x80" + bytes(7)}
    for name, value in tids.items():
        yield f"a-tid-of-{name}", ("T", changed(good, 0, value))
    statuses = {"c": "c", "two": "  ", "none": "", "None": None, "a-number": 32, "long": "p" * 300}
    for name, value in (statuses | {"no-ASCII": "\xe9"}).items():
        yield f"a-status-of-{name}", ("T", changed(good, 1, value))
    for name, value in _BAD_TEXTS.items():
        yield f"a-user-of-{name}", ("T", changed(good, 2, value))
        yield f"a-description-of-{name}", ("T", changed(good, 3, value))
    for name, value in {
        "None": None,
        "a-list": [],
        "a-tuple": (),
        "text": "{}",
        "bytes": b"}.",
    }.items():
        yield f"an-extension-of-{name}", ("T", changed(good, 4, value))
    yield "an-extension-above-its-size", ("T", changed(good, 4, {"x": "y" * 65_536}))
    yield "a-T-with-four-fields", ("T", good[:4])
    yield "a-T-with-six-fields", ("T", (*good, None))
    yield "a-T-without-fields", ("T", ())
    yield "an-unknown-tag", ("X", good)
    yield "a-tag-in-lower-case", ("t", good)
    yield "a-tag-of-two-letters", ("TT", good)


def _fields_in_transaction() -> Iterator[tuple[str, tuple[str, tuple[object, ...]]]]:
    good = (OID, TID, "", None)
    for name, value in {**_BAD_IDS, "None": None}.items():
        yield f"an-oid-of-{name}", ("S", (value, *good[1:]))
        yield f"a-serial-of-{name}", ("S", (OID, value, "", None))
        yield f"a-blob-with-an-oid-of-{name}", ("B", (value, *good[1:], 1))
        if value is not None:
            yield f"a-data_txn-of-{name}", ("S", (OID, TID, "", value))
    yield "a-serial-of-another-transaction", ("S", (OID, TID_2, "", None))
    yield "a-blob-of-another-transaction", ("B", (OID, TID_2, "", None, 1))
    for name, value in {"text": "version", "None": None, "a-number": 0}.items():
        yield f"a-version-of-{name}", ("S", (OID, TID, value, None))
        yield f"a-blob-with-a-version-of-{name}", ("B", (OID, TID, value, None, 1))
    blocks = {
        "a-negative-number": -1,
        "2-to-the-32": 2**32,
        "None": None,
        "text": "1",
        "bytes": b"1",
    }
    for name, value in {**blocks, "a-float": 1.0, "a-bool": True, "2-to-the-70": 2**70}.items():
        yield f"a-number-of-blocks-of-{name}", ("B", (*good, value))
    for name, value in {
        "15-bytes": MD5[1:],
        "17-bytes": MD5 + b"x",
        "None": None,
        "text": "x" * 16,
    }.items():
        yield f"a-checksum-of-{name}", ("C", (value,))
    yield "two-checksums", ("C", (MD5, MD5))
    yield "an-S-with-three-fields", ("S", good[:3])
    yield "an-S-with-six-fields", ("S", (*good, None, None))
    yield "a-B-with-six-fields", ("B", (*good, 1, 1))
    yield "a-record-of-text-in-the-older-dialect", ("S", (OID, TID, "", "data", None))


def schema() -> Cases:
    """Each field wrong, as this package and as peers spell it."""
    for name, value in _fields():
        yield f"secondary/RemoteProtocolError.{name}", framed(ours(value))
        # Those are large.
        if not name.endswith("-65536-bytes"):
            yield f"secondary/RemoteProtocolError.{name}-of-a-peer", framed(peers(value))
    for name, value in _fields_in_transaction():
        yield f"secondary/RemoteProtocolError.{name}", begun(ours(value))
        yield f"secondary/RemoteProtocolError.{name}-of-a-peer", begun(peers(value))
    for name, value in {
        "a-tid-of-7-bytes": ("T", (b"x" * 7, " ", b"", b"", {})),
        "a-status-of-c": ("T", (TID, "c", b"", b"", {})),
    }.items():
        yield f"secondary/RemoteProtocolError.{name}-of-Python-2", framed(python2(value))
    for name, value in {
        "a-number-of-blocks-that-is-negative": ("B", (OID, TID, "", None, -1)),
        "an-oid-of-3-bytes": ("S", (b"xxx", TID, "", None)),
        "a-data_txn-of-no-bytes": ("S", (OID, TID, "", b"")),
    }.items():
        yield f"secondary/RemoteProtocolError.{name}-of-Python-2", begun(python2(value))
    shapes = {
        "nothing": b"",
        "None": b"N.",
        "a-list": fast_pickle(["T", (TID, " ", b"", b"", {})], 1),
        "fields-in-a-list": fast_pickle(("T", [TID, " ", b"", b"", {}]), 1),
        "three-parts": fast_pickle(("T", (TID, " ", b"", b"", {}), None), 1),
        "one-part": fast_pickle(("T",), 1),
        "no-pickle": b"\0\1\2\3",
        "bytes-behind-STOP": ours(("C", (MD5,))) + b"N.",
        "no-STOP": ours(("C", (MD5,)))[:-1],
        "two-values": b"N" + ours(("C", (MD5,)))[2:],
        "an-open-mark": b"(" + ours(("C", (MD5,)))[2:],
        "JSON": b'["T", ["03", " ", "", "", {}]]',
    }
    for name, payload in shapes.items():
        yield f"secondary/RemoteProtocolError.{name}-for-a-message", framed(payload)


def order() -> Cases:
    """Messages where none may stand (R11)."""
    t, t_2 = (ours(("T", (tid, " ", b"", b"", {}))) for tid in (TID, TID_2))
    s = ours(("S", (OID, TID, "", None)))
    b = ours(("B", (OID, TID, "", None, 2)))
    c = ours(("C", ()))
    older = ours(("S", (OID, TID, "", b"data", None)))
    block = bytes(BLOB_BLOCK_SIZE)
    whole = encode(SAMPLE)
    streams = {
        "a-commit-first": framed(c),
        "a-record-first": framed(s, b"data"),
        "a-blob-first": framed(b, b"data"),
        "a-record-of-the-older-dialect-first": framed(older),
        "data-first": framed(b"data"),
        "an-empty-message-first": framed(b""),
        "64-KiB-of-empty-messages": bytes(65_536),
        "a-transaction-in-a-transaction": framed(t, t_2),
        "two-commits": framed(t, c, c),
        "a-record-after-a-commit": framed(t, c, s, b"data"),
        "the-same-tid-again": framed(t, c, t),
        "a-lower-tid": framed(t_2, c, t),
        "data-for-a-record": framed(t, b"data"),
        "two-data-for-a-record": framed(t, s, b"data", b"data"),
        "a-block-without-a-blob": framed(t, s, b"data", block),
        "a-block-too-many": framed(t, b, b"data", block, b"x", b"x"),
        "a-short-block-that-is-not-the-last": framed(t, b, b"data", b"x", b"x"),
        "an-empty-block": framed(t, b, b"data", block, b""),
        "a-commit-in-a-blob": framed(t, b, b"data", c, c),
        "a-stream-again-behind-itself": whole + whole,
    }
    for name, stream in streams.items():
        yield f"secondary/RemoteProtocolError.{name}", stream
    checksums = {
        "a-wrong-checksum": framed(t, ours(("C", (MD5,)))),
        "a-wrong-checksum-of-a-peer": framed(
            peers(("T", (TID, " ", b"", b"", {}))), peers(("C", (MD5,)))
        ),
        "a-commit-without-a-checksum-after-one-with": whole
        + framed(ours(("T", (b"\x70" + bytes(7), " ", b"", b"", {}))), c),
        "a-bit-of-a-record": whole.replace(b"data", b"dat\xe1"),
        "a-bit-of-a-block": whole.replace(b"\0\0\0\4blob", b"\0\0\0\4blo\xe2"),
    }
    for name, stream in checksums.items():
        yield f"secondary/ChecksumError.{name}", stream
    ends = {
        "in-a-length": b"\0\0",
        "in-a-pickle": framed(t)[:-1],
        "after-a-T": framed(t),
        "after-an-S": framed(t, s),
        "in-a-record": framed(t, s, b"data")[:-1],
        "after-a-record": framed(t, s, b"data"),
        "after-a-B": framed(t, b, b"data"),
        "in-a-block": framed(t, b, b"data", block)[:-1],
        "between-blocks": framed(t, b, b"data", block),
        "in-a-commit": framed(t, c)[:-1],
    }
    for name, stream in ends.items():
        yield f"secondary/TruncatedStream.an-end-{name}", stream
    yield "secondary-silent/RemoteProtocolError.a-T-before-it-was-asked-for", framed(t)
    yield (
        "secondary-silent/RemoteProtocolError.an-empty-message-before-it-was-asked-for",
        framed(b""),
    )
    yield "secondary-silent/RemoteProtocolError.a-byte-before-it-was-asked-for", b"\0"
    yield "secondary-zrs2.0/RemoteProtocolError.a-blob", framed(t, b, b"data")
    yield (
        "secondary-zrs2.0/RemoteProtocolError.an-empty-blob",
        framed(t, ours(("B", (OID, TID, "", None, 0))), b"data"),
    )


def greetings() -> Cases:
    """What a secondary may not say."""
    word, start = b"zrs2.1", TID
    words = {
        "an-unknown-word": b"zrs2.2",
        "an-empty-word": b"",
        "a-word-in-capitals": b"ZRS2.1",
        "a-word-with-a-NUL": b"zrs2.1\0",
        "a-word-that-is-no-ASCII": b"zrs2.\xb9",
        "a-word-with-a-space": b"zrs2.1 ",
        "a-tid-for-a-word": TID,
        "binary-for-a-word": bytes(range(248, 256)),
    }
    for name, greeting in words.items():
        yield f"primary/UnsupportedProtocol.{name}", framed(greeting, start)
    yield "primary/UnsupportedProtocol.no-blobs-where-there-are-some", framed(b"zrs2.0", start)
    streams = {
        "a-start-of-7-bytes": framed(word, start[1:]),
        "a-start-of-no-bytes": framed(word, b""),
        "a-word-for-a-start": framed(word, word),
        "a-third-message": framed(word, start, b"x"),
        "a-second-start": framed(word, start, start),
        "a-message-after-keep-alives": framed(word, start, b"", b"", b"\0"),
    }
    for name, stream in streams.items():
        yield f"primary/RemoteProtocolError.{name}", stream
        yield f"primary-zrs2.0/RemoteProtocolError.{name}", stream.replace(word, b"zrs2.0")
    longer = {
        "a-word-of-9-bytes": framed(b"zrs2.1.00", start),
        "a-start-of-9-bytes": framed(word, start + b"x"),
        "a-keep-alive-of-9-bytes": framed(word, start, b"x" * 9),
        "a-pickle": framed(pickle.dumps(("T", (TID, " ", b"", b"", {})), 2)),
    }
    for name, stream in longer.items():
        yield f"primary/LimitExceeded.{name}", stream
    ends = {
        "in-a-length": b"\0\0\0",
        "in-a-word": framed(word)[:-1],
        "in-a-start": framed(word, start)[:-1],
    }
    for name, stream in ends.items():
        yield f"primary/TruncatedStream.an-end-{name}", stream
    yield "primary/legal.64-KiB-of-keep-alives", framed(word, start) + bytes(65_536)
    yield "primary/legal.the-highest-start", framed(word, b"\xff" * 8)


def extensions() -> Cases:
    """Stored extensions that are no pickles of dicts, toward a secondary."""
    values = {
        "a-list": b"].",
        "None": b"N.",
        "text": b"X\0\0\0\0.",
        "two-dicts": b"}}.",
        "bytes-behind-STOP": b"}..",
        "no-STOP": b"}",
        "no-pickle": b"extension",
        "DUP": b"}2.",
        "an-end-of-the-T": b"}tt.",
        "a-pop-of-the-field-before": b"0}.",
    }
    for name, stored in values.items():
        yield f"extension/PickleError.{name}", stored
    # Whose two more tuples a T has no room for.
    yield "extension/PickleError.the-depth-of-a-T", b"]" * 63 + b"a" * 62 + b"}Vk\n0" + b"."
    yield "extension/legal.code", b"}Vkey\n" + _GLOBAL + b")Rs."


def cases() -> dict[str, bytes]:
    """The files, by folder and name."""
    found: dict[str, bytes] = {}
    for make in (opcodes, calls, sizes, schema, order, greetings, extensions):
        for name, data in make():
            if name in found:
                raise ValueError(f"two files are called {name}")
            found[name] = data
    return found


def main() -> None:
    from .reading import reason

    for old in FOLDER.glob("*/*.bin"):
        old.unlink()
    lines = []
    for name, data in sorted(cases().items()):
        path = FOLDER / f"{name}.bin"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
        lines.append(f"{name}\t{reason(path.parent.name, data)}\n")
    (FOLDER / "reasons.tsv").write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
