"""A node that says whatever a test wants, and serves the page as it is in the package."""

from __future__ import annotations

import contextlib
import json
import mimetypes
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any

PAGE = files("zrs_core.monitor") / "page"

# As strict as can be: whatever is not from this server is neither loaded nor run.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

TID = "0x0416d1d4e3d70a3d"


def rates(transactions: float = 0.0, size: float = 0.0) -> dict[str, Any]:
    rate = {"transactions": transactions, "bytes": size}
    return {"10s": rate, "5min": rate}


def peer(address: str, **changed: Any) -> dict[str, Any]:
    now = time.time()
    return {
        "address": address,
        "certificate": None,
        "protocol": "zrs2.1",
        "connected_since": now - 300,
        "start": None,
        "position": {"tid": TID, "time": now - 1},
        "bytes": 1_234_567,
        "transactions": 345,
        "state": "waiting",
        "back_pressure_seconds": 0.25,
        "lag_seconds": 0.0,
        "lag_transactions": 0,
        **changed,
    }


def node(role: str, primary: Any = None, secondary: Any = None, **changed: Any) -> dict[str, Any]:
    now = time.time()
    return {
        "now": now,
        "version": "0.1.0",
        "name": f"/var/lib/{role}/Data.fs",
        "role": role,
        "pid": 4711,
        "started": now - 7200,
        "ready": True,
        "ready_reason": "caught up",
        "primary": primary,
        "secondary": secondary,
        **changed,
    }


def primary(address: str, *peers: dict[str, Any], **changed: Any) -> dict[str, Any]:
    return {
        "address": address,
        "transport": "twisted-tcp",
        "tls": False,
        "position": {"tid": TID, "time": time.time() - 1},
        "missing_blobs": 0,
        "refused": 0,
        "last_error": None,
        "rates": rates(12.5, 34_500.0),
        "peers": [*peers],
        **changed,
    }


def secondary(of: str, local: str | None, **changed: Any) -> dict[str, Any]:
    now = time.time()
    return {
        "primary_address": of,
        "transport": "twisted-tcp",
        "tls": False,
        "protocol": "zrs2.1",
        "state": "replicating",
        "connected": True,
        "connected_since": now - 300,
        "local_address": local,
        "connections": 1,
        "last_error": None,
        "failures": 0,
        "position": {"tid": TID, "time": now - 1},
        "primary_position": {"tid": TID, "time": now - 1, "as_of": now - 1},
        "lag_seconds": 0.012,
        "lag_transactions": None,
        "last_heard": now - 1,
        "silence_seconds": 1.0,
        "news": "no news since 2026-11-22 06:00:00 UTC",
        "rates": rates(11.0, 33_000.0),
        "bytes": 1_234_567,
        "transactions": 345,
        "blobs_written": 2,
        "missing_blobs": 0,
        **changed,
    }


class FakeNode:
    """What it says can be changed at any time; it is served as of now."""

    def __init__(self, status: dict[str, Any]) -> None:
        self.status = status
        self.others: list[dict[str, Any]] = []
        #: Each begins with its age in seconds; in the answer, with its time.
        self.samples: list[list[Any]] = []
        #: Whether asking for the others fails.
        self.forgets_others = False
        #: Closed, it lets those wait that ask.
        self.answers = threading.Event()
        self.answers.set()

    def answer(self, path: str) -> dict[str, Any] | None:
        status = {**self.status, "now": time.time()}
        match path:
            case "/status":
                return status
            case "/nodes" if not self.forgets_others:
                return {"nodes": [{"url": "", "status": status, "error": None}, *self.others]}
            case "/history":
                now = status["now"]
                samples = [[now - age, *sample] for age, *sample in self.samples]
                return {"now": now, "interval": 1.0, "samples": samples}
        return None


def other(url: str, status: dict[str, Any] | None, error: str | None = None) -> dict[str, Any]:
    """One whose status the node asks for in its turn."""
    return {"url": url, "status": status, "error": error}


class _Server(ThreadingHTTPServer):
    daemon_threads = False
    node: FakeNode


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        said = self.server.node.answer(self.path)
        if said is not None:
            self.server.node.answers.wait()
            self._send(200, "application/json", json.dumps(said).encode())
            return
        file = PAGE / (self.path[1:] or "index.html")
        if not file.is_file():
            self._send(404, "text/plain", b"")
            return
        self._send(200, mimetypes.guess_type(str(file))[0] or "", file.read_bytes())

    def _send(self, code: int, kind: str, body: bytes) -> None:
        with contextlib.suppress(ConnectionError):
            self.send_response(code)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Content-Security-Policy", POLICY)
            self.send_header("X-Content-Type-Options", "nosniff")
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


@contextlib.contextmanager
def served(node: FakeNode, port: int = 0) -> Iterator[str]:
    """Where the page of a node is."""
    with _Server(("127.0.0.1", port), _Handler) as server:
        server.node = node
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), name="fake node")
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/"
        finally:
            node.answers.set()
            server.shutdown()
            thread.join()
