import os

import pytest
from hypothesis import HealthCheck, settings

pytest.register_assert_rewrite("zrs_core.testing.conformance")

settings.register_profile("local", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("local"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")
