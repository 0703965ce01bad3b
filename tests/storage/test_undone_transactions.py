"""Iteration over transactions with status `u`, whose records are void."""

from __future__ import annotations

from contextlib import closing

import pytest
from click.testing import CliRunner
from zc.zlibstorage import ZlibStorage
from ZODB.blob import BlobStorage
from ZODB.DB import DB
from ZODB.interfaces import IStorageIteration
from zope.interface.verify import verifyObject

from zrs_core.storage.fs_format import FIRST_OFFSET, TRANSACTION_HEADER
from zrs_core.storage.opening import open_path
from zrs_core.tools.cli.command import zrs

from ..databases import open_file_storage


def fill(path, statuses):
    """A FileStorage with transactions that have these statuses, each with a record."""
    storage = open_file_storage(path, blobs=False)
    with closing(DB(storage)) as db:
        for number in range(len(statuses) - 1):
            with db.transaction() as connection:
                connection.root()["number"] = number
        tids = [each.tid for each in storage.iterator()]
        name = storage.getName()
    # As old versions did: the status is changed in place.
    with open(name, "r+b") as file:
        pos = FIRST_OFFSET
        for status in statuses:
            file.seek(pos)
            _, length, *_ = TRANSACTION_HEADER.unpack(file.read(TRANSACTION_HEADER.size))
            file.seek(pos + 16)
            file.write(status.encode())
            pos += length + 8
    return tids


def left(tids, statuses):
    return [tid for tid, status in zip(tids, statuses, strict=True) if status != "u"]


@pytest.fixture(params=["  u", " u ", " uu u", "  uuu", "u  "])
def statuses(request):
    return request.param


def without_index(path):
    (path / "Data.fs.index").unlink()
    return open_file_storage(path, blobs=False)


def with_blobs(path):
    return BlobStorage(str(path / "blobs"), open_file_storage(path, blobs=False))


def compressed(path):
    return ZlibStorage(open_file_storage(path, blobs=False))


@pytest.mark.parametrize("opened", [without_index, with_blobs, compressed])
def test_a_primary_skips_them(opened, statuses, open_primary, tmp_path):
    tids = fill(tmp_path / "db", statuses)
    primary = open_primary(opened(tmp_path / "db"))
    found = left(tids, statuses)
    assert [each.tid for each in primary.iterator()] == found
    for start in tids:
        assert [each.tid for each in primary.iterator(start)] == [t for t in found if t >= start]
        assert [each.tid for each in primary.iterator(None, start)] == [
            t for t in found if t <= start
        ]
    for count in range(1, len(tids) + 2):
        expected = [each for each in tids[-count:] if each in found]
        assert [each for each, _ in primary.lastInvalidations(count)] == expected
    assert verifyObject(IStorageIteration, primary)


def test_a_secondary_skips_them(statuses, open_primary, open_secondary, network, tmp_path):
    tids = fill(tmp_path / "primary", statuses)
    primary = open_primary(open_file_storage(tmp_path / "primary", blobs=False))
    secondary = open_secondary()
    network.run()
    # They are replicated, without their records.
    assert secondary.lastTransaction() == primary.lastTransaction() == tids[-1]
    assert [each.tid for each in secondary.iterator()] == left(tids, statuses)
    invalidated = [each for each, _ in secondary.lastInvalidations(100)]
    assert invalidated == left(tids, statuses)
    # After a restart the last one is compared.
    secondary.close()
    again = open_secondary()
    network.run()
    assert again.lastTransaction() == tids[-1]
    assert not again.progress.failure


def test_a_path_that_is_opened(statuses, tmp_path):
    tids = fill(tmp_path / "db", statuses)
    storage, _ = open_path(str(tmp_path / "db" / "Data.fs"), None)
    with closing(storage):
        assert [each.tid for each in storage.iterator()] == left(tids, statuses)


def test_what_is_damaged_ends_it_as_before(tmp_path):
    tids = fill(tmp_path / "db", "  u")
    storage, _ = open_path(str(tmp_path / "db" / "Data.fs"), None)
    with closing(storage):
        iterator = storage.iterator()
        assert next(iterator).tid == tids[0]
        with open(storage.getName(), "r+b") as file:
            file.seek(-8, 2)
            file.write(b"\0" * 8)
        assert next(iterator).tid == tids[1]
        with pytest.raises((StopIteration, UnboundLocalError)):
            next(iterator)


def test_zrs_verify_does_not_compare_void_records(
    statuses, open_primary, open_secondary, network, tmp_path
):
    """A secondary has none."""
    fill(tmp_path / "primary", statuses)
    primary = open_primary(open_file_storage(tmp_path / "primary", blobs=False))
    secondary = open_secondary(open_file_storage(tmp_path / "secondary", blobs=False))
    network.run()
    paths = [primary.getName(), secondary.getName()]
    secondary.close()
    primary.close()
    result = CliRunner().invoke(zrs, ["verify", *paths])
    assert result.exit_code == 0, result.output
