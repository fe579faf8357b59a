"""A small HTTP proxy of the tests: it forwards, makes tunnels, and remembers what it has seen."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import selectors
import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

_HOP = {"connection", "proxy-authorization", "proxy-connection", "transfer-encoding"}


@dataclass
class HttpProxy:
    """The proxy: what it wants, and the lines and headers that it could read."""

    url: str
    authorization: str | None = None  # that it demands; None: none
    refuses: int | None = None  # the status of every answer; None: it does its work
    lines: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)  # names in lower case


@contextlib.contextmanager
def running_proxy(certificate: tuple[Path, Path] | None = None) -> Iterator[HttpProxy]:
    """A proxy on loopback until the block ends; `certificate`: with TLS, a file and its key."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle(self) -> None:
            with contextlib.suppress(OSError):
                super().handle()

        def refused(self) -> bool:
            proxy.lines.append(self.requestline)
            headers = {name.lower(): value for name, value in self.headers.items()}
            proxy.headers.append(headers)
            status = proxy.refuses
            if proxy.authorization not in (None, headers.get("proxy-authorization")):
                status = 407
            if status is None:
                return False
            self.send_response_only(status)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return True

        def do_GET(self) -> None:
            if self.refused():
                return
            parts = urlsplit(self.path)
            connection = http.client.HTTPConnection(parts.netloc, timeout=10)
            kept = {k: v for k, v in self.headers.items() if k.lower() not in _HOP}
            with contextlib.closing(connection):
                connection.request("GET", parts.path, headers=kept)
                answer = connection.getresponse()
                body = answer.read()
            self.send_response_only(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in _HOP:
                    self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def do_CONNECT(self) -> None:
            if self.refused():
                return
            host, _, port = self.path.rpartition(":")
            with socket.create_connection((host, int(port)), timeout=10) as there:
                self.send_response_only(200)
                self.end_headers()
                self.wfile.flush()
                self.tunnel(there)
            self.close_connection = True

        def tunnel(self, there: socket.socket) -> None:
            here = self.connection
            with selectors.DefaultSelector() as selector:
                selector.register(here, selectors.EVENT_READ, there)
                selector.register(there, selectors.EVENT_READ, here)
                while not ended.is_set():
                    for key, _ in selector.select(0.02):
                        source: socket.socket = key.fileobj  # type: ignore[assignment]
                        while True:
                            data = source.recv(1 << 16)
                            if not data:
                                return
                            key.data.sendall(data)
                            if not (isinstance(source, ssl.SSLSocket) and source.pending()):
                                break

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
            """Say nothing."""

    ended = threading.Event()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    scheme = "http"
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        scheme = "https"
    proxy = HttpProxy(f"{scheme}://127.0.0.1:{server.server_port}")
    thread = threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.005}, daemon=True
    )
    thread.start()
    try:
        yield proxy
    finally:
        ended.set()
        server.shutdown()
        server.server_close()
        thread.join()
