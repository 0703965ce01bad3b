"""The transport `asyncio-tcp`: TCP in an event loop of asyncio."""

from .connector import Connector
from .listener import Listener

__all__ = ["Connector", "Listener"]
