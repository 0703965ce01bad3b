"""Reads one pickle, of protocol 0 to 5, without executing anything.

`read()` walks the opcodes once and keeps a stack of nodes, as an unpickler does, but a global is a
name that nobody resolves and a call is a node that nobody makes. What comes out is a tree of plain
values (bytes, str, int, float, bool, None, tuple, list, dict) with the place of each in the
pickle; whatever is not plain is `OPAQUE`. Whether something opaque may stand where it stands is
for the caller to say: only a transaction's extension may hold any.

Two calls are understood, since Python 3 writes bytes in them below protocol 3:
`_codecs.encode(text, 'latin1')` and `bytes()`.

A pickle is refused with `PickleError`, and with nothing else, when it is not well-formed, goes
beyond a limit below, or uses what a pickle of its own cannot (out-of-band buffers).

The time is linear in the size of the pickle: no opcode does work in proportion to anything but the
bytes or the stack items that it consumes.
"""

from __future__ import annotations

import codecs
import re
import struct
from collections.abc import Callable
from typing import Any, Final

#: Opcodes in one pickle: 20,000 for a message's own fields (no peer uses 100), and as many as an
#: extension of 65,535 bytes can hold.
MAX_OPCODES = 20_000 + 65_535

#: How deep values may nest.
MAX_DEPTH = 64

#: Bytes in one line of a GLOBAL or INST.
MAX_NAME_SIZE = 256

#: Digits of an integer that is read as a value; a longer one is opaque.
MAX_DIGITS = 20


class PickleError(ValueError):
    """The pickle is malformed, or beyond a limit."""


class _Opaque:
    """The type of `OPAQUE`."""

    def __repr__(self) -> str:
        return "OPAQUE"


#: The value of a node that only executing the pickle could tell.
OPAQUE: Final = _Opaque()


class Node:
    """One value of the pickle.

    `start` and `end` are its place: from its first opcode to behind its last one, memo opcodes
    that follow it included. A tuple has `items`, its nodes, and `close`, where the opcode that
    built it stands. `name` is (module, name) of a global.
    `depth` is 1 for a value that holds no other. `known` has the plain items of a dict that is
    `OPAQUE` because it has others too. `original` is the value that a memo opcode has pushed again.
    """

    __slots__ = (
        "close",
        "depth",
        "end",
        "items",
        "known",
        "name",
        "original",
        "start",
        "value",
    )

    def __init__(self, value: Any, start: int, end: int, depth: int = 1) -> None:
        self.value = value
        self.start = start
        self.end = end
        self.depth = depth
        self.items: list[Node] | None = None
        self.close = 0
        self.name: tuple[str, str] | None = None
        self.known: dict[Any, Any] | None = None
        self.original: Node | None = None

    @property
    def may_be_dict(self) -> bool:
        """Whether the value is a dict, or something opaque: a subclass's instance, say."""
        return self.value is OPAQUE or isinstance(self.value, dict)


class MemoWrite:
    """A memo opcode that stored a value: where it stands, its index, what it stored."""

    __slots__ = ("index", "node", "offset")

    def __init__(self, offset: int, index: int, node: Node) -> None:
        self.offset = offset
        self.index = index
        self.node = node


class Pickle:
    """What `read()` found.

    `protocol` is that of the PROTO opcode, None where there is none. `memo_writes` and
    `memo_reads` (offset, index) and `frames` (offsets) are in the order of the pickle.
    `has_native_strings` tells whether Python 2 `str` occur, `shares_containers` whether a tuple,
    list or dict is used more than once (then the values of containers are not to be relied on);
    `globals` names every global. `bytes_leaves` (offset, end, value) are the bytes written with
    the opcodes of protocol 3 and later.
    """

    __slots__ = (
        "bytes_leaves",
        "data",
        "frames",
        "globals",
        "has_native_strings",
        "memo_reads",
        "memo_writes",
        "memoizes",
        "protocol",
        "root",
        "shares_containers",
    )

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.protocol: int | None = None
        self.frames: list[int] = []
        self.memo_writes: list[MemoWrite] = []
        self.memo_reads: list[tuple[int, int]] = []
        self.memoizes: list[int] = []
        self.globals: list[tuple[str, str]] = []
        self.bytes_leaves: list[tuple[int, int, bytes]] = []
        self.has_native_strings = False
        self.shares_containers = False
        self.root: Node


def read(data: bytes) -> Pickle:
    """The tree of one whole pickle.

    :raises PickleError: the pickle is malformed, or beyond a limit.
    """
    return _Reader(data).read()


def end_of(data: bytes) -> int | None:
    """Return where the pickle at the beginning of `data` ends; None if that is not in `data`."""
    reader = _Reader(data)
    try:
        reader.walk()
    except PickleError:
        return None
    return reader.pos


def plain_items(data: bytes) -> dict[Any, Any]:
    """Return the items of a pickled dict as ZODB unpickles them, without those that are not plain.

    Nothing is executed. The result is empty if the pickle cannot be read or is not one of a dict.
    """
    try:
        root = _Reader(data, native=_as_zodb).read().root
    except PickleError:
        return {}
    return root.value if isinstance(root.value, dict) else root.known or {}


def _as_zodb(text: bytes) -> str | bytes:
    """A `str` of Python 2 as ZODB unpickles it in Python 3."""
    return text.decode("ascii") if text.isascii() else text


def _as_it_is(text: bytes) -> str | bytes:
    return text


# A text in a protocol-0 pickle of Python 2 is its repr(); repr() of a str makes no other escapes.
_BAD_ESCAPE = re.compile(rb"\\(?![\'\"ntr]|x[0-9a-fA-F]{2})").search
# A name that can be written again as a line: no line break, nothing that UTF-8 has not.
_NAME = re.compile(rf"[^\n\ud800-\udfff]{{0,{MAX_NAME_SIZE}}}").fullmatch
_DECIMAL = re.compile(rb"[+-]?[0-9]+").fullmatch
_FLOAT = re.compile(rb"[+-]?(?:[0-9.]+(?:[eE][+-]?[0-9]+)?|inf|nan)").fullmatch

_unpack_u16 = struct.Struct("<H").unpack_from
_unpack_u32 = struct.Struct("<I").unpack_from
_unpack_i32 = struct.Struct("<i").unpack_from
_unpack_u64 = struct.Struct("<Q").unpack_from
_unpack_double = struct.Struct(">d").unpack_from

_PLAIN_KEYS = (str, bytes, int, type(None))


class _Reader:
    """The state of one `read()`: the position, the stack, where its marks are, and the memo.

    :param native: makes the value of a `str` of Python 2.
    """

    def __init__(self, data: bytes, native: Callable[[bytes], str | bytes] = _as_it_is) -> None:
        self.data = data
        self.native = native
        self.pos = 0
        self.op = 0
        # Where the last frame ends, and beyond which no opcode may go: that frame while it is open,
        # the pickle otherwise.
        self.frame_end = 0
        self.limit = len(data)
        self.stack: list[Node] = []
        self.marks: list[tuple[int, int]] = []
        self.memo: dict[int, Node] = {}
        self.result = Pickle(data)

    def read(self) -> Pickle:
        self.walk()
        size = len(self.data)
        if self.pos != size:
            raise PickleError(f"{size - self.pos} bytes follow its STOP")
        if len(self.stack) != 1 or self.marks:
            raise PickleError("it does not leave exactly one value")
        self.result.root = self.stack[0]
        return self.result

    def walk(self) -> None:
        """Execute the opcodes up to and including STOP."""
        data, size = self.data, len(self.data)
        handlers = _HANDLERS
        count = 0
        while True:
            if self.pos >= self.limit:
                if self.pos >= size:
                    raise PickleError("it ends without STOP")
                self.limit = size
            count += 1
            if count > MAX_OPCODES:
                raise PickleError(f"it has more than {MAX_OPCODES} opcodes")
            self.op = self.pos
            opcode = data[self.pos]
            self.pos += 1
            if opcode == 0x2E:  # STOP
                break
            handler = handlers.get(opcode)
            if handler is None:
                raise PickleError(f"opcode 0x{opcode:02x} is unknown or not allowed")
            handler(self)

    # -- taking arguments

    def take(self, size: int) -> bytes:
        end = self.pos + size
        if end > self.limit:
            raise PickleError(f"{size} bytes are announced where {self.limit - self.pos} are left")
        piece = self.data[self.pos : end]
        self.pos = end
        return piece

    def number(self, unpack: Callable[[bytes], tuple[int]], size: int) -> int:
        return unpack(self.take(size))[0]

    def line(self, most: int | None = None) -> bytes:
        end = self.data.find(b"\n", self.pos, self.limit)
        if end < 0:
            raise PickleError("a line has no end")
        if most is not None and end - self.pos > most:
            raise PickleError(f"a name has more than {most} bytes")
        piece = self.data[self.pos : end]
        self.pos = end + 1
        return piece

    def name_line(self) -> str:
        try:
            return self.line(MAX_NAME_SIZE).decode("utf-8")
        except UnicodeDecodeError as error:
            raise PickleError("a name is not UTF-8") from error

    # -- the stack

    def push(self, value: Any) -> Node:
        node = Node(value, self.op, self.pos)
        self.stack.append(node)
        return node

    def pop(self) -> Node:
        if len(self.stack) <= (self.marks[-1][0] if self.marks else 0):
            raise PickleError("an opcode finds the stack empty")
        return self.stack.pop()

    def top(self) -> Node:
        node = self.pop()
        self.stack.append(node)
        return node

    def pop_to_mark(self) -> tuple[list[Node], int]:
        """The nodes above the last mark, and where that mark stands."""
        if not self.marks:
            raise PickleError("an opcode finds no mark")
        height, start = self.marks.pop()
        nodes = self.stack[height:]
        del self.stack[height:]
        return nodes, start

    def push_built(self, value: Any, start: int, parts: list[Node]) -> Node:
        depth = 1 + max((part.depth for part in parts), default=0)
        if depth > MAX_DEPTH:
            raise PickleError(f"its values nest deeper than {MAX_DEPTH}")
        node = Node(value, start, self.pos, depth)
        self.stack.append(node)
        return node

    def grow(self, node: Node, parts: list[Node]) -> None:
        """`parts` went into `node`, which stays on the stack."""
        for part in parts:
            if part.depth >= node.depth:
                node.depth = part.depth + 1
        if node.depth > MAX_DEPTH:
            raise PickleError(f"its values nest deeper than {MAX_DEPTH}")
        node.end = self.pos

    # -- opcodes: framing and the stack itself

    def op_proto(self) -> None:
        protocol = self.take(1)[0]
        if self.op != 0 or protocol > 5:
            raise PickleError(f"PROTO {protocol} at byte {self.op}")
        self.result.protocol = protocol

    def op_frame(self) -> None:
        size = self.number(_unpack_u64, 8)
        if self.op < self.frame_end:
            raise PickleError("a frame begins within another")
        if size > self.limit - self.pos:
            raise PickleError(f"a frame of {size} bytes where {self.limit - self.pos} are left")
        self.limit = self.frame_end = self.pos + size
        self.result.frames.append(self.op)

    def op_mark(self) -> None:
        self.marks.append((len(self.stack), self.op))

    def op_pop(self) -> None:
        if self.marks and self.marks[-1][0] == len(self.stack):
            self.marks.pop()
        else:
            self.pop()

    def op_pop_mark(self) -> None:
        self.pop_to_mark()

    def push_again(self, node: Node) -> None:
        """A value once more: a leaf is copied; a container is opaque, and makes known values
        doubtful, since it may change after it went into others."""
        if isinstance(node.value, (tuple, list, dict)):
            self.result.shares_containers = True
            copy = self.push(OPAQUE)
            copy.original = node
        else:
            copy = self.push(node.value)
        copy.name = node.name
        copy.depth = node.depth

    # -- opcodes: leaves

    def op_none(self) -> None:
        self.push(None)

    def op_true(self) -> None:
        self.push(True)

    def op_false(self) -> None:
        self.push(False)

    def op_int_line(self) -> None:
        line = self.line()
        if line in (b"00", b"01"):
            self.push(line == b"01")
        else:
            self.push_decimal(line)

    def op_long_line(self) -> None:
        self.push_decimal(self.line().removesuffix(b"L"))

    def push_decimal(self, digits: bytes) -> None:
        if not _DECIMAL(digits):
            raise PickleError("an integer is not decimal")
        self.push(int(digits) if len(digits) <= MAX_DIGITS else OPAQUE)

    def op_binint(self) -> None:
        self.push(self.number(_unpack_i32, 4))

    def op_binint1(self) -> None:
        self.push(self.take(1)[0])

    def op_binint2(self) -> None:
        self.push(self.number(_unpack_u16, 2))

    def op_long1(self) -> None:
        self.push_long(self.take(self.take(1)[0]))

    def op_long4(self) -> None:
        self.push_long(self.take(self.number(_unpack_u32, 4)))

    def push_long(self, digits: bytes) -> None:
        self.push(int.from_bytes(digits, "little", signed=True) if len(digits) <= 9 else OPAQUE)

    def op_float_line(self) -> None:
        line = self.line()
        if not _FLOAT(line):
            raise PickleError("a float is not decimal")
        try:
            self.push(float(line))
        except ValueError as error:
            raise PickleError("a float is not decimal") from error

    def op_binfloat(self) -> None:
        self.push(_unpack_double(self.take(8))[0])

    def op_string_line(self) -> None:
        line = self.line()
        quoted = len(line) >= 2 and line[:1] in (b"'", b'"') and line[:1] == line[-1:]
        # The escaped backslashes first, so that any other begins an escape.
        if not quoted or _BAD_ESCAPE(line[1:-1].replace(rb"\\", b".")):
            raise PickleError("a string is not quoted as repr() does")
        self.push_native(codecs.escape_decode(line[1:-1])[0])

    def op_short_binstring(self) -> None:
        self.push_native(self.take(self.take(1)[0]))

    def op_binstring(self) -> None:
        size = self.number(_unpack_i32, 4)
        if size < 0:
            raise PickleError("a string has a negative length")
        self.push_native(self.take(size))

    def push_native(self, text: bytes) -> None:
        self.result.has_native_strings = True
        self.push(self.native(text))

    def op_short_binbytes(self) -> None:
        self.push_bytes(self.take(self.take(1)[0]))

    def op_binbytes(self) -> None:
        self.push_bytes(self.take(self.number(_unpack_u32, 4)))

    def op_binbytes8(self) -> None:
        self.push_bytes(self.take(self.number(_unpack_u64, 8)))

    def push_bytes(self, value: bytes) -> None:
        self.push(value)
        self.result.bytes_leaves.append((self.op, self.pos, value))

    def op_bytearray8(self) -> None:
        self.take(self.number(_unpack_u64, 8))
        self.push(OPAQUE)

    def op_unicode_line(self) -> None:
        try:
            self.push(self.line().decode("raw-unicode-escape"))
        except UnicodeDecodeError as error:
            raise PickleError("a text has a bad escape") from error

    def op_short_binunicode(self) -> None:
        self.push_utf8(self.take(self.take(1)[0]))

    def op_binunicode(self) -> None:
        self.push_utf8(self.take(self.number(_unpack_u32, 4)))

    def op_binunicode8(self) -> None:
        self.push_utf8(self.take(self.number(_unpack_u64, 8)))

    def push_utf8(self, text: bytes) -> None:
        try:
            # As Python does: an application's texts may hold lone surrogates.
            self.push(text.decode("utf-8", "surrogatepass"))
        except UnicodeDecodeError as error:
            raise PickleError("a text is not UTF-8") from error

    # -- opcodes: containers

    def push_tuple(self, nodes: list[Node], start: int) -> None:
        values = tuple(node.value for node in nodes)
        tuple_node = self.push_built(values, start, nodes)
        tuple_node.items = nodes
        tuple_node.close = self.op

    def op_tuple(self) -> None:
        self.push_tuple(*self.pop_to_mark())

    def op_empty_tuple(self) -> None:
        self.push_tuple([], self.op)

    def op_tuple1(self) -> None:
        self.push_last(1)

    def op_tuple2(self) -> None:
        self.push_last(2)

    def op_tuple3(self) -> None:
        self.push_last(3)

    def push_last(self, count: int) -> None:
        nodes = [self.pop() for _ in range(count)][::-1]
        self.push_tuple(nodes, nodes[0].start)

    def op_empty_list(self) -> None:
        self.push([])

    def op_list(self) -> None:
        nodes, start = self.pop_to_mark()
        node = self.push_built([], start, nodes)
        self.extend(node, nodes)

    def op_append(self) -> None:
        item = self.pop()
        self.extend(self.top(), [item])

    def op_appends(self) -> None:
        items, _ = self.pop_to_mark()
        self.extend(self.top(), items)

    def extend(self, node: Node, items: list[Node]) -> None:
        if isinstance(node.value, list) and all(_is_plain(item.value) for item in items):
            node.value.extend(item.value for item in items)
        else:
            self.make_opaque(node)
        self.grow(node, items)

    def op_empty_dict(self) -> None:
        self.push({})

    def op_dict(self) -> None:
        nodes, start = self.pop_to_mark()
        node = self.push_built({}, start, nodes)
        self.update(node, nodes)

    def op_setitem(self) -> None:
        value = self.pop()
        key = self.pop()
        self.update(self.top(), [key, value])

    def op_setitems(self) -> None:
        nodes, _ = self.pop_to_mark()
        self.update(self.top(), nodes)

    def update(self, node: Node, nodes: list[Node]) -> None:
        if len(nodes) % 2:
            raise PickleError("a dict has a key without a value")
        pairs = list(zip(nodes[::2], nodes[1::2], strict=True))
        # A key's hash must not cost more than its bytes: tuples of one tuple nest exponentially,
        # and large integers can be chosen to collide.
        plain = isinstance(node.value, dict) and all(
            _is_plain_key(key.value) and _is_plain(value.value) for key, value in pairs
        )
        if plain:
            node.value.update((key.value, value.value) for key, value in pairs)
        else:
            self.make_opaque(node)
            self.update_known(node, pairs)
        self.grow(node, nodes)

    def update_known(self, node: Node, pairs: list[tuple[Node, Node]]) -> None:
        """Some of `pairs` make the dict `node` opaque; keep the others."""
        if node.known is None:
            return
        for key, value in pairs:
            if not _is_plain_key(key.value):
                continue
            shared = value.original
            found = value.value if shared is None or shared is node else shared.value
            if _is_plain(found):
                node.known[key.value] = found
            else:
                node.known.pop(key.value, None)

    def make_opaque(self, node: Node) -> None:
        """Something went into `node` that is not known: it may be any object but a leaf."""
        if node.value is not OPAQUE and not isinstance(node.value, (list, dict)):
            raise PickleError("items are put into what is no container")
        if isinstance(node.value, dict):
            node.known = node.value
        node.value = OPAQUE

    def op_empty_set(self) -> None:
        self.push(OPAQUE)

    def op_additems(self) -> None:
        items, _ = self.pop_to_mark()
        node = self.top()
        self.make_opaque(node)
        self.grow(node, items)

    def op_frozenset(self) -> None:
        nodes, start = self.pop_to_mark()
        self.push_built(OPAQUE, start, nodes)

    # -- opcodes: globals and calls

    def push_global(self, node: Node, module: str, name: str) -> None:
        node.name = (module, name)
        self.result.globals.append(node.name)

    def op_global(self) -> None:
        module = self.name_line()
        name = self.name_line()
        self.push_global(self.push(OPAQUE), module, name)

    def op_stack_global(self) -> None:
        name = self.pop()
        module = self.pop()
        if not (isinstance(module.value, str) and isinstance(name.value, str)):
            raise PickleError("a global's name is no text")
        if not (_NAME(module.value) and _NAME(name.value)):
            raise PickleError("a global's name is too long, or cannot be a line")
        node = self.push_built(OPAQUE, module.start, [])
        self.push_global(node, module.value, name.value)

    def op_reduce(self) -> None:
        arguments = self.pop()
        function = self.pop()
        value = _known_call(function.name, arguments.value)
        parts = [] if isinstance(value, bytes) else [function, arguments]
        self.push_built(value, function.start, parts).known = _known_items(
            function.name, arguments.value
        )

    def op_build(self) -> None:
        state = self.pop()
        node = self.top()
        node.value, node.items, node.name, node.known = OPAQUE, None, None, None
        self.grow(node, [state])

    def op_newobj(self) -> None:
        arguments = self.pop()
        function = self.pop()
        self.push_built(OPAQUE, function.start, [function, arguments])

    def op_newobj_ex(self) -> None:
        keywords = self.pop()
        arguments = self.pop()
        function = self.pop()
        self.push_built(OPAQUE, function.start, [function, arguments, keywords])

    def op_inst(self) -> None:
        module = self.name_line()
        name = self.name_line()
        nodes, start = self.pop_to_mark()
        self.push_built(OPAQUE, start, nodes)
        self.result.globals.append((module, name))

    def op_obj(self) -> None:
        nodes, start = self.pop_to_mark()
        if not nodes:
            raise PickleError("OBJ finds no class")
        self.push_built(OPAQUE, start, nodes)

    def op_persid(self) -> None:
        self.line()
        self.push(OPAQUE)

    def op_binpersid(self) -> None:
        persistent_id = self.pop()
        self.push_built(OPAQUE, persistent_id.start, [persistent_id])

    def op_ext1(self) -> None:
        self.take(1)
        self.push(OPAQUE)

    def op_ext2(self) -> None:
        self.take(2)
        self.push(OPAQUE)

    def op_ext4(self) -> None:
        self.take(4)
        self.push(OPAQUE)

    # -- opcodes: the memo

    def op_put(self) -> None:
        self.put(self.memo_index_line())

    def op_binput(self) -> None:
        self.put(self.take(1)[0])

    def op_long_binput(self) -> None:
        self.put(self.number(_unpack_u32, 4))

    def op_memoize(self) -> None:
        self.result.memoizes.append(self.op)
        self.put(len(self.memo))

    def memo_index_line(self) -> int:
        line = self.line()
        if not (line.isdigit() and len(line) <= MAX_DIGITS):
            raise PickleError("a memo index is not a number")
        return int(line)

    def put(self, index: int) -> None:
        # An index is the size of the table that whoever loads the pickle will allocate.
        if index > MAX_OPCODES:
            raise PickleError(f"memo index {index} is higher than {MAX_OPCODES}")
        node = self.top()
        self.memo[index] = node
        self.result.memo_writes.append(MemoWrite(self.op, index, node))
        node.end = self.pos

    def op_get(self) -> None:
        self.get(self.memo_index_line())

    def op_binget(self) -> None:
        self.get(self.take(1)[0])

    def op_long_binget(self) -> None:
        self.get(self.number(_unpack_u32, 4))

    def get(self, index: int) -> None:
        node = self.memo.get(index)
        if node is None:
            raise PickleError(f"memo index {index} was never stored")
        self.result.memo_reads.append((self.op, index))
        self.push_again(node)


def _is_plain_key(key: Any) -> bool:
    return isinstance(key, _PLAIN_KEYS) and not (isinstance(key, int) and key.bit_length() > 32)


def _is_plain(value: Any) -> bool:
    return value is not OPAQUE and not (
        isinstance(value, tuple) and any(not _is_plain(item) for item in value)
    )


def _known_items(function: tuple[str, str] | None, arguments: Any) -> dict[Any, Any] | None:
    """The plain items of what `dict` makes of pairs; None for any other call."""
    if function not in (("__builtin__", "dict"), ("builtins", "dict")):
        return None
    match arguments:
        case tuple((tuple() | list() as pairs,)):
            return {
                pair[0]: pair[1]
                for pair in pairs
                if isinstance(pair, tuple) and len(pair) == 2
                if _is_plain_key(pair[0]) and _is_plain(pair[1])
            }
    return None


def _known_call(function: tuple[str, str] | None, arguments: Any) -> Any:
    """The bytes that one of the two known calls makes, or OPAQUE for any other call."""
    if function == ("_codecs", "encode"):
        match arguments:
            case tuple((str() as text, "latin1")):
                try:
                    return text.encode("latin-1")
                except UnicodeEncodeError:
                    return OPAQUE
    elif function in (("__builtin__", "bytes"), ("builtins", "bytes")) and arguments == ():
        return b""
    return OPAQUE


# Every opcode of pickle protocols 0 to 5 but STOP, which ends the loop, NEXT_BUFFER and
# READONLY_BUFFER, which need data from outside the pickle, and DUP, which no pickler writes: only
# with it could an extension use what is beneath it on the stack, and still leave that there.
_HANDLERS: Final[dict[int, Callable[[_Reader], None]]] = {
    0x80: _Reader.op_proto,
    0x95: _Reader.op_frame,
    ord("("): _Reader.op_mark,
    ord("0"): _Reader.op_pop,
    ord("1"): _Reader.op_pop_mark,
    ord("N"): _Reader.op_none,
    0x88: _Reader.op_true,
    0x89: _Reader.op_false,
    ord("I"): _Reader.op_int_line,
    ord("L"): _Reader.op_long_line,
    ord("J"): _Reader.op_binint,
    ord("K"): _Reader.op_binint1,
    ord("M"): _Reader.op_binint2,
    0x8A: _Reader.op_long1,
    0x8B: _Reader.op_long4,
    ord("F"): _Reader.op_float_line,
    ord("G"): _Reader.op_binfloat,
    ord("S"): _Reader.op_string_line,
    ord("U"): _Reader.op_short_binstring,
    ord("T"): _Reader.op_binstring,
    ord("C"): _Reader.op_short_binbytes,
    ord("B"): _Reader.op_binbytes,
    0x8E: _Reader.op_binbytes8,
    0x96: _Reader.op_bytearray8,
    ord("V"): _Reader.op_unicode_line,
    0x8C: _Reader.op_short_binunicode,
    ord("X"): _Reader.op_binunicode,
    0x8D: _Reader.op_binunicode8,
    ord("t"): _Reader.op_tuple,
    ord(")"): _Reader.op_empty_tuple,
    0x85: _Reader.op_tuple1,
    0x86: _Reader.op_tuple2,
    0x87: _Reader.op_tuple3,
    ord("]"): _Reader.op_empty_list,
    ord("l"): _Reader.op_list,
    ord("a"): _Reader.op_append,
    ord("e"): _Reader.op_appends,
    ord("}"): _Reader.op_empty_dict,
    ord("d"): _Reader.op_dict,
    ord("s"): _Reader.op_setitem,
    ord("u"): _Reader.op_setitems,
    0x8F: _Reader.op_empty_set,
    0x90: _Reader.op_additems,
    0x91: _Reader.op_frozenset,
    ord("c"): _Reader.op_global,
    0x93: _Reader.op_stack_global,
    ord("R"): _Reader.op_reduce,
    ord("b"): _Reader.op_build,
    0x81: _Reader.op_newobj,
    0x92: _Reader.op_newobj_ex,
    ord("i"): _Reader.op_inst,
    ord("o"): _Reader.op_obj,
    ord("P"): _Reader.op_persid,
    ord("Q"): _Reader.op_binpersid,
    0x82: _Reader.op_ext1,
    0x83: _Reader.op_ext2,
    0x84: _Reader.op_ext4,
    ord("p"): _Reader.op_put,
    ord("q"): _Reader.op_binput,
    ord("r"): _Reader.op_long_binput,
    0x94: _Reader.op_memoize,
    ord("g"): _Reader.op_get,
    ord("h"): _Reader.op_binget,
    ord("j"): _Reader.op_long_binget,
}
