import os
import pickletools
import sys
import time
import tracemalloc

import pytest

from zrs_core import errors
from zrs_core.codec.opcodes import PickleError
from zrs_core.messages import Commit, Transaction

from ..fuzz.targets import TARGETS
from .make import FOLDER, OPCODES, cases
from .reading import read, reason

FILES = {
    str(path.relative_to(FOLDER).with_suffix("")): path.read_bytes()
    for path in sorted(FOLDER.glob("*/*.bin"))
}
REASONS = dict(
    line.split("\t") for line in (FOLDER / "reasons.tsv").read_text("utf-8").splitlines()
)


def expected(name):
    """The exception that a file's name says, None if it is legal."""
    verdict = name.partition("/")[2].partition(".")[0]
    if verdict == "legal":
        return None
    return PickleError if verdict == "PickleError" else getattr(errors, verdict)


def test_the_files_are_those_that_are_made_and_enough():
    assert cases() == FILES
    assert len(FILES) >= 300
    assert FILES.keys() == REASONS.keys()


def test_every_opcode_is_there():
    assert OPCODES.keys() == {opcode.name for opcode in pickletools.opcodes}
    for name in OPCODES:
        assert f"secondary/RemoteProtocolError.{name}-as-a-message" in FILES
        assert f"secondary/RemoteProtocolError.{name}-in-a-field" in FILES
    used = {
        opcode.name
        for body in OPCODES.values()
        for opcode, _, _ in pickletools.genops(body + b".")
        if opcode.name != "STOP" or b"." in body
    }
    assert used == OPCODES.keys()


def test_each_is_refused_as_its_name_says():
    for name, data in FILES.items():
        folder = name.partition("/")[0]
        refused = None
        try:
            read(folder, data)
        except (errors.RemoteProtocolError, PickleError) as error:
            refused = type(error)
        assert refused is expected(name), name
        assert reason(folder, data) == REASONS[name], name


def test_an_extension_is_carried_as_it_is():
    carried = [name for name in FILES if name.startswith("secondary/legal.")]
    for name in carried:
        transaction, commit = read("secondary", FILES[name])
        assert isinstance(transaction, Transaction)
        assert isinstance(commit, Commit)
        # The frame is taken off and made again.
        body = transaction.extension.removeprefix(b"\x95" + transaction.extension[1:9])[:-1]
        assert body, name
        assert body.replace(b"\x95\1" + bytes(7), b"") in FILES[name].replace(
            b"\x95\1" + bytes(7), b""
        ), name
    assert len(carried) > 80


@pytest.mark.long
@pytest.mark.parametrize("target", ["secondary", "session"])
def test_it_is_refused_however_it_comes_and_nothing_of_it_is_seen(target, caplog):
    caplog.set_level("CRITICAL", "zrs_core")
    for name, data in FILES.items():
        if name.startswith("secondary/"):
            TARGETS[target](b"\0\1" + data)


def test_no_file_makes_anything_be_imported_or_called(monkeypatch):
    monkeypatch.setattr(os, "system", lambda command: pytest.fail(command))
    before = set(sys.modules)
    for name, data in FILES.items():
        reason(name.partition("/")[0], data)
    assert set(sys.modules) == before
    assert "tests.hostile.canary" not in sys.modules


@pytest.mark.long
def test_memory():
    """Less than 16 MiB more for each."""
    reason("secondary", FILES["secondary/legal.code-os.system-in-an-extension"])
    tracemalloc.start()
    try:
        for name, data in FILES.items():
            tracemalloc.clear_traces()
            tracemalloc.reset_peak()
            reason(name.partition("/")[0], data)
            _, peak = tracemalloc.get_traced_memory()
            assert peak < 16 * 2**20, name
    finally:
        tracemalloc.stop()


@pytest.mark.long
def test_time():
    """Less than a millisecond of processor time for each KiB, over all, in the best of some runs.

    It would take a million times as long to follow one of the numbers in them.
    """
    kibibytes = sum(-(-len(data) // 1024) for data in FILES.values())
    best = float("inf")
    for _ in range(5):
        begin = time.process_time()
        for name, data in FILES.items():
            reason(name.partition("/")[0], data)
        best = min(best, time.process_time() - begin)
    assert best < kibibytes * 0.001
