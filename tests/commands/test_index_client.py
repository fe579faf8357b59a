"""The client that yanks and deletes, with a small HTTP server that records its requests."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from private_pypi.backend import Secret
from private_pypi.commands.index_client import IndexClient, connect
from private_pypi.errors import (
    BackendError,
    BackendUnavailable,
    ConfigurationError,
    InvalidUpload,
    NotAllowed,
    NotFound,
    Unsupported,
    WrongSecret,
)


@dataclass
class Recorder:
    """A server that answers all requests in the same way and records them."""

    status: int = 200
    body: bytes = b'{"files": ["demo-1.0.tar.gz"]}'
    headers: dict[str, str] = field(default_factory=dict)
    requests: list[tuple[str, str, bytes | None, str]] = field(default_factory=list)
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/r/mine/simple/"

    def client(self) -> IndexClient:
        return connect(self.url.replace("//", "//mine:w@"), {})


@contextmanager
def recording() -> Iterator[Recorder]:
    recorder = Recorder()

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            scheme, _, given = self.headers.get("Authorization", "").partition(" ")
            user = base64.b64decode(given) if scheme == "Basic" else None
            recorder.requests.append((self.command, self.path, user, body.decode()))
            self.send_response(recorder.status)
            for name, value in recorder.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(recorder.body)))
            self.end_headers()
            self.wfile.write(recorder.body)

        do_POST = do_DELETE = answer

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    recorder.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield recorder
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def index() -> Iterator[Recorder]:
    with recording() as recorder:
        yield recorder


@pytest.fixture(autouse=True)
def _no_netrc_of_the_person(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


def test_each_verb_is_one_request(index: Recorder) -> None:
    client = index.client()
    assert client.yank("Demo.Pkg", "1.0", "it burns") == ["demo-1.0.tar.gz"]
    assert client.unyank("demo", "demo-1.0.tar.gz") == ["demo-1.0.tar.gz"]
    assert client.delete("demo", "1!2.0+local") == ["demo-1.0.tar.gz"]
    assert index.requests == [
        ("POST", "/r/mine/simple/demo-pkg/1.0/yank", b"mine:w", "reason=it+burns"),
        ("DELETE", "/r/mine/simple/demo/demo-1.0.tar.gz/yank", b"mine:w", ""),
        ("DELETE", "/r/mine/simple/demo/1%212.0%2Blocal/", b"mine:w", ""),
    ]


def test_a_version_cannot_leave_its_project(index: Recorder) -> None:
    index.client().delete("demo", "../other/1.0")
    assert index.requests[0][1] == "/r/mine/simple/demo/..%2Fother%2F1.0/"


@pytest.mark.parametrize(
    ("address", "environ", "expected"),
    [
        ("http://u:p%40:ü@h/simple", {}, IndexClient("http://h/simple/", "u", Secret("p@:ü"))),
        ("http://h/simple/", {}, IndexClient("http://h/simple/")),
        (
            "http://h/simple/",
            {"PRIVATE_PYPI_USERNAME": "u", "PRIVATE_PYPI_PASSWORD": "p"},
            IndexClient("http://h/simple/", "u", Secret("p")),
        ),
        (
            "http://h:1/simple/",
            {"PRIVATE_PYPI_PASSWORD": "p"},
            IndexClient("http://h:1/simple/", "", Secret("p")),
        ),
        (
            "http://me@h/simple/",
            {"PRIVATE_PYPI_USERNAME": "u", "PRIVATE_PYPI_PASSWORD": "p"},
            IndexClient("http://h/simple/", "me", Secret("p")),
        ),
        (
            "http://u:p@h/simple/",
            {"PRIVATE_PYPI_USERNAME": "x", "PRIVATE_PYPI_PASSWORD": "y"},
            IndexClient("http://h/simple/", "u", Secret("p")),
        ),
    ],
)
def test_credentials_come_from_the_address_or_the_environment(
    address: str, environ: dict[str, str], expected: IndexClient
) -> None:
    assert connect(address, environ) == expected


def test_credentials_come_from_netrc_at_last(index: Recorder, tmp_path: Path) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login mine password from-netrc\n")
    connect(index.url, {}).delete("demo", "1.0")
    assert index.requests[0][2] == b"mine:from-netrc"


def test_credentials_outside_latin_1_are_sent_as_utf_8(index: Recorder) -> None:
    IndexClient(index.url, "mine", Secret("€")).delete("demo", "1.0")
    assert index.requests[0][2] == "mine:€".encode()


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, InvalidUpload),
        (403, NotAllowed),
        (404, NotFound),
        (500, BackendError),
        (501, Unsupported),
        (503, BackendUnavailable),
    ],
)
def test_the_server_explains_its_refusal(index: Recorder, status: int, kind: type) -> None:
    index.status, index.body = status, json.dumps({"message": "because"}).encode()
    with pytest.raises(kind) as caught:
        index.client().delete("demo", "1.0")
    assert str(caught.value) == f"the server answered {status}: because"


def test_a_wrong_password_is_told_with_where_to_give_it(index: Recorder) -> None:
    index.status, index.body = 401, b"not json"
    with pytest.raises(WrongSecret) as caught:
        index.client().delete("demo", "1.0")
    assert str(caught.value) == (
        "the server answered 401: Unauthorized (give the secret in the address, in "
        "PRIVATE_PYPI_USERNAME and PRIVATE_PYPI_PASSWORD, or in the netrc file)"
    )


def test_a_redirect_is_not_followed_with_a_password(index: Recorder) -> None:
    with recording() as other:
        index.status, index.headers = 301, {"Location": other.url}
        with pytest.raises(BackendError, match="redirects to another address"):
            index.client().yank("demo", "1.0")
        assert other.requests == []


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"files": "x"}', b'{"files": [1]}'])
def test_an_answer_of_something_else_is_no_success(index: Recorder, body: bytes) -> None:
    index.body = body
    with pytest.raises(BackendError, match="is not an index of private_pypi"):
        index.client().delete("demo", "1.0")


def test_a_server_that_is_not_there_is_named_without_the_password() -> None:
    with recording() as gone:
        client = gone.client()
    with pytest.raises(BackendUnavailable) as caught:
        client.delete("demo", "1.0")
    assert str(caught.value) == f"cannot reach {gone.url}: Connection refused"


@pytest.mark.parametrize(
    "address",
    ["", "demo", "ftp://u:hush@h/", "http://u:hush@[h/", "http://u:hush@h/?q=1", "http:///x"],
)
def test_what_is_no_index_is_refused_without_showing_it(address: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        connect(address, {})
    assert str(caught.value) == (
        "INDEX_URL is not the address of an index; "
        "it must be like https://HOST/r/REPOSITORY/simple/"
    )
