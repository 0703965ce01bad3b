"""A secondary's storage that somebody else writes to."""

from __future__ import annotations

import pytest
from ZODB.Connection import TransactionMetaData
from ZODB.utils import p64, z64

from zrs_core.errors import WrittenToByOthers
from zrs_core.messages import Commit, Store, Transaction
from zrs_core.storage.fs_sink import FileStorageSink, file_storage_sink

from ..databases import Traffic, contents, open_file_storage

FIRST, SECOND = p64(1 << 40), p64(2 << 40)


@pytest.fixture
def storage(tmp_path):
    storage = open_file_storage(tmp_path / "db")
    yield storage
    storage.close()


@pytest.fixture(params=["one by one", "appending"])
def make_sink(request):
    def no_invalidation(tid, oids):
        pass

    if request.param == "one by one":
        return lambda storage: FileStorageSink(storage, no_invalidation)
    return lambda storage: file_storage_sink(storage, no_invalidation, "batch")


def apply(sink, tid):
    for message in (Transaction(tid), Store(z64, tid, b"record"), Commit()):
        sink.apply(message)
    sink.flush()


def refused(sink, tid):
    with pytest.raises(WrittenToByOthers, match="did not come by this replication"):
        sink.apply(Transaction(tid))
    sink.abort()


def test_two_sinks_write_nothing_twice(storage, make_sink):
    one, other = make_sink(storage), make_sink(storage)
    apply(one, FIRST)
    refused(other, FIRST)
    apply(one, SECOND)
    refused(other, FIRST)
    assert [each.tid for each in contents(storage)] == [FIRST, SECOND]


def test_a_commit_of_somebody_else_ends_it(storage, make_sink):
    sink = make_sink(storage)
    apply(sink, FIRST)
    metadata = TransactionMetaData()
    storage.tpc_begin(metadata)
    storage.store(storage.new_oid(), z64, b"mine", "", metadata)
    storage.tpc_vote(metadata)
    mine = storage.tpc_finish(metadata)
    refused(sink, SECOND)
    assert [each.tid for each in contents(storage)] == [FIRST, mine]


def test_two_secondaries_over_one_storage(
    open_primary, open_secondary, database, network, storage, caplog
):
    primary = open_primary()
    commits = Traffic(database(primary))
    commits.commit(3)
    one, other = open_secondary(storage), open_secondary(storage)
    network.run()
    commits.commit(3)
    network.advance(5)
    network.run()
    commits.close()
    assert contents(storage) == contents(primary)
    assert sum(each.progress.transactions for each in (one, other)) == 7
    assert "nobody else may write to it" in caplog.text
