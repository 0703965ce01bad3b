"""Sessions: one end of one connection as a state machine with time, which a driver drives.

A session joins the codec to a source or a sink. It has no I/O, no clock and no thread of its own:
its driver, which is a part of a transport, gives it what came in and the time, and carries out its
actions (`zrs_core.actions`). It logs what happens to its connection, under `zrs_core.primary` or
`zrs_core.secondary`.
"""

from .check import CHECK_TABLE, Check, CheckEvent, CheckState
from .client import ReplicationClient
from .following import ALARM_AFTER
from .primary import BATCH_SIZE, PRIMARY_DEADLINES, PrimarySession
from .probe import PROBE_DEADLINES, ProbeSession
from .secondary import SECONDARY_DEADLINES, SecondarySession
from .service import ReplicationService
from .times import ANSWER_TIME, REFUSAL_TIME, PrimaryTimes, SecondaryTimes
from .tls import TLS_DEADLINES

__all__ = [
    "ALARM_AFTER",
    "ANSWER_TIME",
    "BATCH_SIZE",
    "CHECK_TABLE",
    "PRIMARY_DEADLINES",
    "PROBE_DEADLINES",
    "REFUSAL_TIME",
    "SECONDARY_DEADLINES",
    "TLS_DEADLINES",
    "Check",
    "CheckEvent",
    "CheckState",
    "PrimarySession",
    "PrimaryTimes",
    "ProbeSession",
    "ReplicationClient",
    "ReplicationService",
    "SecondarySession",
    "SecondaryTimes",
]
