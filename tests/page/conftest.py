import os

import pytest

from . import fake
from .browser import is_installed, running_browser

PRIMARY, HERE = "127.0.0.1:8100", "127.0.0.1:40001"


@pytest.fixture(scope="module")
def browser():
    """One for all tests of a module; without Chromium a skip, but not where all must be run."""
    if not is_installed() and not os.environ.get("CI"):
        pytest.skip("there is no Chromium with its driver; .ci/install-chromium installs them")
    with running_browser() as running:
        yield running


@pytest.fixture
def node():
    """A secondary that replicates, and says what a test wants."""
    return fake.FakeNode(fake.node("secondary", secondary=fake.secondary(PRIMARY, HERE)))


@pytest.fixture
def url(node):
    with fake.served(node) as url:
        yield url
