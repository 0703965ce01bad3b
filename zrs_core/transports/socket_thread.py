"""Plain sockets and threads: TCP or Unix sockets, and nothing but the standard library.

A thread waits for its socket, for a deadline, and to be woken. It calls `Work` itself.
"""

from __future__ import annotations

import contextlib
import os
import socket

from ..addresses import TCPAddress, UnixAddress
from .listening import BACKLOG, open_tcp_listener, remove_stale_socket
from .threaded import ThreadedConnector, ThreadedListener


class Listener(ThreadedListener):
    """Listens on a TCP address or a Unix socket."""

    def listen(self) -> socket.socket:
        address = self.address
        if isinstance(address, UnixAddress):
            remove_stale_socket(address)
        with contextlib.ExitStack() as opened:
            if isinstance(address, UnixAddress):
                listening = opened.enter_context(socket.socket(socket.AF_UNIX))
                listening.bind(address.path)
                os.chmod(address.path, self.service.socket_mode)
            else:
                listening = opened.enter_context(open_tcp_listener(address))
                self.address = TCPAddress(address.host, listening.getsockname()[1])
            listening.listen(BACKLOG)
            listening.setblocking(False)
            opened.pop_all()
            return listening

    def unlisten(self) -> None:
        if isinstance(self.address, UnixAddress):
            # While it still listens: afterwards the file may be that of another process.
            with contextlib.suppress(OSError):
                os.unlink(self.address.path)


class Connector(ThreadedConnector):
    """Connects to a TCP address or a Unix socket."""
