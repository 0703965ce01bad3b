"""Receives a snapshot from a primary, as a secondary would."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from typing import Any

from persistent.timestamp import TimeStamp
from ZODB.FileStorage import FileStorage
from zope.interface import implementer

from .. import transports
from ..addresses import Address, parse_address
from ..held import HeldTransaction
from ..interfaces import IComparableSink
from ..messages import NO_TID, Commit, PrimaryMessage, Transaction
from ..options import ClientOptions
from ..progress import Progress
from ..sessions import ReplicationClient
from ..storage.opening import sink_of
from .checking import ContentDigest, Contents, check
from .copying import Damaged, Report
from .manifest import BLOBS, DATA


class Receiver:
    """While this context is entered, a primary's transactions are received into a directory.

    :param options: of the client; what is received is not on disk before the snapshot is published,
        so that its `durability` should be `none`.
    :param directory: an empty one, in which `Data.fs` and `blobs` are made.
    :raises ConfigurationError: an address that does not parse, an unknown transport.
    """

    def __init__(
        self, address: str, transport: str, options: ClientOptions, directory: str
    ) -> None:
        self._where = parse_address(address)
        self._make_connector = transports.connector_factory(transport)
        self._options = options
        self._directory = directory
        self._begin = time.time()

    def __enter__(self) -> Receiver:
        with contextlib.ExitStack() as stack:
            storage = FileStorage(
                os.path.join(self._directory, DATA),
                blob_dir=os.path.join(self._directory, BLOBS),
            )
            stack.callback(storage.close)
            self._sink = _Recorder(sink_of(storage, _nobody_to_tell, self._options.durability))
            client = ReplicationClient(self._sink, self._where, None, self._options)
            self.progress: Progress = client.progress
            connector = self._make_connector(client)
            connector.start()
            stack.callback(connector.stop)
            self._stack = stack.pop_all()
        return self

    @property
    def address(self) -> Address:
        return self._where

    @property
    def has_come_to_now(self) -> bool:
        """Whether a transaction has come that is not older than the wish for a snapshot.

        By the clocks of both machines. A primary that is never quiet is never caught up with.
        """
        tid = self.progress.tid
        return tid != NO_TID and bool(TimeStamp(tid).timeTime() >= self._begin)

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()

    def check(self, report: Report) -> Contents:
        """Read what was received, when this context was left, and compare it with what came.

        :raises Damaged: they are not equal.
        :raises ReplicationError: as `checking.check`.
        """
        digest = ContentDigest()
        contents = check(self._directory, report, digest)
        if digest.hexdigest() != self._sink.visible.hexdigest():
            raise Damaged(f"what was written does not hold what {self._where} has sent")
        return contents


def _nobody_to_tell(tid: bytes, oids: list[bytes]) -> None:
    """No database is open over what is received."""


@implementer(IComparableSink)
class _Recorder:
    """A sink that sums up what is applied to another: `visible` is of what that shows."""

    def __init__(self, sink: Any) -> None:
        self._sink = sink
        self.blobs: bool = sink.blobs
        self.last_tid: Callable[[], bytes] = sink.last_tid
        self.last_transaction: Callable[[int], HeldTransaction] = sink.last_transaction
        self.visible = ContentDigest()
        # Of the transactions that are whole, `_whole_tid` the last of them, and of all that came.
        self._whole = self.visible.copy()
        self._all = self.visible.copy()
        self._whole_tid = self._tid = sink.last_tid()

    def apply(self, message: PrimaryMessage) -> None:
        self._sink.apply(message)
        self._all.add(message)
        if isinstance(message, Transaction):
            self._tid = message.tid
        elif isinstance(message, Commit):
            self._whole, self._whole_tid = self._all.copy(), self._tid

    def flush(self) -> None:
        self._sink.flush()
        self.visible = self._whole.copy()

    def abort(self) -> None:
        self._sink.abort()
        if self.last_tid() == self._whole_tid:
            # They may be visible before they are flushed.
            self.visible = self._whole
        self._whole, self._all = self.visible.copy(), self.visible.copy()
        self._whole_tid = self._tid = self.last_tid()
