"""The fast path of the pickle reader: exact patterns for the messages that peers really send.

A message that matches none goes the slow way (`opcodes.read`), with the same result. Only messages
of up to `MAX_SIZE` bytes are tried, so that a hostile one cannot make the search for the end of a
text expensive.

The three spellings, of the tag `S` and of bytes (`size4` is little-endian)::

    Python 3 peers   (X 1 0 0 0 S (         c_codecs\\nencode\\n(X size4 utf-8 X 6 0 0 0 latin1tR
    Python 2 peers   (U 1 S (               U size1 bytes
    this package     0x80 3 X 1 0 0 0 S (   C size1 bytes
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, NamedTuple

#: Bytes of the longest message that is tried.
MAX_SIZE: Final = 1024

_Groups = tuple[bytes | None, ...]


class _Spelling(NamedTuple):
    """How one kind of peer writes the parts of a message, as regular expressions.

    `sized` matches bytes of a given range of lengths, with two groups: the size as written and the
    bytes. A text may itself hold what looks like the end of a text; then the size does not fit the
    bytes that were found, and the message goes the slow way.
    """

    opening: Callable[[str], str]
    closing: str
    sized: Callable[[int, int], str]
    empty: str
    text: Callable[[str], str]
    blocks: str
    decode: Callable[[bytes], bytes | None]


def _decode_utf8(data: bytes) -> bytes | None:
    try:
        return data.decode("utf-8").encode("latin-1")
    except UnicodeError:
        return None


_BININT = r"(?:K(?P<i1>.)|M(?P<i2>..)|J(?P<i4>.{3}[\x00-\x7f]))"

_PYTHON3 = _Spelling(
    opening=lambda tag: rf"\(X\x01\x00\x00\x00{tag}\(",
    closing=r"tt\.",
    sized=lambda low, high: (
        rf"c_codecs\nencode\n\(X(.)\x00\x00\x00(.{{{low},{2 * high}}}?)X\x06\x00\x00\x00latin1tR"
    ),
    empty=r"c__builtin__\nbytes\n\)R",
    text=lambda chars: rf"X\x01\x00\x00\x00([{chars}])" if chars else r"X\x00\x00\x00\x00",
    blocks=_BININT,
    decode=_decode_utf8,
)
_PYTHON2 = _Spelling(
    opening=lambda tag: rf"\(U\x01{tag}\(",
    closing=r"tt\.",
    sized=lambda low, high: rf"U(.)(.{{{low},{high}}}?)",
    empty=r"(?!)",
    text=lambda chars: rf"U\x01([{chars}])" if chars else r"U\x00",
    blocks=r"L(?P<decimal>[0-9]{1,10})L\n",
    decode=bytes,
)
_OURS = _Spelling(
    opening=lambda tag: rf"\x80\x03X\x01\x00\x00\x00{tag}\(",
    closing=r"t\x86\.",
    sized=lambda low, high: rf"C(.)(.{{{low},{high}}}?)",
    empty=r"(?!)",
    text=lambda chars: rf"X\x01\x00\x00\x00([{chars}])" if chars else r"X\x00\x00\x00\x00",
    blocks=_BININT,
    decode=bytes,
)


class _Pattern(NamedTuple):
    tag: str
    match: Callable[[bytes], re.Match[bytes] | None]
    decode: Callable[[bytes], bytes | None]


def _compile(spelling: _Spelling) -> list[_Pattern]:
    an_id = spelling.sized(8, 8)
    maybe_id = f"(?:N|{an_id})"
    metadata = f"(?:{spelling.empty}|{spelling.sized(0, 255)})"
    record = an_id + an_id + spelling.text("") + maybe_id
    bodies = {
        "S": record,
        "C": spelling.sized(16, 16),
        "T": an_id + spelling.text(" pu") + metadata + metadata + r"\}",
        "B": record + spelling.blocks,
    }
    patterns = []
    for tag, body in bodies.items():
        regex = spelling.opening(tag) + body + spelling.closing
        match = re.compile(regex.encode("ascii"), re.DOTALL).fullmatch
        patterns.append(_Pattern(tag, match, spelling.decode))
    return patterns


# The tag's place tells the spelling: behind "(U\1", "(X\1\0\0\0" or "\x80\3X\1\0\0\0".
_BY_START: Final[dict[bytes, _Pattern]] = {
    start + pattern.tag.encode("ascii"): pattern
    for start, spelling in (
        (b"(X\x01\0\0\0", _PYTHON3),
        (b"(U\x01", _PYTHON2),
        (b"\x80\x03X\x01\0\0\0", _OURS),
    )
    for pattern in _compile(spelling)
}
_START_SIZES: Final = {ord("("): (7, 4), 0x80: (8,)}


def find(payload: bytes) -> tuple[str, list[bytes | None], int] | None:
    """The tag, the fields and the number of blocks of a message, or None if no pattern fits.

    The fields are bytes: ids as they are (None where there is none), status as one byte.

    :param payload: one message, without its length.
    """
    if not payload or len(payload) > MAX_SIZE:
        return None
    for size in _START_SIZES.get(payload[0], ()):
        pattern = _BY_START.get(payload[:size])
        if pattern is not None:
            found = pattern.match(payload)
            return None if found is None else _fields(pattern, found)
    return None


def _fields(
    pattern: _Pattern, found: re.Match[bytes]
) -> tuple[str, list[bytes | None], int] | None:
    groups: _Groups = found.groups()
    fields: list[bytes | None] = []
    index = 0
    kinds = _KINDS[pattern.tag]
    for kind in kinds:
        if kind == "text":
            fields.append(groups[index])
            index += 1
            continue
        size, data = groups[index], groups[index + 1]
        index += 2
        if size is None or data is None:
            fields.append(b"" if kind == "metadata" else None)
            continue
        value = pattern.decode(data)
        if size[0] != len(data) or value is None:
            return None
        fields.append(value)
    blocks = _blocks(found) if pattern.tag == "B" else 0
    return pattern.tag, fields, blocks


_KINDS: Final = {
    "S": ("id", "id", "id"),
    "B": ("id", "id", "id"),
    "C": ("digest",),
    "T": ("id", "text", "metadata", "metadata"),
}


def _blocks(found: re.Match[bytes]) -> int:
    named = found.groupdict()
    decimal = named.get("decimal")
    if decimal is not None:
        return int(decimal)
    digits = named["i1"] or named["i2"] or named["i4"] or b""
    return int.from_bytes(digits, "little")
