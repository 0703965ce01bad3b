"""The protocol of ZRS 2 as a sans-IO codec: bytes in, messages out, and the reverse.

`PrimaryConnection` and `SecondaryConnection` are the two ends of one replication connection. They
open no socket, start no thread, read no clock and know no storage. The caller feeds them the bytes
of a peer and sends the bytes that they return. See `docs/codec.rst`.

All names that a program needs are here: ``import zrs_core.codec as zrs``.
"""

from ..errors import (
    ChecksumError,
    InvalidMessage,
    LimitExceeded,
    LocalProtocolError,
    ProtocolError,
    RemoteProtocolError,
    ReplicationError,
    TruncatedStream,
    UnsupportedProtocol,
)
from ..messages import (
    NO_TID,
    BlobBlock,
    Commit,
    Hello,
    KeepAlive,
    Start,
    Store,
    StoreBlob,
    Transaction,
)
from .connection import CONNECTION_CLOSED, NEED_DATA, NoMessage
from .machine import State
from .primary import PrimaryConnection
from .secondary import ChecksumPolicy, SecondaryConnection

__all__ = [
    "CONNECTION_CLOSED",
    "NEED_DATA",
    "NO_TID",
    "BlobBlock",
    "ChecksumError",
    "ChecksumPolicy",
    "Commit",
    "Hello",
    "InvalidMessage",
    "KeepAlive",
    "LimitExceeded",
    "LocalProtocolError",
    "NoMessage",
    "PrimaryConnection",
    "ProtocolError",
    "RemoteProtocolError",
    "ReplicationError",
    "SecondaryConnection",
    "Start",
    "State",
    "Store",
    "StoreBlob",
    "Transaction",
    "TruncatedStream",
    "UnsupportedProtocol",
]
