import contextlib
import os
import socket
import tempfile
from collections.abc import Iterator

import pytest

from zrs_core.transports.sockets import FIRST_READ_SIZE, READ_SIZE, next_read_size, peer_name


def test_a_read_that_was_full_is_followed_by_a_large_one():
    assert next_read_size(1) == next_read_size(FIRST_READ_SIZE - 1) == FIRST_READ_SIZE
    assert next_read_size(FIRST_READ_SIZE) == next_read_size(READ_SIZE) == READ_SIZE


@pytest.fixture
def path() -> Iterator[str]:
    # That of a Unix socket must be short.
    with tempfile.TemporaryDirectory() as directory:
        yield os.path.join(directory, "zrs.sock")


def test_the_other_ends_of_a_unix_socket_have_different_names(path):
    with contextlib.ExitStack() as sockets:
        listening = sockets.enter_context(socket.socket(socket.AF_UNIX))
        listening.bind(path)
        listening.listen()
        names = []
        for _ in range(2):
            sockets.enter_context(socket.socket(socket.AF_UNIX)).connect(path)
            names.append(peer_name(sockets.enter_context(listening.accept()[0])))
    assert names[0] != names[1]
    for name in names:
        assert name.startswith(f"unix:{path}#")
