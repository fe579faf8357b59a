"""Uploads over real sockets: on shared connections, broken ones, and from slow clients."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from private_pypi.web.serving import (
    Answer,
    Gate,
    Kind,
    ReceiveForm,
    RequestHead,
    Verdict,
    timeouts,
)
from private_pypi.web.serving.receiving import FormLimits
from tests.waiting import eventually
from tests.web.serving.servers import (
    FORM,
    FORM_START,
    HELLO,
    WAITRESS_ONLY,
    LoadObserver,
    Server,
    answer,
    digest,
    form,
    head,
    read_all,
    read_answer,
    reason_of,
    refuse,
    send_until_closed,
)

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
    eventually(lambda: server.files() == [])


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


@pytest.mark.parametrize(("gate", "then"), [(refuse, b"Who are you"), (None, b"100 Continue")])
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
    # Of those that were reset, the gate may not even be asked.
    eventually(lambda: len(server.heads) >= len(cuts) and server.files() == [])
    assert server.get() == HELLO
    eventually(lambda: server.files() == [])


def test_a_missing_final_boundary_is_an_answer(server: Server) -> None:
    server.start()
    body = FORM_START + b"x" * 1000
    client = server.client()
    client.request("POST", "/", body, FORM)
    response = client.getresponse()
    assert (response.status, reason_of(response)) == (400, "InvalidUpload")
    assert b"final boundary" in response.read()
    client.request("GET", "/")  # the body was whole: the connection goes on
    assert client.getresponse().read() == HELLO
    assert server.files() == []


def test_no_form_is_an_answer(server: Server) -> None:
    server.start()
    client = server.client()
    client.request("POST", "/", b"{}", {"Content-Type": "application/json"})
    response = client.getresponse()
    assert (response.status, reason_of(response)) == (400, "InvalidUpload")


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
    assert (response.status, reason_of(response)) == (500, "Internal Server Error")
    assert b"secret" not in body
    assert b"Traceback" not in body
    eventually(lambda: server.files() == [])
    assert "secret detail" in caplog.text


@WAITRESS_ONLY
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
            release.wait(60)
        return answer(start_response, "200 OK", HELLO)

    server.start(
        application,
        threads=2,
        kind_of=lambda path: Kind.FILES if path == "/hangs" else Kind.PAGES,
    )
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
        # Nobody of the others goes on before this is answered.
        assert server.get() == HELLO
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


def test_a_large_page_at_hand_is_in_memory_once(server: Server) -> None:
    page = os.urandom(30 * 2**20)

    def at_once(environ: dict[str, Any]) -> Answer:
        body = page if environ["PATH_INFO"] == "/" else HELLO
        return Answer(200, "OK", (("Content-Length", str(len(body))),), body)

    server.start(at_once=at_once)
    ask = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    stalled = [server.connect() for _ in range(10)]
    before = resident()
    for sock in stalled:
        sock.sendall(ask)
        assert sock.recv(1, socket.MSG_PEEK) == b"H"  # its answer has begun
    assert server.get("/short") == HELLO
    assert resident() - before < 30 * 2**20
    for sock in stalled[:2]:
        assert read_answer(sock) == ("200 OK", page)
        sock.sendall(ask.replace(b"/ ", b"/short "))
        assert read_answer(sock) == ("200 OK", HELLO)
    for sock in stalled:
        sock.close()


@pytest.mark.parametrize("is_pipelined", [False, True])
def test_answers_at_hand_of_any_size_come_whole_and_in_order(
    server: Server, is_pipelined: bool
) -> None:
    # Below, at and above what one call sends, and more than one client is sent in its turn.
    sizes = (1, 65_535, 65_536, 65_537, 2**20, 9 * 2**20, 0, 70_000)
    pages = {f"/{size}": os.urandom(size) for size in sizes}

    def at_once(environ: dict[str, Any]) -> Answer:
        page = pages[environ["PATH_INFO"]]
        return Answer(200, "OK", (("Content-Length", str(len(page))),), page)

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        return answer(start_response, "200 OK", pages[environ["PATH_INFO"]])

    server.start(application, at_once=at_once)
    asked = [f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode() for path in pages]
    with server.connect() as sock:
        if not is_pipelined:
            for request, page in zip(asked, pages.values(), strict=True):
                sock.sendall(request)
                assert read_answer(sock) == ("200 OK", page)
            return
        last = asked.pop().replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
        sock.sendall(b"".join([*asked, last]))
        received = read_all(sock)
    for page in pages.values():
        fields, _, received = received.partition(b"\r\n\r\n")
        assert fields.startswith(b"HTTP/1.1 200 OK\r\n")
        assert received[: len(page)] == page
        received = received[len(page) :]
    assert received == b""


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


@pytest.mark.needs("time")
def test_a_head_that_drips_in_is_dropped(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeouts, "HEAD_SECONDS", 0.6)
    server.start()
    with server.connect() as sock:
        began = time.monotonic()
        with pytest.raises(ConnectionError):  # its bytes now and then do not help
            while time.monotonic() - began < 60:
                sock.send(b"G")
                time.sleep(0.05)


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        head(10**6) + FORM_START,
        b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /at-hand HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
)
@pytest.mark.needs("time")
def test_who_stalls_is_dropped_and_leaves_nothing(server: Server, sent: bytes) -> None:
    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        return answer(start_response, "200 OK", page)

    def at_once(environ: dict[str, Any]) -> Answer | None:
        headers = (("Content-Length", str(len(page))),)
        return Answer(200, "OK", headers, page) if environ["PATH_INFO"] == "/at-hand" else None

    page = b"x" * (64 * 2**20)
    observer = LoadObserver()
    server.start(application, at_once=at_once, observer=observer, channel_timeout=2)
    with server.connect() as sock:
        sock.sendall(sent)
        eventually(lambda: observer.connections == 1)
        eventually(lambda: observer.connections == 0)
        with pytest.raises(ConnectionError):  # the other side has gone, whatever is to be read
            for _ in range(3):
                sock.send(b"x")
                time.sleep(0.1)
    eventually(lambda: server.files() == [])


@pytest.mark.needs("time")
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
