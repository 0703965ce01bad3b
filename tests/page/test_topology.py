"""Who follows whom, from what nodes say of themselves and of each other."""

from __future__ import annotations

from typing import Any

import pytest

from ..conditions import wait_for
from . import fake
from .browser import Browser
from .fake import FakeNode

pytestmark = pytest.mark.long

FIRST, SECOND = "127.0.0.1:8100", "127.0.0.1:8101"

_TREES = """
const tree = (item) => [
  item.querySelector(".node").innerText.split("\\n").filter((line) => line),
  ...[...item.querySelectorAll(":scope > ul > li")].map(tree),
];
return [...document.querySelectorAll("#topology > li")].map(tree);
"""


def shown(browser: Browser) -> list[Any]:
    """Trees as [lines, followers ...]."""
    return list(browser.run(_TREES.replace("innerText", "innerText.replaceAll('\\xa0', ' ')")))


def names(browser: Browser) -> list[Any]:
    """Trees as [state and name, followers ...]."""

    def name(tree: list[Any]) -> list[Any]:
        lines, *followers = tree
        return [f"{lines[0]}: {lines[2] if len(lines) > 2 else lines[1]}", *map(name, followers)]

    return [name(each) for each in shown(browser)]


def wait_for_trees(browser: Browser, *trees: list[Any]) -> None:
    try:
        wait_for(lambda: names(browser) == [*trees], "the topology")
    except AssertionError as error:
        raise AssertionError(f"{names(browser)} is not {[*trees]}") from error


def primary(*peers: dict[str, Any], address: str = FIRST) -> dict[str, Any]:
    return fake.node("primary", primary=fake.primary(address, *peers), pid=1)


def cascade(*peers: dict[str, Any], local: str | None) -> dict[str, Any]:
    following = fake.secondary(FIRST, local)
    serving = fake.primary(SECOND, *peers)
    return fake.node("cascade", primary=serving, secondary=following, pid=2)


def secondary(of: str, local: str | None, pid: int = 3, **changed: Any) -> dict[str, Any]:
    return fake.node("secondary", secondary=fake.secondary(of, local, **changed), pid=pid)


def lost(of: str, pid: int = 3) -> dict[str, Any]:
    return secondary(of, None, pid, connected=False, state="connecting", lag_seconds=None)


def test_through_a_cascade(browser: Browser, node: FakeNode, url: str) -> None:
    stranger = fake.peer("127.0.0.1:40009", state="sending", certificate="replica", lag_seconds=2.0)
    node.status = cascade(fake.peer("127.0.0.1:40011"), local="127.0.0.1:40001")
    node.others = [
        fake.other("http://leaf/", secondary(SECOND, "127.0.0.1:40011")),
        fake.other("http://first/", primary(fake.peer("127.0.0.1:40001"), stranger)),
        fake.other("http://away/", None, "timed out"),
    ]
    browser.open(url)
    wait_for_trees(
        browser,
        [
            f"✓ serving: {FIRST}",
            [f"✓ replicating: {SECOND}", ["✓ replicating: http://leaf/"]],
            ["… sending: 127.0.0.1:40009"],
        ],
        ["✗ no answer: timed out"],
    )
    _, cascading, unknown = shown(browser)[0]
    assert cascading[0][1] == "cascade (this node)"
    assert "lag 12 ms" in cascading[0]
    assert unknown[0][1:] == ["secondary", "127.0.0.1:40009", "replica", "lag 2.00 s"]
    assert shown(browser)[1][0][1] == "http://away/"


def test_a_lost_connection_stays_an_arrow(browser: Browser, node: FakeNode, url: str) -> None:
    # The address that the primary is reached at here is not the one that it says it listens on.
    node.status = primary(fake.peer("127.0.0.1:40001"), address="0.0.0.0:8100")
    leaf = fake.other("http://leaf/", secondary(FIRST, "127.0.0.1:40001"))
    node.others = [leaf]
    browser.open(url)
    wait_for_trees(browser, ["✓ serving: 0.0.0.0:8100", ["✓ replicating: http://leaf/"]])
    node.status["primary"]["peers"] = []
    leaf["status"] = lost(FIRST)
    wait_for_trees(browser, ["▲ no secondary: 0.0.0.0:8100", ["✗ connection lost: http://leaf/"]])
    # Whom it is to follow from now on has not been seen here, and there are two that it may be.
    leaf["status"] = lost("127.0.0.1:8102")
    node.others.append(fake.other("http://b/", {**primary(address="b:1"), "pid": 9}))
    wait_for_trees(
        browser,
        ["▲ no secondary: 0.0.0.0:8100"],
        ["▲ no secondary: b:1"],
        ["? not asked: 127.0.0.1:8102", ["✗ connection lost: http://leaf/"]],
    )


def test_through_something_that_changes_addresses(
    browser: Browser, node: FakeNode, url: str
) -> None:
    node.status = primary(fake.peer("10.0.0.1:50001"))
    leaf = fake.other("http://leaf/", secondary("10.0.0.1:9999", "127.0.0.1:40001"))
    node.others = [leaf]
    browser.open(url)
    wait_for_trees(browser, [f"✓ serving: {FIRST}", ["✓ replicating: http://leaf/"]])
    # Which of these is it?
    node.status["primary"]["peers"].append(fake.peer("10.0.0.1:50002"))
    both = ["✓ waiting: 10.0.0.1:50001"], ["✓ waiting: 10.0.0.1:50002"]
    wait_for_trees(browser, [f"✓ serving: {FIRST}", ["✓ replicating: http://leaf/"], *both])


def test_a_primary_is_found_by_its_address_too(browser: Browser, node: FakeNode, url: str) -> None:
    node.status = primary()
    node.others = [fake.other("http://leaf/", lost(FIRST))]
    browser.open(url)
    wait_for_trees(browser, [f"▲ no secondary: {FIRST}", ["✗ connection lost: http://leaf/"]])


def test_those_whose_primary_is_not_asked(browser: Browser, node: FakeNode, url: str) -> None:
    node.status = secondary(FIRST, "127.0.0.1:40001")
    node.others = [fake.other("http://leaf/", secondary(FIRST, "127.0.0.1:40002", 4))]
    browser.open(url)
    wait_for_trees(
        browser,
        [
            f"? not asked: {FIRST}",
            ["✓ replicating: /var/lib/secondary/Data.fs"],
            ["✓ replicating: http://leaf/"],
        ],
    )


def test_a_primary_that_does_not_answer_is_drawn_once(
    browser: Browser, node: FakeNode, url: str
) -> None:
    node.status = secondary(FIRST, "127.0.0.1:40001")
    leaf = fake.other("http://leaf/", secondary(FIRST, "127.0.0.1:40002", 4))
    silent = fake.other("http://127.0.0.1:8201/", None, "no answer within 2 s")
    node.others = [silent, leaf]
    browser.open(url)
    followers = [
        ["▲ primary silent: /var/lib/secondary/Data.fs"],
        ["▲ primary silent: http://leaf/"],
    ]
    # It has never answered, and is the only one that does not.
    wait_for_trees(browser, ["✗ no answer: no answer within 2 s", *followers])
    assert "http://127.0.0.1:8201/" in shown(browser)[0][0]
    # Of two, it is the one on the host that is followed.
    node.others.append(fake.other("http://away:1/", None, "refused"))
    wait_for_trees(
        browser,
        ["✗ no answer: no answer within 2 s", *followers],
        ["✗ no answer: refused"],
    )
    # What it said when it answered tells more.
    silent["url"] = "http://proxy/"
    silent["last"] = {"role": "primary", "address": FIRST, "time": node.status["now"] - 60}
    wait_for_trees(
        browser,
        [f"✗ no answer: {FIRST}", *followers],
        ["✗ no answer: refused"],
    )
    # One that is known to be a secondary is not the primary.
    silent["last"] = {"role": "secondary", "address": None, "time": 1.0}
    node.others = [silent]
    wait_for_trees(
        browser,
        ["✗ no answer: http://proxy/"],
        [f"? not asked: {FIRST}", ["✓ replicating: /var/lib/secondary/Data.fs"]],
    )


def test_a_secondary_that_does_not_answer_is_drawn_once(
    browser: Browser, node: FakeNode, url: str
) -> None:
    node.status = primary(fake.peer("127.0.0.1:40001"), fake.peer("127.0.0.1:40002"))
    leaf = fake.other("http://leaf/", None, "no answer within 2 s")
    following = {"name": "one", "primary_address": FIRST, "connected": True}
    leaf["last"] = {
        "role": "secondary",
        "address": None,
        "time": 1.0,
        "secondary": {**following, "local_address": "127.0.0.1:40001"},
    }
    other = fake.other("http://other/", secondary(FIRST, "127.0.0.1:40002", 4))
    node.others = [leaf, other]
    browser.open(url)
    both = ["✓ replicating: http://other/"], ["✗ no answer: http://leaf/"]
    wait_for_trees(browser, [f"✓ serving: {FIRST}", *both])
    assert shown(browser)[0][2][0][1:3] == ["secondary one", "http://leaf/"]
    # Where its connection is gone too, it is still below the primary that it followed.
    node.status["primary"]["peers"].pop(0)
    wait_for_trees(browser, [f"✓ serving: {FIRST}", *both])


def test_a_primary_that_does_not_answer_makes_the_headline(
    browser: Browser, node: FakeNode, url: str
) -> None:
    node.status = secondary(FIRST, "127.0.0.1:40001")
    leader = fake.other("http://first/", primary(fake.peer("127.0.0.1:40001")))
    node.others = [leader]
    browser.open(url)
    wait_for_trees(browser, [f"✓ serving: {FIRST}", ["✓ replicating: /var/lib/secondary/Data.fs"]])
    assert browser.text("state") == "✓ replicating"
    assert browser.text("reason") == ""
    leader.update(status=None, error="no answer within 2 s")
    browser.wait_for("▲ primary silent", "state")
    assert browser.title().startswith("▲ primary silent")
    assert "http://first/ has not answered" in browser.text("reason")
    assert "no news since 2026-11-22 06:00:00 UTC" in browser.text("reason")
    # Its first answer is only waited for.
    node.status["secondary"]["primary_status_age"] = 0.5
    browser.wait_for("✓ replicating", "state")
    assert browser.text("reason") == ""


def test_over_a_unix_socket(browser: Browser, node: FakeNode, url: str) -> None:
    path = "/run/zrs.sock"
    peers = [fake.peer(f"unix:{path}#{number}") for number in (7, 12, 13)]
    node.status = primary(*peers, address=path)
    node.others = [
        fake.other("http://one/", secondary(path, None, 3)),
        fake.other("http://two/", secondary(path, None, 4)),
    ]
    browser.open(url)
    wait_for_trees(
        browser,
        [
            f"✓ serving: {path}",
            ["✓ replicating: http://one/"],
            ["✓ replicating: http://two/"],
            [f"✓ waiting: unix:{path}#13"],
        ],
    )


def test_secondaries_have_names(browser: Browser, node: FakeNode, url: str) -> None:
    peers = [
        fake.peer("10.0.0.5:40001", name="10.0.0.5"),
        fake.peer("10.0.0.5:40002", name="10.0.0.5#2"),
        fake.peer("10.0.0.6:40003", name="replica.example", certificate="replica.example"),
    ]
    node.status = primary(*peers)
    leaf = secondary(FIRST, "10.0.0.5:40001", name="replica one")
    node.others = [fake.other("http://leaf/", leaf)]
    browser.open(url)

    def lines() -> list[Any]:
        return [each[0][1:3] for tree in shown(browser) for each in tree[1:]]

    expected = [
        ["secondary replica one", "http://leaf/"],
        ["secondary 10.0.0.5#2", "10.0.0.5:40002"],
        ["secondary replica.example", "10.0.0.6:40003"],
    ]
    wait_for(lambda: lines() == expected, "the names")
    heads = browser.run(
        "return [...document.querySelectorAll('#peers tbody th')].map((each) => each.innerText)"
    )
    assert [each.split()[0] for each in heads] == ["10.0.0.5", "10.0.0.5#2", "replica.example"]
    assert heads[2].count("replica.example") == 1
    # A secondary that connects again from another port is the same one.
    peers[1].update(address="10.0.0.5:40009")
    expected[1][1] = "10.0.0.5:40009"
    wait_for(lambda: lines() == expected, "the other port")


def test_a_secondary_that_is_gone(browser: Browser, node: FakeNode, url: str) -> None:
    node.status = primary(fake.peer("127.0.0.1:40001"), fake.peer("127.0.0.1:40002"))
    browser.open(url)
    both = ["✓ waiting: 127.0.0.1:40001"], ["✓ waiting: 127.0.0.1:40002"]
    wait_for_trees(browser, [f"✓ serving: {FIRST}", *both])
    node.status["primary"]["peers"].pop()
    gone = ["✗ connection lost: 127.0.0.1:40002"]
    wait_for_trees(browser, [f"✓ serving: {FIRST}", both[0], gone])
    assert shown(browser)[0][2][0][-1].startswith("since ")
    node.status["primary"]["peers"].append(fake.peer("127.0.0.1:40002"))
    wait_for_trees(browser, [f"✓ serving: {FIRST}", *both])


def test_one_that_is_gone_is_forgotten_in_the_end(browser: Browser, url: str) -> None:
    browser.open(url)
    script = """
        const { Topology } = await import("/topology.js");
        const topology = new Topology();
        const looked = (peers, now) => topology
          .trees([{ url: "", status: { primary: { address: "a", peers } }, error: null }], now)[0]
          .followers.map((each) => [each.address, each.gone]);
        const peer = { address: "b" };
        return [looked([peer], 0), looked([], 1), looked([], 60), looked([], 61), looked([], 62)];
    """
    assert browser.run(script) == [[["b", None]], [["b", 0]], [["b", 0]], [["b", 0]], []]


def test_nodes_under_two_names_and_in_a_circle(browser: Browser, node: FakeNode, url: str) -> None:
    this = fake.secondary(SECOND, "127.0.0.1:40011")
    node.status = fake.node(
        "cascade",
        primary=fake.primary(FIRST, fake.peer("127.0.0.1:40001")),
        secondary=this,
        pid=5,
    )
    other = cascade(fake.peer("127.0.0.1:40011"), local="127.0.0.1:40001")
    node.others = [fake.other("http://this/", node.status), fake.other("http://other/", other)]
    browser.open(url)
    wait_for_trees(
        browser,
        [
            f"? not asked: {FIRST}",
            [
                f"✓ replicating: {SECOND}",
                [f"✓ replicating: {FIRST}", ["✓ waiting: 127.0.0.1:40001"]],
            ],
        ],
    )


def test_nodes_that_cannot_be_asked_for(browser: Browser, node: FakeNode, url: str) -> None:
    node.others = [fake.other("http://leaf/", lost(FIRST))]
    browser.open(url)
    browser.wait_for("http://leaf/", "topology")
    node.forgets_others = True
    browser.wait_for("could not be asked for", "nodes-silent")
    assert "✓ replicating" in browser.text("state")
    node.forgets_others = False
    wait_for(lambda: not browser.text("nodes-silent"), "an answer")
