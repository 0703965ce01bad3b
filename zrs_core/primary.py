"""The storage that is replicated from."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable
from typing import Any

from persistent.timestamp import TimeStamp

from . import transports
from .addresses import Address, parse_address
from .committing import CommittingProxy
from .errors import UnsuitableStorage
from .logs import event
from .options import (
    DEFAULT_CLOSE_TIMEOUT,
    DEFAULT_HANDSHAKE_TIMEOUT,
    DEFAULT_MAX_PEERS,
    DEFAULT_PEER_TIMEOUT,
    DEFAULT_WRITE_TIMEOUT,
    ServiceOptions,
    check_poll_interval,
    check_seconds,
)
from .progress import Error
from .secondary import Secondary
from .sessions import ReplicationService
from .status.peers import Commits
from .status.state import PrimaryStatus, position_of
from .storage.fs_setup import skip_oids
from .storage.fs_source import FileStorageSource
from .storage.in_place import FilesInPlace
from .storage.inherited import InheritedSource
from .storage.last_packed import keeping_last_tid
from .storage.opening import open_storage, source_of
from .storage.run_note import check_complete
from .storage.source import DEFAULT_POLL_INTERVAL, StorageSource
from .storage.wrapped import as_stored, layers, untransform_of
from .tids import last_of
from .tls import TLSOptions

log = logging.getLogger("zrs_core.primary")


class Primary(CommittingProxy):
    """A storage, used like any other, whose transactions secondaries can follow.

    It has the methods and provides the interfaces of the storage under it. A transaction that
    cannot be replicated is refused when it is committed, with `StorageTransactionError`.

    :param storage: a storage that provides `IStorageIteration`, such as a FileStorage, or the path
        of a FileStorage; or a `Secondary`, which others then follow in their turn.
    :param address: where to listen: `host:port`, `:port`, a port, (host, port), or the path of a
        Unix socket; port 0 lets the system choose, and `replication_address` tells.
    :param reactor: what the transport runs on, if not on its own default: a Twisted reactor for
        `twisted-tcp`, a `MemoryNetwork` for `memory`.
    :param blob_dir: a directory for blobs, for a FileStorage that has none yet.
    :param transport: the name of a transport.
    :param pickle_protocol: 3, or 1 for secondaries on Python 2.
    :param close_timeout: how many seconds `close()` lets secondaries catch up.
    :param tls: encrypts and authenticates the connections; None for plain text.
    :param peer_timeout: seconds after which a secondary that vanished without a word is noticed.
    :param socket_mode: the permissions of a Unix socket.
    :param poll_interval: seconds between two looks at what others have committed; a FileStorage
        is written to through its primary alone, and does not need it.
    :param max_peers: connections at once, at most; further ones are closed.
    :param handshake_timeout: seconds from accepting a connection to the end of its valid greeting,
        with TLS before it where there is TLS.
    :param write_timeout: seconds after which a secondary is disconnected that takes nothing of
        what it is sent.
    :param require_tls: makes it an error to listen without TLS where other machines can connect;
        without it that is a warning in the log.
    :raises ConfigurationError: an address that does not parse, an unknown transport, a storage
        that cannot be replicated, a setting out of range, an address that other machines reach
        with `require_tls` and without TLS; nothing was opened or written.
    :raises ListenError: the address cannot be listened on.
    """

    def __init__(
        self,
        storage: Any,
        address: object,
        reactor: object = None,
        blob_dir: str | os.PathLike[str] | None = None,
        *,
        transport: str = "twisted-tcp",
        pickle_protocol: int = 3,
        close_timeout: float = DEFAULT_CLOSE_TIMEOUT,
        tls: TLSOptions | None = None,
        peer_timeout: float = DEFAULT_PEER_TIMEOUT,
        socket_mode: int = 0o600,
        poll_interval: float = DEFAULT_POLL_INTERVAL,
        max_peers: int = DEFAULT_MAX_PEERS,
        handshake_timeout: float = DEFAULT_HANDSHAKE_TIMEOUT,
        write_timeout: float = DEFAULT_WRITE_TIMEOUT,
        require_tls: bool = False,
    ) -> None:
        where = parse_address(address)
        options = ServiceOptions(
            pickle_protocol,
            tls,
            peer_timeout,
            socket_mode,
            max_peers,
            handshake_timeout,
            write_timeout,
            require_tls,
        )
        make_listener = transports.listener_factory(transport)
        check_seconds("close_timeout", close_timeout)
        check_poll_interval(poll_interval)
        if any(isinstance(layer, Primary) for layer in layers(storage)):
            raise UnsuitableStorage(f"{storage.getName()} is a primary already")
        storage, give_up = open_storage(storage, blob_dir)
        self._close_timeout = close_timeout
        self._closed = False
        try:
            source: Any = source_of(storage)
            source.poll_interval = poll_interval
            below = next((each for each in layers(storage) if isinstance(each, Secondary)), None)
            if below is not None and isinstance(source, StorageSource):
                # A secondary of this one could not know that more comes.
                source.limit = below.limit
            elif isinstance(source, FileStorageSource):
                check_complete(as_stored(storage))
            # With a secondary below, both have the same files, and one log.
            secondary = isinstance(storage, Secondary)
            self.files = storage.files if secondary else FilesInPlace(storage)
            # A storage that others can write to tells of what goes through here alone, and a
            # secondary of several transactions at once.
            alone = isinstance(source, FileStorageSource)
            exact = alone and not isinstance(storage, Secondary)
            commits = Commits(source.last_tid(), exact=exact)
            super().__init__(storage, source, commits, pickle_protocol)
            self._service = ReplicationService(source, where, reactor, options, self.files.check)
            self._transport = transport
            self._listener = make_listener(self._service)
            self._listener.start()
        except BaseException:
            give_up()
            raise
        if secondary:
            # It is written to by replication alone, and others may follow that.
            storage.on_commit(self._replicated)
        else:
            skip_oids(storage)
        fields = self._event("opening")
        log.info("Opening %s %s", self.getName(), self.replication_address, extra=fields)

    def _event(self, name: str) -> dict[str, object]:
        tid = self._last_known()
        return event(name, storage=self.getName(), address=self.replication_address, tid=tid)

    def _last_known(self) -> bytes | None:
        # One that is closed, or whose database is lost, is closed all the same.
        with contextlib.suppress(Exception):
            tid: bytes = self._source.position()
            return tid
        return None

    def abandon(self) -> None:
        super().abandon()
        self._closed = True
        self._source = InheritedSource(self._storage)
        self.files = FilesInPlace(self._storage)
        transports.abandon(self._listener)

    @property
    def replication_address(self) -> Address:
        """Where secondaries connect to."""
        address: Address = self._listener.address
        return address

    def _replicated(self) -> None:
        self._commits.add(self._source.last_tid())
        self._source.changed()

    def status(self) -> PrimaryStatus:
        """How it is going now: a value that does not change any more. For any thread."""
        fault = self.files.check()
        last_error = Error(fault, self.files.since) if fault else self._service.peers.error()
        last = self._source.position()
        peers = self._service.peers
        return PrimaryStatus(
            address=str(self.replication_address),
            transport=self._transport,
            tls=self._service.tls is not None,
            position=position_of(last),
            missing_blobs=self.missing_blobs,
            refused=peers.refusals,
            last_error=last_error,
            rates=peers.rates(),
            peers=peers.status(self._commits, last),
        )

    def distance(self, tid: bytes, *, count: bool = False) -> tuple[float | None, int | None]:
        """How far behind one is who holds all up to `tid`. For any thread.

        :param count: True to read the storage and count the transactions that are not remembered.
        :returns: the age in seconds of the first commit that it lacks, and how many it lacks; None
            for what is not known.
        """
        seconds, transactions = self._commits.known().behind(tid, self._source.position())
        if count and transactions is None:
            # A source that another package has registered may not count.
            count_after = getattr(self._source, "count_after", lambda tid: None)
            transactions = count_after(tid)
        return seconds, transactions

    @property
    def missing_blobs(self) -> int:
        """How many blob records were sent without their blob, since its file was missing."""
        missing: int = self._source.missing_blobs
        return missing

    def lastTransaction(self) -> bytes:
        tid: bytes = self._source.last_tid()
        return tid

    def tpc_vote(self, transaction: Any) -> Any:
        """As the storage votes.

        :raises StorageError: the data file was removed or replaced; a commit would be lost.
        """
        if self.files.data_lost:
            self.files.require(data_only=True)
        return self._storage.tpc_vote(transaction)

    def tpc_finish(self, transaction: Any, f: Callable[[bytes], object] | None = None) -> Any:
        tid = super().tpc_finish(transaction, f)
        self.files.check()
        return tid

    def copyTransactionsFrom(self, other: Any, *args: Any, **kwargs: Any) -> None:
        self.files.require()
        super().copyTransactionsFrom(other, *args, **kwargs)

    def pack(self, t: float, *args: Any, **kwargs: Any) -> None:
        """As the storage packs.

        :raises StorageError: the storage's files are not in place.
        """
        self.files.require()
        last = self.lastTransaction()
        try:
            with keeping_last_tid(as_stored(self._storage)):
                self._storage.pack(t, *args, **kwargs)
            packed_to = min(last, TimeStamp(*time.gmtime(t)[:5], t % 60).raw())
            # A second pack to an earlier time brings nothing back.
            self._source.packed_to = max(self._source.packed_to, packed_to)
        finally:
            # Readers that are waiting keep the file that was packed, and with it its disk space.
            self._source.changed()

    def registerDB(self, db: Any) -> None:
        self._storage.registerDB(db)
        if untransform_of(self._storage) is None:
            # A wrapper above, or a database; one below asks it itself.
            untransform = getattr(db, "untransform_record_data", self._source.untransform)
            self._source.untransform = untransform

    def close(self) -> None:
        """Let connected secondaries catch up, within `close_timeout`; then close the storage.

        Called in the thread of the reactor that it runs on, it cannot wait for them.
        """
        if self._closed:
            return
        self._closed = True
        fields = self._event("closing")
        last = last_of(self._last_known())
        log.info("Closing %s %s%s", self.getName(), self.replication_address, last, extra=fields)
        try:
            self._listener.stop(self._close_timeout)
            self._call_on_close()
        finally:
            try:
                self._source.close()
            finally:
                self._storage.close()
