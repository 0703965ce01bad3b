import pytest

from zrs_core.errors import ConfigurationError
from zrs_core.options import ClientOptions, ServiceOptions
from zrs_core.tls import TLSOptions


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"checksums": "maybe"}, "'require', 'verify', 'ignore'"),
        ({"keep_alive_delay": -1}, "keep_alive_delay must be 0 or more seconds, not -1"),
        ({"keep_alive_delay": 0.009}, "keep_alive_delay must be 0, for no messages, or 0.01 or"),
        ({"keep_alive_delay": float("nan")}, "keep_alive_delay"),
        ({"reconnect_delay": 0}, "reconnect_delay"),
        ({"reconnect_delay": -1}, "reconnect_delay"),
        ({"reconnect_delay": (5, 1)}, "(5, 1)"),
        ({"peer_timeout": 1}, "peer_timeout must be 2 to 36000 seconds, not 1"),
        ({"max_record_size": 0}, "max_record_size must be a number of bytes, not 0"),
        ({"max_compared_size": -1}, "max_compared_size must be a number of bytes, 0 for no"),
        ({"max_compared_size": "1MB"}, "not '1MB'"),
        ({"tls": "yes"}, "tls must be TLSOptions, or None for plain text, not 'yes'"),
        ({"name": ""}, "name must be a text of 1 to 255 printable characters, got ''"),
        ({"name": " "}, "got ' '"),
        ({"name": "a\nb"}, r"got 'a\nb'"),
        ({"name": "a" * 256}, "1 to 255"),
        ({"name": b"a"}, "got b'a'"),
    ],
)
def test_wrong_ones_are_named(wrong, named):
    with pytest.raises(ConfigurationError) as caught:
        ClientOptions(**wrong)
    assert named in str(caught.value)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"max_peers": 0}, "max_peers must be a number of connections, 1 to 1000000, not 0"),
        ({"max_peers": 2.0}, "not 2.0"),
        ({"handshake_timeout": 0}, "handshake_timeout must be 0.01 to 36000 seconds, not 0"),
        ({"write_timeout": 0}, "write_timeout must be 0.01 to 36000 seconds, not 0"),
        ({"require_tls": "no"}, "require_tls must be True or False, not 'no'"),
    ],
)
def test_wrong_limits_of_a_primary_are_named(wrong, named):
    with pytest.raises(ConfigurationError) as caught:
        ServiceOptions(**wrong)
    assert named in str(caught.value)


def test_a_wrong_pickle_protocol_is_named():
    with pytest.raises(ConfigurationError, match="must be 1 or 3, not 2"):
        ServiceOptions(pickle_protocol=2)


@pytest.mark.parametrize("mode", [0o1777, -1, "660", None])
def test_a_wrong_socket_mode_is_named(mode):
    with pytest.raises(ConfigurationError, match="socket_mode must be permissions such as 0o660"):
        ServiceOptions(socket_mode=mode)


def test_a_primary_that_speaks_tls_needs_a_certificate():
    with pytest.raises(ConfigurationError, match="needs a certificate"):
        ServiceOptions(tls=TLSOptions())
    assert ClientOptions(tls=TLSOptions()).tls == TLSOptions()


def test_the_name_is_the_hosts_by_default(monkeypatch):
    monkeypatch.setattr("socket.gethostname", lambda: "replica.example")
    assert ClientOptions().node_name() == "replica.example"
    assert ClientOptions(name="one").node_name() == "one"
    monkeypatch.setattr("socket.gethostname", lambda: "")
    assert ClientOptions().node_name() == "localhost"
