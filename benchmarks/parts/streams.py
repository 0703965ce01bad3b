"""A thousand messages of each kind, as they may follow one another."""

from __future__ import annotations

from zrs_core.codec import PrimaryConnection, SecondaryConnection
from zrs_core.messages import (
    BLOB_BLOCK_SIZE,
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
from zrs_core.testing import greeting

from ..histories import tid_of

COUNT = 1_000

_TID = tid_of(0)
_OID = bytes(8)
_BEGIN: list[PrimaryMessage] = [Transaction(_TID, description=b"/site/folder/document/edit")]


def _records(size: int) -> list[PrimaryMessage]:
    return [Store(_OID, _TID, bytes(size))] * COUNT


def _transactions() -> list[PrimaryMessage]:
    return [
        message
        for number in range(COUNT // 2)
        for message in (
            Transaction(tid_of(number), description=b"/site/folder/document/edit"),
            Commit(),
        )
    ]


#: By kind: what comes before the messages, and the messages.
KINDS: dict[str, tuple[list[PrimaryMessage], list[PrimaryMessage]]] = {
    "begin and commit": ([], _transactions()),
    "record of 300 bytes": (_BEGIN, _records(300)),
    "record of 60,000 bytes": (_BEGIN, _records(60_000)),
    "record of an empty blob": (_BEGIN, [StoreBlob(_OID, _TID, bytes(300), None, 0)] * COUNT),
    "block of a blob": (
        [*_BEGIN, StoreBlob(_OID, _TID, bytes(300), None, COUNT)],
        [BlobBlock(bytes(BLOB_BLOCK_SIZE))] * COUNT,
    ),
}


def primary(pickle_protocol: int) -> PrimaryConnection:
    """A primary's end that has been asked for all that there is."""
    connection = PrimaryConnection(pickle_protocol=pickle_protocol)
    connection.receive_data(greeting())
    list(connection.messages())
    return connection


def secondary() -> SecondaryConnection:
    """A secondary's end that has asked for all that there is."""
    connection = SecondaryConnection()
    connection.send(Hello("zrs2.1"))
    connection.send(Start(NO_TID))
    return connection


def encode(connection: PrimaryConnection, messages: list[PrimaryMessage]) -> list[bytes]:
    """The chunks of the messages, as a session has them made."""
    return connection.send_all(messages)
