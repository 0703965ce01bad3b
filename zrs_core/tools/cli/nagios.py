"""Plugins for monitoring: `zrs check-nagios`, and `zrs-nagios` as zc.zrs has it.

Both compare what a primary and a secondary hold last. An address is that of a status server, or of
a ZEO server, as zc.zrs's plugin takes it: who listens there shows by its first bytes which it is.
"""

from __future__ import annotations

import argparse
import contextlib
import enum
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from persistent.timestamp import TimeStamp

from ...errors import ConfigurationError, NoStatus, NotAStatusServer
from ...messages import NO_TID
from ...monitor.document import SecondaryStatus, Status
from ...monitor.fetch import StatusAddress, fetch_status, parse_status_address
from ...monitor.health import failure_of, position_of, silence_of_primary, trouble_of
from ...monitor.zeo import is_greeting, last_transactions
from ...texts import in_one_line
from . import forgive_characters
from .streams import give_up, open_closed

#: Seconds within which each address must have answered.
TIMEOUT = 10.0

#: What ZEO calls a storage that has no other name.
_ONLY = "1"


class Level(enum.IntEnum):
    """Exit statuses of plugins."""

    OK = 0
    WARNING = 1
    CRITICAL = 2
    UNKNOWN = 3


class Thresholds(NamedTuple):
    """Lags in seconds above which there is a warning, or worse; None for none."""

    warning: float | None
    critical: float | None

    def judge(self, lag: float) -> tuple[Level, str]:
        """The level of a lag, and what tells why."""
        if self.critical is not None and lag > self.critical:
            return Level.CRITICAL, f" > {self.critical:g}"
        if self.warning is not None and lag > self.warning:
            return Level.WARNING, f" > {self.warning:g}"
        return Level.OK, ""


class Finding(NamedTuple):
    """Something to be said, with a metric in seconds or a number for it, if it has one."""

    level: Level
    message: str
    label: str | None = None
    value: float | None = None


class Answer(NamedTuple):
    """The time of the last transaction of each storage by its name, and the status it is from.

    That is None of a ZEO server. A node that has a status has one storage.
    """

    times: Mapping[str, float]
    status: Status | None


def ask(address: StatusAddress, timeout: float) -> Answer:
    """Ask a status server or a ZEO server.

    :raises NoStatus: it is neither, or does not answer.
    """
    try:
        status = fetch_status(address, timeout)
    except NotAStatusServer as error:
        if not is_greeting(error.answer):
            raise
        return Answer(last_transactions(address, timeout), None)
    position = position_of(status)
    # A storage without transactions is compared as one whose last is the first possible.
    time = position["time"] if position else TimeStamp(NO_TID).timeTime()
    return Answer({_ONLY: time}, status)


def compare(
    primary: Mapping[str, float], secondary: Mapping[str, float], thresholds: Thresholds
) -> list[Finding]:
    """What there is to say of each storage of the two, in the words of zc.zrs."""
    if not primary and not secondary:
        return [Finding(Level.WARNING, "No storages")]
    found = []
    for name, time in sorted(primary.items()):
        if name in secondary:
            found.append(_compare(name, time - secondary[name], thresholds))
        else:
            found.append(Finding(Level.CRITICAL, f"Storage {name!r} in primary, but not secondary"))
    for name in sorted(secondary.keys() - primary.keys()):
        found.append(Finding(Level.CRITICAL, f"Storage {name!r} in secondary, but not primary"))
    return found


def _compare(name: str, lag: float, thresholds: Thresholds) -> Finding:
    shown, label = ("", "lag") if name == _ONLY else (f" ({name!r})", f"lag{name}")
    if lag < 0:
        message = f"Primary{shown} behind secondary by {lag} seconds"
        return Finding(Level.CRITICAL, message, label, lag)
    if lag == 0:
        return Finding(Level.OK, f"Secondary{shown} up to date.", label, lag)
    level, why = thresholds.judge(lag)
    return Finding(level, f"Secondary{shown} behind primary by {lag:.4f} seconds{why}", label, lag)


def check_pair(
    primary: StatusAddress, secondary: StatusAddress, thresholds: Thresholds, timeout: float
) -> list[Finding]:
    """Compare two, and say what trouble they tell of.

    A primary that lets the time pass is critical if the secondary has an answer: its process may
    hang while the connection between the two stays open.

    :raises NoStatus: one of them could not be asked.
    """
    # In this order, so that what comes in between does not seem to be on the secondary alone.
    behind = ask(secondary, timeout)
    try:
        ahead = ask(primary, timeout)
    except NoStatus as error:
        if behind.status is None or not _hangs(error):
            raise
        return _silent_primary(error, behind.status, thresholds)
    found = compare(ahead.times, behind.times, thresholds)
    for name, answer in (("Primary", ahead), ("Secondary", behind)):
        if answer.status is not None:
            found += _trouble(name, answer.status)
    return found


def check_one(address: StatusAddress, thresholds: Thresholds, timeout: float) -> list[Finding]:
    """What one node says of itself: a secondary of its lag, a primary of those of its peers.

    :raises NoStatus: it did not answer.
    """
    status = ask(address, timeout).status
    if status is None:
        raise NoStatus(address.text, "a ZEO server alone tells no lag: give the primary's and it")
    if status["secondary"] is None:
        return [*_peers(status, thresholds), *_trouble("Primary", status)]
    return [_lag_of(status["secondary"], thresholds), *_trouble("Secondary", status)]


def _hangs(error: NoStatus) -> bool:
    return isinstance(error.__cause__, TimeoutError)


def _silent_primary(error: NoStatus, status: Status, thresholds: Thresholds) -> list[Finding]:
    found = [Finding(Level.CRITICAL, f"Primary does not answer: {error}")]
    part = status["secondary"]
    if part is not None:
        found.append(_lag_of(part, thresholds))
        if part["connected"]:
            message = f"Secondary is {part['state']} and connected, {part['news']}"
            found.append(Finding(Level.OK, message))
    return [*found, *_trouble("Secondary", status)]


def _lag_of(part: SecondaryStatus, thresholds: Thresholds) -> Finding:
    lag, news = part["lag_seconds"], part["news"]
    if lag is None:
        return Finding(Level.OK, f"Secondary cannot know its lag: {news}", "lag")
    return _compare(_ONLY, max(lag, 0.0), thresholds)


def _peers(status: Status, thresholds: Thresholds) -> Iterator[Finding]:
    peers = status["primary"]["peers"] if status["primary"] else []
    noun = "peer" if len(peers) == 1 else "peers"
    yield Finding(Level.OK, f"Primary has {len(peers)} {noun}", "peers", len(peers))
    lags = [each["lag_seconds"] for each in peers if each["lag_seconds"] is not None]
    if not lags:
        return
    lag = max(lags)
    level, why = thresholds.judge(lag)
    message = f"one was not sent the last {lag:.4f} seconds{why}" if lag else "all was sent to them"
    yield Finding(level, message, "lag", lag)


def _trouble(name: str, status: Status) -> list[Finding]:
    trouble = trouble_of(status)
    if trouble is None:
        return []
    bad = failure_of(status) is not None or silence_of_primary(status) is not None
    return [Finding(Level.CRITICAL if bad else Level.WARNING, f"{name} {trouble}")]


def in_a_line(found: Sequence[Finding], thresholds: Thresholds, metrics: bool) -> str:
    """What a plugin prints, with performance data behind a `|`."""
    level = max(each.level for each in found)
    line = f"ZRS {level.name} - " + "; ".join(_harmless(each.message).rstrip(".") for each in found)
    data = [_performance(each, thresholds) for each in found if each.label is not None]
    return f"{line}|{' '.join(data)}" if metrics and data else line


def _harmless(text: str) -> str:
    """A text of another node as a plugin may print it: in one line, without a `|`.

    Behind a `|` a monitor expects performance data, and in a second line more of them.
    """
    return in_one_line(text).replace("|", "/")


def _label(text: str) -> str:
    return "".join("_" if each in "'=|" else each for each in in_one_line(text))


def _performance(found: Finding, thresholds: Thresholds) -> str:
    label = _label(found.label or "")
    if label == "peers":
        return f"'peers'={found.value:.0f};;;0"
    value = "U" if found.value is None else f"{found.value:.4f}s"
    limits = ("" if each is None else f"{each:g}" for each in thresholds)
    return f"'{label}'={value};{';'.join(limits)};"


def in_lines(found: Sequence[Finding], metrics: bool) -> str:
    """The same as zc.zrs prints it: a line for each storage, the metrics in the first and after the
    last.
    """
    lines = [_harmless(each.message) for each in found]
    data = [f"'{_label(each.label)}'={each.value:.4f}seconds" for each in found if each.label]
    if metrics and data:
        lines[0] += f"|{data[0]}"
        if data[1:]:
            lines += [""] if len(lines) == 1 else []
            lines[-1] += "| " + "\n ".join(data[1:])
    return "\n".join(lines)


_USAGE = "zrs-nagios [options] PRIMARY_ADDRESS SECONDARY_ADDRESS"


def zrs_nagios(arguments: Sequence[str]) -> int:
    """zc.zrs's plugin of that name: prints what it prints, and returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="zrs-nagios",
        usage=_USAGE,
        description="Compare the last transactions of a primary and a secondary. An address is "
        "that of a status server or of a ZEO server: host:port, [v6]:port, or the path of a Unix "
        "socket. 'zrs check-nagios' does it the way of newer plugins. Exit status: 0 for a lag "
        "within both limits, 1 above the first, 2 above the second and for everything else.",
    )
    parser.add_argument("addresses", nargs="*", help=argparse.SUPPRESS)
    parser.add_argument(
        "-m", "--output-metrics", action="store_true", help="Output replication lag as metric."
    )
    parser.add_argument("-w", "--warning", type=_seconds, help="Warning lag, in seconds")
    parser.add_argument("-e", "--error", type=_seconds, help="Error lag, in seconds")
    given = parser.parse_intermixed_args(arguments)
    # 0 stands for no limit.
    thresholds = Thresholds(given.warning or None, given.error or None)
    if len(given.addresses) != 2 or not (given.output_metrics or any(thresholds)):
        print(f"Usage: {_USAGE}\n")
        return 2
    try:
        addresses = [_old_address(each) for each in given.addresses]
        answers = dict[str, Answer]()
        for name, address in zip(("secondary", "primary"), reversed(addresses), strict=True):
            try:
                answers[name] = ask(address, TIMEOUT)
            except NoStatus as error:
                print(_harmless(_describe(name, error)))
                return 2
    except ConfigurationError as error:
        print(error)
        return 2
    found = compare(answers["primary"].times, answers["secondary"].times, thresholds)
    print(in_lines(found, given.output_metrics))
    return max(each.level for each in found)


def _old_address(text: str) -> StatusAddress:
    # What is no host and port was the path of a Unix socket.
    address = parse_status_address(text if ":" in text or "/" in text else f"./{text}")
    return address._replace(text=text)


def _describe(name: str, error: NoStatus) -> str:
    if isinstance(error.__cause__, OSError):
        return f"Can't connect to {name} at {error.address!r}: {error.__cause__}"
    return f"No status of {name} at {error.address!r}: {error.reason}"


def _seconds(text: str) -> float:
    seconds = float(text)
    if not math.isfinite(seconds):
        raise ValueError(text)
    return seconds


_seconds.__name__ = "number of seconds"


def main() -> None:
    """Run `zrs-nagios` with the arguments of the process, and exit."""
    open_closed()
    forgive_characters()
    status: int = Level.CRITICAL
    with contextlib.suppress(OSError):
        status = zrs_nagios(sys.argv[1:])
    sys.exit(status if give_up() else Level.CRITICAL)
