"""A primary whose history is given by hand, and of which the first connection gets a part."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

from ZODB.utils import p64, u64

from zrs_core.codec import PrimaryConnection
from zrs_core.messages import NO_TID, Commit, PrimaryMessage, Start, Store, Transaction

# A tid of the year 2141; those of a history follow it.
FIRST = 0x0800000000000000


def tid_of(number: int) -> bytes:
    return p64(FIRST + number)


class ScriptedPrimary:
    """A primary that listens while this context is entered.

    :param statuses: the status of each of its transactions.
    :param shown: so many of them the first connection gets, until `show_all` is called.
    """

    def __init__(self, statuses: str, shown: int | None = None) -> None:
        self._statuses = statuses
        self._shown = len(statuses) if shown is None else shown
        self._all = threading.Event()
        #: The starts of all connections.
        self.starts: list[bytes] = []
        #: True to close each connection but the first one, as a proxy does.
        self.is_gone = False

    def __enter__(self) -> ScriptedPrimary:
        self._server = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._server.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.show_all()
        self._server.shutdown(socket.SHUT_RDWR)
        for each in self._threads:
            each.join()
        self._server.close()

    def show_all(self) -> None:
        self._all.set()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._server.accept()
                thread = threading.Thread(target=self._serve, args=(connection,))
                self._threads.append(thread)
                thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            codec = PrimaryConnection()
            start = self._start(connection, codec)
            is_first = not self.starts
            self.starts.append(start)
            number = 0 if start == NO_TID else u64(start) - FIRST + 1
            # As a FileStorage that was packed: a start that is not held is good before `p` alone.
            is_held = start == NO_TID or number <= len(self._statuses)
            if not is_first and (self.is_gone or not is_held):
                return
            shown = self._shown if is_first else len(self._statuses)
            connection.sendall(self._stream(codec, number, shown))
            self._all.wait()
            connection.sendall(self._stream(codec, max(number, shown), len(self._statuses)))
            # Until the other end closes it.
            while connection.recv(100):
                pass

    def _start(self, connection: socket.socket, codec: PrimaryConnection) -> bytes:
        while True:
            data = connection.recv(100)
            if not data:
                raise ConnectionError("the other end has closed before it has greeted")
            codec.receive_data(data)
            for message in codec.messages():
                if isinstance(message, Start):
                    return message.tid

    def _stream(self, codec: PrimaryConnection, begin: int, end: int) -> bytes:
        return b"".join(codec.send_all([*self._messages(begin, end)]))

    def _messages(self, begin: int, end: int) -> Iterator[PrimaryMessage]:
        for number in range(begin, end):
            tid = tid_of(number)
            yield Transaction(tid, self._statuses[number], b"", b"", b"")
            yield Store(p64(number), tid, b"record", None)
            yield Commit()
