"""Imports go one way, and nobody imports what is not used."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import zrs_core

ROOT = Path(zrs_core.__file__).parent

# What a part of the package may import from the rest of it.
BASIS = {
    "errors",
    "messages",
    "addresses",
    "tids",
    "backoff",
    "forks",
    "texts",
    "held",
    "interfaces",
    "logs",
}
ALLOWED = {
    "errors": set(),
    "messages": {"errors"},
    "addresses": {"errors", "texts"},
    "texts": set(),
    "tids": {"messages"},
    "backoff": set(),
    "tls": {"addresses", "errors"},
    "forks": set(),
    "held": {"messages"},
    "resent": {"codec", "errors", "held", "messages"},
    "interfaces": {"addresses", "held", "messages", "tls"},
    "codec": {"errors", "messages"},
    "options": {"errors", "codec", "tls"},
    "progress": {"tids"},
    "logs": {"texts"},
    "reasons": set(),
    "refusals": {"logs", "reasons"},
    "settings": {"addresses", "errors", "options", "status", "texts", "transports"},
    "uri": {"errors", "settings", "status", "storage", "texts", "tls"},
    "zconfig": {
        *("addresses", "errors", "settings", "status", "storage", "tls", "transports"),
        "zeo_ready",
    },
    "zope_replica": {"logs"},
    "sessions": BASIS
    | {"codec", "options", "progress", "reasons", "refusals", "resent", "status", "visibility"},
    # What sessions and storages use of it knows neither of them.
    "status": {"messages", "progress", "texts", "tids"},
    "status.document": set(),
    "status.fetch": {"addresses", "errors", "transports"},
    "status.health": {"progress"},
    "status.zeo": {"errors"},
    "status.hosts": {"addresses", "errors", "transports"},
    "status.node": {"errors", "progress", "storage"},
    "status.nodes": {"addresses", "errors", "logs", "messages"},
    "status.options": {"addresses", "errors", "options"},
    "status.server": {"addresses", "errors", "forks", "logs", "refusals", "transports"},
    "transports": {"errors", "addresses", "forks", "interfaces", "logs", "refusals", "tls"},
    "storage": BASIS | {"visibility"},
    "visibility": {"messages"},
    "storage.history": BASIS | {"codec"},
    "storage.committing": BASIS | {"codec", "status"},
    "snapshots": BASIS
    | {"__version__", "options", "progress", "sessions", "storage", "transports", "verify"},
    "storage.primary": BASIS
    | {"storage", "options", "progress", "sessions", "status", "tls", "transports"},
    "verify": BASIS | {"codec", "sessions", "storage", "tls", "transports", "verify"},
    "storage.secondary": BASIS
    | {"storage", "options", "progress", "sessions", "status", "tls", "transports", "visibility"},
}
THIRD_PARTIES = {
    "codec": set(),
    "messages": set(),
    "errors": set(),
    "addresses": set(),
    "backoff": set(),
    "forks": set(),
    "texts": set(),
    "held": set(),
    "resent": set(),
    "tids": {"persistent"},
    "interfaces": {"zope"},
    "logs": set(),
    "options": set(),
    "progress": set(),
    "reasons": set(),
    "refusals": set(),
    "settings": set(),
    "uri": set(),
    "zconfig": {"ZConfig", "ZODB"},
    "zope_replica": {"ZODB", "transaction"},
    "sessions": {"zope"},
    "status": {"persistent", "prometheus_client"},
    "status.document": set(),
    "status.fetch": set(),
    "storage": {"ZODB", "persistent", "zope", "zc"},
    "snapshots": {"ZODB", "persistent", "zope"},
    "tls": set(),
    "verify": {"ZODB"},
    "visibility": {"ZODB"},
    "transports": {"twisted", "zope", "OpenSSL", "cryptography", "service_identity"},
}


def imports(path: Path) -> set[str]:
    """The absolute names of the modules that a file imports."""
    here = ("zrs_core", *path.relative_to(ROOT).with_suffix("").parts)
    if here[-1] == "__init__":
        here = (*here[:-1], "")
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(here[: -node.level]) if node.level else ""
            module = ".".join(filter(None, (base, node.module or "")))
            if node.level and not node.module:
                found |= {f"{module}.{alias.name}" for alias in node.names}
            else:
                found.add(module)
    return found


def modules(part: str) -> list[Path]:
    path = ROOT.joinpath(*part.split("."))
    return sorted(path.glob("*.py")) if path.is_dir() else [path.with_suffix(".py")]


@pytest.mark.parametrize("part", ALLOWED)
def test_imports_go_one_way(part):
    for path in modules(part):
        own = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        allowed = ALLOWED.get(own, ALLOWED[part]) | {part.split(".")[0]}
        for name in imports(path):
            if name.startswith("zrs_core."):
                assert name.split(".")[1] in allowed, f"{own} imports {name}"


@pytest.mark.parametrize("part", THIRD_PARTIES)
def test_each_part_knows_only_its_own_world(part):
    for path in modules(part):
        for name in imports(path):
            top = name.split(".")[0]
            if top not in sys.stdlib_module_names and top != "zrs_core":
                assert top in THIRD_PARTIES[part], f"{path.name} imports {name}"


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
print([name for name in ("twisted", "OpenSSL") if name in sys.modules])
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
        ("import zrs_core.transports.socket_thread", ["twisted", "OpenSSL"]),
        ("import zrs_core.transports.twisted_tcp", ["twisted.internet.reactor"]),
        ("import zrs_core.zconfig, zrs_core.uri", ["ZODB", "twisted", "zodburi"]),
        ("import zrs_core.cli.nagios", ["ZODB", "twisted", "click", "rich"]),
        ("import zrs_core.cli.command", ["BTrees", "twisted", "ssl", "zrs_core.sessions"]),
        (
            "import zrs_core.cli.command, zrs_core.cli.verify",
            ["BTrees", "twisted", "zrs_core.sessions", "zrs_core.transports"],
        ),
        ("import zrs_core.codec", ["ZODB", "persistent", "twisted", "socket", "asyncio"]),
    ],
)
def test_importing_brings_nothing_heavy(statement, absent):
    check = f"{statement}; import sys; print([name for name in {absent!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
