"""Workers that accept from the same sockets divide the connections between themselves."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from private_pypi.web.serving import ConnectionCounts, Stop, open_listeners, serve
from tests.waiting import eventually
from tests.web.serving.servers import HELLO, Server, answer


class Workers:
    """Engines on one socket, each of which names itself."""

    def __init__(self, folder: Path, counts: ConnectionCounts) -> None:
        sockets, self.addresses = open_listeners("127.0.0.1", 0, {"threads": "2"})
        (self.listener,) = sockets
        self.stops: list[Stop] = []
        self._folder = folder
        self._counts = counts
        self._threads: list[threading.Thread] = []

    def start(self, number: int) -> None:
        stop, listening = Stop(), threading.Event()
        thread = threading.Thread(
            target=serve,
            args=(self._application(number), Server(self._folder).let_in),
            kwargs={
                "host": "not used",
                "port": 1,
                "options": {"threads": "2", "listen": "not.used:1"},
                "sockets": [self.listener.dup()],
                "peers": self._counts.peers_of(number),
                "on_listening": lambda _: listening.set(),
                "stop": stop,
            },
        )
        self.stops.append(stop)
        self._threads.append(thread)
        thread.start()
        assert listening.wait(30)

    @staticmethod
    def _application(number: int):  # type: ignore[no-untyped-def]
        return lambda environ, start_response: answer(
            start_response, "200 OK", HELLO + str(number).encode()
        )

    def connect(self) -> tuple[socket.socket, int]:
        """A connection that stays open, and the worker that it is with."""
        connection = socket.create_connection(self.listener.getsockname(), timeout=10)
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        received = b""
        while HELLO not in received or not received[-1:].isdigit():
            received += connection.recv(1000)
        return connection, int(received[-1:])

    def end(self) -> None:
        for stop in self.stops:
            stop.request()
        for thread in self._threads:
            thread.join(15)
            assert not thread.is_alive()
        self.listener.close()


@pytest.fixture
def stack() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.fixture
def counts() -> ConnectionCounts:
    return ConnectionCounts(2)


@pytest.fixture
def workers(tmp_path: Path, counts: ConnectionCounts) -> Iterator[Workers]:
    workers = Workers(tmp_path, counts)
    yield workers
    workers.end()


def test_new_connections_go_to_the_worker_that_has_the_fewest(
    workers: Workers, stack: contextlib.ExitStack
) -> None:
    def found(number: int) -> list[int]:
        made = [workers.connect() for _ in range(number)]
        for connection, _ in made:
            stack.callback(connection.close)
        return [worker for _, worker in made]

    workers.start(1)
    assert found(10) == [1] * 10
    workers.start(2)
    # On a busy machine, it may not be there in time once or twice.
    assert found(10).count(2) >= 8


def test_nobody_waits_for_a_worker_that_hangs_or_has_ended(
    workers: Workers, counts: ConnectionCounts, stack: contextlib.ExitStack
) -> None:
    workers.start(1)  # the second one has no connection, and never accepts any
    for _ in range(5):
        connection, number = workers.connect()
        stack.callback(connection.close)
        assert number == 1
    peers = counts.peers_of(1)
    eventually(peers.have_fewer)
    counts.forget(2)
    assert not peers.have_fewer()


def test_a_worker_that_ends_is_not_waited_for(
    workers: Workers, counts: ConnectionCounts, stack: contextlib.ExitStack
) -> None:
    workers.start(1)
    workers.start(2)
    workers.stops[0].request()
    connection, number = workers.connect()
    while number == 1:  # it answers what it accepted before it ended
        connection.close()
        connection, number = workers.connect()
    stack.callback(connection.close)
    assert not counts.peers_of(2).have_fewer()
