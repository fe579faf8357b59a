"""A small public index, and a server of release assets, with the troubles that a test chooses."""

from __future__ import annotations

import gzip
import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

JSON = "application/vnd.pypi.simple.v1+json"


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What the server says to one request."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=lambda: {"Content-Type": JSON})
    pause: float = 0.0  # seconds before the answer
    drip: float = 0.0  # seconds between two bytes of it


def page(name: str, *versions: str, **more: Any) -> Reply:
    """A page of a project (PEP 691)."""
    told = {"meta": {"api-version": "1.4"}, "name": name, "versions": versions, "files": []}
    return Reply(body=json.dumps(told | more).encode())


@dataclass
class FakeServer:
    """`replies` are by path; several for one path are given one after the other, the last again."""

    port: int = 0
    replies: dict[str, Sequence[Reply]] = field(default_factory=dict)
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    """Method, path and the header Authorization."""
    most_at_once: int = 0
    now: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"{self.origin}/simple/"

    def has(self, name: str, *replies: Reply) -> None:
        """Answer in this way for a project."""
        self.replies[f"/simple/{name}/"] = replies

    def reply(self, path: str) -> Reply:
        replies = self.replies.get(path)
        if replies is None:
            return Reply(status=404, headers={"Content-Type": "text/html"}, body=b"<h1>no</h1>")
        if len(replies) > 1:
            self.replies[path] = replies[1:]
        return replies[0]


@contextmanager
def running() -> Iterator[FakeServer]:
    """A public index without projects."""
    fake = FakeServer(replies={"/simple/": [Reply(body=b'{"projects": []}')]})

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # Else the body waits for the acknowledgement of the head.
        disable_nagle_algorithm = True

        def answer(self) -> None:
            with fake.lock:
                fake.requests.append((self.command, self.path, self.headers["Authorization"]))
                fake.now += 1
                fake.most_at_once = max(fake.most_at_once, fake.now)
                reply = fake.reply(self.path)
            try:
                time.sleep(reply.pause)
                self.send_response(reply.status)
                for name, value in {
                    "Content-Length": str(len(reply.body)),
                    **reply.headers,
                }.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command == "HEAD":
                    return
                if not reply.drip:
                    self.wfile.write(reply.body)
                    return
                for byte in reply.body:
                    self.wfile.write(bytes([byte]))
                    self.wfile.flush()
                    time.sleep(reply.drip)
            except OSError:
                self.close_connection = True  # the client has seen enough
            finally:
                with fake.lock:
                    fake.now -= 1

        do_GET = do_HEAD = answer

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    fake.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield fake
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def bomb(size: int) -> Reply:
    """A small answer that becomes a large one."""
    headers = {"Content-Type": JSON, "Content-Encoding": "gzip"}
    return Reply(body=gzip.compress(bytes(size)), headers=headers)
