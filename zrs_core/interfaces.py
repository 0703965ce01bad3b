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

from .actions import Action
from .addresses import Address
from .held import HeldTransaction
from .messages import PrimaryMessage
from .tls import TLSOptions


class ITransactionReader(Interface):
    """A place in a source's history. One thread at a time, but for `wait`."""

    at_end: bool = Attribute("Whether the last `read` found no more than it gave, if known.")
    nearby: bool = Attribute(
        "True if the newest commits can be read without waiting for a disk or a network."
    )

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
    """One end of one connection as a state machine with time. It has no I/O, no clock, no thread.

    A *driver*, which a transport has for each connection, owns the socket, the thread or the event
    loop, and the clock. It calls the inputs, then carries out what `next_action` returns until that
    is None, and sleeps until there is input, or until `next_deadline`. A session with TLS looks the
    same to its driver as one without.

    Each `now` is in seconds of one clock that is never set back, such as `time.monotonic`. The
    driver makes one call at a time; `notify`, which it has given to the session, may be called from
    any thread, and has the driver call `wake`. No input raises anything for what a peer does.
    """

    def receive_data(data: bytes, now: float) -> None:
        """Take bytes from the peer."""

    def receive_eof(now: float) -> None:
        """Note that the peer sends nothing more."""

    def sent(count: int, now: float) -> None:
        """Note that the network has accepted `count` bytes of those that were sent.

        Each byte of a `Send` is reported once. A driver that writes in pieces reports each piece:
        a peer to which nothing gets through for `write_timeout` is disconnected.
        """

    def wake(now: float) -> None:
        """Note that the source may have more: `notify` was called."""

    def done(result: object, now: float) -> None:
        """Take the result of the last `Work`."""

    def failed(error: BaseException, now: float) -> None:
        """Take the exception that the last `Work` has raised."""

    def handle_timeout(now: float) -> None:
        """Do what falls due at `now`. What can be read at once is to be received before."""

    def stop(now: float, timeout: float) -> None:
        """End the connection. A primary lets its secondary catch up for `timeout` seconds."""

    def lost(reason: str, now: float) -> None:
        """Note that the connection is gone, by whichever side; `reason` is for the log.

        Work that is under way is reported after it. From then on the only actions are `Work`,
        until the session is `over`.
        """

    def next_action() -> Action | None:
        """Return the next action to carry out, None if there is none now (`zrs_core.actions`)."""

    def next_deadline() -> float | None:
        """Return the time at which to call `handle_timeout`, None for never."""

    wants_data: bool = Attribute(
        "False while the driver should not read from the peer, so that the peer has to wait."
    )
    over: bool = Attribute("True when the session needs no driver any more.")


class IReplicationService(Interface):
    """What a listener serves: the policy of listening, and a session for each connection.

    The listener calls `start`, `accept`, `accept_failed`, `serve_failed`, `next_deadline`,
    `handle_timeout` and `stop` one at a time.
    """

    address: Address = Attribute("Where to listen.")
    reactor: object = Attribute("What the transport is to run on; None for its own default.")
    tls: TLSOptions | None = Attribute(
        "None for plain text. Sessions do what TLS needs; a transport need not look."
    )
    peer_timeout: float = Attribute(
        "Seconds after which a peer that has vanished without a word must be noticed."
    )
    socket_mode: int = Attribute("The permissions of a Unix socket that is listened on.")
    require_tls: bool = Attribute(
        "Whether not to listen without TLS where other machines can connect."
    )

    def start(now: float) -> None:
        """The listener listens."""

    def accept(peer: str, now: float, notify: Callable[[], None]) -> ISession | None:
        """Return a session for a new connection; None if the listener is to close it at once.

        :param peer: `host:port`, or `unix:PATH#NUMBER` with the path that is listened on. Status
            and metrics name the secondary by the host or the path, unless it has a certificate.
        :param notify: has the driver call `wake`. May be called from any thread.
        """

    def accept_failed(error: Exception, now: float) -> None:
        """A connection could not be accepted. The log is kept short."""

    def serve_failed(error: Exception, now: float) -> None:
        """A connection was accepted and cannot be served. The log is kept short."""

    def next_deadline() -> float | None:
        """Return the time at which to call `handle_timeout`, None for never."""

    def handle_timeout(now: float) -> None:
        """Check the storage, and log what is due. It does not wait."""

    def stop(now: float) -> None:
        """The listener has stopped, and nothing more comes from it. May be called again."""


class IReplicationClient(Interface):
    """What a connector connects for: the policy of connecting, and a session for each connection.

    The connector makes one connection at a time: it asks for the next session when the one before
    is `over`.
    """

    address: Address = Attribute("Where to connect to. It may change.")
    reactor: object = Attribute("What the transport is to run on; None for its own default.")
    tls: TLSOptions | None = Attribute(
        "None for plain text. Sessions do what TLS needs; a transport need not look."
    )
    peer_timeout: float = Attribute(
        "Seconds after which a peer that has vanished without a word must be noticed."
    )
    connect_timeout: float = Attribute("Seconds that an attempt to connect may take.")

    def session(
        now: float,
        notify: Callable[[], None],
        local_address: str | None = None,
        readable: Callable[[], bool] = lambda: False,
    ) -> ISession:
        """Return a session for a new connection.

        :param notify: has the driver call `wake`. May be called from any thread.
        :param local_address: this end, as the primary's transport names its peer, if that is known;
            for people to read.
        :param readable: returns True if more can be read from the connection at once: then what
            was received may be made visible together with that. Called within `Work`, perhaps in
            another thread.
        """

    def connection_failed(reason: str) -> None:
        """No connection could be made; `reason` is for the log."""

    def retry_delay() -> float:
        """Return the seconds to wait before the next attempt, once a session is over or failed."""


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
        """Disconnect and stay so; returns when the last session is over. May be called again."""
