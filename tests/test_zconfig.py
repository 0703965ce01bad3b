"""The `<zrs>` section of ZConfig."""

from __future__ import annotations

import contextlib
import io
import os
import socket
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
import trustme
import ZConfig
import ZODB.config
from ZODB.FileStorage import FileStorage

import zrs_core
from zrs_core import Primary, Secondary
from zrs_core.addresses import TCPAddress, UnixAddress
from zrs_core.config import zconfig
from zrs_core.errors import UnsuitableStorage
from zrs_core.monitor.fetch import StatusAddress
from zrs_core.storage.batches import unfinished

from .conditions import wait_for
from .databases import traffic
from .status.http import get


def parse(text: str) -> Any:
    """The opener of the only storage in a configuration."""
    config, _ = ZConfig.loadConfigFile(ZODB.config.getStorageSchema(), io.StringIO(text))
    return config.storage


def section(keys: str, base: str = "", name: str = "") -> str:
    base = base or "<filestorage>\n path Data.fs\n</filestorage>"
    return f"%import zrs_core\n<zrs {name}>\n{keys}\n{base}\n</zrs>\n"


@pytest.fixture(autouse=True)
def in_a_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def pems(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("pems")
    ca = trustme.CA()
    ca.cert_pem.write_to_path(str(directory / "ca.pem"))
    for name in ("one", "two"):
        certificate = ca.issue_cert("localhost", "127.0.0.1", common_name=name)
        certificate.private_key_pem.write_to_path(str(directory / f"{name}.key"))
        certificate.cert_chain_pems[0].write_to_path(str(directory / f"{name}.pem"))
    return directory


def test_a_primary():
    storage = parse(section("replicate-to 127.0.0.1:0\nsocket-mode 660\nclose-timeout 1.5")).open()
    with contextlib.closing(storage):
        assert type(storage) is Primary
        assert storage.replication_address.port > 0
        assert storage._close_timeout == 1.5
        assert storage._listener.__module__ == "zrs_core.transports.twisted_tcp"


def test_every_key_arrives(monkeypatch):
    seen = {}

    class Spy:
        def __init__(self, storage: Any, address: object, **options: Any) -> None:
            seen[type(self).__name__] = (address, options)
            self.close = storage.close

    class SpiedPrimary(Spy):
        pass

    class SpiedSecondary(Spy):
        pass

    monkeypatch.setattr("zrs_core.primary.Primary", SpiedPrimary)
    monkeypatch.setattr("zrs_core.secondary.Secondary", SpiedSecondary)
    keys = """
        replicate-to ./ours.sock
        replicate-from [::1]:8100
        transport socket-thread
        peer-timeout 20
        blob-dir blobs
        keep-alive-delay 60
        reconnect-delay 0.25 30
        check-checksums require
        max-record-size 512MB
        durability transaction
        max-compared-size 16MB
        name replica one
        wait-for-data 0
        pickle-protocol 1
        close-timeout 3
        socket-mode 0o640
        poll-interval 0.5
        max-peers 7
        handshake-timeout 2.5
        write-timeout 20
        require-tls yes
    """
    parse(section(keys)).open().close()
    both = {"transport": "socket-thread", "peer_timeout": 20}
    assert seen["SpiedSecondary"] == (
        TCPAddress("::1", 8100),
        {
            **both,
            "blob_dir": os.path.abspath("blobs"),
            "keep_alive_delay": 60,
            "reconnect_delay": (0.25, 30),
            "check_checksums": "require",
            "max_record_size": 512 << 20,
            "durability": "transaction",
            "max_compared_size": 16 << 20,
            "name": "replica one",
        },
    )
    assert seen["SpiedPrimary"] == (
        UnixAddress("./ours.sock"),
        {
            **both,
            "pickle_protocol": 1,
            "close_timeout": 3,
            "socket_mode": 0o640,
            "poll_interval": 0.5,
            "max_peers": 7,
            "handshake_timeout": 2.5,
            "write_timeout": 20,
            "require_tls": True,
        },
    )


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("replicate-to 5000", TCPAddress("", 5000)),
        ("replicate-to :5000", TCPAddress("", 5000)),
        ("replicate-to 10.0.0.1:5000", TCPAddress("10.0.0.1", 5000)),
        ("replicate-to [::]:5000", TCPAddress("::", 5000)),
        ("replicate-to ./p.sock", UnixAddress("./p.sock")),
        ("reconnect-delay 3", (3, 3)),
        ("reconnect-delay 1 2", (1, 2)),
        ("check-checksums yes", "verify"),
        ("check-checksums No", "ignore"),
        ("check-checksums IGNORE", "ignore"),
        ("max-record-size 1000", 1000),
        ("max-record-size 4kb", 4096),
        ("durability None", "none"),
        ("max-compared-size 0", 0),
        ("keep-alive-delay 0", 0),
        ("keep-alive-delay 2.5", 2.5),
        ("Socket-Mode 600", 0o600),
    ],
)
def test_what_a_key_may_say(line, value):
    key = line.split()[0].lower().replace("-", "_")
    addresses = "" if key == "replicate_to" else "replicate-to 1"
    opener = parse(section(f"{addresses}\nreplicate-from a:2\n{line}"))
    assert getattr(opener.config, key).value == value


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "replicat-from a:1",
            "replicat-from is no key of a zrs section; did you mean replicate-from?",
        ),
        ("x 1", "x is no key of a zrs section; known are blob-dir, check-checksums, "),
        ("transport pigeon", "transport pigeon: unknown transport 'pigeon'; the known ones are "),
        ("peer-timeout 1", "peer-timeout 1: peer_timeout must be 2 to 36000 seconds"),
        ("peer-timeout soon", "peer-timeout soon: it is no number"),
        ("peer-timeout nan", "peer-timeout nan: it is no number"),
        ("keep-alive-delay -1", "keep-alive-delay -1: keep_alive_delay must be 0 or more"),
        ("reconnect-delay 1 2 3", "reconnect-delay 1 2 3: it is neither one number of seconds nor"),
        ("reconnect-delay 5 1", "reconnect-delay 5 1: reconnect_delay must be"),
        ("check-checksums maybe", "check-checksums maybe: check_checksums must be one of"),
        ("max-record-size many", "max-record-size many: it is no whole number"),
        ("durability some", "durability some: durability must be one of transaction, batch, none"),
        ("max-record-size 0", "max-record-size 0: max_record_size must be"),
        ("max-compared-size -1", "max-compared-size -1: max_compared_size must be a number"),
        ("max-compared-size all", "max-compared-size all: it is no whole number"),
        ("name \x1b", "name \x1b: name must be a text of 1 to 255 printable characters"),
        ("pickle-protocol 2", "pickle-protocol 2: pickle_protocol must be 1 or 3"),
        ("poll-interval 0", "poll-interval 0: poll_interval must be 0.01 to 3600 seconds"),
        ("poll-interval often", "poll-interval often: it is no number"),
        ("max-peers 0", "max-peers 0: max_peers must be a number of connections, 1 to 1000000"),
        ("max-peers few", "max-peers few: it is no whole number"),
        ("handshake-timeout 0", "handshake-timeout 0: handshake_timeout must be 0.01 to 36000"),
        ("write-timeout never", "write-timeout never: it is no number"),
        ("require-tls maybe", "require-tls maybe: it is neither yes nor no"),
        ("close-timeout -1", "close-timeout -1: it must be 0 or more seconds"),
        ("socket-mode 888", "socket-mode 888: it is no octal number from 0 to 777"),
        ("socket-mode 7777", "socket-mode 7777: it is no octal number from 0 to 777"),
        ("blob-dir /no/such/place", "blob-dir /no/such/place: there is no directory /no/such"),
        ("blob-dir /dev/null", "blob-dir /dev/null: it is no directory"),
        ("Replicate-From b:2", "replicate-from is given already, as 'a:1' in line 4"),
        ("<tls>\nca x\nca y\n</tls>", "ca is given already, as 'x' in line 6"),
        ("<tls>\nx y\n</tls>", "x is no key of a tls section; known are ca, certificate, "),
        ("<tls>\nca /no.pem\n</tls>", "ca /no.pem: the file cannot be read: No such file"),
        ("<tls>\nkey /\n</tls>", "key /: the file cannot be read: Is a directory"),
        ("<tls>\nrequire-certificate x\n</tls>", "require-certificate x: it is neither yes nor no"),
        ("<tls>\nserver-name \n</tls>", "server-name : it is empty"),
    ],
)
def test_a_wrong_key_or_value_is_named_with_its_line(in_a_directory, line, message):
    with pytest.raises(ZConfig.DataConversionError) as caught:
        parse(section(f"replicate-to 0\nreplicate-from a:1\n{line}"))
    number = 4 + max(line.count("\n"), 1)
    assert str(caught.value).startswith(message)
    assert str(caught.value).endswith(f"(line {number})")
    assert caught.value.lineno == number
    assert os.listdir(in_a_directory) == []


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("replicate-to 70000", "replicate-to 70000: invalid address '70000': a port is a number"),
        ("replicate-to somewhere", "replicate-to somewhere: invalid address 'somewhere': an addr"),
        ("replicate-from a:0", "replicate-from a:0: nobody can listen at port 0"),
        ("replicate-from ::1:5000", "replicate-from ::1:5000: invalid address '::1:5000': an IPv6"),
    ],
)
def test_a_wrong_address_is_named_with_its_line(line, message):
    with pytest.raises(ZConfig.DataConversionError) as caught:
        parse(section(line))
    assert str(caught.value).startswith(message)
    assert str(caught.value).endswith("(line 3)")


MAPPING = "<mappingstorage>\n</mappingstorage>"
INNER = "<zrs>\nreplicate-to 0\n<filestorage>\npath Data.fs\n</filestorage>\n</zrs>"
BLOBS = "<filestorage>\npath Data.fs\nblob-dir b\n</filestorage>"


@pytest.mark.parametrize(
    ("keys", "base", "message"),
    [
        ("", "", "<zrs one> needs replicate-to or replicate-from, or both"),
        ("replicate-to 5\nreplicate-from :5", "", "replicate-to 5 (line 3) and replicate-from :5 "),
        ("replicate-to 0\nreconnect-delay 1", "", "reconnect-delay 1 (line 4): it has no effect w"),
        ("replicate-from a:1\nsocket-mode 600", "", "socket-mode 600 (line 4): it has no effect w"),
        ("replicate-from a:1\npoll-interval 2", "", "poll-interval 2 (line 4): it has no effect w"),
        ("replicate-from a:1\nmax-peers 2", "", "max-peers 2 (line 4): it has no effect w"),
        ("replicate-from a:1\nrequire-tls yes", "", "require-tls yes (line 4): it has no effect w"),
        (
            "replicate-from a:1",
            MAPPING,
            "replicate-from a:1 (line 3): <zrs one> cannot replicate into a mappingstorage: it "
            "does not provide IStorageRestoreable",
        ),
        ("replicate-to 0", INNER, "replicate-to 0 (line 3): <zrs one> has a zrs section inside"),
        ("replicate-to 0\nblob-dir c", BLOBS, "blob-dir c (line 4): the storage inside has a blob"),
        ("replicate-to 0\n<tls>\n</tls>", "", "replicate-to 0 (line 3): a primary that speaks TLS"),
        (
            "replicate-from a:1\n<tls>\nrequire-certificate yes\n</tls>",
            "",
            "require-certificate yes (line 5): require_certificate needs ca",
        ),
    ],
)
def test_keys_that_do_not_fit_each_other_are_named(in_a_directory, keys, base, message):
    with pytest.raises(ZConfig.ConfigurationError) as caught:
        parse(section(keys, base, "one"))
    assert str(caught.value).startswith(message)
    assert os.listdir(in_a_directory) == []


def test_an_error_in_a_file_names_the_file(in_a_directory):
    path = in_a_directory / "zeo.conf"
    path.write_text(section("replicate-to 5\nreplicate-from :5"))
    with pytest.raises(ZConfig.ConfigurationError, match=r"in file://.*/zeo\.conf: a storage cann"):
        ZODB.config.storageFromURL(str(path))


def test_a_key_that_does_not_fit_its_certificate_is_named(pems):
    keys = f"replicate-to 0\n<tls>\ncertificate {pems}/one.pem\nkey {pems}/two.key\n</tls>"
    with pytest.raises(ZConfig.ConfigurationError) as caught:
        parse(section(keys))
    message = str(caught.value)
    assert f"certificate {pems}/one.pem (line 5) and key {pems}/two.key (line 6): " in message
    assert "mismatch" in message.lower()


@pytest.mark.parametrize("transport", ["twisted-tcp", "socket-thread"])
def test_an_address_in_use_is_named_before_anything_is_opened(in_a_directory, transport):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        address = f"127.0.0.1:{other.getsockname()[1]}"
        opener = parse(section(f"replicate-to {address}\ntransport {transport}"))
        with pytest.raises(zconfig.SettingError) as caught:
            opener.open()
    assert str(caught.value) == (
        f"replicate-to {address}: cannot listen there: Address already in use (line 3)"
    )
    assert isinstance(caught.value, ZConfig.DataConversionError)
    assert os.listdir(in_a_directory) == []


def test_a_socket_that_cannot_be_made_is_named_before_anything_is_opened(in_a_directory):
    (in_a_directory / "file").write_text("")
    with socket.socket(socket.AF_UNIX) as live, socket.socket(socket.AF_UNIX) as stale:
        live.bind("live")
        live.listen()
        stale.bind("stale")
        stale.close()
        for path, message in (
            ("./live", "somebody listens there"),
            ("./file", "there is a file that is no socket"),
            ("./none/x", "none is no directory that can be written to"),
        ):
            opener = parse(section(f"replicate-to {path}"))
            with pytest.raises(zconfig.SettingError, match=message):
                opener.open()
        assert sorted(os.listdir()) == ["file", "live", "stale"]
        # A stale one is replaced.
        parse(section("replicate-to ./stale")).open().close()


def test_an_address_that_is_taken_meanwhile_is_named_too(monkeypatch):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        address = f"127.0.0.1:{other.getsockname()[1]}"
        monkeypatch.setattr(zconfig, "_check_free", lambda setting: None)
        with pytest.raises(zconfig.SettingError, match=f"^replicate-to {address}: cannot lis"):
            parse(section(f"replicate-to {address}")).open()
    FileStorage("Data.fs").close()  # nobody has it open any more


def test_a_file_that_is_no_database_is_left_alone(in_a_directory):
    (in_a_directory / "Data.fs").write_text("a letter")
    with pytest.raises(zrs_core.errors.UnsuitableStorage) as caught:
        parse(section("replicate-from a:1")).open()
    assert str(caught.value).startswith(
        "the filestorage in <zrs>, with replicate-from a:1 (line 3): Data.fs is not a FileStorage"
    )
    assert os.listdir(in_a_directory) == ["Data.fs"]
    assert (in_a_directory / "Data.fs").read_text() == "a letter"


PRECIOUS = "blobs/0x00/0x01/0x03d4dc0011111111.blob"


@pytest.mark.parametrize("keys", ["replicate-to 127.0.0.1:0", "replicate-from 127.0.0.1:1"])
@pytest.mark.parametrize(
    ("more", "base"),
    [
        ("", "<filestorage>\n path Data.fs\n blob-dir blobs\n</filestorage>"),
        ("blob-dir blobs", "<filestorage>\n path Data.fs\n</filestorage>"),
        (
            "",
            "<blobstorage>\n blob-dir blobs\n<filestorage>\n path Data.fs\n</filestorage>\n"
            "</blobstorage>",
        ),
        (
            "",
            "<zlibstorage>\n<filestorage>\n path Data.fs\n blob-dir blobs\n</filestorage>\n"
            "</zlibstorage>",
        ),
    ],
)
def test_blobs_beside_a_new_file_stay(in_a_directory, keys, more, base):
    (in_a_directory / PRECIOUS).parent.mkdir(parents=True)
    (in_a_directory / PRECIOUS).touch()
    opener = parse("%import zc.zlibstorage\n" + section(f"{keys}\n{more}", base))
    with pytest.raises(UnsuitableStorage, match=r"the filestorage in <zrs>.* is not empty"):
        opener.open()
    assert (in_a_directory / PRECIOUS).exists()
    assert [each.name for each in in_a_directory.iterdir()] == ["blobs"]


def test_blobs_within_a_demostorage_stay(in_a_directory):
    inner = "<filestorage {0}>\n path {0}.fs\n blob-dir {0}-blobs\n</filestorage>\n"
    base = f"<demostorage>\n{inner.format('base')}{inner.format('changes')}</demostorage>"
    for name in ("base", "changes"):
        (in_a_directory / f"{name}-blobs").mkdir()
        (in_a_directory / f"{name}-blobs" / "letter.txt").touch()
        with pytest.raises(UnsuitableStorage, match=f"{name}-blobs is not empty"):
            parse(section("replicate-to 127.0.0.1:0", base)).open()
        assert (in_a_directory / f"{name}-blobs" / "letter.txt").exists()
        (in_a_directory / f"{name}.fs").touch()


def test_blobs_of_a_file_that_is_to_be_created_anew_stay(in_a_directory):
    base = "<filestorage>\n path Data.fs\n blob-dir blobs\n create true\n</filestorage>"
    opener = parse(section("replicate-to 127.0.0.1:0", base))
    (in_a_directory / PRECIOUS).parent.mkdir(parents=True)
    (in_a_directory / PRECIOUS).touch()
    (in_a_directory / "Data.fs").write_bytes(b"FS30")
    with pytest.raises(UnsuitableStorage, match="leave out create"):
        opener.open()
    assert (in_a_directory / PRECIOUS).exists()
    (in_a_directory / PRECIOUS).unlink()
    opener.open().close()


def test_a_pack_of_an_inner_file_that_was_killed_is_undone(in_a_directory):
    with traffic(FileStorage("Data.fs"), blobs=False) as commits:
        commits.commit(3)
    data = (in_a_directory / "Data.fs").read_bytes()
    (in_a_directory / "Data.fs").rename("Data.fs.old")
    (in_a_directory / "Data.fs.pack").touch()
    parse(section("replicate-to 127.0.0.1:0")).open().close()
    assert (in_a_directory / "Data.fs").read_bytes() == data


@pytest.mark.parametrize("read_only", ["false", "true"])
def test_an_unfinished_batch_in_an_inner_file_is_removed(in_a_directory, read_only):
    with traffic(FileStorage("Data.fs"), blobs=False) as commits:
        commits.commit(3)
    data = (in_a_directory / "Data.fs").read_bytes()
    (in_a_directory / "Data.fs").write_bytes(data + unfinished(b"\x0f" + bytes(7)) + bytes(99))
    base = f"<filestorage>\n path Data.fs\n read-only {read_only}\n</filestorage>"
    parse(section("replicate-to 127.0.0.1:0", base)).open().close()
    left = (in_a_directory / "Data.fs").read_bytes()
    assert (left == data) == (read_only == "false")
    assert not [*in_a_directory.glob("*.tr*")]


@pytest.mark.parametrize("read_only", ["false", "true"])
def test_blobs_in_another_layout_are_refused(in_a_directory, read_only):
    (in_a_directory / PRECIOUS).parent.mkdir(parents=True)
    (in_a_directory / "blobs" / "0x0100").mkdir()
    (in_a_directory / "blobs" / "0x0100" / "0x03d4dc0011111111.blob").touch()
    (in_a_directory / "blobs" / ".layout").write_text("bushy")
    (in_a_directory / "Data.fs").write_bytes(b"FS30")
    base = f"<filestorage>\n path Data.fs\n blob-dir blobs\n read-only {read_only}\n</filestorage>"
    with pytest.raises(UnsuitableStorage, match=r"write lawn into blobs/\.layout"):
        parse(section("replicate-to 127.0.0.1:0", base)).open()


def test_a_storage_that_cannot_be_replicated_into_is_closed_again():
    FileStorage("Data.fs").close()
    base = "<filestorage>\npath Data.fs\nread-only true\n</filestorage>"
    with pytest.raises(zrs_core.errors.UnsuitableStorage, match="it is read-only"):
        parse(section("replicate-from a:1", base)).open()


def test_reading_a_configuration_opens_nothing(in_a_directory):
    opener = parse(section("replicate-to 127.0.0.1:0", name="data"))
    assert opener.name == "data"
    assert os.listdir(in_a_directory) == []


@pytest.mark.parametrize("transport", ["twisted-tcp", "socket-thread"])
def test_a_cascade_over_tls(pems, transport):
    tls = f"""
        transport {transport}
        <tls>
          certificate {pems}/one.pem
          key {pems}/one.key
          ca {pems}/ca.pem
          peer-name localhost
          peer-name 127.0.0.1
        </tls>
    """

    def base(name: str) -> str:
        return f"<filestorage>\npath {name}.fs\nblob-dir {name}\n</filestorage>"

    fast = "reconnect-delay 0.01"
    with contextlib.ExitStack() as stack:

        def opened(keys: str, name: str) -> Any:
            storage = parse(section(keys + tls, base(name))).open()
            return stack.enter_context(contextlib.closing(storage))

        first = opened("replicate-to 127.0.0.1:0", "1")
        source = first.replication_address
        second = opened(f"replicate-from {source}\nreplicate-to 127.0.0.1:0\n{fast}", "2")
        third = opened(f"replicate-from {second.replication_address}\n{fast}", "3")
        assert [type(each) for each in (first, second, third)] == [Primary, Primary, Secondary]
        assert second.isReadOnly()
        with traffic(first) as commits:
            commits.commit(30)
            last = first.lastTransaction()
            wait_for(lambda: third.progress.tid == last, "the last transaction")
    assert Path("3.fs").read_bytes() == Path("1.fs").read_bytes()


OLD = """
%define DATA .
%import zc.zrs

<zodb main>
  <zrs>
    replicate-to ./primary.sock
    keep-alive-delay 60
    <filestorage>
      path $DATA/primary.fs
      blob-dir $DATA/primary-blobs
    </filestorage>
  </zrs>
</zodb>
<zodb second>
  <zrs>
    replicate-from ./primary.sock
    replicate-to ./secondary.sock
    keep-alive-delay 60
    <blobstorage>
      blob-dir $DATA/secondary-blobs
      <filestorage>
        path $DATA/secondary.fs
      </filestorage>
    </blobstorage>
  </zrs>
</zodb>
"""


def test_a_configuration_of_the_old_package_needs_one_line_changed():
    text = OLD.replace("%import zc.zrs", "%import zrs_core")
    config, _ = ZConfig.loadConfigFile(ZODB.config.getDbSchema(), io.StringIO(text))
    first, second = (each.config.storage for each in config.database)
    with contextlib.closing(first.open()) as one, contextlib.closing(second.open()) as two:
        with traffic(one) as commits:
            commits.commit(20)
            wait_for(lambda: two.lastTransaction() == one.lastTransaction(), "the transactions")
            client = two._storage._client
            assert client.keep_alive_delay == 60
            assert os.path.exists("secondary.sock")


def test_every_key_is_typed_and_described():
    tree = ET.parse(Path(zrs_core.__file__).with_name("component.xml"))
    for part in tree.iter():
        if part.tag in ("key", "multikey", "sectiontype", "section", "component"):
            assert part.findtext("description", "").strip(), part.attrib
        if part.tag in ("key", "multikey"):
            assert part.get("datatype", "").startswith("."), part.attrib


def test_reading_a_configuration_imports_no_transport():
    check = (
        "import io, sys, ZConfig, ZODB.config\n"
        f"text = {section('replicate-to 0')!r}\n"
        "ZConfig.loadConfigFile(ZODB.config.getStorageSchema(), io.StringIO(text))\n"
        "heavy = ('twisted', 'ZODB.FileStorage.FileStorage')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


class TestOtherStorages:
    RELSTORAGE = """
        %import relstorage
        %import zrs_core
        <zrs>
          {keys}
          transport socket-thread
          <relstorage>
            name relational
            keep-history {history}
            blob-dir cache
            <sqlite3>
              data-dir sqlite
            </sqlite3>
          </relstorage>
        </zrs>
    """
    COMPRESSED = """
        %import zc.zlibstorage
        %import zrs_core
        <zrs>
          replicate-to ./primary.sock
          transport socket-thread
          poll-interval 0.5
          <zlibstorage>
            <filestorage>
              path Data.fs
              blob-dir blobs
            </filestorage>
          </zlibstorage>
        </zrs>
    """

    def test_a_compressed_one_is_replicated_into_a_relstorage(self):
        primary = parse(self.COMPRESSED).open()
        secondary = parse(
            self.RELSTORAGE.format(keys="replicate-from ./primary.sock", history="true")
        ).open()
        with contextlib.closing(secondary), traffic(primary) as commits:
            commits.commit(10)
            last = primary.lastTransaction()
            wait_for(lambda: secondary.lastTransaction() == last, "the transactions")
        assert type(primary) is Primary
        assert type(secondary) is Secondary

    def test_a_relstorage_without_history_is_refused_and_closed(self):
        opener = parse(self.RELSTORAGE.format(keys="replicate-to ./p.sock", history="false"))
        with pytest.raises(UnsuitableStorage, match=r"relational \(RelStorage\) cannot take part"):
            opener.open()

    def test_a_second_blob_dir_is_refused(self):
        with pytest.raises(ZConfig.ConfigurationError, match="inside has a blob-dir already"):
            parse(self.RELSTORAGE.format(keys="replicate-to 0\nblob-dir more", history="true"))

    def test_a_file_below_a_wrapper_is_looked_at_before_it_is_opened(self):
        Path("Data.fs").write_text("no database")
        with pytest.raises(UnsuitableStorage, match=r"line 5\): Data\.fs is not a FileStorage"):
            parse(self.COMPRESSED).open()


class TestStatus:
    def test_it_is_served_as_long_as_the_storage_is_open(self):
        keys = """
            replicate-to 127.0.0.1:0
            status-address ./status.sock
            status-max-lag 2.5
            status-nodes ./other.sock, :9000 db.example:9000
        """
        storage = parse(section(keys)).open()
        with contextlib.closing(storage):
            status = get(UnixAddress("./status.sock"), "/status").json
            assert status["primary"]["address"] == str(storage.replication_address)
            nodes = get(UnixAddress("./status.sock"), "/nodes").json["nodes"]
            addresses = ["./other.sock", "http://:9000", "http://db.example:9000"]
            assert [each["url"] for each in nodes] == ["./status.sock", *addresses]
        assert not os.path.exists("status.sock")

    def test_every_key_arrives(self, monkeypatch):
        seen = {}

        class Spy:
            def __init__(self, storage: Any, **options: Any) -> None:
                seen.update(options, storage=type(storage))

            def close(self) -> None:
                seen["closed"] = True

        monkeypatch.setattr("zrs_core.monitor.server.StatusServer", Spy)
        keys = "replicate-from a:1\nreplicate-to 127.0.0.1:0\nstatus-address :9000"
        keys += "\nstatus-max-lag 5\nstatus-nodes b:9000\nstatus-hosts B.c d"
        parse(section(keys)).open().close()
        assert seen == {
            "storage": Primary,
            "address": TCPAddress("127.0.0.1", 9000),
            "max_lag": 5.0,
            "nodes": (StatusAddress("b:9000", TCPAddress("b", 9000), "/status"),),
            "hosts": ("b.c", "d"),
            "closed": True,
        }

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ("status-address here", "status-address here: invalid address 'here'"),
            ("status-address 9000\nstatus-max-lag soon", "status-max-lag soon: it is no number"),
            ("status-address 9000\nstatus-max-lag -1", "max_lag must be 0 or more seconds"),
            ("status-address 9000\nstatus-nodes a:1 b", "status-nodes a:1 b: invalid address 'b'"),
            ("status-max-lag 5", "status-max-lag 5 (line 4): it has no effect without status-addr"),
            ("status-nodes a:1", "status-nodes a:1 (line 4): it has no effect without status-addr"),
            ("status-address 9000\nstatus-hosts a b:1", "status-hosts a b:1: invalid host 'b:1'"),
            ("status-hosts a", "status-hosts a (line 4): it has no effect without status-address"),
        ],
    )
    def test_what_is_wrong_is_named(self, line, message):
        with pytest.raises(ZConfig.ConfigurationError) as caught:
            parse(section(f"replicate-to 0\n{line}"))
        assert message in str(caught.value)
        assert os.listdir() == []

    def test_a_port_that_is_taken_is_found_before_anything_is_opened(self):
        with socket.create_server(("127.0.0.1", 0)) as other:
            port = other.getsockname()[1]
            opener = parse(section(f"replicate-to 127.0.0.1:0\nstatus-address {port}"))
            with pytest.raises(zconfig.SettingError) as caught:
                opener.open()
        assert f"status-address {port}: cannot listen there: Address already" in str(caught.value)
        assert os.listdir() == []

    def test_one_that_is_taken_just_then_leaves_nothing_open(self, monkeypatch):
        monkeypatch.setattr(zconfig, "_check_free", lambda setting: None)
        with socket.create_server(("127.0.0.1", 0)) as other:
            port = other.getsockname()[1]
            opener = parse(section(f"replicate-to 127.0.0.1:0\nstatus-address {port}"))
            with pytest.raises(zconfig.SettingError, match="cannot serve the status at"):
                opener.open()
        FileStorage("Data.fs").close()


@pytest.mark.parametrize(
    "base",
    [
        BLOBS,
        "<blobstorage>\nblob-dir b\n<filestorage>\npath Data.fs\n</filestorage>\n</blobstorage>",
    ],
)
@pytest.mark.parametrize("broken", ["layout", "link"])
def test_a_blob_directory_that_zodb_cannot_use_is_refused(in_a_directory, base, broken):
    if broken == "layout":
        FileStorage("Data.fs").close()
        (in_a_directory / "b" / "0x00").mkdir(parents=True)
        (in_a_directory / "b" / ".layout").write_text("unheard-of")
        match = "its layout 'unheard-of' is not known"
    else:
        (in_a_directory / "b").symlink_to("not mounted")
        match = "b is not a directory: it cannot be a blob_dir"
    with pytest.raises(UnsuitableStorage, match=match):
        parse(section("replicate-to 127.0.0.1:0", base)).open()
