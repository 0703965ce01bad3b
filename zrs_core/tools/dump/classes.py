"""The class that a record names, found without loading anything."""

from __future__ import annotations

import zlib

from ...codec.opcodes import Node, PickleError, read

# A record is two pickles, the class and the state; the first has some hundred bytes at most.
_LONGEST = 1024

# Full stops within it, as in the names of modules, at most.
_STOPS = 40

# How zc.zlibstorage marks what it has compressed.
_COMPRESSED = b".z"


def class_of(record: bytes) -> str | None:
    """The module and the name of a record's class; None if it does not say so in a known way.

    :param record: as stored, at will as zc.zlibstorage does.
    """
    if record.startswith(_COMPRESSED):
        try:
            record = zlib.decompressobj().decompress(record[2:], _LONGEST)
        except zlib.error:
            return None
    end = -1
    for _ in range(_STOPS):
        # The opcode STOP is a full stop; others stand in names.
        end = record.find(b".", end + 1, _LONGEST)
        if end < 0:
            break
        try:
            return _name(read(record[: end + 1]).root)
        except PickleError:
            continue
    return None


def _name(node: Node) -> str | None:
    """The class in one of the forms in which ZODB has written it: itself, or with arguments."""
    while node.name is None and node.items:
        match [item.value for item in node.items]:
            case [str() as module, str() as name]:
                return f"{module}.{name}"
        node = node.items[0]
    return None if node.name is None else ".".join(node.name)
