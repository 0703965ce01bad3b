"""`zrs dump`: what goes over a replication connection, a line a message."""

from __future__ import annotations

import os
import select
import stat
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import click

from ...addresses import Address, UnixAddress, check_path, parse_address
from ...errors import ConfigurationError, InvalidAddress
from ...messages import NO_TID
from ...storage.snapshot import check_existing_blobs
from ...texts import escaped
from ...tids import describe_tid, parse_tid
from ...tls import TLSOptions
from ...transports import connector_factory
from ..dump import Analyser, Entry, as_json, as_text
from ..dump.files import BEGINNING, is_file_storage, stream_of
from ..dump.live import Listener
from ..dump.selection import Selection
from .connections import peer_timeout, tls, tls_options, transport
from .output import Failed, Misconfigured, count, until_closed
from .signals import StopSignals

_EPILOG = """\
Exit status: 0 when done, when stopped by SIGINT, SIGTERM or SIGHUP, or when nobody reads any more;
1 when the connection was lost, or something in the stream is no valid protocol; 2 for arguments,
files or addresses that cannot work. Errors are one line on the standard error output.
"""

#: Seconds between two looks at whether it is to stop.
_INTERVAL = 0.1

_READ_SIZE = 256 * 1024


class _Tid(click.ParamType):  # type: ignore[type-arg, unused-ignore]
    name = "tid"

    def convert(self, value: Any, param: Any, ctx: Any) -> bytes:
        if isinstance(value, bytes):
            return value
        try:
            return parse_tid(value)
        except ValueError as error:
            self.fail(f"{error}.", param, ctx)


@click.command(epilog=_EPILOG, short_help="Show what goes over the line, message by message.")
@click.argument("place", metavar="ADDRESS|FILE")
@click.option(
    "--from",
    "start",
    type=_Tid(),
    default=NO_TID,
    metavar="TID",
    help="Begin after this transaction, as 0x and 16 hex digits.",
)
@click.option(
    "--until", type=_Tid(), metavar="TID", help="End with this transaction, or before a later one."
)
@click.option(
    "--count",
    "limit",
    type=click.IntRange(min=1),
    metavar="NUMBER",
    help="End after so many transactions.",
)
@click.option("--json", "as_objects", is_flag=True, help="One JSON object a line.")
@click.option(
    "--blobs",
    metavar="DIR",
    type=click.Path(),
    help="The blobs that belong to a FileStorage; without them, their records come alone.",
)
@transport
@tls
@peer_timeout
def dump(
    place: str,
    start: bytes,
    until: bytes | None,
    limit: int | None,
    as_objects: bool,
    blobs: str | None,
    transport: str,
    peer_timeout: float,
    **tls: Any,
) -> None:
    """Show the messages of a replication stream, a line each.

    ADDRESS is where a primary listens: HOST:PORT, :PORT, or the path of its Unix socket. It is
    asked as a secondary would ask, for all that it has after --from and what is committed then,
    until it is stopped, or until --until or --count. Nothing is written anywhere.

    FILE is the file of a FileStorage, shown as a primary would send it; it is only read, and may be
    in use. Or it holds bytes that were captured: what a primary has sent, what a secondary has
    sent, or the first behind the second, so that the start is known with which checksums begin.

    A line has the offset in the stream, the number of bytes, > for what a secondary sends or < for
    what a primary sends, and what it is. What is no valid protocol is an error in its place, and
    the dump goes on where the next transaction begins.
    """
    output = _Output(as_json if as_objects else as_text, Selection(place, start, until, limit))
    options = tls_options(**tls)
    address = _address(place)
    with output.until_closed(), StopSignals() as stop:
        if address is not None:
            _check_network(transport)
            _follow(output, stop, address, start, options, transport, peer_timeout)
        else:
            check_existing_blobs(blobs)
            _read(output, stop, place, start, blobs)


def _address(place: str) -> Address | None:
    """The address that is meant, None for a file.

    :raises ConfigurationError: it is neither.
    """
    try:
        mode = os.stat(place).st_mode
    except FileNotFoundError:
        mode = None
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{place!r} cannot be read: {error}") from error
    if mode is not None:
        if stat.S_ISDIR(mode):
            raise ConfigurationError(f"{place} is a directory: give the Data.fs in it")
        return check_path(UnixAddress(place)) if stat.S_ISSOCK(mode) else None
    try:
        address = parse_address(place)
    except InvalidAddress as error:
        raise ConfigurationError(f"there is no file {place}, and as an address: {error}") from error
    if isinstance(address, UnixAddress):
        raise ConfigurationError(f"there is no file and no Unix socket at {place}")
    if not address.port:
        raise ConfigurationError(f"invalid address {place!r}: nobody can listen at port 0")
    return address


def _check_network(name: str) -> None:
    if name == "memory":
        raise ConfigurationError("the transport 'memory' works within one process alone")


class _Output:
    """Where the lines go."""

    def __init__(self, line_of: Callable[[Entry], str], selection: Selection) -> None:
        self.selection = selection
        self._line_of = line_of
        self._file = sys.stdout
        # What a terminal cannot show is escaped as what it should not be shown.
        reconfigure = getattr(self._file, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")

    def show(self, entries: Iterable[Entry]) -> bool:
        """Write what is asked for of these; whether more is."""
        for entry in entries:
            if self.selection.wants(entry):
                self._file.write(self._line_of(entry) + "\n")
            if self.selection.done:
                break
        return not self.selection.done

    def flush(self) -> None:
        self._file.flush()

    def until_closed(self) -> AbstractContextManager[None]:
        """End quietly if whoever reads the lines has seen enough."""
        return until_closed(self._file)


# -- files


def _read(output: _Output, stop: StopSignals, path: str, start: bytes, blobs: str | None) -> None:
    try:
        file = open(path, "rb", buffering=0)  # noqa: SIM115
    except OSError as error:
        raise Misconfigured(f"{path} cannot be read: {error.strerror}") from error
    with file:
        captured = _captured(file.fileno(), stop)
        begin = b""
        while len(begin) < BEGINNING and (piece := next(captured, b"")):
            begin += piece
        if stop.wait(0):
            return
        if is_file_storage(path, begin[:BEGINNING]):
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise Misconfigured(f"{path} is a pipe with a FileStorage: give the file itself")
            analyser = Analyser(start)
            pieces = stream_of(
                path,
                blobs,
                start,
                partial(_left_out, path),
                partial(_extension_left_out, path),
            )
        else:
            # One that does not begin with a greeting may have been asked for with this start.
            analyser = Analyser(NO_TID, start)
            pieces = _chain(begin, captured)
        for piece in pieces:
            if stop.wait(0) or not output.show(analyser.feed(piece)):
                break
        else:
            if not stop.wait(0) and output.show(analyser.end()):
                output.selection.check()
    output.flush()
    _check_faults(path, analyser)


def _left_out(path: str, size: int) -> None:
    click.echo(
        f"zrs: {path}: {count(size, 'byte')} behind the last complete transaction are left out: "
        "another one is under way, or damaged",
        err=True,
    )


def _extension_left_out(path: str, tid: bytes, reason: str) -> None:
    click.echo(
        f"zrs: {path}: a primary sends transaction {describe_tid(tid)} without its extension: "
        f"{escaped(reason)}",
        err=True,
    )


def _captured(descriptor: int, stop: StopSignals) -> Iterator[bytes]:
    """What is in a file, or comes through a pipe, until it is to stop."""
    while not stop.wait(0):
        if select.select([descriptor], [], [], _INTERVAL)[0]:
            piece = os.read(descriptor, _READ_SIZE)
            if not piece:
                return
            yield piece


def _chain(first: bytes, others: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from others


def _check_faults(where: str, analyser: Analyser) -> None:
    """:raises Failed: something in the stream is no valid protocol."""
    if not analyser.faults:
        return
    text = f"{where}: {count(analyser.faults, 'fault')} in the stream, the first at byte "
    text += f"{analyser.first_fault:,}"
    if analyser.wrong and not analyser.verified and analyser.start is None:
        text += (
            "; no checksum is right: if the stream was asked for after a transaction, name that "
            "one with --from"
        )
    raise Failed(text)


# -- a running primary


def _follow(
    output: _Output,
    stop: StopSignals,
    address: Address,
    start: bytes,
    tls: TLSOptions | None,
    transport: str,
    peer_timeout: float,
) -> None:
    analyser = Analyser(start)

    def receive(data: bytes) -> bool:
        wanted = output.show(analyser.feed(data))
        output.flush()
        return wanted

    def sent(data: bytes) -> None:
        output.show(Analyser().feed(data))
        output.flush()

    listener = Listener(address, tls, peer_timeout, start, sent, receive)
    connector = connector_factory(transport)(listener)
    connector.start()
    try:
        while not (stopped := stop.wait(_INTERVAL)) and not listener.over.is_set():
            pass
    finally:
        connector.stop()
    if listener.error is not None:
        raise listener.error
    if stopped or output.selection.done:
        return
    if listener.received:
        output.show(analyser.end())
        output.flush()
        _check_faults(str(address), analyser)
    raise _ended(listener, start)


def _ended(listener: Listener, start: bytes) -> Failed:
    address = listener.address
    if listener.failure is not None:
        return Misconfigured(f"{address}: cannot connect ({listener.failure})")
    if listener.received:
        came = f"{listener.received:,} bytes"
        return Failed(f"{address}: the connection was lost ({listener.end}) after {came}")
    return Misconfigured(
        f"{address} closed the connection without sending anything after start "
        f"{describe_tid(start)}, as a primary does that does not hold that transaction or does not "
        "want this peer; its log tells why"
    )
