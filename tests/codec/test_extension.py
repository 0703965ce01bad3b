import datetime
import decimal
import pickle
from collections import OrderedDict

import pytest

from zrs_core.codec.extension import (
    Spliced,
    cut_out,
    encode_bytes,
    encode_latin1,
    for_protocol_1,
    frame,
    splice,
    why_not_carried,
)
from zrs_core.codec.opcodes import PickleError, read
from zrs_core.messages import MAX_METADATA_SIZE

from .helpers import TID, fast_pickle, python2_pickle

PROTOCOLS = range(6)

PLAIN = {"user": "bob", "tags": ["a", "b"], "n": (1, 2.5, None, True), "d": {"x": {}}}
WITH_BYTES = {"raw": b"\0\xff", "empty": b"", "long": bytes(300)}


class Application:
    def __init__(self, value):
        self.value = value

    def __eq__(self, other):
        return type(other) is Application and vars(other) == vars(self)

    __hash__ = None


OPAQUE = {
    "when": datetime.datetime(2024, 1, 2),
    "price": decimal.Decimal("1.5"),
    "thing": Application(b"state"),
    "big": 2**100,
}
EXTENSIONS = [PLAIN, WITH_BYTES, OPAQUE, {"shared": [PLAIN, PLAIN]}, {"\udc80": "\udc80"}]


def holds_itself():
    value = {"list": []}
    value["list"].append(value["list"])
    value["self"] = value
    return value


def transaction(extension, user=b"user", description=b"description"):
    return ("T", (TID, " ", user, description, extension))


def extension_of(payload):
    """What `cut_out` makes of the T that `payload` is."""
    message = read(payload)
    fields = message.root.items[1]
    return cut_out(message, fields.items[3], fields.close)


def around(spliced, fields=b"X\1\0\0\0T(NNNN"):
    """The T of `spliced`, with its fixed fields left empty."""
    rest = fields + spliced.body + b"t\x86."
    return spliced.proto + (frame(len(rest)) if spliced.framed else b"") + rest


@pytest.mark.parametrize("value", [b"", b"text", bytes(range(256)), bytes(300)])
def test_bytes_are_spelled_as_python_spells_them(value):
    assert encode_latin1(value) + b"." == fast_pickle(value, 1)
    assert b"\x80\3" + encode_bytes(value) + b"." == fast_pickle(value, 3)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("dumps", [pickle.dumps, fast_pickle])
@pytest.mark.parametrize("extension", EXTENSIONS)
def test_an_extension_comes_out_of_a_T_as_it_was_put_in(extension, dumps, protocol):
    stored = dumps(extension, protocol)
    assert extension_of(around(splice(stored))) == stored


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_extension_that_holds_itself_is_carried_like_any_other(protocol):
    stored = pickle.dumps(holds_itself(), protocol)
    assert extension_of(around(splice(stored))) == stored


def test_the_start_of_a_stored_extension_decides_the_start_of_the_T():
    assert splice(b"") == Spliced(b"\x80\3", False, b"}")
    assert splice(b"}Vk\nNs.") == Spliced(b"", False, b"}Vk\nNs")
    assert splice(b"\x80\2}Vk\nNs.") == Spliced(b"\x80\2", False, b"}Vk\nNs")
    framed = b"\x80\4\x95\7\0\0\0\0\0\0\0}Vk\nNs."
    assert splice(framed) == Spliced(b"\x80\4", True, b"}Vk\nNs")


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("extension", EXTENSIONS)
def test_an_extension_in_a_T_that_python_pickled_loads_equal(extension, protocol):
    stored = extension_of(pickle.dumps(transaction(extension), protocol))
    assert pickle.loads(stored) == extension
    assert extension_of(around(splice(stored))) == stored


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_values_that_an_extension_shares_with_the_fields_come_along(protocol):
    user = b"user \xff" * 10
    extension = {"who": user, "status": " ", "tag": "T", "other": b"", "more": b"bytes"}
    payload = pickle.dumps(transaction(extension, user, user), protocol)
    assert read(payload).memo_reads
    stored = extension_of(payload)
    assert pickle.loads(stored) == extension
    assert extension_of(around(splice(stored))) == stored


def test_texts_of_python_2_that_an_extension_shares_with_the_fields_come_along():
    user = b"user \xff" * 60
    extension = {b"who": user, b"status": b" "}
    fields = (b"T", (TID, b" ", user, b"", extension))
    payload = python2_pickle(fields, memo=True)
    stored = extension_of(payload)
    assert stored.count(user) == 1
    assert pickle.loads(stored, encoding="bytes") == extension


def test_a_MEMOIZE_in_an_extension_keeps_its_number():
    payload = pickle.dumps(transaction({"a": ["x", "x", 1000], "b": "x"}), 4)
    stored = extension_of(payload)
    assert stored.startswith(b"\x80\4\x95")
    assert read(stored).memo_reads
    assert pickle.loads(stored) == {"a": ["x", "x", 1000], "b": "x"}


def test_what_was_stored_twice_is_fetched_as_it_was_last():
    payload = b"(VT\nq\0(Vone\nq\1Vtwo\nq\1NN}Vkey\nh\1s" + b"tt."
    stored = extension_of(payload)
    assert pickle.loads(stored) == {"key": "two"}


def test_what_the_extension_stores_itself_is_not_brought_along():
    payload = b"(VT\nq\0(NNNVout\nq\1}Vin\nq\1h\1s" + b"tt."
    assert extension_of(payload) == b"}Vin\nq\1h\1s."


def test_an_unused_memo_leaves_no_trace():
    payload = b"(VT\nq\0(Vone\nq\1NNN}Vkey\nNs" + b"tt."
    assert extension_of(payload) == b"}Vkey\nNs."


def test_frames_are_taken_off_and_made_again_around_the_whole():
    payload = b"\x80\4VT\n(NNNN\x95\1\0\0\0\0\0\0\0}\x95\5\0\0\0\0\0\0\0Vk\nNst\x86."
    stored = extension_of(payload)
    assert stored == b"\x80\4\x95\7\0\0\0\0\0\0\0}Vk\nNs."
    assert pickle.loads(stored) == {"k": None}


def test_a_value_outside_that_is_no_text_cannot_be_fetched():
    payload = b"(VT\n(NNNK\1q\1}Vkey\nh\1s" + b"tt."
    with pytest.raises(PickleError) as caught:
        extension_of(payload)
    assert str(caught.value) == "the extension refers to a value outside itself that is no text"


def test_an_extension_that_is_a_container_outside_cannot_be_fetched():
    payload = b"}q\x010(VT\n(NNNNh\1tt."
    with pytest.raises(PickleError) as caught:
        extension_of(payload)
    assert str(caught.value) == "the extension refers to a value outside itself that is no text"


def test_what_is_only_counted_is_not_written_again():
    payload = b"\x80\4(VT\n\x94(Vlong text\n\x94NNN}\x94Vkey\nh\0stt."
    counted = b"Nr\1\0\0\0" + b"0"
    assert extension_of(payload) == b"\x80\4VT".replace(b"VT", b"X\1\0\0\0Tr\0\0\0\0" + b"0") + (
        counted + b"}\x94Vkey\nh\0s."
    )


def test_a_lone_surrogate_outside_is_fetched():
    payload = b"(VT\n(V\\udc80\nq\1NNN}Vkey\nh\1s" + b"tt."
    assert pickle.loads(extension_of(payload)) == {"key": "\udc80"}


def test_one_long_text_stored_often_does_not_multiply():
    text = b"X\0\0\1\0" + bytes(65536)
    puts = b"".join(b"q" + bytes((index,)) for index in range(200))
    gets = b"".join(b"h" + bytes((index,)) + b"0" for index in range(200))
    with pytest.raises(PickleError) as caught:
        extension_of(b"(VT\n(NNN" + text + puts + b"}" + gets + b"tt.")
    assert str(caught.value) == "the extension needs more than 65535 bytes from outside itself"


@pytest.mark.parametrize("take_in", [splice, for_protocol_1])
@pytest.mark.parametrize(
    ("stored", "reason"),
    [
        (pickle.dumps([1]), "it is not the pickle of a dict"),
        (pickle.dumps(None, 0), "it is not the pickle of a dict"),
        (b"no pickle", "opcode 0x6e is unknown or not allowed"),
        (b"}", "it ends without STOP"),
        (b"}Vk\n" + b"]" * 62 + b"a" * 61 + b"s.", "its values nest deeper than 62"),
    ],
)
def test_what_is_not_the_pickle_of_a_dict_is_refused(stored, reason, take_in):
    with pytest.raises(PickleError) as caught:
        take_in(stored)
    assert str(caught.value) == reason


def test_the_deepest_extension_that_is_let_out_is_let_in():
    deepest = b"}Vk\n" + b"]" * 61 + b"a" * 60 + b"s."
    assert extension_of(around(splice(deepest))) == deepest


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("extension", [{}, PLAIN, WITH_BYTES, {"\udc80": "\udc80"}])
def test_plain_values_for_protocol_1_are_spelled_as_python_3_peers_do(extension, protocol):
    body = for_protocol_1(pickle.dumps(extension, protocol))
    assert body + b"." == fast_pickle(extension)


def test_no_extension_is_an_empty_dict_for_protocol_1():
    assert for_protocol_1(b"") == b"}"


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("extension", [OPAQUE, {"shared": [WITH_BYTES, WITH_BYTES]}])
def test_what_is_not_plain_keeps_its_opcodes_for_protocol_1(extension, protocol):
    body = for_protocol_1(pickle.dumps(extension, protocol))
    assert pickle.loads(body + b".") == extension
    message = read(body + b".")
    assert not message.bytes_leaves
    assert not message.frames
    assert message.protocol is None


def test_an_extension_that_holds_itself_is_carried_in_protocol_1_too():
    loaded = pickle.loads(for_protocol_1(pickle.dumps(holds_itself(), 3)) + b".")
    assert loaded["self"] is loaded
    assert loaded["list"][0] is loaded["list"]


def test_the_texts_of_python_2_stay_what_they_are_for_protocol_1():
    stored = python2_pickle({b"key": b"\xff"})
    assert for_protocol_1(stored) == stored[:-1]


class Mapping(OrderedDict):
    """A dict that only executing its pickle could make."""


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_extension_that_may_be_a_dict_is_let_out_and_in(protocol):
    stored = pickle.dumps(Mapping(key=1), protocol)
    assert pickle.loads(extension_of(around(splice(stored)))) == Mapping(key=1)


def test_one_that_is_too_large_for_protocol_1():
    """A receiver could not store what arrives."""
    most = pickle.dumps({"a": b"\xff" * 32_000}, 3)
    assert len(for_protocol_1(most)) < MAX_METADATA_SIZE
    stored = pickle.dumps({"a": b"\xff" * 40_000}, 3)
    with pytest.raises(PickleError, match=r"as a pickle of protocol 1 it has 80\d+ bytes"):
        for_protocol_1(stored)
    assert why_not_carried(stored, [3]) is None
    assert "protocol 1" in why_not_carried(stored)
    assert why_not_carried(b"garbage", [3]) == why_not_carried(b"garbage", [1])
