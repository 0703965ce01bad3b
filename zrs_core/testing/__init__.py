"""For tests: a peer that is driven by hand, stand-ins for storages, and a suite for transports.

`zrs_core.testing.conformance`, which needs pytest, is what every transport must show.
"""

from .fakes import WHOLE, Sink, Source, greeting, stream
from .hand import HandDriver
from .peer import Peer

__all__ = ["WHOLE", "HandDriver", "Peer", "Sink", "Source", "greeting", "stream"]
