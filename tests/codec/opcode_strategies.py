"""Hypothesis strategies: opcodes of pickles, in no order and as programs.

Those of streams are in `zrs_core.testing.strategies`.
"""

import pickletools
import struct

from hypothesis import strategies as st

from .helpers import fast_pickle


def _counted(size):
    return st.binary(max_size=9).map(lambda data: struct.pack(size, len(data)) + data)


def _line(texts):
    return texts.map(lambda text: text + b"\n")


_small = st.integers(0, 5)
_digits = st.integers(-3, 300).map(lambda number: b"%d" % number)
_name = st.sampled_from([b"_codecs", b"encode", b"__builtin__", b"bytes", b"builtins", b"list"])
#: Arguments by the name that pickletools has for their kind.
ARGUMENTS = {
    "uint1": _small.map(lambda number: bytes((number,))),
    "uint2": st.binary(min_size=2, max_size=2),
    "int4": st.binary(min_size=4, max_size=4),
    "uint4": _small.map(lambda number: struct.pack("<I", number)),
    "uint8": st.integers(0, 30).map(lambda number: struct.pack("<Q", number)),
    "decimalnl_short": _line(_digits | st.sampled_from([b"00", b"01"])),
    "decimalnl_long": _line(_digits.map(lambda digits: digits + b"L")),
    "floatnl": _line(st.sampled_from([b"1.5", b"-0.0", b"inf", b"1e300"])),
    "float8": st.binary(min_size=8, max_size=8),
    "stringnl": _line(st.binary(max_size=5).map(lambda data: repr(data)[1:].encode())),
    "stringnl_noescape": _line(st.sampled_from([b"id", b""])),
    "stringnl_noescape_pair": st.tuples(_line(_name), _line(_name)).map(b"".join),
    "unicodestringnl": _line(
        st.sampled_from([b"text", b"latin1", b"\\u2603", b"\xff", b"\\ud800"])
    ),
    "string1": _counted("<B"),
    "string4": _counted("<i"),
    "bytes1": _counted("<B"),
    "bytes4": _counted("<I"),
    "bytes8": _counted("<Q"),
    "bytearray8": _counted("<Q"),
    "long1": _counted("<B"),
    "long4": _counted("<i"),
    "unicodestring1": st.sampled_from([b"\0", b"\1x", b"\6latin1", b"\3\xed\xa0\x80"]),
    "unicodestring4": st.sampled_from([b"\0\0\0\0", b"\1\0\0\0x", b"\6\0\0\0latin1"]),
    "unicodestring8": st.sampled_from([bytes(8), b"\1" + bytes(7) + b"x"]),
}


def _spelled(opcode):
    code = st.just(opcode.code.encode("latin-1"))
    if opcode.arg is None:
        return code
    return st.tuples(code, ARGUMENTS[opcode.arg.name]).map(b"".join)


_STOP_AND_PROTO = {"STOP", "PROTO"}

# What makes an unpickler call or look up something, and what a pickle of its own cannot use. Frames
# that end within an opcode confuse Python's own unpickler.
_NOT_PLAIN = {
    *("GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX"),
    *("EXT1", "EXT2", "EXT4", "PERSID", "BINPERSID", "BYTEARRAY8", "FRAME"),
}


def _sequences(without, *more):
    spelled = [_spelled(each) for each in pickletools.opcodes if each.name not in without]
    return st.lists(st.one_of(spelled + [st.just(each) for each in more]), max_size=30).map(
        b"".join
    )


#: Opcodes with arguments that suit them, in no sensible order.
opcodes = _sequences(_STOP_AND_PROTO)

#: The same of those that need no execution, but the two calls that make bytes.
plain_opcodes = _sequences(
    _STOP_AND_PROTO | _NOT_PLAIN, *(fast_pickle(value, 1)[:-1] for value in (b"", b"\xff"))
)

_LEAVES = [
    *(b"N", b"\x88", b"K\5", b"I-7\n", b"L300L\n", b"\x8a\1\xff", b"G" + bytes(8), b"F1.5\n"),
    *(b"Vline\n", b"X\1\0\0\0x", b"\x8c\1y", b"X\3\0\0\0\xed\xb2\x80"),
    *(b"C\1b", b"B\2\0\0\0bb", b"S'it'\n", b"U\2it", b"T\1\0\0\0u"),
    *(fast_pickle(value, 1)[:-1] for value in (b"", b"\xff")),
]
_CONTAINERS = {b"]": "list", b"}": "dict", b")": "tuple"}
_OPAQUE_LEAVES = [b"cno.such\nThing\n", b"Pid\n", b"\x82\1", b"\x96" + bytes(8), b"\x8f"]


class _Program:
    """Opcodes so far, and what they leave: kinds of values, `"mark"` for a mark.

    Each opcode that could stand next is a method that writes it.
    """

    def __init__(self, draw, plain):
        self.draw = draw
        self.plain = plain
        self.written = []
        self.stack = []
        self.memo = set()

    def write(self, opcode, pops, *pushes):
        self.written.append(opcode)
        if pops:
            del self.stack[-pops:]
        self.stack += pushes

    def choices(self):
        """The steps that are legal now."""
        yield lambda: self.write(self.draw(st.sampled_from(_LEAVES)), 0, "leaf")
        yield lambda: self.write(b"(", 0, "mark")
        for opcode, kind in _CONTAINERS.items():
            yield lambda opcode=opcode, kind=kind: self.write(opcode, 0, kind)
        if not self.plain:
            yield lambda: self.write(self.draw(st.sampled_from(_OPAQUE_LEAVES)), 0, "any")
        if self.memo:
            yield self.get
        top = self.above_mark()
        if top:
            yield lambda: self.write(b"0", 1)
            yield self.put
            yield lambda: self.write(b"\x85", 1, "tuple")
        if len(top) >= 2:
            yield lambda: self.write(b"\x86", 2, "tuple")
            if top[-2] in ("list", "any"):
                yield lambda: self.write(b"a", 1)
            if not self.plain:
                yield lambda: self.write(b"R", 2, "any")
                yield lambda: self.write(b"\x81", 2, "any")
                yield lambda: self.write(b"b", 2, "any")
        if len(top) >= 3 and top[-3] in ("dict", "any"):
            yield lambda: self.write(b"s", 2)
        if "mark" in self.stack:
            yield from self.endings(len(top))

    def endings(self, count):
        """The steps that use the last mark."""
        below = self.stack[-count - 2] if len(self.stack) > count + 1 else None
        yield lambda: self.write(b"t", count + 1, "tuple")
        yield lambda: self.write(b"l", count + 1, "list")
        yield lambda: self.write(b"1", count + 1)
        if count % 2 == 0:
            yield lambda: self.write(b"d", count + 1, "dict")
        if below in ("list", "any"):
            yield lambda: self.write(b"e", count + 1)
        if below in ("dict", "any") and count % 2 == 0:
            yield lambda: self.write(b"u", count + 1)

    def above_mark(self):
        marks = [at for at, kind in enumerate(self.stack) if kind == "mark"]
        return self.stack[marks[-1] + 1 :] if marks else self.stack

    def put(self):
        index = self.draw(st.integers(0, 5))
        self.memo.add(index)
        self.write(b"q" + bytes((index,)), 0)

    def get(self):
        self.write(b"h" + bytes((self.draw(st.sampled_from(sorted(self.memo))),)), 0, "any")

    def finish(self):
        """Leave exactly one value."""
        while "mark" in self.stack:
            self.write(b"t", len(self.above_mark()) + 1, "tuple")
        while len(self.stack) > 1:
            self.write(b"\x86", 2, "tuple")
        if not self.stack:
            self.write(b"N", 0, "leaf")


@st.composite
def programs(draw, *, plain=False, memo=()):
    """Opcodes in a sensible order, which leave one value.

    :param plain: without calls, and what else only executing could tell.
    :param memo: indexes at which something was stored before.
    """
    program = _Program(draw, plain)
    program.memo.update(memo)
    for _ in range(draw(st.integers(0, 25))):
        draw(st.sampled_from(list(program.choices())))()
    program.finish()
    return b"".join(program.written)
