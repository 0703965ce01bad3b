import pytest


@pytest.fixture(autouse=True)
def _measured_by_itself(no_cover):
    """Their coverage is `make coverage`'s; measured with all others', they take twice as long."""
