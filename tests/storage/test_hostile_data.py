"""What stands in a database is nobody's code: neither end loads a record or an extension."""

from __future__ import annotations

import os
import pickle
import struct
import sys

import pytest
from ZODB.Connection import TransactionMetaData
from ZODB.utils import z64

from ..databases import contents, open_file_storage


class Call:
    """Pickled, a call."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def blob_class():
    return pickle.dumps(Call(__import__, "ZODB.blob"), 3)


HOSTILE = {
    "a canary": lambda canary: Call(os.mkdir, str(canary)),
    "an exit": lambda canary: Call(sys.exit, 1),
    "an end of the process": lambda canary: Call(os._exit, 1),
}


@pytest.mark.parametrize("protocol", [1, 3])
@pytest.mark.parametrize("what", HOSTILE)
def test_nothing_is_called(
    what, protocol, open_primary, open_secondary, network, database, tmp_path
):
    canary = tmp_path / "canary"
    hostile = pickle.dumps(HOSTILE[what](canary), protocol)
    extension = pickle.dumps({"a": HOSTILE[what](canary)}, protocol)
    primary = open_primary(pickle_protocol=protocol)
    database(primary)
    metadata = TransactionMetaData(b"", b"", extension)
    primary.tpc_begin(metadata)
    for data in (hostile, blob_class() + hostile, hostile * 2):
        primary.store(primary.new_oid(), z64, data, "", metadata)
    primary.tpc_vote(metadata)
    primary.tpc_finish(metadata)
    secondary = open_secondary()
    network.run()
    assert raw(secondary) == raw(primary)
    # Once more, compared.
    network.cut()
    network.advance(1)
    network.run()
    assert secondary.progress.state == "replicating"
    assert not canary.exists()


def raw(storage):
    return [
        (each.tid, each.extension_bytes, [(record.oid, record.data) for record in each])
        for each in storage.iterator()
    ]


@pytest.mark.parametrize("stopped", ["unfinished", "zeros"])
def test_a_secondary_that_was_killed_loses_nothing(
    stopped, open_primary, open_secondary, network, database, tmp_path
):
    """FileStorage would name what it has cut off as its last transaction, or none at all."""
    db = database(open_primary())
    secondary = open_secondary()
    with db.transaction() as connection:
        connection.root()["one"] = 1
    network.run()
    secondary.close()
    with db.transaction() as connection:
        connection.root()["two"] = 2
    newest = db.storage.lastTransaction()
    path = tmp_path / "secondary" / "Data.fs"
    tail = struct.pack(">8sQcHHH", newest, 1000, b"c", 0, 0, 0) + bytes(2000)
    with path.open("ab") as file:
        file.write(tail if stopped == "unfinished" else bytes(4096))
    os.remove(path.with_name("Data.fs.index"))
    secondary = open_secondary(open_file_storage(tmp_path / "secondary"))
    network.run()
    assert contents(secondary) == contents(db.storage)
