"""A status server: HTTP on loopback or a Unix socket, for people, probes and Prometheus.

It answers GET and HEAD, one request a connection, and reads nothing but the request's line and
headers. Whoever connects may be hostile: what is read is bounded, and so are the number of
connections and the time of each.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import selectors
import socket
import threading
import time
from collections.abc import Callable, Sequence
from http import HTTPStatus
from http.client import LineTooLong
from http.server import BaseHTTPRequestHandler
from typing import Any

from ..addresses import Address, TCPAddress, UnixAddress
from ..errors import ListenError
from ..forks import inheritable
from ..logs import event
from ..refusals import RefusalLog, RepeatLog
from ..status.state import NodeStatus, as_json
from ..transports.listening import (
    BACKLOG,
    is_exposed,
    is_loopback,
    open_tcp_listener,
    remove_stale_socket,
)
from .files import Page
from .history import INTERVAL, History
from .hosts import Hosts
from .node import Node
from .nodes import Nodes, url_of
from .options import DEFAULT_MAX_LAG, StatusOptions

log = logging.getLogger("zrs_core.status")

#: Connections at once, at most; further ones are closed.
MAX_CONNECTIONS = 32

#: Seconds that a connection may last.
CONNECTION_TIME = 10.0

#: Bytes of a request at most, its line (64 kB) and all of its headers.
MAX_REQUEST_SIZE = 128 * 1024

#: The permissions of a Unix socket.
_SOCKET_MODE = 0o600

# Seconds between two looks at connections that last too long.
_TICK = 1.0

# Seconds after which a failure to accept or serve a connection is news again.
_FAILURE_MEMORY = 60.0

# Seconds until it tries again to accept a connection when it could not.
_ACCEPT_PAUSE = 0.1

# Characters of a header that are logged.
_LONGEST_NAME = 253

_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

_TEXT = "text/plain; charset=utf-8"

_OTHER_HOST = (
    b"this server does not answer for the host that the request names: ask for localhost, or give "
    b"the server that name with status-hosts\n"
)
_JSON = "application/json"


class StatusServer:
    """Serves the status of a storage from now on until it is closed, in threads of its own.

    :param storage: a `Primary` or a `Secondary`, or a storage around one. It is not closed.
    :param address: where to listen: `host:port`, `:port` or a port for loopback alone, or the path
        of a Unix socket; port 0 lets the system choose.
    :param max_lag: seconds that a secondary may be behind to count as ready.
    :param nodes: addresses of other status servers, whose answers are shown beside this one's.
    :param hosts: names of hosts, such as that of a proxy, that the header `Host` of a request may
        have besides loopback addresses, `localhost` and the host in `address`. A request that names
        another host is refused where the server listens on loopback, and everywhere if there are
        `hosts`.
    :raises ConfigurationError: an address that does not parse, a time that is none, a storage that
        does not replicate; nothing was opened.
    :raises ListenError: the address cannot be listened on.
    :raises OSError: the system gives no descriptors.
    :raises RuntimeError: the system gives no thread.
    """

    def __init__(
        self,
        storage: Any,
        address: object,
        *,
        max_lag: float = DEFAULT_MAX_LAG,
        nodes: Sequence[object] = (),
        hosts: Sequence[str] = (),
    ) -> None:
        options = StatusOptions(address, max_lag, nodes, hosts)
        self.node = Node(storage, options.max_lag)
        self.history = History()
        self._nodes = Nodes(options.others, self.node.status)
        self.page = Page()
        self._refusals = RefusalLog(log)
        self._failures = RepeatLog(_FAILURE_MEMORY)
        self._lock = threading.Lock()
        # The connections that are served, each with its thread, and when it must be over.
        self._connections: dict[socket.socket, tuple[threading.Thread, float]] = {}
        self._closed = False
        with contextlib.ExitStack() as opened:
            self._listening, self._address = _listen(options.where)
            opened.enter_context(self._listening)
            opened.callback(self._remove_file)
            self.hosts = _hosts(self._listening, options)
            self._woken, self._waker = socket.socketpair()
            opened.enter_context(self._woken)
            opened.enter_context(self._waker)
            self._selector = opened.enter_context(selectors.DefaultSelector())
            self._selector.register(self._listening, selectors.EVENT_READ)
            self._selector.register(self._woken, selectors.EVENT_READ)
            opened.callback(self._nodes.close)
            self._nodes.start()
            self._thread = threading.Thread(
                target=self._run, name=f"zrs_core status at {self._address}", daemon=True
            )
            self._thread.start()
            # From now on all of it is the thread's, and whoever closes it.
            opened.pop_all()
        inheritable(self)
        name = storage.getName()
        fields = event("serving", storage=name, address=self._address)
        log.info("Serving the status of %s at %s", name, self.url, extra=fields)
        if is_exposed(self._address):
            log.warning(
                "%s can be reached from other machines: whoever connects can read the status",
                self._address,
                extra=event("exposed", address=self._address),
            )

    @property
    def address(self) -> Address:
        """Where it listens, its port as the system gave it."""
        return self._address

    @property
    def url(self) -> str:
        """The address as a URL; of a Unix socket its path."""
        return url_of(str(self._address), self._address)

    def close(self) -> None:
        """Listen no more, and close all connections. May be called again."""
        if self._closed:
            return
        self._closed = True
        self._waker.send(b"\0")
        self._thread.join()
        self._refusals.summarize()
        self._nodes.close()
        self._woken.close()
        self._waker.close()

    def abandon(self) -> None:
        """Close the descriptors in the child of a fork (see `forks`)."""
        self._closed = True
        self._selector.close()
        for each in (self._listening, self._woken, self._waker, *self._connections):
            each.close()

    def __enter__(self) -> StatusServer:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def status(self) -> NodeStatus:
        """The storage's, with what its primary tells of it, if that is among the nodes."""
        return self.node.status(self._nodes.told, self._nodes.primary_status_age)

    def nodes_as_json(self) -> dict[str, Any]:
        """This node and the others."""
        own = {"url": self.url, "status": as_json(self.status()), "error": None}
        return {"nodes": [own, *self._nodes.as_json()]}

    def refused_host(self, header: str) -> None:
        """Log that a request was refused for its header `Host`."""
        reason = "a request names a host for which the server does not answer"
        if self._refusals.is_news(str(self._address), reason, time.monotonic()):
            named = ascii(header[:_LONGEST_NAME])
            fields = event("other-host", address=self._address, reason=named)
            log.warning("%s: %s: %s", self._address, reason, named, extra=fields)

    # -- accepting

    def _run(self) -> None:
        with self._listening, self._selector as selector:
            sample_at = time.monotonic()
            while True:
                ready = [key.fileobj for key, _ in selector.select(_TICK)]
                if self._closed:
                    break
                if self._listening in ready:
                    self._accept()
                now = time.monotonic()
                self._refusals.handle_timeout(now)
                self._leave(lambda deadline, now=now: deadline < now)  # type: ignore[misc]
                if now >= sample_at:
                    sample_at = now + INTERVAL
                    self._sample()
            self._remove_file()
        for thread in self._leave(lambda deadline: True):
            thread.join()

    def _remove_file(self) -> None:
        if isinstance(self._address, UnixAddress):
            # While it still listens: afterwards the file may be somebody else's.
            with contextlib.suppress(OSError):
                os.unlink(self._address.path)

    def _sample(self) -> None:
        try:
            self.history.add(self.status())
        except Exception as error:  # noqa: BLE001
            # A storage that is being closed, or a database that is lost.
            fields = event("no-sample", address=self._address, reason=error)
            log.debug("%s: no sample: %s", self._address, error, extra=fields)

    def _accept(self) -> None:
        try:
            connection, _ = self._listening.accept()
        except (BlockingIOError, ConnectionError):
            return
        except OSError as error:
            # Most likely there are no descriptors left.
            fields = event("cannot-accept", address=self._address, reason=error)
            level = self._failures.level(f"accept: {error}", time.monotonic())
            log.log(level, "%s: cannot accept a connection: %s", self._address, error, extra=fields)
            time.sleep(_ACCEPT_PAUSE)
            return
        with self._lock:
            full = len(self._connections) >= MAX_CONNECTIONS
        if full:
            reason = f"there are {MAX_CONNECTIONS} connections already"
            if self._refusals.is_news(str(self._address), reason, time.monotonic()):
                fields = event("too-many", address=self._address, count=MAX_CONNECTIONS)
                log.warning("%s: %s", self._address, reason, extra=fields)
            connection.close()
            return
        thread = threading.Thread(
            target=self._serve,
            args=(connection,),
            name=f"zrs_core status at {self._address}: connection",
            daemon=True,
        )
        with self._lock:
            self._connections[connection] = thread, time.monotonic() + CONNECTION_TIME
        try:
            thread.start()
        except RuntimeError as error:
            fields = event("cannot-serve", address=self._address, reason=error)
            level = self._failures.level(f"serve: {error}", time.monotonic())
            log.log(level, "%s: cannot serve a connection: %s", self._address, error, extra=fields)
            self._forget(connection)

    def _serve(self, connection: socket.socket) -> None:
        try:
            _Handler(connection, None, self)  # type: ignore[arg-type]
        except OSError as error:
            fields = event("lost", address=self._address, reason=error)
            log.debug("%s: %s", self._address, error, extra=fields)
        finally:
            self._forget(connection)

    def _forget(self, connection: socket.socket) -> None:
        with self._lock:
            del self._connections[connection]
            connection.close()

    def _leave(self, due: Callable[[float], bool]) -> list[threading.Thread]:
        """End the connections whose deadline is due; their threads, which end soon."""
        with self._lock:
            leaving = [each for each, (_, deadline) in self._connections.items() if due(deadline)]
            for connection in leaving:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            return [self._connections[connection][0] for connection in leaving]


def serve_status(storage: Any, address: object, **options: Any) -> StatusServer:
    """Serve the status of a storage until the storage is closed.

    :param options: those of `StatusServer`, which also raises; the storage is closed then.
    """
    try:
        server = StatusServer(storage, address=address, **options)
    except BaseException:
        storage.close()
        raise
    storage.on_close(server.close)
    return server


class _Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    server: StatusServer  # type: ignore[assignment]
    timeout = CONNECTION_TIME
    server_version = "zrs_core"
    sys_version = ""

    def setup(self) -> None:
        super().setup()
        self.rfile = _Bounded(self.rfile)  # type: ignore[assignment]

    def do_GET(self) -> None:
        if not self._check_host():
            return
        path, _, query = self.path.partition("?")
        try:
            answer = self._answer(path, query)
        except Exception as error:  # noqa: BLE001
            # A storage that is being closed, or a database that is lost.
            address = self.server.address
            fields = event("cannot-tell", address=address, reason=error)
            log.warning("%s: %s cannot be told: %s", address, path, error, extra=fields)
            self._send(HTTPStatus.INTERNAL_SERVER_ERROR, _TEXT, b"the status cannot be told\n")
            return
        self._send(*answer)

    do_HEAD = do_GET

    def _check_host(self) -> bool:
        """Return True if the request names a host that it may name; else answer it."""
        hosts = self.server.hosts
        if hosts is None:
            return True
        named = self.headers.get_all("Host", [])
        if len(named) > 1 or (not named and self.request_version >= "HTTP/1.1"):
            self.send_error(HTTPStatus.BAD_REQUEST)
            return False
        if all(map(hosts.include, named)):
            return True
        self.server.refused_host(named[0])
        self._send(HTTPStatus.MISDIRECTED_REQUEST, _TEXT, _OTHER_HOST)
        return False

    def _answer(self, path: str, query: str) -> tuple[HTTPStatus, str, bytes]:
        server = self.server
        match path:
            case "/status":
                return _json(as_json(server.status()))
            case "/history":
                return _json(server.history.as_json())
            case "/nodes":
                return _json(server.nodes_as_json())
            case "/distance":
                return _distance(server.node, query)
            case "/healthz":
                healthy, reason = server.node.health()
                return _json({"healthy": healthy, "reason": reason}, healthy)
            case "/readyz":
                status = server.status()
                answer = {"ready": status.ready, "reason": status.ready_reason}
                return _json(answer, status.ready)
            case "/metrics":
                return _metrics(server.status())
        file = server.page.find(path)
        if file is None:
            return HTTPStatus.NOT_FOUND, _TEXT, b"there is nothing here\n"
        return HTTPStatus.OK, file.content_type, file.content

    def _send(self, status: HTTPStatus, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What is wrong with a request, in a line, with nothing of the request in it."""
        status = HTTPStatus(code)
        if status is HTTPStatus.NOT_IMPLEMENTED:
            # There is no method but those two.
            status = HTTPStatus.METHOD_NOT_ALLOWED
        self._send(status, _TEXT, f"{status.phrase}\n".encode())

    def log_message(self, format: str, *args: Any) -> None:
        fields = event("request", address=self.server.address)
        log.debug("%s: %s", self.server.address, format % args, extra=fields)


class _Bounded:
    """Reads no more than `MAX_REQUEST_SIZE` bytes in all.

    :raises LineTooLong: of `readline`, for more, which the handler answers.
    """

    def __init__(self, file: Any) -> None:
        self._file = file
        self._left = MAX_REQUEST_SIZE

    def readline(self, limit: int) -> bytes:
        line: bytes = self._file.readline(min(limit, self._left + 1))
        self._left -= len(line)
        if self._left < 0:
            raise LineTooLong("header line")
        return line

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def _json(value: Any, good: bool = True) -> tuple[HTTPStatus, str, bytes]:
    status = HTTPStatus.OK if good else HTTPStatus.SERVICE_UNAVAILABLE
    return status, _JSON, json.dumps(value, allow_nan=False).encode() + b"\n"


_DISTANCE_QUERY = re.compile("tid=0x([0-9a-f]{16})(&count=1)?")


def _distance(node: Node, query: str) -> tuple[HTTPStatus, str, bytes]:
    asked = _DISTANCE_QUERY.fullmatch(query)
    if asked is None:
        return HTTPStatus.BAD_REQUEST, _TEXT, b"ask with ?tid=0x and 16 hexadecimal digits\n"
    seconds, transactions = node.distance(bytes.fromhex(asked[1]), count=bool(asked[2]))
    return _json({"seconds": seconds, "transactions": transactions})


def _metrics(node: NodeStatus) -> tuple[HTTPStatus, str, bytes]:
    try:
        from .metrics import CONTENT_TYPE, render
    except ModuleNotFoundError as error:
        if error.name != "prometheus_client":
            raise
        missing = b'prometheus-client is missing: pip install "zrs-core[status]"\n'
        return HTTPStatus.NOT_IMPLEMENTED, _TEXT, missing
    return HTTPStatus.OK, CONTENT_TYPE, render(node)


def _hosts(listening: socket.socket, options: StatusOptions) -> Hosts | None:
    """The hosts that requests may name; None for any."""
    where = options.where
    if not isinstance(where, TCPAddress):
        return None
    if not options.host_names and not is_loopback(listening.getsockname()[0]):
        return None
    return Hosts({where.host, *options.host_names})


def _listen(address: Address) -> tuple[socket.socket, Address]:
    if isinstance(address, UnixAddress):
        remove_stale_socket(address)
    try:
        if isinstance(address, UnixAddress):
            listening = socket.socket(socket.AF_UNIX)
        else:
            listening = open_tcp_listener(address)
        try:
            if isinstance(address, UnixAddress):
                listening.bind(address.path)
                os.chmod(address.path, _SOCKET_MODE)
            listening.listen(BACKLOG)
            listening.setblocking(False)
        except BaseException:
            listening.close()
            raise
    except OSError as error:
        raise ListenError(f"cannot serve the status at {address}: {error}") from error
    if isinstance(address, TCPAddress):
        address = TCPAddress(address.host, listening.getsockname()[1])
    return listening, address
