"""Every contract between the parts: sources, sinks, sessions, services, transports.

::

    source --messages--> primary session   --bytes--> listener  ~~~ network ~~~
    ~~~ network ~~~ connector --bytes--> secondary session --messages--> sink

A transport adapts an `IReplicationService` to `IListener` and an `IReplicationClient` to
`IConnector`; the adapters are registered in the zope.component registry under the transport's
name.
"""

from __future__ import annotations

from collections.abc import Callable

from zope.interface import Attribute, Interface

from .addresses import Address
from .held import HeldTransaction
from .messages import PrimaryMessage
from .tls import TLSOptions


class ITransactionReader(Interface):
    """A place in a source's history. One thread at a time, but for `wait`."""

    at_end: bool = Attribute("Whether the last `read` found no more than it gave, if known.")

    def read(budget: int) -> list[PrimaryMessage]:
        """The next messages: whole ones, until their data have `budget` bytes or more.

        Empty when everything that is committed has been read.

        :raises ReplicationError: the source is damaged.
        :raises OSError: it cannot be read.
        """

    def wait(wake: Callable[[], None]) -> None:
        """Call `wake` once, from any thread, when there may be more to read; perhaps at once."""

    def close() -> None:
        """Give up files. May be called again."""


class ITransactionSource(Interface):
    """A history to replicate. Thread-safe."""

    blobs: bool = Attribute("Whether it has blobs, so that `StoreBlob` may come.")

    def open(start: bytes) -> ITransactionReader:
        """A reader of all transactions after `start` (8 bytes; `NO_TID`: from the beginning).

        :raises TidTooHigh: `start` is later than every transaction of the source.
        :raises Diverged: the source never had the transaction `start`.
        :raises OSError: the source cannot be read.
        """


class IStorageSource(ITransactionSource):
    """What a `Primary` reads its storage by: an adapter of the storage.

    The storage is the one that holds the records as they are stored, below all wrappers that
    transform them.
    """

    missing_blobs: int = Attribute("Blob records read without their blob, since it was missing.")
    packed_to: bytes = Attribute("The last tid when the storage was last packed, as far as known.")
    untransform: Callable[[bytes], bytes] = Attribute(
        "Makes a record what ZODB has written, where a wrapper stores it transformed."
    )
    poll_interval: float = Attribute(
        "Seconds between two looks at what others may have committed, where that must be asked for."
    )

    def position() -> bytes:
        """As `last_tid`, for people to read: it may be older by `poll_interval`, and is cheap."""

    def changed() -> None:
        """Something was committed, or packed: wake the readers that wait."""

    def last_tid() -> bytes:
        """The last transaction that is committed, whoever has committed it."""

    def close() -> None:
        """Give up what readers have in common; they are closed. May be called again."""


class ITransactionSink(Interface):
    """Where transactions are applied, all or nothing. One thread at a time.

    For a `Secondary` it is made by an adapter factory of the storage that holds the records as they
    are stored, called with that, with `invalidate(tid, oids)`, which is to be called for each
    transaction before anybody can read it, and with a `durability` (one of `options.DURABILITIES`).
    """

    blobs: bool = Attribute("Whether it can keep blobs.")

    def last_tid() -> bytes:
        """The last transaction that is visible and on disk; `NO_TID` for none."""

    def apply(message: PrimaryMessage) -> None:
        """The next message, in the order that the state table of the codec allows.

        :raises OSError: the disk does not take it; all that is not on disk must be aborted.
        :raises MissingBlobSupport: a blob for a sink without.
        """

    def flush() -> None:
        """All transactions whose `Commit` was applied are visible, and on disk, from now on.

        To be called whenever nothing more is there to be applied; they may be so before.

        :raises OSError: as `apply`.
        """

    def abort() -> None:
        """Undo what was applied and is not visible yet, if anything; nothing of it stays."""


class IComparableSink(ITransactionSink):
    """A sink that can say what it holds as its last transaction."""

    def last_transaction(limit: int) -> HeldTransaction:
        """The transaction `last_tid()`, for which that is not `NO_TID`.

        :param limit: the most bytes, of records and blobs, that are worth it.
        :raises NotComparable: it is larger; or a pack here has gone over it, so that what lies
            before it is not known; or it cannot be found.
        :raises OSError: it cannot be read.
        """


class ISearchableSink(IComparableSink):
    """A sink that can list what it holds, for the search for a common transaction."""

    def history(before: bytes | None, count: int) -> list[tuple[bytes, bool]]:
        """Return the last `count` transactions before `before`, the last one first.

        Fewer if there are no more. Each is its tid, and True if a pack has marked it.

        :param before: a tid; None for the end.
        :raises ReplicationError: what is held is damaged.
        :raises OSError: it cannot be read.
        """


class ISession(Interface):
    """One end of one connection, driven by a transport. It never raises for what a peer does.

    A transport calls one method of a session at a time, unless the method says otherwise.
    """

    finished: bool = Attribute("Whether the transport should close the connection.")

    def receive_data(data: bytes) -> None:
        """Bytes from the peer."""

    def receive_eof() -> None:
        """The peer will send no more."""

    def close(reason: str) -> None:
        """The connection is gone; `reason` is for the log. May be called again."""


class IPrimarySession(ISession):
    """The primary's end: answers a handshake with batches of transactions.

    `receive_data` and `receive_eof` may be called while `produce` runs in another thread.
    """

    started: bool = Attribute("Whether the secondary has named its start, so that one may produce.")

    def produce() -> list[bytes]:
        """The next batch of bytes for the peer; empty when there are none now.

        To be called when the one before has been sent, from a thread that may wait for the disk.
        """

    rest: float = Attribute(
        "Seconds for which a session that has sent the last batch should be left alone: more than "
        "none if there was nothing more."
    )

    def wait(wake: Callable[[], None]) -> None:
        """Call `wake` once, from any thread, when there may be more; perhaps at once.

        To be called after an empty batch, or after the rest that follows one. Once `wake` has been
        called, `produce` may be, even if this has not returned.
        """


class ISecondarySession(ISession):
    """The secondary's end: `receive_data` applies, and returns when that is done.

    All methods but `keep_alive` may wait for the disk.
    """

    def receive_data(data: bytes, more: Callable[[], bool] = lambda: False) -> None:
        """Bytes from the peer.

        :param data: may be empty, where what was there has brought none, such as a part of a TLS
            record: what was held back for it is made visible, unless there is `more`.
        :param more: tells whether more of them are there already, to be received next: then what
            was applied may be made visible together with that.
        """

    def greeting() -> bytes:
        """What to send first: the protocol word and the start; nothing if it is `finished`.

        To be called when the session before this one is closed: it may still have been applying.

        :raises RuntimeError: it is not closed.
        """

    def refused(reason: str) -> None:
        """The peer has refused this end by TLS; `reason` is for the log, and `close` follows.

        In TLS 1.3 the handshake is over here before the peer has looked at a certificate.
        """

    def keep_alive() -> bytes:
        """To be called every `keep_alive_delay` seconds: what to send then, perhaps nothing.

        The session may be finished after it.
        """


class IReplicationService(Interface):
    """What a listener serves: makes a session for each connection. Thread-safe."""

    address: Address = Attribute("Where to listen.")
    reactor: object = Attribute("What the transport is to run on; None for its own default.")
    tls: TLSOptions | None = Attribute("How to encrypt and whom to let in; None for plain text.")
    peer_timeout: float = Attribute(
        "Seconds after which a peer that has vanished without a word must be noticed."
    )
    socket_mode: int = Attribute("The permissions of a Unix socket that is listened on.")
    require_tls: bool = Attribute(
        "Whether not to listen without TLS where other machines can connect."
    )
    max_peers: int = Attribute(
        "Connections at once, at most: further ones are refused, without a session, and closed."
    )
    handshake_timeout: float = Attribute(
        "Seconds from accepting a connection until its session must have `started`; TLS is within "
        "them. A peer that takes longer is refused and disconnected."
    )
    write_timeout: float = Attribute(
        "Seconds after which a peer must be disconnected that takes nothing of what it is sent."
    )

    def session(peer: str, certificate: str | None = None) -> IPrimarySession:
        """A session for a new connection; `peer` names the other end in the log.

        :param peer: `host:port`, or `unix:PATH#NUMBER` with the path that is listened on. Status
            and metrics name the secondary by the host or the path, unless it has a certificate.
        :param certificate: who the peer is by its certificate, if it has shown one, for people to
            read (`tls.common_name`).
        """

    def refused(peer: str, reason: str) -> None:
        """A connection got no session, or did not greet in time; `reason` is for the log.

        The log is kept short: of many that are refused it tells a few, and counts the others.
        """

    check_delay: float = Attribute("Seconds between two calls of `check`.")

    def check() -> None:
        """Check the storage, and log what is wrong with it.

        To be called every `check_delay` seconds while the listener listens. It does not wait.
        """

    def stopped() -> None:
        """The listener has stopped, and nothing more comes from it. May be called again."""


class IReplicationClient(Interface):
    """What a connector connects for: makes a session for each connection that it gets.

    Thread-safe.
    """

    address: Address = Attribute("Where to connect to.")
    reactor: object = Attribute("What the transport is to run on; None for its own default.")
    tls: TLSOptions | None = Attribute("How to encrypt and whom to trust; None for plain text.")
    peer_timeout: float = Attribute(
        "Seconds after which a peer that has vanished without a word must be noticed."
    )
    keep_alive_delay: float = Attribute(
        "Seconds between two calls of a session's `keep_alive`; 0 for none."
    )

    def session(peer: str, local_address: str | None = None) -> ISecondarySession:
        """A session for a new connection; `peer` names the other end in the log.

        :param local_address: this end, as the primary's transport names its peer, if that is known;
            for people to read.
        """

    def connection_failed(reason: str) -> None:
        """No connection could be made; `reason` is for the log."""

    def retry_delay() -> float:
        """How many seconds to wait before the next attempt."""


class IListener(Interface):
    """Accepts connections for a service. Thread-safe."""

    address: Address = Attribute("Where it listens, its port as the system gave it.")

    def start() -> None:
        """Listen.

        :raises ListenError: the address cannot be listened on.
        """

    def stop(timeout: float) -> None:
        """Accept no more, let each secondary catch up for `timeout` seconds at most, disconnect.

        May be called again.
        """


class IConnector(Interface):
    """Keeps a client connected. Thread-safe."""

    def start() -> None:
        """Begin to connect, and to connect again whenever that fails or the connection is lost."""

    def reconnect() -> None:
        """The client's address has changed: leave the connection, if any, for one to it."""

    def stop() -> None:
        """Disconnect and stay so; returns when the last session is closed. May be called again."""
