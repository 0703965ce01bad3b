"""Imports go one way, and nobody imports what is not used."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import zrs_core

from .import_graph import between_parts, circle, imports_of, part_of, within

GRAPH = imports_of(Path(zrs_core.__file__).parent)
PARTS = between_parts(GRAPH)

# Modules for time, threads and networks.
OUTSIDE_WORLD = {"asyncio", "select", "selectors", "socket", "ssl", "threading", "time", "twisted"}

# The distributions that each part may import from, apart from Python's library and this package.
# Parts that are not listed import none.
THIRD_PARTIES = {
    "committing": {"ZODB"},
    "config": {"ZConfig", "ZODB"},
    "interfaces": {"zope"},
    "monitor": {"persistent", "prometheus_client", "zope"},
    "primary": {"persistent"},
    "secondary": {"ZODB"},
    "sessions": {"zope"},
    "status": {"persistent"},
    "storage": {"ZODB", "persistent", "zc", "zope"},
    "testing": {"hypothesis", "pytest", "trustme", "zope"},
    "tids": {"persistent"},
    "tools": {"ZConfig", "ZODB", "click", "persistent", "rich", "transaction", "zodburi", "zope"},
    "transports": {"twisted", "zope"},
    "visibility": {"ZODB"},
    "zope_replica": {"ZODB", "transaction"},
}


def modules_of(part: str) -> list[str]:
    return [name for name in GRAPH if part_of(name) == part]


def top_level(names: set[str]) -> set[str]:
    return {name.split(".")[0] for name in names}


def test_modules_import_each_other_in_no_circle():
    assert circle(within(GRAPH)) == []


def test_packages_import_each_other_in_no_circle():
    assert circle(PARTS) == []


def test_the_codec_needs_messages_and_errors_alone():
    assert PARTS["zrs_core.codec"] == {"zrs_core.errors", "zrs_core.messages"}


@pytest.mark.parametrize(
    ("part", "others"),
    [
        ("storage", {"monitor", "sessions", "transports"}),
        ("transports", {"codec", "sessions", "storage"}),
        ("sessions", {"monitor", "primary", "secondary", "storage", "transports"}),
        ("status", {"codec", "sessions", "storage", "transports"}),
    ],
)
def test_parts_do_not_import_what_others_do(part, others):
    assert not PARTS[f"zrs_core.{part}"] & {f"zrs_core.{each}" for each in others}


@pytest.mark.parametrize("top", ["testing", "tools"])
def test_no_part_imports_tools_or_what_is_for_tests(top):
    assert [name for name, found in PARTS.items() if f"zrs_core.{top}" in found] == []


# The parts without I/O, and what they may import of the outside world all the same.
@pytest.mark.parametrize(("part", "allowed"), [("codec", set()), ("sessions", {"ssl"})])
def test_pure_parts_import_neither_time_nor_threads_nor_networks(part, allowed):
    for name in modules_of(f"zrs_core.{part}"):
        assert not top_level(GRAPH[name]) & OUTSIDE_WORLD - allowed, name


@pytest.mark.parametrize("part", sorted(PARTS))
def test_each_part_imports_only_its_own_third_parties(part):
    allowed = THIRD_PARTIES.get(part.removeprefix("zrs_core."), set())
    for name in modules_of(part):
        others = top_level(GRAPH[name]) - sys.stdlib_module_names - {"zrs_core"}
        assert others <= allowed, name


REPLICATE = """
import sys, tempfile, time
from pathlib import Path
from ZODB import DB
from zrs_core import Primary, Secondary

with tempfile.TemporaryDirectory() as name:
    path = Path(name)
    primary = Primary(path / "p.fs", "127.0.0.1:0", transport="socket-thread")
    DB(primary)
    secondary = Secondary(path / "s.fs", primary.replication_address, transport="socket-thread")
    deadline = time.monotonic() + 60
    while secondary.lastTransaction() != primary.lastTransaction():
        assert time.monotonic() < deadline
        time.sleep(0.005)
    secondary.close()
    primary.close()
print([name for name in ("twisted",) if name in sys.modules])
"""


def test_replicating_over_socket_thread_needs_no_twisted():
    done = subprocess.run([sys.executable, "-c", REPLICATE], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import zrs_core", ["ZODB", "twisted", "click", "rich"]),
        (
            "import zrs_core; zrs_core.Primary, zrs_core.Secondary",
            ["twisted", "click", "rich", "http", "prometheus_client"],
        ),
        ("import zrs_core.transports.memory", ["twisted"]),
        ("import zrs_core.transports.socket_thread", ["twisted"]),
        ("import zrs_core.transports.twisted_tcp", ["twisted.internet.reactor"]),
        ("import zrs_core.config.zconfig, zrs_core.config.uri", ["ZODB", "twisted", "zodburi"]),
        ("import zrs_core.tools.cli.nagios", ["ZODB", "twisted", "click", "rich"]),
        ("import zrs_core.tools.cli.command", ["BTrees", "twisted", "ssl", "zrs_core.sessions"]),
        (
            "import zrs_core.tools.cli.command, zrs_core.tools.cli.verify",
            ["BTrees", "twisted", "zrs_core.sessions", "zrs_core.transports"],
        ),
        (
            "import zrs_core.testing, zrs_core.testing.seeds, zrs_core.testing.mutations",
            ["ZODB", "hypothesis", "pytest", "twisted"],
        ),
        ("import zrs_core.codec", ["ZODB", "persistent", "twisted", "socket", "asyncio"]),
    ],
)
def test_importing_brings_nothing_heavy(statement, absent):
    check = f"{statement}; import sys; print([name for name in {absent!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
