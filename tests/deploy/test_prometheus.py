"""The configuration of Prometheus, its alerts, and the dashboard of Grafana."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.status.http import get
from zrs_core import Primary, Secondary
from zrs_core.monitor import StatusServer
from zrs_core.monitor.metrics import NODE, PRIMARY, SECONDARY, Described
from zrs_core.progress import State
from zrs_core.transports.memory import MemoryNetwork

from . import DEPLOY, tool

PROMETHEUS = DEPLOY / "prometheus"
RULES = PROMETHEUS / "zrs.rules.yml"
DASHBOARD = PROMETHEUS / "grafana-dashboard.json"
TESTS = Path(__file__).with_name("zrs.rules.test.yml")

METRICS: dict[str, Described] = {each.name: each for each in (*NODE, *SECONDARY, *PRIMARY)}
#: What Prometheus adds to each series, here or by prometheus.yml.
ADDED = {"job", "instance", "database"}


def promtool(*arguments: object, text: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [tool("promtool", ".ci/install-prometheus installs it"), *map(str, arguments)],
        input=text,
        capture_output=True,
        text=True,
    )


def passes(*arguments: object, text: str = "") -> None:
    done = promtool(*arguments, text=text)
    assert done.returncode == 0, done.stdout + done.stderr


def panels() -> list[dict[str, Any]]:
    return list(json.loads(DASHBOARD.read_text())["panels"])


def targets() -> Iterator[dict[str, str]]:
    for each in panels():
        yield from each["targets"]


def expressions() -> dict[str, str]:
    """Each expression that is evaluated, by where it stands."""
    text = re.sub(r"expr: >-\n((?: {10,}.+\n)+)", _joined, RULES.read_text())
    found = dict(re.findall(r"- alert: (\w+)\n +expr: (.+)\n", text))
    assert len(found) == text.count("alert:") == text.count("expr:")
    found |= {
        f"{panel['title']} {target['refId']}": target["expr"]
        for panel in panels()
        for target in panel["targets"]
    }
    return found


def _joined(found: re.Match[str]) -> str:
    return f"expr: {' '.join(found[1].split())}\n"


def test_promtool_understands_the_configuration() -> None:
    passes("check", "config", PROMETHEUS / "prometheus.yml")
    assert "zrs.rules.yml" in (PROMETHEUS / "prometheus.yml").read_text()


def test_alerts_fire_when_they_should(tmp_path: Path) -> None:
    passes("check", "rules", RULES)
    tests = tmp_path / "tests.yml"
    tests.write_text(TESTS.read_text().replace("RULES", str(RULES)))
    passes("test", "rules", tests)


def test_each_alert_is_tested_both_ways() -> None:
    alerts = re.findall(r"- alert: (\w+)", RULES.read_text())
    entries = re.findall(
        r"(?:- \{eval_time: \w+, alertname: (\w+)\}|alertname: (\w+)\n +exp_alerts:)",
        TESTS.read_text(),
    )
    silent, firing = ({each[side] for each in entries} - {""} for side in (0, 1))
    assert len(alerts) == len({*alerts})
    assert silent == firing == {*alerts}


def test_every_metric_that_is_used_is_exported() -> None:
    assert len(expressions()) > 30
    for where, expression in expressions().items():
        used = re.findall(r"\b(zrs_\w+|up)\b", expression)
        assert used, where
        assert {*used} <= METRICS.keys() | {"up"}, where
    queries = json.loads(DASHBOARD.read_text())["templating"]["list"]
    names = {name for each in queries for name in re.findall(r"\bzrs_\w+", json.dumps(each))}
    assert names <= METRICS.keys()
    texts = re.findall(r"\bzrs_\w+", RULES.read_text())
    assert {*texts} <= METRICS.keys()


def test_what_an_operator_must_know_is_watched() -> None:
    alerts = " ".join(expression for name, expression in expressions().items() if "ZRS" in name)
    for each in (
        "up",
        "zrs_ready",
        "zrs_connected",
        "zrs_lag_seconds",
        "zrs_state",
        "zrs_failures",
        "zrs_missing_blobs_total",
        "zrs_primary_missing_blobs_total",
        "zrs_primary_status_age_seconds",
        "zrs_peer_lag_seconds",
        "zrs_refused_connections_total",
    ):
        assert re.search(rf"\b{each}\b", alerts), each


def test_labels_and_their_values_are_those_of_the_metrics() -> None:
    for where, expression in expressions().items():
        for name, matchers in re.findall(r"\b(zrs_\w+)\{(.*?)\}", expression):
            for label, values in re.findall(r'(\w+)=~?"(.*?)"', matchers):
                assert label in {*METRICS[name].labels} | ADDED, where
                if label == "state":
                    assert {*values.split("|")} <= {str(each) for each in State}, where
    for target in targets():
        names = re.findall(r"\b(zrs_\w+)\b", target["expr"])
        known = {label for name in names for label in METRICS[name].labels} | ADDED
        assert {*re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])} <= known


def test_promtool_understands_the_expressions_of_the_dashboard(tmp_path: Path) -> None:
    rules = tmp_path / "rules.yml"
    lines = ["groups:", "- name: dashboard", "  rules:"]
    for number, target in enumerate(targets()):
        expression = target["expr"].replace("$__rate_interval", "5m").replace("$database", ".*")
        assert "$" not in expression
        lines += [f"  - record: panel{number}", f"    expr: {json.dumps(expression)}"]
    rules.write_text("\n".join(lines))
    passes("check", "rules", rules)


def test_panels_do_not_overlap() -> None:
    covered = set()
    for panel in panels():
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not covered & cells, panel["title"]
        covered |= cells
    assert {x for x, _ in covered} == {*range(24)}
    assert len({each["id"] for each in panels()}) == len(panels())


@pytest.mark.parametrize("role", ["primary", "cascade"])
def test_prometheus_reads_what_is_exported(role: str, tmp_path: Path) -> None:
    network = MemoryNetwork()
    options = {"reactor": network, "transport": "memory"}
    storage: Any = Primary(tmp_path / "p.fs", ("", 8000), **options)
    opened = [storage]
    try:
        storage = Secondary(tmp_path / "s.fs", ("", 8000), name='a "name"\\', **options)
        if role == "cascade":
            storage = Primary(storage, ("", 8001), **options)
        opened.append(storage)
        network.run()
        with StatusServer(opened[role == "cascade"], "127.0.0.1:0") as server:
            text = get(server.address, "/metrics").body.decode()
    finally:
        while opened:
            opened.pop().close()
    done = promtool("check", "metrics", text=text)
    # Status 3 is for remarks on style.
    assert done.returncode in (0, 3), done.stderr
    assert "error while linting" not in done.stderr


def test_the_page_names_what_is_there() -> None:
    text = (DEPLOY.parent / "docs" / "monitoring.rst").read_text(encoding="utf-8")
    for path in PROMETHEUS.iterdir():
        assert f"deploy/prometheus/{path.name}" in text
