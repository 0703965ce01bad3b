"""The example of a transport, as if its project were installed."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from zope.component import getGlobalSiteManager

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pytest brings it

THIRD_PARTY = Path(__file__).parent.parent / "examples" / "third_party_transport"


@contextlib.contextmanager
def installed_example(site: Path) -> Iterator[None]:
    """Importable, and with its entry points, which are written to the directory `site`."""
    project = tomllib.loads((THIRD_PARTY / "pyproject.toml").read_text())["project"]
    metadata = site / f"zrs_asyncio-{project['version']}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    lines = []
    for group, entries in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {value}" for name, value in entries.items())]
    (metadata / "entry_points.txt").write_text("\n".join(lines))
    registry = getGlobalSiteManager()
    before = {*registry.registeredAdapters()}
    threads = {*threading.enumerate()}
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(site))
        patch.syspath_prepend(str(THIRD_PARTY))
        yield
    assert {*threading.enumerate()} <= threads
    for each in {*registry.registeredAdapters()} - before:
        registry.unregisterAdapter(each.factory, each.required, each.provided, each.name)
