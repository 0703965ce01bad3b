"""Lines, log lines and errors; signals."""

from __future__ import annotations

import io
import logging
import os
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time

import click
import pytest
from rich.console import Console
from ZODB.POSException import POSKeyError

from zrs_core.errors import ConfigurationError, Diverged, ListenError
from zrs_core.messages import NO_TID
from zrs_core.tools.cli.output import (
    Failed,
    Misconfigured,
    count,
    describe_last,
    errors_in_a_line,
    logging_to,
    say,
    size,
)
from zrs_core.tools.cli.signals import Interruption, StopSignals


@pytest.fixture
def console():
    return Console(file=io.StringIO(), width=40)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ConfigurationError("why"), Misconfigured),
        (ListenError("why"), Misconfigured),
        (click.UsageError("why"), Misconfigured),
        (Diverged(NO_TID, None, None), Failed),
        (POSKeyError(b"\0" * 8), Failed),
        (OSError(28, "No space left on device"), Failed),
        (sqlite3.OperationalError("the server\n  is gone"), Failed),
    ],
)
def test_errors_that_a_person_can_cause(error, kind):
    with pytest.raises(Failed) as caught:
        with errors_in_a_line():
            raise error
    assert type(caught.value) is kind
    assert caught.value.exit_code == {Misconfigured: 2, Failed: 1}[kind]
    file = io.StringIO()
    caught.value.show(file)
    [line] = file.getvalue().splitlines()
    assert line.startswith("zrs: ")


@pytest.mark.parametrize("error", [BrokenPipeError(32, "Broken pipe"), KeyError("a mistake")])
def test_other_errors(error):
    with pytest.raises(type(error)):
        with errors_in_a_line():
            raise error


def test_a_line_is_printed_as_it_is(console):
    line = "[bold]long :smile: " + "x" * 100 + " https://example.org 1.2.3.4"
    say(console, line)
    assert console.file.getvalue() == f"{line}\n"


def test_words():
    assert count(1, "cut") == "1 cut"
    assert count(1_234, "cut") == "1,234 cuts"
    assert size(1_234_567) == "1.2 MB"
    assert describe_last(NO_TID) == "no transaction yet"
    assert describe_last(b"\3" + b"\0" * 7).startswith("0x0300000000000000 (")


def test_log_lines(console):
    log = logging.getLogger("zrs_core.primary")
    ours, root = logging.getLogger("zrs_core"), logging.getLogger()
    before = (ours.level, list(root.handlers))
    with logging_to(console, logging.INFO):
        log.info("peer: %s", "Connected")
        log.debug("nothing")
        log.error("trouble")
        logging.getLogger("elsewhere").warning("strange")
        logging.getLogger("zc.lockfile").error("Error locking file")
    log.info("later")
    assert (ours.level, list(root.handlers)) == before
    lines = console.file.getvalue().splitlines()
    assert all(re.match(r"\d\d:\d\d:\d\d ", line) for line in lines)
    assert [line[9:] for line in lines] == ["peer: Connected", "ERROR trouble", "WARNING strange"]


def test_tracebacks_only_of_what_a_person_cannot_cause(console):
    log = logging.getLogger("zrs_core.secondary")
    with logging_to(console, logging.INFO):
        for error in (
            OSError(28, "No space left"),
            sqlite3.OperationalError("database is locked"),
            ZeroDivisionError("a mistake"),
        ):
            try:
                raise error
            except (OSError, sqlite3.Error, ZeroDivisionError):
                log.exception("cannot go on")
    lines = console.file.getvalue().splitlines()
    assert [line[9:] for line in lines[:3]] == ["ERROR cannot go on"] * 3
    assert lines[3] == "Traceback (most recent call last):"
    assert lines[-1] == "ZeroDivisionError: a mistake"


def test_a_console_that_is_closed(console, capsys):
    console.file.close()
    with logging_to(console, logging.INFO):
        logging.getLogger("zrs_core.primary").info("Connected")
    assert "Logging error" in capsys.readouterr().err


_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.mark.parametrize("number", _STOPPING)
def test_signals_ask_to_stop(number):
    before = [signal.getsignal(each) for each in _STOPPING]
    with StopSignals() as stop:
        assert not stop.wait(0)
        os.kill(os.getpid(), number)
        assert stop.wait()
        assert stop.wait(0)
        # The second one ends the process.
        assert signal.getsignal(number) is signal.SIG_DFL
    assert [signal.getsignal(each) for each in _STOPPING] == before


def test_a_signal_that_reaches_another_thread_ends_the_wait():
    main = threading.get_ident()

    def run():
        while sys._current_frames()[main].f_code is not StopSignals.wait.__code__:
            time.sleep(0.001)
        signal.pthread_kill(threading.get_ident(), signal.SIGTERM)

    with StopSignals() as stop:
        thread = threading.Thread(target=run)
        thread.start()
        assert stop.wait(60)
        thread.join()
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_signal_of_somebody_else_does_not_end_the_wait():
    before = signal.signal(signal.SIGUSR1, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    try:
        with StopSignals() as stop:
            os.kill(os.getpid(), signal.SIGUSR1)
            assert stop.wait(60)
            assert stop._stopping
        with StopSignals() as stop:
            signal.signal(signal.SIGUSR1, lambda *_: None)
            os.kill(os.getpid(), signal.SIGUSR1)
            assert not stop.wait(0)
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_a_hangup_that_is_ignored_stays_so():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopSignals() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop.wait(0)
            os.kill(os.getpid(), signal.SIGTERM)
            assert stop.wait()
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", _STOPPING)
def test_signals_interrupt(number):
    before = [signal.getsignal(each) for each in _STOPPING]
    with Interruption() as interruption:
        interruption.check()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
        # Whoever has swallowed it comes to a place like this.
        with pytest.raises(KeyboardInterrupt):
            interruption.check()
    assert [signal.getsignal(each) for each in _STOPPING] == before


def test_an_interruption_that_is_deferred():
    done = []

    def interrupt(times):
        with interruption.deferred():
            for number in range(times):
                signal.raise_signal(signal.SIGTERM)
                done.append(number)

    with Interruption() as interruption:
        interrupt(0)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    with Interruption() as interruption:
        with pytest.raises(KeyboardInterrupt):
            interrupt(1)
        assert done == [0]
    with Interruption() as interruption:
        # The second one does not wait.
        with pytest.raises(KeyboardInterrupt):
            interrupt(2)
        assert done == [0, 0]


def test_a_hangup_that_is_ignored_does_not_interrupt():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interruption() as interruption:
            signal.raise_signal(signal.SIGHUP)
            interruption.check()
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_whose_reader_has_left_goes_on():
    script = """
import logging, os, sys, threading
from rich.console import Console
from zrs_core.tools.cli.output import logging_to, say
reading, writing = os.pipe()
os.dup2(writing, 1)
os.close(writing)
os.close(reading)
def run():
    for _ in range(3):
        logging.getLogger("zrs_core.secondary").info("Disconnected")
    os.write(2, b"it goes on")
console = Console()
with logging_to(console, logging.INFO):
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    say(console, "Caught up")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"it goes on")
