"""Requests that wait for their answer, and answers that are prepared meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from private_pypi.web.serving import WAITING, Answer, Later
from tests.web.serving.servers import Server, answer


class Door:
    """What requests wait for. It counts how often the application is called."""

    def __init__(self, prepare: Callable[[], Answer | None] | None) -> None:
        self.prepare = prepare
        self.calls: list[object] = []
        self._callbacks: list[Callable[[], object]] = []
        self.is_awaited = threading.Event()

    def later(self) -> Later:
        return Later(self, self._wait, self._callbacks.remove, prepare=self.prepare)

    def _wait(self, callback: Callable[[], object]) -> None:
        self._callbacks.append(callback)
        self.is_awaited.set()

    def open(self) -> None:
        assert self.is_awaited.wait(20)
        for callback in [*self._callbacks]:
            callback()

    def at_once(self, environ: dict[str, Any]) -> Answer | None:
        if environ[WAITING].awaited is None and environ["PATH_INFO"] == "/loop":
            raise self.later()
        return None

    def application(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        waited_for = environ[WAITING].awaited
        self.calls.append(waited_for)
        if waited_for is None and environ["PATH_INFO"] == "/worker":
            raise self.later()
        return answer(start_response, "200 OK", b"called")


def fails() -> Answer | None:
    raise RuntimeError("broken")


PREPARED = Answer(200, "OK", [("Content-Length", "8")], b"prepared")


@pytest.mark.parametrize("path", ["/loop", "/worker"])
@pytest.mark.parametrize(
    ("prepare", "expected"),
    [
        (lambda: PREPARED, b"prepared"),
        (lambda: None, b"called"),
        (fails, b"called"),
        (None, b"called"),
    ],
    ids=["an answer", "none", "a failure", "nothing to prepare"],
)
def test_an_answer_that_was_prepared_is_sent_without_the_application(
    server: Server, path: str, prepare: Callable[[], Answer | None] | None, expected: bytes
) -> None:
    door = Door(prepare)
    server.start(door.application, at_once=door.at_once)
    client = server.client()
    for _ in range(2):  # the connection lives on
        door.is_awaited.clear()
        client.request("GET", path)
        door.open()
        assert client.getresponse().read() == expected
    first = [None] if path == "/worker" else []
    assert door.calls == [*first, *([] if expected == b"prepared" else [door])] * 2
    client.close()


def test_a_prepared_answer_is_not_for_head(server: Server) -> None:
    door = Door(lambda: PREPARED)
    server.start(door.application, at_once=door.at_once)
    client = server.client()
    client.request("HEAD", "/worker")
    door.open()
    response = client.getresponse()
    assert (response.getheader("Content-Length"), response.read()) == ("6", b"")
    client.close()


def test_requests_behind_one_that_waits_are_answered_in_order(server: Server) -> None:
    door = Door(lambda: PREPARED)
    server.start(door.application, at_once=door.at_once)
    with server.connect() as sock:
        sock.sendall(
            b"GET /loop HTTP/1.1\r\nHost: x\r\n\r\n"
            b"GET /other HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )
        door.open()
        data = b""
        while piece := sock.recv(65536):
            data += piece
    assert data.index(b"prepared") < data.index(b"called")


def test_a_client_that_leaves_while_it_waits_leaves_nothing_behind(server: Server) -> None:
    """The application is called once more, as for every request that is not answered."""
    prepared: list[bool] = []

    def prepare() -> Answer | None:
        prepared.append(True)
        return PREPARED

    door = Door(prepare)
    server.start(door.application, at_once=door.at_once, drain_seconds=1)
    with server.connect() as sock:
        sock.sendall(b"GET /loop HTTP/1.1\r\nHost: x\r\n\r\n")
        assert door.is_awaited.wait(20)
    assert server.get("/other") == b"called"
    server.end()
    assert prepared == []
