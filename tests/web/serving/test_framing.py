"""Where a request ends: if programs could disagree, it is refused and the connection closed."""

from __future__ import annotations

import contextlib
import re
import socket
from io import BytesIO

import pytest

from private_pypi.web.serving import PassOn
from private_pypi.web.serving.heads import BadFraming
from private_pypi.web.serving.waitress.framing import ChunkedBody, Head, check_head
from tests.web.serving.servers import WAITRESS_ONLY, Server, echo, read_all

HOST = b"Host: x\r\n"
POST = b"POST / HTTP/1.1\r\n" + HOST
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
NEXT = b"GET /next HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"

# What is sent before another request, and the statuses of all answers. Where it is not understood,
# there is one answer and the connection is closed: the other request may be a part of a body.
CASES = {
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n": [200, 200],
    b"\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n": [200, 200],
    b"\r\n" * 5 + b"GET / HTTP/1.1\r\nHost: x\r\n\r\n": [400],
    b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n": [200, 200],
    b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close, te\r\n\r\n": [200],
    POST + b"Content-Length: 3\r\n\r\nabc": [200, 200],
    CHUNKED + b"3;name=value\r\nabc\r\n0\r\nTrailer: x\r\n\r\n": [200, 200],
    # the first line
    b"GET /\r\n\r\n": [400],
    b" GET / HTTP/1.1\r\nHost: x\r\n\r\n": [400],
    b"GET  / HTTP/1.1\r\nHost: x\r\n\r\n": [400],
    b"GET /a\tb HTTP/1.1\r\nHost: x\r\n\r\n": [400],
    b"GET /a\0b HTTP/1.1\r\nHost: x\r\n\r\n": [400],
    b"GET / HTTP/1.2\r\nHost: x\r\n\r\n": [505],
    b"GET / HTTP/2.0\r\nHost: x\r\n\r\n": [505],
    b"GET a HTTP/1.1\r\nHost: x\r\n\r\n": [400],
    b"CONNECT a:1 HTTP/1.1\r\nHost: x\r\n\r\n": [400],
    b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n": [200, 200],
    b"GET http://y/a HTTP/1.1\r\nHost: x\r\n\r\n": [200, 200],
    b"GET http://y:999999/a HTTP/1.1\r\nHost: x\r\n\r\n": [400],
    b"GET http://user@y/a HTTP/1.1\r\nHost: x\r\n\r\n": [400],
    b"GET http://[y/a HTTP/1.1\r\nHost: x\r\n\r\n": [400],
    b"GET ftp://y/a HTTP/1.1\r\nHost: x\r\n\r\n": [400],
    # lines
    b"GET / HTTP/1.1\nHost: x\n\n": [400],
    b"GET / HTTP/1.1\r\nHost: x\r\nA: b\rContent-Length: 3\r\n\r\n": [400],
    b"GET / HTTP/1.1\r\nHost: x\r\nA: b\nContent-Length: 3\r\n\r\n": [400],
    b"GET / HTTP/1.1\r\nHost: x\r\nA: b\0\r\n\r\n": [400],
    b"GET / HTTP/1.1\r\nHost: x\r\nA : b\r\n\r\n": [400],
    b"GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n": [400],
    b"GET / HTTP/1.1\r\n Host: x\r\n\r\n": [400],
    b"GET / HTTP/1.1\r\nHost: x\r\n: b\r\n\r\n": [400],
    # the host
    b"GET / HTTP/1.1\r\n\r\n": [400],
    b"GET / HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n": [400],
    b"GET / HTTP/1.1\r\nHost: x/y\r\n\r\n": [400],
    b"GET / HTTP/1.1\r\nHost: x, y\r\n\r\n": [400],
    b"GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n": [200, 200],
    # lengths
    POST + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc": [400],
    POST + b"Content-Length: 0\r\nContent-Length: 3\r\n\r\nabc": [400],
    POST + b"Content-Length: 3, 3\r\n\r\nabc": [400],
    POST + b"Content-Length: +3\r\n\r\nabc": [400],
    POST + b"Content-Length: 0x3\r\n\r\nabc": [400],
    POST + b"Content-Length: -3\r\n\r\nabc": [400],
    POST + b"Content-Length: \xb2\r\n\r\nabc": [400],
    POST + b"Content-Length:\r\n\r\n": [400],
    POST + b"Content-Length: " + b"1" * 5000 + b"\r\n\r\nabc": [400],
    POST + b"Content_Length: 3\r\n\r\n": [400],
    # codings
    POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n": [400],
    b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n": [400],
    b"GET / HTTP/1.0\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n": [400],
    POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n": [501],
    POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n": [501],
    POST + b"Transfer-Encoding: chunked, identity\r\n\r\n": [400],
    POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n": [400],
    POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n": [400],
    POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n": [400],
    POST + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n": [400],
    POST + b"Transfer-Encoding:\r\n\r\n": [400],
    POST + b"Transfer-Encoding: ,\r\nContent-Length: 3\r\n\r\nabc": [400],
    POST + b"Transfer_Encoding: chunked\r\n\r\n": [400],
    # chunks
    CHUNKED + b"3\n\r\nabc\r\n0\r\n\r\n": [400],
    CHUNKED + b"0\n\r\n\r\n": [400],
    CHUNKED + b"3;a\n\r\nabc\r\n0\r\n\r\n": [400],
    CHUNKED + b"3;a\rb\r\nabc\r\n0\r\n\r\n": [400],
    CHUNKED + b"0x3\r\nabc\r\n0\r\n\r\n": [400],
    CHUNKED + b"+3\r\nabc\r\n0\r\n\r\n": [400],
    CHUNKED + b"0_3\r\nabc\r\n0\r\n\r\n": [400],
    CHUNKED + b" 3\r\nabc\r\n0\r\n\r\n": [400],
    CHUNKED + b"\r\n3\r\nabc\r\n0\r\n\r\n": [400],
    CHUNKED + b"3\r\nabc\n0\r\n\r\n": [400],
    CHUNKED + b"3\r\nabcXX0\r\n\r\n": [400],
    CHUNKED + b"10000000000000003\r\nabc\r\n0\r\n\r\n": [400],
    CHUNKED + b"1000000\r\nabc": [413],
    CHUNKED + b"0\r\nno trailer\r\n\r\n": [400],
    CHUNKED + b"3;" + b"a" * 5000 + b"\r\nabc\r\n0\r\n\r\n": [400],
}


# granian parses requests itself, and is less strict in some cases: docs/engines.md lists them.
ON_GRANIAN = {
    b"\r\n" * 5 + b"GET / HTTP/1.1\r\nHost: x\r\n\r\n": [200, 200],
    b"GET / HTTP/1.2\r\nHost: x\r\n\r\n": [400],
    b"GET / HTTP/2.0\r\nHost: x\r\n\r\n": [400],
    b"GET ftp://y/a HTTP/1.1\r\nHost: x\r\n\r\n": [200, 200],
    # LF alone ends a line
    b"GET / HTTP/1.1\nHost: x\n\n": [200, 200],
    b"GET / HTTP/1.1\r\nHost: x\r\nA: b\nContent-Length: 3\r\n\r\n": [200, 400],
    # equal lengths count as one, and chunks count more than a length, which ends the connection
    POST + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc": [200, 200],
    POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n": [200],
    POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n": [400],
    POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n": [501],
    POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n": [501],
    # no trailers; and the size of a chunk counts when it has arrived
    CHUNKED + b"3;name=value\r\nabc\r\n0\r\nTrailer: x\r\n\r\n": [400],
    CHUNKED + b"1000000\r\nabc": [],
    CHUNKED + b"3;" + b"a" * 5000 + b"\r\nabc\r\n0\r\n\r\n": [200, 200],
}


def test_what_could_be_understood_in_two_ways_is_refused_and_closes_the_connection(
    server: Server,
) -> None:
    server.start(echo, lambda head: PassOn(max_body_bytes=1000))
    found = {}
    for sent in CASES:
        with server.connect() as sock:
            sock.sendall(sent + NEXT)
            if server.engine == "waitress":
                sock.shutdown(socket.SHUT_WR)  # granian would take this for the end of everything
            sock.settimeout(2)
            answers = b""
            with contextlib.suppress(TimeoutError):
                while piece := sock.recv(65536):
                    answers += piece
        found[sent] = [int(status) for status in re.findall(rb"HTTP/1\.[01] (\d+)", answers)]
    assert found == CASES | (ON_GRANIAN if server.engine == "granian" else {})


def test_the_host_of_an_absolute_address_counts(server: Server) -> None:
    hosts = []

    def application(environ, start_response):  # type: ignore[no-untyped-def]
        hosts.append((environ["HTTP_HOST"], environ["PATH_INFO"]))
        return echo(environ, start_response)

    server.start(application)
    with server.connect() as sock:
        sock.sendall(b"GET http://y:80/a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        read_all(sock)
    assert hosts == [("y:80", "/a")]


def test_a_refusal_says_what_is_wrong(server: Server) -> None:
    server.start()
    with server.connect() as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n")
        answer = read_all(sock)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"\r\nconnection: close" in head.lower()
    assert body == b"There is more than one field Host\n"


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_a_head_may_come_in_any_pieces(size: int) -> None:
    whole = b"\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\nnext"
    head = Head(1000)
    taken = 0
    for at in range(0, len(whole), size):
        number, found = head.feed(whole[at : at + size])
        taken += number
        if found is not None:
            break
    assert (found, whole[taken:]) == (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"next")


def test_a_head_has_a_limit() -> None:
    head = Head(100)
    head.feed(b"a" * 99)
    with pytest.raises(BadFraming, match="less than 100 bytes") as caught:
        head.feed(b"a")
    assert caught.value.status == 431


def test_a_head_that_everybody_understands_is_let_through() -> None:
    check_head(b"GET /\xc3\xb6?a=b HTTP/1.1\r\nHost: a.example:8080\r\nA:\r\nB: \xc3\xb6 \r\n\r\n")


class Content(BytesIO):
    """What the test remembers of a body."""

    def append(self, data: bytes) -> None:
        self.write(data)

    def __len__(self) -> int:
        return len(self.getvalue())

    def getfile(self) -> BytesIO:
        return self


@pytest.mark.parametrize("size", [1, 2, 3, 5, 100])
def test_chunks_may_come_in_any_pieces(size: int) -> None:
    whole = b"5\r\nhello\r\nB ; a=b\r\n, everybody\r\n0\r\nA: b\r\nC: d\r\n\r\nnext"
    content = Content()
    body = ChunkedBody(content)
    taken = 0
    for at in range(0, len(whole), size):
        taken += body.received(whole[at : at + size])
        if body.completed:
            break
    assert (content.getvalue(), whole[taken:]) == (b"hello, everybody", b"next")


def test_trailers_have_a_limit(server: Server) -> None:
    server.start(echo, lambda head: PassOn(max_body_bytes=10**6))
    with server.connect() as sock:
        sock.sendall(CHUNKED + b"3\r\nabc\r\n0\r\n" + b"t" * 20_000)
        assert b" 400 Bad Request\r\n" in read_all(sock)


@WAITRESS_ONLY
def test_chunks_of_single_bytes_are_refused_and_small_ones_are_not(server: Server) -> None:
    server.start(echo, lambda head: PassOn(max_body_bytes=10**6))
    found = []
    for content in (b"a", b"a line\n"):
        with server.connect() as sock:
            chunk = b"%x\r\n%b\r\n" % (len(content), content)
            sock.sendall(CHUNKED + chunk * 20_000 + b"0\r\n\r\n")
            sock.shutdown(socket.SHUT_WR)
            found.append(re.findall(rb"HTTP/1\.1 (\d+)", read_all(sock)))
    assert found == [[b"400"], [b"200"]]
