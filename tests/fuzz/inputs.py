"""Makes inputs for the targets: streams and pickles as peers write them, then damaged.

The damage is done where it tells: to a field before it is pickled, to an opcode, to a message of
a stream, to a length; lengths and checksums around it are made right again, mostly, so that what
comes behind is reached too. What is made depends on nothing but the random number generator and
the corpus.
"""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from zrs_core.messages import BLOB_BLOCK_SIZE, NO_TID
from zrs_core.testing import targets
from zrs_core.testing.mutations import (
    PICKLE_PIECES,
    damage_bytes,
    damage_payload,
    damage_stream,
    framed_mostly,
)
from zrs_core.testing.peer_pickles import SPELLINGS
from zrs_core.testing.streams import CHECKSUM, Item, spell
from zrs_core.testing.targets import OID, TIDS, options_of

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

#: Values that may stand in any field.
_VALUES: tuple[Any, ...] = (
    *(None, "", b"", "x", b"x", " ", "p", "c", "S", b"S", (), [], {}, 0, 1, -1, 3, 255, 256),
    *(2**31, 2**32 - 1, 2**32, 2**64, True, 1.5, OID, *TIDS[:3], b"\xff" * 8, b"x" * 7, b"x" * 9),
    *(bytes(16), "x" * 8, CHECKSUM, {"a": 1}, b"x" * 65_536),
)


def _items(chance: Random, blobs: bool) -> list[Item]:
    """The messages of a few whole transactions, unpickled."""
    older = chance.random() < 0.15
    items: list[Item] = []
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
        items.append(("C", () if older else (CHECKSUM,)))
    return items


_FULL_BLOCK = bytes(BLOB_BLOCK_SIZE)


def _blob(fields: tuple[Any, ...], data: bytes, chance: Random) -> list[Item]:
    full = [_FULL_BLOCK] * (chance.random() < 0.1)
    last = [b"the last block"] * (chance.random() < 0.7)
    return [("B", (*fields, len(full + last))), data, *full, *last]


def _damage_items(items: list[Item], chance: Random) -> None:
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
        items.insert(at, chance.choice((b"", b"data", b"x" * 65_536, ("C", (CHECKSUM,)))))
    elif isinstance(item, tuple):
        items[at] = _damage_fields(item, chance)
    else:
        items[at] = chance.choice((b"", b"other data", b"x" * BLOB_BLOCK_SIZE, b"x" * 70_000))


def _damage_fields(item: tuple[str, tuple[Any, ...]], chance: Random) -> Item:
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


#: The fast ones more often.
_PEERS: tuple[Callable[[Any], bytes], ...] = (
    *[SPELLINGS["zrs_core"]] * 8,
    *[SPELLINGS["Python 3"]] * 4,
    SPELLINGS["Python 2"],
    SPELLINGS["Python 2, memo"],
    *(lambda value, protocol=protocol: pickle.dumps(value, protocol) for protocol in (0, 1, 4)),
)


# -- streams


def _stream(chance: Random, start: bytes, blobs: bool) -> bytes:
    """What a primary may send, with some damage or none."""
    items = _items(chance, blobs)
    for _ in range(chance.choice((0, 0, 1, 1, 2))):
        if items:
            _damage_items(items, chance)
    spelling = chance.choice(_PEERS)
    md5 = hashlib.md5(start)
    pieces = []
    for item in items:
        payload = spell(item, spelling, md5.digest())
        if chance.random() < 0.03:
            payload = damage_payload(payload, chance)
        md5.update(payload)
        pieces.append(framed_mostly(payload, chance))
    return b"".join(pieces)


# -- inputs


def pickles(chance: Random, corpus: Sequence[bytes]) -> bytes:
    choice = chance.random()
    if choice < 0.25:
        payload = chance.choice(corpus)
    elif choice < 0.35:
        payload = b"".join(chance.choices(PICKLE_PIECES, k=chance.randrange(12))) + b"."
    elif choice < 0.5:
        payload = chance.choice(_PEERS)(chance.choice(_EXTENSIONS))
    else:
        items = [item for item in _items(chance, True) if isinstance(item, tuple)]
        item = chance.choice(items)
        if chance.random() < 0.3:
            item = _damage_fields(item, chance)
        payload = spell(item, chance.choice(_PEERS), bytes(16))
    for _ in range(chance.choice((0, 1, 1, 2, 4))):
        payload = damage_payload(payload, chance)
    return payload


def framing(chance: Random, corpus: Sequence[bytes]) -> bytes:
    if chance.random() < 0.3:
        return damage_bytes(chance.choice(corpus), chance)
    sizes = (0, 0, 1, 4, 8, 9, 64, 65, 300)
    payloads = [bytes((65,)) * chance.choice(sizes) for _ in range(chance.randrange(8))]
    stream = b"".join(framed_mostly(payload, chance) for payload in payloads)
    if chance.random() < 0.3:
        stream = damage_bytes(stream, chance)
    return chance.randbytes(2) + stream


def secondary(chance: Random, corpus: Sequence[bytes]) -> bytes:
    head = chance.randbytes(2)
    options = options_of(head)
    if chance.random() < 0.3:
        old = chance.choice(corpus)
        if chance.random() < 0.7:
            head = old[:2].ljust(2, b"\0")
            options = options_of(head)
        return head + damage_stream(old[2:], chance, options.start)
    return head + _stream(chance, options.start, options.word == "zrs2.1")


_HEARD = (b"zrs2.1", b"zrs2.0", b"zrs2.2", b"", bytes(8), TIDS[0], b"\xff" * 8, b"x" * 9, b"x")


def primary(chance: Random, corpus: Sequence[bytes]) -> bytes:
    choice = chance.random()
    if choice < 0.15:
        return damage_bytes(chance.choice(corpus), chance)
    if choice < 0.35:
        payloads = [chance.choice(_HEARD) for _ in range(chance.randrange(5))]
    else:
        payloads = [chance.choice(_HEARD[:2]), chance.choice((NO_TID, TIDS[0]))]
        payloads += [b""] * chance.choice((0, 0, 1, 3))
    heard = b"".join(framed_mostly(payload, chance) for payload in payloads)
    if chance.random() < 0.2:
        heard = damage_bytes(heard, chance)
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
    return targets.vary("secondary" if target == "session" else target, data, chance)
