import pytest

from zrs_core.codec import patterns
from zrs_core.codec.patterns import MAX_SIZE, find

from .helpers import OID, TID, fast_pickle, in_python_2, python2_pickle

MD5 = bytes(range(240, 256))
LONG = b"x" * 255
HIGH = bytes(range(248, 256))

IN_PYTHON_3 = [
    (("S", (OID, TID, "", None)), ("S", [OID, TID, None], 0)),
    (("S", (HIGH, TID, "", HIGH)), ("S", [HIGH, TID, HIGH], 0)),
    (("B", (OID, TID, "", None, 0)), ("B", [OID, TID, None], 0)),
    (("B", (OID, TID, "", HIGH, 255)), ("B", [OID, TID, HIGH], 255)),
    (("B", (OID, TID, "", None, 256)), ("B", [OID, TID, None], 256)),
    (("B", (OID, TID, "", None, 65536)), ("B", [OID, TID, None], 65536)),
    (("B", (OID, TID, "", None, 2**31 - 1)), ("B", [OID, TID, None], 2**31 - 1)),
    (("C", (MD5,)), ("C", [MD5], 0)),
    (("T", (TID, " ", b"", b"", {})), ("T", [TID, b" ", b"", b""], 0)),
    (("T", (TID, "p", b"user", b"", {})), ("T", [TID, b"p", b"user", b""], 0)),
    (("T", (TID, "u", b"", b"text", {})), ("T", [TID, b"u", b"", b"text"], 0)),
    (
        ("T", (TID, " ", b"a\nb\xff", b"x" * 255, {})),
        ("T", [TID, b" ", b"a\nb\xff", b"x" * 255], 0),
    ),
]


@pytest.fixture(autouse=True)
def _compiled_anew(monkeypatch):
    """Patterns that the functions of the module have made now, not when it was imported."""
    spellings = {b"(X": patterns._PYTHON3, b"(U": patterns._PYTHON2, b"\x80\3": patterns._OURS}
    by_start = {}
    for start in patterns._BY_START:
        [spelling] = (each for begin, each in spellings.items() if start.startswith(begin))
        tag = start[-1:].decode()
        [by_start[start]] = (each for each in patterns._compile(spelling) if each.tag == tag)
    monkeypatch.setattr(patterns, "_BY_START", by_start)


def ours(message):
    """The canonical spelling of this package, of a message without extension."""
    tag, fields = message
    opcodes = fast_pickle((tag, fields), 3)
    assert opcodes.endswith(b"t\x86.")
    return opcodes


@pytest.mark.parametrize(("message", "found"), IN_PYTHON_3)
def test_the_canonical_messages_of_python_3_peers_are_found(message, found):
    assert find(fast_pickle(message)) == found


@pytest.mark.parametrize(("message", "found"), IN_PYTHON_3)
def test_the_canonical_messages_of_python_2_peers_are_found(message, found):
    assert find(python2_pickle(in_python_2(message))) == found


@pytest.mark.parametrize(("message", "found"), [row for row in IN_PYTHON_3 if row[0][0] != "C"])
def test_our_canonical_messages_are_found(message, found):
    assert find(ours(message)) == found


def test_our_commit_is_found():
    assert find(b"\x80\3X\1\0\0\0C(C\x10" + MD5 + b"t\x86.") == ("C", [MD5], 0)


NOT_CANONICAL = {
    "nothing": b"",
    "no start of a message": b"K\1.",
    "an unknown tag": fast_pickle(("X", (MD5,))),
    "the start alone": b"(U\1S",
    "a memo": b"(U\1Sq\0(" + b"t.",
    "something behind": python2_pickle((b"C", (MD5,))) + b".",
    "an id of seven bytes": python2_pickle((b"S", (OID[:7], TID, b"", None))),
    "a version": python2_pickle((b"S", (OID, TID, b"v", None))),
    "the older dialect": python2_pickle((b"S", (OID, TID, b"", b"data", None))),
    "an extension": python2_pickle((b"T", (TID, b" ", b"", b"", {b"a": None}))),
    "another status": python2_pickle((b"T", (TID, b"c", b"", b"", {}))),
    "a negative number": fast_pickle(("B", (OID, TID, "", None, -1))),
    "a number that needs a LONG": fast_pickle(("B", (OID, TID, "", None, 2**32 - 1))),
    "a size that does not fit": b"(U\1C(U\x0f" + MD5 + b"tt.",
    "text that is no latin-1": fast_pickle(("C", (MD5,))).replace(b"\xc3\xb0", b"\xe2\x98\x83", 1),
    "text that is no UTF-8": fast_pickle(("C", (MD5,))).replace(b"\xc3\xb0", b"\xff\xff", 1),
    "more bytes than are tried": fast_pickle(("T", (TID, " ", b"x" * 255, b"x" * MAX_SIZE, {}))),
}


@pytest.mark.parametrize("payload", NOT_CANONICAL.values(), ids=NOT_CANONICAL)
def test_what_is_not_canonical_is_left_to_the_slow_way(payload):
    assert find(payload) is None


@pytest.mark.parametrize(
    "spell", [fast_pickle, ours, lambda message: python2_pickle(in_python_2(message))]
)
def test_a_text_that_holds_what_looks_like_its_end_is_never_taken_in_part(spell):
    inner = spell(("T", (TID, " ", b"inner", b"inner", {})))
    user = inner[20:]
    fields = (TID, " ", user, b"description", {})
    assert find(spell(("T", fields))) in (None, ("T", [TID, b" ", *fields[2:4]], 0))
