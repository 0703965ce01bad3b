"""The objects that a record refers to, found without executing anything of it.

A record is two pickles, the object's class and its state. References are persistent ids in either
(`ZODB.serialize`): an oid, or a tuple of an oid and a class. What stands in a list is a weak
reference, or one into another database.

The opcodes are walked one by one. On the stack everything is `None` but bytes that may be an oid,
and tuples that begin with some. No global is looked up, nothing is called, and no number in a
record makes memory be taken: the memo is a dict, and lengths are those of bytes that are there. So
time and memory are linear in the size of the record.
"""

from __future__ import annotations

import pickletools
import struct
from collections.abc import Callable
from typing import Final, NamedTuple


class BadRecord(ValueError):
    """A record that is not made of whole pickles."""


class _Tuple(NamedTuple):
    """A tuple whose first item may be an oid."""

    oid: bytes


_Value = bytes | _Tuple | None


def references(data: bytes) -> set[bytes]:
    """The oids of the objects that a record needs.

    :param data: a record as ZODB writes it.
    :raises BadRecord: it cannot be read.
    """
    found: set[bytes] = set()
    # ZODB writes both pickles with one memo.
    memo: dict[int, _Value] = {}
    pos = 0
    try:
        while pos < len(data):
            pos = _walk(data, pos, memo, found)
    except (IndexError, KeyError, ValueError, struct.error) as error:
        raise BadRecord(f"there is no pickle at byte {pos} of it") from error
    return found


def _walk(data: bytes, pos: int, memo: dict[int, _Value], found: set[bytes]) -> int:
    """Collect the references in the pickle at `pos`; where it ends.

    :raises Exception: one of those that `references` expects, if there is no pickle.
    """
    stack: list[_Value] = []
    marks: list[int] = []
    size = len(data)
    while True:
        name, begin_of, skip, pops, to_mark, pushes = _OPCODES[data[pos]]
        begin = pos = pos + 1
        if begin_of is not None:
            begin, pos = begin_of(data, pos)
        else:
            pos += skip
        if pos > size:
            raise IndexError
        items: list[_Value] = []
        if to_mark:
            height = marks.pop()
            items = stack[height:]
            del stack[height:]
        if pops:
            if len(stack) - pops < (marks[-1] if marks else 0):
                raise IndexError
            items = stack[-pops:] + items
            del stack[-pops:]
        if not name:
            if pushes:
                stack.append(None)
        elif name == "bytes":
            stack.append(data[begin:pos] if pos - begin == 8 else None)
        elif name == "put":
            argument = data[begin:pos]
            memo[int.from_bytes(argument, "little") if skip else int(argument)] = stack[-1]
        elif name == "get":
            argument = data[begin:pos]
            stack.append(memo[int.from_bytes(argument, "little") if skip else int(argument)])
        elif name == "memoize":
            memo[len(memo)] = stack[-1]
        elif name == "tuple":
            first = items[0] if items else None
            stack.append(_Tuple(first) if isinstance(first, bytes) else None)
        elif name == "mark":
            marks.append(len(stack))
        elif name == "reference":
            (value,) = items
            if value is not None:
                found.add(value.oid if isinstance(value, _Tuple) else value)
            stack.append(None)
        elif name == "dup":
            stack.append(stack[-1])
        elif name == "pop":
            if marks and marks[-1] == len(stack):
                marks.pop()
            else:
                stack.pop()
        else:
            return pos


class _Opcode(NamedTuple):
    """What an opcode does: what is special about it, its argument, what it does with the stack."""

    name: str
    argument: Callable[[bytes, int], tuple[int, int]] | None
    skip: int
    pops: int
    to_mark: bool
    pushes: bool


def _line(data: bytes, pos: int) -> tuple[int, int]:
    return pos, data.index(b"\n", pos) + 1


def _lines(data: bytes, pos: int) -> tuple[int, int]:
    return pos, data.index(b"\n", data.index(b"\n", pos) + 1) + 1


def _counted(form: str) -> Callable[[bytes, int], tuple[int, int]]:
    number = struct.Struct(form)

    def argument(data: bytes, pos: int) -> tuple[int, int]:
        (length,) = number.unpack_from(data, pos)
        if length < 0:
            raise IndexError
        begin = pos + number.size
        return begin, begin + length

    return argument


_SPECIAL: Final = {
    **dict.fromkeys(("SHORT_BINSTRING", "BINSTRING", "SHORT_BINBYTES", "BINBYTES"), "bytes"),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), "put"),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), "get"),
    **dict.fromkeys(("TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"), "tuple"),
    "MEMOIZE": "memoize",
    "MARK": "mark",
    "BINPERSID": "reference",
    "DUP": "dup",
    "POP": "pop",
    "STOP": "stop",
}
_COUNTED: Final = {
    pickletools.TAKEN_FROM_ARGUMENT1: "<B",
    pickletools.TAKEN_FROM_ARGUMENT4: "<i",
    pickletools.TAKEN_FROM_ARGUMENT4U: "<I",
    pickletools.TAKEN_FROM_ARGUMENT8U: "<Q",
}
# Those without a stack effect of their own here.
_OWN_STACK: Final = {"mark", "dup", "pop", "put", "get", "memoize"}


def _opcode(info: pickletools.OpcodeInfo) -> _Opcode:
    argument: Callable[[bytes, int], tuple[int, int]] | None = None
    skip = 0
    if info.arg is not None:
        if info.arg.n == pickletools.UP_TO_NEWLINE:
            argument = _lines if info.arg.name.endswith("_pair") else _line
        elif info.arg.n < 0:
            argument = _counted(_COUNTED[info.arg.n])
        else:
            skip = info.arg.n
    name = _SPECIAL.get(info.name, "")
    before = [] if name in _OWN_STACK else info.stack_before
    to_mark = pickletools.markobject in before
    pops = len([each for each in before if each.name not in ("mark", "stackslice")])
    if info.name == "OBJ":
        # Its class is above the mark.
        pops = 0
    return _Opcode(name, argument, skip, pops, to_mark, bool(info.stack_after))


_OPCODES: Final = {ord(info.code): _opcode(info) for info in pickletools.opcodes}
