"""A storage whose transfers are controlled by the test, behind the real engine."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from flask import Flask

from private_pypi.backend import Backend
from private_pypi.configuration.config import Configuration
from private_pypi.distributions.core_metadata import read_core_metadata
from private_pypi.repositories import Repositories, Repository
from private_pypi.storage.verdicts import Expiry
from private_pypi.testing.contract.helpers import make_upload
from private_pypi.testing.memory import (
    Memory,
    MemoryBackend,
    MemorySettings,
)
from private_pypi.web import HOT_PATH, create_app
from private_pypi.web.api.legacy import make_gate
from private_pypi.web.options import ServerOptions
from private_pypi.web.serving import Kind, Stop, serve
from private_pypi.web.serving.waitress.engine import RequestObserver
from tests.tables import memory_table
from tests.web.conftest import basic

READER = basic("mine", "read")
PIECE = 64 * 1024  # bytes that a valve lets through at a time


@dataclass
class Valve:
    """A `Memory.transfer` that lets one piece of a file through for each permit."""

    cut_after: int | None = None  # pieces
    spoiled: bool = False  # the last byte is another one
    seconds: float = 0.0  # that each piece takes
    transfers: int = 0
    ended: int = 0
    _permits: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    _is_open: bool = False

    def let(self, pieces: int) -> None:
        """Let this many more pieces through."""
        self._permits.release(pieces)

    def open(self) -> None:
        """Let everything through from now on."""
        self._is_open = True
        self._permits.release()

    def __call__(self, content: bytes) -> Iterator[bytes]:
        self.transfers += 1
        if self.spoiled:
            content = content[:-1] + bytes([content[-1] ^ 1])
        try:
            for number, start in enumerate(range(0, len(content), PIECE)):
                while not (self._is_open or self._permits.acquire(timeout=0.05)):
                    pass
                if number == self.cut_after:
                    return
                threading.Event().wait(self.seconds)
                yield content[start : start + PIECE]
        finally:
            self.ended += 1


class _Served:
    """What an application needs of a deployment, without a configuration."""

    changes = worker = None

    def __init__(self, root: Path, repositories: Repositories) -> None:
        self.environ: dict[str, str] = {}
        self.options = ServerOptions(root=root, environ=self.environ)
        self.root = self.tmp = root
        self.repositories = self.known_repositories = self.last_repositories = repositories

    def serves(self, host: str | None) -> bool:
        return True

    def require_served(self, host: str | None) -> None:
        pass


@dataclass
class Place:
    """A server with the one repository `mine`, over a storage in memory."""

    storage: Memory
    valve: Valve
    repository: Repository
    app: Flask
    port: int
    stop: Stop

    @property
    def url(self) -> str:
        return f"http://mine:read@127.0.0.1:{self.port}/r/mine/simple/"

    def request(self, path: str, method: str = "GET", **headers: str) -> http.client.HTTPResponse:
        """The answer of which the head was read; `If_Range` becomes `If-Range`."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, headers={**READER, **named})
        return connection.getresponse()

    def get(self, path: str, method: str = "GET", **headers: str) -> tuple[int, bytes]:
        answer = self.request(path, method, **headers)
        return answer.status, answer.read()

    def begin(self, path: str) -> socket.socket:
        """A connection on which the file was asked for."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=20)
        head = f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: {READER['Authorization']}\r\n\r\n"
        connection.sendall(head.encode())
        return connection

    def kept(self) -> list[str]:
        """The names of the files in the cache."""
        return sorted(path.name for path in self.repository.folders.cache.glob("files/*/*"))


@contextlib.contextmanager
def place(
    folder: Path,
    *files: tuple[str, bytes],
    backend: type[Backend[MemorySettings]] = MemoryBackend,
    cache: Callable[[Path], None] = lambda root: None,
    observer: RequestObserver | None = None,
    threads: int = 2,
    uploaded: bool = False,
) -> Iterator[Place]:
    """A server that gives these files away as its valve lets it.

    `uploaded`: the storage has their core metadata beside them.
    """
    storage = Memory()
    root = folder / "root"
    (root / "tmp").mkdir(parents=True)
    for filename, content in files:
        if uploaded:
            (folder / filename).write_bytes(content)
            core_metadata = read_core_metadata(folder / filename, filename)
            upload = make_upload(folder, filename, content, core_metadata=core_metadata)
            storage.open().put_file(upload)
        else:
            storage.drop(filename, content)
    repositories = Repositories(
        Configuration(repositories={"mine": memory_table(storage, backend_class=backend)}),
        root=root,
        tmp=root / "tmp",
        expiry=Expiry(timedelta(hours=1), timedelta(minutes=5)),
        extra_index_url="",
    )
    repositories.start(wait=20)
    valve = storage.transfer = Valve()
    storage.calls.clear()
    (repository,) = repositories
    cache(root)
    served = _Served(root, repositories)
    app = create_app(served)  # type: ignore[arg-type]
    listening, stop, ports = threading.Event(), Stop(), []

    def on_listening(addresses: list[str]) -> None:
        ports.append(int(addresses[0].rpartition(":")[2]))
        listening.set()

    thread = threading.Thread(
        target=serve,
        args=(app, make_gate(served)),  # type: ignore[arg-type]
        kwargs={
            "host": "127.0.0.1",
            "port": 0,
            "options": {"threads": threads},
            "on_listening": on_listening,
            "stop": stop,
            "kind_of": lambda path: Kind.PAGES if path.endswith("/") else Kind.FILES,
            "at_once": app.extensions[HOT_PATH].at_once,
            "observer": observer,
            "drain_seconds": 2,
        },
    )
    thread.start()
    try:
        assert listening.wait(20)
        yield Place(storage, valve, repository, app, ports[0], stop)
    finally:
        valve.open()
        for event in storage.held.values():
            event.set()
        stop.request()
        thread.join(20)
        repositories.close()
    assert not thread.is_alive()
