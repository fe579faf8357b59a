"""Connections that the upstream closes while they are not used."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import pytest

from private_pypi.errors import BackendUnavailable
from private_pypi_mirror.backend import MirrorStorage
from tests.mirror.conftest import MakeMirror

BODY = json.dumps({"meta": {"api-version": "1.1"}, "name": "demo", "files": []}).encode()
HEAD = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(BODY)}\r\n\r\n"
WHOLE = HEAD.encode() + BODY
CLOSED, RESET = b"", None  # in place of an answer


@dataclass
class Scripted:
    """A server that gives the connections that are made, in order, their answers, in order.

    After its last answer, a connection is closed.
    """

    connections: Sequence[Sequence[bytes | None]]
    port: int = 0
    requests: list[int] = field(default_factory=list)  # the number of the connection of each


@contextlib.contextmanager
def scripted(*connections: Sequence[bytes | None]) -> Iterator[Scripted]:
    server = Scripted(connections)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server.port = listener.getsockname()[1]

        def serve() -> None:
            with contextlib.suppress(OSError):  # the end of the test
                for number, answers in enumerate(connections):
                    connection, _ = listener.accept()
                    threading.Thread(target=talk, args=(number, connection, answers)).start()

        def talk(number: int, connection: socket.socket, answers: Sequence[bytes | None]) -> None:
            with connection, connection.makefile("rb") as lines:
                for answer in answers:
                    if not any(line == b"\r\n" for line in iter(lines.readline, b"")):
                        return  # the client has left
                    server.requests.append(number)
                    if answer is RESET:
                        linger = struct.pack("ii", 1, 0)
                        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                    else:
                        connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server
        finally:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def ask(mirror: MirrorStorage) -> None:
    page = mirror.project_page("demo", "")
    assert page is not None
    assert page.files == []


def mirror_at(server: Scripted, mirror_of: MakeMirror) -> MirrorStorage:
    return mirror_of(f"http://127.0.0.1:{server.port}/simple/")


@pytest.mark.parametrize("end", [CLOSED, RESET])
def test_a_connection_that_was_closed_meanwhile_is_replaced_once(
    mirror_of: MakeMirror, end: bytes | None
) -> None:
    with scripted([WHOLE, WHOLE, end], [WHOLE]) as server:
        mirror = mirror_at(server, mirror_of)
        for _ in range(3):
            ask(mirror)
        assert server.requests == [0, 0, 0, 1]
        assert mirror.usage().requests == {"2xx": 3, "none": 1}


@pytest.mark.parametrize("end", [CLOSED, RESET])
def test_the_second_try_is_the_last(mirror_of: MakeMirror, end: bytes | None) -> None:
    with scripted([WHOLE, end], [end], [WHOLE]) as server:
        mirror = mirror_at(server, mirror_of)
        ask(mirror)
        with pytest.raises(BackendUnavailable, match="cannot be reached"):
            ask(mirror)
        assert server.requests == [0, 0, 1]
        ask(mirror)


@pytest.mark.parametrize("end", [CLOSED, RESET])
def test_a_new_connection_that_is_closed_is_trouble(
    mirror_of: MakeMirror, end: bytes | None
) -> None:
    with scripted([end], [WHOLE]) as server:
        mirror = mirror_at(server, mirror_of)
        with pytest.raises(BackendUnavailable, match="cannot be reached"):
            ask(mirror)
        assert server.requests == [0]


@pytest.mark.parametrize("begun", [b"H", HEAD.encode()[:-2], HEAD.encode(), WHOLE[:-1]])
def test_an_answer_that_has_begun_is_not_asked_for_again(
    mirror_of: MakeMirror, begun: bytes
) -> None:
    with scripted([WHOLE, begun], [WHOLE]) as server:
        mirror = mirror_at(server, mirror_of)
        ask(mirror)
        with pytest.raises(BackendUnavailable):
            ask(mirror)
        assert server.requests == [0, 0]


def test_the_second_try_does_not_use_another_old_connection(mirror_of: MakeMirror) -> None:
    with scripted([WHOLE, CLOSED], [WHOLE, CLOSED], [WHOLE]) as server:
        mirror = mirror_at(server, mirror_of)
        # Two connections, because each answer is kept open until both have one.
        first, second = (
            mirror.backend.connection.get(f"http://127.0.0.1:{server.port}/", {}) for _ in range(2)
        )
        first.close()
        second.close()
        ask(mirror)
        assert server.requests[2:] in ([0, 2], [1, 2])
