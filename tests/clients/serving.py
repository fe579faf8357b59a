"""A real server in a process of its own, and a proxy that remembers what it was asked."""

from __future__ import annotations

import http.client
import http.server
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final
from urllib.parse import quote, urlsplit

import requests

from private_pypi.testing.distributions import encode_multipart, form_for
from tests.machine import WORKERS, declare

UMLAUT: Final = "gehëimnis-süß"
"""A second secret of every repository, in latin-1 and not in ASCII."""

_COMMAND = Path(sys.executable).with_name("private_pypi")
_START = 120  # seconds until a server must have said where it is
_STOP = 120  # seconds until it must have ended; it gives open requests 30
_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "te", "upgrade"}


@dataclass(frozen=True, slots=True)
class Repository:
    """One repository of a running server, and who one is there."""

    origin: str  # scheme, host and port
    name: str
    read_secret: str
    write_secret: str

    @property
    def index_url(self) -> str:
        """The index without credentials."""
        return f"{self.origin}/r/{self.name}/simple/"

    @property
    def upload_url(self) -> str:
        return f"{self.origin}/r/{self.name}/"

    def readable(self, secret: str | None = None) -> str:
        """The index with credentials: of a reader, or with another secret."""
        scheme, _, rest = self.index_url.partition("://")
        return f"{scheme}://{self.name}:{quote(secret or self.read_secret, safe='')}@{rest}"

    def at(self, origin: str) -> Repository:
        """The same repository, reached by another way."""
        return replace(self, origin=origin)

    def put(self, filename: str, content: bytes) -> None:
        """Publish a file without any of the clients."""
        content_type, body = encode_multipart(form_for(filename, content), filename, content)
        answer = requests.post(
            self.upload_url,
            data=body,
            headers={"Content-Type": content_type},
            auth=(self.name, self.write_secret),
            timeout=30,
        )
        assert (answer.status_code, answer.reason) == (200, "OK"), answer.text

    def files(self) -> dict[str, str]:
        """filename -> sha256 of what is published, read without any of the clients."""
        session = requests.Session()
        session.auth = (self.name, self.read_secret)
        session.headers["Accept"] = "application/vnd.pypi.simple.v1+json"
        found: dict[str, str] = {}
        for project in session.get(self.index_url, timeout=30).json()["projects"]:
            answer = session.get(f"{self.index_url}{project['name']}/", timeout=30)
            if answer.status_code == 404:  # a place for a project that has no files yet
                continue
            assert answer.status_code == 200, answer.text
            page = answer.json()
            found |= {file["filename"]: file["hashes"]["sha256"] for file in page["files"]}
        return found

    def run_command(self, command: str, *arguments: str) -> None:
        """`private_pypi COMMAND` against this index, as an operator."""
        ended = subprocess.run(
            [_COMMAND, command, self.index_url, *arguments],
            env={
                "PATH": os.environ["PATH"],
                "PRIVATE_PYPI_USERNAME": self.name,
                "PRIVATE_PYPI_PASSWORD": self.write_secret,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=30,
        )
        assert ended.returncode == 0, ended.stdout.decode()


@contextmanager
def running_server(folder: Path, repositories: int) -> Iterator[list[Repository]]:
    """`private_pypi server` on loopback with so many empty repositories, until the block ends."""
    names = [f"acme-{number}" for number in range(1, repositories + 1)]
    with serving(folder, "".join(_table(name) for name in names)) as origin:
        yield [
            Repository(
                origin=origin,
                name=name,
                read_secret=f"read-{name}",
                write_secret=f"write-{name}",
            )
            for name in names
        ]


@contextmanager
def serving(folder: Path, config: str, admin_secret: str | None = None) -> Iterator[str]:
    """`private_pypi server` on loopback with any configuration, until the block ends: its origin.

    `folder` is made; the texts are TOML. It has to end without having failed meanwhile.
    """
    declare("a server in a process of its own")
    folder.mkdir(parents=True, exist_ok=True)
    root = folder / "root"
    given: list[str | Path] = []
    for name, text in (("config", config), ("admin_secret", admin_secret)):
        if text is not None:
            (folder / f"{name}.toml").write_text(text, encoding="utf-8")
            given += [f"--{name}", folder / f"{name}.toml"]
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(
            [
                *(_COMMAND, "server", root, *given),
                *("--extra_index_url=", "--host", "127.0.0.1", "--port", "0"),
                *("--workers", str(WORKERS)),
            ],
            env={"PATH": os.environ["PATH"], "HOME": str(folder)},
            stdout=subprocess.PIPE,
            stderr=log,
        )
        try:
            yield _announced(process, folder / "server.log")
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout=_STOP)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdout is not None:
                process.stdout.close()
    said = (folder / "server.log").read_text(errors="replace")
    assert (process.returncode, "Traceback" in said) == (0, False), said
    shutil.rmtree(root)


def _table(name: str) -> str:
    return (
        f"[{name}]\n"
        'type = "file_system"\n'
        f"read_secret = {json.dumps([f'read-{name}', UMLAUT], ensure_ascii=False)}\n"
        f'write_secret = "write-{name}"\n'
        "sync_index_interval = 3600\n\n"
    )


def _announced(process: subprocess.Popen[bytes], log: Path) -> str:
    """The origin, from the line that the server prints when it is ready."""
    lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    assert process.stdout is not None
    stdout = process.stdout

    def read() -> None:
        for line in stdout:
            lines.put(line)
        lines.put(b"")

    threading.Thread(target=read, daemon=True).start()
    try:
        line = lines.get(timeout=_START).decode()
    except queue.Empty:
        line = ""
    words = [word for word in line.split() if word.startswith("http://")]
    assert words, f"the server did not start: {line!r}\n{log.read_text(errors='replace')}"
    parts = urlsplit(words[0])
    return f"{parts.scheme}://{parts.netloc}"


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request and the status of its answer."""

    method: str
    path: str  # percent-encoded, with the query
    status: int
    headers: Mapping[str, str]  # of the request, names in lower case

    @property
    def leaf(self) -> str:
        """`page`, or the name of the file that was asked for."""
        return urlsplit(self.path).path.rpartition("/")[2] or "page"


class RecordingProxy:
    """Stands before a server, passes everything on and remembers it."""

    def __init__(self, origin: str, *, instead: Mapping[str, bytes] | None = None) -> None:
        """`instead`: files by name that arrive with other content."""
        target = urlsplit(origin).netloc
        exchanges: list[Exchange] = []

        class Handler(_ForwardingHandler):
            def handle_one(self) -> None:
                self.forward(target, exchanges, instead or {})

        self.exchanges = exchanges
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.origin = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )
        self._thread.start()

    def asked(self, method: str | None = None) -> list[tuple[str, int]]:
        """(leaf, status) of everything that was asked, in order, and without the 401s."""
        return [
            (each.leaf, each.status)
            for each in list(self.exchanges)
            if each.status != 401 and method in (None, each.method)
        ]

    def forget(self) -> None:
        self.exchanges.clear()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _ForwardingHandler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def handle(self) -> None:
        # A client that is done resets its idle connections.
        with suppress(ConnectionResetError):
            super().handle()

    def handle_one(self) -> None:
        raise NotImplementedError

    def do_GET(self) -> None:
        self.handle_one()

    def do_HEAD(self) -> None:
        self.handle_one()

    def do_POST(self) -> None:
        self.handle_one()

    def forward(self, target: str, exchanges: list[Exchange], instead: Mapping[str, bytes]) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        onward = http.client.HTTPConnection(target, timeout=30)
        onward.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() not in _HOP_BY_HOP:
                onward.putheader(name, value)
        onward.endheaders(body or None)
        answer = onward.getresponse()
        content = answer.read()
        onward.close()
        headers = {name.lower(): value for name, value in self.headers.items()}
        exchange = Exchange(self.command, self.path, answer.status, headers)
        exchanges.append(exchange)
        content = instead.get(exchange.leaf, content)
        self.send_response_only(answer.status, answer.reason)
        for name, value in answer.getheaders():
            if name.lower() not in {*_HOP_BY_HOP, "content-length"}:
                self.send_header(name, value)
        if self.command == "HEAD":
            self.send_header("Content-Length", answer.getheader("Content-Length", "0"))
        elif answer.status not in (204, 304):
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content if self.command != "HEAD" else b"")

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - as inherited
        """Say nothing: the tests look at the exchanges."""
