"""The primary's end of a connection."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final, TypeAlias

from ..errors import LocalProtocolError, RemoteProtocolError, UnsupportedProtocol
from ..messages import (
    NO_TID,
    BlobBlock,
    Hello,
    KeepAlive,
    PrimaryMessage,
    SecondaryMessage,
    Start,
    Store,
    StoreBlob,
    Transaction,
)
from . import templates
from .checksum import RunningChecksum
from .connection import Connection
from .dialects import DIALECTS, Dialect
from .framing import MAX_PAYLOAD_SIZE, prefix
from .machine import PLAIN, IllegalMessage, Role, State
from .opcodes import PickleError
from .pickles import WRITERS

#: Bytes in a message from a secondary; its longest legal ones are a tid and a protocol word.
MAX_SECONDARY_MESSAGE_SIZE: Final = 8

#: Called with the tid of a transaction that is sent without its extension, and the reason.
LeftOut: TypeAlias = Callable[[bytes, str], object]


class PrimaryConnection(Connection[SecondaryMessage]):
    """Reads Hello, Start and KeepAlive; writes transactions.

    :param blobs: whether what is replicated has blobs; then a secondary must speak zrs2.1.
    :param pickle_protocol: 3, or 1 for secondaries on Python 2 and for streams that equal those
        of Python 3 peers byte for byte.
    :raises ValueError: another pickle protocol.
    """

    _our_role = Role.PRIMARY
    _their_role = Role.SECONDARY

    def __init__(self, *, blobs: bool = True, pickle_protocol: int = 3) -> None:
        super().__init__()
        if pickle_protocol not in WRITERS:
            raise ValueError(f"pickle_protocol must be 1 or 3, not {pickle_protocol!r}")
        self._blobs = blobs
        self._writer = WRITERS[pickle_protocol]
        self._checksum = RunningChecksum(NO_TID)

    @property
    def dialect(self) -> Dialect:
        """What the secondary asked for; zrs2.0 before its Hello."""
        return self._machine.dialect

    def send(self, message: PrimaryMessage) -> bytes:
        """The bytes of a message, to be sent in this order.

        :raises LocalProtocolError: the state forbids the message, or it cannot be encoded;
            nothing has changed.
        """
        return b"".join(self.send_chunks(message))

    def send_chunks(self, message: PrimaryMessage, left_out: LeftOut | None = None) -> list[bytes]:
        """As `send`, in pieces: records and blob blocks are the very objects of the message.

        :param left_out: as for `send_all`.
        :raises LocalProtocolError: as `send`.
        """
        try:
            next_state = self._machine.check(Role.PRIMARY, message)
            payloads = self._payloads(message, left_out)
        except (IllegalMessage, PickleError) as error:
            raise LocalProtocolError(f"cannot send {_describe(message)}: {error}") from error
        self._machine.enter(Role.PRIMARY, next_state, message)
        chunks = []
        for payload in payloads:
            self._checksum.update(payload)
            chunks.append(prefix(len(payload)))
            chunks.append(payload)
        return chunks

    def send_all(
        self, messages: Sequence[PrimaryMessage], left_out: LeftOut | None = None
    ) -> list[bytes]:
        """As `send_chunks`, for several messages, small ones together.

        :param left_out: if given, a transaction whose extension cannot be carried is sent without
            it, and `left_out` is called with its tid and the reason; otherwise that is an error.
        :raises LocalProtocolError: as `send`; what comes before that message has been sent.
        """
        chunks: list[bytes] = []
        place = self._send_run(messages, 0, chunks)
        while place < len(messages):
            chunks += self.send_chunks(messages[place], left_out)
            place = self._send_run(messages, place + 1, chunks)
        return chunks

    def _send_run(self, messages: Sequence[PrimaryMessage], begin: int, chunks: list[bytes]) -> int:
        """Send what has a template; which message comes next."""
        machine = self._machine
        if machine.blocks_left:
            blocks = templates.write_blocks(
                messages, begin, machine.blocks_left, self._checksum, chunks
            )
            machine.advance_in_blob(blocks)
            begin += blocks
        if self._writer is not WRITERS[3] or machine.state(Role.PRIMARY) not in PLAIN:
            return begin
        written = templates.write_run(
            messages, begin, machine.tid, machine.last_tid, self._checksum, chunks
        )
        machine.advance(written.tid, written.last_tid)
        return written.next

    def _payloads(self, message: PrimaryMessage, left_out: LeftOut | None) -> list[bytes]:
        match message:
            case Store() | StoreBlob():
                if len(message.data) > MAX_PAYLOAD_SIZE:
                    raise IllegalMessage(f"its record has more than {MAX_PAYLOAD_SIZE} bytes")
                return [self._writer.record(message), message.data]
            case BlobBlock(data=data):
                return [data]
            case Transaction():
                return [self._transaction(message, left_out)]
            case _:
                return [self._writer.commit(self._checksum.digest())]

    def _transaction(self, message: Transaction, left_out: LeftOut | None) -> bytes:
        try:
            return self._writer.transaction(message)
        except PickleError as error:
            if left_out is None:
                raise
            left_out(message.tid, str(error))
            return self._writer.transaction(replace(message, extension=b""))

    def _read_message(self) -> SecondaryMessage | None:
        payload = self._frames.take(MAX_SECONDARY_MESSAGE_SIZE)
        if payload is None:
            return None
        message = self._parse(payload)
        next_state = self._machine.check(Role.SECONDARY, message)
        if isinstance(message, Start):
            # Before the state allows to send: another thread may do so at once.
            self._checksum = RunningChecksum(message.tid)
        self._machine.enter(Role.SECONDARY, next_state, message)
        return message

    def _parse(self, payload: bytes) -> SecondaryMessage:
        state = self._machine.state(Role.SECONDARY)
        if state is State.EXPECT_HELLO:
            word = payload.decode("ascii", "backslashreplace")
            dialect = DIALECTS.get(word)
            if dialect is None:
                raise UnsupportedProtocol(f"Invalid protocol {word!r}")
            if self._blobs and not dialect.blobs:
                raise UnsupportedProtocol(f"Invalid protocol {word!r}. Require >= 2.1")
            return Hello(word)
        if state is State.EXPECT_START:
            if len(payload) != 8:
                raise RemoteProtocolError(f"Invalid transaction id, {payload!r}")
            return Start(payload)
        if payload:
            raise RemoteProtocolError("Too many messages")
        return KeepAlive()


def _describe(message: object) -> str:
    name = type(message).__name__
    if isinstance(message, Transaction):
        return f"{name} 0x{message.tid.hex()}"
    if isinstance(message, (Store, StoreBlob)):
        return f"{name} of object 0x{message.oid.hex()}"
    return name
