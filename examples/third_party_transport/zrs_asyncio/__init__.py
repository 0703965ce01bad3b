"""The transport `asyncio-tcp`: TCP by the streams of asyncio, in plain text."""

from .connector import Connector
from .listener import Listener

__all__ = ["Connector", "Listener"]
