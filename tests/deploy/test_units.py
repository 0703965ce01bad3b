"""The units of systemd."""

from __future__ import annotations

import contextlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import QUIETLY, make_database
from tests.conditions import DEADLINE, wait_for
from tests.databases import blob_files, stored
from tests.status.http import get
from zrs_core.addresses import UnixAddress
from zrs_core.options import DEFAULT_CLOSE_TIMEOUT
from zrs_core.tools.cli.output import Misconfigured
from zrs_core.tools.cli.statuses import STATUSES

from . import tool
from .units import SERVERS, SYSTEMD, UNITS, Service, environment, settings

_INSTALL = ".ci/install-systemd installs it"


@pytest.fixture
def directory():
    """A directory whose path is short enough for a Unix socket."""
    path = Path(tempfile.mkdtemp(prefix="zrs"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def installed(tmp_path):
    """The units where `systemd-analyze` finds them, each with an instance, and what they start."""
    units = shutil.copytree(SYSTEMD, tmp_path / "units")
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("zrs", "runzeo"):
        (programs / name).symlink_to(shutil.which(name, path=Path(sys.executable).parent))
    for name in UNITS:
        path = units / name
        path.write_text(path.read_text().replace("/opt/zrs/bin", str(programs)))
        shutil.copy(path, units / name.replace("@", "@main"))
    return units


@pytest.mark.parametrize("name", UNITS)
def test_systemd_understands_a_unit(installed, name):
    analyze = tool("systemd-analyze", _INSTALL)
    done = subprocess.run(
        [analyze, "verify", "--man=no", installed / name.replace("@", "@main")],
        capture_output=True,
        text=True,
    )
    # A key that it does not know is but a line.
    said = [line for line in done.stderr.splitlines() if str(installed) in line]
    assert (done.returncode, said) == (0, []), done.stderr


@pytest.mark.parametrize("name", UNITS)
def test_a_unit_is_exposed_to_little(installed, name):
    """By systemd's own measure, from 0 to 10, of which it calls less than 2 good."""
    analyze = tool("systemd-analyze", _INSTALL)
    done = subprocess.run(
        [
            *(analyze, "security", "--offline=yes", "--no-pager", "--threshold=20"),
            installed / name.replace("@", "@main"),
        ],
        capture_output=True,
        text=True,
        env={"SYSTEMD_UNIT_PATH": f"{installed}:"},
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", SERVERS)
def test_a_unit_waits_for_those_who_catch_up_and_does_not_repeat_what_cannot_work(name):
    unit = settings((SYSTEMD / name).read_text())
    assert float(unit["TimeoutStopSec"][0]) > DEFAULT_CLOSE_TIMEOUT
    assert unit["RestartPreventExitStatus"] == [str(Misconfigured.exit_code)]
    assert Misconfigured.exit_code in STATUSES


@pytest.mark.long
def test_a_primary_and_its_secondary(directory):
    at = {side: make_or_not(directory / side) for side in ("primary", "secondary")}
    variables = {
        side: {
            key: re.sub(
                r"--status :\d+",
                f"--status {directory}/{side}.status",
                value.replace("/var/lib/zrs/main/db", str(at[side])),
            )
            for key, value in environment(SYSTEMD / f"{side}.env").items()
        }
        for side in at
    }
    variables["primary"]["LISTEN"] = str(directory / "zrs.sock")
    variables["secondary"]["PRIMARY"] = str(directory / "zrs.sock")
    variables["secondary"]["OPTIONS"] += " " + " ".join(QUIETLY)
    with (
        Service("zrs-primary@.service", at["primary"], variables["primary"]) as primary,
        Service("zrs-secondary@.service", at["secondary"], variables["secondary"]) as secondary,
    ):
        assert primary.started()
        assert secondary.started()
        for side in at:
            where = UnixAddress(f"{directory}/{side}.status")
            wait_for(lambda where=where: get(where, "/readyz").status == 200, side)
        wait_for(lambda: "Caught up" in secondary.output, "the secondary to catch up")
        assert secondary.stop() == 0
        assert primary.stop() == 0
    assert stored(at["primary"]) == stored(at["secondary"])
    assert blob_files(at["primary"] / "blobs") == blob_files(at["secondary"] / "blobs")


def make_or_not(path: Path) -> Path:
    if path.name == "primary":
        return make_database(path)
    path.mkdir()
    return path


@pytest.mark.long
def test_what_cannot_work_is_not_started_again(directory):
    variables = environment(SYSTEMD / "primary.env")
    variables["STORAGE"] = str(directory / "nowhere.fs")
    with Service("zrs-primary@.service", directory, variables) as service:
        assert not service.started()
        assert not service.restarts(service.process.wait())
        assert "nowhere.fs" in service.output


@pytest.mark.long
def test_what_failed_or_was_killed_is_started_again(directory):
    with Service("zrs-secondary@.service", directory, variables_of_nobody(directory)) as service:
        assert service.started()
        service.process.kill()
        assert service.restarts(service.process.wait())
        assert not service.restarts(0)


def variables_of_nobody(directory: Path) -> dict[str, str]:
    return {"PRIMARY": str(directory / "nobody.sock"), "STORAGE": str(directory / "Data.fs")}


@pytest.mark.long
def test_a_zeo_server(directory):
    conf = directory / "main.conf"
    conf.write_text(
        f"""
        %import zrs_core
        <zeo>
          address {directory}/zeo.sock
        </zeo>
        <zrs 1>
          replicate-to {directory}/zrs.sock
          <filestorage>
            path {directory}/Data.fs
          </filestorage>
        </zrs>
        """
    )
    paths = {"/etc/zrs/%i.conf": str(conf)}
    with Service("zrs-zeo@.service", directory, {}, paths) as service:
        assert service.started(), service.output
        assert (directory / "zrs.sock").exists(), service.output
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(DEADLINE)
            client.connect(str(directory / "zeo.sock"))
            assert client.recv(4) == b"\0\0\0\2"
        assert service.stop() == 0
    # Its storages can be opened, but it cannot listen.
    conf.write_text(conf.read_text().replace("zeo.sock", "missing/zeo.sock"))
    with Service("zrs-zeo@.service", directory, {}, paths) as service:
        assert not service.started()
        assert service.process.wait() != 0
        assert "Opening" in service.output
    conf.write_text("<zeo>\n</zeo>\n")
    with Service("zrs-zeo@.service", directory, {}, paths) as service:
        assert not service.restarts(service.process.wait())


def test_what_the_page_tells_to_copy_is_there():
    root = SYSTEMD.parents[1]
    text = (root / "docs" / "running.rst").read_text(encoding="utf-8")
    found = set(re.findall(r"deploy/[\w/.*-]+\w", text))
    assert "deploy/systemd/secondary.env" in found
    assert all([*root.glob(each)] for each in found)


@pytest.mark.long
def test_the_commands_need_no_system_call_that_the_units_forbid(directory):
    data = make_database(directory / "data")
    sock = directory / "zrs.sock"
    calls = [directory / "primary.calls", directory / "secondary.calls"]
    with (
        traced(
            calls[0],
            *("primary", data / "Data.fs", "--blobs", data / "blobs", "--listen", sock),
            *("--status", "127.0.0.1:0"),
        ) as primary,
        traced(
            calls[1],
            *("secondary", sock, directory / "Copy.fs", "--blobs", directory / "copied"),
            *("--until-caught-up", *QUIETLY, "--reconnect-delay", "0.1"),
            *("--status", "127.0.0.1:0"),
        ) as secondary,
    ):
        assert secondary.wait(DEADLINE) == 0
        primary.terminate()
        assert primary.wait(DEADLINE) == 0
        for each, process in zip(calls, (primary, secondary), strict=True):
            # strace fills up a number of less than five digits.
            end = re.compile(rf"^{process.pid} +\+\+\+ exited with 0 \+\+\+$", re.MULTILINE)
            wait_for(lambda: end.search(each.read_text()), f"the end of {each}")  # noqa: B023
    used = {
        call
        for each in calls
        for call in re.findall(r"^\d+ +(\w+)\(", each.read_text(), re.MULTILINE)
    }
    allowed, forbidden = permitted_calls()
    assert "openat" in used
    assert used <= allowed
    assert not used & forbidden


@contextlib.contextmanager
def traced(calls: Path, *arguments: object) -> Iterator[subprocess.Popen[bytes]]:
    """The command, with its system calls written to `calls`."""
    strace = tool("strace", ".ci/install-strace installs it")
    process = subprocess.Popen(
        # The command is our child, and strace its: signals reach it.
        [
            strace,
            "-D",
            "-f",
            "-q",
            "-o",
            calls,
            sys.executable,
            "-m",
            "zrs_core.tools.cli",
            *arguments,
        ],
        stdout=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def permitted_calls() -> tuple[set[str], set[str]]:
    """What the lines of SystemCallFilter allow, and what they take from that."""
    hardening = settings((SYSTEMD / "zrs-.service.d" / "hardening.conf").read_text())
    allow, deny = hardening["SystemCallFilter"]
    forbidden = deny.removeprefix("~").split()
    return (
        {call for name in allow.split() for call in calls_of(name)},
        {call for name in forbidden for call in calls_of(name)},
    )


def calls_of(group: str) -> set[str]:
    """The system calls of a group of systemd's, and of the groups in it."""
    analyze = tool("systemd-analyze", _INSTALL)
    done = subprocess.run(
        [analyze, "syscall-filter", "--no-pager", group], capture_output=True, text=True, check=True
    )
    names = [line.strip() for line in done.stdout.splitlines()[1:]]
    calls: set[str] = set()
    for name in names:
        if name.startswith("@"):
            calls |= calls_of(name)
        elif name and not name.startswith("#"):
            calls.add(name)
    return calls


@pytest.mark.parametrize("side", ["primary", "secondary"])
def test_the_environments_serve_their_status(side):
    text = (SYSTEMD / f"{side}.env").read_text()
    assert re.search(r"^OPTIONS=.* --status :\d+$", text, re.M)
    # As the page shows them.
    page = (SYSTEMD.parents[1] / "docs" / "running.rst").read_text(encoding="utf-8")
    for line in text.splitlines():
        assert line.startswith("#") or f"\n    {line}\n" in page


@pytest.mark.parametrize("name", SERVERS)
def test_servers_report_that_they_are_ready(name):
    unit = settings((SYSTEMD / name).read_text())
    assert unit["Type"] == ["notify"]
    assert unit["TimeoutStartSec"] == ["infinity"]
