"""A running primary as a side: what it sends, from a transaction on."""

from __future__ import annotations

import hashlib
import socket
import ssl
import time
from collections.abc import Callable, Iterator

from ...addresses import Address
from ...codec import SecondaryConnection
from ...codec.connection import NoMessage
from ...codec.dialects import ZRS_2_1
from ...errors import RemoteProtocolError, Unverifiable
from ...messages import (
    NO_TID,
    BlobBlock,
    Commit,
    Hello,
    PrimaryMessage,
    Start,
    Store,
    StoreBlob,
    Transaction,
)
from ...sessions import ANSWER_TIME, REFUSAL_TIME
from ...storage.committed import Header, Record
from ...storage.sides import BlobDigest, Side
from ...tids import describe_tid
from ...tls import PeerRefused, TLSOptions, certificate_names, describe_error
from ...transports.sockets import READ_SIZE, connect_argument, look_up

# Seconds that an attempt to connect may take.
_CONNECT_TIMEOUT = 30.0

# Seconds for which nobody is asked whether to go on waiting. A signal that comes just before the
# system is asked for bytes is not seen until it has answered.
_LONGEST_WAIT = 0.5

# Seconds for which a primary that commits all the time is heard after the last transaction that the
# other side has, at least; and without anything from it that are a pause then.
_LEAST_OVERTIME = 1.0
_PAUSE = 0.001


class PrimaryStream(Side):
    """What the primary at an address sends after `start`, as it would to a fresh secondary.

    The protocol does not tell where the primary's history ends. It counts as ended when nothing
    has come for `wait` seconds; but not before `expected`, the last transaction of the other side,
    unless the primary refuses a secondary that holds that, which it does if it does not hold it
    itself. A primary that commits all the time is not heard to its end: some time after `expected`,
    its history counts as ended with the first pause.

    :param common: to end with `expected` at the latest.
    :param waiting: called again and again while nothing comes; what it raises ends the wait.
    :raises Unverifiable: it cannot be connected to.
    """

    is_exact = False
    has_digests_alone = True

    def __init__(
        self,
        address: Address,
        tls: TLSOptions | None,
        *,
        expected: bytes,
        wait: float,
        common: bool,
        waiting: Callable[[], None],
        start: bytes = NO_TID,
    ) -> None:
        super().__init__(None)
        self.tid = start
        #: Bytes received.
        self.received = 0
        #: Of which objects blobs came, in which transactions.
        self.blobs: set[tuple[bytes, bytes]] = set()
        self._start = start
        self._address = address
        self._tls = tls
        self._wait = wait
        self._waiting = waiting
        self._expected = expected
        # When the history counts as ended with the first pause.
        self._overtime: float | None = None
        self._common = common
        self._ended = False
        self._next: Transaction | None = None
        self._open_transaction = False
        self._digests: dict[bytes, BlobDigest] = {}
        self._connection = SecondaryConnection()
        self._socket = self._connect(start, self._connection)

    def _connect(self, start: bytes, connection: SecondaryConnection) -> socket.socket:
        failure: Exception = OSError("it has no address that can be used")
        try:
            for family, place in look_up(self._address):
                connected = socket.socket(family)
                try:
                    connected.settimeout(_CONNECT_TIMEOUT)
                    connected.connect(connect_argument(family, place))
                    connected = self._encrypted(connected)
                    greeting = connection.send(Hello(ZRS_2_1.word)) + connection.send(Start(start))
                    connected.sendall(greeting)
                    return connected
                except (OSError, PeerRefused) as error:
                    connected.close()
                    failure = error
                except BaseException:
                    connected.close()
                    raise
        except OSError as error:
            failure = error
        raise Unverifiable(f"cannot connect to {self._address}: {self._why(failure)}") from failure

    def _encrypted(self, connected: socket.socket) -> socket.socket:
        if self._tls is None:
            return connected
        encrypted = self._tls.client_context().wrap_socket(
            connected, server_hostname=self._tls.host_of(self._address)
        )
        try:
            self._tls.check_peer(certificate_names(encrypted.getpeercert()))
        except BaseException:
            encrypted.close()
            raise
        return encrypted

    def _why(self, error: Exception) -> str:
        if isinstance(error, (ssl.SSLError, PeerRefused)):
            return describe_error(error)
        return getattr(error, "strerror", None) or str(error)

    @property
    def _has_expected(self) -> bool:
        return self.tid >= self._expected

    # -- transactions

    def next_header(self) -> Header | None:
        if self._ended or (self._common and self._has_expected):
            return None
        if self._next is None:
            self._next = self._next_transaction(self._patience())
        if self._next is None:
            return None
        message, self._next = self._next, None
        self.tid = message.tid
        self._open_transaction = True
        self._digests.clear()
        return Header(
            0,
            message.tid,
            message.status,
            0,
            0,
            message.user,
            message.description,
            message.extension,
        )

    def _patience(self) -> float:
        """Return the seconds without anything after which the history counts as ended."""
        if not self._has_expected:
            return self._wait
        now = time.monotonic()
        if self._overtime is None:
            self._overtime = now + max(self._wait, _LEAST_OVERTIME)
        return self._wait if now < self._overtime else min(self._wait, _PAUSE)

    def grown(self, tid: bytes) -> Header | None:
        """The other side holds `tid`, which has not come: whether the primary does is asked for.

        :raises Unverifiable: it does, and does not send it.
        """
        if not self._ended and self._next is None:
            if self.refuses(tid):
                self._ended = True
            else:
                self._next = self._next_transaction(ANSWER_TIME)
                if self._next is None:
                    raise Unverifiable(
                        f"{self._address} has sent nothing for {ANSWER_TIME:.0f} seconds after "
                        f"{_described(self.tid)}, and does not refuse a secondary that holds "
                        f"{describe_tid(tid)}: it may hang, or be too slow"
                    )
        if self._next is None or self._next.tid > tid:
            return None
        return self.next_header()

    def refuses(self, start: bytes) -> bool:
        """Return True if the primary closes another connection with this start, and sends nothing.

        :raises Unverifiable: the primary cannot be connected to.
        """
        with self._connect(start, SecondaryConnection()) as connected:
            connected.settimeout(REFUSAL_TIME)
            try:
                return not connected.recv(1)
            except TimeoutError:
                return False
            except OSError:
                return True

    def _next_transaction(self, patience: float) -> Transaction | None:
        while self._open_transaction:
            # What is left of one that the other side does not have.
            self._take()
        message = self._receive(patience)
        if message is None:
            return None
        if not isinstance(message, Transaction):
            raise TypeError(f"{type(message).__name__} outside of a transaction")
        return message

    def records(self, header: Header) -> Iterator[Record]:
        while self._open_transaction:
            message = self._take()
            if isinstance(message, (Store, StoreBlob)) and header.status != "u":
                yield Record(message.oid, message.serial, message.data, message.data_txn)

    def blob_digest(self, record: Record) -> BlobDigest | None:
        return self._digests.get(record.oid)

    def _take(self) -> PrimaryMessage:
        """The next message of the transaction that is open; of a blob, with its blocks."""
        message = self._receive(ANSWER_TIME)
        if message is None:
            raise Unverifiable(
                f"{self._address} has sent nothing for {ANSWER_TIME:.0f} seconds in the midst of "
                f"transaction {describe_tid(self.tid)}"
            )
        if isinstance(message, Commit):
            self._open_transaction = False
        elif isinstance(message, StoreBlob):
            self._digests[message.oid] = self._digest(message)
            self.blobs.add((message.oid, self.tid))
        return message

    def _digest(self, blob: StoreBlob) -> BlobDigest:
        hashed, size = hashlib.sha256(), 0
        for _ in range(blob.blocks):
            block = self._take()
            if not isinstance(block, BlobBlock):
                raise TypeError(f"{type(block).__name__} within a blob")
            hashed.update(block.data)
            size += len(block.data)
        return BlobDigest(size, hashed.digest())

    # -- bytes

    def _receive(self, patience: float) -> PrimaryMessage | None:
        """The next message; None if none has come for so many seconds."""
        try:
            while isinstance(message := self._connection.next_message(), NoMessage):
                data = self._read(patience)
                if data is None:
                    return None
                if not data:
                    if self.received and not self._open_transaction and self._has_expected:
                        self._ended = True
                        return None
                    raise Unverifiable(self._closed())
                self.received += len(data)
                self._connection.receive_data(data)
            return message
        except RemoteProtocolError as error:
            raise Unverifiable(f"{self._address} does not speak the protocol: {error}") from error
        except OSError as error:
            text = f"the connection to {self._address} is lost: {self._why(error)}"
            raise Unverifiable(text) from error

    def _read(self, patience: float) -> bytes | None:
        """What comes next, empty for the end; None if nothing comes for so many seconds."""
        deadline = time.monotonic() + patience
        left = patience
        while True:
            self._socket.settimeout(min(max(left, 0.001), _LONGEST_WAIT))
            try:
                return self._socket.recv(READ_SIZE)
            except TimeoutError:
                left = deadline - time.monotonic()
                if left <= 0:
                    return None
            self._waiting()

    def _closed(self) -> str:
        if self.received:
            return f"{self._address} has closed the connection after {_described(self.tid)}"
        text = f"{self._address} has closed the connection without sending anything"
        if self._start != NO_TID:
            return (
                f"{text} after {describe_tid(self._start)}, as a primary does that does not hold "
                "that transaction"
            )
        return f"{text}: check whether a primary listens there, and whether it wants TLS"

    def close(self) -> None:
        self._socket.close()


def _described(tid: bytes) -> str:
    return "the start" if tid == NO_TID else describe_tid(tid)
