"""Whether everybody can read the page: on a phone, in the dark, without colours, by ear."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest

from ..conditions import wait_for
from . import fake
from .browser import Browser
from .fake import FakeNode

pytestmark = pytest.mark.long

LONG = "replica-of-the-reading-room-" * 6
PATH = "/var/lib/" + "a-directory-with-a-long-name/" * 4 + "zrs.sock"


@pytest.fixture
def node() -> FakeNode:
    """A cascade with all there is to show, and long names for it."""
    now = time.time()
    error = {"message": f"an error without a gap: {LONG}{LONG}", "time": now - 100}
    peers = [
        fake.peer("[2001:0db8:85a3:0000:0000:8a2e:0370:7334]:40001", certificate=LONG),
        fake.peer(PATH, state="sending", lag_seconds=4000.0, lag_transactions=123_456),
        fake.peer("127.0.0.1:40011", state="greeting", position=None, lag_seconds=None),
    ]
    node = fake.FakeNode(
        fake.node(
            "cascade",
            primary=fake.primary(PATH, *peers, missing_blobs=3, last_error=error),
            secondary=fake.secondary("127.0.0.1:8100", "127.0.0.1:40001", last_error=error),
            name=PATH.replace("zrs.sock", "Data.fs"),
            ready=False,
            ready_reason=f"behind its primary {LONG}",
        )
    )
    leaf = fake.secondary(PATH, "127.0.0.1:40011", connected=False, state="connecting")
    leafs = fake.primary("127.0.0.1:8103", fake.peer("127.0.0.1:40021"))
    node.others = [
        fake.other("http://leaf/", fake.node("cascade", primary=leafs, secondary=leaf, pid=3)),
        fake.other(f"http://{LONG}/", None, LONG),
        fake.other("http://lone/", fake.node("primary", primary=fake.primary("a:1"), pid=4)),
    ]
    node.samples = [[age, age / 1000, 1.0, 100.0] for age in range(3500, 0, -5)]
    return node


def opened(browser: Browser, url: str, **how: Any) -> None:
    browser.open(url, **how)
    browser.wait_for("▲ not ready", "state")
    browser.wait_for("a:1", "topology")
    browser.click("summary")


# It is drawn anew when there is another width.
_CHART_FITS = """
const chart = document.getElementById("chart");
return chart.querySelector("svg").clientWidth === chart.clientWidth;
"""

# Pixels to scroll to the right.
_BESIDE = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"

# What sticks out on the right, but for what is meant for screen readers alone.
_OUTSIDE = """
const width = document.documentElement.clientWidth;
return [...document.body.querySelectorAll("*")]
  .filter((each) => each.getBoundingClientRect().right > width + 0.5)
  .filter((each) => !each.closest("thead"))
  .map((each) => `${each.tagName} ${each.textContent.slice(0, 50)}`);
"""


# What has more in it than can be seen.
_CUT_OFF = """
const texts = "#chart svg, .node, td, tbody th, dd, #errors li, p, h1";
return [...document.querySelectorAll(texts)]
  .filter((each) => each.scrollWidth > Math.max(each.clientWidth, 1) + 1)
  .map((each) => `${each.tagName} ${each.textContent.slice(0, 50)}`);
"""


def test_nothing_is_wider_than_the_screen(browser: Browser, node: FakeNode, url: str) -> None:
    opened(browser, url)
    for width in (320, 360, 768, 1200):
        browser.resize(width)
        wait_for(lambda: browser.run(_CHART_FITS), "the chart")
        assert browser.run("return document.documentElement.clientWidth") <= width
        assert browser.run(_BESIDE) == 0
        assert browser.run(_OUTSIDE) == []
        assert browser.run(_CUT_OFF) == []


# Each text with its colour and that behind it.
_COLOURS = """
const behind = (element) => {
  for (let each = element; each; each = each.parentElement) {
    const colour = getComputedStyle(each).backgroundColor;
    if (colour !== "rgba(0, 0, 0, 0)") return colour;
  }
};
const found = [];
const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (texts.nextNode()) {
  const element = texts.currentNode.parentElement;
  if (!texts.currentNode.data.trim() || !element.checkVisibility()) continue;
  if (["title", "desc"].includes(element.tagName)) continue;
  const style = getComputedStyle(element);
  const colour = element.closest("svg") ? style.fill : style.color;
  found.push([texts.currentNode.data, colour, behind(element)]);
}
return found;
"""


def contrast(*colours: str) -> float:
    """By the formula of WCAG 2."""

    def luminance(colour: str) -> float:
        parts = [int(each) / 255 for each in re.findall(r"\d+", colour)]
        red, green, blue = (
            each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in parts
        )
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    low, high = sorted(map(luminance, colours))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("dark", [False, True])
def test_all_text_has_contrast(dark: bool, browser: Browser, node: FakeNode, url: str) -> None:
    opened(browser, url, dark=dark)
    texts = browser.run(_COLOURS)
    assert len(texts) > 100
    assert [each for each in texts if contrast(*each[1:]) < 4.5] == []
    background = browser.run("return getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(255, 255, 255)") is not dark
    # Good and bad differ in more than hue.
    script = "return getComputedStyle(document.querySelector(arguments[0])).backgroundColor"
    good, careful, bad = (
        browser.run(script, f"#legend .{each}") for each in ("good", "careful", "bad")
    )
    assert contrast(good, bad) > 3
    assert contrast(careful, bad if not dark else good) > 3


KINDS = {"good": "✓", "busy": "…", "careful": "▲", "bad": "✗", "unknown": "?"}


def test_every_kind_has_a_symbol_and_is_explained(
    browser: Browser, node: FakeNode, url: str
) -> None:
    opened(browser, url)
    legend = browser.text("legend")
    for kind, symbol in KINDS.items():
        assert f"{symbol} {kind}" in legend


def roles(browser: Browser) -> dict[str, list[str]]:
    """The names of all that a screen reader finds, by their roles."""
    found: dict[str, list[str]] = {}
    for each in browser.accessible():
        if not each["ignored"]:
            name = each.get("name", {}).get("value", "")
            found.setdefault(each["role"]["value"], []).append(name)
    return found


@pytest.mark.parametrize("width", [360, 1200])
def test_what_a_screen_reader_finds(width: int, browser: Browser, node: FakeNode, url: str) -> None:
    opened(browser, url, width=width)
    found = roles(browser)
    for landmark in ("banner", "main", "contentinfo"):
        assert len(found[landmark]) == 1, landmark
    headings = found["heading"]
    assert headings[1:] == [
        "Now",
        "Who follows whom",
        "Lag over the last hour",
        "Rates",
        "Connected secondaries",
        "Last errors",
    ]
    assert found["table"] == ["Rates", "Connected secondaries"]
    assert found["columnheader"][:4] == ["What", "Over", "Transactions/s", "Bytes/s"]
    assert len(found["rowheader"]) == 4 + 3
    assert len(found["cell"]) == 4 * 3 + 3 * 6
    assert found["list"].count("followed by") == 3
    image = next(each for each in browser.accessible() if each["role"]["value"] == "image")
    assert image["name"]["value"] == "Lag over the last hour"
    described = image["description"]["value"].replace("\xa0", " ")
    assert described.startswith("Now 12 ms; most 3.50 s, at ")
    live = "return document.getElementById(arguments[0]).getAttribute('aria-live')"
    assert [browser.run(live, id) for id in ("state", "silent")] == ["polite", "polite"]
