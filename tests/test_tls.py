from __future__ import annotations

import ssl

import pytest
import trustme

from zrs_core.addresses import TCPAddress, UnixAddress
from zrs_core.errors import ConfigurationError
from zrs_core.options import ServiceOptions
from zrs_core.tls import PeerRefused, TLSOptions, describe_error

from .certificates import authority

GOOD = authority().issue("localhost")


@pytest.fixture
def files(tmp_path):
    """Files with something wrong in each."""
    ours, other = trustme.CA().issue_cert("localhost"), trustme.CA().issue_cert("localhost")
    contents = {
        "garbage": b"garbage",
        "empty": b"",
        "certificate": ours.cert_chain_pems[0].bytes(),
        "key": ours.private_key_pem.bytes(),
        "other-key": other.private_key_pem.bytes(),
        "half": ours.private_key_and_cert_chain_pem.bytes()[:100],
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "directory").mkdir()
    return tmp_path


@pytest.mark.parametrize("name", ["missing", "directory", "garbage", "empty", "half"])
@pytest.mark.parametrize("option", ["certificate", "ca", "key"])
def test_a_file_that_cannot_be_used_is_named_with_its_option(option, name, files):
    given = {"certificate": str(files / "certificate")} if option == "key" else {}
    path = str(files / name)
    with pytest.raises(ConfigurationError) as caught:
        TLSOptions(**{**given, option: path})
    assert option in str(caught.value)
    assert path in str(caught.value)


def test_a_key_that_is_not_the_certificates_is_named(files):
    certificate, key = str(files / "certificate"), str(files / "other-key")
    with pytest.raises(ConfigurationError, match=r"certificate .*certificate and key .*other-key"):
        TLSOptions(certificate=certificate, key=key)
    assert TLSOptions(certificate=certificate, key=str(files / "key"))


def test_a_key_with_a_password_is_told_apart(tmp_path):
    from cryptography.hazmat.primitives import serialization

    certificate = trustme.CA().issue_cert("localhost")
    key = serialization.load_pem_private_key(certificate.private_key_pem.bytes(), None)
    path = tmp_path / "key"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    certificate.cert_chain_pems[0].write_to_path(str(tmp_path / "certificate"))
    with pytest.raises(ConfigurationError, match="the key is encrypted"):
        TLSOptions(certificate=str(tmp_path / "certificate"), key=str(path))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"key": GOOD}, "needs the certificate that it belongs to"),
        ({"require_certificate": True}, "require_certificate needs ca"),
        ({"certificate": 5}, "certificate must be the name of a file, not 5"),
        ({"peer_names": "one"}, "peer_names must be several names, not 'one'"),
        ({"server_name": "one..org"}, "server_name 'one..org' is no name of a host"),
        ({"server_name": 1}, "server_name 1 is no name of a host"),
    ],
)
def test_options_that_contradict_each_other_are_errors(options, message):
    with pytest.raises(ConfigurationError, match=message):
        TLSOptions(**options)


def test_a_primary_needs_a_certificate_and_names_that_can_be_proved():
    with pytest.raises(ConfigurationError, match="a primary that speaks TLS needs a certificate"):
        ServiceOptions(tls=TLSOptions())
    with pytest.raises(ConfigurationError, match="peer_names needs ca"):
        ServiceOptions(tls=TLSOptions(certificate=GOOD, peer_names=("one",)))


def test_a_certificate_is_wanted_once_there_is_a_ca():
    ca = authority().ca
    assert not TLSOptions(certificate=GOOD).wants_certificate
    assert TLSOptions(certificate=GOOD, ca=ca).wants_certificate
    loose = TLSOptions(certificate=GOOD, ca=ca, require_certificate=False)
    assert not loose.wants_certificate
    assert loose.server_context().verify_mode == ssl.CERT_OPTIONAL


def test_the_name_that_is_looked_for():
    tls = TLSOptions()
    assert tls.host_of(TCPAddress("db.example", 1)) == "db.example"
    assert tls.host_of(TCPAddress("", 1)) == "localhost"
    assert tls.host_of(UnixAddress("/s")) == "localhost"
    assert TLSOptions(server_name="other").host_of(TCPAddress("db.example", 1)) == "other"


def test_names_are_compared_whatever_their_case():
    tls = TLSOptions(peer_names=("One.example", "10.0.0.1"))
    tls.check_peer(["two", "ONE.example"])
    tls.check_peer(["10.0.0.1"])
    TLSOptions().check_peer([])
    with pytest.raises(PeerRefused, match="its certificate is for two, which is not listed"):
        tls.check_peer(["two"])
    with pytest.raises(PeerRefused, match="for nobody"):
        tls.check_peer([])


def test_no_version_before_1_2_is_spoken():
    tls = TLSOptions(certificate=GOOD)
    for context in (tls.server_context(), tls.client_context()):
        assert context.minimum_version == ssl.TLSVersion.TLSv1_2


def test_what_went_wrong_is_told_in_words():
    assert describe_error(OSError("nothing")) == "TLS: nothing"
    assert describe_error(ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] x")).startswith(
        "TLS: the peer does not speak TLS ("
    )
