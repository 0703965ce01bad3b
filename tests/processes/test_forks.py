"""Storages that were opened before their process was forked, as by gunicorn with --preload."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from ZODB.MappingStorage import MappingStorage

from zrs_core.errors import UsedAfterFork
from zrs_core.storage.inherited import Inherited

ROOT = Path(__file__).parent.parent.parent
DEADLINE = 100.0

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")


def run(transport, directory, grace):
    # Threads and a fork make a warning from Python 3.12 on.
    command = [sys.executable, "-W", "ignore", "-m", "tests.processes.forking"]
    done = subprocess.run(
        [*command, transport, str(directory), str(grace)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    child, parent = map(json.loads, done.stdout.splitlines())
    assert "failed" not in child, child
    return child, parent, done.stderr


@pytest.mark.parametrize("transport", ["socket-thread", "twisted-tcp"])
def test_a_child_cannot_use_what_its_parent_has_opened(transport, tmp_path):
    child, parent, log = run(transport, tmp_path, 0)
    refused = "UsedAfterFork: s.fs was opened before this process was forked"
    assert child["state"] == "stopped"
    for key in "status", "read", "redirect", "pack":
        assert "Open storages after the fork" in child[key], key
    for key in "read", "redirect", "pack":
        assert child[key].startswith(refused), key
    for key in "read primary", "commit", "pack primary":
        assert child[key].startswith(refused.replace("s.fs", "p.fs")), key
    assert log.count("s.fs was opened before") == 1
    # Neither is the parent disturbed, nor does the child hold its connections open.
    assert child["sockets"] == []
    assert child["mine"] is True
    assert parent["unchanged"]
    assert parent["in use"], parent["locked"]
    assert parent["listens"]
    assert parent["replicates"]
    assert parent["connections"] == 1
    assert parent["value"] == 2


def test_a_child_may_read_on_for_a_moment(tmp_path):
    child, parent, _ = run("socket-thread", tmp_path, 60)
    assert child["read"] == child["read primary"] == 1
    assert child["commit"].startswith("UsedAfterFork")
    assert parent["unchanged"]
    assert parent["value"] == 2


def test_other_storages_are_refused_at_once():
    """Their connections to a database cannot be shared."""
    storage = Inherited(MappingStorage("mapping"))
    assert storage.getName() == "mapping"
    for call in storage.lastTransaction, storage.tpc_begin, storage.__len__:
        with pytest.raises(UsedAfterFork):
            call()
    with pytest.raises(AttributeError):
        storage.no_such_method  # noqa: B018
