"""A peer that is driven by hand over the memory transport, for tests and demonstrations."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

from ..codec.framing import MAX_PAYLOAD_SIZE, FrameReader, prefix
from ..codec.opcodes import read as read_pickle

if TYPE_CHECKING:
    from ..transports.memory import MemoryEnd


class Peer:
    """Speaks the protocol by hand: the other end of a `Primary`, or of a `Secondary`.

    Of a primary, by connecting to it::

        connection = Peer(network.connect(address))

    Of a secondary, by listening before it is opened and accepting after::

        listener = network.listen(address)
        secondary = Secondary(storage, address, network, transport="memory")
        connection = Peer(listener.accept())

    It moves the network by itself: what it sends arrives, and what it asks for has arrived.
    `docs/primary.rst` and `docs/secondary.rst` are written with it.

    :raises ConnectionRefusedError: nobody has connected, so that there is nothing to accept.
    """

    def __init__(self, end: MemoryEnd | None) -> None:
        if end is None:
            raise ConnectionRefusedError("nobody has connected")
        self._end = end
        self._network = end.network
        self._frames = FrameReader()
        self._network.run()

    def send(self, message: bytes | tuple[Any, ...]) -> None:
        """One message: bytes as they are, anything else pickled (protocol 1, as ZRS 2 does)."""
        payload = message if isinstance(message, bytes) else pickle.dumps(message, 1)
        self._end.write(prefix(len(payload)) + payload)
        self._network.run()

    def read(self, raw: bool = False) -> Any:
        """The next message: its bytes if `raw`, otherwise what it is the pickle of.

        :raises EOFError: nothing has come.
        """
        if not self.have_data():
            raise EOFError("no message has come")
        payload = self._frames.take(MAX_PAYLOAD_SIZE)
        if raw or payload is None:
            return payload
        return read_pickle(payload).root.value

    def have_data(self) -> bool:
        """Whether a whole message has come."""
        self._network.run()
        self._frames.feed(self._end.read())
        size = self._frames.announced()
        return size is not None and self._frames.waiting >= 4 + size

    @property
    def closed(self) -> bool:
        """Whether the other end has closed the connection."""
        self._network.run()
        return self._end.at_eof

    def close(self) -> None:
        """Close the connection."""
        self._end.close()
        self._network.run()
