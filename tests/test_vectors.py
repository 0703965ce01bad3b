import random

import pytest

from zrs_core.codec import SecondaryConnection
from zrs_core.messages import Hello, KeepAlive, Start

from .codec.helpers import bytewise, encode, outcome, pieces, primary, secondary
from .codec.vectors import VECTORS, described, stored_messages

EVERY = pytest.mark.parametrize("vector", VECTORS.values(), ids=VECTORS)


def test_the_vectors_are_all_there():
    assert set(VECTORS) == {
        "py2-basic",
        "py2-blobs",
        "py2-inline",
        "py2-packed",
        "py3-basic",
        "py3-blobs",
        "py3-packed",
        "py3-resume",
    }


def receive(vector, fed, **options):
    messages, error = outcome(secondary(vector.word, vector.start, **options), fed)
    assert error is None
    return messages


@EVERY
def test_a_stream_means_what_the_database_held(vector):
    policy = "verify" if vector.name == "py2-inline" else "require"
    messages = receive(vector, [vector.stream], checksums=policy)
    assert described(messages) == vector.expected


# Every byte of the others would take a minute.
QUICK = "py3-basic"


@pytest.mark.parametrize(
    "vector",
    [
        pytest.param(each, id=name, marks=[pytest.mark.long] * (name != QUICK))
        for name, each in VECTORS.items()
    ],
)
def test_a_stream_means_the_same_byte_by_byte(vector):
    assert receive(vector, bytewise(vector.stream)) == receive(vector, [vector.stream])


@EVERY
def test_a_stream_means_the_same_however_it_arrives(vector):
    whole = receive(vector, [vector.stream])
    for seed in range(3):
        chance = random.Random(seed)
        cuts = chance.sample(range(len(vector.stream)), 10 ** (seed + 1))
        assert receive(vector, pieces(vector.stream, cuts)) == whole


@EVERY
def test_a_secondary_asks_as_the_captured_one_did(vector):
    connection = SecondaryConnection()
    hello = connection.send(Hello(vector.word)) + connection.send(Start(vector.start))
    assert hello == vector.hello
    assert connection.send(KeepAlive()) == b"\0\0\0\0"


@EVERY
def test_what_was_received_can_be_sent_on(vector):
    messages = receive(vector, [vector.stream])
    for protocol in (1, 3):
        sender = primary(vector.word, vector.start, blobs=False, pickle_protocol=protocol)
        again = receive(vector, [encode(messages, sender)], checksums="require")
        assert described(again) == vector.expected
        assert again == messages or protocol == 1


@pytest.mark.parametrize("name", ["py3-basic", "py3-blobs", "py3-packed", "py3-resume"])
def test_a_database_is_sent_as_the_peer_sent_it(name, tmp_path):
    vector = VECTORS[name]
    source = VECTORS["py3-basic"] if name == "py3-resume" else vector
    messages = stored_messages(source.folder, tmp_path, vector.start)
    sender = primary(vector.word, vector.start, blobs=False, pickle_protocol=1)
    assert encode(messages, sender) == vector.stream
