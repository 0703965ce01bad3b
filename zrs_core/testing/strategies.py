"""Hypothesis strategies: streams of both ends, valid and mutated, and places to cut them.

This module needs hypothesis, which the extra ``testing`` installs.
"""

from __future__ import annotations

import pickle
from typing import Any, Final

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from ..messages import (
    BLOB_BLOCK_SIZE,
    MAX_TID,
    NO_TID,
    STATUSES,
    BlobBlock,
    Commit,
    PrimaryMessage,
    Store,
    StoreBlob,
    Transaction,
)
from .mutations import PICKLE_PIECES
from .outcomes import speaking
from .peer_pickles import SPELLINGS, fast_pickle
from .streams import CHECKSUM, Item, encode, framed, split, with_checksums
from .streams import pieces as cut

# -- messages

#: A block of a blob as long as every one but the last has to be.
FULL_BLOCK: Final = BlobBlock(bytes(range(256)) * (BLOB_BLOCK_SIZE // 256))

#: Ids: tids, oids.
ids: Final = st.binary(min_size=8, max_size=8)

#: Users and descriptions, short or long.
texts: Final = st.binary(max_size=20) | st.binary(min_size=250, max_size=600)

_atoms = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=20)
    | st.binary(max_size=20)
    | st.sampled_from([b"x" * 300, "x" * 300, 2**100])
)
_application_values = (
    st.text(st.characters(), max_size=3)
    | st.just("\udc80")
    | st.datetimes()
    | st.decimals(allow_nan=False)
    | st.timedeltas()
    | st.fractions()
)


def _nested(leaves: SearchStrategy[Any]) -> SearchStrategy[dict[Any, Any]]:
    values = st.recursive(
        leaves,
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.lists(inner, max_size=4).map(tuple)
            | st.dictionaries(st.text(max_size=5) | st.integers(), inner, max_size=4)
            | inner.map(lambda value: [value, value])
        ),
        max_leaves=8,
    )
    return st.dictionaries(st.text(max_size=10), values, min_size=1, max_size=4)


#: Dicts that applications store with a transaction: with values of any class.
extension_dicts: Final = _nested(_atoms | _application_values)

#: Dicts that a pickle of any protocol and of Python 2 can hold.
_plain_dicts = _nested(_atoms)


@st.composite
def extensions(draw: DrawFn) -> bytes:
    """Return stored extensions: `b""`, or the pickle of a dict that is not empty."""
    if draw(st.booleans()):
        return b""
    value, protocol = draw(extension_dicts), draw(st.integers(0, 5))
    return fast_pickle(value, protocol) if draw(st.booleans()) else pickle.dumps(value, protocol)


@st.composite
def _records(draw: DrawFn, tid: bytes, blobs: bool) -> list[PrimaryMessage]:
    header = draw(ids), tid, draw(st.binary(max_size=50)), draw(st.none() | ids)
    if not (blobs and draw(st.booleans())):
        return [Store(*header)]
    full = [FULL_BLOCK] * draw(st.sampled_from([0, 0, 0, 1, 2]))
    last = [BlobBlock(data) for data in draw(st.lists(st.binary(min_size=1), max_size=1))]
    return [StoreBlob(*header, len(full + last)), *full, *last]


@st.composite
def transactions(
    draw: DrawFn, *, blobs: bool = True, start: bytes = NO_TID
) -> list[PrimaryMessage]:
    """Return the messages of up to four whole transactions, in the order of a primary.

    :param blobs: with blobs among the records; they are for ``zrs2.1`` only.
    :param start: a tid below those of the transactions.
    """
    messages: list[PrimaryMessage] = []
    low, high = (int.from_bytes(tid, "big") for tid in (start, MAX_TID))
    for number in sorted(draw(st.sets(st.integers(low + 1, high), max_size=4))):
        tid = number.to_bytes(8, "big")
        status = draw(st.sampled_from(STATUSES))
        messages.append(
            Transaction(tid, status, draw(texts), draw(texts), draw(extensions())),
        )
        for record in draw(st.lists(_records(tid, blobs), max_size=3)):
            messages += record
        messages.append(Commit())
    return messages


# -- valid streams


@st.composite
def from_secondary(draw: DrawFn, *, blobs: bool = True, start: bytes = NO_TID) -> bytes:
    """Return streams of a secondary: a greeting, then keep-alives.

    :param blobs: False for a primary without blobs, which accepts ``zrs2.0`` as well as ``zrs2.1``;
        one with blobs refuses ``zrs2.0``.
    :param start: the tid after which the secondary asks for transactions.
    """
    word = b"zrs2.1" if blobs else draw(st.sampled_from([b"zrs2.1", b"zrs2.0"]))
    return framed(word, start, *[b""] * draw(st.integers(0, 3)))


@st.composite
def from_primary(draw: DrawFn, *, blobs: bool = True, start: bytes = NO_TID) -> bytes:
    """Return streams of a primary: whole transactions, as any implementation writes them.

    That is this package with each of its pickle protocols, and ZRS 2 in Python 3 and in Python 2,
    with records that follow their messages or, as in old versions, are part of them.

    :param blobs: False for a secondary that has asked for ``zrs2.0``, which has no blobs.
    :param start: the tid after which the secondary has asked for transactions.
    """
    spelling = draw(st.none() | st.sampled_from([*SPELLINGS.values()]))
    if spelling is None:
        protocol, pickled = "zrs2.1" if blobs else "zrs2.0", draw(st.sampled_from([3, 1]))
        connection = speaking(protocol, start, blobs=blobs, pickle_protocol=pickled)
        return b"".join(connection.send_all(draw(transactions(blobs=blobs, start=start))))
    inline = draw(st.booleans())
    messages = draw(transactions(blobs=blobs and not inline, start=start))
    items: list[Item] = []
    for message in messages:
        extension = draw(_plain_dicts | st.just({})) if isinstance(message, Transaction) else {}
        items += _items(message, extension, inline)
    return framed(*encode(items, spelling, start))


def _items(message: PrimaryMessage, extension: dict[Any, Any], inline: bool) -> list[Item]:
    """Return a message as items.

    :param inline: a record is part of its message, and a commit has no checksum.
    """
    match message:
        case Transaction(tid, status, user, description):
            return [("T", (tid, status, user, description, extension))]
        case Store(oid, serial, data, data_txn) if inline:
            return [("S", (oid, serial, "", data or None, data_txn))]
        case Store(oid, serial, data, data_txn):
            return [("S", (oid, serial, "", data_txn)), data]
        case StoreBlob(oid, serial, data, data_txn, blocks):
            return [("B", (oid, serial, "", data_txn, blocks)), data]
        case BlobBlock(data):
            return [data]
    return [("C", () if inline else (CHECKSUM,))]


# -- cut points


def cuts(data: bytes, *, most: int = 20) -> SearchStrategy[list[int]]:
    """Return offsets at which `data` may be cut, in no order, some of them more than once.

    :param most: how many there are at most.
    """
    return st.lists(st.integers(0, len(data)), max_size=most)


def pieces(data: bytes, *, most: int = 20) -> SearchStrategy[list[bytes]]:
    """Return `data` in pieces, as a network may deliver it. No piece is empty.

    :param most: how often it is cut at most.
    """
    return cuts(data, most=most).map(lambda offsets: [each for each in cut(data, offsets) if each])


# -- mutated streams

_snippets = st.sampled_from(
    [b"", b".", b"t", b"tt.", b"(", b"}", b"0", b"2", b"N", b"q\0", b"h\0", b"\x94", b"R", b"b"]
)
_opcodes = st.lists(st.sampled_from(PICKLE_PIECES), max_size=10).map(b"".join)


@st.composite
def damaged(draw: DrawFn, data: SearchStrategy[bytes]) -> bytes:
    """Return bytes of `data` with one to three parts flipped, cut off, inserted or dropped.

    The inserted parts are bytes, or opcodes of pickles.
    """
    found = draw(data)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(found)))
        match draw(st.sampled_from(["flip", "cut", "insert", "splice", "drop"])):
            case "flip" if at < len(found):
                flipped = found[at] ^ (1 << draw(st.integers(0, 7)))
                found = found[:at] + bytes((flipped,)) + found[at + 1 :]
            case "cut":
                found = found[:at]
            case "insert":
                found = found[:at] + draw(st.binary(max_size=10)) + found[at:]
            case "splice":
                found = found[:at] + draw(_snippets | _opcodes) + found[at:]
            case "drop":
                found = found[:at] + found[at + draw(st.integers(1, 20)) :]
    return found


@st.composite
def mutated(draw: DrawFn, streams: SearchStrategy[bytes], *, start: bytes = NO_TID) -> bytes:
    """Return a stream out of `streams` with something wrong: its bytes, or its messages.

    Messages are changed, removed, repeated or moved. Their lengths and checksums are right then,
    so that the end that reads them gets as far as the change, and beyond.

    :param start: the tid after which the secondary has asked for transactions.
    """
    if draw(st.booleans()):
        return draw(damaged(streams))
    payloads = split(draw(streams))
    for _ in range(draw(st.integers(1, 3))):
        payloads = draw(_damaged_messages(payloads))
    return framed(*with_checksums(payloads, start))


@st.composite
def _damaged_messages(draw: DrawFn, payloads: list[bytes]) -> list[bytes]:
    found = list(payloads)
    if not found:
        return [draw(st.binary(max_size=20) | _opcodes)]
    at = draw(st.integers(0, len(found) - 1))
    match draw(st.sampled_from(["change", "remove", "repeat", "move"])):
        case "change":
            found[at] = draw(damaged(st.just(found[at])))
        case "remove":
            del found[at]
        case "repeat":
            found.insert(at, draw(st.sampled_from(found)))
        case "move":
            found.append(found.pop(at))
    return found
