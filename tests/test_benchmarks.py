"""The benchmarks' databases are what they say, and all of them can still be run."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
from ZODB.FileStorage import FileStorage

from benchmarks.histories import History, cut, generate_blobs, generate_records, tid_of

ROOT = Path(__file__).parent.parent


def what_it_holds(history: History) -> tuple[int, int, int]:
    """Transactions, records and bytes, of blobs where there are any."""
    blobs = None if history.blobs is None else str(history.blobs)
    storage = FileStorage(str(history.path), blob_dir=blobs)
    records = [record for transaction in storage.iterator() for record in transaction]
    transactions = len({record.tid for record in records})
    sizes = [
        len(record.data)
        if blobs is None
        else Path(storage.loadBlob(record.oid, record.tid)).stat().st_size
        for record in records
    ]
    # The index that was written beside it is right: FileStorage finds what is current by it.
    current = {record.oid: (record.data, record.tid) for record in records}
    assert {oid: storage.load(oid) for oid in current} == current
    assert storage.lastTransaction() == history.last_tid
    storage.close()
    return transactions, len(records), sum(sizes)


@pytest.mark.parametrize("records", [1, 3])
def test_generated_records(tmp_path, records):
    history = generate_records(tmp_path, 200, records, 300)
    assert what_it_holds(history) == (200, 200 * records, 200 * records * 300)
    assert history[2:5] == (200, 200 * records, 200 * records * 300)
    again = generate_records(tmp_path / "again", 200, records, 300)
    assert again.path.read_bytes() == history.path.read_bytes()


def test_generated_blobs(tmp_path):
    history = generate_blobs(tmp_path, 9, 70_000)
    assert what_it_holds(history) == (9, 9, 9 * 70_000)


@pytest.mark.parametrize("transactions", [0, 1, 60, 99])
def test_the_first_transactions_of_a_history(tmp_path, transactions):
    history = generate_records(tmp_path, 100, 2, 100)
    path, index = cut(history, transactions)
    assert index.exists()
    storage = FileStorage(str(path))
    assert len([*storage.iterator()]) == transactions
    assert storage.lastTransaction() == (tid_of(transactions - 1) if transactions else bytes(8))
    storage.close()
    assert history.path.read_bytes().startswith(path.read_bytes())


@pytest.mark.long
def test_a_case_that_there_is_not(tmp_path):
    done = subprocess.run(
        [
            *(sys.executable, "-m", "benchmarks", "lag", "--case", "9 secondaries"),
            *("--directory", tmp_path, "--output", tmp_path),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "--case: none of these benchmarks has one named with '9 secondaries'" in done.stderr
    assert [*tmp_path.iterdir()] == []


@pytest.mark.long
def test_one_case_of_a_benchmark(tmp_path):
    subprocess.run(
        [
            *(sys.executable, "-m", "benchmarks", "catch-up", "--case", "blobs"),
            *("--sizes", "smallest", "--directory", tmp_path, "--output", tmp_path),
        ],
        cwd=ROOT,
        check=True,
    )
    measured = json.loads((tmp_path / "results.json").read_text())
    assert [case["name"] for case in measured["cases"]] == ["fresh secondary, blobs"]


@pytest.mark.long
def test_all_benchmarks(tmp_path):
    results, drawing = tmp_path / "results.json", tmp_path / "drawing.svg"
    where = ["--directory", tmp_path, "--output", tmp_path]
    for arguments in (
        ["benchmarks", "--sizes", "smallest", *where],
        ["benchmarks.drawing", results, drawing],
        ["benchmarks.verify", "--megabytes", "1", "--rounds", "1", "--directory", tmp_path],
        [
            *("benchmarks.least", "--blobs", "2", "--size", "100000", "--rounds", "1"),
            *("--directory", tmp_path),
        ],
        [
            *("benchmarks.least_lag", "--commits", "5", "--rounds", "1"),
            *("--directory", tmp_path),
        ],
        [
            *("pytest", "-q", "-p", "no:cacheprovider", f"--basetemp={tmp_path / 'parts'}"),
            *("--benchmark-disable", "benchmarks/parts"),
        ],
    ):
        subprocess.run([sys.executable, "-m", *arguments], cwd=ROOT, check=True)
    measured = json.loads(results.read_text())
    for case in measured["cases"]:
        for medians in case["medians"].values():
            assert {*medians} == {figure["name"] for figure in case["figures"]}
            assert all(math.isfinite(value) for value in medians.values())
    assert {"socket-thread", "twisted-tcp", "zc.zrs"} <= {*measured["versions"]}
    assert drawing.read_text().startswith("<?xml")
