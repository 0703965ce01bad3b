"""Crash points, and whether they find what they are made to find."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from zrs_core.storage import batches, disk, fs_last_tid, fs_sink, preparing

from . import run
from .cases import Setup, Workshop


def test_a_few_cases() -> None:
    assert run(0, 24) == 0


@pytest.mark.long
@pytest.mark.parametrize("start", range(0, 2000, 500))
def test_all_cases(start: int) -> None:
    assert run(start, 500) == 0


PLAIN = Setup("one_small_record", "batches", "batch", 1 << 20, packing=False)
ZEROS = PLAIN._replace(shape="records_that_are_zeros")
BLOBS = PLAIN._replace(shape="blobs_of_all_sizes")
PACKING = ZEROS._replace(chunk_size=2_000, packing=True)
EXTENSIONS = PLAIN._replace(shape="extensions")
NOTHING = PLAIN._replace(shape="from_nothing")


@pytest.mark.parametrize(
    ("setup", "home", "guard", "instead"),
    [
        pytest.param(
            ZEROS,
            batches,
            "unfinished",
            lambda tid: b"",
            id="the header first, or behind it",
        ),
        pytest.param(NOTHING, batches, "UNFINISHED", b" ", id="the status last"),
        pytest.param(
            EXTENSIONS,
            batches.BatchWriter,
            "_guard",
            lambda self, begin, tid: None,
            id="the header first, of what is written ahead",
        ),
        pytest.param(
            PLAIN,
            batches.BatchWriter,
            "_append_in_steps",
            batches.BatchWriter._append_at_once,
            id="steps for what is not within a block",
        ),
        pytest.param(
            PLAIN._replace(sink="public"),
            fs_sink,
            "unfinished",
            lambda tid: b"",
            id="the header first, of a single transaction",
        ),
        pytest.param(
            BLOBS,
            disk.Directories,
            "sync",
            lambda self, directory: None,
            id="directories of blobs",
        ),
        pytest.param(
            PLAIN,
            fs_last_tid,
            "last_tid_in_file",
            lambda storage: storage.lastTransaction(),
            id="the last transaction from the file",
        ),
        pytest.param(
            PACKING, preparing, "undo_unfinished_pack", lambda path: None, id="half a pack"
        ),
        pytest.param(
            PACKING, fs_sink, "sync_new_files", lambda storage: None, id="names of a pack"
        ),
    ],
)
@pytest.mark.long
def test_without_a_guard_something_is_found(
    setup: Setup, home: Any, guard: str, instead: Any, tmp_path: Path
) -> None:
    with mock.patch.object(home, guard, instead), Workshop(tmp_path) as workshop:
        for number in range(2_000):
            try:
                workshop.crash(setup, random.Random(number))
            except Exception as error:
                print(f"found at the attempt {number}: {error}")
                break
        else:
            raise AssertionError("nothing was found")


@pytest.mark.long
def test_the_same_number_is_the_same_case(tmp_path: Path) -> None:
    def what() -> list[str]:
        with Workshop(tmp_path / str(len(list(tmp_path.iterdir())))) as workshop:
            return [workshop.crash(BLOBS, random.Random(number)) for number in range(5)]

    assert what() == what()
