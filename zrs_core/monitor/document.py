"""What a status server answers at `/status`: its JSON, typed, and checked before it is believed.

Times are seconds since the epoch, and None stands for what is not known. What is not named here may
be there too and is left as it is: a newer server may tell more.
"""

from __future__ import annotations

import functools
import json
import math
import re
import types
from typing import (
    Any,
    Literal,
    NewType,
    TypedDict,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

#: "0x" and 16 hexadecimal digits.
HexTid = NewType("HexTid", str)


class Position(TypedDict):
    """A transaction, and the time that its id stands for."""

    tid: HexTid
    time: float


class KnownPosition(Position):
    """A position that was heard of at the time `as_of`."""

    as_of: float


class Ended(TypedDict, total=False):
    """`over` is since when it has been over, which an older server does not say."""

    over: float | None


class LastError(Ended):
    message: str
    time: float


class Rate(TypedDict):
    """What is moved in a second, on average."""

    transactions: float
    bytes: float


#: The seconds that they are taken over are in the names, which are no identifiers.
Rates = TypedDict("Rates", {"10s": Rate, "5min": Rate})


class Named(TypedDict, total=False):
    """A part that has a name, unless an older server describes it."""

    name: str


class PeerStatus(Named):
    """A secondary that is connected to a primary; `position` is the last that was sent to it."""

    address: str
    certificate: str | None
    protocol: str | None
    connected_since: float
    start: HexTid | None
    position: Position | None
    bytes: int
    transactions: int
    state: Literal["greeting", "sending", "waiting"]
    back_pressure_seconds: float
    lag_seconds: float | None
    lag_transactions: int | None


class PrimaryStatus(TypedDict):
    address: str
    transport: str
    tls: bool
    position: Position | None
    missing_blobs: int
    refused: int
    last_error: LastError | None
    rates: Rates
    peers: list[PeerStatus]


class AskingPrimary(TypedDict, total=False):
    """A part that says how old the primary's status is, unless an older server describes it."""

    primary_status_age: float | None


class Divergence(TypedDict):
    """The last transaction that both hold, and how many after it only the secondary holds."""

    common: Position | None
    transactions: int


class Follower(Named, total=False):
    """A secondary may have diverged, which an older server does not say."""

    divergence: Divergence | None


class SecondaryStatus(Follower, AskingPrimary):
    """`state` is one of `zrs_core.progress.State`; `news` says in words when it last heard."""

    primary_address: str
    transport: str
    tls: bool
    protocol: str | None
    state: str
    connected: bool
    connected_since: float | None
    local_address: str | None
    connections: int
    last_error: LastError | None
    failures: int
    position: Position | None
    primary_position: KnownPosition | None
    lag_seconds: float | None
    lag_transactions: int | None
    last_heard: float | None
    silence_seconds: float | None
    news: str
    rates: Rates
    bytes: int
    transactions: int
    blobs_written: int
    missing_blobs: int


class Status(TypedDict):
    """A node: a primary, a secondary, or, with both, one that stands between."""

    now: float
    version: str
    name: str
    role: Literal["primary", "secondary", "cascade"]
    pid: int
    started: float
    ready: bool
    ready_reason: str
    primary: PrimaryStatus | None
    secondary: SecondaryStatus | None


class Apart(TypedDict):
    """How far behind a primary one is who holds all up to a transaction.

    In seconds since the first commit that it lacks, by the primary's clock, and in transactions.
    """

    seconds: float | None
    transactions: int | None


class InvalidStatus(ValueError):
    """A text that is no status; the message says what is wrong, and where."""


def read_status(text: bytes) -> Status:
    """The status in the JSON of an answer.

    :raises InvalidStatus: it is no JSON in UTF-8, or a member is missing or of another type.
    """
    return cast(Status, _read(text, Status))


def read_apart(text: bytes) -> Apart:
    """The same of a distance."""
    return cast(Apart, _read(text, Apart))


def _read(text: bytes, kind: Any) -> object:
    try:
        document = json.loads(text.decode(), parse_constant=_not_a_number, parse_float=_finite)
    except RecursionError as error:
        raise InvalidStatus("its JSON is nested too deeply") from error
    except InvalidStatus:
        raise
    except ValueError as error:
        raise InvalidStatus("it is no JSON") from error
    _check(document, kind, "it")
    return cast(object, document)


def _not_a_number(name: str) -> None:
    raise ValueError(name)


def _finite(text: str) -> float:
    # What is kept is sent on to others, and JSON has no other numbers.
    number = float(text)
    if not math.isfinite(number):
        raise InvalidStatus(f"its {text} is not a number")
    return number


def _check(value: object, kind: Any, where: str) -> None:
    """:raises InvalidStatus: `value` is not of the type `kind`, which is made of those above."""
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        if value is not None:
            [kind] = (each for each in get_args(kind) if each is not types.NoneType)
            _check(value, kind, where)
    elif origin is Literal:
        _expect(value in get_args(kind), where, " or ".join(map(repr, get_args(kind))))
    elif origin is list:
        _expect(isinstance(value, list), where, "a list")
        for number, each in enumerate(cast("list[object]", value)):
            _check(each, get_args(kind)[0], f"{where}[{number}]")
    elif kind is HexTid:
        is_tid = isinstance(value, str) and _TID.fullmatch(value) is not None
        _expect(is_tid, where, "0x and 16 hexadecimal digits")
    elif kind in _SCALARS:
        known, name = _SCALARS[kind]
        # A bool is an int to isinstance().
        _expect(isinstance(value, known) and (kind is bool) == isinstance(value, bool), where, name)
        _expect(not isinstance(value, (int, float)) or abs(value) < _LARGEST, where, name)
    else:
        _expect(isinstance(value, dict), where, "an object")
        given = cast("dict[str, object]", value)
        for name, each in _members(kind).items():
            if name not in given and name not in kind.__required_keys__:
                continue
            _expect(name in given, where, f"an object with {name!r}")
            _check(given[name], each, name if where == "it" else f"{where}.{name}")


@functools.cache
def _members(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


_TID = re.compile("0x[0-9a-f]{16}")
_SCALARS: dict[Any, tuple[Any, str]] = {
    str: (str, "a string"),
    bool: (bool, "true or false"),
    int: (int, "a whole number"),
    float: ((int, float), "a number"),
}
#: More than any of the numbers can be, so that it is not infinite either.
_LARGEST = 2.0**64


def _expect(condition: bool, where: str, what: str) -> None:
    if not condition:
        raise InvalidStatus(f"{where} is not {what}")
