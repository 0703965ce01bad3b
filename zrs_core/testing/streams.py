"""Streams of bytes, taken apart into messages and put together again.

A message on the wire is its length in 4 bytes, big-endian, and a *payload* of that many bytes. An
*item* is a payload before it is pickled: bytes, or a tag and a tuple of fields.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterable
from typing import Any, Final, TypeAlias

from ..codec import patterns
from ..codec.extension import encode_latin1
from ..codec.framing import prefix
from ..messages import NO_TID

Item: TypeAlias = "bytes | tuple[str, tuple[Any, ...]]"

#: Stands in an item for the checksum of the payloads before it.
CHECKSUM: Final = object()


def framed(*payloads: bytes) -> bytes:
    """Return a stream of `payloads`, each with its length in front."""
    return b"".join(prefix(len(payload)) + payload for payload in payloads)


def split(stream: bytes) -> list[bytes]:
    """Return the payloads of a stream; an incomplete message at the end counts as one."""
    payloads = []
    at = 0
    while at < len(stream):
        size = int.from_bytes(stream[at : at + 4], "big")
        payloads.append(stream[at + 4 : at + 4 + size])
        at += 4 + size
    return payloads


def pieces(data: bytes, cuts: Iterable[int]) -> list[bytes]:
    """Return `data` cut at the offsets `cuts`; equal offsets give empty pieces."""
    edges = [0, *sorted(cuts), len(data)]
    return [data[begin:end] for begin, end in itertools.pairwise(edges)]


def spell(item: Item, spelling: Callable[[Any], bytes], checksum: bytes) -> bytes:
    """Return the payload of an item.

    :param spelling: pickles a tag and its fields, see `zrs_core.testing.peer_pickles.SPELLINGS`.
    :param checksum: put in place of `CHECKSUM`.
    """
    if isinstance(item, bytes):
        return item
    tag, fields = item
    return spelling((tag, tuple(checksum if field is CHECKSUM else field for field in fields)))


def encode(
    items: Iterable[Item], spelling: Callable[[Any], bytes], start: bytes = NO_TID
) -> list[bytes]:
    """Return the payloads of a primary's items, with their checksums.

    :param start: the tid that the secondary has asked for, with which checksums begin.
    """
    md5 = hashlib.md5(start)
    payloads = []
    for item in items:
        payload = spell(item, spelling, md5.digest())
        md5.update(payload)
        payloads.append(payload)
    return payloads


def with_checksums(payloads: Iterable[bytes], start: bytes = NO_TID) -> list[bytes]:
    """Return a primary's payloads with the checksum of each commit made right.

    A commit that is too damaged to be recognised stays as it is.

    :param start: as for `encode`.
    """
    md5 = hashlib.md5(start)
    corrected = []
    for payload in payloads:
        found = patterns.find(payload)
        if found is not None and found[0] == "C" and found[1][0]:
            payload = _with_checksum(payload, found[1][0], md5.digest())
        md5.update(payload)
        corrected.append(payload)
    return corrected


def _with_checksum(commit: bytes, old: bytes, new: bytes) -> bytes:
    if old in commit:
        return commit.replace(old, new)
    return commit.replace(encode_latin1(old), encode_latin1(new))
