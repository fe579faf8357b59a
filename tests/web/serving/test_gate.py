"""The gate, and answers that need no thread."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from private_pypi.web.serving import (
    Answer,
    PassOn,
    RequestHead,
    Verdict,
    timeouts,
)
from tests.waiting import eventually
from tests.web.serving.servers import (
    FORM,
    HELLO,
    WAITRESS_ONLY,
    Server,
    answer,
    digest,
    echo,
    form,
    head,
    read_all,
    read_answer,
    reason_of,
    refuse,
    send_until_closed,
)


def test_a_refusal_comes_before_100_continue_and_before_the_body(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timeouts, "LINGER_SECONDS", 0.5)
    server.start(gate=refuse)
    with server.connect() as sock:
        sock.sendall(head(10**9, "Expect: 100-continue"))
        data = read_all(sock)
    lines, _, body = data.partition(b"\r\n\r\n")
    assert lines.startswith(b"HTTP/1.1 401 ")
    assert b" Who are you\r\n" in lines
    named = {
        line.partition(b": ")[0].lower(): line.partition(b": ")[2] for line in lines.split(b"\r\n")
    }
    assert named[b"www-authenticate"] == b'Basic realm="x"'
    assert named[b"connection"] == b"close"
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


def test_slashes_in_a_row_count_as_one(server: Server) -> None:
    paths = []

    def tell(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        paths.append(environ["PATH_INFO"])
        return answer(start_response, "200 OK", HELLO)

    server.start(tell)
    client = server.client()
    for method, path in (("GET", "//r/mine//simple/"), ("POST", "/r/mine//"), ("GET", "/a%2F%2Fb")):
        client.request(method, path, body=b"" if method == "GET" else b"x")
        client.getresponse().read()
    assert paths == ["/r/mine/simple/", "/r/mine/", "/a/b"]
    assert [head.path for head in server.heads] == ["/r/mine/"]


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


@WAITRESS_ONLY
def test_a_reason_may_be_any_text(server: Server) -> None:
    server.start(gate=lambda head: Answer(400, "größer\r\nX: y 你"))
    with server.connect() as sock:
        sock.sendall(head(10))
        assert read_answer(sock)[0] == "400 größer X: y ?"


def test_small_bodies_reach_the_application_and_large_ones_do_not(server: Server) -> None:
    server.start(echo, lambda head: PassOn(max_body_bytes=100))
    client = server.client()
    for body in (b"x" * 100, iter([b"x" * 60, b"x" * 40])):
        client.request("POST", "/", body)
        assert client.getresponse().read() == b"x" * 100
    for body in (b"x" * 101, iter([b"x" * 60, b"x" * 41])):
        client.request("POST", "/", body)
        response = client.getresponse()
        assert (response.status, reason_of(response)) == (413, "Content Too Large")
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
    eventually(lambda: server.files() == [])


def test_an_answer_at_hand_needs_no_thread_and_keeps_its_place(server: Server) -> None:
    """Requests in one packet are answered in order, by the loop or by threads."""
    asked: list[str] = []

    def at_once(environ: dict[str, Any]) -> Answer | None:
        if environ["PATH_INFO"] != "/quick":
            return None
        return Answer(200, "Fine", [("Content-Length", "5")], b"quick")

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
    assert data.startswith(b"HTTP/1.1 200 ")
    # Behind another request, a thread answers, even if the answer is at hand.
    assert asked[0] == "/slow"
    assert set(asked) <= {"/slow", "/quick"}


def test_an_answer_at_hand_is_sent_though_the_next_request_is_malformed(server: Server) -> None:
    server.start(at_once=lambda environ: Answer(200, "OK", [("Content-Length", "5")], b"quick"))
    with server.connect() as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\nHost : x\r\n\r\n")
        data = read_all(sock)
    assert re.findall(rb"HTTP/1.. (\d+)", data) == [b"200", b"400"]


def test_the_gate_is_asked_about_an_upload_behind_an_answer_at_hand(server: Server) -> None:
    def at_once(environ: dict[str, Any]) -> Answer | None:
        return Answer(200, "OK", [("Content-Length", "5")], b"quick")

    server.start(at_once=at_once)
    body = form(b"x" * 800)
    head = f"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(body)}\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in FORM.items())
    with server.connect() as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" + head.encode() + b"\r\n" + body)
        data = read_all(sock)
    assert data.index(b"quick") < data.index(digest(b"x" * 800))


def test_a_connection_lives_on_after_answers_at_hand(server: Server) -> None:
    def at_once(environ: dict[str, Any]) -> Answer | None:
        return Answer(304, "Not Modified", [("ETag", '"x"')])

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


@pytest.mark.parametrize("engine", ["granian"])
def test_an_answer_at_hand_does_not_wait_for_the_loop(server: Server) -> None:
    entered, release = threading.Event(), threading.Event()
    released: list[bool] = []

    def hold_the_loop(path: str, authorization: str | None) -> str:
        entered.set()
        released.append(release.wait(10))
        return ""

    def at_once(environ: dict[str, Any]) -> Answer | None:
        is_quick = environ["PATH_INFO"] == "/quick"
        return Answer(200, "OK", [("Content-Length", "5")], b"quick") if is_quick else None

    server.start(at_once=at_once, share_of=hold_the_loop)
    with server.connect() as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert entered.wait(20)
        try:
            assert server.get("/quick") == b"quick"
        finally:
            release.set()
        assert read_all(sock).endswith(HELLO)
    assert released == [True]


def test_what_a_trusted_proxy_says_holds_for_answers_at_once(server: Server) -> None:
    """Otherwise the loop would answer under a host for which the application refuses to."""

    def told(environ: dict[str, Any]) -> bytes:
        return f"{environ['HTTP_HOST']} {environ['REMOTE_ADDR']}".encode()

    def at_once(environ: dict[str, Any]) -> Answer | None:
        if environ["PATH_INFO"] != "/loop":
            return None
        return Answer(200, "OK", (("Content-Type", "text/plain"),), b"loop " + told(environ))

    server.start(
        lambda environ, start_response: answer(start_response, "200 OK", told(environ)),
        at_once=at_once,
        trusted_proxy="127.0.0.1",
        trusted_proxy_headers="x-forwarded-host x-forwarded-for x-forwarded-proto",
    )
    client = server.client()
    headers = {"X-Forwarded-Host": "pypi.example", "X-Forwarded-For": "192.0.2.7"}
    for path, begin in (("/loop", b"loop "), ("/thread", b"")):
        client.request("GET", path, headers=headers)
        assert client.getresponse().read() == begin + b"pypi.example 192.0.2.7"
        client.request("GET", path, headers={**headers, "X-Forwarded-Proto": "ftp"})
        response = client.getresponse()
        assert (path, response.status, response.read()[:3]) == (path, 400, b"Bad")
