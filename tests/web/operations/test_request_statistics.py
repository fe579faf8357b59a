"""What an engine tells its observer, however a request ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from private_pypi.web.operations.request_statistics import template
from private_pypi.web.serving import CLIENT_CLOSED, REQUEST_ID, Answer, Exchange, Load, RequestHead
from tests.waiting import eventually
from tests.web.serving.servers import (
    HELLO,
    Server,
    answer,
    form,
    head,
    read_all,
    read_answer,
)


class Observer:
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.exchanges: list[Exchange] = []
        self.load: Callable[[], Load] = lambda: Load(-1, -1)

    def serving(self, load: Callable[[], Load]) -> None:
        self.load = load

    def answered(self, exchange: Exchange) -> None:
        self.exchanges.append(exchange)

    def told(self, count: int) -> list[tuple[str | None, int, int]]:
        """Path, status and bytes of all exchanges, once there are that many."""
        eventually(lambda: len(self.exchanges) >= count)
        return [
            (None if each.environ is None else each.environ["PATH_INFO"], each.status, each.sent)
            for each in self.exchanges
        ]


@pytest.fixture
def observer() -> Observer:
    return Observer()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path)
    yield made
    made.end()


def test_an_answer_is_told_with_what_the_application_added(
    server: Server, observer: Observer
) -> None:
    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        environ["added"] = environ[REQUEST_ID]
        return answer(start_response, "200 OK", HELLO)

    server.start(application, observer=observer)
    client = server.client()
    client.request("GET", "/a%20b?c=d", headers={"X-Request-ID": "mine"})
    response = client.getresponse()
    assert (response.read(), response.headers["X-Request-ID"]) == (HELLO, "mine")
    assert observer.told(1) == [("/a b", 200, len(HELLO))]
    (exchange,) = observer.exchanges
    assert exchange.request_id == "mine"
    assert exchange.environ is not None
    assert exchange.environ["added"] == "mine"
    assert 0 < exchange.seconds < 20


def test_what_the_application_never_saw_is_told_as_well(server: Server, observer: Observer) -> None:
    def gate(head: RequestHead) -> Answer:
        return Answer(401, "Who are you", (), b"sentence")

    server.start(gate=gate, observer=observer)
    with server.connect() as sock:
        sock.sendall(head(100, path="/upload"))
        assert read_answer(sock)[0] == "401 Who are you"
    with server.connect() as sock:
        sock.sendall(b"GARBAGE\r\n\r\n")
        unreadable = read_all(sock)
    assert unreadable.startswith(b"HTTP/1.0 400 Bad Request\r\n")
    assert b"\r\nX-Request-ID: " in unreadable
    size = len(unreadable.partition(b"\r\n\r\n")[2])
    assert set(observer.told(2)) == {("/upload", 401, len(b"sentence")), (None, 400, size)}


def test_an_application_that_breaks_is_told_once(server: Server, observer: Observer) -> None:
    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        raise ValueError("broken")

    server.start(application, observer=observer)
    client = server.client()
    client.request("GET", "/broken")
    assert client.getresponse().status == 500
    assert observer.told(1) == [("/broken", 500, 0)]


def test_a_client_that_went_is_told_as_that(server: Server, observer: Observer) -> None:
    gone = threading.Event()

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        assert gone.wait(20)
        write = start_response("200 OK", [("Content-Length", str(2**26))])
        for _ in range(64):
            write(b"x" * 2**20)
        return []

    server.start(application, observer=observer)
    with server.connect() as sock:
        sock.sendall(b"GET /long HTTP/1.1\r\nHost: x\r\n\r\n")
        eventually(lambda: observer.load().requests == 1)
    gone.set()
    (told,) = observer.told(1)
    assert told[:2] == ("/long", CLIENT_CLOSED)


def test_a_watcher_that_breaks_breaks_no_answer(
    server: Server, observer: Observer, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(exchange: Exchange) -> None:
        raise ValueError("broken")

    observer.answered = broken  # type: ignore[method-assign]
    server.start(observer=observer)
    assert server.get() == HELLO
    eventually(lambda: "an answer was not noted" in caplog.text)


def test_the_load_is_what_there_is_to_do(server: Server, observer: Observer) -> None:
    released = threading.Event()

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        assert released.wait(20)
        return answer(start_response, "200 OK", HELLO)

    server.start(application, observer=observer, threads=1)
    # The start of the server has asked it something, which may not be over yet.
    eventually(lambda: observer.load() == Load(connections=0, requests=0))
    clients = [server.client() for _ in range(3)]
    for client in clients:
        client.request("GET", "/")
    eventually(lambda: observer.load() == Load(connections=3, requests=3))
    released.set()
    for client in clients:
        assert client.getresponse().read() == HELLO
        client.close()
    eventually(lambda: observer.load() == Load(connections=0, requests=0))


def test_an_upload_lasts_from_its_first_byte(server: Server, observer: Observer) -> None:
    server.start(observer=observer)
    body = form(b"x" * 1000)
    with server.connect() as sock:
        sock.sendall(head(len(body)))
        eventually(lambda: bool(server.heads))  # the gate was asked, and the body is missing
        before = time.time()
        server.get()
        waited = time.time() - before
        sock.sendall(body)
        assert read_answer(sock)[0] == "200 OK"
    observer.told(2)
    assert max(exchange.seconds for exchange in observer.exchanges) >= waited


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        (None, "(none)"),
        ("/simple/<name>/", "/simple/<name>/"),
        ("/r/<repository>/simple/<name>/", "/simple/<name>/"),
        ("/r/<repository>", "/"),
        ("/r/<repository>/", "/"),
    ],
)
def test_a_route_is_told_without_its_repository(rule: str | None, told: str) -> None:
    assert template(rule) == told
