"""The log: the content of lines, that they cannot be forged, and that they have no secrets."""

from __future__ import annotations

import base64
import http.client
import io
import json
import logging
import re
import socket
import sys
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from private_pypi.testing.distributions import encode_multipart, form_for, make_wheel
from private_pypi.web.operations.logs import (
    Log,
    LogFormat,
    RequestLog,
    _JsonFormatter,
    _TextFormatter,
)
from private_pypi.web.serving import Exchange
from tests.faults.servers import Server, Servers, servers_below, table
from tests.waiting import eventually
from tests.web.conftest import basic

DEMO, CONTENT = make_wheel("demo", "1.0")
AGENT = {"User-Agent": "tool/1"}
TOKEN = {"TOKEN": "the-token"}
FLAGS = ("--extra_index_url=", "--metrics_token_env", "TOKEN")


READER, WRITER = basic("mine", "r"), basic("mine", "w")


def ask(
    server: Server,
    method: str,
    path: str,
    headers: Mapping[str, str] = READER,
    body: bytes | None = None,
) -> http.client.HTTPResponse:
    """One request over a connection of its own; the answer with its body still to read."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    connection.request(method, path, body, {**AGENT, **headers})
    return connection.getresponse()


def upload(server: Server, headers: Mapping[str, str], **overrides: Any) -> int:
    content_type, body = encode_multipart(form_for(DEMO, CONTENT, **overrides), DEMO, CONTENT)
    return ask(server, "POST", "/r/mine/", {**headers, "Content-Type": content_type}, body).status


def request_lines(server: Server, count: int) -> list[dict[str, Any]]:
    """The lines of all requests of a server that logs JSON, once there are that many."""

    def found() -> list[dict[str, Any]]:
        whole = server.log.rpartition("\n")[0]  # the last one may be in the middle of its writing
        lines = [line for line in whole.splitlines() if line.startswith("{")]
        parsed = [json.loads(line) for line in lines]
        return [line for line in parsed if line["logger"] == "private_pypi.requests"]

    eventually(lambda: len(found()) >= count, f"{count} lines of requests")
    return found()


# -- requests ------------------------------------------------------------------------------------


@pytest.mark.needs("a server in a process of its own")
def test_each_request_has_a_line_with_all_that_is_worth_knowing(servers: Servers) -> None:
    flags = (*FLAGS, "--log_format", "json")
    server = servers.start(servers.folder / "root", flags=flags, environ=TOKEN)
    own = {"X-Request-ID": "Root=1-67891233"}
    assert upload(server, {**WRITER, **own}) == 200
    page = "/r/mine/simple/demo/"
    # The second is answered in the loop, the third without a body.
    first, second = ask(server, "GET", page), ask(server, "GET", page)
    etag = {"If-None-Match": second.headers["ETag"]}
    third = ask(server, "GET", page, {**READER, **etag})
    file = ask(server, "GET", f"{page}{DEMO}?any=thing", READER)
    head = ask(server, "HEAD", f"/simple/demo/{DEMO}")
    refused = ask(server, "GET", page, basic("mine", "wrong"))
    unknown = ask(server, "GET", "/n%C3%B6/%20")
    gate = ask(server, "POST", "/r/mine/", basic("mine", "wrong"), b"x" * 100)
    size = len(first.read())
    answers = (first, second, third, file, head, refused, unknown, gate)
    expected = [
        ("POST", "/r/mine/", "/", 200, None, "mine"),
        ("GET", page, "/simple/<name>/", 200, size, "mine"),
        ("GET", page, "/simple/<name>/", 200, size, "mine"),
        ("GET", page, "/simple/<name>/", 304, 0, "mine"),
        ("GET", page + DEMO, "/simple/<name>/<filename>", 200, len(CONTENT), "mine"),
        ("HEAD", f"/simple/demo/{DEMO}", "/simple/<name>/<filename>", 200, 0, "mine"),
        ("GET", page, "/simple/<name>/", 401, len(refused.read()), None),
        ("GET", "/nö/ ", "(none)", 404, len(unknown.read()), None),
        ("POST", "/r/mine/", "/", 401, len(gate.read()), None),
    ]
    ids = ["Root=1-67891233", *(answer.headers["X-Request-ID"] for answer in answers)]
    # A client may have its answer, and ask again, before the line of it is written.
    by_id = {line["request_id"]: line for line in request_lines(server, len(expected))}
    assert sorted(by_id) == sorted(ids)
    lines = [by_id[request_id] for request_id in ids]
    for line in lines:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("time"))
        assert 0 < line.pop("seconds") < 20
    assert lines == [
        {
            "level": "info",
            "logger": "private_pypi.requests",
            "message": "request",
            "request_id": request_id,
            "method": method,
            "path": path,
            "route": route,
            "status": status,
            "bytes": lines[0]["bytes"] if sent is None else sent,
            "repository": repository,
            "address": "127.0.0.1",
            "user_agent": "tool/1",
        }
        for request_id, (method, path, route, status, sent, repository) in zip(
            ids, expected, strict=True
        )
    ]


@pytest.mark.needs("a server in a process of its own")
def test_a_line_of_text_is_for_people(servers: Servers) -> None:
    server = servers.start(servers.folder / "root", flags=FLAGS, environ=TOKEN)
    answer = ask(server, "GET", "/simple/")
    pattern = (
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} INFO private_pypi\.requests: 127\.0\.0\.1 mine "
        rf'"GET /simple/" 200 {len(answer.read())} B \d+\.\d\d ms "tool/1" '
        + answer.headers["X-Request-ID"]
    )
    eventually(lambda: re.search(f"(?m)^{pattern}$", server.log), "the line")


@pytest.mark.needs("a server in a process of its own")
def test_no_lines_of_requests_where_none_are_wanted(servers: Servers) -> None:
    flags = (*FLAGS, "--request_log=false")
    server = servers.start(servers.folder / "root", flags=flags, environ=TOKEN)
    assert ask(server, "GET", "/simple/").status == 200
    assert upload(server, WRITER) == 200
    assert server.stop() == 0
    assert "private_pypi.requests" not in server.log
    assert f"published {DEMO} in mine from 127.0.0.1" in server.log


@pytest.mark.needs("a server in a process of its own")
def test_what_waits_at_the_end_is_written(servers: Servers) -> None:
    server = servers.start(servers.folder / "root", flags=FLAGS, environ=TOKEN)
    for number in range(20):
        ask(server, "GET", f"/simple/p{number}/").read()
    assert server.stop() == 0
    assert [f"/simple/p{number}/" in server.log for number in range(20)] == [True] * 20


@pytest.mark.needs("a server in a process of its own")
def test_a_proxy_that_is_trusted_tells_the_address(servers: Servers) -> None:
    flags = (
        *FLAGS,
        *("--log_format", "json", "--trusted_proxy", "127.0.0.1"),
        *("--trusted_proxy_headers", "x-forwarded-for"),
    )
    server = servers.start(servers.folder / "root", flags=flags, environ=TOKEN)
    forwarded = {"X-Forwarded-For": "192.0.2.7"}
    assert upload(server, {**WRITER, **forwarded}) == 200
    for _ in range(2):  # the second is answered in the loop
        ask(server, "GET", "/simple/demo/", {**READER, **forwarded}).read()
    ask(server, "POST", "/", {**READER, **forwarded}, b"x").read()  # refused by the gate
    assert [line["address"] for line in request_lines(server, 4)] == ["192.0.2.7"] * 4
    audit = (server.root / "log" / "audit.jsonl").read_text().splitlines()
    assert [json.loads(line)["address"] for line in audit] == ["192.0.2.7"] * 2


@pytest.mark.needs("a server in a process of its own")
@pytest.mark.needs("a server in a process of its own")
@pytest.mark.parametrize(
    "request_id",
    ["a b", "x" * 129, "ä", 'a"b', "a;b", "", "a\tb"],
    ids=lambda given: repr(given)[:9],
)
def test_an_id_that_cannot_stand_in_a_line_is_replaced(shared: Server, request_id: str) -> None:
    answer = ask(shared, "GET", "/health/", {"X-Request-ID": request_id})
    assert re.fullmatch("[0-9a-f]{16}", answer.headers["X-Request-ID"])


@pytest.mark.needs("a server in a process of its own")
@pytest.mark.needs("a server in a process of its own")
@pytest.mark.parametrize(
    "request_id", ["a", "x" * 128, "5f1d7e84-6b0c-4b6e-9d9b-6f9a2a1c3b4d", "a+b/c==", "a:b.c_d"]
)
def test_an_id_of_the_client_is_kept(shared: Server, request_id: str) -> None:
    answer = ask(shared, "GET", "/health/", {"X-Request-ID": request_id})
    assert answer.headers["X-Request-ID"] == request_id


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("logs")
    with servers_below(folder) as servers:
        yield servers.start(folder / "root", flags=FLAGS, environ=TOKEN)


@pytest.mark.needs("a server in a process of its own")
@pytest.mark.needs("a server in a process of its own")
@pytest.mark.parametrize(
    ("head", "seen", "status"),
    [
        (b"GET /\xff HTTP/1.1", "- -", 400),
        (b"GET http://[/ HTTP/1.1", "- -", 400),
        (b"nonsense", "- -", 400),
        (b"GET / HTTP/1.1\r\nno header", "- -", 400),
        (b"GET /a HTTP/1.1\r\nContent-Length: x", "GET /a", 400),
        (b"POST /a HTTP/1.1\r\nTransfer-Encoding: gzip", "POST /a", 501),
    ],
)
def test_what_cannot_be_read_is_answered_and_has_a_line(
    shared: Server, head: bytes, seen: str, status: int
) -> None:
    with socket.create_connection(("127.0.0.1", shared.port), timeout=20) as connection:
        connection.sendall(head + b"\r\nHost: localhost\r\n\r\n")
        answer = b"".join(iter(lambda: connection.recv(1000), b"")).decode()
    assert answer.startswith(f"HTTP/1.1 {status} ") or answer.startswith(f"HTTP/1.0 {status} ")
    found = re.search("^X-Request-ID: (.+?)\r$", answer, re.MULTILINE)
    assert found is not None
    eventually(lambda: found[1] in shared.log, "the line of the request")
    (line,) = [each for each in shared.log.splitlines() if each.endswith(found[1])]
    assert f' "{seen}" {status} ' in line
    assert "Traceback" not in shared.log


# -- forged lines and secrets --------------------------------------------------------------------


@pytest.mark.needs("a server in a process of its own")
@pytest.mark.parametrize("form", ["text", "json"])
def test_nobody_forges_a_line(servers: Servers, form: LogFormat) -> None:
    flags = (*FLAGS, "--log_format", form)
    server = servers.start(servers.folder / "root", flags=flags, environ=TOKEN)
    forged = "2026-01-01 00:00:00,000 INFO private_pypi: forged"
    nasty = forged.replace(" ", "%20")
    paths = [
        f"/{end}{nasty}" for end in ("%0A", "%0D", "%0D%0A", "%C2%85", "%E2%80%A8", "%1B%5B2J")
    ]
    for path in paths:
        ask(server, "GET", path).read()
        ask(server, "DELETE", f"/simple/demo{path}", WRITER).read()
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        agent = b"a\x85b\x0b" + forged.encode()
        connection.sendall(b"GET / HTTP/1.0\r\nUser-Agent: " + agent + b"\r\n\r\n")
        while connection.recv(1000):
            pass
    upload(server, WRITER, name=f"demo\n{forged}\n")
    assert server.stop() == 0
    mark = '"/' if form == "json" else ' "GET /'
    assert server.log.count(mark) >= len(paths)
    for line in server.log.splitlines():  # which also splits at \x85, \u2028 and \x0b
        assert not line.startswith(forged)
        assert "\x1b" not in line
        if form == "json" and not line.startswith("private_pypi serves"):
            json.loads(line)


MARKED = {
    "read": "MARKED-read",
    "write": "MARKED-write",
    "wrong": "MARKED-wrong",
    "token": "MARKED-token",
    "query": "MARKED-query",
    "cookie": "MARKED-cookie",
    "form": "MARKED-form",
    "userinfo": "MARKED-userinfo",
    "config": "MARKED-config",
}


@pytest.mark.needs("a server in a process of its own")
@pytest.mark.parametrize("form", ["text", "json"])
def test_no_secret_is_ever_told(servers: Servers, form: LogFormat) -> None:
    root = servers.folder / "root"
    config = table(read_secret=MARKED["read"], write_secret=MARKED["write"])
    flags = ("--log_format", form, "--debug", "--metrics_token_env", "TOKEN")
    server = servers.start(root, config, flags=flags, environ={"TOKEN": MARKED["token"]})
    told: list[str] = []

    def tell(
        method: str, path: str, headers: Mapping[str, str] = READER, body: bytes | None = None
    ) -> None:
        answer = ask(server, method, path, headers, body)
        told.append(f"{answer.status} {answer.reason}\n{answer.headers}\n")
        told.append(answer.read().decode("latin-1"))

    credentials = [
        basic("mine", MARKED["read"]),
        basic("mine", MARKED["write"]),
        basic("mine", MARKED["wrong"]),
        basic(MARKED["wrong"], "x-oauth-basic"),  # a token where the user belongs
        {"Authorization": f"Bearer {MARKED['read']}"},
        {"Authorization": f"Bearer {MARKED['wrong']}"},
        {"Authorization": f"Token {MARKED['token']}"},
        {"Authorization": MARKED["wrong"]},
        {"Authorization": f"Digest {MARKED['wrong']}"},
        {"Cookie": f"session={MARKED['cookie']}"},
    ]
    paths = [
        "/simple/",
        "/simple/demo/",
        f"/simple/demo/{DEMO}",
        f"/simple/demo/{DEMO}.metadata",
        f"/r/mine/simple/demo/?token={MARKED['query']}",
        f"/r/nothing/simple/demo/?token={MARKED['query']}",
        f"/nowhere?password={MARKED['query']}",
        "/index_mtime/",
        "/health/ready",
        "/metrics",
        "/",
    ]
    content_type, body = encode_multipart(
        [*form_for(DEMO, CONTENT), ("password", MARKED["form"]), ("gpg_secret", MARKED["form"])],
        DEMO,
        CONTENT,
    )
    for given in credentials:
        form_headers = {**given, "Content-Type": content_type}
        tell("POST", "/r/mine/", form_headers, body)
        tell("POST", "/r/mine/", form_headers, body[:-9])
        tell("POST", f"/simple/?secret={MARKED['query']}", form_headers, body)
        for path in paths:
            tell("GET", path, given)
        for method, path in (
            ("POST", f"/simple/demo/{DEMO}/yank"),
            ("DELETE", f"/simple/demo/{DEMO}/yank"),
            ("PUT", "/simple/"),
        ):
            tell(method, path, given)
        fields = {"config": table(read_secret=MARKED["config"]), "admin_secret": MARKED["config"]}
        content = encode_multipart([*fields.items()], "x", b"")
        tell("POST", "/initialize/", {**given, "Content-Type": content[0]}, content[1])
        login = f"pkg_repo_name=mine&pkg_repo_secret_raw={MARKED['form']}".encode()
        as_form = {**given, "Content-Type": "application/x-www-form-urlencoded"}
        tell("POST", "/login/", as_form, login)
    for raw in (
        # A proxy's form of an address, and heads that cannot be read.
        f"GET http://mine:{MARKED['userinfo']}@127.0.0.1/simple/ HTTP/1.0\r\n\r\n",
        f"GET http://mine:{MARKED['userinfo']}@[::1/ HTTP/1.0\r\n\r\n",
        f"Authorization: Basic {MARKED['wrong']}\r\n\r\n",
        f"GET / HTTP/1.0\r\nAuthorization {MARKED['wrong']}\r\n\r\n",
        f"GET / HTTP/1.0\r\nAuthorization : {MARKED['wrong']}\r\n\r\n",
        f"GET / HTTP/9 {MARKED['query']}\r\n\r\n",
    ):
        with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
            connection.sendall(raw.encode())
            told.append(connection.makefile("rb").read().decode("latin-1"))
    tell("DELETE", "/simple/demo/1.0", basic("mine", MARKED["write"]))
    tell("GET", "/metrics", basic("x", MARKED["token"]))
    assert "private_pypi_http_requests_total" in told[-1]  # it was let in
    assert server.stop() == 0
    told.append(server.log)
    told.append((root / "log" / "audit.jsonl").read_text())
    everything = "\n".join(told)
    assert everything.count('"action": "publish"') >= 2
    for name, secret in MARKED.items():
        for shape in (secret, base64.b64encode(f"mine:{secret}".encode()).decode().rstrip("=")):
            assert shape not in everything, f"{name}: {around(everything, shape)}"


def around(text: str, found: str) -> str:
    at = text.find(found)
    return text[max(0, at - 200) : at + 100]


# -- the parts -----------------------------------------------------------------------------------


class Blocked(io.StringIO):
    """A stream that nobody reads, until `released`."""

    def __init__(self) -> None:
        super().__init__()
        self.released = threading.Event()
        self.reached = threading.Event()

    def write(self, text: str, /) -> int:
        self.reached.set()
        assert self.released.wait(20)
        return super().write(text)


EXCHANGE = Exchange("one", None, 400, 5, 0.25)


def test_a_log_that_nobody_reads_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("private_pypi.web.operations.logs._MOST_WAITING", 10)
    stream = Blocked()
    log = RequestLog(Log(stream, "text"))
    log.append(EXCHANGE, "(none)", "")
    assert stream.reached.wait(10)
    for _ in range(15):
        log.append(EXCHANGE, "(none)", "")
    assert log.dropped == 5
    stream.released.set()
    log.close()
    assert len(stream.getvalue().splitlines()) == 11


def test_a_stream_that_is_gone_is_nobodys_error() -> None:
    stream = io.StringIO()
    log = Log(stream, "text")
    stream.close()
    log.write("a line\n")


def test_a_request_that_cannot_be_read_has_a_line_all_the_same() -> None:
    texts = {}
    for form in ("text", "json"):
        stream = io.StringIO()
        log = RequestLog(Log(stream, form))  # type: ignore[arg-type]
        log.append(EXCHANGE, "(none)", "")
        log.close()
        texts[form] = stream.getvalue()
    assert texts["text"].endswith(': - - "- -" 400 5 B 250.00 ms "" one\n')
    line = json.loads(texts["json"])
    assert (line["path"], line["status"], line["repository"]) == ("-", 400, None)


def record(message: str, **more: Any) -> logging.LogRecord:
    found = logging.LogRecord("some.logger", logging.WARNING, __file__, 1, message, (), None)
    found.__dict__.update(more)
    return found


def test_further_lines_of_a_message_are_indented() -> None:
    text = _TextFormatter().format(record("one\ntwo\r\x1b\x85three"))
    head, *rest = text.split("\n")
    assert head.endswith(" WARNING some.logger: one")
    assert rest == ["    two\\r\\u001b\\u0085three"]


def test_an_event_in_json_has_its_fields_and_its_traceback() -> None:
    try:
        raise ValueError("a\nb")
    except ValueError:
        failed = record("it failed", exc_info=sys.exc_info(), fields={"filename": DEMO})
    line = json.loads(_JsonFormatter().format(failed))
    exception = line.pop("exception")
    assert exception.startswith("Traceback")
    assert exception.endswith("ValueError: a\nb")
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "warning",
        "logger": "some.logger",
        "message": "it failed",
        "filename": DEMO,
    }


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("GET https://user:secret@host/x failed", "GET https://…@host/x failed"),
        ("to 'http://token@host'", "to 'http://…@host'"),
        ("mail to a@b, see https://host/a@b", "mail to a@b, see https://host/a@b"),
    ],
)
def test_passwords_in_addresses_are_left_out(said: str, told: str) -> None:
    assert _TextFormatter().format(record(said)).endswith(f": {told}")
