"""Sessions: a connection end joined to a source or a sink, which is what a transport drives.

A session has no I/O of its own and no thread: the transport calls it with what came in, and takes
from it what is to go out. It logs what happens to its connection, under `zrs_core.primary` or
`zrs_core.secondary`, and turns every failure into `finished`.
"""

from .client import ALARM_AFTER, ReplicationClient
from .primary import BATCH_SIZE, PrimarySession, ReplicationService
from .secondary import ANSWER_TIME, REFUSAL_TIME, SecondarySession

__all__ = [
    "ALARM_AFTER",
    "ANSWER_TIME",
    "BATCH_SIZE",
    "REFUSAL_TIME",
    "PrimarySession",
    "ReplicationClient",
    "ReplicationService",
    "SecondarySession",
]
