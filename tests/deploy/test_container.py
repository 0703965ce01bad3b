"""The container file."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.cli.conftest import make_database
from tests.cli.test_serving import is_equal
from tests.conditions import DEADLINE, wait_for
from tests.documents.blocks import named_blocks

from . import DEPLOY
from .containerfile import build, instructions

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pytest brings it

CONTAINERFILE = DEPLOY / "Containerfile"
ROOT = DEPLOY.parent


def values(name: str) -> list[str]:
    return [each.value for each in instructions(CONTAINERFILE) if each.name == name]


def test_it_is_made_of_a_python_that_is_supported():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    versions = {each.rpartition(" :: ")[2] for each in project["classifiers"]}
    images = values("FROM")
    found = {re.match(r"python:(3\.\d+)-slim-\w+( AS \w+)?$", each)[1] for each in images}
    assert len(found) == 1
    assert found <= versions


def test_it_copies_what_is_there_and_the_rest_is_not_sent_to_the_engine():
    sources = {
        source
        for each in values("COPY")
        if not each.startswith("--from")
        for source in each.split()[:-1]
    }
    assert all((ROOT / each).exists() for each in sources)
    ignored = (DEPLOY / "Containerfile.dockerignore").read_text().splitlines()
    assert {each.removeprefix("!") for each in ignored if each.startswith("!")} == sources
    assert "*" in ignored


def test_it_installs_extras_that_there_are():
    [command] = values("RUN")[:1]
    [extras] = re.findall(r'"\.\[([\w,-]+)\]"', command)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {*extras.split(",")} <= {*project["optional-dependencies"]}


def test_it_does_not_run_as_root_and_signals_reach_the_command():
    assert values("USER") == ["10001:10001"]
    # Not by a shell, which would not pass them on.
    assert [each[0] for each in values("ENTRYPOINT") + values("CMD")] == ["[", "["]
    assert values("STOPSIGNAL") == ["SIGTERM"]


def documented_command(address: str, here: str) -> list[str]:
    """What docs/running.rst gives to the image, with another address."""
    shown = named_blocks("running.rst")["container"].replace("\\\n", " ")
    words = shlex.split(shown.splitlines()[-1])
    arguments = words[words.index("secondary") :]
    assert address in arguments
    return [here if each == address else each for each in arguments]


@pytest.mark.long
def test_its_steps_make_what_its_command_runs():
    directory = Path(tempfile.mkdtemp(prefix="zrs"))
    try:
        image = build(CONTAINERFILE, ROOT, directory)
        assert image.user == "10001:10001"
        [volume] = image.volumes
        with image.popen(image.command, stdout=subprocess.PIPE) as helped:
            assert b"Replicate ZODB databases" in helped.stdout.read()
        data = image.inside(volume)
        make_database(directory / "database").rename(data / "primary")
        served, followed = data / "served", data / "followed"
        address = "/data/zrs.sock"
        with served.open("wb") as output:
            primary = image.popen(
                [
                    *("primary", "/data/primary/Data.fs", "--blobs", "/data/primary/blobs"),
                    *("--listen", address),
                ],
                stdout=output,
            )
        assert not image.is_healthy()
        with followed.open("wb") as output:
            secondary = image.popen(
                [*documented_command("primary.example:8100", address), "--reconnect-delay", "0.2"],
                stdout=output,
            )
        try:
            wait_for(
                lambda: "Caught up" in followed.read_text() or secondary.poll() is not None,
                "the secondary to catch up",
            )
            assert image.is_healthy()
        finally:
            for each in (secondary, primary):
                each.terminate()
                assert each.wait(DEADLINE) == 0, served.read_text() + followed.read_text()
        assert is_equal(data / "primary", data / "db")
        with image.popen([], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as nothing:
            assert nothing.wait(DEADLINE) == 2
        # The other program that the image is for.
        image.entrypoint = ["runzeo"]
        with image.popen(["--help"], stdout=subprocess.PIPE) as helped:
            assert b"runzeo" in helped.stdout.read()
    finally:
        shutil.rmtree(directory)
