"""The status for Prometheus, by prometheus-client."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ..progress import State
from ..status.state import (
    NodeStatus,
    PeerState,
    PeerStatus,
    Position,
    PrimaryStatus,
    Rate,
    SecondaryStatus,
)
from ..texts import printable

CONTENT_TYPE = CONTENT_TYPE_LATEST

_COUNTER = "counter"
_GAUGE = "gauge"

#: The values of a metric by those of its labels; None for one that is not known now.
Values = Iterable[tuple[tuple[str, ...], float | None]]


class Described(NamedTuple):
    """A metric: its name with its unit in it, `counter` or `gauge`, and what it tells of.

    `values` takes the status of a node, of a primary or of a secondary, as the table has it.
    """

    name: str
    kind: str
    help: str
    values: Callable[[Any], Values]
    labels: tuple[str, ...] = ()


def _one(value: Callable[[Any], float | None]) -> Callable[[Any], Values]:
    return lambda status: [((), value(status))]


def _time(position: Position | None) -> float | None:
    return None if position is None else position.time


def _states(state: str, known: Iterable[str]) -> Values:
    return [((each,), float(each == state)) for each in map(str, known)]


def _rates(value: Callable[[Rate], float]) -> Callable[[Any], Values]:
    def values(status: PrimaryStatus | SecondaryStatus) -> Values:
        rates = status.rates
        return [(("10s",), value(rates.ten_seconds)), (("5min",), value(rates.five_minutes))]

    return values


def _each_peer(value: Callable[[PeerStatus], float | None]) -> Callable[[Any], Values]:
    def values(status: PrimaryStatus) -> Values:
        return [((each.name, each.certificate or ""), value(each)) for each in status.peers]

    return values


def _peer_states(status: PrimaryStatus) -> Values:
    for each in status.peers:
        for state in PeerState:
            labels = (each.name, each.certificate or "", str(state))
            yield labels, float(state is each.state)


def _info(status: NodeStatus) -> Values:
    secondary = "" if status.secondary is None else status.secondary.name
    return [((status.version, status.role, status.name, secondary), 1.0)]


_PEER = ("peer", "certificate")

NODE = (
    Described(
        "zrs_info",
        _GAUGE,
        "Always 1; the labels tell what runs.",
        _info,
        ("version", "role", "name", "secondary"),
    ),
    Described(
        "zrs_start_time_seconds",
        _GAUGE,
        "Since when the status is served, in seconds since 1970.",
        _one(lambda status: status.started),
    ),
    Described(
        "zrs_ready",
        _GAUGE,
        "1 for a primary, and for a secondary that is connected and has caught up, else 0.",
        _one(lambda status: float(status.ready)),
    ),
)

SECONDARY = (
    Described(
        "zrs_lag_seconds",
        _GAUGE,
        "How far the secondary is behind its primary, in seconds; absent when it cannot know.",
        _one(lambda status: status.lag_seconds),
    ),
    Described(
        "zrs_lag_transactions",
        _GAUGE,
        "Transactions that have begun to come and cannot be read yet; absent when none are known.",
        _one(lambda status: status.lag_transactions),
    ),
    Described(
        "zrs_connected",
        _GAUGE,
        "Whether there is a connection to the primary, 1 or 0.",
        _one(lambda status: float(status.connected)),
    ),
    Described(
        "zrs_state",
        _GAUGE,
        "How replication is going: 1 for the state it is in, 0 for all others.",
        lambda status: _states(str(status.state), State),
        ("state",),
    ),
    Described(
        "zrs_silence_seconds",
        _GAUGE,
        "Seconds since the primary has last sent anything; absent if it never has.",
        _one(lambda status: status.silence_seconds),
    ),
    Described(
        "zrs_primary_status_age_seconds",
        _GAUGE,
        "Seconds since the primary's status server has given a new status; absent if it is not "
        "asked.",
        _one(lambda status: status.primary_status_age),
    ),
    Described(
        "zrs_position_timestamp_seconds",
        _GAUGE,
        "When the last applied transaction was committed, in seconds since 1970.",
        _one(lambda status: _time(status.position)),
    ),
    Described(
        "zrs_connections_total",
        _COUNTER,
        "Connections to the primary.",
        _one(lambda status: status.connections),
    ),
    Described(
        "zrs_failures",
        _GAUGE,
        "Sessions in a row that have failed; 0 as soon as something is applied again.",
        _one(lambda status: status.failures),
    ),
    Described(
        "zrs_received_bytes_total",
        _COUNTER,
        "Bytes that have come from the primary.",
        _one(lambda status: status.bytes),
    ),
    Described(
        "zrs_applied_transactions_total",
        _COUNTER,
        "Transactions that were applied.",
        _one(lambda status: status.transactions),
    ),
    Described(
        "zrs_received_bytes_per_second",
        _GAUGE,
        "Bytes that have come, a second, over the last ten seconds or five minutes.",
        _rates(lambda rate: rate.bytes),
        ("window",),
    ),
    Described(
        "zrs_applied_transactions_per_second",
        _GAUGE,
        "Transactions that were applied, a second, over the last ten seconds or five minutes.",
        _rates(lambda rate: rate.transactions),
        ("window",),
    ),
    Described(
        "zrs_written_blobs_total",
        _COUNTER,
        "Blobs that have come and were given their files.",
        _one(lambda status: status.blobs_written),
    ),
    Described(
        "zrs_missing_blobs_total",
        _COUNTER,
        "Records of blobs that have come without their blob.",
        _one(lambda status: status.missing_blobs),
    ),
)

PRIMARY = (
    Described(
        "zrs_primary_position_timestamp_seconds",
        _GAUGE,
        "When the last transaction was committed that secondaries can get here, in seconds since "
        "1970.",
        _one(lambda status: _time(status.position)),
    ),
    Described(
        "zrs_peers",
        _GAUGE,
        "Secondaries that are connected.",
        _one(lambda status: len(status.peers)),
    ),
    Described(
        "zrs_refused_connections_total",
        _COUNTER,
        "Connections that were refused.",
        _one(lambda status: status.refused),
    ),
    Described(
        "zrs_primary_missing_blobs_total",
        _COUNTER,
        "Records of blobs that were sent without their blob, since its file was missing.",
        _one(lambda status: status.missing_blobs),
    ),
    Described(
        "zrs_sent_bytes_per_second",
        _GAUGE,
        "Bytes sent to all peers, a second, over the last ten seconds or five minutes.",
        _rates(lambda rate: rate.bytes),
        ("window",),
    ),
    Described(
        "zrs_sent_transactions_per_second",
        _GAUGE,
        "Transactions sent to all peers, a second, over the last ten seconds or five minutes.",
        _rates(lambda rate: rate.transactions),
        ("window",),
    ),
    Described(
        "zrs_peer_connected_timestamp_seconds",
        _GAUGE,
        "Since when a peer has been connected, in seconds since 1970.",
        _each_peer(lambda peer: peer.connected_since),
        _PEER,
    ),
    Described(
        "zrs_peer_state",
        _GAUGE,
        "What is done for a peer: 1 for the state it is in, 0 for all others.",
        _peer_states,
        (*_PEER, "state"),
    ),
    Described(
        "zrs_peer_position_timestamp_seconds",
        _GAUGE,
        "When the last transaction was committed that a peer was sent, in seconds since 1970.",
        _each_peer(lambda peer: _time(peer.position)),
        _PEER,
    ),
    Described(
        "zrs_peer_lag_seconds",
        _GAUGE,
        "For how many seconds a transaction has been committed that a peer was not sent; 0 if it "
        "was sent all.",
        _each_peer(lambda peer: peer.lag_seconds),
        _PEER,
    ),
    Described(
        "zrs_peer_lag_transactions",
        _GAUGE,
        "Transactions that a peer was not sent; absent when they were not counted.",
        _each_peer(lambda peer: peer.lag_transactions),
        _PEER,
    ),
    Described(
        "zrs_peer_sent_bytes_total",
        _COUNTER,
        "Bytes that a peer was sent.",
        _each_peer(lambda peer: peer.bytes),
        _PEER,
    ),
    Described(
        "zrs_peer_sent_transactions_total",
        _COUNTER,
        "Transactions that a peer was sent.",
        _each_peer(lambda peer: peer.transactions),
        _PEER,
    ),
    Described(
        "zrs_peer_back_pressure_seconds_total",
        _COUNTER,
        "Seconds that sending had to wait for a peer or the network to take what there was.",
        _each_peer(lambda peer: peer.back_pressure_seconds),
        _PEER,
    ),
)

_FAMILIES = {_COUNTER: CounterMetricFamily, _GAUGE: GaugeMetricFamily}


class _Collector(Collector):
    def __init__(self, status: NodeStatus) -> None:
        self._status = status

    def collect(self) -> Iterable[Metric]:
        status = self._status
        for part, described in (
            (status, NODE),
            (status.secondary, SECONDARY),
            (status.primary, PRIMARY),
        ):
            if part is not None:
                yield from (_metric(each, part) for each in described)


def _metric(described: Described, part: Any) -> Metric:
    family: CounterMetricFamily | GaugeMetricFamily
    family = _FAMILIES[described.kind](described.name, described.help, labels=described.labels)
    for labels, value in described.values(part):
        if value is not None:
            family.add_metric([*map(printable, labels)], value)
    return family


def render(status: NodeStatus) -> bytes:
    """The status in the text format of Prometheus, encoded as `CONTENT_TYPE` says."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(status))
    text: bytes = generate_latest(registry)
    return text
