"""The storage that is replicated from."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Any

from .. import transports
from ..addresses import Address, parse_address
from ..options import ServiceOptions
from ..sessions import ReplicationService
from .filestorage import FileStorageSource
from .opening import open_storage
from .proxy import StorageProxy

log = logging.getLogger("zrs_core.primary")


class Primary(StorageProxy):
    """A storage, used like any other, whose transactions secondaries can follow.

    It has the methods and provides the interfaces of the storage under it.

    :param storage: a FileStorage, with or without blobs, a BlobStorage around one, or a path.
    :param address: where to listen: `host:port`, `:port` or (host, port); port 0 lets the system
        choose, and `replication_address` tells.
    :param reactor: what the transport runs on, if not on its own default: a Twisted reactor for
        `twisted-tcp`, a `MemoryNetwork` for `memory`.
    :param blob_dir: a directory for blobs, for a storage that has none yet.
    :param transport: the name of a transport.
    :param pickle_protocol: 3, or 1 for secondaries on Python 2.
    :param close_timeout: how many seconds `close()` lets secondaries catch up.
    :raises ConfigurationError: an address that does not parse, an unknown transport, a storage
        that cannot be replicated; nothing was opened or written.
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
        close_timeout: float = 10.0,
    ) -> None:
        where = parse_address(address)
        options = ServiceOptions(pickle_protocol)
        make_listener = transports.listener_factory(transport)
        storage, opened_here = open_storage(storage, blob_dir)
        super().__init__(storage)
        self._close_timeout = close_timeout
        self._closed = False
        self._source = FileStorageSource(storage)
        service = ReplicationService(self._source, where, reactor, options)
        try:
            self._listener = make_listener(service)
            self._listener.start()
        except BaseException:
            if opened_here:
                storage.close()
            raise
        log.info("Opening %s %s", self.getName(), self.replication_address)

    @property
    def replication_address(self) -> Address:
        """Where secondaries connect to."""
        address: Address = self._listener.address
        return address

    @property
    def missing_blobs(self) -> int:
        """How many blob records were sent without their blob, since its file was missing."""
        return self._source.missing_blobs

    def tpc_finish(self, transaction: Any, f: Callable[[bytes], object] | None = None) -> Any:
        tid = self._storage.tpc_finish(transaction, *(() if f is None else (f,)))
        self._source.changed()
        return tid

    def copyTransactionsFrom(self, *args: Any, **kwargs: Any) -> None:
        self._storage.copyTransactionsFrom(*args, **kwargs)
        self._source.changed()

    def close(self) -> None:
        """Let connected secondaries catch up, within `close_timeout`; then close the storage.

        Called in the thread of the reactor that it runs on, it cannot wait for them.
        """
        if self._closed:
            return
        self._closed = True
        log.info("Closing %s %s", self.getName(), self.replication_address)
        try:
            self._listener.stop(self._close_timeout)
        finally:
            self._storage.close()
