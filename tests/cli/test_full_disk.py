"""Output that cannot be written, and the signals of log rotation."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from tests.conditions import wait_for
from tests.databases import open_file_storage, traffic
from zrs_core.tools.cli.streams import Forgiving

FULL = "/dev/full"

pytestmark = pytest.mark.skipif(not os.path.exists(FULL), reason="this system has no /dev/full")


@pytest.fixture
def full():
    with open(FULL, "wb") as file:
        yield file


@pytest.fixture
def data(tmp_path):
    with traffic(open_file_storage(tmp_path / "primary", blobs=False), blobs=False) as commits:
        commits.commit(3)
    return tmp_path / "primary" / "Data.fs"


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_services_go_on_and_log_rotation_does_not_end_them(log_format, zrs, full, data, tmp_path):
    """Both ends, from the first line to the last, which comes after a lost connection."""
    options = ("--log-format", log_format)
    streams = {"stdout": full, "stderr": full}
    listen = ("--listen", tmp_path / "p.sock")
    copy = tmp_path / "copy.fs"
    primary = zrs("primary", data, *listen, *options, **streams)
    secondary = zrs(
        *("secondary", tmp_path / "p.sock", copy, "--quiet", "0.1", "--reconnect-delay", "0.1"),
        *("--status", tmp_path / "status.sock", *options),
        **streams,
    )
    wait_for(lambda: copy.exists() and copy.stat().st_size == data.stat().st_size, "a copy")
    for name in "SIGUSR1", "SIGUSR2":
        for each in primary, secondary:
            each.process.send_signal(getattr(signal, name))
    assert primary.stop() == 0
    with traffic(open_file_storage(data.parent, blobs=False), blobs=False) as commits:
        commits.commit(1)
    primary = zrs("primary", data, *listen, *options, **streams)
    wait_for(lambda: copy.stat().st_size == data.stat().st_size, "more")
    assert (primary.stop(), secondary.stop()) == (0, 0)


def test_a_result_that_cannot_be_printed_is_an_error(zrs, full, data):
    for arguments, status in (
        (["--help"], 1),
        (["dump", data], 1),
        (["verify", data, data], 2),
        (["check-nagios", "-w", "1", data.parent / "no.sock"], 3),
    ):
        process = zrs(*arguments, stdout=full)
        assert process.finish() == status, arguments
        assert "Traceback" not in process.err
        if status < 3:
            assert process.err == "zrs: [Errno 28] No space left on device\n", arguments


def test_an_error_that_cannot_be_printed_has_its_status(zrs, full, data):
    for arguments, status in (
        (["status", data.parent / "no.sock"], 2),
        (["primary", data.parent / "none", "--listen", ":0"], 2),
    ):
        assert zrs(*arguments, stderr=full).finish() == status, arguments


class Stream:
    def __init__(self, error):
        self.error = error

    def write(self, text):
        raise self.error

    flush = property(lambda self: lambda: self.write(""))


def test_a_command_ends_with_its_reader_if_it_is_to(monkeypatch):
    monkeypatch.setattr("sys.stdout", Stream(BrokenPipeError(32, "Broken pipe")))
    assert Forgiving("stdout", ends_with_reader=False).write("text") == 4
    with pytest.raises(BrokenPipeError):
        Forgiving("stdout", ends_with_reader=True).write("text")
    monkeypatch.setattr("sys.stdout", Stream(OSError(28, "No space left on device")))
    Forgiving("stdout", ends_with_reader=True).flush()
    monkeypatch.setattr("sys.stdout", None)
    Forgiving("stdout", ends_with_reader=True).write("text")


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("command", ["log", "dump"])
def test_streams_that_were_closed(command, closed, data):
    """No file that the command opens gets the number of one of them."""
    code = (
        "import sys; from zrs_core.tools.cli import main; "
        "from zrs_core.tools.cli.streams import open_closed; "
        "open_closed(); assert open(sys.argv[2]).fileno() > 2; main()"
    )
    script = f'exec "$@" {closed}'
    arguments = ["sh", "-c", script, "sh", sys.executable, "-c", code, command, str(data)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0
    assert not done.stderr
