"""A running server for tests of the engine, and a client that speaks to its socket."""

from __future__ import annotations

import hashlib
import http.client
import socket
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from private_pypi.errors import InvalidUpload, PrivatePypiError, TooLarge
from private_pypi.web.serving import (
    Answer,
    AtOnce,
    Exchange,
    Gate,
    Kind,
    Load,
    ReceiveForm,
    RequestHead,
    RequestObserver,
    Stop,
    Verdict,
    serve,
)
from private_pypi.web.serving.granian import engine as granian_engine
from private_pypi.web.serving.receiving import FormLimits, receive_form

BOUNDARY = "0b8e5f0e"
FORM = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
FORM_START = (
    f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="content"; filename="a"\r\n\r\n'
).encode()
FORM_END = f"\r\n--{BOUNDARY}--\r\n".encode()
LIMITS = FormLimits(max_file_bytes=10**9)
HELLO = b"hello"

Application = Callable[[dict[str, Any], Callable[..., Any]], Any]


def form(content: bytes) -> bytes:
    return FORM_START + content + FORM_END


def answer(start_response: Callable[..., Any], status: str, body: bytes) -> list[bytes]:
    start_response(status, [("Content-Length", str(len(body))), ("Content-Type", "text/plain")])
    return [body]


WAITRESS_ONLY = pytest.mark.parametrize("engine", ["waitress"])
"""For a test of something that granian does not do; docs/engines.md names each of these."""

REASON = "X-Reason"
"""granian cannot send the reason phrases of an application, so answers have them here as well."""


def with_reason(application: Application) -> Application:
    """The application, with the reason phrases of its answers in a header."""

    def told(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        def start(status: str, headers: list[tuple[str, str]], *more: Any) -> Any:
            return start_response(status, [*headers, (REASON, status[4:])], *more)

        return application(environ, start)

    return told


def with_reason_of_gate(gate: Gate) -> Gate:
    """The same for the answers of a gate."""

    def told(head: RequestHead) -> Verdict:
        verdict = gate(head)
        if isinstance(verdict, Answer):
            reason = verdict.reason.encode("ascii", "replace").decode().replace("\r\n", " ")
            return replace(verdict, headers=(*verdict.headers, (REASON, reason)))
        return verdict

    return told


def serve_with(engine: str) -> Callable[..., None]:
    """The `serve` of an engine."""
    return serve if engine == "waitress" else granian_engine.serve


class LoadObserver:
    """Tells how many connections are open."""

    def __init__(self) -> None:
        self.load: Callable[[], Load] = lambda: Load(0, 0)

    def serving(self, load: Callable[[], Load]) -> None:
        self.load = load

    def answered(self, exchange: Exchange) -> None:
        pass

    @property
    def connections(self) -> int:
        return self.load().connections


class Server:
    """`serve` in a thread, with an application that answers with what it got of a form."""

    def __init__(self, folder: Path, engine: str = "waitress") -> None:
        self.folder = folder
        self.engine = engine
        self.stop = Stop()
        self.heads: list[RequestHead] = []
        self.port = 0
        self._thread: threading.Thread | None = None

    def start(
        self,
        application: Application | None = None,
        gate: Gate | None = None,
        drain_seconds: float = 10,
        leave_seconds: float = 0,
        kind_of: Callable[[str], Kind] = lambda path: Kind.PAGES,
        share_of: Callable[[str, str | None], str] = lambda path, authorization: "",
        at_once: AtOnce = lambda environ: None,
        observer: RequestObserver | None = None,
        **options: Any,
    ) -> Server:
        listening = threading.Event()
        application, gate = application or self.tell_form, gate or self.let_in
        if self.engine == "granian":
            application, gate = with_reason(application), with_reason_of_gate(gate)

        def on_listening(addresses: list[str]) -> None:
            self.port = int(addresses[0].rpartition(":")[2])
            listening.set()

        self._thread = threading.Thread(
            target=serve_with(self.engine),
            args=(application, gate),
            kwargs={
                "host": "127.0.0.1",
                "port": 0,
                "options": options,
                "on_listening": on_listening,
                "drain_seconds": drain_seconds,
                "leave_seconds": leave_seconds,
                "stop": self.stop,
                "kind_of": kind_of,
                "share_of": share_of,
                "at_once": at_once,
                "observer": observer,
            },
        )
        self._thread.start()
        assert listening.wait(30)
        return self

    def end(self, timeout: float = 20) -> None:
        self.stop.request()
        if self._thread is not None:
            self._thread.join(timeout)
            assert not self._thread.is_alive()

    @property
    def is_running(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def let_in(self, head: RequestHead) -> Verdict:
        self.heads.append(head)
        return ReceiveForm(self.folder, LIMITS)

    def tell_form(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        if environ["REQUEST_METHOD"] != "POST":
            body = answer(start_response, "200 OK", HELLO)
            return [] if environ["REQUEST_METHOD"] == "HEAD" else body
        try:
            received = receive_form(environ, self.folder, LIMITS)
        except PrivatePypiError as error:
            status = {InvalidUpload: "400", TooLarge: "413"}.get(type(error), "507")
            return answer(start_response, f"{status} {type(error).__name__}", str(error).encode())
        assert received.file is not None
        received.close()
        return answer(start_response, "200 OK", received.file.digests["sha256"].encode())

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)

    def client(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)

    def get(self, path: str = "/") -> bytes:
        client = self.client()
        client.request("GET", path)
        body = client.getresponse().read()
        client.close()
        return body

    def files(self) -> list[Path]:
        return list(self.folder.iterdir())


def head(content_length: int, *lines: str, path: str = "/") -> bytes:
    kind = f"Content-Type: {FORM['Content-Type']}"
    length = f"Content-Length: {content_length}"
    return "\r\n".join([f"POST {path} HTTP/1.1", "Host: x", kind, length, *lines, "", ""]).encode()


def read_all(sock: socket.socket) -> bytes:
    data = b""
    while piece := sock.recv(65536):
        data += piece
    return data


def read_answer(sock: socket.socket) -> tuple[str, bytes]:
    """The status line and the body of one response."""
    response = http.client.HTTPResponse(sock)
    response.begin()
    return f"{response.status} {reason_of(response)}", response.read()


def reason_of(response: http.client.HTTPResponse) -> str:
    """The reason phrase, which granian cannot send itself."""
    reason = response.headers.get(REASON) or response.reason
    return reason.replace("Payload Too Large", "Content Too Large")  # an older name of 413


def send_until_closed(sock: socket.socket, size: int) -> int:
    """Send like a client that reads only after that; returns how much was sent before an error."""
    sent, piece = 0, b"x" * 65536
    try:
        while sent < size:
            sent += sock.send(piece)
    except ConnectionError:
        pass
    return sent


def digest(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode()


def refuse(head: RequestHead) -> Answer:
    return Answer(401, "Who are you", (("WWW-Authenticate", 'Basic realm="x"'),), b"sentence")


def echo(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    return answer(start_response, "200 OK", environ["wsgi.input"].read())
