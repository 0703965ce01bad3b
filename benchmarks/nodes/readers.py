"""The process of secondaries that cost next to nothing, as if they were on other machines."""

from __future__ import annotations

import selectors
import socket
import struct
import threading

from .implementations import Address
from .node import Node

_READ_SIZE = 1 << 20


class ReadersNode(Node):
    """Connections that read what comes, and do nothing with it."""

    def follow(self, address: Address, tid: str, count: int) -> None:
        """Connect so often, and ask for all after `tid`."""
        selector = selectors.DefaultSelector()
        greeting = b"".join(
            struct.pack(">L", len(message)) + message for message in (b"zrs2.0", bytes.fromhex(tid))
        )
        host, port = address
        for _ in range(count):
            connection = socket.create_connection((host, port))
            connection.sendall(greeting)
            selector.register(connection, selectors.EVENT_READ)
        threading.Thread(target=_read, args=[selector], daemon=True).start()


def _read(selector: selectors.BaseSelector) -> None:
    buffer = bytearray(_READ_SIZE)
    while selector.get_map():
        for key, _ in selector.select():
            connection: socket.socket = key.fileobj  # type: ignore[assignment]
            if not connection.recv_into(buffer):
                selector.unregister(connection)
                connection.close()
