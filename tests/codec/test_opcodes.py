import collections
import contextlib
import datetime
import decimal
import os
import pickle
import pickletools
import tracemalloc

import pytest
import zodbpickle.pickle

from zrs_core.codec.opcodes import (
    MAX_DEPTH,
    MAX_OPCODES,
    OPAQUE,
    PickleError,
    end_of,
    plain_items,
    read,
)

from .helpers import fast_pickle, python2_pickle

PROTOCOLS = range(6)

PLAIN = [
    None,
    True,
    False,
    0,
    255,
    256,
    65535,
    65536,
    -1,
    2**31 - 1,
    -(2**31),
    2**31,
    2**63,
    0.0,
    -1.5,
    1e300,
    float("inf"),
    "",
    "text",
    "line\nbreak \\ and \0",
    "café ☃ \U0001f600",
    "\udc80 alone",
    "x" * 300,
    b"",
    b"bytes",
    bytes(range(256)),
    b"x" * 300,
    b"x" * 70_000,
    (),
    (1,),
    (1, 2),
    (1, 2, 3),
    (1, (2, b"", (None,)), "x", 4),
    [],
    [1],
    [1, [2, "x"], (b"y", [])],
    {},
    {"a": 1},
    {"a": [1, 2], b"b": {"c": None}, 3: (), None: 1.5, True: "t"},
]


class Application:
    def __init__(self, state):
        self.state = state


class WithSlots:
    __slots__ = ("a",)


class WithKeywords:
    def __new__(cls, *, keyword):
        return super().__new__(cls)

    def __getnewargs_ex__(self):
        return (), {"keyword": 1}


def with_slots():
    value = WithSlots()
    value.a = 1
    return value


Named = collections.namedtuple("Named", "a b")

NOT_PLAIN = [
    2**100,
    "text".join,
    bytearray(b"x"),
    {1, 2},
    frozenset((1, 2)),
    decimal.Decimal("1.5"),
    datetime.datetime(2024, 1, 2),
    complex(1, 2),
    Application({"a": 1}),
    WithKeywords(keyword=1),
    Named(1, 2),
    collections.OrderedDict(a=1),
    collections.OrderedDict,
]


def value_of(data):
    return read(data).root.value


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("value", PLAIN, ids=lambda value: repr(value)[:30])
def test_plain_values_are_read_as_python_reads_them(value, protocol):
    for data in (pickle.dumps(value, protocol), fast_pickle(value, protocol)):
        message = read(data)
        assert repr(message.root.value) == repr(value)
        assert message.root.may_be_dict == isinstance(value, dict)
        assert message.protocol == (protocol if protocol >= 2 else None)
        assert message.root.end == len(data) - 1
        assert not message.has_native_strings
        assert not message.shares_containers


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("value", NOT_PLAIN, ids=lambda value: repr(value)[:30])
def test_values_that_only_executing_could_tell_are_opaque(value, protocol):
    assert value_of(pickle.dumps(value, protocol)) is OPAQUE
    assert value_of(pickle.dumps([1, value], protocol)) is OPAQUE
    inside = value_of(pickle.dumps((1, [value]), protocol))
    assert inside == (1, OPAQUE)
    message = read(pickle.dumps({"key": (value,)}, protocol))
    assert message.root.value is OPAQUE
    assert message.root.may_be_dict


def test_opaque_says_so():
    assert repr(OPAQUE) == "OPAQUE"


def test_objects_with_slots_are_opaque():
    assert value_of(pickle.dumps(with_slots(), 2)) is OPAQUE


@pytest.mark.parametrize(
    ("spelled", "value"),
    [
        (b"S''\n.", b""),
        (b"S'text'\n.", b"text"),
        (b'S"it\'s"\n.', b"it's"),
        (rb"S'\\ \' \" \n \t \r \x00 \xfF'" + b"\n.", b"\\ ' \" \n \t \r \0 \xff"),
        (rb"S'\\x4 \\\\ \\q'" + b"\n.", rb"\x4 \\ \q"),
        (b"U\3\xff\0x.", b"\xff\0x"),
        (b"T\3\0\0\0\xff\0x.", b"\xff\0x"),
    ],
)
def test_the_texts_of_python_2_are_bytes(spelled, value):
    message = read(spelled)
    assert message.root.value == value == pickle.loads(spelled, encoding="bytes")
    assert message.has_native_strings


@pytest.mark.parametrize(
    ("spelled", "value"),
    [
        (b"I0\n.", 0),
        (b"I00\n.", False),
        (b"I01\n.", True),
        (b"I-17\n.", -17),
        (b"L17L\n.", 17),
        (b"L17\n.", 17),
        (b"L+99999999999999999999L\n.", OPAQUE),
        (b"L99999999999999999999L\n.", 10**20 - 1),
        (b"L100000000000000000000L\n.", OPAQUE),
        (b"\x8a\0.", 0),
        (b"\x8a\x09\0\0\0\0\0\0\0\0\x80.", -(2**71)),
        (b"\x8a\x0a\0\0\0\0\0\0\0\0\0\x80.", OPAQUE),
        (b"\x8b\1\0\0\0\xff.", -1),
        (b"Finf\n.", float("inf")),
        (b"F-1.5e+3\n.", -1500.0),
        (b"V\\u2603\n.", "☃"),
        (b"\x8d\2\0\0\0\0\0\0\0ab.", "ab"),
        (b"\x8e\2\0\0\0\0\0\0\0ab.", b"ab"),
        (b"(t.", ()),
        (b"(lp0\n.", []),
        (b"(I1\nI2\nl.", [1, 2]),
        (b"(d.", {}),
        (b"(I1\nI2\nd.", {1: 2}),
        (b"}(u.", {}),
        (b"](e.", []),
        (b"NI1\n0.", None),
        (b"N(I1\nI2\n1.", None),
        (b"N(0.", None),
        (b"c__builtin__\nbytes\n)R.", b""),
        (b"cbuiltins\nbytes\n)R.", b""),
        (b"c_codecs\nencode\n(V\xff\nVlatin1\ntR.", b"\xff"),
        (b"]q\1h\1a.", OPAQUE),
        (b")q\1h\1\x86.", ((), OPAQUE)),
        (b"U\1xr\0\1\0\0j\0\1\0\0\x86.", (b"x", b"x")),
        (b"U\1xp7\ng7\n\x86.", (b"x", b"x")),
        (b"U\1x\x94h\0\x86.", (b"x", b"x")),
    ],
)
def test_one_opcode_after_the_other(spelled, value):
    assert repr(value_of(spelled)) == repr(value)


@pytest.mark.parametrize(
    "spelled",
    [
        b"c__builtin__\nlist\n)R.",
        b"c__builtin__\nbytes\nK\1\x85R.",
        b"c__builtin__\nbytes\n]R.",
        b"c_codecs\nencode\n(V\\u2603\nVlatin1\ntR.",
        b"c_codecs\nencode\n(VA\nVutf-8\ntR.",
        b"c_codecs\nencode\n](VA\nVlatin1\neR.",
        b"c_codecs\nencode\nNb(VA\nVlatin1\ntR.",
        b"Vbytes\n)R.",
        b"(iapp\nThing\n.",
        b"(capp\nThing\nK\1o.",
        b"capp\nThing\n)\x81.",
        b"capp\nThing\n)}\x92.",
        b"capp\nThing\n)R}b.",
        b"capp\nThing\n)RK\1a.",
        b"capp\nThing\n)R(K\1e.",
        b"capp\nThing\n)RK\1K\2s.",
        b"capp\nThing\n)R(K\1K\2u.",
        b"Vapp\nVThing\n\x93.",
        b"Pid\n.",
        b"Vid\nQ.",
        b"\x82\1.",
        b"\x83\1\0.",
        b"\x84\1\0\0\0.",
        b"\x8f(K\1\x90.",
        b"(K\1\x91.",
        b"\x96\1\0\0\0\0\0\0\0x.",
        b"}K\1a.",
        b"}K\1\x85K\2s.",
        b"]q\x010h\1.",
        b"}I4294967296\nNs.",
    ],
)
def test_calls_and_the_unknown_are_opaque(spelled):
    assert value_of(spelled) is OPAQUE


def test_a_tuple_that_was_built_upon_is_no_tuple_any_more():
    root = read(b"(K\1tNb.").root
    assert root.value is OPAQUE
    assert root.items is None


def test_globals_are_names_that_nobody_resolves():
    message = read(b"(cno.such\nThing\nVother\nVname\n\x93(iold\nclass\nt.")
    assert message.globals == [("no.such", "Thing"), ("other", "name"), ("old", "class")]
    assert message.root.value == (OPAQUE, OPAQUE, OPAQUE)


def test_a_tuple_knows_its_items_and_where_it_was_closed():
    data = b"(K\1X\1\0\0\0xq\0)t."
    root = read(data).root
    assert [(data[node.start : node.end], node.value) for node in root.items] == [
        (b"K\1", 1),
        (b"X\1\0\0\0xq\0", "x"),
        (b")", ()),
    ]
    assert data[root.close : root.close + 1] == b"t"
    assert (root.start, root.end) == (0, len(data) - 1)
    pair = read(b"N0K\1K\2\x86.").root
    assert (pair.start, pair.close) == (2, 6)


def test_memo_opcodes_and_frames_are_told_with_their_places():
    message = read(b"\x80\4\x95\6\0\0\0\0\0\0\0)\x94h\0\x86.")
    assert message.frames == [2]
    assert [(write.offset, write.index) for write in message.memo_writes] == [(12, 0)]
    assert message.memoizes == [12]
    assert message.memo_reads == [(13, 0)]
    assert message.shares_containers


def test_frames_follow_each_other_with_opcodes_between_them():
    value = [b"x" * 40_000, "text", *range(40_000), b"y" * 70_000]
    message = read(pickle.dumps(value, 4))
    assert len(message.frames) > 2
    assert message.root.value == value
    assert read(b"\x95\1\0\0\0\0\0\0\0}\x95\0\0\0\0\0\0\0\0.").frames == [0, 10]


def test_fetching_a_text_shares_nothing():
    message = read(python2_pickle((b"text", b"text"), memo=True))
    assert message.root.value == (b"text", b"text")
    assert not message.shares_containers


def test_native_bytes_are_told_with_their_places():
    data = b"(C\1aB\1\0\0\0b\x8e\1\0\0\0\0\0\0\0cU\1dt."
    found = [(data[begin:end], value) for begin, end, value in read(data).bytes_leaves]
    assert found == [
        (b"C\1a", b"a"),
        (b"B\1\0\0\0b", b"b"),
        (b"\x8e\1\0\0\0\0\0\0\0c", b"c"),
    ]


BAD = [
    (b"", "it ends without STOP"),
    (b"N", "it ends without STOP"),
    (b".", "it does not leave exactly one value"),
    (b"NN.", "it does not leave exactly one value"),
    (b"(.", "it does not leave exactly one value"),
    (b"N(.", "it does not leave exactly one value"),
    (b"N.N.", "2 bytes follow its STOP"),
    (b"\xff.", "opcode 0xff is unknown or not allowed"),
    (b"N2.", "opcode 0x32 is unknown or not allowed"),
    (b"\x97.", "opcode 0x97 is unknown or not allowed"),
    (b"\x98.", "opcode 0x98 is unknown or not allowed"),
    (b"\x80\6N.", "PROTO 6 at byte 0"),
    (b"N\x80\2.", "PROTO 2 at byte 1"),
    (b"\x80", "1 bytes are announced where 0 are left"),
    (b"\x95\3\0\0\0\0\0\0\0N.", "a frame of 3 bytes where 2 are left"),
    (b"\x95\xff\xff\xff\xff\xff\xff\xff\xffN.", "a frame of 18446744073709551615 bytes where 2"),
    (b"\x95\2\0\0\0\0\0\0\0U\1xN.", "1 bytes are announced where 0 are left"),
    (b"\x95\2\0\0\0\0\0\0\0I1\n.", "a line has no end"),
    (b"\x95\x0a\0\0\0\0\0\0\0N\x95\0\0\0\0\0\0\0\0.", "a frame begins within another"),
    (b"\x95\x0b\0\0\0\0\0\0\0N\x95\0\0\0\0\0\0\0\0.", "a frame begins within another"),
    (b"X\xff\xff\xff\xffx.", "4294967295 bytes are announced where 2 are left"),
    (b"\x8d\xff\xff\xff\xff\xff\xff\xff\xffx.", "18446744073709551615 bytes are announced where 2"),
    (b"\x8e\xff\xff\xff\xff\xff\xff\xff\xffx.", "18446744073709551615 bytes are announced where 2"),
    (b"\x96\xff\xff\xff\xff\xff\xff\xff\xffx.", "18446744073709551615 bytes are announced where 2"),
    (b"\x8b\xff\xff\xff\x7fx.", "2147483647 bytes are announced where 2 are left"),
    (b"T\xff\xff\xff\xffx.", "a string has a negative length"),
    (b"I17.", "a line has no end"),
    (b"I\n.", "an integer is not decimal"),
    (b"I1_0\n.", "an integer is not decimal"),
    (b"L1LL\n.", "an integer is not decimal"),
    (b"F\n.", "a float is not decimal"),
    (b"F1.2.3\n.", "a float is not decimal"),
    (b"F1_0\n.", "a float is not decimal"),
    (b"Stext\n.", "a string is not quoted as repr() does"),
    (b"S'text\"\n.", "a string is not quoted as repr() does"),
    (b"S'\n.", "a string is not quoted as repr() does"),
    (b"S'\\q'\n.", "a string is not quoted as repr() does"),
    (b"S'\\x4'\n.", "a string is not quoted as repr() does"),
    (b"S'\\x4\\\\1'\n.", "a string is not quoted as repr() does"),
    (b"S'x\\'\n.", "a string is not quoted as repr() does"),
    (b"V\\u12\n.", "a text has a bad escape"),
    (b"V\\Uffffffff\n.", "a text has a bad escape"),
    (b"X\1\0\0\0\xff.", "a text is not UTF-8"),
    (b"\x8c\1\xff.", "a text is not UTF-8"),
    (b"c\xff\nname\n.", "a name is not UTF-8"),
    (b"c" + b"m" * 257 + b"\nname\n.", "a name has more than 256 bytes"),
    (b"i" + b"m" * 257 + b"\nname\n.", "a name has more than 256 bytes"),
    (b"Vm\nN\x93.", "a global's name is no text"),
    (b"NVn\n\x93.", "a global's name is no text"),
    (b"Vm\nV" + b"n" * 257 + b"\n\x93.", "a global's name is too long, or cannot be a line"),
    (b"X\3\0\0\0a\nbVn\n\x93.", "a global's name is too long, or cannot be a line"),
    (b"V\\ud800\nVn\n\x93.", "a global's name is too long, or cannot be a line"),
    (b"t.", "an opcode finds no mark"),
    (b"Nu.", "an opcode finds no mark"),
    (b"0.", "an opcode finds the stack empty"),
    (b"N\x86.", "an opcode finds the stack empty"),
    (b"N(a.", "an opcode finds the stack empty"),
    (b"q\0.", "an opcode finds the stack empty"),
    (b"(q\0.", "an opcode finds the stack empty"),
    (b"(oN.", "OBJ finds no class"),
    (b"NK\1a.", "items are put into what is no container"),
    (b")K\1K\2s.", "items are put into what is no container"),
    (b"N(\x90.", "items are put into what is no container"),
    (b"}(K\1u.", "a dict has a key without a value"),
    (b"(K\1d.", "a dict has a key without a value"),
    (b"g1\n.", "memo index 1 was never stored"),
    (b"h\1.", "memo index 1 was never stored"),
    (b"j\1\0\0\0.", "memo index 1 was never stored"),
    (b"Npx\n.", "a memo index is not a number"),
    (b"Np-1\n.", "a memo index is not a number"),
    (b"Np" + b"1" * 21 + b"\n.", "a memo index is not a number"),
    (b"Nr\0\0\0\x08.", "memo index 134217728 is higher than 85535"),
    (b"Np99999999999999999999\n.", "memo index 99999999999999999999 is higher than 85535"),
    (b"(" * (MAX_OPCODES + 1), "it has more than 85535 opcodes"),
    (b"N" + b"\x85" * MAX_DEPTH + b".", "its values nest deeper than 64"),
    (b"(" * MAX_DEPTH + b"N" + b"l" * MAX_DEPTH + b".", "its values nest deeper than 64"),
]


@pytest.mark.parametrize(("data", "reason"), BAD, ids=range(len(BAD)))
def test_what_is_malformed_or_beyond_a_limit_is_refused(data, reason):
    with pytest.raises(PickleError) as caught:
        read(data)
    assert str(caught.value).startswith(reason)


def test_depth_counts_what_was_put_in_later():
    deepest = b"]" * (MAX_DEPTH - 1) + b"N" + b"a" * (MAX_DEPTH - 1) + b"."
    assert read(deepest).root.depth == MAX_DEPTH
    with pytest.raises(PickleError, match="its values nest deeper than 64"):
        read(b"]" + deepest[:-1] + b"a.")


def test_every_opcode_is_handled_or_refused_for_a_reason():
    refused = {"STOP", "DUP", "NEXT_BUFFER", "READONLY_BUFFER"}
    for opcode in pickletools.opcodes:
        try:
            read(opcode.code.encode("latin-1") + b".")
        except PickleError as error:
            unknown = "unknown or not allowed" in str(error)
        else:
            unknown = False
        assert unknown == (opcode.name in refused - {"STOP"}), opcode.name


HOSTILE = {
    "a huge memo index": b"Nr\0\0\0\x08.",
    "calls of bytes": b"c__builtin__\nbytes\nJ\0\0\0\x40\x85R" * 10_000 + b".",
    "a megabyte of marks": b"(" * 2**20,
    "a megabyte of values": b"N" * 2**20,
    "a megabyte of tuples": b")" + b"\x85" * 2**20,
    "a long decimal": b"I" + b"9" * 2**20 + b"\n.",
    "a long float": b"F" + b"9" * 2**20 + b"\n.",
    "a long name": b"c" + b"x" * 2**20 + b"\n\n.",
    "a string of escapes": b"S'" + b"\\n" * 2**19 + b"'\n.",
    "a string of backslashes": b"S'" + b"\\" * 2**20 + b"'\n.",
    "a text fetched often": b"X\0\0\x08\0" + bytes(2**19) + b"q\0" + b"h\0" * 2**16,
    "a tuple of itself, over and over": b")q\0" + b"h\0h\0\x86q\0" * 10_000 + b".",
    "huge claims": b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7f" * 10_000,
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
def test_hostile_pickles_cost_memory_in_proportion_to_their_size(data):
    tracemalloc.start()
    with contextlib.suppress(PickleError):
        read(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40 * 2**20


@pytest.mark.parametrize(
    "built",
    [
        *(b"(Nl", b"(NNd", b"(N\x91", b"(cm\nn\no", b"(Nim\nn\n", b"cm\nn\n)\x81", b"NQ"),
        *(b"cm\nn\n)}\x92", b"Vm\nVn\n\x93", b"cm\nn\n)R", b"(Nt", b"N\x85", b"NN\x86", b"NNN\x87"),
    ],
)
def test_what_is_built_begins_where_its_first_part_does(built):
    first, second = read(b"K\1" + built + b"\x86.").root.items
    assert (first.start, first.end) == (0, 2)
    assert (second.start, second.end) == (2, 2 + len(built))


def test_the_largest_key_whose_hash_is_not_its_owner_s_choice():
    assert read(pickle.dumps({2**32 - 1: None})).root.value == {2**32 - 1: None}
    assert read(pickle.dumps({2**32: None})).root.value is OPAQUE


def test_an_empty_string_of_python_2():
    assert read(b"T\0\0\0\0.").root.value == b""


PLAIN_ITEMS = {
    "text": "ü",
    b"bytes": b"\xff",
    "number": 2**40,
    "float": 1.5,
    "nothing": None,
    "flags": [True, False],
    "pair": ("a", {"b": [1]}),
    7: "seven",
}


class Called:
    def __reduce__(self):
        return os.getcwd, ()


class TestPlainItems:
    @pytest.mark.parametrize("protocol", range(6))
    def test_plain_values(self, protocol):
        assert plain_items(pickle.dumps(PLAIN_ITEMS, protocol)) == PLAIN_ITEMS

    @pytest.mark.parametrize("protocol", range(6))
    def test_what_is_not_plain_is_left_out(self, protocol):
        values = {"a": 1, "set": {1}, "call": Called(), "in": [Called()], "z": "z"}
        assert plain_items(pickle.dumps(values, protocol)) == {"a": 1, "z": "z"}

    def test_a_key_that_is_set_again(self):
        stored = b"}(X\x01\0\0\0aK\x01X\x01\0\0\0acos\ngetcwd\nu."
        assert plain_items(stored) == {}

    def test_values_that_several_keys_share(self):
        shared = [1, ("a", "b")]
        values = {"a": shared, "b": shared, "c": shared[1]}
        found = plain_items(pickle.dumps(values, 3))
        assert found["a"] == found["b"] == shared
        assert found["a"] is found["b"]

    def test_a_dict_that_holds_itself(self):
        values = {"a": 1}
        values["self"] = values
        assert plain_items(pickle.dumps(values, 3)) == {"a": 1}

    def test_the_texts_of_python_2(self):
        stored = b"}(U\x01aU\x01bU\x01cU\x01\xffu."
        assert plain_items(stored) == {"a": "b", "c": b"\xff"}
        assert plain_items(stored) == zodbpickle.pickle.loads(
            stored, encoding="ASCII", errors="bytes"
        )

    @pytest.mark.parametrize(
        "stored", [b"", b"garbage", pickle.dumps([1]), pickle.dumps({"a": 1})[:-1], b"}."]
    )
    def test_nothing(self, stored):
        assert plain_items(stored) == {}

    def test_pairs_that_are_made_a_dict(self):
        """As `dict` may be called with pairs in a pickle."""
        values = pickle.dumps((("a", 1), ("b", Called()), "c", ("d", 1, 2), ("e", (5,))), 2)
        pairs = values.removeprefix(b"\x80\x02").removesuffix(b".")
        for module in b"__builtin__", b"builtins":
            stored = b"\x80\x02c" + module + b"\ndict\n" + pairs + b"\x85R."
            assert plain_items(stored) == {"a": 1, "e": (5,)}
        assert plain_items(b"\x80\x02c__builtin__\ndict\n" + b"K\x01\x85R.") == {}


class TestEndOf:
    def test_a_pickle_that_something_follows(self):
        data = pickle.dumps({"key": b"value"}, 2)
        assert end_of(data) == len(data)
        assert end_of(data + b"what follows") == len(data)

    @pytest.mark.parametrize("data", [b"", b"(", b"garbage", pickle.dumps((1, "text"), 3)[:-1]])
    def test_its_end_is_not_there(self, data):
        assert end_of(data) is None
