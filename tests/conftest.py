import os

import pytest
from hypothesis import HealthCheck, settings

pytest.register_assert_rewrite("zrs_core.testing.conformance")

settings.register_profile("local", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("local"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")


@pytest.fixture(scope="session")
def postgresql():
    """A PostgreSQL server of our own; without PostgreSQL a skip, but not where all must be run."""
    from .storage.postgresql import binaries, running_server

    if binaries() is None and not os.environ.get("CI"):
        pytest.skip("there is no PostgreSQL; .ci/install-postgresql installs it")
    with running_server() as server:
        yield server
