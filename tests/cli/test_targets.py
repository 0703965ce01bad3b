"""Storages by a configuration or a URI: what opens, and one line for each that does not."""

from __future__ import annotations

import os
import sys

import pytest
from click.testing import CliRunner
from zc.zlibstorage import ZlibStorage
from ZODB.FileStorage import FileStorage

from tests.cli.conftest import QUIETLY
from tests.cli.test_serving import is_equal, serve
from tests.databases import open_file_storage, traffic
from zrs_core.errors import ConfigurationError
from zrs_core.tools.cli.command import zrs as command
from zrs_core.tools.cli.targets import Target

ONE = "<filestorage>\n  path Data.fs\n  blob-dir blobs\n</filestorage>\n"
TWO = (
    ONE.replace("<filestorage", "<filestorage Main") + "<mappingstorage other>\n</mappingstorage>\n"
)


@pytest.fixture
def write(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write_it(text, name="storage.conf"):
        (tmp_path / name).write_text(text)
        return name

    return write_it


def opened(text):
    storage = Target(text).open()
    storage.close()
    return type(storage)


@pytest.mark.parametrize("text", ["Data.fs", "a/b", "", "Data#1.fs", "conf", "no.conf/Data.fs"])
def test_a_path(text):
    target = Target(text)
    assert target.path == target.open() == str(target) == text


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (ONE, "storage.conf"),
        (ONE, "storage.zconfig"),
        ("# a comment\n" + ONE, "storage"),
        ("\n\n%define here .\n" + ONE, "storage"),
        (ONE, "with#mark.conf"),
    ],
)
def test_a_configuration(write, text, name):
    target = Target(write(text, name))
    assert target.path is None
    assert str(target) == name
    assert opened(name) is FileStorage


def test_a_section_of_several(write):
    write(TWO)
    for name in ("storage.conf#main", "storage.conf#MAIN"):
        assert opened(name) is FileStorage


def test_a_wrapper(write):
    write(f"%import zc.zlibstorage\n<zlibstorage>\n{ONE}</zlibstorage>\n")
    assert opened("storage.conf") is ZlibStorage


def test_a_uri(write, tmp_path):
    assert opened(f"file://{tmp_path}/Data.fs") is FileStorage


@pytest.mark.parametrize(
    ("text", "name", "error"),
    [
        ("", "", "storage.conf: there is no storage section in it"),
        (
            TWO,
            "",
            "storage.conf: there are 2 storage sections in it, main, other: choose one by "
            "storage.conf#NAME",
        ),
        (TWO, "#third", "storage.conf: there is no storage section third in it, but main, other"),
        (ONE, "#one", "storage.conf: there is no storage section one in it, but one without a nam"),
        (
            "<filestorage>\n  path Data.fs\n  blobs there\n</filestorage>",
            "",
            "storage.conf, line 3: 'blobs' is not a known key name",
        ),
        (
            "<filestorage>\n</filestorage>",
            "",
            "storage.conf, line 2: no values for 'path'; 1 requi",
        ),
        ("<filestorage>\n", "", "storage.conf, line 1: unclosed sections not allowed"),
        ("<postgres>\n</postgres>", "", "storage.conf, line 1: unknown type name: 'postgres'"),
        ("key value", "", "storage.conf, line 1: 'key' is not a known key name"),
        (
            ONE.replace("path", "quota 1x\n path"),
            "",
            "storage.conf, line 2: invalid literal for int() with base 10: '1x'",
        ),
        (
            "%import no_such_package\n",
            "",
            "storage.conf: could not load package no_such_package: No module named",
        ),
        ("%include other.conf", "", "/{here}/other.conf, line 2: 'key' is not a known key name"),
        ("\0", "", "storage.conf, line 1: "),
        (
            f"%import zrs_core\n<zrs>\n  replicate-to nowhere\n{ONE}</zrs>\n",
            "",
            "storage.conf, line 3: replicate-to nowhere: invalid address 'nowhere'",
        ),
    ],
)
def test_a_configuration_that_cannot_work(write, tmp_path, text, name, error):
    write("\nkey value", "other.conf")
    write(text)
    with pytest.raises(ConfigurationError) as caught:
        Target("storage.conf" + name)
    assert str(caught.value).startswith(error.replace("/{here}", str(tmp_path)))
    assert "\n" not in str(caught.value)


def test_a_configuration_that_cannot_be_read(write, tmp_path):
    for name, error in (
        ("none.conf", "none.conf cannot be read: No such file or directory"),
        ("none.conf#main", "none.conf cannot be read: No such file or directory"),
    ):
        write("")
        with pytest.raises(ConfigurationError) as caught:
            Target(name)
        assert str(caught.value) == error
    (tmp_path / "a.conf").mkdir()
    with pytest.raises(ConfigurationError, match=r"a\.conf cannot be read: Is a directory"):
        Target("a.conf")
    (tmp_path / "b.conf").write_bytes(b"\xff")
    with pytest.raises(ConfigurationError, match=r"b\.conf is no text in UTF-8"):
        Target("b.conf")


@pytest.mark.parametrize(
    ("uri", "error"),
    [
        ("pigeon://home", "pigeon://home: No resolver found for uri: pigeon://home"),
        ("zrs://a", "zrs://a: the path of a FileStorage is missing"),
        ("zconfig://", "zconfig://: "),
    ],
)
def test_a_uri_that_cannot_work(uri, error):
    with pytest.raises(ConfigurationError) as caught:
        Target(uri)
    assert str(caught.value).startswith(error)
    assert "\n" not in str(caught.value)


def test_a_uri_without_zodburi(monkeypatch):
    monkeypatch.setitem(sys.modules, "zodburi", None)
    with pytest.raises(ConfigurationError, match="zodburi is missing, which comes with the extra"):
        Target("file:///Data.fs")


def test_a_password_is_not_shown():
    target = Target("sqlite://someone:secret@host/?data_dir=/nowhere")
    assert str(target) == "sqlite://someone:***@host/?data_dir=/nowhere"


def test_a_storage_that_cannot_be_opened(write):
    target = Target(write(ONE))
    using = FileStorage("Data.fs")
    with pytest.raises(ConfigurationError) as caught:
        target.open()
    assert str(caught.value) == "storage.conf cannot be opened: Couldn't lock 'Data.fs.lock'"
    using.close()


@pytest.mark.parametrize(
    "arguments", ["secondary localhost:1 {}", "primary {} --listen 127.0.0.1:0"]
)
def test_the_command_says_it_in_a_line(invoke, tmp_path, arguments):
    path = tmp_path / "relstorage.conf"
    path.write_text(
        "%import relstorage\n<relstorage>\n  <postgresql>\n"
        f"    dsn host={tmp_path} dbname=none\n  </postgresql>\n</relstorage>\n"
    )
    line = invoke(*arguments.format(path).split())
    assert line.startswith(f"zrs: {path} cannot be opened: connection to server on socket ")
    path.write_text("<mappingstorage>\n</mappingstorag>\n")
    line = invoke(*arguments.format(path).split())
    assert line == f"zrs: {path}, line 2: unbalanced section end"


def test_the_command_refuses_what_does_not_restore(invoke, tmp_path):
    path = tmp_path / "storage.conf"
    path.write_text("<mappingstorage>\n  name memory\n</mappingstorage>\n")
    line = invoke("secondary", "localhost:1", path)
    assert line == (
        "zrs: memory (MappingStorage) cannot be replicated into: it does not provide "
        "IStorageRestoreable"
    )


def test_blobs_belong_to_the_configuration(invoke, tmp_path):
    path = tmp_path / "storage.conf"
    path.write_text(
        f"<filestorage>\n path {tmp_path}/Data.fs\n blob-dir {tmp_path}/b\n</filestorage>"
    )
    line = invoke("secondary", "localhost:1", path, "--blobs", tmp_path / "c")
    assert line == f"zrs: {tmp_path}/Data.fs has blobs already: leave out blob_dir='{tmp_path}/c'"
    # And it was closed.
    FileStorage(f"{tmp_path}/Data.fs").close()


@pytest.mark.parametrize("interval", ["0", "nan", "often"])
def test_a_poll_interval_that_is_none(invoke, tmp_path, interval):
    with traffic(open_file_storage(tmp_path / "db")) as commits:
        commits.commit(1)
    path = tmp_path / "db" / "Data.fs"
    line = invoke("primary", path, "--listen", ":0", "--poll-interval", interval)
    assert line.startswith("zrs: ")


def test_help_tells_what_a_storage_may_be():
    for each in ("primary", "secondary"):
        text = " ".join(CliRunner().invoke(command, [each, "--help"]).output.split())
        assert (
            "whose name ends in .conf, with #NAME behind it if there are several sections" in text
        )


@pytest.mark.long
def test_both_by_configurations(zrs, database, tmp_path):
    """Of a FileStorage, with the blobs that the configuration names."""
    copy = tmp_path / "copy"
    copy.mkdir()
    for directory in (database, copy):
        (directory / "storage.conf").write_text(
            f"<filestorage>\n  path {directory}/Data.fs\n  blob-dir {directory}/blobs\n"
            "</filestorage>\n"
        )
    primary = zrs("primary", database / "storage.conf", "--listen", "127.0.0.1:0")
    address = primary.wait_for("Serving ").rpartition(" ")[2]
    secondary = zrs(
        *("secondary", address, copy / "storage.conf"), *("--until-caught-up", *QUIETLY)
    )
    assert secondary.finish() == 0
    assert f"\nStopped replicating into {copy / 'storage.conf'}; last is 0x" in secondary.out
    assert primary.stop() == 0
    assert is_equal(database, copy)


@pytest.mark.long
def test_by_a_uri(zrs, database, tmp_path):
    _, address = serve(zrs, database)
    copy = tmp_path / "copy"
    copy.mkdir()
    uri = f"file://{copy}/Data.fs?blobstorage_dir={copy}/blobs"
    secondary = zrs("secondary", address, uri, "--until-caught-up", *QUIETLY)
    assert secondary.finish() == 0, secondary.err
    assert is_equal(database, copy)


class TestAURIWhoseStorageReplicates:
    """`zrs verify` reads what it replicates, and takes no part in that."""

    def test_of_this_package(self, write):
        target = Target("zrs://localhost:1/a/../Data%23.fs?blob_dir=/blobs")
        assert target.files == ("/Data#.fs", "/blobs")
        assert Target("zrs://localhost:1/Data.fs").files == ("/Data.fs", None)

    @pytest.mark.parametrize("way", ["from", "to"])
    def test_of_zconfig(self, write, tmp_path, way):
        write(f"%import zrs_core\n<zrs>\nreplicate-{way} localhost:1\n{ONE}</zrs>\n")
        target = Target(f"zconfig://{tmp_path}/storage.conf")
        assert target.files == ("Data.fs", "blobs")
        FileStorage("Data.fs", blob_dir="blobs").close()
        storage = target.open_read_only()
        assert type(storage) is FileStorage
        assert storage.isReadOnly()
        storage.close()


def test_a_password_with_a_bracket_is_not_shown_either():
    with pytest.raises(ConfigurationError, match=r"^nothing://me:\*\*\*@db/x\[: "):
        Target("nothing://me:p[w@db/x[")


@pytest.mark.parametrize("command_line", [("primary", "--listen", "127.0.0.1:0"), ("secondary",)])
@pytest.mark.parametrize(
    ("text", "blobs"),
    [
        ("file://{}/Data.fs?blobstorage_dir={}/blobs", ()),
        ("file://{}/Data.fs", ("--blobs", "blobs")),
        ("storage.conf", ()),
        ("zconfig://{}/storage.conf", ()),
        ("plain.conf", ("--blobs", "blobs")),
        ("Data.fs", ("--blobs", "blobs")),
        ("zrs://127.0.0.1:1{}/Data.fs?blob_dir={}/blobs", ()),
    ],
)
def test_blobs_beside_a_new_file_stay(write, tmp_path, command_line, text, blobs):
    write(ONE)
    write(ONE.replace("  blob-dir blobs\n", ""), "plain.conf")
    precious = tmp_path / "blobs" / "0x00" / "0x01" / "0x03d4dc0011111111.blob"
    precious.parent.mkdir(parents=True)
    precious.touch()
    name, *options = command_line
    address = ("127.0.0.1:1",) if name == "secondary" else ()
    arguments = [name, *address, text.format(tmp_path, tmp_path), *options, *blobs]
    result = CliRunner().invoke(command, arguments)
    assert result.exit_code == 2, result.output
    assert result.stderr.count("\n") == 1
    if not (name == "primary" and text == "Data.fs"):
        assert "is not empty" in result.stderr
    assert precious.exists()
    assert not (tmp_path / "Data.fs").exists()


def test_a_primary_gets_back_the_file_that_a_killed_pack_has_renamed(write, tmp_path):
    (tmp_path / "Data.fs.old").write_bytes(b"FS30")
    (tmp_path / "Data.fs.pack").touch()
    # Only so that it ends: these are refused when the file is there.
    (tmp_path / "blobs" / "0x0100").mkdir(parents=True)
    (tmp_path / "blobs" / "0x0100" / "0x03d4dc0011111111.blob").touch()
    (tmp_path / "blobs" / ".layout").write_text("bushy")
    arguments = ["primary", "Data.fs", "--listen", "127.0.0.1:0", "--blobs", "blobs"]
    result = CliRunner().invoke(command, arguments)
    assert result.exit_code == 2
    assert "write lawn into" in result.stderr
    assert (tmp_path / "Data.fs").exists()


@pytest.mark.parametrize(
    "arguments", ["log a", "verify a a", "snapshot a b", "primary a --listen :0", "secondary :1 a"]
)
def test_a_named_pipe_is_no_database(arguments, tmp_path, monkeypatch):
    """To open it would wait for a process that writes to it."""
    monkeypatch.chdir(tmp_path)
    os.mkfifo("a")
    result = CliRunner().invoke(command, arguments.split())
    assert result.exit_code == 2
    assert result.stderr == "zrs: a is not a regular file: a FileStorage needs one\n"
