import gc
import os
import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from twisted.logger import globalLogPublisher

from .events import all_documented
from .leaks import belongings, leaks, own_temporary_directory

# All that is here, and not the tests alone: with -O nothing else is asserted.
_HERE = {path.stem for path in Path(__file__).parent.iterdir()} - {
    "__init__",
    "conftest",
    "events",
    "leaks",
}
pytest.register_assert_rewrite("zrs_core.testing", *(f"tests.{name}" for name in _HERE))

settings.register_profile("local", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("local"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")


def pytest_collection_finish():
    # What is there by now stays until the end, and is much: all that a test leaves to the garbage
    # collector would be looked for there too.
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _own_temporary_directory(tmp_path_factory):
    # pytest's own stays where it is.
    tmp_path_factory.getbasetemp()
    with own_temporary_directory():
        yield


@pytest.fixture(autouse=True)
def _nothing_left_behind():
    """Every test ends with the threads, the descriptors and the temporary files it began with."""
    before = belongings()
    yield
    left = leaks(before)
    assert not left, "left behind: " + ", ".join(left)


@pytest.fixture(autouse=True)
def _logged_as_documented():
    """Whatever a test makes the package log is listed in docs/logs.rst."""
    with all_documented():
        yield


@pytest.fixture(autouse=True)
def _nothing_raised_in_a_reactor():
    """Twisted logs what a call of its raises, and goes on; the test would know nothing of it."""
    failures = []

    def observe(event):
        if "log_failure" in event:
            failures.append(event["log_failure"].getTraceback())

    globalLogPublisher.addObserver(observe)
    yield
    globalLogPublisher.removeObserver(observe)
    assert not failures, "\n".join(failures)


@pytest.fixture(autouse=True)
def _signals_as_usual():
    """Whoever started the tests may have them ignored: a shell in the background, or nohup."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGHUP)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def postgresql():
    """A PostgreSQL server of our own; without PostgreSQL a skip, but not where all must be run."""
    from .storage.postgresql import binaries, running_server

    if binaries() is None and not os.environ.get("CI"):
        pytest.skip("there is no PostgreSQL; .ci/install-postgresql installs it")
    with running_server() as server:
        yield server
