"""A small upstream of the tests: it answers what a test says, and remembers what it was asked."""

from __future__ import annotations

import contextlib
import http.server
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

JSON = "application/vnd.pypi.simple.v1+json"
HTML = "text/html; charset=utf-8"


@dataclass(frozen=True)
class Reply:
    """An answer. `length`: what is announced; None: the true one; -1: nothing is."""

    body: bytes = b""
    type: str = JSON
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    length: int | None = None
    chunks: bool = False  # sent as chunks, of which the last is missing if `length` is given
    stays_open: threading.Event | None = None  # until when a connection is kept after a cut body

    def but(self, **headers: str) -> Reply:
        """The same with more headers, whose names have "_" in place of "-"."""
        more = {name.replace("_", "-"): value for name, value in headers.items()}
        return replace(self, headers={**self.headers, **more})


def redirect(location: str, status: int = 302) -> Reply:
    return Reply(status=status, headers={"Location": location})


@dataclass(frozen=True)
class Asked:
    """One request. The names of headers are in lower case."""

    path: str
    headers: Mapping[str, str]


@dataclass
class Upstream:
    """The server: what it answers by path, and what it was asked."""

    origin: str
    answers: dict[str, Reply | Callable[[Asked], Reply]] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    connections: int = 0

    @property
    def index_url(self) -> str:
        return f"{self.origin}/simple/"

    def paths(self) -> list[str]:
        return [each.path for each in self.asked]


@contextlib.contextmanager
def running_upstream(certificate: tuple[Path, Path] | None = None) -> Iterator[Upstream]:
    """An upstream on loopback until the block ends; `certificate`: with TLS, a file and its key."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # one packet for the header and a small body

        def setup(self) -> None:
            upstream.connections += 1
            super().setup()

        def handle(self) -> None:
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                super().handle()

        def do_GET(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            asked = Asked(self.path, headers)
            upstream.asked.append(asked)
            answer = upstream.answers.get(self.path, Reply(b"not here", "text/plain", 404))
            self.answer(answer if isinstance(answer, Reply) else answer(asked))

        def answer(self, reply: Reply) -> None:
            self.send_response_only(reply.status)
            if reply.type:
                self.send_header("Content-Type", reply.type)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            length = len(reply.body) if reply.length is None else reply.length
            if reply.chunks:
                self.send_header("Transfer-Encoding", "chunked")
            elif length >= 0 and reply.status != 304:
                self.send_header("Content-Length", str(length))
            self.end_headers()
            if reply.chunks:
                for start in range(0, len(reply.body), 100):
                    piece = reply.body[start : start + 100]
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                if reply.length is None:
                    self.wfile.write(b"0\r\n\r\n")
            else:
                self.wfile.write(reply.body)
            self.wfile.flush()
            if reply.stays_open is not None:
                assert reply.stays_open.wait(20)
            self.close_connection = reply.length is not None

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
            """Say nothing."""

    class Server(http.server.ThreadingHTTPServer):
        request_queue_size = 128  # clients that connect at once

    server = Server(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    scheme = "http"
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        scheme = "https"
    upstream = Upstream(f"{scheme}://127.0.0.1:{server.server_port}")
    thread = threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.005}, daemon=True
    )
    thread.start()
    try:
        yield upstream
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
