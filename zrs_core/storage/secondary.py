"""The read-only storage that follows a primary."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, NoReturn

from ZODB.interfaces import IBlobStorageRestoreable, IExternalGC, IStorageRestoreable
from ZODB.POSException import ReadOnlyError

from .. import transports
from ..addresses import Address, TCPAddress, parse_address
from ..errors import InvalidAddress, UnsuitableStorage
from ..messages import NO_TID
from ..options import DEFAULT_MAX_RECORD_SIZE, DEFAULT_PEER_TIMEOUT, ClientOptions
from ..progress import Progress
from ..sessions import ReplicationClient
from ..tls import TLSOptions
from .filestorage import file_storage_sink
from .opening import open_storage
from .proxy import StorageProxy

log = logging.getLogger("zrs_core.secondary")


class Secondary(StorageProxy):
    """A storage that is read like any other, and written to by replication alone.

    It has the methods and provides the interfaces of the storage under it, but those for writing;
    packing is maintenance and stays possible. It can be used as a database once the first
    transaction has arrived; open connections see what arrives at their next transaction
    boundary.

    :param storage: a FileStorage, with or without blobs, a BlobStorage around one, or a path,
        where one is made if there is none. Without blobs, a primary with blobs will refuse it.
    :param address: where the primary listens: `host:port`, (host, port), or the path of a Unix
        socket.
    :param reactor: what the transport runs on, if not on its own default: a Twisted reactor for
        `twisted-tcp`, a `MemoryNetwork` for `memory`.
    :param blob_dir: a directory for blobs, for a storage that has none yet.
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
        With any of them a crash leaves whole transactions, and what it lost is asked for again.
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
    ) -> None:
        where = _address_of_primary(address)
        options = ClientOptions(
            check_checksums,
            keep_alive_delay,
            reconnect_delay,
            tls,
            peer_timeout,
            max_record_size,
            durability,
        )
        make_connector = transports.connector_factory(transport)
        if isinstance(storage, StorageProxy) or getattr(storage, "isReadOnly", bool)():
            raise UnsuitableStorage(
                f"{storage.getName()} cannot be replicated into: it is "
                + (
                    "one end of a replication already"
                    if isinstance(storage, StorageProxy)
                    else "read-only"
                )
            )
        storage, give_up = open_storage(storage, blob_dir)
        super().__init__(storage, (IStorageRestoreable, IBlobStorageRestoreable, IExternalGC))
        self._dbs: list[Any] = []
        # Guards the two, between the thread that applies and those that open databases.
        self._dbs_lock = threading.Lock()
        self._since_asked: deque[tuple[bytes, list[bytes]]] | None = None
        self._followers: list[Callable[[], object]] = []
        self._closed = False
        try:
            sink = file_storage_sink(storage, self._invalidate, durability)
            self._packs = sink.packs
            self._client = ReplicationClient(
                sink,
                where,
                reactor,
                options,
                self._committed,
            )
            self._connector = make_connector(self._client)
            log.info("Opening %s %s", self.getName(), where)
            self._connector.start()
        except BaseException:
            give_up()
            raise

    @property
    def replication_address(self) -> Address:
        """Where the primary is looked for."""
        return self._client.address

    @property
    def progress(self) -> Progress:
        """What has been received so far."""
        return self._client.progress

    def lastInvalidations(self, count: int) -> Any:
        with self._dbs_lock:
            self._since_asked = None if self._dbs else deque(maxlen=count)
        return self._storage.lastInvalidations(count)

    def registerDB(self, db: Any) -> None:
        self._storage.registerDB(db)
        with self._dbs_lock:
            missed, self._since_asked = self._since_asked or (), None
            for tid, oids in missed:
                # A ZEO server asks for the last invalidations, and registers itself only then. It
                # keeps what it is told here, before it finds that it has no clients yet.
                with contextlib.suppress(KeyError):
                    db.invalidate(tid, oids)
            self._dbs.append(db)

    def _invalidate(self, tid: bytes, oids: list[bytes]) -> None:
        with self._dbs_lock:
            if self._since_asked is not None:
                self._since_asked.append((tid, oids))
            dbs = [*self._dbs]
        for db in dbs:
            db.invalidate(tid, oids)

    def on_commit(self, callback: Callable[[], object]) -> None:
        """Call `callback` whenever transactions have been applied."""
        self._followers.append(callback)

    def _committed(self) -> None:
        for callback in self._followers:
            callback()

    def pack(self, t: float, *args: Any, **kwargs: Any) -> None:
        with self._packs.one():
            self._storage.pack(t, *args, **kwargs)

    def setReplicationAddress(self, address: object) -> None:
        """Follow the primary at another address from now on; the histories must match.

        :raises InvalidAddress: it does not parse; nothing has changed.
        """
        self._client.address = _address_of_primary(address)
        self._connector.reconnect()

    def isReadOnly(self) -> bool:
        return True

    def _read_only(self, *args: Any, **kwargs: Any) -> NoReturn:
        if self._client.progress.tid == NO_TID:
            # What writes here is a database that looks for its root object and does not find it.
            raise ReadOnlyError(
                f"{self.getName()} is a secondary and has no data yet: wait for its first "
                "transaction"
            )
        raise ReadOnlyError(f"{self.getName()} is a secondary: write to its primary")

    # With the signatures of ZODB.interfaces, which verifyObject compares.

    def new_oid(self) -> NoReturn:
        self._read_only()

    def tpc_begin(self, transaction: Any, tid: Any = None, status: str = " ") -> NoReturn:
        self._read_only()

    def tpc_vote(self, transaction: Any) -> NoReturn:
        self._read_only()

    def tpc_finish(self, transaction: Any, func: Any = None) -> NoReturn:
        self._read_only()

    def store(self, oid: Any, serial: Any, data: Any, version: Any, transaction: Any) -> NoReturn:
        self._read_only()

    def undo(self, transaction_id: Any, transaction: Any) -> NoReturn:
        self._read_only()

    storeBlob = restore = restoreBlob = deleteObject = copyTransactionsFrom = _read_only

    def close(self) -> None:
        """Disconnect, give up an unfinished transaction, close the storage."""
        if self._closed:
            return
        self._closed = True
        log.info("Closing %s %s", self.getName(), self._client.address)
        try:
            self._connector.stop()
        finally:
            self._storage.close()


def _address_of_primary(address: object) -> Address:
    where = parse_address(address)
    if isinstance(where, TCPAddress) and not where.port:
        raise InvalidAddress(f"invalid address {address!r}: nobody can listen at port 0")
    return where
