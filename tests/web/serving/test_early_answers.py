"""Answers before the end of a body, and proxies that would not forward them."""

from __future__ import annotations

import select
import socket
import time

import pytest

from private_pypi.web.serving import ReceiveForm, timeouts
from private_pypi.web.serving.receiving import FormLimits
from tests.waiting import eventually
from tests.web.serving.servers import (
    FORM_START,
    Server,
    form,
    head,
    read_answer,
    refuse,
)

BEHIND = "Via: 1.1 Caddy"
SIZE = 8 * 2**20


def has_answer(sock: socket.socket) -> bool:
    """Whether a part of an answer has arrived."""
    return bool(select.select([sock], [], [], 0)[0])


@pytest.mark.parametrize("via", [BEHIND, "Via: 2.0 front, HTTP/1.1 Caddy (comment)"])
def test_a_refusal_waits_for_the_end_of_the_body_behind_a_proxy_that_speaks_http_1(
    server: Server, via: str
) -> None:
    server.start(gate=refuse)
    with server.connect() as sock:
        sock.sendall(head(SIZE, via) + b"x" * (SIZE - 1))
        server.get()  # time enough to answer somebody else
        assert not has_answer(sock)
        sock.sendall(b"x")
        assert read_answer(sock) == ("401 Who are you", b"sentence")
    assert server.files() == []


@pytest.mark.parametrize(
    "lines", [(), ("Via: 2.0 Caddy",), ("Via: 1.1 far, 2 near",), (BEHIND, "Expect: 100-continue")]
)
def test_a_refusal_comes_at_once_to_everybody_else(server: Server, lines: tuple[str, ...]) -> None:
    server.start(gate=refuse)
    with server.connect() as sock:
        sock.sendall(head(SIZE, *lines))
        assert read_answer(sock) == ("401 Who are you", b"sentence")


def test_a_file_over_its_limit_is_read_to_its_end_as_well(server: Server) -> None:
    limits = FormLimits(max_file_bytes=10**6)
    server.start(gate=lambda head: ReceiveForm(server.folder, limits))
    body = form(b"x" * SIZE)
    with server.connect() as sock:
        sock.sendall(head(len(body), BEHIND) + body)
        assert read_answer(sock)[0] == "413 TooLarge"
        # Nothing of it is left on the connection, so that the proxy may use it again.
        sock.sendall(head(3, BEHIND) + b"xyz")
        assert read_answer(sock)[0] == "400 InvalidUpload"
    eventually(lambda: server.files() == [])


def test_the_limit_of_the_operator_holds_for_chunks_too(server: Server) -> None:
    server.start(max_request_body_size=1000)
    lines = head(0, BEHIND).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    chunk = b"1000\r\n" + b"x" * 0x1000 + b"\r\n"
    with server.connect() as sock:
        sock.sendall(lines + chunk * 20)
        server.get()
        assert not has_answer(sock)
        sock.sendall(b"0\r\n\r\n")
        assert read_answer(sock)[0] == "413 Content Too Large"


def test_what_is_no_chunk_ends_the_waiting(server: Server) -> None:
    server.start(gate=refuse)
    lines = head(0, BEHIND).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    with server.connect() as sock:
        sock.sendall(lines + b"this is no chunk\r\n")
        assert read_answer(sock)[0] == "401 Who are you"


@pytest.mark.needs("time")
def test_nobody_is_waited_for_without_end(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeouts, "DISCARDED_SECONDS", 0.5)
    server.start(gate=refuse)
    with server.connect() as sock:
        sock.sendall(head(SIZE, BEHIND))
        with pytest.raises(ConnectionError):
            while True:  # a byte now and then: never silent, and never done
                sock.sendall(b"x")
                time.sleep(0.05)


def test_the_rest_of_a_form_that_failed_is_no_part_of_what_comes_next(server: Server) -> None:
    limits = FormLimits(max_file_bytes=10**6)
    server.start(gate=lambda head: ReceiveForm(server.folder, limits))
    with server.connect() as sock:
        sock.sendall(head(SIZE, BEHIND) + FORM_START + b"x" * (SIZE - len(FORM_START)))
        assert read_answer(sock)[0] == "413 TooLarge"
        sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert read_answer(sock) == ("200 OK", b"hello")
