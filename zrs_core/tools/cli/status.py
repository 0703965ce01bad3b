"""`zrs status`: what status servers say, as a table, as JSON, or live."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple, TypedDict

import click
from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from ...errors import ConfigurationError, NoStatus
from ...messages import NO_TID
from ...monitor.document import Apart, Divergence, HexTid, PrimaryStatus, SecondaryStatus, Status
from ...monitor.fetch import StatusAddress, ask_all, fetch_all, fetch_apart, parse_status_address
from ...monitor.health import Pair, failure_of, pairs, position_of, silence_of_primary, trouble_of
from ...tids import describe_tid
from .arguments import Seconds
from .output import complain, count, lasting_console
from .words import duration, lag, moment, plain, rate

#: Exit statuses besides 0.
NOT_IN_SYNC = 1
NOT_ASKED = 2

EPILOG = """\
Exit status: 0 when all nodes are in sync, 1 when one is not or the result cannot be printed, 2 when
an address could not be asked (whatever the others say), or for arguments that cannot work. A
secondary is not in sync when it is not ready, when its state is failing, refused, diverged or
stopped, or when its status server asks that of the primary, and gets no answer; a primary when it
is not ready. With --watch: 0 when stopped by SIGINT (Ctrl-C) or SIGTERM.
"""


class Node(NamedTuple):
    """What an address has said: one of `status` and `error` is not None."""

    asked: StatusAddress
    status: Status | None
    error: str | None

    @property
    def address(self) -> str:
        return self.asked.text

    @property
    def trouble(self) -> str | None:
        """Why it is not in sync, or cannot be asked; None if it is."""
        return self.error if self.status is None else trouble_of(self.status)


def node(address: StatusAddress, answer: Status | NoStatus) -> Node:
    if isinstance(answer, NoStatus):
        return Node(address, None, answer.reason)
    return Node(address, answer, None)


class Diverged(TypedDict):
    """Where the histories of a primary and of a secondary part.

    The last transaction that both hold, and how many after it each of them holds alone.
    """

    common: HexTid | None
    primary: int | None
    secondary: int


class _Diverged(TypedDict, total=False):
    diverged: Diverged


class Distance(_Diverged):
    """How far a secondary is behind the primary that it follows, as that one knows.

    If the two have diverged, neither is behind the other.
    """

    primary: str
    secondary: str
    seconds: float | None
    transactions: int | None


def distances(nodes: Sequence[Node], timeout: float) -> list[Distance]:
    """Ask the primaries among the nodes how far their secondaries are behind them, at once."""
    told = {each.address: each.status for each in nodes if each.status is not None}
    addresses = {each.address: each.asked for each in nodes}
    found = pairs(told)
    answers = ask_all(
        [
            (
                addresses[primary],
                partial(
                    fetch_apart,
                    addresses[primary],
                    _tid(told[secondary]),
                    timeout,
                    count=_divergence(told[secondary]) is not None,
                ),
            )
            for primary, secondary in found
        ],
        timeout,
    )
    return [
        _distance(pair, answer, _divergence(told[pair.secondary]))
        for pair, answer in zip(found, answers, strict=True)
    ]


def _divergence(said: Status) -> Divergence | None:
    secondary = said["secondary"]
    return None if secondary is None else secondary.get("divergence")


def _tid(said: Status) -> HexTid:
    """The transaction up to which a secondary holds what its primary does."""
    divergence = _divergence(said)
    position = position_of(said) if divergence is None else divergence["common"]
    return HexTid(f"0x{NO_TID.hex()}") if position is None else position["tid"]


def _distance(pair: Pair, answer: Apart | NoStatus, divergence: Divergence | None) -> Distance:
    if isinstance(answer, NoStatus):
        answer = Apart(seconds=None, transactions=None)
    found = Distance(
        primary=pair.primary,
        secondary=pair.secondary,
        seconds=answer["seconds"],
        transactions=answer["transactions"],
    )
    if divergence is not None:
        common, on_primary = divergence["common"], answer["transactions"]
        found["seconds"] = found["transactions"] = None
        found["diverged"] = Diverged(
            common=None if common is None else common["tid"],
            primary=on_primary,
            secondary=divergence["transactions"],
        )
    return found


def _addresses(
    context: click.Context, argument: click.Parameter, value: tuple[str, ...]
) -> list[StatusAddress]:
    try:
        # One that is given twice is asked once.
        return [parse_status_address(each) for each in dict.fromkeys(value)]
    except ConfigurationError as error:
        raise click.BadParameter(f"{error}.") from error


@click.command(epilog=EPILOG, short_help="Show how nodes are doing.")
@click.argument("addresses", metavar="ADDRESS...", nargs=-1, required=True, callback=_addresses)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document, for scripts.")
@click.option("--watch", is_flag=True, help="Go on, until SIGINT or SIGTERM.")
@click.option(
    "--interval",
    type=Seconds(0.1, 3600),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="With --watch, between two questions.",
)
@click.option(
    "--timeout",
    type=Seconds(0.01, 3600),
    default=5.0,
    show_default=True,
    metavar="SECONDS",
    help="Within so long an address must have answered.",
)
def status(
    addresses: Sequence[StatusAddress], as_json: bool, watch: bool, interval: float, timeout: float
) -> None:
    """Ask status servers how their primaries and secondaries are doing.

    ADDRESS is where a status server listens (option --status of `zrs primary` and `zrs secondary`,
    key status-address in ZConfig): HOST:PORT, :PORT, the path of a Unix socket, or a URL
    http://... All are asked at once.

    A secondary knows its lag while the primary sends. When nothing comes it knows only that there
    is no news: give the address of the primary too, and how far the two are apart is shown.

    --watch shows all that live, with the lag of the last minutes as a plot. Where the output is no
    terminal it prints a line for each address, or with --json a document, at each interval.
    """
    if watch:
        from .watching import watch as run

        run(lasting_console(), addresses, interval=interval, timeout=timeout, as_json=as_json)
        return
    answers = fetch_all(addresses, timeout)
    nodes = [node(*each) for each in zip(addresses, answers, strict=True)]
    apart = distances(nodes, timeout)
    if as_json:
        click.echo(json.dumps(document(nodes, apart), indent=2))
    elif any(each.status for each in nodes):
        Console().print(overview(nodes, apart))
    for each in nodes:
        if each.status is None:
            complain(f"{each.address}: {plain(each.error or '')}")
        elif each.trouble is not None:
            complain(f"{each.address} is not in sync: {plain(each.trouble)}")
    if any(each.status is None for each in nodes):
        raise click.exceptions.Exit(NOT_ASKED)
    if any(each.trouble for each in nodes):
        raise click.exceptions.Exit(NOT_IN_SYNC)


def document(nodes: Sequence[Node], apart: Sequence[Distance]) -> dict[str, Any]:
    """All of it, for JSON: a member for each address, and how far secondaries are behind."""
    return {
        "now": time.time(),
        "in_sync": all(each.trouble is None for each in nodes),
        "nodes": [
            {
                "address": each.address,
                "in_sync": None if each.status is None else each.trouble is None,
                "trouble": each.trouble,
                "error": each.error,
                "status": each.status,
            }
            for each in nodes
        ],
        "distances": apart,
    }


def overview(
    nodes: Sequence[Node], apart: Sequence[Distance], plots: Sequence[RenderableType] = ()
) -> RenderableType:
    """The tables, with plots between them, and what does not fit into them in lines below."""
    parts: list[RenderableType] = [_table(nodes), *plots]
    for each in nodes:
        part = each.status["primary"] if each.status else None
        if part and part["peers"]:
            parts.append(_peers(each.address, part))
    notes = Text("\n".join(_notes(nodes, apart)), overflow="fold")
    return Group(*_with_space_between(*parts, notes))


def _with_space_between(*parts: RenderableType) -> Iterator[RenderableType]:
    for number, each in enumerate(parts):
        if number:
            yield ""
        yield each


def _new_table(name: str, *columns: str, title: str | None = None) -> Table:
    """A table whose first column alone may be broken into lines."""
    table = Table(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        show_edge=False,
        padding=0,
        title=title,
        title_justify="left",
        title_style="bold",
    )
    table.add_column(name, overflow="fold", min_width=_LEAST_WIDTH)
    for each in columns:
        table.add_column(each, no_wrap=True)
    return table


#: Of a column that gives way to the others where there is little room.
_LEAST_WIDTH = 15


def _table(nodes: Sequence[Node]) -> Table:
    table = _new_table("Node", "State", "Lag", "Position (UTC)", "In 10 s", "In 5 min")
    for each in nodes:
        if each.status is None:
            table.add_row(Text(each.address), Text("NOT ASKED", style="bold red"))
            continue
        said = each.status
        rates = _parts(said)[0]["rates"] if _parts(said) else None
        table.add_row(
            Text(f"{each.address}\n{plain(said['role'])}"),
            Text(state_in_words(said), style="green" if each.trouble is None else "bold red"),
            Text(_in_two_lines(lag_of(said))),
            Text(_position(said)),
            *(Text(_in_two_lines(rate(rates[window]))) for window in WINDOWS if rates),
        )
    return table


WINDOWS: tuple[Literal["10s"], Literal["5min"]] = ("10s", "5min")


def _parts(said: Status) -> list[SecondaryStatus | PrimaryStatus]:
    """What a node does, the secondary of a cascade first."""
    return [each for each in (said["secondary"], said["primary"]) if each is not None]


def _position(said: Status) -> str:
    position = position_of(said)
    return (
        f"{moment(position['time'])}\n{plain(position['tid'])}"
        if position
        else "no transaction yet"
    )


def lag_of(said: Status) -> str:
    """Of a secondary alone: a primary is not behind anybody."""
    part = said["secondary"]
    return lag(part["lag_seconds"], part["lag_transactions"]) if part else "-"


def state_in_words(said: Status) -> str:
    """In as few words as tell a good state from a bad one without any colour."""
    words = []
    if (secondary := said["secondary"]) is not None:
        words.append(plain(secondary["state"]))
        if not secondary["connected"]:
            words.append("unconnected")
    if failure_of(said) is not None:
        words.append("NOT IN SYNC")
    else:
        words.append("ready" if said["ready"] else "NOT READY")
    if silence_of_primary(said) is not None:
        words.append("PRIMARY SILENT")
    if (primary := said["primary"]) is not None:
        words.append(count(len(primary["peers"]), "peer"))
    return "\n".join(words)


def _peers(address: str, primary: PrimaryStatus) -> Table:
    columns = ("Peer", "State", "Not sent", "Sent up to (UTC)", "Sent", "Blocked for")
    table = _new_table(*columns, title=f"Peers of {address}")
    for peer in primary["peers"]:
        name, certificate = peer.get("name"), peer["certificate"]
        more = f" {certificate}" if certificate and certificate != name else ""
        lines = [name, peer["address"] + more]
        position = peer["position"]
        table.add_row(
            Text("\n".join(plain(line) for line in lines if line)),
            Text(plain(peer["state"])),
            Text(_in_two_lines(lag(peer["lag_seconds"], peer["lag_transactions"]))),
            Text(moment(position["time"]) if position else "nothing"),
            Text(f"{peer['transactions']:,} tx"),
            Text(duration(peer["back_pressure_seconds"])),
        )
    return table


def _in_two_lines(text: str) -> str:
    return text.replace(", ", "\n")


def in_words(pair: Distance) -> str:
    """How far a secondary is behind its primary, in a sentence."""
    if (diverged := pair.get("diverged")) is not None:
        return f"{pair['secondary']} has diverged from {pair['primary']}: {_parted(diverged)}"
    seconds, transactions = pair["seconds"], pair["transactions"]
    if seconds is None and transactions is None:
        return f"how far {pair['secondary']} is behind {pair['primary']} is not known"
    return f"{pair['secondary']} is behind {pair['primary']} by {lag(seconds, transactions)}"


def _parted(diverged: Diverged) -> str:
    common, on_primary = diverged["common"], diverged["primary"]
    where = "no transaction in common"
    if common is not None:
        where = f"the last transaction of both is {describe_tid(bytes.fromhex(common[2:]))}"
    primary = "not known" if on_primary is None else f"{on_primary:,} tx"
    secondary = f"{diverged['secondary']:,} tx"
    return f"{where}; on the primary alone: {primary}, on the secondary alone: {secondary}"


def _notes(nodes: Sequence[Node], apart: Sequence[Distance]) -> list[str]:
    """What is known of each, in lines of its own."""
    lines = [in_words(pair) for pair in apart]
    for each in nodes:
        said = each.status
        facts = [f"could not be asked: {each.error}"] if said is None else _facts(said)
        lines += [f"{each.address}: {plain(fact)}" for fact in facts]
    return lines


def _facts(said: Status) -> Iterator[str]:
    age = duration(said["now"] - said["started"])
    secondary = said["secondary"]
    name = secondary.get("name") if secondary else None
    names = said["name"] if name is None else f"{said['name']}, {name}"
    yield f"{names}, zrs_core {said['version']}, up for {age}"
    if (primary := said["primary"]) is not None:
        refused = count(primary["refused"], "connection")
        yield f"listens at {primary['address']} ({_link(primary)}), has refused {refused}"
    if secondary is not None:
        follows = f"follows {secondary['primary_address']} ({_link(secondary)})"
        yield f"{follows}, {secondary['news']}"
        if (divergence := _divergence(said)) is not None:
            common = divergence["common"]
            where = f"{common['tid']}, {moment(common['time'])} UTC" if common else "none"
            alone = count(divergence["transactions"], "transaction")
            yield f"diverged: last transaction in common {where}; {alone} here alone"
    if not said["ready"]:
        yield f"not ready: {said['ready_reason']}"
    if (silence := silence_of_primary(said)) is not None:
        yield silence
    for part in _parts(said):
        if (error := part["last_error"]) is not None:
            over = error.get("over")
            since = "" if over is None else f" (over since {moment(over)} UTC)"
            yield f"last error{since}, {moment(error['time'])} UTC: {error['message']}"


def _link(part: SecondaryStatus | PrimaryStatus) -> str:
    return part["transport"] + (", TLS" if part["tls"] else "")
