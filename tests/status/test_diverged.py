"""Two that were written to by turns: what their log, their status and the command say."""

from __future__ import annotations

import json
import shutil

import pytest
from click.testing import CliRunner
from ZODB import DB

from tests.conditions import wait_for
from zrs_core import Primary, Secondary
from zrs_core.monitor import StatusServer
from zrs_core.progress import Divergence, State
from zrs_core.tids import describe_tid
from zrs_core.tools.cli.command import zrs


def put(db, key):
    with db.transaction() as connection:
        connection.root()[key] = 1
    return db.storage.lastTransaction()


@pytest.fixture(params=["socket-thread", "twisted-tcp"])
def pair(request, tmp_path, closing):
    """A primary and a secondary with 3 and 2 transactions of their own, and the last of both."""
    old, new = tmp_path / "old.fs", tmp_path / "new.fs"
    db = DB(str(old))
    put(db, "common")
    common = put(db, "common too")
    db.close()
    shutil.copy(old, new)
    mine, theirs = DB(str(old)), DB(str(new))
    for number in range(2):
        put(mine, f"old-{number}"), put(theirs, f"new-{number}")
    put(theirs, "new-2")
    mine.close()
    theirs.close()
    # Opened anew, a primary remembers none of its commits.
    primary = closing(Primary(new, "127.0.0.1:0", transport=request.param))
    address = primary.replication_address
    options = {"transport": request.param, "reconnect_delay": 0.02}
    secondary = closing(Secondary(old, address, **options))
    wait_for(lambda: secondary.progress.failure is not None, "a failure")
    return primary, secondary, common


def test_the_last_common_transaction_is_named(pair, closing, caplog):
    primary, secondary, common = pair
    assert secondary.progress.state is State.DIVERGED
    assert secondary.progress.divergence == Divergence(common, 2)
    assert f"the last transaction that both hold is {describe_tid(common)}" in (
        secondary.progress.failure
    )
    logged = caplog.get_records("setup") + caplog.records
    [record] = [each for each in logged if each.event == "diverged"]
    assert (record.common, record.count) == (f"0x{common.hex()}", 2)

    servers = [closing(StatusServer(each, "127.0.0.1:0")) for each in (primary, secondary)]
    addresses = [str(each.address) for each in servers]
    shown = CliRunner().invoke(zrs, ["status", *addresses])
    assert shown.exit_code == 1
    text = " ".join(shown.stdout.split())
    assert (
        f"{addresses[1]} has diverged from {addresses[0]}: the last transaction of both is "
        f"{describe_tid(common)}; on the primary alone: 3 tx, on the secondary alone: 2 tx"
    ) in text
    assert "is behind" not in text
    said = json.loads(CliRunner().invoke(zrs, ["status", "--json", *addresses]).stdout)
    [distance] = said["distances"]
    assert distance["diverged"] == {"common": f"0x{common.hex()}", "primary": 3, "secondary": 2}
    assert distance["transactions"] is None
    status = said["nodes"][1]["status"]["secondary"]
    assert (status["state"], status["divergence"]["transactions"]) == ("diverged", 2)
    assert status["divergence"]["common"]["tid"] == f"0x{common.hex()}"


def test_it_is_searched_for_once(pair):
    _, secondary, common = pair
    client, connections = secondary._client, secondary.progress.connections
    wait_for(lambda: secondary.progress.connections >= connections + 4, "more attempts")
    assert secondary.progress.divergence == Divergence(common, 2)
    assert client._search is None
    assert secondary.progress.transactions == 0


def test_another_primary_ends_it(pair, closing, tmp_path):
    _, secondary, _ = pair
    shutil.copy(tmp_path / "old.fs", tmp_path / "right.fs")
    right = closing(Primary(tmp_path / "right.fs", "127.0.0.1:0", transport="socket-thread"))
    secondary.setReplicationAddress(right.replication_address)
    assert secondary.progress.divergence is None
    db = closing(DB(right))
    put(db, "more")
    wait_for(lambda: secondary.lastTransaction() == right.lastTransaction(), "the rest")
    assert secondary.progress.state is State.REPLICATING


def test_stopping_while_it_is_searched_for(tmp_path, closing):
    db = DB(str(tmp_path / "old.fs"))
    for number in range(40):
        put(db, str(number))
    db.close()
    other = DB(str(tmp_path / "new.fs"))
    other.close()
    primary = closing(Primary(tmp_path / "new.fs", "127.0.0.1:0", transport="socket-thread"))
    options = {"transport": "socket-thread", "reconnect_delay": 0.02}
    secondary = closing(Secondary(tmp_path / "old.fs", primary.replication_address, **options))
    wait_for(lambda: secondary.progress.searching, "the search")
    secondary.close()
    assert secondary.progress.transactions == 0
