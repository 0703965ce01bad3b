"""Answers of status servers as tables, and in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ...monitor.document import PrimaryStatus, SecondaryStatus, Status
from ...monitor.health import failure_of, position_of, silence_of_primary
from ...tids import describe_tid
from .answers import Distance, Diverged, Node, divergence_of
from .output import count
from .words import duration, lag, moment, plain, rate


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
        if (divergence := divergence_of(said)) is not None:
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
