"""What status servers answer, and a server that answers anything."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator

from persistent.timestamp import TimeStamp

#: 2026-11-22 06:00:00 UTC.
NOW = 1795327200.0

RATES = {
    "10s": {"transactions": 12.5, "bytes": 25_000},
    "5min": {"transactions": 2, "bytes": 4_000.5},
}


def position(time: float) -> dict[str, object]:
    """A position at `NOW` and so many seconds."""
    tid = TimeStamp(2026, 11, 22, 6, 0, 0).raw()
    number = int.from_bytes(tid, "big") + round(time * 2**32 / 60)
    tid = number.to_bytes(8, "big")
    return {"tid": f"0x{tid.hex()}", "time": TimeStamp(tid).timeTime()}


def peer(**changes) -> dict[str, object]:
    return {
        "address": "127.0.0.1:40114",
        "certificate": None,
        "protocol": "zrs2.1",
        "connected_since": NOW - 60,
        "start": None,
        "position": position(0),
        "bytes": 1_000_000,
        "transactions": 100,
        "state": "waiting",
        "back_pressure_seconds": 0.25,
        "lag_seconds": 0.0,
        "lag_transactions": 0,
        **changes,
    }


def node(role: str, **changes) -> dict[str, object]:
    return {
        "now": NOW,
        "version": "0.1.0",
        "name": f"/srv/{role}/Data.fs",
        "role": role,
        "pid": 4711,
        "started": NOW - 3600,
        "ready": True,
        "ready_reason": "caught up",
        "primary": None,
        "secondary": None,
        **changes,
    }


def primary_part(**changes) -> dict[str, object]:
    return {
        "address": "127.0.0.1:8100",
        "transport": "twisted-tcp",
        "tls": False,
        "position": position(0),
        "missing_blobs": 0,
        "refused": 0,
        "last_error": None,
        "rates": RATES,
        "peers": [peer()],
        **changes,
    }


def secondary_part(**changes) -> dict[str, object]:
    return {
        "primary_address": "127.0.0.1:8100",
        "transport": "twisted-tcp",
        "tls": False,
        "protocol": "zrs2.1",
        "state": "replicating",
        "connected": True,
        "connected_since": NOW - 60,
        "local_address": "127.0.0.1:40114",
        "connections": 1,
        "last_error": None,
        "failures": 0,
        "position": position(-1.5),
        "primary_position": {**position(0), "as_of": NOW},
        "lag_seconds": 1.5,
        "lag_transactions": 3,
        "last_heard": NOW - 2,
        "silence_seconds": 2.0,
        "news": "no news since 2026-11-22 05:59:58",
        "rates": RATES,
        "bytes": 1_000_000,
        "transactions": 97,
        "blobs_written": 4,
        "missing_blobs": 0,
        **changes,
    }


def primary(ready: bool = True, **changes) -> dict[str, object]:
    return node("primary", primary=primary_part(**changes), ready=ready)


def secondary(ready: bool = True, **changes) -> dict[str, object]:
    return node("secondary", secondary=secondary_part(**changes), ready=ready)


def http(body: bytes, status: str = "200 OK", headers: str = "") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
    return head.encode("latin-1") + body


def as_answer(document: object) -> bytes:
    return http(json.dumps(document).encode())


class Server:
    """Answers `answer` if asked for its status: bytes, or what is called with each connection.

    `text` is its address, `requests` are what has come.
    """

    def __init__(self, listener: socket.socket, text: str) -> None:
        self.text = text
        self.answer: bytes | Callable[[socket.socket], None] = b""
        #: What it answers if it is asked how far somebody is behind.
        self.distance: object = {"seconds": 1.25, "transactions": 4}
        self.requests: list[bytes] = []
        #: Set when the server is to end.
        self.closing = threading.Event()
        self._listener = listener
        self._threads = [threading.Thread(target=self._accept, name="status server")]
        self._threads[0].start()

    def tell(self, document: object) -> None:
        self.answer = as_answer(document)

    def _accept(self) -> None:
        with self._listener:
            while True:
                try:
                    connection, _ = self._listener.accept()
                except OSError:
                    return
                thread = threading.Thread(target=self._serve, args=(connection,))
                self._threads.append(thread)
                thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            if callable(self.answer):
                self.answer(connection)
                return
            request = b""
            while not request.endswith(b"\r\n\r\n"):
                if not (data := connection.recv(4096)):
                    return
                request += data
            self.requests.append(request)
            asks_distance = request.startswith(b"GET /distance?tid=0x")
            connection.sendall(as_answer(self.distance) if asks_distance else self.answer)

    def close(self) -> None:
        """May be called again."""
        self.closing.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        for each in self._threads:
            each.join()


@contextlib.contextmanager
def serving(document: object = None, path: object = None) -> Iterator[Server]:
    """A server, on a TCP port or on the Unix socket `path`."""
    if path is None:
        listener = socket.create_server(("127.0.0.1", 0))
        text = f"127.0.0.1:{listener.getsockname()[1]}"
    else:
        text = str(path)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(text)
        listener.listen()
    server = Server(listener, text)
    if document is not None:
        server.tell(document)
    try:
        yield server
    finally:
        server.close()
