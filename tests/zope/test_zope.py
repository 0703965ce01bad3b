"""Zope on the configurations that docs/how-to/zope-plone.rst shows."""

from __future__ import annotations

import base64
import configparser
import contextlib
import os
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

_ROOT = Path(__file__).parents[2]
_BIN = _ROOT / ".venv-peers" / "zope" / "bin"
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

    def answer(self, path: str, method: str | None = None, /, **form: str) -> tuple[int, str]:
        """The status and the body of its response to a request, of a manager with a form."""
        request = urllib.request.Request(f"{self._url}{path}", method=method)
        if form:
            request.data = urllib.parse.urlencode(form).encode()
            secret = base64.b64encode(b"admin:secret").decode()
            request.add_header("Authorization", f"Basic {secret}")
        try:
            with urllib.request.urlopen(request, timeout=DEADLINE) as answer:
                return int(answer.status), answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def status(self, path: str, **form: str) -> int:
        return self.answer(path, **form)[0]

    def end(self) -> None:
        """Stop it. It does not close its databases, as the page says."""
        self.process.terminate()
        assert self.process.wait(DEADLINE) == -signal.SIGTERM
        assert "Closing" not in self.output

    def add(self, name: str) -> int:
        return self.status("/manage_addProduct/OFSP/manage_addFolder", id=name, title="")


@contextlib.contextmanager
def zope(instance: Path, conf: str) -> Iterator[Zope]:
    """An instance in a directory that `mkwsgiinstance` made, with another zope.conf.

    Modules in the directory `lib` of the instance can be imported.
    """
    (instance / "etc" / "zope.conf").write_text(conf)
    ini = instance / "etc" / "zope.ini"
    ini.write_text(ini.read_text().replace("port = 8080", "port = 0"))
    output = instance / "output"
    with output.open("wb") as file:
        process = subprocess.Popen(
            [program("runwsgi"), ini],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            env=os.environ | {"PYTHONPATH": os.pathsep.join([str(instance / "lib"), str(_ROOT)])},
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


def replicate_once(sock: Path, instance: Path) -> None:
    subprocess.run(
        [
            *(program("zrs"), "secondary", sock, instance / "var/Data.fs"),
            *("--blobs", instance / "var/blobs", "--until-caught-up", *QUIETLY),
        ],
        check=True,
        capture_output=True,
    )


@pytest.mark.long
def test_zope_and_a_zope_that_follows_it(directory: Path) -> None:
    """And swaps its role with it, as docs/how-to/swap-roles.rst says: each changes by a line."""
    old, new = directory / "old.sock", directory / "new.sock"
    one = make_instance(directory / "one")
    two = make_instance(directory / "two")
    # It brings a user to be made, where nothing can be.
    (two / "inituser").unlink()

    def primary_conf(instance: Path, listen: Path) -> str:
        return (
            _PAGE["zope-primary"].replace("/srv/zope", str(instance)).replace(":8100", str(listen))
        )

    def secondary_conf(instance: Path, listen: Path, follow: Path) -> str:
        lines = f"replicate-from {follow}\n    replicate-to {listen}"
        text = _PAGE["zope-secondary"].replace("replicate-from primary.example:8100", lines)
        return text.replace("/srv/zope", str(instance))

    with zope(one, primary_conf(one, old)) as primary:
        assert primary.status("/") == 200
        assert primary.add("first") == 200
        replicate_once(old, two)
        with zope(two, secondary_conf(two, new, old)) as secondary:
            assert secondary.status("/first") == 200
            assert secondary.status("/second") == 404
            assert primary.add("second") == 200
            wait_for(lambda: secondary.status("/second") == 200, "what was added")
            assert secondary.add("third") == 500
            assert "is a secondary: write to its primary" in secondary.output
            primary.end()
            wait_for(lambda: "Disconnected" in secondary.output, "the replica to notice")
            last = serve_until_connected(one, old)
            wait_for(lambda: last.search(secondary.output), "the same in the log of the replica")
            secondary.end()
    with (
        zope(two, primary_conf(two, new)) as primary,
        zope(one, secondary_conf(one, old, new)) as secondary,
    ):
        assert primary.add("third") == 200
        wait_for(lambda: secondary.status("/third") == 200, "what was added then")
        assert secondary.add("fourth") == 500


def serve_until_connected(instance: Path, listen: Path) -> re.Pattern[str]:
    """Serve its database until the replica is connected, and return what that logs at the end."""
    data = ["primary", instance / "var/Data.fs", "--blobs", instance / "var/blobs"]
    output = instance / "command"
    with (
        output.open("wb") as file,
        subprocess.Popen([program("zrs"), *data, "--listen", listen], stdout=file) as serving,
    ):
        wait_for(lambda: "start 0x" in output.read_text(), "the replica to connect")
        serving.send_signal(signal.SIGINT)
    stopped = re.search(r"Stopped serving .*; last is (\w+)", output.read_text())
    assert stopped is not None
    return re.compile(rf"Disconnected \(.*\); last is {stopped[1]}")


# An application that writes in requests that read and in logins, as Plone does, and a subscriber
# that writes too.
WRITING = """
from Products.Five.browser import BrowserView

class Visit(BrowserView):
    def __call__(self):
        self.context.number = getattr(self.context, "number", 0) + 1
        return f"visits: {self.context.number}"

class Login(Visit):
    def __call__(self):
        self.request.response.setCookie("session", self.request.form["name"], path="/")
        self.request.response.redirect("/first", lock=True)
        return Visit.__call__(self)

class Visits(BrowserView):
    def __call__(self):
        return 'visits: %d' % getattr(self.context, 'number', 0)

class Savepoint(BrowserView):
    def __call__(self):
        import transaction
        self.context.number = 1000
        transaction.savepoint()
        return "made a savepoint"

def late(event):
    if "late" in event.request.environ["QUERY_STRING"]:
        root = event.request["PARENTS"][-1]
        root.number = getattr(root, "number", 0) + 1
"""

SITE = """
<configure xmlns="http://namespaces.zope.org/zope"
           xmlns:browser="http://namespaces.zope.org/browser">
  <browser:page for="*" name="visit" class="writing.Visit" permission="zope.Public"/>
  <browser:page for="*" name="visits" class="writing.Visits" permission="zope.Public"/>
  <browser:page for="*" name="savepoint" class="writing.Savepoint" permission="zope.Public"/>
  <browser:page for="*" name="login" class="writing.Login" permission="zope.Public"/>
  <subscriber for="ZPublisher.interfaces.IPubBeforeCommit" handler="writing.late"/>
</configure>
"""


def install_application(instance: Path) -> None:
    (instance / "lib").mkdir()
    (instance / "lib" / "writing.py").write_text(WRITING)
    includes = instance / "etc" / "package-includes"
    includes.mkdir()
    (includes / "zrs_core-configure.zcml").write_text(_PAGE["replica-zcml"])
    # In the order of their names, so after the other one.
    (includes / "zzz-writing-configure.zcml").write_text(SITE.lstrip())


@pytest.mark.long
def test_requests_that_read_and_logins_may_write_on_a_replica(directory: Path) -> None:
    """With the same code and configuration on the primary, where nothing is dropped."""
    sock = directory / "zrs.sock"
    one = make_instance(directory / "one")
    two = make_instance(directory / "two")
    for each in one, two:
        install_application(each)
    (two / "inituser").unlink()
    primary_conf = _PAGE["zope-primary"].replace("/srv/zope", str(one))
    secondary_conf = _PAGE["zope-secondary"].replace("/srv/zope", str(two))
    with zope(one, primary_conf.replace(" :8100", f" {sock}")) as primary:
        assert primary.add("first") == 200
        assert primary.status("/manage_addProduct/OFSP/manage_addFile", id="file", title="") == 200
        assert primary.answer("/visit") == (200, "visits: 1")
        assert primary.answer("/file?late", "HEAD") == (200, "")
        assert primary.status("/login", name="me") == 200
        assert primary.answer("/visits") == (200, "visits: 3")
        replicate_once(sock, two)
        with zope(two, secondary_conf.replace(" primary.example:8100", f" {sock}")) as secondary:
            for _ in range(2):
                assert secondary.answer("/visit") == (200, "visits: 4")
                assert secondary.answer("/file?late", "HEAD") == (200, "")
                assert secondary.answer("/savepoint") == (200, "made a savepoint")
                assert secondary.status("/login", name="me") == 200
            assert secondary.answer("/visits") == (200, "visits: 3")
            assert "ReadOnlyError" not in secondary.output
            # A form cannot pass for a request that reads.
            assert secondary.answer("/visit", method="GET", REQUEST_METHOD="GET")[0] == 500
            assert secondary.add("second") == 500
            assert "is a secondary: write to its primary" in secondary.output


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
