"""The read-only storage that follows a primary."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from ZODB.interfaces import IStorageWrapper
from ZODB.POSException import POSKeyError
from ZODB.utils import p64, u64

from . import transports
from .addresses import Address, TCPAddress, parse_address
from .errors import InvalidAddress, NoData, NotWritten, UnsuitableStorage, UsedAfterFork
from .interfaces import ITransactionSink
from .logs import event
from .messages import NO_TID
from .options import (
    DEFAULT_MAX_COMPARED_SIZE,
    DEFAULT_MAX_RECORD_SIZE,
    DEFAULT_PEER_TIMEOUT,
    ClientOptions,
    check_seconds,
)
from .progress import Progress
from .sessions import ReplicationClient
from .status.state import SecondaryStatus
from .storage.fs_access import is_file_storage
from .storage.fs_setup import keep_garbage, use_packer
from .storage.in_place import FilesInPlace
from .storage.inherited import Inherited
from .storage.last_packed import keeping_last_tid
from .storage.opening import open_storage, sink_of
from .storage.packs import Packs
from .storage.proxy import StorageProxy
from .storage.readonly import ReadOnlyProxy
from .storage.run_note import resume_run, run_note
from .storage.wrapped import as_stored, layers, own_instance, release
from .tids import last_of
from .tls import TLSOptions
from .visibility import Visibility

log = logging.getLogger("zrs_core.secondary")

# Seconds between two looks whether there can be a first transaction.
_LONGEST_WAIT = 1.0


class Secondary(ReadOnlyProxy):
    """A storage that is read like any other, and written to by replication alone.

    It has the methods and provides the interfaces of the storage under it, but those for writing;
    packing is maintenance and stays possible. It can be used as a database once the first
    transaction has arrived; open connections see what arrives at their next transaction
    boundary.

    :param storage: a storage that provides `IStorageRestoreable`, such as a FileStorage, or the
        path of a FileStorage, which is made if there is none. Without blobs, a primary with blobs
        will refuse it.
    :param address: where the primary listens: `host:port`, (host, port), or the path of a Unix
        socket.
    :param reactor: what the transport runs on, if not on its own default: a Twisted reactor for
        `twisted-tcp`, a `MemoryNetwork` for `memory`.
    :param blob_dir: a directory for blobs, for a FileStorage that has none yet.
    :param transport: the name of a transport.
    :param reconnect_delay: the shortest and the longest time between attempts to connect, in
        seconds; one number for both.
    :param check_checksums: `require`, `verify` (or True) or `ignore` (or False).
    :param keep_alive_delay: seconds between keep-alive messages to the primary; 0 for none.
    :param tls: encrypts and authenticates the connection; None for plain text.
    :param peer_timeout: seconds after which a primary that vanished without a word is noticed.
    :param max_record_size: the most bytes in a record; one that is larger ends the connection.
    :param durability: when a transaction is written to disk: `transaction`, each by itself;
        `batch`, together with those that came along with it; `none`, when the system likes.
        A storage that is no FileStorage does as it likes. With any of them a process that is
        killed leaves whole transactions, and what it lost is asked for again.
    :param max_compared_size: the most bytes of the last transaction, records and blobs, that are
        sent again at each connection, to see whether the primary holds the same; 0 for none.
    :param name: the name of this secondary in its log, status and metrics; None for the host's.
    :param wait_for_data: seconds to wait for the first transaction, if the storage is empty: a
        database can be opened then. 0 to wait for none. With a reactor that runs in this thread it
        waits in vain.
    :raises NoData: none has come in that time; the storage is closed.
    :raises ConfigurationError: an address that does not parse, an unknown transport, a storage
        that cannot be replicated into, a setting out of range; nothing was opened or written.
    """

    def __init__(
        self,
        storage: Any,
        address: object,
        reactor: object = None,
        *,
        blob_dir: str | os.PathLike[str] | None = None,
        transport: str = "twisted-tcp",
        reconnect_delay: float | tuple[float, float] = (0.5, 60.0),
        check_checksums: str | bool = "verify",
        keep_alive_delay: float = 0,
        tls: TLSOptions | None = None,
        peer_timeout: float = DEFAULT_PEER_TIMEOUT,
        max_record_size: int = DEFAULT_MAX_RECORD_SIZE,
        durability: str = "batch",
        max_compared_size: int = DEFAULT_MAX_COMPARED_SIZE,
        name: str | None = None,
        wait_for_data: float = 0,
    ) -> None:
        where = address_of_primary(address)
        check_seconds("wait_for_data", wait_for_data)
        options = ClientOptions(
            check_checksums,
            keep_alive_delay,
            reconnect_delay,
            tls,
            peer_timeout,
            max_record_size,
            durability,
            max_compared_size=max_compared_size,
            name=name,
        )
        make_connector = transports.connector_factory(transport)
        if any(isinstance(layer, StorageProxy) for layer in layers(storage)):
            raise UnsuitableStorage(
                f"{storage.getName()} cannot be replicated into: it is one end of a replication "
                "already"
            )
        if getattr(storage, "isReadOnly", bool)():
            raise UnsuitableStorage(
                f"{storage.getName()} cannot be replicated into: it is read-only"
            )
        storage, give_up = open_storage(storage, blob_dir)
        self._dbs: list[Any] = []
        # Guards the two, between the thread that applies and those that open databases.
        self._dbs_lock = threading.Lock()
        self._since_asked: deque[tuple[bytes, list[bytes]]] | None = None
        self._followers: list[Callable[[], object]] = []
        self._closed = False
        self._stored = as_stored(storage)
        self._instance = self._stored
        try:
            self._instance = own_instance(self._stored)
            super().__init__(storage)
            self.files = FilesInPlace(self._stored)
            sink = sink_of(self._instance, self._invalidate, durability)
            # A storage with snapshots packs by itself, beside what is replicated.
            self._packs: Packs | None = (
                None if self._has_snapshots else getattr(sink, "packs", None)
            )
            self._visibility = self._visibility_of(sink, durability)
            self._client = ReplicationClient(
                sink,
                where,
                reactor,
                options,
                self._committed,
                self.files.check,
                self._visibility,
            )
            self._transport = transport
            self._connector = make_connector(self._client)
            known_as = "" if name is None else f" as {name}"
            fields = self._event("opening")
            log.info("Opening %s %s%s", self.getName(), where, known_as, extra=fields)
            self._connector.start()
        except BaseException:
            release(self._stored, self._instance)
            give_up()
            raise
        try:
            self.wait_for_data(wait_for_data)
        except BaseException:
            self.close()
            raise

    def _visibility_of(self, sink: ITransactionSink, durability: str) -> Visibility:
        stored, last = self._stored, sink.last_tid()
        if not is_file_storage(stored):
            visibility = Visibility(last, self._deliver)
            if getattr(sink, "ends_packed", False):
                visibility.resume(NO_TID, ())
            return visibility
        note = run_note(stored, durability)
        visibility = Visibility(last, self._deliver, note, holds=True)
        resume_run(stored, note, visibility)
        use_packer(stored, self._pack_limit)
        keep_garbage(stored)
        return visibility

    def _pack_limit(self) -> bytes:
        """Return the last transaction that a pack may go over: readers may need those up to it."""
        limit = self.limit()
        last: bytes = self._storage.lastTransaction()
        return last if limit is None else limit

    def limit(self) -> bytes | None:
        """Return the last transaction of a complete state, if later ones are there; else None."""
        return self._visibility.limit()

    def _event(self, name: str) -> dict[str, object]:
        position = self._client.progress.tid
        return event(
            name,
            storage=self.getName(),
            address=self._client.address,
            tid=position,
            secondary=self._client.name,
        )

    def abandon(self) -> None:
        super().abandon()
        assert isinstance(self._storage, Inherited)  # noqa: S101
        self._closed = True
        self._dbs_lock = threading.Lock()
        self._stored = self._instance = self._storage
        self.files = FilesInPlace(self._storage)
        self.has_data = self._storage.refuse  # type: ignore[method-assign]
        self._client.abandon(UsedAfterFork(self.getName()))
        transports.abandon(self._connector)

    @property
    def replication_address(self) -> Address:
        """Where the primary is looked for."""
        return self._client.address

    @property
    def progress(self) -> Progress:
        """What has been received so far."""
        return self._client.progress

    def status(self) -> SecondaryStatus:
        """How it is going now: a value that does not change any more. For any thread."""
        return self._client.status(self._transport)

    @property
    def _has_snapshots(self) -> bool:
        return self._instance is not self._stored

    def lastInvalidations(self, count: int) -> Any:
        with self._dbs_lock:
            self._since_asked = None if self._dbs else deque(maxlen=count)
        found = self._storage.lastInvalidations(count)
        held = self._visibility.held
        return found if held is None else [each for each in found if each[0] <= held]

    def registerDB(self, db: Any) -> None:
        self._storage.registerDB(db)
        if self._has_snapshots:
            # Its users ask themselves what has changed.
            return
        with self._dbs_lock:
            missed, self._since_asked = self._since_asked or (), None
            for tid, oids in missed:
                # A ZEO server asks for the last invalidations, and registers itself only then. It
                # keeps what it is told here, before it finds that it has no clients yet.
                with contextlib.suppress(KeyError):
                    db.invalidate(tid, oids)
            self._dbs.append(db)

    def _invalidate(self, tid: bytes, oids: list[bytes]) -> None:
        self._visibility.committed(tid, oids)

    def _deliver(self, tid: bytes, oids: list[bytes]) -> None:
        with self._dbs_lock:
            if self._since_asked is not None:
                self._since_asked.append((tid, oids))
            dbs = [*self._dbs]
        for db in dbs:
            try:
                _tell(db, tid, oids)
            except Exception:
                # The others must hear of it all the same.
                log.exception(
                    "%s: a database cannot be told of what has changed",
                    self.getName(),
                    extra=event(
                        "not-told",
                        storage=self.getName(),
                        tid=tid,
                        secondary=self._client.name,
                    ),
                )

    def wait_for_data(self, timeout: float) -> None:
        """Return when a database can be opened.

        That is when there is a transaction, and all that a pack of the primary has left.

        :param timeout: seconds to wait at most; 0 to return at once in any case.
        :raises NoData: there is none after that time, or the disk has failed.
        """
        if not timeout or self._has_database():
            return
        fields = self._event("waiting-for-data")
        log.info(
            "%s has no data yet: waiting for the first transaction, %g seconds at most",
            self.getName(),
            timeout,
            extra=fields,
        )
        arrived = threading.Event()
        self._followers.append(arrived.set)
        try:
            deadline = time.monotonic() + timeout
            while not self._has_database():
                left = deadline - time.monotonic()
                progress = self._client.progress
                if left <= 0 or progress.stopped is not None:
                    error = f": {progress.last_error}" if progress.last_error else ""
                    what = "only a part of its history" if self.has_data() else "no transaction"
                    raise NoData(
                        f"{self.getName()} has no data: {what} has come from "
                        f"{self._client.address} within {timeout:g} seconds (state "
                        f"{progress.state}{error}). Check the primary, or wait for longer"
                    )
                # What stops it may come without a transaction.
                arrived.wait(min(left, _LONGEST_WAIT))
        finally:
            self._followers.remove(arrived.set)

    def on_commit(self, callback: Callable[[], object]) -> None:
        """Call `callback` whenever transactions have been applied."""
        self._followers.append(callback)

    def _committed(self) -> None:
        for callback in self._followers:
            callback()

    def pack(self, t: float, *args: Any, **kwargs: Any) -> None:
        """As the storage packs.

        :raises NotWritten: the disk has failed, and nothing more is written.
        :raises StorageError: the storage's files are not in place.
        """
        if (stopped := self._client.progress.stopped) is not None:
            raise stopped
        self.files.require()
        packing = contextlib.nullcontext() if self._packs is None else self._packs.one()
        try:
            with keeping_last_tid(self._stored), packing:
                self._storage.pack(t, *args, **kwargs)
        except NotWritten as error:
            self._client.stop(error)
            self._connector.reconnect()
            raise

    def setReplicationAddress(self, address: object) -> None:
        """Follow the primary at another address from now on; the histories must match.

        :raises InvalidAddress: it does not parse; nothing has changed.
        """
        if isinstance(self._client.progress.stopped, UsedAfterFork):
            raise self._client.progress.stopped
        where = address_of_primary(address)
        self._client.follow(where)
        fields = self._event("redirected")
        log.info("%s goes on with the primary at %s", self.getName(), where, extra=fields)
        self._connector.reconnect()

    def _has_database(self) -> bool:
        return self.has_data() and not self._client.progress.incomplete

    def has_data(self) -> bool:
        return self._client.progress.tid != NO_TID

    def lastTransaction(self) -> bytes:
        if self._has_snapshots:
            # The storage has its own, of who knows when.
            return self._client.progress.tid
        held = self._visibility.held
        if held is not None:
            return held
        tid: bytes = self._storage.lastTransaction()
        return tid

    def load(self, oid: bytes, version: str = "") -> tuple[bytes, bytes]:
        """Return the data of an object, and its last transaction, as readers see it."""
        held = self._visibility.held
        if held is None:
            data, tid = self._storage.load(oid, version)
        else:
            found = self._storage.loadBefore(oid, p64(u64(held) + 1))
            if found is None:
                raise POSKeyError(oid)
            data, tid, _ = found
        return data, tid

    def close(self) -> None:
        """Disconnect, give up an unfinished transaction, close the storage."""
        if self._closed:
            return
        self._closed = True
        where = self._client.address
        last = last_of(self._client.progress.tid)
        fields = self._event("closing")
        log.info("Closing %s %s%s", self.getName(), where, last, extra=fields)
        try:
            self._connector.stop()
            self._call_on_close()
        finally:
            release(self._stored, self._instance)
            self._storage.close()


def _tell(db: Any, tid: bytes, oids: list[bytes]) -> None:
    try:
        db.invalidate(tid, oids)
    except (AttributeError, TypeError):
        if not IStorageWrapper.providedBy(db):
            raise
        # Wrappers of ZODB's and zc's register themselves when they are made, and before a database,
        # their `db`, is opened over them, they have nobody to tell. ZODB's own HexStorage tells it
        # more than it takes: then it has to forget everything.
        if hasattr(db, "db"):
            db.invalidateCache()


def address_of_primary(address: object) -> Address:
    """The address of a primary, which listens there.

    :raises InvalidAddress: it does not parse, or nobody can listen there.
    """
    where = parse_address(address)
    if isinstance(where, TCPAddress) and not where.port:
        raise InvalidAddress(f"invalid address {address!r}: nobody can listen at port 0")
    return where
