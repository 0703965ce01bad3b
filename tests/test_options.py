import pytest

from zrs_core.errors import ConfigurationError
from zrs_core.options import ClientOptions, ServiceOptions


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"checksums": "maybe"}, "'require', 'verify', 'ignore'"),
        ({"keep_alive_delay": -1}, "keep_alive_delay must be 0 or more seconds, not -1"),
        ({"keep_alive_delay": float("nan")}, "keep_alive_delay"),
        ({"reconnect_delay": 0}, "reconnect_delay"),
        ({"reconnect_delay": -1}, "reconnect_delay"),
        ({"reconnect_delay": (5, 1)}, "(5, 1)"),
    ],
)
def test_wrong_ones_are_named(wrong, named):
    with pytest.raises(ConfigurationError) as caught:
        ClientOptions(**wrong)
    assert named in str(caught.value)


def test_a_wrong_pickle_protocol_is_named():
    with pytest.raises(ConfigurationError, match="must be 1 or 3, not 2"):
        ServiceOptions(pickle_protocol=2)
