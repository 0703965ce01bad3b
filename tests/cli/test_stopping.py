"""A primary that is told to stop while a secondary is behind."""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket

import pytest
import transaction
import ZODB
from ZODB.blob import Blob

from tests.cli.test_serving import is_equal, last_tid
from tests.conditions import DEADLINE
from tests.databases import open_file_storage

# More than is under way between two processes at once.
_SIZE = 12 * 1024 * 1024
# "zrs2.1" and a tid, each after its length.
_GREETING = 4 + 6 + 4 + 8


@pytest.fixture
def large(tmp_path):
    """A database with one large blob, and a small transaction after it."""
    db = ZODB.DB(open_file_storage(tmp_path / "large"))
    with contextlib.closing(db):
        for content in (b"x" * _SIZE, b"y"):
            with db.transaction() as connection:
                connection.root()["blob"] = Blob(content)
        transaction.abort()
    return tmp_path / "large"


@pytest.fixture
def behind(zrs, tmp_path, large):
    """A primary, its connection to a secondary, and that one's, between which nothing goes yet."""
    with contextlib.ExitStack() as stack:

        def start(*arguments):
            primary = zrs(
                *("primary", large / "Data.fs", "--blobs", large / "blobs"),
                *("--listen", "127.0.0.1:0", *arguments),
            )
            host, _, port = primary.wait_for("Serving ").rpartition(" ")[2].partition(":")
            upward = stack.enter_context(socket.socket())
            upward.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
            upward.settimeout(DEADLINE)
            upward.connect((host, int(port)))
            server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            server.settimeout(DEADLINE)
            (tmp_path / "copy").mkdir()
            secondary = zrs(
                *("secondary", f"127.0.0.1:{server.getsockname()[1]}"),
                *(tmp_path / "copy" / "Data.fs", "--blobs", tmp_path / "copy" / "blobs"),
            )
            downward = stack.enter_context(server.accept()[0])
            downward.settimeout(DEADLINE)
            upward.sendall(downward.recv(_GREETING, socket.MSG_WAITALL))
            primary.wait_for("start 0x")
            return primary, upward, secondary, downward

        yield start


def test_a_secondary_that_is_behind_gets_the_rest(behind, tmp_path, large):
    primary, upward, secondary, downward = behind("--close-timeout", "100")
    primary.process.terminate()
    primary.wait_for("Closing")
    shutil.copyfileobj(upward.makefile("rb"), downward.makefile("wb"))
    downward.shutdown(socket.SHUT_WR)
    # The secondary has read to the end and closed: the primary waits for that.
    assert downward.recv(1) == b""
    upward.close()
    assert primary.finish() == 0
    secondary.wait_for("Disconnected")
    assert secondary.stop() == 0
    assert last_tid(tmp_path / "copy" / "Data.fs") == last_tid(large / "Data.fs")
    assert is_equal(large, tmp_path / "copy")


@pytest.mark.long
def test_it_is_waited_for_so_long_and_no_longer(behind):
    primary, *_ = behind("--close-timeout", "0.2")
    assert primary.stop() == 0
    assert "Stopped serving" in primary.out


@pytest.mark.long
@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_second_signal_ends_it_at_once(behind, large, second):
    primary, *_ = behind("--close-timeout", "1000")
    primary.process.terminate()
    primary.wait_for("Closing")
    primary.process.send_signal(second)
    assert primary.finish() == -second
    assert "Stopped serving" not in primary.out
    # The next one finds a whole database.
    open_file_storage(large).close()
