"""Snapshots of how replication is going: values that never change, and their JSON.

Times are seconds since 1970 (UTC), by the clock of this machine but for those of tids, which were
given by the primary. What is not known is None.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from persistent.timestamp import TimeStamp

from ..messages import NO_TID
from ..progress import Error, State
from ..texts import printable

#: The names of windows in JSON.
_NAMES = {"ten_seconds": "10s", "five_minutes": "5min"}


@dataclass(frozen=True, slots=True)
class Position:
    """A place in a history: the last transaction (8 bytes), and the time that its tid says."""

    tid: bytes
    time: float


@dataclass(frozen=True, slots=True)
class KnownPosition:
    """Where somebody else was at the time `as_of`, at least; the other two as in `Position`."""

    tid: bytes
    time: float
    as_of: float


@dataclass(frozen=True, slots=True)
class Rate:
    """Transactions and bytes a second."""

    transactions: float
    bytes: float


@dataclass(frozen=True, slots=True)
class Rates:
    """The rates over the last ten seconds and over the last five minutes."""

    ten_seconds: Rate
    five_minutes: Rate


class PeerState(str, enum.Enum):
    """What a primary does for one secondary; each is its own text."""

    #: It is connected, and has not said where to start.
    GREETING = "greeting"
    #: It is being sent something.
    SENDING = "sending"
    #: It has been sent all that there is.
    WAITING = "waiting"

    __str__ = str.__str__


@dataclass(frozen=True, slots=True)
class PeerStatus:
    """One secondary, as its primary sees it.

    :param name: the name of the secondary, see `zrs_core.status.peers.default_name`. It is unique
        among the connected ones.
    :param address: the other end of the connection, as the log names it.
    :param certificate: the common name in its certificate, or the first of its other names; None
        without TLS, and where it has shown none.
    :param protocol: the protocol word that it has asked for.
    :param connected_since: when the connection was accepted.
    :param start: the tid from which it was to be served; `NO_TID` for the beginning.
    :param position: the last transaction of which all was handed to the transport. It need not have
        arrived: the protocol has no acknowledgement.
    :param bytes: how many it was sent on this connection.
    :param transactions: how many it was sent on this connection.
    :param back_pressure_seconds: for how long sending to it had to wait for the peer or the network
        to take what there was.
    :param lag_seconds: how long the oldest transaction has been committed that it was not sent; 0
        if it was sent all.
    :param lag_transactions: how many it was not sent.
    """

    name: str
    address: str
    certificate: str | None
    protocol: str | None
    connected_since: float
    start: bytes | None
    position: Position | None
    bytes: int
    transactions: int
    state: PeerState
    back_pressure_seconds: float
    lag_seconds: float | None
    lag_transactions: int | None


@dataclass(frozen=True, slots=True)
class PrimaryStatus:
    """What a `Primary` does.

    :param address: where it listens.
    :param tls: whether connections are encrypted.
    :param position: the last transaction that is committed.
    :param missing_blobs: how many records were sent without their blob, since its file was missing.
    :param refused: how many connections were refused.
    :param last_error: why the last of them was, or why a connection could not go on.
    :param rates: what is sent, to all secondaries together.
    """

    address: str
    transport: str
    tls: bool
    position: Position | None
    missing_blobs: int
    refused: int
    last_error: Error | None
    rates: Rates
    peers: tuple[PeerStatus, ...]


@dataclass(frozen=True, slots=True)
class DivergenceStatus:
    """Where the history of a secondary and that of its primary part.

    :param common: the last transaction that both hold; None if none was found.
    :param transactions: how many after it only the secondary holds.
    """

    common: Position | None
    transactions: int


@dataclass(frozen=True, slots=True)
class SecondaryStatus:
    """What a `Secondary` does.

    :param name: the name of the secondary.
    :param primary_address: where it looks for its primary.
    :param protocol: the protocol word that it asks for.
    :param connected_since: since when there has been a connection.
    :param local_address: this end of it, which the primary has among its peers, unless there is
        something between the two that gives it another; None also on Unix sockets, which have none.
    :param connections: how many there were.
    :param last_error: why the last connection ended, or why there was none, and whether that is
        over.
    :param failures: sessions in a row that have failed.
    :param divergence: where the histories part, if the primary was found to hold another one.
    :param position: the last transaction that is applied and can be read.
    :param primary_position: the newest transaction that the primary has begun to send, and when it
        has last sent anything. What it has not sent, nobody knows here.
    :param lag_seconds: see `zrs_core.status.lag`.
    :param lag_transactions: how many have come, at least in part, and cannot be read yet; None if
        there are none, as there may be others.
    :param primary_status_age: seconds since the primary's status server gave a new status; None if
        it is not asked. Only a `StatusServer` asks it.
    :param last_heard: when the primary has last sent anything.
    :param silence_seconds: how long ago that is.
    :param news: the same in words.
    :param rates: what has come and what was applied.
    :param bytes: how many have come.
    :param transactions: how many were applied.
    :param blobs_written: how many blobs have come and were given their files.
    :param missing_blobs: how many records of blobs have come without their blob, since the
        primary does not have its file.
    """

    name: str
    primary_address: str
    transport: str
    tls: bool
    protocol: str
    state: State
    connected: bool
    connected_since: float | None
    local_address: str | None
    connections: int
    last_error: Error | None
    failures: int
    divergence: DivergenceStatus | None
    position: Position | None
    primary_position: KnownPosition | None
    lag_seconds: float | None
    lag_transactions: int | None
    primary_status_age: float | None
    last_heard: float | None
    silence_seconds: float | None
    news: str
    rates: Rates
    bytes: int
    transactions: int
    blobs_written: int
    missing_blobs: int


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """One storage that replicates, in one process.

    :param now: when this was true.
    :param name: the storage's.
    :param role: `primary`, `secondary`, or `cascade` for both.
    :param pid: the process.
    :param started: since when its status is served.
    :param ready: whether it can be used: see `zrs_core.status.lag`.
    :param ready_reason: why, or why not.
    """

    now: float
    version: str
    name: str
    role: str
    pid: int
    started: float
    ready: bool
    ready_reason: str
    primary: PrimaryStatus | None
    secondary: SecondaryStatus | None


def time_of(tid: bytes) -> float:
    """When a transaction was committed, by its tid."""
    moment: float = TimeStamp(tid).timeTime()
    return moment


def position_of(tid: bytes) -> Position | None:
    """Where a history ends; None if it has no transaction."""
    return None if tid == NO_TID else Position(tid, time_of(tid))


def as_json(value: Any) -> Any:
    """A snapshot as values that JSON has: tids as `0x` and 16 digits, tuples as lists."""
    if is_dataclass(value):
        return {
            _NAMES.get(field.name, field.name): as_json(getattr(value, field.name))
            for field in fields(value)
        }
    if isinstance(value, bytes):
        return f"0x{value.hex()}"
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, (tuple, list)):
        return [as_json(each) for each in value]
    return value
