"""Pickles as this package and its peers write them."""

from __future__ import annotations

import io
import pickle
import struct
from collections.abc import Callable
from typing import Any, Final


def fast_pickle(value: object, protocol: int = 1) -> bytes:
    """Return a pickle without a memo. With protocol 1 this is the output of Python 3 peers."""
    buffer = io.BytesIO()
    pickler = pickle.Pickler(buffer, protocol)
    pickler.fast = True
    pickler.dump(value)
    return buffer.getvalue()


def python2_pickle(value: object, *, memo: bool = False) -> bytes:
    """Return a pickle as Python 2 peers write it: bytes are its `str`, integers its `long`.

    :param value: None, booleans, numbers and bytes, in tuples, lists and dicts.
    :param memo: store texts and containers, and fetch equal texts, as cPickle does with
        equal objects. There is room for 255 of them.
    """
    stored: dict[Any, int] = {}

    def put(opcodes: bytes, key: bytes | None = None) -> bytes:
        if not memo:
            return opcodes
        index = len(stored) + 1
        stored[key if key is not None else index] = index
        return opcodes + b"q" + bytes((index,))

    def write(value: Any) -> bytes:
        if value is None:
            return b"N"
        if isinstance(value, bool):
            return b"I01\n" if value else b"I00\n"
        if isinstance(value, float):
            return b"G" + struct.pack(">d", value)
        if isinstance(value, int):
            return b"L%dL\n" % value
        if isinstance(value, bytes):
            if value in stored:
                return b"h" + bytes((stored[value],))
            if len(value) < 256:
                return put(b"U" + bytes((len(value),)) + value, value)
            return put(b"T" + struct.pack("<i", len(value)) + value, value)
        if isinstance(value, tuple):
            if not value:
                return b")"
            return put(b"(" + b"".join(map(write, value)) + b"t")
        if isinstance(value, list):
            return put(b"]") + b"(" + b"".join(map(write, value)) + b"e"
        opcodes = put(b"}")
        if value:
            items = b"".join(write(key) + write(item) for key, item in value.items())
            opcodes += b"(" + items + b"u"
        return opcodes

    return write(value) + b"."


def in_python_2(value: Any) -> Any:
    """Return `value` as Python 2 has it: its texts are bytes."""
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, (tuple, list)):
        return type(value)(map(in_python_2, value))
    if isinstance(value, dict):
        return {in_python_2(key): in_python_2(item) for key, item in value.items()}
    return value


#: A function for each kind of peer, which pickles a message as that peer does.
SPELLINGS: Final[dict[str, Callable[[Any], bytes]]] = {
    "zrs_core": lambda value: fast_pickle(value, 3),
    "Python 3": fast_pickle,
    "Python 2": lambda value: python2_pickle(in_python_2(value)),
    "Python 2, memo": lambda value: python2_pickle(in_python_2(value), memo=True),
}
