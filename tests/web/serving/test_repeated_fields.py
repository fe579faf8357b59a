"""Requests on one connection: what is known of the last one is not taken for the next one."""

from __future__ import annotations

import re
from typing import Any

import pytest

from private_pypi.web.serving import Answer, PassOn
from tests.web.serving.servers import Server, read_answer

_TOLD = ("REQUEST_METHOD", "REQUEST_URI", "PATH_INFO", "QUERY_STRING", "HTTP_AUTHORIZATION")

FIELDS = b"Host: x\r\nAuthorization: Basic YTpi\r\nAccept: */*\r\n\r\n"


def told(environ: dict[str, Any]) -> bytes:
    """What a request is about, and which of our own keys were there before."""
    facts = [str(environ.get(name, "-")) for name in _TOLD]
    facts.append("changed" if "test.changed" in environ else "new")
    environ["test.changed"] = True
    environ["HTTP_AUTHORIZATION"] = "of somebody else"
    return " ".join(facts).encode()


def at_once(environ: dict[str, Any]) -> Answer | None:
    if environ["PATH_INFO"].startswith("/thread"):
        return None
    return Answer(200, "OK", (("Content-Type", "text/plain"),), told(environ))


def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    body = told(environ)
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


@pytest.mark.parametrize("prefix", ["", "/thread"])
def test_each_request_has_its_own_path_and_environment(
    server: Server, engine: str, prefix: str
) -> None:
    server.start(application, at_once=at_once)
    with server.connect() as sock:
        for target, path, query in (
            ("/a/", "/a/", ""),
            ("/b", "/b", ""),
            ("/b?x=1", "/b", "x=1"),
            ("/c%20d", "/c d", ""),
            ("//e//f", "/e/f", ""),
            ("/g", "/g", ""),
        ):
            sock.sendall(f"GET {prefix}{target} HTTP/1.1\r\n".encode() + FIELDS)
            _, body = read_answer(sock)
            uri = f"{prefix}{target}" if engine == "waitress" else "-"  # it is no part of WSGI
            expected = f"GET {uri} {prefix}{path} {query} Basic YTpi new"
            assert body.decode() == expected


def test_other_fields_are_seen(server: Server, engine: str) -> None:
    server.start(application, at_once=at_once)
    with server.connect() as sock:
        for fields, authorization in (
            (FIELDS, "Basic YTpi"),
            (FIELDS, "Basic YTpi"),
            (FIELDS.replace(b"YTpi", b"YTpj"), "Basic YTpj"),
            (b"Host: x\r\n\r\n", "-"),
            (FIELDS, "Basic YTpi"),
        ):
            sock.sendall(b"GET /a HTTP/1.1\r\n" + fields)
            _, body = read_answer(sock)
            uri = "/a" if engine == "waitress" else "-"
            assert body.decode() == f"GET {uri} /a  {authorization} new"


def test_a_request_that_is_read_before_the_last_one_is_answered_has_its_own_fields(
    server: Server,
) -> None:
    server.start(application, at_once=at_once)
    other, last = FIELDS.replace(b"YTpi", b"YTpj"), b"Host: x\r\nConnection: close\r\n\r\n"
    with server.connect() as sock:
        # A thread reads the fields of the first one, while the loop reads the others.
        first = b"HEAD /thread HTTP/1.1\r\n" + FIELDS
        sock.sendall(
            first + 2 * (b"GET /thread HTTP/1.1\r\n" + other) + b"GET /thread HTTP/1.1\r\n" + last
        )
        answers = b"".join(iter(lambda: sock.recv(65536), b"")).decode()
    seen = re.findall("GET [^ ]* /thread  (.*) new", answers)
    assert seen == ["Basic YTpj", "Basic YTpj", "-"]


@pytest.mark.parametrize(
    ("line", "status"),
    [
        (b"GET /a HTTP/1.0", "200"),
        (b"GET  /a HTTP/1.1", "400"),
        (b"GET /a HTTP/2.0", "505"),
        (b"GET a HTTP/1.1", "400"),
        (b"GET /a\tb HTTP/1.1", "400"),
    ],
)
def test_the_first_line_is_checked_each_time(
    server: Server, engine: str, line: bytes, status: str
) -> None:
    server.start(application, at_once=at_once)
    with server.connect() as sock:
        sock.sendall(b"GET /a HTTP/1.1\r\n" + FIELDS)
        assert read_answer(sock)[0].split()[0] == "200"
        sock.sendall(line + b"\r\n" + FIELDS)
        found = read_answer(sock)[0].split()[0]
        assert found == ("400" if engine == "granian" and status == "505" else status)


def test_fields_of_a_request_with_a_body_are_not_taken_for_those_of_the_next(
    server: Server,
) -> None:
    server.start(application, gate=lambda head: PassOn(100), at_once=at_once)
    fields = FIELDS.replace(b"Accept", b"Content-Length: 3\r\nAccept")
    with server.connect() as sock:
        for target in (b"/a", b"/b"):
            sock.sendall(b"GET " + target + b" HTTP/1.1\r\n" + fields + b"xyz")
            _, body = read_answer(sock)
            assert body.split()[2:3] == [target]


def test_answers_at_once_have_the_fields_of_all_answers(server: Server) -> None:
    server.start(application, at_once=at_once)
    client = server.client()
    names = []
    for target in ("/a", "/thread/a"):
        client.request("GET", target, headers={"X-Request-ID": "mine"})
        response = client.getresponse()
        body = response.read()
        assert response.headers["X-Request-ID"] == "mine"
        assert response.headers["Content-Length"] == str(len(body))
        names.append({name.lower() for name in response.headers})
    assert names[0] - {"content-type"} == names[1] - {"x-reason"}  # of the server of the tests
    client.request("GET", "/a", headers={"Connection": "close"})
    assert client.getresponse().headers["Connection"] == "close"
