"""The engine with real sockets: refusals, uploads that go wrong, slow clients, and a clean end."""

from __future__ import annotations

import hashlib
import http.client
import logging
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from private_pypi.errors import ConfigurationError, InvalidUpload, PrivatePypiError, TooLarge
from private_pypi.web.receiving import FormLimits, receive_form
from private_pypi.web.serving import (
    Answer,
    AtOnce,
    Gate,
    PassOn,
    ReceiveForm,
    Refuse,
    RequestHead,
    Stop,
    Verdict,
    Watcher,
    option_names,
    serve,
)
from private_pypi.web.serving import channel as channels

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


class Server:
    """`serve` in a thread, with an application that says what it got of a form."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.stop = Stop()
        self.heads: list[RequestHead] = []
        self.port = 0
        self._thread: threading.Thread | None = None

    def start(
        self,
        application: Application | None = None,
        gate: Gate | None = None,
        drain_seconds: float = 10,
        apart: Callable[[str], bool] = lambda path: False,
        at_once: AtOnce = lambda environ: None,
        watcher: Watcher | None = None,
        **options: Any,
    ) -> Server:
        listening = threading.Event()

        def on_listening(addresses: list[str]) -> None:
            self.port = int(addresses[0].rpartition(":")[2])
            listening.set()

        self._thread = threading.Thread(
            target=serve,
            args=(application or self.tell_form, gate or self.let_in),
            kwargs={
                "host": "127.0.0.1",
                "port": 0,
                "options": options,
                "on_listening": on_listening,
                "drain_seconds": drain_seconds,
                "stop": self.stop,
                "apart": apart,
                "at_once": at_once,
                "watcher": watcher,
            },
        )
        self._thread.start()
        assert listening.wait(10)
        return self

    def end(self, timeout: float = 15) -> None:
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


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    folder = tmp_path / "uploads"
    folder.mkdir()
    made = Server(folder)
    yield made
    made.end()


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
    """Status line and body of one response."""
    response = http.client.HTTPResponse(sock)
    response.begin()
    return f"{response.status} {response.reason}", response.read()


def wait_until(condition: Callable[[], bool], seconds: float = 5) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


def send_until_closed(sock: socket.socket, size: int) -> int:
    """Send as clients do that read only afterwards; how much went out before an error."""
    sent, piece = 0, b"x" * 65536
    try:
        while sent < size:
            sent += sock.send(piece)
    except ConnectionError:
        pass
    return sent


def digest(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode()


# -- the gate ------------------------------------------------------------------------------------


def refuse(head: RequestHead) -> Refuse:
    return Refuse(401, "Who are you", (("WWW-Authenticate", 'Basic realm="x"'),), b"sentence")


def test_a_refusal_comes_before_100_continue_and_before_the_body(server: Server) -> None:
    server.start(gate=refuse)
    with server.connect() as sock:
        sock.sendall(head(10**9, "Expect: 100-continue"))
        data = read_all(sock)
    lines, _, body = data.partition(b"\r\n\r\n")
    assert lines.splitlines()[0] == b"HTTP/1.1 401 Who are you"
    assert b'Www-Authenticate: Basic realm="x"' in lines.splitlines()
    assert b"Connection: close" in lines.splitlines()
    assert body == b"sentence"


def test_a_client_that_sends_everything_first_still_reads_the_refusal(server: Server) -> None:
    # as twine does: a reset would hide the sentence
    server.start(gate=refuse)
    size = 64 * 2**20
    with server.connect() as sock:
        sock.sendall(head(size))
        assert send_until_closed(sock, size) == size
        assert read_answer(sock) == ("401 Who are you", b"sentence")
    assert server.files() == []


def test_an_accepted_body_is_asked_for(server: Server) -> None:
    # protocol 60
    server.start()
    body = form(b"x")
    with server.connect() as sock:
        sock.sendall(head(len(body), "Expect: 100-continue"))
        assert sock.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(body)
        assert read_answer(sock) == ("200 OK", digest(b"x"))


def test_the_gate_knows_the_head_and_runs_outside_the_loop(server: Server) -> None:
    threads = []

    def gate(head: RequestHead) -> Verdict:
        threads.append(threading.current_thread())
        return server.let_in(head)

    server.start(gate=gate, url_prefix="/index")
    client = server.client()
    headers = {**FORM, "Authorization": "Basic eA==", "X-Request-ID": "one"}
    client.request("POST", "/index/a%20b?c=d", form(b"x"), headers)
    assert client.getresponse().read() == digest(b"x")
    assert server.heads == [
        RequestHead(
            method="POST",
            path="/a b",
            headers={
                "HOST": f"127.0.0.1:{server.port}",
                "ACCEPT_ENCODING": "identity",
                "CONTENT_LENGTH": str(len(form(b"x"))),
                "CONTENT_TYPE": FORM["Content-Type"],
                "AUTHORIZATION": "Basic eA==",
                "X_REQUEST_ID": "one",
            },
            content_length=len(form(b"x")),
            remote_addr="127.0.0.1",
            request_id="one",
        )
    ]
    assert server._thread not in threads


def test_requests_without_a_body_do_not_meet_the_gate(server: Server) -> None:
    server.start()
    client = server.client()
    for method in ("GET", "HEAD", "DELETE"):
        client.request(method, "/")
        assert client.getresponse().read() == (b"" if method == "HEAD" else HELLO)
    assert server.heads == []


def test_a_gate_that_breaks_is_an_answer(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    def gate(head: RequestHead) -> Verdict:
        raise RuntimeError("secret detail")

    server.start(gate=gate)
    with server.connect() as sock:
        sock.sendall(head(10))
        status, body = read_answer(sock)
    assert (status, b"secret" in body) == ("500 Internal Server Error", False)
    assert "the gate failed" in caplog.text


def test_a_reason_may_be_any_text(server: Server) -> None:
    server.start(gate=lambda head: Refuse(400, "größer\r\nX: y 你"))
    with server.connect() as sock:
        sock.sendall(head(10))
        assert read_answer(sock)[0] == "400 größer X: y ?"


def echo(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    return answer(start_response, "200 OK", environ["wsgi.input"].read())


def test_small_bodies_reach_the_application_and_large_ones_do_not(server: Server) -> None:
    server.start(echo, lambda head: PassOn(max_body_bytes=100))
    client = server.client()
    for body in (b"x" * 100, iter([b"x" * 60, b"x" * 40])):
        client.request("POST", "/", body)
        assert client.getresponse().read() == b"x" * 100
    for body in (b"x" * 101, iter([b"x" * 60, b"x" * 41])):
        client.request("POST", "/", body)
        response = client.getresponse()
        assert (response.status, response.reason) == (413, "Content Too Large")
        assert response.read() == b"a body has at most 100 bytes here\n"


def test_the_operator_may_lower_the_limit_of_every_body(server: Server) -> None:
    server.start(max_request_body_size="1000")
    for body in (form(b"x" * 1000), iter([form(b"x" * 1000)])):
        client = server.client()
        client.request("POST", "/", body, FORM)
        assert client.getresponse().status == 413
    client = server.client()
    client.request("POST", "/", form(b"x" * 800), FORM)
    assert client.getresponse().read() == digest(b"x" * 800)
    wait_until(lambda: server.files() == [])


# -- uploads -------------------------------------------------------------------------------------


def test_uploads_and_pages_share_a_connection(server: Server) -> None:
    server.start()
    client = server.client()
    content = os.urandom(3 * 10**6)
    for _ in range(3):
        client.request("POST", "/", form(content), FORM)
        assert client.getresponse().read() == digest(content)
        sock = client.sock
        client.request("GET", "/")
        assert client.getresponse().read() == HELLO
        assert client.sock is sock
    assert server.files() == []


def test_a_chunked_upload_is_received(server: Server) -> None:
    # protocol 60
    server.start()
    client = server.client()
    content = os.urandom(10**6)
    pieces = [form(content)[at : at + 30_001] for at in range(0, 10**6 + 200, 30_001)]
    client.request("POST", "/", iter(pieces), FORM)
    assert client.getresponse().read() == digest(content)
    assert server.heads[0].content_length is None
    client.request("GET", "/")
    assert client.getresponse().read() == HELLO


def test_broken_chunks_are_refused(server: Server) -> None:
    server.start()
    chunked = head(0).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    for chunks in (b"zz\r\n", b"5\r\nhelloX\r\n", b"1;" + b"x" * 100_000):
        with server.connect() as sock:
            sock.sendall(chunked + chunks)
            assert read_answer(sock)[0] == "400 Bad Request"
    wait_until(lambda: server.files() == [])


def test_pipelined_requests_are_answered_in_order(server: Server) -> None:
    server.start()
    get = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    bodies = [form(b"one"), form(b"two")]
    post = [head(len(body)) + body for body in bodies]
    with server.connect() as sock:
        sock.sendall(
            get + post[0] + get + post[1] + get.replace(b"Host", b"Connection: close\r\nHost")
        )
        data = read_all(sock)
    found = [part.partition(b"HTTP/1.1")[0] for part in data.split(b"\r\n\r\n")[1:]]
    assert found == [HELLO, digest(b"one"), HELLO, digest(b"two"), HELLO]


@pytest.mark.parametrize(("gate", "then"), [(refuse, b"401 Who"), (None, b"100 Continue")])
def test_nothing_overtakes_an_answer(server: Server, gate: Gate | None, then: bytes) -> None:
    release = threading.Event()

    def slow(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        release.wait(10)
        return answer(start_response, "200 OK", HELLO)

    server.start(slow, gate)
    with server.connect() as sock:
        get = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
        sock.sendall(get + head(10**6, "Expect: 100-continue"))
        time.sleep(0.2)
        release.set()
        data = b""
        while then not in data:
            data += sock.recv(65536)
    assert data.index(HELLO) < data.index(then)


def test_http_1_0_is_served(server: Server) -> None:
    server.start()
    body = form(b"x")
    with server.connect() as sock:
        sock.sendall(head(len(body)).replace(b"HTTP/1.1", b"HTTP/1.0") + body)
        data = read_all(sock)
    assert data.startswith(b"HTTP/1.0 200 OK\r\n")
    assert data.endswith(digest(b"x"))
    with server.connect() as sock:
        for _ in range(2):
            sock.sendall(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            assert read_answer(sock) == ("200 OK", HELLO)


def test_a_body_cut_anywhere_leaves_nothing(server: Server) -> None:
    server.start()
    body = form(os.urandom(200_000))
    cuts = [*range(0, len(FORM_START) + 3, 7), 65_536, 150_000, len(body) - 20, len(body) - 1]
    for cut in cuts:
        with server.connect() as sock:
            sock.sendall(head(len(body)) + body[:cut])
        # a reset, as from a client that was killed
        with server.connect() as sock:
            sock.sendall(head(len(body)) + body[:cut])
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    wait_until(lambda: len(server.heads) == 2 * len(cuts) and server.files() == [])
    assert server.get() == HELLO


def test_a_missing_final_boundary_is_an_answer(server: Server) -> None:
    server.start()
    body = FORM_START + b"x" * 1000
    client = server.client()
    client.request("POST", "/", body, FORM)
    response = client.getresponse()
    assert (response.status, response.reason) == (400, "InvalidUpload")
    assert b"final boundary" in response.read()
    client.request("GET", "/")  # the body was whole: the connection goes on
    assert client.getresponse().read() == HELLO
    assert server.files() == []


def test_no_form_is_an_answer(server: Server) -> None:
    server.start()
    client = server.client()
    client.request("POST", "/", b"{}", {"Content-Type": "application/json"})
    response = client.getresponse()
    assert (response.status, response.reason) == (400, "InvalidUpload")


def test_a_file_over_its_limit_is_answered_before_it_has_ended(server: Server) -> None:
    limits = FormLimits(max_file_bytes=10**6)
    server.start(gate=lambda head: ReceiveForm(server.folder, limits))
    with server.connect() as sock:
        sock.sendall(head(10**9) + FORM_START)
        sock.sendall(b"x" * (2 * 10**6))  # and then nothing: the server must not wait
        assert read_answer(sock)[0] == "413 TooLarge"
        assert server.files() == []
    size = 64 * 2**20
    with server.connect() as sock:
        sock.sendall(head(len(FORM_START) + size) + FORM_START)
        assert send_until_closed(sock, size) == size
        assert read_answer(sock)[0] == "413 TooLarge"


def test_an_application_that_breaks_is_a_plain_500_and_leaves_nothing(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        raise RuntimeError("secret detail")

    server.start(broken)
    client = server.client()
    client.request("POST", "/", form(b"x" * 10**6), FORM)
    response = client.getresponse()
    body = response.read()
    assert (response.status, response.reason) == (500, "Internal Server Error")
    assert b"secret" not in body
    assert b"Traceback" not in body
    wait_until(lambda: server.files() == [])
    assert "secret detail" in caplog.text


def test_the_reason_of_the_application_arrives(server: Server) -> None:
    # protocol 57
    server.start(lambda environ, start_response: answer(start_response, "409 Größer already", b""))
    client = server.client()
    client.request("GET", "/")
    assert client.getresponse().reason == "Größer already"


# -- slow and stalled clients --------------------------------------------------------------------


def test_pages_come_while_everybody_else_stalls(server: Server, tmp_path: Path) -> None:
    big = tmp_path / "big"
    big.write_bytes(b"x" * (32 * 2**20))
    release = threading.Event()

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        if environ["PATH_INFO"] == "/big":
            start_response("200 OK", [("Content-Length", str(big.stat().st_size))])
            return environ["wsgi.file_wrapper"](big.open("rb"))
        if environ["PATH_INFO"] == "/page":
            return answer(start_response, "200 OK", b"y" * (8 * 2**20))
        if environ["PATH_INFO"] == "/hangs" or environ["REQUEST_METHOD"] == "POST":
            release.wait(30)
        return answer(start_response, "200 OK", HELLO)

    server.start(application, threads=2, apart=lambda path: path == "/hangs")
    clients = []
    try:
        for path in ["/big"] * 50 + ["/page"] * 10 + ["/hangs"] * 5:
            clients.append(server.connect())
            clients[-1].sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        for sent in [b"GET / HT", b"POST / HTTP/1.1\r\nContent-Le", head(100), head(10**6) + b"x"]:
            for _ in range(15):
                clients.append(server.connect())
                clients[-1].sendall(sent)
        for _ in range(5):
            clients.append(server.connect())
            clients[-1].sendall(head(len(form(b"x"))) + form(b"x"))
        time.sleep(0.5)
        began = time.monotonic()
        assert server.get() == HELLO
        assert time.monotonic() - began < 1
    finally:
        release.set()
        for sock in clients:
            sock.close()


def test_a_large_page_is_in_memory_once(server: Server) -> None:
    page = os.urandom(30 * 2**20)
    server.start(lambda environ, start_response: answer(start_response, "200 OK", page))
    stalled = []
    before = resident()
    for _ in range(10):
        stalled.append(server.connect())
        stalled[-1].sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    time.sleep(0.3)
    assert resident() - before < 30 * 2**20
    assert read_answer(stalled[0]) == ("200 OK", page)
    for sock in stalled:
        sock.close()


def resident() -> int:
    """Bytes of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))


def test_files_arrive_whole(server: Server, tmp_path: Path) -> None:
    content = os.urandom(20 * 10**6 + 1)
    (tmp_path / "big").write_bytes(content)

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        start_response("200 OK", [("Content-Length", str(len(content)))])
        return environ["wsgi.file_wrapper"]((tmp_path / "big").open("rb"))

    server.start(application)
    client = server.client()
    for _ in range(2):
        client.request("GET", "/")
        response = client.getresponse()
        time.sleep(0.1)
        assert response.read() == content


def test_a_head_that_drips_in_is_dropped(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channels, "_HEAD_SECONDS", 0.6)
    server.start()
    with server.connect() as sock:
        began = time.monotonic()
        with pytest.raises(ConnectionError):  # its bytes now and then do not help
            while time.monotonic() - began < 10:
                sock.send(b"G")
                time.sleep(0.05)


@pytest.mark.parametrize("sent", [b"", head(10**6) + FORM_START, b"GET /big HTTP/1.1\r\n\r\n"])
def test_who_stalls_is_dropped_and_leaves_nothing(server: Server, sent: bytes) -> None:
    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        return answer(start_response, "200 OK", b"x" * (64 * 2**20))

    server.start(application, channel_timeout=1)
    with server.connect() as sock:
        sock.sendall(sent)
        time.sleep(3)
        with pytest.raises(ConnectionError):  # the other side has gone, whatever is to be read
            for _ in range(3):
                sock.send(b"x")
                time.sleep(0.1)
    assert server.files() == []


def test_a_slow_answer_is_not_a_stalled_client(server: Server) -> None:
    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        time.sleep(2.5)
        return answer(start_response, "200 OK", HELLO)

    def gate(head: RequestHead) -> Verdict:
        time.sleep(2.5)
        return server.let_in(head)

    server.start(application, gate, channel_timeout=1)
    client = server.client()
    client.request("POST", "/", form(b"x"), FORM)
    assert client.getresponse().read() == HELLO


# -- the end -------------------------------------------------------------------------------------


def test_the_end_waits_for_uploads_and_answers_and_closes_what_is_idle(server: Server) -> None:
    entered, release = threading.Event(), threading.Event()

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        if environ["PATH_INFO"] == "/slow":
            entered.set()
            release.wait(10)
        return server.tell_form(environ, start_response)

    server.start(application)
    idle, upload, slow = server.client(), server.connect(), server.connect()
    idle.request("GET", "/")
    assert idle.getresponse().read() == HELLO
    body = form(b"x" * 10**6)
    upload.sendall(head(len(body)) + body[:1000])
    slow.sendall(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
    assert entered.wait(5)
    wait_until(lambda: server.files() != [])

    server.stop.request()
    assert idle.sock is not None
    assert idle.sock.recv(1) == b""
    with pytest.raises(ConnectionError):
        server.connect()
    assert server.is_running

    upload.sendall(body[1000:])
    data = read_all(upload)
    assert data.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"\r\nConnection: close\r\n" in data
    assert data.endswith(digest(b"x" * 10**6))
    release.set()
    assert read_all(slow).endswith(HELLO)
    server.end(timeout=2)


def test_what_was_sent_before_the_end_is_answered(server: Server) -> None:
    # the kernel has taken these connections; closing the listener would reset them
    server.start()
    for _ in range(20):
        clients = [server.connect() for _ in range(3)]
        for sock in clients:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        server.end()
        assert [read_all(sock)[-5:] for sock in clients] == [HELLO] * 3
        server.stop = Stop()
        server.start()


def test_the_end_does_not_wait_for_ever(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    server.start(drain_seconds=0.5)
    with server.connect() as sock:
        sock.sendall(head(10**6) + FORM_START + b"x")
        wait_until(lambda: server.files() != [])
        with caplog.at_level(logging.WARNING):
            server.end(timeout=3)
        assert "1 connections were cut after 0.5 seconds" in caplog.text
        assert server.files() == []


def test_a_stop_before_the_start_ends_at_once(server: Server) -> None:
    server.stop.request()
    server.start()
    server.end(timeout=2)


PROGRAM = """
    import resource
    import sys
    from pathlib import Path
    from private_pypi.errors import StorageFull
    from private_pypi.web.receiving import FormLimits, receive_form
    from private_pypi.web.serving import ReceiveForm, serve

    folder, limits = Path(sys.argv[1]), FormLimits(max_file_bytes=10**9)

    def peak():
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(line.split()[1] for line in lines if line.startswith("VmHWM"))

    def application(environ, start_response):
        status, size = "200 OK", 0
        if environ["REQUEST_METHOD"] == "POST":
            try:
                form = receive_form(environ, folder, limits)
                size = form.file.size
                form.close()
            except StorageFull as error:
                status = f"507 {error}"
        body = f"{size} {peak()}".encode()
        start_response(status, [("Content-Length", str(len(body)))])
        return [body]

    # Beyond this size a write fails, as it does on a full disk.
    largest_file = int(sys.argv[2])
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))

    serve(
        application,
        lambda head: ReceiveForm(folder, limits),
        host="127.0.0.1",
        port=0,
        on_listening=lambda addresses: print(addresses[0], flush=True),
    )
    print("ended")
"""


@pytest.fixture
def largest_file() -> int:
    return 10**9


@pytest.fixture
def process(server: Server, largest_file: int) -> Iterator[subprocess.Popen[str]]:
    arguments = [textwrap.dedent(PROGRAM), str(server.folder), str(largest_file)]
    with subprocess.Popen(
        [sys.executable, "-c", *arguments], stdout=subprocess.PIPE, text=True
    ) as started:
        assert started.stdout is not None
        server.port = int(started.stdout.readline().rpartition(":")[2])
        yield started
        started.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_an_upload_finish(
    server: Server, process: subprocess.Popen[str], number: signal.Signals
) -> None:
    body = form(b"x" * 10**6)
    with server.connect() as sock:
        sock.sendall(head(len(body)) + body[:1000])
        wait_until(lambda: server.files() != [])
        process.send_signal(number)
        time.sleep(0.3)
        assert process.poll() is None
        sock.sendall(body[1000:])
        status, answered = read_answer(sock)
    assert (status, answered.split()[0]) == ("200 OK", b"1000000")
    assert process.communicate(timeout=5)[0] == "ended\n"
    assert process.returncode == 0


def test_a_second_signal_ends_at_once(server: Server, process: subprocess.Popen[str]) -> None:
    with server.connect() as sock:
        sock.sendall(head(10**6) + FORM_START)
        wait_until(lambda: server.files() != [])
        process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=2) == -signal.SIGTERM


def test_memory_does_not_grow_with_an_upload(
    server: Server, process: subprocess.Popen[str]
) -> None:
    before = int(server.get().split()[1])  # KiB
    size, piece = 300 * 2**20, os.urandom(2**20)
    with server.connect() as sock:
        sock.sendall(head(len(FORM_START) + size + len(FORM_END)) + FORM_START)
        for _ in range(size // len(piece)):
            sock.sendall(piece)
        sock.sendall(FORM_END)
        received, after = map(int, read_answer(sock)[1].split())
    assert received == size
    assert after - before < 15 * 1024


@pytest.mark.parametrize("largest_file", [10**6])
def test_a_disk_that_fills_up_in_mid_body_is_an_answer(
    server: Server, process: subprocess.Popen[str]
) -> None:
    size = 64 * 2**20
    with server.connect() as sock:
        sock.sendall(head(len(FORM_START) + size) + FORM_START)
        assert send_until_closed(sock, size) == size
        assert read_answer(sock)[0].startswith("507 no space left for the upload")
    assert server.files() == []
    small = form(b"x" * 1000)
    with server.connect() as sock:
        sock.sendall(head(len(small)) + small)
        assert read_answer(sock)[1].split()[0] == b"1000"


# -- options -------------------------------------------------------------------------------------


def refused_options(options: Mapping[str, Any], host: str = "127.0.0.1", port: int = 0) -> str:
    with pytest.raises(ConfigurationError) as caught:
        serve(
            echo,
            refuse,
            host=host,
            port=port,
            options=options,
            on_listening=lambda addresses: pytest.fail("it must not listen"),
        )
    return str(caught.value)


def test_the_options_are_those_of_waitress() -> None:
    assert {"threads", "channel_timeout", "trusted_proxy", "url_prefix"} <= option_names()
    assert "sockets" not in option_names()  # no text makes one


def test_wrong_options_are_named_all_at_once() -> None:
    assert refused_options({"threads": "many", "backlog": "x", "color": "red"}).splitlines() == [
        "--threads many: not a whole number",
        "--backlog x: not a whole number",
        "--color: no such option of the server",
    ]
    assert refused_options({"threads": 0}) == "--threads 0: at least 1 is needed"
    assert (
        refused_options({"unix_socket_perms": "9"}) == "--unix_socket_perms 9: not an octal number"
    )


def test_options_that_do_not_go_together_are_named() -> None:
    problem = refused_options({"trusted_proxy_count": 2})
    assert "trusted_proxy_count" in problem
    assert "--trusted_proxy_count 2" in problem


def test_an_address_that_cannot_be_had_is_named(server: Server) -> None:
    server.start()
    assert refused_options({}, port=server.port) == (
        f"port {server.port} on 127.0.0.1 is in use; choose another with --port"
    )
    assert refused_options({}, host="192.0.2.1") == (
        "192.0.2.1 is no address of this machine; choose another with --host"
    )
    assert refused_options({}, port=65536) == "--port 65536: a port is a number from 0 to 65535"
    assert "cannot listen on host '!'" in refused_options({}, host="!")


def test_an_option_replaces_host_and_port(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    addresses: list[str] = []
    thread = threading.Thread(
        target=serve,
        args=(server.tell_form, server.let_in),
        kwargs={
            "host": "127.0.0.1",
            "port": 0,
            "options": {"unix_socket": str(path)},
            "on_listening": addresses.extend,
            "stop": server.stop,
        },
    )
    thread.start()
    wait_until(lambda: bool(addresses))
    assert addresses == [f"unix:{path}"]
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(path))
        body = form(b"x")
        sock.sendall(head(len(body)) + body)
        assert read_answer(sock) == ("200 OK", digest(b"x"))
    server.stop.request()
    thread.join(5)
    assert not thread.is_alive()


def test_an_answer_at_hand_needs_no_thread_and_keeps_its_place(server: Server) -> None:
    """Requests in one packet are answered in order, whoever answers them."""
    asked: list[str] = []

    def at_once(environ: dict[str, Any]) -> Answer | None:
        if environ["PATH_INFO"] != "/quick":
            return None
        return "200 Fine", [("Content-Length", "5")], b"quick"

    def slow(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        asked.append(environ["PATH_INFO"])
        time.sleep(0.05)
        return answer(start_response, "200 OK", environ["PATH_INFO"].strip("/").encode())

    server.start(slow, at_once=at_once)
    paths = ["/quick", "/slow", "/quick", "/quick", "/slow", "/quick"]
    requests = [f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n" for path in paths]
    requests[-1] = requests[-1].replace("Host", "Connection: close\r\nHost")
    with server.connect() as sock:
        sock.sendall("".join(requests).encode())
        data = read_all(sock)
    found = [part.partition(b"HTTP/1.1")[0] for part in data.split(b"\r\n\r\n")[1:]]
    assert found == [path.strip("/").encode() for path in paths]
    assert data.startswith(b"HTTP/1.1 200 Fine\r\n")
    # Behind another request a thread answers, also what is at hand.
    assert asked[0] == "/slow"
    assert set(asked) <= {"/slow", "/quick"}


def test_a_connection_lives_on_after_answers_at_hand(server: Server) -> None:
    def at_once(environ: dict[str, Any]) -> Answer | None:
        return "304 Not Modified", [("ETag", '"x"')], b""

    server.start(at_once=at_once)
    client = server.client()
    for _ in range(3):
        client.request("GET", "/")
        response = client.getresponse()
        assert (response.status, response.read(), response.getheader("ETag")) == (304, b"", '"x"')
        assert response.getheader("Connection") is None
    client.close()


def test_an_answer_at_hand_that_fails_is_asked_of_the_application(server: Server) -> None:
    def at_once(environ: dict[str, Any]) -> Answer | None:
        raise RuntimeError("broken")

    server.start(at_once=at_once)
    assert server.get() == HELLO
