"""The protocol of ZRS 2 as a sans-IO codec: bytes in, messages out, and the other way round.

`PrimaryConnection` and `SecondaryConnection` are the two ends of one replication connection. They
open no socket, start no thread, read no clock and know no storage: whoever has bytes from a peer
feeds them in, whoever has messages for a peer gets bytes out. See `docs/codec.rst`.
"""

from .primary import PrimaryConnection
from .secondary import SecondaryConnection

__all__ = ["PrimaryConnection", "SecondaryConnection"]
