"""Every document is run: what it shows is what happens.

A document starts in an empty directory, at a time when the next commit falls on 2007-03-21 at
20:32:57 and each later one a second after the one before, so that the ids in it are always the
same. It must close what it opens.
"""

import contextlib
import doctest
import gc
import itertools
import logging
import os
import pathlib
import re
import shutil
import subprocess
import sys
import textwrap
import threading
import time
import types

import pytest
import transaction
import ZODB.BaseStorage
from zope.component import getGlobalSiteManager

ROOT = pathlib.Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.rst", *sorted((ROOT / "docs").rglob("*.rst"))]

# Where log lines are part of what is shown. Elsewhere threads write them, at any time.
LOG_SHOWN = {"primary.rst", "secondary.rst", "storages.rst"}

# Wed, 21 Mar 2007 20:32:56 UTC: a storage takes the time once when it is opened.
FIRST_SECOND = 1174509176


class ShownLog(logging.Handler):
    """Prints each record to what is the standard output then, a doctest's."""

    def emit(self, record):
        print(f"{record.levelname} {record.name}: {record.getMessage()}", file=sys.stdout)


@pytest.fixture
def log_shown():
    log, handler = logging.getLogger("zrs_core"), ShownLog(logging.INFO)
    level, propagate = log.level, log.propagate
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    yield handler
    log.removeHandler(handler)
    log.setLevel(level)
    log.propagate = propagate


@pytest.fixture
def still_clock(monkeypatch):
    """The time that storages make tids of: a second more at each look."""
    seconds = itertools.count(FIRST_SECOND)
    clock = types.SimpleNamespace(time=lambda: float(next(seconds)), gmtime=time.gmtime)
    monkeypatch.setattr(ZODB.BaseStorage, "time", clock)


@pytest.fixture
def registry_as_before():
    """Transports that a document registers are for that document."""
    registry = getGlobalSiteManager()
    before = {*registry.registeredAdapters()}
    yield
    for each in {*registry.registeredAdapters()} - before:
        registry.unregisterAdapter(each.factory, each.required, each.provided, each.name)


@pytest.fixture
def nothing_left_open(tmp_path):
    before = open_things(tmp_path)
    yield
    transaction.abort()
    gc.collect()
    assert open_things(tmp_path) == before


def open_things(directory):
    """The threads there are, and the sockets and the files in `directory` that are open."""
    files = []
    if sys.platform == "linux":
        for number in os.listdir("/proc/self/fd"):
            with contextlib.suppress(FileNotFoundError):  # the directory that was being listed
                files.append(os.readlink(f"/proc/self/fd/{number}"))
    return {*threading.enumerate()}, sorted(
        each for each in files if each.startswith((str(directory), "socket:"))
    )


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
@pytest.mark.usefixtures("nothing_left_open", "registry_as_before", "still_clock")
def test_document(path, tmp_path, monkeypatch, log_shown):
    if path.name not in LOG_SHOWN:
        log_shown.setLevel(logging.CRITICAL)
    monkeypatch.chdir(tmp_path)
    run_commands(path)
    document = doctest.DocTestParser().get_doctest(
        path.read_text(encoding="utf-8"), {"__name__": "__main__"}, path.name, str(path), 0
    )
    runner = doctest.DocTestRunner(optionflags=doctest.REPORT_NDIFF, verbose=False)
    report = []
    runner.run(document, out=report.append, clear_globs=False)
    try:
        assert not runner.failures, "".join(report)
    finally:
        if runner.failures:
            close_all(document.globs)
        document.globs.clear()


def run_commands(path):
    """What a document tells the reader to type into a shell."""
    text = path.read_text(encoding="utf-8")
    blocks = re.findall(r"^\.\. code-block:: sh\n\n((?:    .*\n|\n)+)", text, re.MULTILINE)
    if any("openssl" in block for block in blocks) and shutil.which("openssl") is None:
        pytest.skip("there is no openssl")
    for block in blocks:
        subprocess.run(["sh", "-e", "-c", textwrap.dedent(block)], check=True, capture_output=True)


def close_all(names):
    """A document that failed half-way has not come to where it closes what it opened."""
    for value in reversed(list(names.values())):
        with contextlib.suppress(Exception):
            value.close()


def test_the_tests_that_documents_name_are_there():
    found = []
    for path in DOCUMENTS:
        for file, names in re.findall(
            r"``((?:tests|zrs_core)/[\w/]+\.py)((?:::\w+)*)``", path.read_text("utf-8")
        ):
            found.append(file)
            text = (ROOT / file).read_text(encoding="utf-8")
            for depth, name in enumerate(names.split("::")[1:]):
                defined = rf"^{' ' * 4 * depth}(?:def|class) {name}\b"
                assert re.search(defined, text, re.MULTILINE), f"{file}{names}"
    assert found


def test_all_documents_are_listed():
    """Once each, in the table of contents."""
    listed = []
    for tree in re.findall(r"^\.\. toctree::\n((?: .*\n|\n)+)", text_of("index.rst"), re.MULTILINE):
        listed += re.findall(r"^   ([\w/-]+)$", tree, re.MULTILINE)
    pages = {str(path.relative_to(ROOT / "docs").with_suffix("")) for path in DOCUMENTS[1:]}
    assert sorted(listed) == sorted(pages - {"index"})


def text_of(page):
    return (ROOT / "docs" / page).read_text(encoding="utf-8")
