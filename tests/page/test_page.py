"""What the page shows of what a node says."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest

from zrs_core.progress import State

from ..conditions import wait_for
from . import fake
from .browser import Browser
from .fake import FakeNode

pytestmark = pytest.mark.long

PRIMARY = "127.0.0.1:8100"


def says(node: FakeNode, **changed: Any) -> None:
    """Something else of the secondary than it has said."""
    node.status = {**node.status, "secondary": {**node.status["secondary"], **changed}}


def test_it_loads_from_its_node_alone(browser: Browser, node: FakeNode, url: str) -> None:
    browser.open(url)
    browser.wait_for("✓ replicating", "state")
    assert browser.title() == "✓ replicating – Data.fs"
    assert browser.text("name") == "/var/lib/secondary/Data.fs"
    figures = browser.text("figures")
    for each in ("12 ms", "no news since 2026-11-22 06:00:00 UTC", fake.TID, PRIMARY, "1.2 MB"):
        assert each in figures
    assert "11 33 kB/s" in browser.text("rates").replace("\t", " ")
    assert browser.text("no-errors") == "None that is known."
    # Several rounds of questions.
    says(node, lag_seconds=1.0)
    browser.wait_for("1.00 s", "figures")
    requests, console = browser.happened()
    assert console == []
    assert {f"{url}{name}" for name in ("", "style.css", "page.js", "status")} <= {*requests}
    assert [each for each in requests if not each.startswith(url)] == []


def test_a_lag_that_changes_is_shown_live(browser: Browser, node: FakeNode, url: str) -> None:
    browser.open(url)
    browser.wait_for("Now 12 ms", "lag-summary")
    before = line(browser)
    for lag, words in ((2.345, "2.35 s"), (65.0, "1 min 5 s"), (0.4, "400 ms")):
        says(node, lag_seconds=lag)
        browser.wait_for(f"Now {words}", "lag-summary")
        browser.wait_for(words, "figures")
    assert "most 1 min 5 s" in browser.text("lag-summary")
    assert line(browser) != before
    assert "80 s" in axis(browser)


def line(browser: Browser) -> str:
    return str(browser.run("return document.querySelector('#chart .line').getAttribute('d')"))


def axis(browser: Browser) -> list[str]:
    script = "return [...document.querySelectorAll('#chart text')].map((each) => each.textContent)"
    return list(browser.run(script))


def test_a_lag_that_is_not_known_is_no_number(browser: Browser, node: FakeNode, url: str) -> None:
    says(node, lag_seconds=None)
    browser.open(url)
    browser.wait_for("Now not known; not known in the last hour.", "lag-summary")
    assert "Lag\nnot known\nNews" in re.sub("\n+", "\n", browser.text("figures"))
    assert line(browser) == ""


def test_the_last_hour_is_drawn(browser: Browser, node: FakeNode, url: str) -> None:
    # Every second but for ten minutes in which nothing was known, and one short peak.
    node.samples = [
        [age, None if 1200 < age <= 1800 else 7.5 if age == 900 else 0.5, 1.0, 100.0]
        for age in range(5000, 0, -1)
    ]
    browser.open(url)
    browser.wait_for("most 7.50 s, at ", "lag-summary")
    drawn = line(browser)
    assert drawn.count("M") == 2
    places = [float(each) for each in re.findall(r"[ML]([\d.]+) ", drawn)]
    width = browser.run("return document.querySelector('#chart svg').clientWidth")
    assert len(places) <= width
    assert 60 < places[0] < 70
    assert width - 20 < places[-1] <= width
    assert "8 s" in axis(browser)
    assert len([each for each in axis(browser) if ":" in each]) == 6
    # What another browser has seen is asked for once.
    assert len([each for each in browser.happened()[0] if each.endswith("/history")]) == 1


def test_a_lost_connection_is_shown_within_two_seconds(
    browser: Browser, node: FakeNode, url: str
) -> None:
    browser.open(url)
    browser.wait_for("✓ replicating", "state")
    before = node.status
    took = []
    # Where the machine is busy with something else, it may take longer once.
    while min(took, default=60) > 2:
        assert len(took) < 10, took
        begin = time.monotonic()
        says(node, connected=False, state="connecting", local_address=None, lag_seconds=None)
        browser.wait_for("✗ connection lost", "state")
        took.append(time.monotonic() - begin)
        browser.wait_for("✗ connection lost", "topology")
        node.status = before
        browser.wait_for("✓ replicating", "state")


def test_a_node_that_is_gone(browser: Browser, node: FakeNode) -> None:
    with fake.served(node) as url:
        browser.open(url)
        browser.wait_for("✓ replicating", "state")
        browser.wait_for("this node", "topology")
    browser.wait_for("✗ no answer", "state")
    browser.wait_for("This node has not answered since ", "silent")
    browser.wait_for("✗ no answer", "topology")
    assert browser.title() == "✗ no answer"
    # What was known then is still there to read.
    assert "12 ms" in browser.text("figures")
    with fake.served(node, int(url.rstrip("/").rpartition(":")[2])):
        browser.wait_for("✓ replicating", "state")
        assert browser.text("silent") == ""


def test_a_node_that_does_not_get_to_answer(browser: Browser, node: FakeNode, url: str) -> None:
    node.answers.clear()
    browser.open(url)
    browser.wait_for("✗ no answer", "state")
    browser.wait_for("This node has not answered since ", "silent")
    assert browser.text("figures") == ""
    node.answers.set()
    browser.wait_for("✓ replicating", "state")


def test_an_answer_that_cannot_be_shown_is_none(browser: Browser, node: FakeNode, url: str) -> None:
    browser.open(url)
    browser.wait_for("✓ replicating", "state")
    before, node.status = node.status, {"role": "something else"}
    browser.wait_for("✗ no answer", "state")
    node.status = before
    browser.wait_for("✓ replicating", "state")


BAD = {State.REFUSED, State.DIVERGED, State.FAILING, State.STOPPED}
GOOD = {State.REPLICATING: ["good", "replicating"], State.COMPARING: ["busy", "comparing"]}


def test_every_state_of_a_secondary(browser: Browser, node: FakeNode, url: str) -> None:
    browser.open(url)
    for state in State:
        for connected in (True, False):
            said = {**node.status["secondary"], "state": str(state), "connected": connected}
            expected = ["bad", str(state)] if state in BAD else ["bad", "connection lost"]
            if connected and state not in BAD:
                expected = GOOD.get(state, ["careful", "not ready"])
            status = {**node.status, "secondary": said, "ready": state is State.REPLICATING}
            script = "return (await import('/words.js')).stateOf(arguments[0])"
            assert browser.run(script, status) == expected


def test_other_states(browser: Browser, node: FakeNode, url: str) -> None:
    browser.open(url)
    node.status |= {"ready": False, "ready_reason": "12.000 s behind its primary"}
    browser.wait_for("▲ not ready", "state")
    assert browser.text("reason") == "Not ready: 12.000 s behind its primary"
    node.status["ready"] = True
    browser.wait_for("✓ replicating", "state")
    assert browser.text("reason") == ""
    says(node, connected=False, connections=0, state="connecting")
    browser.wait_for("▲ connecting", "state")
    node.status = fake.node("primary", primary=fake.primary(PRIMARY))
    browser.wait_for("▲ no secondary", "state")
    assert browser.text("no-peers") == "None."
    node.status["primary"]["peers"] = [fake.peer("127.0.0.1:40001")]
    browser.wait_for("✓ serving", "state")
    node.status |= {"ready": False, "ready_reason": "it is being closed"}
    browser.wait_for("▲ not ready", "state")


def test_the_secondaries_of_a_primary(browser: Browser, node: FakeNode, url: str) -> None:
    node.status = fake.node(
        "primary",
        primary=fake.primary(
            PRIMARY,
            fake.peer("127.0.0.1:40001", certificate="replica-1", lag_seconds=1.5),
            fake.peer("127.0.0.1:40002", state="sending", lag_seconds=2.25, lag_transactions=7),
            fake.peer(
                "127.0.0.1:40003",
                state="greeting",
                protocol=None,
                position=None,
                lag_seconds=None,
                lag_transactions=None,
            ),
            missing_blobs=3,
        ),
    )
    browser.open(url)
    browser.wait_for("40003", "peers")
    rows = browser.text("peers").replace("\t", " ").split("127.0.0.1:")
    assert "replica-1" in rows[1]
    assert "✓ waiting" in rows[1]
    assert "1.50 s" in rows[1]
    assert "… sending" in rows[2]
    assert "2.25 s, 7 transactions" in rows[2]
    assert "250 ms" in rows[2]
    assert "… greeting" in rows[3]
    assert "not known" in rows[3]
    assert "▲ 3 blobs missing" in browser.text("figures")
    assert "Now 2.25 s, of the secondary that is furthest behind" in browser.text("lag-summary")


def test_the_last_errors(browser: Browser, node: FakeNode, url: str) -> None:
    now = time.time()
    says(node, last_error={"message": "connection reset by peer", "time": now - 100})
    told = fake.primary(PRIMARY, last_error={"message": "no such tid", "time": now - 50})
    leader = fake.node("primary", primary=told, pid=1)
    node.others = [
        fake.other("http://a/", leader),
        fake.other("http://c/", leader),
        fake.other("http://b/", None, "connection refused"),
    ]
    browser.open(url)
    browser.wait_for("no such tid", "errors")
    text = browser.text("errors")
    messages = ("connection refused", "no such tid", "connection reset by peer")
    assert sorted(messages, key=text.index) == [*messages]
    assert text.count("no such tid") == 1
    for each in ("now, http://b/", "primary /var/lib/primary/Data.fs"):
        assert each in text
    # What is selected stays so while everything else changes.
    browser.run("getSelection().selectAllChildren(document.querySelector('#errors li'))")
    for lag in (1.0, 2.0):
        says(node, lag_seconds=lag)
        browser.wait_for(f"Now {lag:.2f} s", "lag-summary")
    assert "connection refused" in browser.run("return String(getSelection())")
    assert browser.text("no-errors") == ""


HOSTILE = (
    "<img src=x onerror='window.injected=1'><script>window.injected=1</script>"
    "<svg onload='window.injected=1'></svg>&lt;b&gt;\"'`${window.injected=1}"
)


def test_no_text_becomes_a_part_of_the_page(browser: Browser, node: FakeNode, url: str) -> None:
    error = {"message": HOSTILE, "time": time.time()}
    peer = fake.peer(HOSTILE, certificate=HOSTILE, protocol=HOSTILE, state="sending")
    peer["position"] = {"tid": HOSTILE, "time": 1.0}
    node.status = fake.node(
        "cascade",
        primary=fake.primary(HOSTILE, peer, transport=HOSTILE, last_error=error),
        secondary=fake.secondary(
            HOSTILE, HOSTILE, state=HOSTILE, news=HOSTILE, protocol=HOSTILE, last_error=error
        ),
        name=HOSTILE,
        version=HOSTILE,
        ready=False,
        ready_reason=HOSTILE,
    )
    node.others = [fake.other(HOSTILE, None, HOSTILE)]
    browser.open(url)
    for id in ("name", "what", "reason", "figures", "topology", "peers", "errors"):
        browser.wait_for("<img src=x onerror='window.injected=1'><script>", id)
    browser.run("await new Promise((resolve) => setTimeout(resolve, 100))")
    found = "main img, main script, main svg svg, header *:not(h1, p, span), [onload], [onerror]"
    assert browser.run(f"return document.querySelectorAll('{found}').length") == 0
    assert browser.run("return window.injected") is None
    requests, console = browser.happened()
    assert console == []
    assert [each for each in requests if each.endswith("/x")] == []


DURATIONS = {
    0: "0 ms",
    0.0004: "0 ms",
    0.9994: "999 ms",
    0.9996: "1.00 s",
    9.994: "9.99 s",
    9.996: "10.0 s",
    59.9: "59.9 s",
    59.96: "1 min 0 s",
    3599.4: "59 min 59 s",
    3599.6: "1 h 0 min",
    172799: "2 d 0 h",
    900000: "10 d 10 h",
    -0.5: "−500 ms",
}


def test_numbers_in_words(browser: Browser, url: str) -> None:
    browser.open(url)

    def said(function: str, *arguments: object) -> str:
        script = f"return (await import('/words.js')).{function}(...arguments)"
        return str(browser.run(script, *arguments)).replace("\xa0", " ")

    assert {each: said("duration", each) for each in DURATIONS} == DURATIONS
    assert said("duration", None) == "not known"
    sizes = {0: "0 B", 999: "999 B", 1000: "1 kB", 1_234_567: "1.2 MB", 99_950_000: "100 MB"}
    assert {each: said("size", each) for each in sizes} == sizes
    assert said("count", 1, "blob") == "1 blob"
    assert said("count", 12_345, "blob") == "12,345 blobs"
    numbers = {0.04: "0.04", 0.25: "0.25", 12.34: "12.3", 1234.5: "1,235"}
    assert {each: said("digits", each) for each in numbers} == numbers
    noon, second = time.mktime((2026, 11, 22, 12, 0, 0, 0, 0, -1)), 1
    assert said("time", noon, noon + second) == "12:00:00"
    assert said("time", noon, noon + 86400) == "2026-11-22 12:00:00"


def test_the_chart_is_as_wide_as_there_is_room(browser: Browser, url: str) -> None:
    browser.open(url)
    browser.wait_for("replicating", "state")
    narrow, wide = 400, 1000
    widths = []
    for least, width in ((0, narrow), (narrow, wide)):
        browser.resize(width)
        # It is drawn again some time after that.
        wait_for(
            lambda least=least, width=width: least < chart_width(browser) <= width, "the chart"
        )
        widths.append(chart_width(browser))
    assert widths[0] < widths[1]


def chart_width(browser: Browser) -> int:
    return int(browser.run("return document.querySelector('#chart svg').clientWidth"))
