"""`zrs status --watch`: live on a terminal, lines elsewhere, and the plot of the lag."""

from __future__ import annotations

import codecs
import contextlib
import fcntl
import io
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios

import pytest
from rich.console import Console

from tests.conditions import DEADLINE, wait_for
from tests.status.answers import primary, secondary, serving
from zrs_core.tools.cli.watching import LagPlot

ALTERNATE_SCREEN, NORMAL_SCREEN, SHOW_CURSOR = "\x1b[?1049h", "\x1b[?1049l", "\x1b[?25h"


def plot(lags, width=20, encoding="utf-8"):
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    console = Console(file=file, width=width)
    console.print(LagPlot("here", lags))
    file.flush()
    return [line.rstrip() for line in file.buffer.getvalue().decode(encoding).splitlines()]


def test_a_plot():
    assert plot([None, 0.0, 1.0, 2.0, 4.0, None, 3.0]) == [
        "here: lag 3.000 s",
        "4.000 s     █",
        "            █ █",
        "           ██ █",
        "    0 s  ▁███ █",
    ]


def test_a_plot_is_as_wide_as_there_is_room():
    title, *lines = plot([float(each) for each in range(1, 50)], width=20)
    assert title == "here: lag 49.0 s"
    assert all(len(line) <= 20 for line in lines)
    # The newest ones, at the right.
    assert lines[0].endswith("█")
    assert len(lines[-1]) == 20
    assert all(len(line) <= 3 for line in plot([1.0] * 50, width=3))


def test_a_plot_of_little():
    assert plot([0.004]) == ["here: lag 0.004 s", "0.100 s", "", "", "    0 s ▁"]
    assert plot([])[0] == "here: lag not known"


def test_a_plot_without_unicode():
    assert plot([0.0, 4.0], encoding="ascii")[1:] == [
        "4.000 s  @",
        *["         @"] * 2,
        "    0 s .@",
    ]


@pytest.fixture
def two():
    with serving(primary(peers=[])) as one, serving(secondary()) as other:
        yield one, other


@pytest.mark.parametrize(
    "number", [pytest.param(signal.SIGINT, marks=pytest.mark.long), signal.SIGTERM]
)
def test_lines_where_there_is_no_terminal(zrs, two, number):
    one, other = two
    running = zrs("status", one.text, other.text, "--watch", "--interval", "0.1")
    running.wait_for(other.text, times=3)
    running.wait_for(f"{other.text} is behind {one.text} by 1.250 s, 4 tx")
    other.tell(secondary(state="failing", connected=False, lag_seconds=None))
    running.wait_for("NOT IN SYNC", times=2)
    other.close()
    running.wait_for("could not be asked: nobody listens there")
    running.process.send_signal(number)
    assert running.finish() == 0
    assert running.err == ""
    first, second, *_ = [line[20:] for line in running.out.splitlines()]
    assert first == f"{one.text} primary, ready, 0 peers, 12.5 tx/s, 25.0 kB/s"
    assert second == (
        f"{other.text} secondary, replicating, ready, lag 1.500 s, 3 tx, 12.5 tx/s, 25.0 kB/s"
    )
    failing = running.wait_for("NOT IN SYNC")
    assert "failing, unconnected, NOT IN SYNC, lag 3 tx" in failing


@pytest.mark.long
def test_documents_line_by_line(zrs, two):
    running = zrs("status", *(each.text for each in two), "--watch", "--json", "--interval", "0.1")
    running.wait_for('"seconds": 1.25')
    assert running.stop() == 0
    for line in running.out.splitlines():
        document = json.loads(line)
        assert [each["address"] for each in document["nodes"]] == [each.text for each in two]


@pytest.mark.long
def test_one_that_does_not_answer_holds_nobody_up(zrs, two):
    one, other = two
    other.answer = lambda connection: other.closing.wait()
    running = zrs(
        "status", one.text, other.text, "--watch", "--interval", "0.1", "--timeout", "600"
    )
    # Nothing is shown before the first answers or the time-out; a signal ends that too.
    wait_for(lambda: len(one.requests) >= 2, "questions")
    assert running.stop() == 0
    assert running.out == ""


@pytest.mark.long
def test_late_answers(zrs, two):
    one, other = two
    other.answer = lambda connection: other.closing.wait()
    running = zrs(
        "status", one.text, other.text, "--watch", "--interval", "0.1", "--timeout", "0.3"
    )
    running.wait_for("no answer")
    running.wait_for("no answer within 0.3 s")
    assert running.stop() == 0


@pytest.mark.long
def test_a_reader_that_leaves(two):
    command = [sys.executable, "-m", "zrs_core.tools.cli", "status", two[0].text, "--watch"]
    with subprocess.Popen(
        [*command, "--interval", "0.1"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(DEADLINE) == 1
        assert process.stderr.read() == b""


class Terminal:
    """`zrs` with a terminal of its own; `out` is all that it has written there."""

    def __init__(self, *arguments, columns=100, lines=50):
        self._ours, theirs = pty.openpty()
        self.resize(columns, lines)
        environment = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "zrs_core.tools.cli", *arguments],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**environment, "TERM": "xterm"},
            preexec_fn=_own_terminal,
        )
        os.close(theirs)
        os.set_blocking(self._ours, False)
        # What has come may end in the midst of a character.
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._out = ""

    def resize(self, columns, lines):
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    @property
    def out(self):
        # At the end of the other side it is an error.
        with contextlib.suppress(BlockingIOError, OSError):
            while data := os.read(self._ours, 65536):
                self._out += self._decoder.decode(data)
        return self._out

    def wait_for(self, text):
        wait_for(lambda: text in self.out, repr(text))

    def type(self, text):
        os.write(self._ours, text)

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._ours)


def _own_terminal():
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@pytest.fixture
def terminal(two):
    arguments = ("status", *(each.text for each in two), "--watch", "--interval", "0.1")
    with contextlib.closing(Terminal(*arguments)) as terminal:
        yield terminal


def test_live_on_a_terminal_until_ctrl_c(terminal, two):
    terminal.wait_for(f"{two[1].text}: lag 1.500 s")
    assert ALTERNATE_SCREEN in terminal.out
    assert f"{two[0].text}: lag" not in terminal.out
    two[1].tell(secondary(lag_seconds=2.75))
    terminal.wait_for(f"{two[1].text}: lag 2.750 s")
    terminal.type(b"\x03")
    assert terminal.process.wait(DEADLINE) == 0
    end = terminal.out.rpartition(NORMAL_SCREEN)[2]
    # What was last to be seen stays, and so does the cursor.
    assert f"{two[1].text} is behind {two[0].text} by 1.250 s, 4 tx" in end
    assert SHOW_CURSOR in terminal.out
    assert "Traceback" not in terminal.out


@pytest.mark.long
def test_another_size(terminal):
    def width():
        rules = re.findall("─+", terminal.out)
        return len(rules[-1]) if rules else 0

    wait_for(lambda: width() > 60, "a table")
    terminal.resize(60, 20)
    wait_for(lambda: 50 < width() <= 60, "a narrow table")
    terminal.type(b"\x03")
    assert terminal.process.wait(DEADLINE) == 0
