"""The engines give the same answers: a table of requests, asked of a server of each."""

from __future__ import annotations

import http.client
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import pytest

from private_pypi.testing.distributions import make_wheel
from tests.faults.servers import READER, WRITER, Server, basic, servers_below, upload_request
from tests.waiting import eventually

FILENAME, WHEEL = make_wheel("demo", "1.0", description="hello\n" * 2000)
PAGE = "/r/mine/simple/demo/"
HTML = "Accept: text/html"
JSON = "Accept: application/vnd.pypi.simple.v1+json"
GZIP = "Accept-Encoding: gzip"
READ = f"Authorization: {basic(*READER)}"
WRITE = f"Authorization: {basic(*WRITER)}"
WRONG = f"Authorization: {basic('mine', 'wrong')}"

# They name the time, the connection or the process, and not what was asked for.
UNEQUAL = ("date", "connection")


class Answer(NamedTuple):
    """One response, without its reason phrase, which granian cannot choose."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Both:
    """A server of each engine."""

    waitress: Server
    granian: Server

    def ask(self, request: bytes) -> tuple[Answer | None, Answer | None]:
        return ask(self.waitress, request), ask(self.granian, request)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    folder = tmp_path_factory.mktemp("engines")
    with servers_below(folder) as servers:
        waitress = servers.start(folder / "root")
        waitress.publish(FILENAME, WHEEL)
        granian = servers.start(folder / "root", flags=["--engine", "granian"])
        eventually(lambda: granian.listed() == waitress.listed())
        for server in (waitress, granian):  # so that both have rendered it and know the secret
            ask(server, request("GET", PAGE, READ, JSON))
        yield Both(waitress, granian)


def request(method: str, path: str, *lines: str, host: str = "x", body: bytes = b"") -> bytes:
    """A request as it goes over the wire."""
    given = [f"{method} {path} HTTP/1.1", f"Host: {host}", "X-Request-ID: same", *lines]
    if body:
        given.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*given, "", ""]).encode("latin-1") + body


def ask(server: Server, sent: bytes) -> Answer | None:
    """The answer; None if the connection is closed without one."""
    method = sent.partition(b" ")[0].decode()
    with server.connect() as sock:
        sock.sendall(sent)
        response = http.client.HTTPResponse(sock, method=method)
        try:
            response.begin()
            body = response.read()
        except (ConnectionError, http.client.BadStatusLine):
            return None
        headers = {name.lower(): value for name, value in response.getheaders()}
    return Answer(
        response.status, {name: headers[name] for name in headers if name not in UNEQUAL}, body
    )


UPLOAD_HEAD, UPLOAD_BODY = upload_request(FILENAME, WHEEL)
UPLOAD = UPLOAD_HEAD.replace(b"Host", b"X-Request-ID: same\r\nHost")
OTHER_HEAD, OTHER_BODY = upload_request(*make_wheel("demo", "2.0"))
OTHER = OTHER_HEAD.replace(b"Host", b"X-Request-ID: same\r\nHost")
CHUNKS = b"".join(
    b"%x\r\n%b\r\n" % (len(piece), piece)
    for piece in (UPLOAD_BODY[at : at + 1000] for at in range(0, len(UPLOAD_BODY), 1000))
)
LENGTH = f"Content-Length: {len(UPLOAD_BODY)}".encode()

SAME = {
    # pages
    "the start page": request("GET", "/", HTML),
    "a list as HTML": request("GET", "/r/mine/simple/", READ, HTML),
    "a list as JSON": request("GET", "/r/mine/simple/", READ, JSON, GZIP),
    "a page as HTML": request("GET", PAGE, READ, HTML),
    "a page as JSON": request("GET", PAGE, READ, JSON),
    "a compressed page": request("GET", PAGE, READ, JSON, GZIP),
    "the head of a page": request("HEAD", PAGE, READ, JSON),
    "a page that cannot be sent so": request("GET", PAGE, READ, "Accept: image/png"),
    "a page by the short address": request("GET", "/simple/demo/", READ, JSON),
    "a page with a query": request("GET", f"{PAGE}?a=b", READ, HTML),
    "a page without its slash": request("GET", PAGE.rstrip("/"), READ, HTML),
    "a page by another name": request("GET", "/r/mine/simple/De.Mo/", READ, HTML),
    "a page with too many slashes": request("GET", "//r//mine///simple/demo/", READ, JSON),
    "a page of an absolute address": request("GET", f"http://y{PAGE}", READ, JSON),
    "a page with an escape": request("GET", "/r/mine/simple/d%65mo/", READ, JSON),
    "a page for people": request("GET", "/r/mine/project/demo/", READ, HTML),
    "an unknown project": request("GET", "/r/mine/simple/nothing/", READ, HTML),
    "an unknown repository": request("GET", "/r/other/simple/", READ, HTML),
    "an unknown address": request("GET", "/nowhere/%C3%B6", HTML),
    "an address that is not UTF-8": request("GET", "/r/mine/simple/%ff/", READ, HTML),
    "nobody's page": request("GET", PAGE, HTML),
    "nobody's list": request("GET", "/r/mine/simple/", JSON),
    "a wrong secret": request("GET", PAGE, WRONG, JSON),
    "a broken login": request("GET", PAGE, "Authorization: Basic ???", JSON),
    "the health": request("GET", "/health/"),
    "the feeds": request("GET", "/r/mine/rss/updates.xml", READ),
    "the legacy JSON": request("GET", "/r/mine/pypi/demo/json", READ),
    # files
    "a file": request("GET", f"{PAGE}{FILENAME}", READ),
    "the head of a file": request("HEAD", f"{PAGE}{FILENAME}", READ),
    "core metadata": request("GET", f"{PAGE}{FILENAME}.metadata", READ),
    "the beginning of a file": request("GET", f"{PAGE}{FILENAME}", READ, "Range: bytes=0-9"),
    "the end of a file": request("GET", f"{PAGE}{FILENAME}", READ, "Range: bytes=-9"),
    "a part behind the end": request("GET", f"{PAGE}{FILENAME}", READ, "Range: bytes=999999-"),
    "several parts": request("GET", f"{PAGE}{FILENAME}", READ, "Range: bytes=0-1,5-6"),
    "a part of another file": request(
        *("GET", f"{PAGE}{FILENAME}", READ, "Range: bytes=0-9"), 'If-Range: "other"'
    ),
    "an unknown file": request("GET", f"{PAGE}demo-9.tar.gz", READ),
    "nobody's file": request("GET", f"{PAGE}{FILENAME}"),
    # methods
    "options": request("OPTIONS", "*"),
    "an unknown method": request("BREW", PAGE, READ),
    "a change without a secret": request("DELETE", f"{PAGE}1.0/"),
    "a change by a reader": request("DELETE", f"{PAGE}1.0/", READ),
    "a change of nothing": request("DELETE", f"{PAGE}9.0/", WRITE),
    "a put of a page": request("PUT", PAGE, WRITE, body=b"x"),
    "a get with a body": request("GET", PAGE, READ, JSON, body=b"x"),
    "a post without a body": request("POST", "/r/mine/", WRITE),
    # uploads
    "an upload again": UPLOAD + UPLOAD_BODY,
    "an upload in chunks": UPLOAD.replace(LENGTH, b"Transfer-Encoding: chunked")
    + CHUNKS
    + b"0\r\n\r\n",
    "an upload of no wheel": OTHER + OTHER_BODY.replace(b"PK\x05\x06", b"...."),
    "an upload without a secret": UPLOAD.replace(b"Authorization", b"X-No"),
    "an upload by a reader": UPLOAD.replace(WRITE.encode(), READ.encode()),
    "an upload that is no form": request("POST", "/r/mine/", WRITE, body=b"x"),
    "an upload over the limit": UPLOAD.replace(LENGTH, b"Content-Length: 99999999999"),
    "an upload without its end": UPLOAD.replace(LENGTH, b"Content-Length: 900") + UPLOAD_BODY[:900],
    "an upload that may wait": UPLOAD.replace(WRITE.encode(), b"Expect: 100-continue"),
    "a sign-in over its limit": request(
        *("POST", "/sign-in", "Content-Length: 99999999"), "Content-Type: text/plain"
    ),
    "a configuration": request(
        *("POST", "/initialize/", "Content-Type: application/x-www-form-urlencoded"), body=b"a=b"
    ),
    # heads
    "no host": b"GET / HTTP/1.1\r\nX-Request-ID: same\r\n\r\n",
    "two hosts": request("GET", "/", "Host: y"),
    "no valid host": request("GET", "/", host="a/b"),
    "an old version": b"GET /health/ HTTP/1.0\r\nX-Request-ID: same\r\n\r\n",
    "a connection to another server": b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n"
    b"X-Request-ID: same\r\n\r\n",
    "an unknown coding": request("POST", "/r/mine/", "Transfer-Encoding: gzip, chunked"),
    "a header with an underscore": request("GET", "/health/", "Content_Length: 3"),
    "a folded header": request("GET", "/health/", "A: b\r\n c"),
    "a header of 200 KiB": request("GET", "/health/", "A: " + "b" * 200_000),
    "a header of 300 KiB": request("GET", "/health/", "A: " + "b" * 300_000),
    "a negative length": request("POST", "/r/mine/", "Content-Length: -1"),
    "two lengths": request("POST", "/r/mine/", "Content-Length: 1", "Content-Length: 2"),
}

# The statuses of both engines. docs/engines.md names each of these.
DIFFERENT = {
    "a line that ends with LF": (b"GET /health/ HTTP/1.1\r\nHost: x\nA: b\r\n\r\n", (400, 200)),
    "an unknown version": (b"GET /health/ HTTP/1.2\r\nHost: x\r\n\r\n", (505, 400)),
    "101 headers": (
        request("GET", "/health/", *(f"A{number}: b" for number in range(101))),
        (200, 431),
    ),
    "an address of 70,000 bytes": (request("GET", "/" + "a" * 70_000), (404, 414)),
    "a header that is not ASCII": (
        request("GET", PAGE, f"Authorization: {basic('mine', 'r')}\xff"),
        (401, 401),
    ),
}

# granian gives these answers itself: they have no sentence, no id and are not counted.
WITHOUT_SENTENCE = {
    "a folded header",
    "a header of 300 KiB",
    "a negative length",
    "two lengths",
}


@pytest.mark.needs("two servers")
def test_both_engines_give_the_same_answers(both: Both) -> None:
    unequal = {}
    for name, sent in SAME.items():
        first, second = both.ask(sent)
        if name in WITHOUT_SENTENCE and first is not None and second is not None:
            first, second = (
                first._replace(headers={}, body=b""),
                second._replace(headers={}, body=b""),
            )
        if first is None or first != second:
            unequal[name] = (first, second)
    assert unequal == {}


@pytest.mark.needs("two servers")
def test_the_differences_that_the_document_names_are_all_there_are(both: Both) -> None:
    found = {}
    for name, (sent, _) in DIFFERENT.items():
        answers = both.ask(sent)
        found[name] = tuple(None if each is None else each.status for each in answers)
    assert found == {name: statuses for name, (_, statuses) in DIFFERENT.items()}


@pytest.mark.needs("two servers")
def test_an_unchanged_page_and_file_are_304_with_both(both: Both) -> None:
    for path in (PAGE, f"{PAGE}{FILENAME}", f"{PAGE}{FILENAME}.metadata"):
        first = ask(both.waitress, request("GET", path, READ, JSON))
        assert first is not None
        known = f"If-None-Match: {first.headers['etag']}"
        answers = both.ask(request("GET", path, READ, JSON, known))
        assert answers[0] == answers[1]
        assert answers[0] is not None
        assert answers[0].status == 304


@pytest.mark.needs("two servers")
def test_an_upload_that_is_cut_off_leaves_nothing_with_granian(both: Both) -> None:
    head, body = upload_request(*make_wheel("cut", "1.0"))
    chunked = head.replace(f"Content-Length: {len(body)}".encode(), b"Transfer-Encoding: chunked")
    for start, sent in ((head, body), (chunked, b"%x\r\n%b\r\n" % (len(body), body))):
        for cut in (0, 100, len(sent) // 2, len(sent) - 3):
            with both.granian.connect() as sock:
                sock.sendall(start + sent[:cut])
                if cut % 2:  # a reset
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    time.sleep(0.5)
    assert both.granian.listed("cut") == {}
    temporary = both.granian.root / "tmp"
    eventually(lambda: not list(temporary.rglob("upload-*")))
