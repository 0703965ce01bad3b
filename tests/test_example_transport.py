"""The example of a transport shows what every transport must."""

import pytest

from .installed import installed_example

pytest.register_assert_rewrite("zrs_core.testing.conformance")

from zrs_core.testing.conformance import TLSConformance, TransportConformance  # noqa: E402


@pytest.fixture(scope="module", autouse=True)
def installed(tmp_path_factory):
    with installed_example(tmp_path_factory.mktemp("site")):
        yield


class TestExample(TransportConformance):
    transport = "asyncio-tcp"
    cycles = 100


class TestExampleWithTLS(TLSConformance):
    transport = "asyncio-tcp"
    cycles = 100
