"""What finds what a test leaves behind."""

from __future__ import annotations

import os
import tempfile
import threading

import pytest

from . import leaks
from .leaks import belongings, own_temporary_directory


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setattr(leaks, "DEADLINE", 0.05)


def test_nothing_is_nothing():
    assert leaks.leaks(belongings()) == []


def test_a_thread_is_named():
    before, gate = belongings(), threading.Event()
    thread = threading.Thread(target=gate.wait, name="sleeper")
    thread.start()
    assert leaks.leaks(before) == [f"thread sleeper ({thread.ident})"]
    gate.set()
    thread.join()


def test_a_descriptor_is_named(tmp_path):
    before = belongings()
    with (tmp_path / "file").open("w"):
        assert leaks.leaks(before) == [f"descriptor of {tmp_path / 'file'}"]
    # One more of a kind that was there.
    ours, theirs = os.pipe()
    before = belongings()
    copy = os.dup(ours)
    assert len(leaks.leaks(before)) == 1
    for each in (ours, theirs, copy):
        os.close(each)


def test_a_temporary_file_is_named():
    before = belongings()
    descriptor, path = tempfile.mkstemp()
    os.close(descriptor)
    assert leaks.leaks(before) == [f"temporary file {path}"]
    os.unlink(path)


def test_what_is_ending_is_waited_for(monkeypatch):
    monkeypatch.setattr(leaks, "DEADLINE", 60)
    before, gate = belongings(), threading.Event()
    threading.Thread(target=gate.wait).start()
    threading.Timer(0.1, gate.set).start()
    assert leaks.leaks(before) == []


def test_what_tidies_up_when_it_is_collected_is_collected(monkeypatch):
    monkeypatch.setattr(leaks, "DEADLINE", 60)
    monkeypatch.setattr(leaks, "_PATIENCE", 0)

    class Untidy:
        def __init__(self):
            self.itself = self
            self.thread = threading.Thread(target=gate.wait)
            self.thread.start()

        def __del__(self):
            gate.set()

    before, gate = belongings(), threading.Event()
    Untidy()
    assert leaks.leaks(before) == []


def test_temporary_files_are_this_process_s_own(monkeypatch):
    before = tempfile.gettempdir()
    with own_temporary_directory():
        assert os.environ["TMPDIR"] == tempfile.gettempdir() != before
        assert os.listdir(tempfile.gettempdir()) == []
    assert tempfile.gettempdir() == before
