"""`zrs demo`."""

from __future__ import annotations

import io
import re
import tempfile

import pytest
from click.testing import CliRunner
from rich.console import Console

from tests.cli.conftest import snapshot_of
from tests.databases import open_file_storage
from zrs_core.storage.comparison import Comparison, Difference, Kind
from zrs_core.tools.cli import demo
from zrs_core.tools.cli.command import zrs as command


@pytest.fixture(autouse=True)
def _temporary_files(tmp_path, monkeypatch):
    """Temporary files go to a directory in which none may be left."""
    directory = tmp_path / "temporary"
    directory.mkdir()
    monkeypatch.setenv("TMPDIR", str(directory))
    monkeypatch.setattr(tempfile, "tempdir", None)
    yield
    assert list(directory.iterdir()) == []


def value(output, name):
    """A value in the table."""
    [found] = re.findall(rf"^│ {name} +│ +(.*?) │$", output, re.MULTILINE)
    return found


def number(output, name):
    return int(value(output, name).replace(",", ""))


def check(process):
    assert process.finish() == 0, process.err
    assert process.err == ""
    output = process.out
    assert value(output, "Both sides") == "equal"
    assert number(output, "Cuts of the connection") == 2
    assert number(output, "Live commits") > 50
    assert value(output, "Rate").endswith(" MB/s")
    cuts = re.findall(r"on its way: the secondary holds ([0-9,]+) of ([0-9,]+) trans", output)
    assert len(cuts) == 2
    for held, there in cuts:
        assert int(held.replace(",", "")) < int(there.replace(",", ""))
    return output


def test_a_database_that_it_generates(zrs):
    output = check(zrs("demo"))
    behind = number(output, "of these while the secondary was behind")
    assert behind <= number(output, "Live commits")
    assert number(output, "Blobs") > 20
    assert number(output, "Records") > number(output, "Transactions") > 200
    assert "missing" not in output


@pytest.mark.long
def test_a_database_that_is_given(zrs, database):
    before = snapshot_of(database)
    output = check(zrs("demo", "--source", database / "Data.fs", "--blobs", database / "blobs"))
    assert f"Copying {database / 'Data.fs'}" in output
    assert "The primary has 31 transactions" in output
    assert number(output, "Transactions") == 31 + number(output, "Live commits")
    assert snapshot_of(database) == before


@pytest.mark.long
def test_a_database_in_use_and_without_its_blobs(zrs, database):
    storage = open_file_storage(database)
    try:
        before = snapshot_of(database)
        output = check(zrs("demo", "--source", database / "Data.fs"))
        assert snapshot_of(database) == before
    finally:
        storage.close()
    missing = number(output, "Blobs missing on both sides")
    assert missing > 0
    assert output.count("is missing; its record is replicated without it") >= missing


def test_two_sides_that_are_not_equal(monkeypatch):
    """The bars, the differences and the table, with nothing moved at all."""
    difference = Difference(Kind.RECORD, b"\1" * 8, b"\2" * 8, "the data differ")
    result = Comparison(transactions=1, differences=[difference], complete=False)
    moved = demo._Moved(live=1, behind=1, cuts=2, bytes=1_000_000, seconds=0.5)
    monkeypatch.setattr(demo, "compare", lambda *args, **kwargs: result)
    monkeypatch.setattr(demo._Demo, "run", lambda self, *, generate: moved)
    console = Console(file=io.StringIO(), width=100)
    assert not demo.run_demo(console, None, None)
    output = console.file.getvalue()
    expected = f"Different: transaction 0x{'01' * 8}, object 0x{'02' * 8}: the data differ\n"
    assert expected in output
    assert value(output, "Both sides") == "NOT EQUAL: 1 difference or more"
    assert value(output, "Rate") == "2.0 MB/s"


@pytest.mark.long
def test_sigterm_cleans_up(zrs):
    process = zrs("demo")
    process.wait_for("A secondary in another process")
    assert process.stop() == 1
    assert process.err.split() == ["Aborted!"]
    text = " ".join(CliRunner().invoke(command, ["demo", "--help"]).output.split())
    assert "1 when they are not, when it failed or was interrupted" in text
