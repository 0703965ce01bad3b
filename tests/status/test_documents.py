"""What docs/monitoring.rst says is what there is."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from zrs_core.monitor.metrics import NODE, PRIMARY, SECONDARY, render
from zrs_core.status.state import (
    KnownPosition,
    NodeStatus,
    PeerStatus,
    PrimaryStatus,
    Rates,
    SecondaryStatus,
    as_json,
)

from .conftest import ADDRESS

TEXT = Path(__file__).parents[2].joinpath("docs", "monitoring.rst").read_text("utf-8")

#: A name with its unit, as Prometheus recommends.
UNITS = re.compile(r".*_(seconds|bytes|transactions|per_second|total)(_total)?")


def test_every_metric_is_described_as_it_is():
    rows = re.findall(
        r"   \* - ``(\w+)``\n     - (\w+)\n     - (.+)\n     - ((?:.+\n)+?)(?=   \*|\n)", TEXT
    )
    described = [(name, kind, labels, " ".join(text.split())) for name, kind, labels, text in rows]
    assert described == [
        (each.name, each.kind, ", ".join(each.labels) or "-", each.help)
        for each in (*NODE, *SECONDARY, *PRIMARY)
    ]


def test_names_have_their_units():
    without = [
        each.name for each in (*NODE, *SECONDARY, *PRIMARY) if not UNITS.fullmatch(each.name)
    ]
    # States, numbers of things, and what is 0 or 1.
    assert without == [
        "zrs_info",
        "zrs_ready",
        "zrs_connected",
        "zrs_state",
        "zrs_failures",
        "zrs_peers",
        "zrs_peer_state",
    ]
    for each in (*NODE, *SECONDARY, *PRIMARY):
        assert each.name.endswith("_total") == (each.kind == "counter")


@pytest.mark.parametrize(
    "kind", [NodeStatus, PrimaryStatus, PeerStatus, SecondaryStatus, KnownPosition]
)
def test_every_field_is_described(kind):
    for field in fields(kind):
        assert f"``{field.name}``" in TEXT


def test_windows_have_their_names():
    assert list(as_json(Rates(1, 2))) == ["10s", "5min"]
    assert "``10s``" in TEXT
    assert "``5min``" in TEXT


def test_prometheus_can_read_them(primary, secondary, network, serve):
    network.run()
    names = set()
    for storage in (primary, secondary):
        text = render(serve(storage).node.status()).decode()
        for family in text_string_to_metric_families(text):
            names.add(family.name)
            assert family.documentation
            assert family.type in ("counter", "gauge")
            for sample in family.samples:
                assert sample.value >= 0
    described = {each.name.removesuffix("_total") for each in (*NODE, *SECONDARY, *PRIMARY)}
    assert names == described
    assert ADDRESS[1] == primary.replication_address.port
