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
    """Two engines on one socket, each of which names itself."""

    def __init__(self, folder: Path, counts: ConnectionCounts, only: int | None = None) -> None:
        sockets, self.addresses = open_listeners("127.0.0.1", 0, {"threads": "2"})
        (self.listener,) = sockets
        self.stops = []
        self._threads = []
        for number in (1, 2) if only is None else (only,):
            self.stops.append(Stop())
            listening = threading.Event()
            thread = threading.Thread(
                target=serve,
                args=(self._application(number), Server(folder).let_in),
                kwargs={
                    "host": "not used",
                    "port": 1,
                    "options": {"threads": "2", "listen": "not.used:1"},
                    "sockets": [self.listener.dup()],
                    "peers": counts.peers_of(number),
                    "on_listening": lambda _, listening=listening: listening.set(),
                    "stop": self.stops[-1],
                },
            )
            thread.start()
            self._threads.append(thread)
            assert listening.wait(10)

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


def test_connections_that_stay_open_are_with_both(
    tmp_path: Path, stack: contextlib.ExitStack
) -> None:
    workers = Workers(tmp_path, ConnectionCounts(2))
    stack.callback(workers.end)
    found = []
    for _ in range(20):
        connection, number = workers.connect()
        stack.callback(connection.close)
        found.append(number)
    # On a busy machine, one of them may not be there in time once or twice.
    assert abs(found.count(1) - found.count(2)) <= 6


def test_nobody_waits_for_a_worker_that_hangs_or_has_ended(
    tmp_path: Path, stack: contextlib.ExitStack
) -> None:
    counts = ConnectionCounts(2)  # the second one has no connection, and never accepts any
    workers = Workers(tmp_path, counts, only=1)
    stack.callback(workers.end)
    for _ in range(5):
        connection, number = workers.connect()
        stack.callback(connection.close)
        assert number == 1
    peers = counts.peers_of(1)
    eventually(peers.have_fewer)
    counts.forget(2)
    assert not peers.have_fewer()


def test_a_worker_that_ends_is_not_waited_for(tmp_path: Path, stack: contextlib.ExitStack) -> None:
    counts = ConnectionCounts(2)
    workers = Workers(tmp_path, counts)
    stack.callback(workers.end)
    workers.stops[0].request()
    connection, number = workers.connect()
    while number == 1:  # it answers what it accepted before it ended
        connection.close()
        connection, number = workers.connect()
    stack.callback(connection.close)
    assert not counts.peers_of(2).have_fewer()
