"""The page as the status servers of a primary, a cascade and a secondary serve it."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from zrs_core import Primary, Secondary
from zrs_core.monitor import StatusServer

from ..conditions import wait_for
from ..databases import open_file_storage, traffic
from ..status.line import DelayedLine
from .browser import Browser
from .test_topology import names

pytestmark = pytest.mark.long

LOOPBACK = "127.0.0.1:0"

Open = Callable[[Any], Any]


@pytest.fixture
def opened() -> Iterator[Open]:
    """Closes what it is given, the last one first."""
    with contextlib.ExitStack() as stack:

        def keep(something: Any) -> Any:
            stack.callback(something.close)
            return something

        yield keep


@pytest.fixture
def primary(tmp_path: Path, opened: Open) -> Primary:
    return opened(Primary(open_file_storage(tmp_path / "primary"), LOOPBACK))


def follow(directory: Path, address: object, reconnect_delay: float = 0.05) -> Secondary:
    delays = reconnect_delay, reconnect_delay
    return Secondary(open_file_storage(directory), address, reconnect_delay=delays)


def test_a_cascade(primary: Primary, tmp_path: Path, opened: Open, browser: Browser) -> None:
    following = follow(tmp_path / "cascade", primary.replication_address)
    cascade = opened(Primary(following, LOOPBACK))
    leaf = opened(follow(tmp_path / "leaf", cascade.replication_address))
    at_leaf = opened(StatusServer(leaf, LOOPBACK))
    at_cascade = opened(StatusServer(cascade, LOOPBACK))
    served = opened(StatusServer(primary, LOOPBACK, nodes=[at_cascade.address, at_leaf.address]))
    with traffic(primary) as commits:
        commits.commit(20)
        browser.open(f"{served.url}")
        expected = [
            f"✓ serving: {primary.replication_address}",
            [
                f"✓ replicating: {cascade.replication_address}",
                [f"✓ replicating: {at_leaf.url}"],
            ],
        ]
        wait_for(lambda: names(browser) == [expected], "the topology")
        wait_for(lambda: leaf.progress.tid == primary.lastTransaction(), "the leaf")
        browser.wait_for("✓ waiting", "peers")
        requests, console = browser.happened()
        assert console == []
        assert [each for each in requests if not each.startswith(served.url)] == []
        browser.open(at_leaf.url)
        browser.wait_for(f"0x{primary.lastTransaction().hex()}", "figures")
        browser.wait_for("no news since ", "figures")


def shown_lag(browser: Browser) -> float:
    """In seconds; not a number if it is not known."""
    found = re.match(r"Lag\s+([\d.]+) (ms|s)\b", browser.text("figures"))
    return float(found[1]) * {"ms": 0.001, "s": 1}[found[2]] if found else float("nan")


def test_a_slow_line(primary: Primary, tmp_path: Path, opened: Open, browser: Browser) -> None:
    line = opened(DelayedLine(primary.replication_address))
    secondary = opened(follow(tmp_path / "secondary", line.address))
    at_primary = opened(StatusServer(primary, LOOPBACK))
    served = opened(StatusServer(secondary, LOOPBACK, nodes=[at_primary.address]))
    with traffic(primary, blobs=False) as commits:
        commits.commit(5)
        browser.open(served.url)
        browser.wait_for("✓ replicating", "state")
        behind_the_line = [f"✓ replicating: {secondary.getName()}"]
        expected = [f"✓ serving: {primary.replication_address}", behind_the_line]
        wait_for(lambda: names(browser) == [expected], "the topology")
        for delay in (0.4, 1.5):
            line.to_client = delay
            assert_lag_is_shown(browser, line, secondary, primary, commits)
    assert browser.happened()[1] == []


def assert_lag_is_shown(
    browser: Browser, line: DelayedLine, secondary: Secondary, primary: Primary, commits: Any
) -> None:
    """What the line imposes is shown within a tenth, or 50 ms; a busy machine may add to it."""
    tried = []
    while len(tried) < 10:
        line.imposed.clear()
        commits.commit()
        tid = primary.lastTransaction()
        wait_for(lambda tid=tid: secondary.progress.tid == tid, "the commit")
        # Until then the lag grows.
        here = re.compile(rf"Last transaction here\s+\S+\s+0x{tid.hex()}")
        wait_for(lambda here=here: here.search(browser.text("figures")), "the commit on the page")
        imposed, lag = max(line.imposed), shown_lag(browser)
        tried.append((imposed, lag))
        tolerance = max(0.1 * imposed, 0.05)
        assert lag > imposed - tolerance, tried
        if lag < imposed + tolerance:
            return
    raise AssertionError(f"imposed and shown: {tried}")


def test_a_line_that_breaks(
    primary: Primary, tmp_path: Path, opened: Open, browser: Browser
) -> None:
    # Long enough to be gone from the old line before it tries again.
    secondary = opened(follow(tmp_path / "secondary", primary.replication_address, 20.0))
    served = opened(StatusServer(secondary, LOOPBACK))
    took: list[float] = []
    with traffic(primary, blobs=False) as commits:
        commits.commit(5)
        browser.open(served.url)
        # Where the machine is busy with something else, it may take longer once.
        while min(took, default=60) > 2:
            assert len(took) < 10, took
            with DelayedLine(primary.replication_address) as line:
                secondary.setReplicationAddress(line.address)
                wait_for(lambda: secondary.progress.connected, "a connection")
                browser.wait_for("✓ replicating", "state")
            wait_for(lambda: not secondary.progress.connected, "the end of the connection")
            begin = time.monotonic()
            browser.wait_for("✗ connection lost", "state")
            took.append(time.monotonic() - begin)


def test_a_primary_that_does_not_answer(
    primary: Primary, tmp_path: Path, opened: Open, browser: Browser
) -> None:
    secondary = opened(follow(tmp_path / "secondary", primary.replication_address))
    ahead = StatusServer(primary, LOOPBACK)
    served = opened(StatusServer(secondary, LOOPBACK, nodes=[ahead.address]))
    address = str(primary.replication_address)
    with traffic(primary, blobs=False) as commits:
        commits.commit(5)
        browser.open(served.url)
        behind = f"{secondary.getName()}"
        wait_for(
            lambda: names(browser) == [[f"✓ serving: {address}", [f"✓ replicating: {behind}"]]],
            "the topology",
        )
        ahead.close()
        drawn = [[f"✗ no answer: {address}", [f"▲ primary silent: {behind}"]]]
        browser.wait_for("▲ primary silent", "state")
        wait_for(lambda: names(browser) == drawn, "one tree")
        # A page that is opened now has not seen it answer.
        browser.open(served.url)
        browser.wait_for("▲ primary silent", "state")
        wait_for(lambda: names(browser) == drawn, "one tree again")
        assert "has not answered since" in browser.text("reason")
