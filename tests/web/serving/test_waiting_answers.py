"""Answers that come later, and files that are sent while they still arrive: without a thread."""

from __future__ import annotations

import http.client
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from private_pypi.web.serving import WAITING, Answer, Later, Waiting
from tests.waiting import eventually
from tests.web.serving.servers import HELLO, Server, answer


class Arriving:
    """A file of which a test lets more arrive (see `growing.GrowingFile`)."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._position = 0
        self._data = b""
        self._lock = threading.Lock()
        self._callbacks: list[Callable[[], object]] = []
        self.is_broken = False
        self.is_closed = threading.Event()

    def arrive(self, data: bytes) -> None:
        with self._lock:
            self._data += data
            waiting, self._callbacks = self._callbacks, []
        for callback in waiting:
            callback()

    def break_off(self) -> None:
        self.is_broken = True
        self.arrive(b"")

    def __len__(self) -> int:
        return self._size - self._position

    @property
    def is_starved(self) -> bool:
        return len(self) > 0 and not self.is_broken and self._position >= len(self._data)

    def peek(self, size: int) -> bytes:
        return b"" if self.is_broken else self._data[self._position : self._position + size]

    def skip(self, size: int) -> None:
        self._position += size

    def call_when_more(self, callback: Callable[[], object]) -> None:
        with self._lock:
            if self.is_starved:
                self._callbacks.append(callback)
                return
        callback()

    def forget(self, callback: Callable[[], object]) -> None:
        with self._lock:
            self._callbacks = [each for each in self._callbacks if each != callback]

    def close(self) -> None:
        self.is_closed.set()


def sending(file: Arriving) -> Callable[..., Any]:
    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        if environ["PATH_INFO"] != "/file":
            return answer(start_response, "200 OK", HELLO)
        start_response("200 OK", [("Content-Length", str(len(file)))])
        return environ["wsgi.file_wrapper"](file)

    return application


@pytest.mark.parametrize("size", [1000, 200_000, 3_000_000])
def test_a_file_is_sent_while_it_arrives(server: Server, size: int) -> None:
    file = Arriving(size)
    content = bytes(number % 251 for number in range(size))
    server.start(sending(file), threads=1)
    client = server.client()
    client.request("GET", "/file")
    for at in range(0, size, size // 4 + 1):
        assert server.get() == HELLO  # it holds no thread
        file.arrive(content[at : at + size // 4 + 1])
    assert client.getresponse().read() == content
    assert file.is_closed.wait(20)


def test_the_beginning_of_a_long_file_does_not_wait_for_its_end(server: Server) -> None:
    file = Arriving(10**6)
    server.start(sending(file))
    client = server.client()
    client.request("GET", "/file")
    file.arrive(b"x" * 200_000)
    response = client.getresponse()
    assert response.read(100_000) == b"x" * 100_000
    file.arrive(b"x" * 800_000)
    assert response.read() == b"x" * 900_000


@pytest.mark.parametrize("arrived", [0, 1000, 300_000])
def test_a_file_that_breaks_off_is_not_taken_for_whole(server: Server, arrived: int) -> None:
    file = Arriving(10**6)
    server.start(sending(file))
    client = server.client()
    client.request("GET", "/file")
    file.arrive(b"x" * arrived)
    time.sleep(0.1)
    file.break_off()
    with pytest.raises((http.client.HTTPException, ConnectionError)):
        client.getresponse().read()
    assert file.is_closed.wait(20)
    assert server.get() == HELLO


def test_a_file_is_released_when_its_client_goes(server: Server) -> None:
    file = Arriving(10**6)
    server.start(sending(file))
    with server.connect() as sock:
        sock.sendall(b"GET /file HTTP/1.1\r\nHost: x\r\n\r\n")
        file.arrive(b"x" * 300_000)
        assert sock.recv(10)
    time.sleep(0.1)
    file.arrive(b"x" * 700_000)
    assert file.is_closed.wait(20)


@pytest.mark.parametrize("engine", ["granian"])  # waitress does not notice that it has gone
def test_a_file_of_which_nothing_arrives_is_released_when_its_client_goes(server: Server) -> None:
    file = Arriving(10**6)
    server.start(sending(file))
    with server.connect() as sock:
        sock.sendall(b"GET /file HTTP/1.1\r\nHost: x\r\n\r\n")
        file.arrive(b"x" * 300_000)
        received = 0
        while received < 300_000:
            received += len(sock.recv(65536))
    assert file.is_closed.wait(20)


# In a process of its own: if it hangs, no thread of it can run any more.
ENDING = """
import sys, threading
from pathlib import Path
from tests.web.serving.servers import Server
from tests.web.serving.test_waiting_answers import Arriving, sending

engine, when, folder = sys.argv[1:]
file = Arriving(10**6)
server = Server(Path(folder), engine).start(sending(file), drain_seconds=1)
file.arrive(b"x" * 300_000)
sock = server.connect()
sock.sendall(b"GET /file HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
received = 0
while received < 300_000:
    received += len(sock.recv(65536))
if when == "after its client has gone":
    sock.close()
elif when == "while its client goes":
    threading.Timer(0.1, sock.close).start()
server.end()
assert file.is_closed.wait(20)
print("ended")
"""


@pytest.mark.parametrize(
    "when", ["after its client has gone", "while its client goes", "when its time is over"]
)
def test_a_server_ends_although_a_file_does_not_arrive(
    engine: str, when: str, tmp_path: Path
) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", ENDING, engine, when, str(tmp_path)],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert (ended.returncode, ended.stdout) == (0, "ended\n"), ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_request_waits_for_its_answer_without_a_thread(server: Server) -> None:
    ready: list[Callable[[], object]] = []
    seen: list[Waiting] = []

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        if environ["PATH_INFO"] != "/later":
            return answer(start_response, "200 OK", HELLO)
        waiting: Waiting = environ[WAITING]
        seen.append(waiting)
        if waiting.awaited is None:
            raise Later("something", ready.append, lambda callback: None)
        if not waiting.is_over:
            raise Later("something", ready.append, lambda callback: None, seconds=0.2)
        return answer(start_response, "200 OK", b"at last")

    server.start(application, threads=1)
    client = server.client()
    client.request("GET", "/later")
    assert server.get() == HELLO
    eventually(lambda: ready)
    ready[0]()
    response = client.getresponse()
    assert (response.status, response.read()) == (200, b"at last")
    assert seen[0] == Waiting(None, False)
    assert seen[1] == Waiting("something", False)
    assert seen[-1] == Waiting("something", True)


@pytest.mark.parametrize("engine", ["granian"])  # waitress does not notice that it has gone
def test_a_client_that_goes_is_not_waited_for(server: Server) -> None:
    forgotten = threading.Event()
    asked = threading.Event()

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        asked.set()
        raise Later("it", lambda callback: None, lambda callback: forgotten.set())

    server.start(application)
    with server.connect() as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert asked.wait(20)
    assert forgotten.wait(20)


class Prepared:
    """An answer of which the beginning is prepared while a request for `/file` waits for it."""

    def __init__(self, size: int, begin: bytes) -> None:
        self.size = size
        self.begin = begin
        self.rest = Arriving(size - len(begin))
        self.asked: list[str] = []  # of the application
        self._callbacks: list[Callable[[], object]] = []
        self._is_awaited = threading.Event()

    def start(self, server: Server) -> None:
        server.start(self._application, at_once=self._at_once)

    def get_ready(self) -> None:
        assert self._is_awaited.wait(20)
        for callback in [*self._callbacks]:
            callback()

    def arrive(self, data: bytes) -> None:
        """More of the file arrives, whoever reads it."""
        self.rest.arrive(data)

    def _at_once(self, environ: dict[str, Any]) -> Answer | None:
        if environ["PATH_INFO"] != "/file":
            return None

        def wait(callback: Callable[[], object]) -> None:
            self._callbacks.append(callback)
            self._is_awaited.set()

        raise Later(self, wait, lambda callback: None, prepare=self._prepare)

    def _prepare(self) -> Answer:
        headers = [("Content-Length", str(self.size)), ("X-Prepared", "yes")]
        return Answer(200, "OK", headers, self.begin, self.rest)

    def _application(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        self.asked.append(environ["PATH_INFO"])
        return answer(start_response, "200 OK", HELLO)


@pytest.mark.parametrize("engine", ["waitress"])
@pytest.mark.parametrize("begun", [1, 60_000])
def test_the_rest_of_a_prepared_answer_is_sent_while_it_arrives(server: Server, begun: int) -> None:
    content = bytes(number % 251 for number in range(3_000_000))
    file = Prepared(len(content), content[:begun])
    file.start(server)
    client = server.client()
    client.request("GET", "/file")
    file.get_ready()
    response = client.getresponse()
    assert response.read(begun) == content[:begun]
    assert (response.getheader("Content-Length"), response.status) == (str(len(content)), 200)
    file.arrive(content[begun:1_000_000])
    assert response.read(1_000_000 - begun) == content[begun:1_000_000]
    file.arrive(content[1_000_000:])
    assert response.read() == content[1_000_000:]
    assert file.rest.is_closed.wait(20)
    assert file.asked == []
    client.request("GET", "/other")  # the connection lives on
    assert client.getresponse().read() == HELLO
    client.close()


@pytest.mark.parametrize("engine", ["waitress"])
def test_a_prepared_answer_that_breaks_off_is_not_taken_for_whole(server: Server) -> None:
    file = Prepared(10**6, b"x" * 1000)
    file.start(server)
    client = server.client()
    client.request("GET", "/file")
    file.get_ready()
    response = client.getresponse()
    assert response.read(1000) == b"x" * 1000
    file.rest.break_off()
    with pytest.raises((http.client.HTTPException, ConnectionError)):
        response.read()
    assert file.rest.is_closed.wait(20)
    assert server.get() == HELLO


@pytest.mark.parametrize("engine", ["waitress"])
def test_the_rest_of_a_prepared_answer_is_released_when_its_client_goes(server: Server) -> None:
    file = Prepared(10**7, b"x" * 1000)
    file.start(server)
    with server.connect() as sock:
        sock.sendall(b"GET /file HTTP/1.1\r\nHost: x\r\n\r\n")
        file.get_ready()
        assert sock.recv(10)
    file.arrive(b"x" * (10**7 - 1000))
    assert file.rest.is_closed.wait(20)
    assert server.get() == HELLO


@pytest.mark.parametrize("why", ["the connection ends", "another request follows"])
def test_a_prepared_answer_that_is_not_sent_is_released(server: Server, why: str) -> None:
    """Then the application is called; granian always does so, if there is a rest."""
    file = Prepared(10**6, b"x" * 1000)
    file.start(server)
    ends = "Connection: close\r\n"
    with server.connect() as sock:
        request = "GET /file HTTP/1.1\r\nHost: x\r\n"
        if why == "the connection ends":
            sock.sendall(f"{request}{ends}\r\n".encode())
        else:
            sock.sendall(f"{request}\r\nGET / HTTP/1.1\r\nHost: x\r\n{ends}\r\n".encode())
        file.get_ready()
        data = b""
        while piece := sock.recv(65536):
            data += piece
    assert file.rest.is_closed.wait(20)
    assert file.asked == (["/file"] if why == "the connection ends" else ["/file", "/"])
    assert b"X-Prepared" not in data
    assert data.count(HELLO) == len(file.asked)
