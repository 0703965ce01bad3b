"""Commands over a file in which a tid is lower than the one before it: nothing of it is damaged."""

from __future__ import annotations

import shutil

import pytest
from click.testing import CliRunner

from tests.databases import contents, open_file_storage
from tests.storage.test_not_carried import FALL, commit, file_with, tid_at
from zrs_core import Primary
from zrs_core.tools.cli.command import zrs as command


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file_with(tmp_path, FALL).close()
    shutil.rmtree("blobs")

    def call(*arguments, status=0):
        result = CliRunner().invoke(command, arguments)
        assert result.exit_code == status, result.output
        return result.output

    return call


def test_a_snapshot_is_a_copy(run, tmp_path):
    run("snapshot", "Data.fs", "snapshot")
    run("restore", "snapshot", "restored")
    storages = [open_file_storage(each, blobs=False) for each in (tmp_path, tmp_path / "restored")]
    assert contents(storages[0]) == contents(storages[1])
    for each in storages:
        each.close()


def test_a_time_says_nothing_about_it(run):
    run("snapshot", "Data.fs", "snapshot")
    output = run("restore", "snapshot", "r", "--until", "2020-01-01T00:00:10", status=2)
    assert "the tids of the snapshot do not rise throughout: restore all of it" in output


@pytest.mark.parametrize("options", [(), ("--deep",), ("--current",)])
def test_two_of_them_are_equal(run, options):
    shutil.copy("Data.fs", "copy.fs")
    assert "A and B are equal" in run("verify", *options, "Data.fs", "copy.fs")


def test_what_one_has_more(run, tmp_path):
    shutil.copy("Data.fs", "copy.fs")
    storage = open_file_storage(tmp_path, blobs=False)
    commit(storage, tid=tid_at(6))
    storage.close()
    output = run("verify", "Data.fs", "copy.fs", status=1)
    assert "A and B are DIFFERENT: 1 missing transaction" in output


def test_a_dump_shows_what_a_primary_sends(run):
    output = run("dump", "Data.fs", status=1)
    assert output.count("< commit") == 3
    assert f"transaction 0x{tid_at(4).hex()} cannot be replicated" in output


@pytest.mark.parametrize(("second", "commits", "status"), [(4, 1, 0), (5, 0, 0), (30, 0, 1)])
def test_a_dump_of_what_comes_after_one(run, second, commits, status):
    output = run("dump", "--from", f"0x{tid_at(second).hex()}", "Data.fs", status=status)
    assert output.count("< commit") == commits


def test_a_dump_after_what_is_not_there(run):
    output = run("dump", "--from", f"0x{tid_at(20).hex()}", "Data.fs", status=2)
    assert f"0x{tid_at(5).hex()} before it and 0x{tid_at(30).hex()} after it" in output


def test_a_dump_of_an_extension_that_is_left_out(run, tmp_path):
    storage = open_file_storage(tmp_path / "other", blobs=False)
    commit(storage, extension=b"garbage", tid=tid_at(1))
    storage.close()
    output = run("dump", "other/Data.fs")
    assert "without its extension: a line has no end" in output
    assert output.count("< commit") == 1


def test_its_primary_does_not_send_all_of_it(run, tmp_path):
    storage = open_file_storage(tmp_path / "primary", blobs=False)
    for oid, second in enumerate(FALL):
        commit(storage, oid, tid_at(second))
    primary = Primary(storage, "127.0.0.1:0", transport="socket-thread")
    try:
        output = run("verify", "Data.fs", str(primary.replication_address), status=1)
    finally:
        primary.close()
    assert "A and B are DIFFERENT: 2 missing transaction" in output
