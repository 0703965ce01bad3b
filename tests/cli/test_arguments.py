"""Arguments that cannot work: one line, exit status 2, nothing written."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest
from click.testing import CliRunner

from tests.cli.conftest import make_database, snapshot_of
from tests.databases import open_file_storage
from tests.storage.files import GARBAGE
from zrs_core import __version__
from zrs_core.errors import ConfigurationError
from zrs_core.storage.fs_format import FIRST_OFFSET
from zrs_core.storage.snapshot import open_snapshot
from zrs_core.tools.cli.command import zrs


@pytest.mark.parametrize("address", ["localhost", "localhost:http", "localhost:99999", "::1:80"])
@pytest.mark.parametrize(
    "command", ["secondary {} Data.fs --blobs blobs", "primary {data} --listen {}"]
)
def test_an_address_that_does_not_parse(invoke, tmp_path, command, address):
    if "{data}" in command:
        make_database(tmp_path / "database", commits=1)
    arguments = command.format(address, data=tmp_path / "database" / "Data.fs").split()
    line = invoke(*arguments)
    assert line.startswith(f"zrs: invalid address '{address}': ")


@pytest.mark.parametrize("transport", ["pigeon", ""])
def test_a_transport_that_does_not_exist(invoke, tmp_path, transport):
    expected = f"zrs: unknown transport {transport!r}; the known ones are "
    arguments = ("secondary", "localhost:1", "Data.fs", "--blobs", "blobs")
    assert invoke(*arguments, "--transport", transport).startswith(expected)
    make_database(tmp_path / "database", commits=1)
    before = snapshot_of(tmp_path / "database")
    arguments = ("primary", tmp_path / "database" / "Data.fs", "--listen", ":0")
    assert invoke(*arguments, "--transport", transport).startswith(expected)
    assert snapshot_of(tmp_path / "database") == before


def test_the_transport_of_one_process(invoke, tmp_path):
    expected = "zrs: the transport 'memory' works within one process alone"
    for arguments in (
        ("secondary", "localhost:1", "Data.fs"),
        ("primary", "Data.fs", "--listen", ":0"),
    ):
        assert invoke(*arguments, "--transport", "memory").startswith(expected)


@pytest.mark.parametrize(
    "command", ["secondary localhost:1 {}", "primary {} --listen :0", "demo --source {}"]
)
def test_a_path_that_is_no_file_storage(invoke, tmp_path, command):
    text = tmp_path / "text"
    text.write_text("no database")
    line = invoke(*command.format(text).split())
    assert line.startswith(f"zrs: {text} is not a FileStorage: it begins with b'no d'")
    line = invoke(*command.format(tmp_path).split())
    assert line == f"zrs: {tmp_path} is a directory: the path of a FileStorage is needed"
    line = invoke(*command.format("nowhere/Data.fs").split())
    assert line.startswith("zrs: nowhere/Data.fs cannot be made: there is no directory ")
    assert text.read_text() == "no database"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("text")] == ["text"]


@pytest.mark.parametrize("begin", GARBAGE)
@pytest.mark.parametrize(
    "command", ["secondary localhost:1 {}", "primary {} --listen :0", "demo --source {}"]
)
def test_a_path_that_only_begins_like_a_file_storage(invoke, tmp_path, command, begin):
    path = tmp_path / "Data.fs"
    path.write_bytes(begin)
    line = invoke(*command.format(path).split())
    assert line == f"zrs: {path} is not a FileStorage: no transaction follows its magic"
    assert path.read_bytes() == begin
    assert [each for each in tmp_path.iterdir() if each.name.startswith("Data")] == [path]


@pytest.mark.parametrize("command", ["primary {} --listen :0", "demo --source {}"])
def test_a_source_that_is_not_there(invoke, command):
    assert invoke(*command.format("Data.fs").split()) == "zrs: there is no FileStorage at Data.fs"


@pytest.mark.parametrize("command", ["primary {} --listen :0", "demo --source {}"])
def test_blobs_that_are_not_there(invoke, tmp_path, command):
    make_database(tmp_path / "database", commits=1, blobs=False)
    arguments = command.format(tmp_path / "database" / "Data.fs").split()
    line = invoke(*arguments, "--blobs", "blobs")
    assert line.startswith("zrs: there is no directory of blobs at blobs")


def test_blobs_that_are_no_directory(invoke, tmp_path):
    (tmp_path / "file").touch()
    line = invoke("secondary", "localhost:1", "Data.fs", "--blobs", tmp_path / "file")
    assert line == f"zrs: {tmp_path / 'file'} is not a directory: it cannot be a blob_dir"


@pytest.mark.parametrize("command", ["primary {} --listen :0", "secondary localhost:1 {}"])
def test_a_database_in_use(invoke, database, command):
    storage = open_file_storage(database)
    try:
        line = invoke(*command.format(database / "Data.fs").split())
    finally:
        storage.close()
    assert line == f"zrs: {database / 'Data.fs'} is in use: another process has it open"


def test_a_port_in_use(invoke, database):
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        line = invoke("primary", database / "Data.fs", "--listen", address)
    assert line.startswith(f"zrs: cannot listen on {address}: ")
    assert "in use" in line


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("primary", "Missing argument 'STORAGE'. See 'zrs primary --help'."),
        ("primary Data.fs", "Missing option '--listen'. See 'zrs primary --help'."),
        ("secondary localhost:1", "Missing argument 'STORAGE'. See 'zrs secondary --help'."),
        (
            "secondary localhost:1 Data.fs --reconnect-delay soon",
            "Invalid value for '--reconnect-delay': 'soon' is neither a number of seconds nor two "
            "of them, as in '0.5,60'. See 'zrs secondary --help'.",
        ),
        *(
            (
                f"secondary localhost:1 Data.fs --reconnect-delay {value}",
                f"Invalid value for '--reconnect-delay': '{value}' is neither a number of seconds "
                "nor two of them, as in '0.5,60'. See 'zrs secondary --help'.",
            )
            for value in ("inf", "nan", "1,inf", "nan,1", "1,2,3")
        ),
        *(
            (
                f"secondary localhost:1 Data.fs --quiet {value}",
                f"Invalid value for '--quiet': {value} is no number of seconds. "
                "See 'zrs secondary --help'.",
            )
            for value in ("inf", "nan")
        ),
        (
            "secondary localhost:1 Data.fs --max-compared-size all",
            "Invalid value for '--max-compared-size': 'all': it is no whole number. "
            "See 'zrs secondary --help'.",
        ),
        (
            "secondary localhost:1 Data.fs --reconnect-delay 2,1",
            "reconnect_delay must be a number of seconds above 0, or a shorter and a longer one, "
            "not (2.0, 1.0)",
        ),
        (
            "primary {data} --listen :0 --max-peers 0",
            "max_peers must be a number of connections, 1 to 1000000, not 0",
        ),
        (
            "primary {data} --listen :0 --handshake-timeout 0",
            "handshake_timeout must be 0.01 to 36000 seconds, not 0.0",
        ),
        (
            "primary {data} --listen :0 --write-timeout nan",
            "write_timeout must be 0.01 to 36000 seconds, not nan",
        ),
        (
            "primary {data} --listen :0 --peer-timeout 1",
            "peer_timeout must be 2 to 36000 seconds, not 1.0",
        ),
        (
            "secondary localhost:1 Data.fs --peer-timeout 1",
            "peer_timeout must be 2 to 36000 seconds, not 1.0",
        ),
        ("demo --blobs blobs", "--blobs belongs to --source: give both. See 'zrs demo --help'."),
        ("replicate", "No such command 'replicate'. See 'zrs --help'."),
    ],
)
def test_arguments_that_are_not_understood(invoke, database, arguments, expected):
    assert invoke(*arguments.format(data=database / "Data.fs").split()) == f"zrs: {expected}"


def test_a_primary_that_requires_tls_and_has_none(invoke, database):
    line = invoke("primary", database / "Data.fs", "--listen", ":0", "--require-tls")
    assert line.startswith("zrs: :0 can be reached from other machines, and there is no TLS: ")


@pytest.mark.parametrize(
    ("end", "arguments", "arrive"),
    [
        (
            "Primary",
            "primary {data} --listen :0 --max-peers 3 --handshake-timeout 4 --write-timeout 5 "
            "--peer-timeout 6 --close-timeout 8 --require-tls",
            {
                "max_peers": 3,
                "handshake_timeout": 4,
                "write_timeout": 5,
                "peer_timeout": 6,
                "close_timeout": 8,
                "require_tls": True,
            },
        ),
        ("Secondary", "secondary localhost:1 Data.fs --peer-timeout 7", {"peer_timeout": 7}),
    ],
)
def test_limits_arrive(invoke, database, monkeypatch, end, arguments, arrive):
    def opened(storage, address, **options):
        assert arrive.items() <= options.items()
        raise ConfigurationError("they did")

    monkeypatch.setattr(f"zrs_core.tools.cli.serving.{end}", opened)
    assert invoke(*arguments.format(data=database / "Data.fs").split()) == "zrs: they did"


def test_a_quiet_time_of_nothing(invoke):
    line = invoke("secondary", "localhost:1", "Data.fs", "--quiet", "0")
    assert line.startswith("zrs: Invalid value for '--quiet': ")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("--tls-certificate nowhere", "certificate nowhere cannot be read: No such file"),
        ("--tls-ca nowhere", "ca nowhere cannot be read: No such file"),
        ("--tls-key nowhere", "key nowhere needs the certificate that it belongs to"),
        ("--tls-certificate {} --tls-key nowhere", "key nowhere cannot be read: No such file"),
        ("--tls-certificate {}", "certificate {} and key {} cannot be used: "),
        ("--tls-ca {}", "ca {} holds no certificate that can be used: "),
    ],
)
@pytest.mark.parametrize("command", ["secondary localhost:1 Data.fs", "primary {} --listen :0"])
def test_tls_files_that_cannot_be_used(invoke, database, command, options, expected):
    path = database / "Data.fs"
    line = invoke(*command.format(path).split(), *options.format(path).split())
    assert line.startswith(f"zrs: {expected.replace('{}', str(path))}")


@pytest.mark.parametrize("option", ["--tls-name localhost"])
def test_a_primary_that_speaks_tls_without_a_certificate(invoke, database, option):
    line = invoke("primary", database / "Data.fs", "--listen", ":0", *option.split())
    assert line == "zrs: a primary that speaks TLS needs a certificate and its key"


def test_other_failures_have_another_status(invoke, database):
    path = database / "Data.fs"
    file = open_snapshot(path)
    second = file.header(FIRST_OFFSET).next
    file.close()
    with path.open("r+b") as data:
        data.seek(second + 16)
        data.write(b"x")
    line = invoke("demo", "--source", path, status=1, stdout=f"Copying {path}\n")
    assert line == f"zrs: {path} is damaged: there is no transaction at {second}"


@pytest.mark.parametrize("command", ["", "primary", "secondary"])
def test_help_tells_the_exit_statuses(command):
    result = CliRunner().invoke(zrs, [*command.split(), "--help"])
    assert result.exit_code == 0
    text = " ".join(result.output.split())
    assert "Exit status: 0 when done or stopped by SIGINT, SIGTERM or SIGHUP, 1 when it ran" in text


def test_version():
    assert CliRunner().invoke(zrs, ["--version"]).output == f"zrs, version {__version__}\n"


@pytest.mark.parametrize("missing", ["click", "rich"])
def test_without_the_extra(missing):
    code = (
        f"import sys; sys.modules[{missing!r}] = None\nfrom zrs_core.tools.cli import main\nmain()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == (
        f'zrs: {missing} is missing, which comes with the extra cli: pip install "zrs-core[cli]"\n'
    )


def test_another_module_that_is_missing_is_a_mistake_of_its_own():
    code = "import sys; sys.modules['ZODB'] = None\nfrom zrs_core.tools.cli import main\nmain()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert "ModuleNotFoundError" in done.stderr
