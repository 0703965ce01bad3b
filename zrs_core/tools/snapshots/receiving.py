"""Receives a snapshot from a primary, as a secondary would."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from copy import copy
from typing import Any

from ZODB.FileStorage import FileStorage
from zope.interface import implementer

from ... import transports
from ...addresses import Address, parse_address
from ...held import PACKED, HeldTransaction
from ...interfaces import IComparableSink
from ...messages import NO_TID, Commit, PrimaryMessage, Transaction
from ...options import ClientOptions
from ...progress import Progress
from ...sessions import ReplicationClient
from ...storage.opening import sink_of
from .checking import ContentDigest, Contents, check
from .copying import Damaged, Report
from .manifest import BLOBS, DATA


class Receiver:
    """Receives a primary's transactions into a directory.

    While this context is entered, the files are open. Transactions come while `receiving` is
    entered too, which may happen several times.

    :param options: of the client; what is received is not on disk before the snapshot is published,
        so that its `durability` should be `none`.
    :param directory: an empty one, in which `Data.fs` and `blobs` are made.
    :raises ConfigurationError: an address that does not parse, an unknown transport.
    """

    def __init__(
        self, address: str, transport: str, options: ClientOptions, directory: str
    ) -> None:
        self.address: Address = parse_address(address)
        self._make_connector = transports.connector_factory(transport)
        self.options = options
        self._directory = directory

    def __enter__(self) -> Receiver:
        with contextlib.ExitStack() as stack:
            storage = FileStorage(
                os.path.join(self._directory, DATA),
                blob_dir=os.path.join(self._directory, BLOBS),
            )
            stack.callback(storage.close)
            self._sink = _Recorder(sink_of(storage, _nobody_to_tell, self.options.durability))
            self._client = ReplicationClient(self._sink, self.address, None, self.options)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()

    @property
    def progress(self) -> Progress:
        return self._client.progress

    @property
    def received(self) -> Received:
        """All that was received and can be read."""
        return self._sink.visible

    @property
    def busy(self) -> float:
        """The seconds for which what came was stored."""
        return self._sink.busy

    @contextlib.contextmanager
    def receiving(self) -> Iterator[None]:
        """Receive transactions while this context is entered."""
        connector = self._make_connector(self._client)
        connector.start()
        try:
            yield
        finally:
            connector.stop()

    def check(self, report: Report) -> Contents:
        """Read what was received, when this context was left, and compare it with what came.

        :raises Damaged: they are not equal.
        :raises ReplicationError: as `checking.check`.
        """
        digest = ContentDigest()
        contents = check(self._directory, report, digest)
        if digest.hexdigest() != self.received.digest.hexdigest():
            raise Damaged(f"what was written does not hold what {self.address} has sent")
        return contents


def _nobody_to_tell(tid: bytes, oids: list[bytes]) -> None:
    """No database is open over what is received."""


class Received:
    """A summary of transactions that were received."""

    def __init__(self) -> None:
        self.digest = ContentDigest()
        #: The last transaction, and its status.
        self.tid = NO_TID
        self.status = " "
        #: The last transaction that a pack had marked.
        self.packed = NO_TID

    def copy(self) -> Received:
        other = copy(self)
        other.digest = self.digest.copy()
        return other

    def add(self, message: PrimaryMessage) -> None:
        self.digest.add(message)
        if isinstance(message, Transaction):
            self.tid, self.status = message.tid, message.status
            if message.status == PACKED:
                self.packed = message.tid


@implementer(IComparableSink)
class _Recorder:
    """A sink that summarizes what is applied to another sink: `visible` is what that one shows."""

    def __init__(self, sink: Any) -> None:
        self._sink = sink
        self.blobs: bool = sink.blobs
        self.last_tid: Callable[[], bytes] = sink.last_tid
        self.last_transaction: Callable[[int], HeldTransaction] = sink.last_transaction
        self.busy = 0.0
        self.visible = Received()
        # The transactions that are complete, and all that came.
        self._whole = self.visible
        self._all = self.visible.copy()

    def apply(self, message: PrimaryMessage) -> None:
        begin = time.monotonic()
        self._sink.apply(message)
        self._all.add(message)
        if isinstance(message, Commit):
            self._whole = self._all.copy()
        self.busy += time.monotonic() - begin

    def flush(self) -> None:
        begin = time.monotonic()
        self._sink.flush()
        self.visible = self._whole
        self.busy += time.monotonic() - begin

    def abort(self) -> None:
        self._sink.abort()
        if self.last_tid() == self._whole.tid:
            # They may be visible before they are flushed.
            self.visible = self._whole
        self._whole, self._all = self.visible, self.visible.copy()
