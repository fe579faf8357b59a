"""A proxy before a registry that lets single requests fail."""

from __future__ import annotations

import http.client
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal, get_args
from urllib.parse import urlsplit

Kind = Literal["reset", "reset after", "cut", "500", "502 after", "429", "404 of a proxy", "403"]
KINDS: tuple[Kind, ...] = get_args(Kind)
"""What may go wrong; "after": the registry has done what was asked, and the answer is lost."""


class Faults:
    """Which request fails next, and what was asked."""

    def __init__(self, registry: str) -> None:
        self.registry = urlsplit(registry)
        self.asked: list[str] = []
        self.has_catalogue = True  # False: it answers 404, as ghcr.io does
        self.url = ""  # of the proxy
        self._kind: Kind | None = None
        self._at = 0
        self._lock = threading.Lock()  # guards everything above

    def fail(self, kind: Kind, *, at: int) -> None:
        """Let the request with this number (the first is 1) from now fail."""
        with self._lock:
            self._kind, self._at, self.asked = kind, at, []

    def heal(self) -> None:
        """Let every request succeed."""
        with self._lock:
            self._kind, self.asked = None, []

    def take(self, line: str) -> Kind | None:
        """Note a request; how it fails."""
        with self._lock:
            self.asked.append(line)
            return self._kind if len(self.asked) == self._at else None


@contextmanager
def before(registry: str) -> Iterator[tuple[str, Faults]]:
    """The address of a proxy, and what makes it fail."""
    faults = Faults(registry)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # else each answer takes 40 ms

        def _handle(self) -> None:
            kind = faults.take(f"{self.command} {self.path}")
            size = int(self.headers.get("Content-Length", 0))
            body = self.rfile.read(size)
            if kind == "reset":
                self._reset()
                return
            if kind in ("500", "429", "404 of a proxy", "403"):
                self._answer(int(kind[:3]), b"<html>no</html>", {"Retry-After": "0"})
                return
            if not faults.has_catalogue and self.path.startswith("/v2/_catalog"):
                self._answer(404, b'{"errors": [{"code": "UNSUPPORTED"}]}', {})
                return
            assert faults.registry.hostname is not None
            connection = http.client.HTTPConnection(
                faults.registry.hostname, faults.registry.port, timeout=30
            )
            headers = {k: v for k, v in self.headers.items() if k.lower() != "connection"}
            connection.request(self.command, self.path, body=body, headers=headers)
            answer = connection.getresponse()
            content = answer.read()
            given = dict(answer.getheaders())
            connection.close()
            if kind == "reset after":
                self._reset()
            elif kind == "502 after":
                self._answer(502, b"", {})
            else:
                self._answer(answer.status, content, given, cut=kind == "cut")

        do_GET = do_HEAD = do_PUT = do_POST = do_PATCH = do_DELETE = _handle

        def _reset(self) -> None:
            linger = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.close_connection = True

        def _answer(
            self, status: int, content: bytes, headers: dict[str, str], *, cut: bool = False
        ) -> None:
            self.send_response_only(status)
            for name, value in headers.items():
                if name.lower() not in ("content-length", "connection", "transfer-encoding"):
                    self.send_header(name, value)
            length = headers.get("Content-Length") if self.command == "HEAD" else None
            self.send_header("Content-Length", length or str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content[: len(content) // 2] if cut else content)
            if cut:
                self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    faults.url = f"http://127.0.0.1:{server.server_port}{faults.registry.path}"
    try:
        yield faults.url, faults
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
