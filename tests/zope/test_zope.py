"""Zope on the configurations that docs/how-to/zope-plone.rst shows."""

from __future__ import annotations

import base64
import configparser
import contextlib
import re
import shutil
import signal
import subprocess
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import ZODB.config
from ZODB.interfaces import IBlobStorage

from zrs_core import Primary

from ..cli.conftest import QUIETLY
from ..conditions import DEADLINE, wait_for
from ..documents.blocks import named_blocks

_BIN = Path(__file__).parents[2] / ".venv-peers" / "zope" / "bin"
_PAGE = named_blocks("how-to/zope-plone.rst")


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory whose path is short enough for a Unix socket."""
    path = Path(tempfile.mkdtemp(prefix="zrs"))
    yield path
    shutil.rmtree(path)


def program(name: str) -> str:
    path = _BIN / name
    if not path.exists():
        raise FileNotFoundError(f"{path} is not there: `make peers` installs it")
    return str(path)


class Zope:
    """A running instance."""

    def __init__(self, process: subprocess.Popen[bytes], output: Path) -> None:
        self.process = process
        self._output = output
        self._url = ""

    @property
    def output(self) -> str:
        return self._output.read_text(errors="replace")

    def started(self) -> bool:
        found = re.search(r"Serving on (http://\S+)", self.output)
        if found:
            self._url = found[1]
        assert self.process.poll() is None, self.output
        return found is not None

    def status(self, path: str, **form: str) -> int:
        """What it answers to a request, of a manager with a form."""
        request = urllib.request.Request(f"{self._url}{path}")
        if form:
            request.data = urllib.parse.urlencode(form).encode()
            secret = base64.b64encode(b"admin:secret").decode()
            request.add_header("Authorization", f"Basic {secret}")
        try:
            with urllib.request.urlopen(request, timeout=DEADLINE) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            with error:
                return error.code

    def add(self, name: str) -> int:
        return self.status("/manage_addProduct/OFSP/manage_addFolder", id=name, title="")


@contextlib.contextmanager
def zope(instance: Path, conf: str) -> Iterator[Zope]:
    """An instance in a directory that `mkwsgiinstance` made, with another zope.conf."""
    (instance / "etc" / "zope.conf").write_text(conf)
    ini = instance / "etc" / "zope.ini"
    ini.write_text(ini.read_text().replace("port = 8080", "port = 0"))
    output = instance / "output"
    with output.open("wb") as file:
        process = subprocess.Popen(
            [program("runwsgi"), ini], stdin=subprocess.DEVNULL, stdout=file, stderr=file
        )
    try:
        it = Zope(process, output)
        wait_for(it.started, "Zope to serve")
        yield it
    finally:
        process.kill()
        process.wait()


def make_instance(path: Path) -> Path:
    arguments = ["--dir", path, "--user", "admin:secret"]
    subprocess.run([program("mkwsgiinstance"), *arguments], check=True, capture_output=True)
    return path


@pytest.mark.long
def test_zope_and_a_zope_that_follows_it(directory: Path) -> None:
    sock = directory / "zrs.sock"
    one = make_instance(directory / "one")
    primary_conf = _PAGE["zope-primary"].replace("/srv/zope", str(one))
    two = make_instance(directory / "two")
    secondary_conf = _PAGE["zope-secondary"].replace("/srv/zope", str(two))
    # It brings a user to be made, where nothing can be.
    (two / "inituser").unlink()
    with zope(one, primary_conf.replace(" :8100", f" {sock}")) as primary:
        assert primary.status("/") == 200
        assert primary.add("first") == 200
        subprocess.run(
            [
                *(program("zrs"), "secondary", sock, two / "var/Data.fs"),
                *("--blobs", two / "var/blobs", "--until-caught-up", *QUIETLY),
            ],
            check=True,
            capture_output=True,
        )
        with zope(two, secondary_conf.replace(" primary.example:8100", f" {sock}")) as secondary:
            assert secondary.status("/first") == 200
            assert secondary.status("/second") == 404
            assert primary.add("second") == 200
            wait_for(lambda: secondary.status("/second") == 200, "what was added")
            assert secondary.add("third") == 500
            assert "is a secondary: write to its primary" in secondary.output
            for each in (secondary, primary):
                each.process.terminate()
                # It does not close its databases, as the page says.
                assert each.process.wait(DEADLINE) == -signal.SIGTERM
                assert "Closing" not in each.output


def test_the_wrapper_that_a_buildout_gives_to_the_recipe(tmp_path: Path) -> None:
    """What the recipe makes of it: the import, and the wrapper around its own storage."""
    buildout = configparser.ConfigParser(interpolation=None)
    buildout.read_string(_PAGE["buildout-instance"])
    instance = buildout["instance"]
    storage = f"""
        <blobstorage>
          blob-dir {tmp_path}/blobstorage
          <filestorage>
            path {tmp_path}/Data.fs
          </filestorage>
        </blobstorage>
    """
    text = f"%import {instance['zope-conf-imports']}\n{instance['storage-wrapper'] % storage}"
    opened = ZODB.config.storageFromString(text.replace(" :8100", f" {tmp_path}/zrs.sock"))
    with contextlib.closing(opened):
        assert isinstance(opened, Primary)
        assert IBlobStorage.providedBy(opened)
