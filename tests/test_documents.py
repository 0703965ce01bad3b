"""Every document is run: what it shows is what happens.

A document starts in an empty directory, at a time when the next commit falls on 2007-03-21 at
20:32:57 and each later one a second after the one before, so that the ids in it are always the
same. It must close what it opens.
"""

import contextlib
import doctest
import functools
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
import zodburi
from ZODB import DB
from ZODB.blob import Blob
from ZODB.FileStorage import FileStorage
from zope.component import getGlobalSiteManager

from tests.documents.blocks import Block, Examples, steps_of
from tests.documents.configurations import read_configuration
from tests.documents.here import Here
from tests.documents.terminal import Terminal

ROOT = pathlib.Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.rst", *sorted((ROOT / "docs").rglob("*.rst"))]

# Begins with nothing but Python and the source, and installs what it needs.
TUTORIAL = ROOT / "docs" / "tutorial.rst"

# Those in which several processes are begun, one after the other.
LONG = {
    "backups.rst",
    "moving-house.rst",
    "primary-lost.rst",
    "replica.rst",
    "swap-roles.rst",
    "watch.rst",
}

# What this file does not try, by its page and its first line or the begin of that, and who does.
ELSEWHERE = {
    ("README.rst", "make demo"): "tests/cli/test_demo.py",
    ("README.rst", "make test"): ".ci/run",
    ("README.rst", "make docs"): ".ci/run",
    ("README.rst", "make soak HOURS=8"): "tests/test_soak.py",
    ("README.rst", "Generating a database"): "tests/cli/test_demo.py",
    ("compatibility.rst", "$ .venv-peers/..."): "tests/interop/test_faults.py",
    ("compatibility.rst", "storage = RelStorage(..."): "tests/documents/test_relstorage_faults.py",
    ("watch.rst", ":8201: lag 1.012 s"): "tests/cli/test_watching.py",
    (
        "compatibility.rst",
        "class StorageStopIteration(...",
    ): "tests/documents/test_relstorage_faults.py",
    ("compatibility.rst", "TypeError: RelStorage..."): "tests/documents/test_relstorage_faults.py",
    ("configuration.rst", "[project.entry-points..."): "tests/test_registry.py",
    ("dump.rst", "zrs dump ..."): "tests/cli/test_dump.py",
    ("garbage.rst", "pip install ..."): "tests/zeo/test_garbage.py",
    ("garbage.rst", "zrs status ..."): "tests/zeo/test_garbage.py",
    ("logs.rst", "<eventlog>"): "tests/test_logs.py",
    ("moving-house.rst", "zrs primary ..."): "tests/cli/test_moving.py",
    ("moving-house.rst", "zrs secondary ..."): "tests/cli/test_moving.py",
    ("moving-house.rst", "Stopped serving ..."): "tests/cli/test_moving.py",
    ("protocol.rst", "secondary ..."): "tests/codec/test_machine.py",
    ("running.rst", "useradd ..."): "tests/deploy/test_units.py",
    ("running.rst", "install -D ..."): "tests/deploy/test_units.py",
    ("running.rst", "docker build ..."): "tests/deploy/test_container.py",
    ("running.rst", "zrs secondary ..."): "tests/cli/test_restoring.py",
    ("swap-roles.rst", "zrs log ..."): "tests/zeo/test_swapping.py",
    ("swap-roles.rst", "zrs primary ..."): "tests/zope/test_zope.py",
    ("transports.rst", "ERROR zrs_core.primary: refused ..."): "tests/test_refusal_log.py",
    ("zeo.rst", "%import zrs_core"): "tests/zeo/test_documented.py",
    ("zeo.rst", "<zeoclient>"): "tests/zeo/test_documented.py",
    ("zope-plone.rst", "pip install ..."): "tests/zope/test_zope.py",
    ("zope-plone.rst", "%define INSTANCE ..."): "tests/zope/test_zope.py",
    ("zope-plone.rst", "zrs secondary ..."): "tests/zope/test_zope.py",
    ("zope-plone.rst", "<configure xmlns=..."): "tests/zope/test_zope.py",
    ("zope-plone.rst", "[instance]"): "tests/zope/test_zope.py",
    ("zope-plone.rst", "[zeoserver]"): "tests/zope/test_zope.py",
    ("fuzz.rst", "pip install ..."): "tests/fuzz/test_seeds.py",
    ("fuzz.rst", "examples/fuzz_follower.py ..."): "tests/test_examples.py",
    ("own-server.rst", "python examples/asyncio_server.py ..."): "tests/test_examples.py",
}

# Languages of which all is run or, of a configuration, read. A block with a caption is a file that
# is written, for what follows it.
RUN = {"console", "sh", "zconfig"}

# What a file has to be to be quoted: text.
QUOTED = {"", ".py", ".toml", ".zcml", ".service", ".conf", ".yml", ".sh", ".env"}

# Where log lines are part of what is shown. Elsewhere threads write them, at any time.
LOG_SHOWN = {"primary.rst", "secondary.rst", "storages.rst"}

# Wed, 21 Mar 2007 20:32:56 UTC: a storage takes the time once when it is opened.
FIRST_SECOND = 1174509176


class ShownLog(logging.Handler):
    """Prints each record to what is the standard output then, a doctest's."""

    def emit(self, record):
        print(f"{record.levelname} {record.name}: {record.getMessage()}", file=sys.stdout)


@pytest.fixture(scope="session")
def database(tmp_path_factory):
    """What an administrator has in /var/zodb before he comes to the documents."""
    path = tmp_path_factory.mktemp("database")
    blobs = path / "blobs"
    with contextlib.closing(DB(FileStorage(str(path / "Data.fs"), blob_dir=str(blobs)))) as db:
        for name, value in ("title", "a title"), ("picture", Blob(b"a picture")):
            with db.transaction() as connection:
                connection.root()[name] = value
    return path


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


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(each, marks=[pytest.mark.long] * (each.name in LONG))
        for each in DOCUMENTS
        if each != TUTORIAL
    ],
    ids=lambda path: str(path.relative_to(ROOT)),
)
@pytest.mark.usefixtures("nothing_left_open", "registry_as_before", "still_clock")
def test_document(path, tmp_path, monkeypatch, log_shown, database):
    if path.name not in LOG_SHOWN:
        log_shown.setLevel(logging.CRITICAL)
    monkeypatch.chdir(tmp_path)
    if "/var/zodb/Data.fs" in path.read_text(encoding="utf-8"):
        shutil.copytree(database, tmp_path / "var" / "zodb")
    # The commands of this environment.
    binaries = pathlib.Path(sys.executable).parent
    Reader(path, tmp_path, f"{binaries}{os.pathsep}{os.environ['PATH']}").follow()


@pytest.mark.long
@pytest.mark.timeout(900)
def test_the_tutorial(tmp_path):
    """Typed word for word: nothing of it is replaced."""
    source = tmp_path / "source"
    shutil.copytree(ROOT / "zrs_core", source / "zrs_core")
    for name in "pyproject.toml", "README.rst", "LICENSE":
        shutil.copyfile(ROOT / name, source / name)
    for each in steps_of(TUTORIAL):
        assert isinstance(each, Block)
        assert Here(tmp_path / "unused")(each.text) == each.text
    binaries = tmp_path / "bin"
    binaries.mkdir()
    (binaries / "python3").symlink_to(sys._base_executable)
    Reader(TUTORIAL, source, f"{binaries}{os.pathsep}{outside_of_this_environment()}").follow()


def outside_of_this_environment():
    """What `PATH` has but the commands of the environment of the tests."""
    ours = pathlib.Path(sys.executable).parent
    return os.pathsep.join(
        each for each in os.environ["PATH"].split(os.pathsep) if pathlib.Path(each) != ours
    )


class Reader:
    """Does what a document shows, in its order, in a directory.

    :param binaries: the `PATH` of its terminals.
    """

    def __init__(self, path, directory, binaries):
        self._path, self._directory, self._binaries = path, directory, binaries
        self._here = Here(directory)
        self._globs = {"__name__": "__main__"}
        self._terminals = {}

    def follow(self):
        with contextlib.ExitStack() as self._open:
            for step in steps_of(self._path):
                if isinstance(step, Examples):
                    self._run_examples(step)
                else:
                    self._try(step)
            for terminal in self._terminals.values():
                terminal.finish()
            self._globs.clear()

    def _try(self, block):
        text = self._here(block.text)
        if block.language == "console":
            self._terminal(block.caption).follow(text)
        elif block.language == "sh" and not block.caption:
            # Names in certificates stay what they are.
            self._run_commands(block.text)
        elif is_uris(block):
            for uri in text.splitlines():
                zodburi.resolve_uri(uri)
        elif block.caption:
            (self._directory / self._here(block.caption)).write_text(text, encoding="utf-8")
        if block.language == "zconfig":
            read_configuration(text, self._directory)

    def _terminal(self, name):
        if name not in self._terminals:
            terminal = Terminal(self._directory, self._binaries)
            self._terminals[name] = self._open.enter_context(terminal)
        return self._terminals[name]

    def _run_commands(self, text):
        if "openssl" in text and shutil.which("openssl") is None:
            assert not os.environ.get("CI"), "there is no openssl"
            pytest.skip("there is no openssl")
        run = subprocess.run(["sh", "-e", "-c", text], capture_output=True, text=True)
        assert run.returncode == 0, f"{text}\n{run.stdout}{run.stderr}"

    def _run_examples(self, step):
        test = doctest.DocTest(
            step.examples, self._globs, self._path.name, str(self._path), 0, None
        )
        # They go on with the names of those before them, and leave theirs to those behind.
        test.globs = self._globs
        runner = doctest.DocTestRunner(optionflags=doctest.REPORT_NDIFF, verbose=False)
        report = []
        runner.run(test, out=report.append, clear_globs=False)
        if runner.failures:
            close_all(self._globs)
            self._globs.clear()
        assert not runner.failures, "".join(report)


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


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_is_not_run_is_quoted_or_tried_elsewhere(path):
    for block in steps_of(path):
        if isinstance(block, Block) and not (
            block.language in RUN or is_uris(block) or is_quoted(block) or is_file(path, block)
        ):
            place = f"{path.name}, line {block.line}: {block.first_line}"
            assert tried_elsewhere(path, block) is not None, place


def test_who_tries_what_is_there():
    blocks = {
        (path.name, tried_elsewhere(path, step))
        for path in DOCUMENTS
        for step in steps_of(path)
        if isinstance(step, Block)
    }
    for (page, line), file in ELSEWHERE.items():
        assert (page, line) in blocks
        assert (ROOT / file).exists()


def is_file(path, block):
    """Whether something that is typed uses it."""
    name = pathlib.Path(block.caption).name
    typed = [each.text for each in steps_of(path) if getattr(each, "language", "") == "console"]
    return bool(name) and any(name in text for text in typed)


def is_uris(block):
    return all(line.startswith("zrs://") for line in block.text.splitlines())


def is_quoted(block):
    """Whether it is from a file that is tried as a whole."""
    indented = [textwrap.indent(block.text, " " * depth) for depth in range(0, 24, 2)]
    return any(each in text for each in indented for text in texts_to_quote())


@functools.cache
def texts_to_quote():
    """What of this repository is no document and no test: examples, and what is deployed."""
    files = [ROOT / "tests" / "test_example_transport.py"]
    for directory in "examples", "deploy":
        files += (
            path
            for path in (ROOT / directory).rglob("*")
            if path.suffix in QUOTED and path.is_file()
        )
    return [path.read_text(encoding="utf-8") for path in files]


def tried_elsewhere(path, block):
    """The line of `ELSEWHERE`, None if there is none."""
    for page, line in ELSEWHERE:
        begin = line.removesuffix("...")
        matches = block.first_line.startswith(begin) if begin != line else block.first_line == line
        if page == path.name and matches:
            return line
    return None
