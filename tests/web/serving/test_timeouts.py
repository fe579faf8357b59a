"""Slow clients: their time limits, and which connections are closed when all are taken."""

from __future__ import annotations

import contextlib
import http.client
import math
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from private_pypi.web.serving import (
    LET_IN,
    Kind,
    PassOn,
    ReceiveForm,
    RequestHead,
    Verdict,
    timeouts,
)
from private_pypi.web.serving.timeouts import (
    LOWEST_RATE,
    Progress,
    Stage,
    TimeLimits,
    connections_over_memory,
    order_for_closing,
)
from tests.waiting import eventually
from tests.web.serving.servers import (
    FORM_START,
    HELLO,
    LIMITS,
    LoadObserver,
    Server,
    answer,
    digest,
    form,
    head,
    read_all,
    read_answer,
    refuse,
)

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
STRANGER = b"POST /small HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"


# -- what is waited for --------------------------------------------------------------------------


def ends_at(limits: TimeLimits, moved: Callable[[int], int], stage: Stage = Stage.BODY) -> float:
    """The second at which a client is over the limits that has moved `moved(second)` bytes."""
    progress = Progress(0)
    for second in range(1000):
        progress.observe(stage, 1, moved(second), second)
        if progress.is_over(limits, second):
            return second
    return math.inf


def test_whoever_moves_bytes_at_the_lowest_rate_is_waited_for() -> None:
    limits = TimeLimits(window=60)
    assert ends_at(limits, lambda second: second * LOWEST_RATE) == math.inf
    # Much at once, then nothing for 50 s, over and over: an unsteady line.
    assert ends_at(limits, lambda second: second // 50 * 100 * LOWEST_RATE) == math.inf


def test_whoever_is_slower_is_not() -> None:
    limits = TimeLimits(window=60)
    assert ends_at(limits, lambda second: second * (LOWEST_RATE - 1)) == 60
    assert ends_at(limits, lambda second: 0) == 60
    assert ends_at(limits, lambda second: min(second, 200) * 10**6) == 261  # silence
    assert ends_at(limits, lambda second: min(second * 10**6, 10**7) + second) == 120


def test_a_stage_may_have_a_longest_time() -> None:
    assert ends_at(TimeLimits(longest=30), lambda second: second * 10**9) == 31


def test_a_connection_is_idle_if_nothing_of_a_request_comes() -> None:
    progress = Progress(0)
    assert progress.is_idle(1.5, 1)
    progress.observe(Stage.IDLE, 0, 1, 2)  # the first byte of a request
    assert not progress.is_idle(2.5, 1)
    progress.observe(Stage.SERVER, 1, 50, 3)
    assert not progress.is_idle(9, 1)
    progress.observe(Stage.IDLE, 1, 50, 9)
    assert [progress.is_idle(now, 1) for now in (9.5, 10.5)] == [False, True]


def test_each_stage_of_each_request_begins_anew() -> None:
    progress = Progress(0)
    limits = TimeLimits(longest=10, window=10)
    for second in range(100):
        stage = Stage.IDLE if second % 8 < 4 else Stage.HEAD
        progress.observe(stage, second // 8, 0, second)
        assert not progress.is_over(limits, second)
    assert (progress.stage, progress.since) == (Stage.IDLE, 96)


def test_strangers_have_less_time_than_those_who_were_let_in() -> None:
    def of(stage: Stage, let_in: bool) -> TimeLimits:
        return timeouts.time_limits(stage, let_in=let_in, timeout=120)

    assert of(Stage.BODY, True) == TimeLimits(window=120)
    assert of(Stage.BODY, False) == TimeLimits(window=30)
    assert of(Stage.DISCARDING, True) == TimeLimits(window=120)
    assert of(Stage.DISCARDING, False) == TimeLimits(longest=300, window=30)
    assert of(Stage.SERVER, False) == TimeLimits()


# -- who goes ------------------------------------------------------------------------------------


@dataclass
class Connection:
    """What `timeouts` has to know of a connection."""

    stage: Stage = Stage.BODY
    since: float = 0
    is_let_in: bool = False
    address: str = "a"
    held: int = 0
    progress: Progress = field(init=False)

    def __post_init__(self) -> None:
        self.progress = Progress(0)
        self.progress.observe(self.stage, 1, 0, self.since)


def test_idle_connections_go_first_and_those_that_wait_for_us_last() -> None:
    idle, older = Connection(Stage.IDLE, 50), Connection(Stage.IDLE, 20)
    new = Connection(Stage.IDLE, 99)
    body, sending = Connection(Stage.BODY, 10), Connection(Stage.SENDING, 5)
    asking = Connection(Stage.SERVER, 1)
    publisher = Connection(Stage.BODY, 0, is_let_in=True)
    everybody = [publisher, asking, body, idle, new, older, sending]
    assert order_for_closing(everybody, 100, now=100) == [older, idle, sending, body, new, asking]


def test_an_address_with_many_connections_makes_room_for_all_others() -> None:
    many = [Connection(since=50 + number, address="many") for number in range(11)]
    idle = Connection(Stage.IDLE, 0, address="other")
    assert order_for_closing([idle, *many], 100, now=100) == many
    assert order_for_closing([idle, *many], 1000, now=100) == [idle, *many]


def test_strangers_hold_no_more_memory_than_they_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeouts, "MOST_HELD", 100)
    publisher = Connection(held=1000, is_let_in=True)
    guests = [Connection(since=number, held=40) for number in range(4)]
    assert connections_over_memory([publisher, *guests], now=100) == guests[:2]
    assert connections_over_memory([publisher, *guests[2:]], now=100) == []


# -- with real sockets ---------------------------------------------------------------------------


def gate(server: Server) -> Callable[[RequestHead], Verdict]:
    """Refuses small bodies, and lets in all other clients."""

    def decide(head: RequestHead) -> Verdict:
        server.heads.append(head)
        if head.path == "/small":
            return PassOn(max_body_bytes=10**6)
        return ReceiveForm(server.folder, LIMITS)

    return decide


@contextlib.contextmanager
def dripping(sock: socket.socket) -> Iterator[None]:
    """Sends a byte ten times a second inside the `with` block."""
    stop = threading.Event()

    def drip() -> None:
        with contextlib.suppress(OSError):
            while not stop.wait(0.1):
                sock.sendall(b"x")

    thread = threading.Thread(target=drip)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@pytest.mark.needs("time")
def test_a_body_that_drips_in_is_not_waited_for(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timeouts, "STRANGER_SECONDS", 1)
    server.start(gate=gate(server))
    with server.connect() as sock:
        sock.sendall(STRANGER)
        with dripping(sock):
            status, sentence = read_answer(sock)
    assert status == "408 Request Timeout"
    assert b"2048 bytes per second or more" in sentence


@pytest.mark.needs("time")
def test_a_form_that_drips_in_leaves_nothing(server: Server) -> None:
    server.start(gate=gate(server), channel_timeout=1)
    with server.connect() as sock:
        sock.sendall(head(10**6) + FORM_START)
        with dripping(sock):
            assert read_answer(sock)[0] == "408 Request Timeout"
    eventually(lambda: server.files() == [])


@pytest.mark.needs("time")
def test_a_refused_body_that_drips_in_is_answered_earlier(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timeouts, "STRANGER_SECONDS", 1)
    server.start(gate=refuse)
    with server.connect() as sock:
        sock.sendall(head(10**6, "Via: 1.1 proxy"))
        with dripping(sock):
            assert read_answer(sock) == ("401 Who are you", b"sentence")


@pytest.mark.needs("time")
def test_empty_lines_now_and_then_are_no_request(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timeouts, "HEAD_SECONDS", 0.5)
    observer = LoadObserver()
    server.start(observer=observer)
    with server.connect() as sock:
        sock.sendall(b"\r\n\r\n")
        assert read_all(sock) == b""
        eventually(lambda: observer.connections == 0)


@pytest.mark.needs("time")
def test_a_slow_upload_over_many_windows_is_received(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timeouts, "LOWEST_RATE", 100)
    server.start(gate=gate(server), channel_timeout=2)
    body = form(b"y" * 8000)
    with server.connect() as sock:
        sock.sendall(head(len(body)))
        for at in range(0, len(body), 200):  # each piece is enough for a window
            sock.sendall(body[at : at + 200])
            time.sleep(0.15)
        assert read_answer(sock) == ("200 OK", digest(b"y" * 8000))


def test_a_client_that_hardly_reads_its_answer_is_cut(server: Server) -> None:
    observer = LoadObserver()
    page = b"x" * (16 * 2**20)
    server.start(
        lambda environ, start_response: answer(start_response, "200 OK", page),
        observer=observer,
        channel_timeout=1,
    )
    with server.connect() as sock:
        sock.sendall(GET)
        assert sock.recv(1)  # before that, the connection may not be counted yet
        with contextlib.suppress(ConnectionResetError):
            for _ in range(600):
                if not observer.connections:
                    break
                sock.recv(1)
                time.sleep(0.1)
        eventually(lambda: observer.connections == 0)


@pytest.mark.needs("time")
def test_what_a_client_takes_of_a_full_socket_counts(server: Server) -> None:
    # The socket has megabytes in it, and takes nothing more while the client reads those.
    observer = LoadObserver()
    page = b"x" * (64 * 2**20)
    server.start(
        lambda environ, start_response: answer(start_response, "200 OK", page),
        observer=observer,
        channel_timeout=2,
    )
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 256 * 1024)
        sock.settimeout(20)
        sock.connect(("127.0.0.1", server.port))
        sock.sendall(GET)
        taken = 0
        while taken < 8 * 2**20:
            taken += len(sock.recv(2**20))
        began, taken = time.monotonic(), 0
        while (elapsed := time.monotonic() - began) < 5:
            while taken < elapsed * 400_000:
                taken += len(sock.recv(16 * 1024))
            time.sleep(0.05)
        assert observer.connections == 1


def test_a_full_server_has_room_for_somebody_else(server: Server) -> None:
    observer = LoadObserver()
    server.start(gate=gate(server), observer=observer, connection_limit=10)
    body = form(b"y")
    with contextlib.ExitStack() as closing:
        publisher = closing.enter_context(server.connect())
        publisher.sendall(head(len(body)) + body[:-1])
        eventually(lambda: len(server.files()) == 1)
        for _ in range(20):
            closing.enter_context(server.connect()).sendall(STRANGER)
        assert server.get() == HELLO
        assert observer.connections <= 10
        publisher.sendall(body[-1:])
        assert read_answer(publisher) == ("200 OK", digest(b"y"))


def test_connections_that_are_idle_make_room_first(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timeouts, "FRESH_SECONDS", 0)
    observer = LoadObserver()
    server.start(gate=gate(server), observer=observer, connection_limit=2)
    with server.connect() as idle, server.connect() as sending:
        sending.sendall(STRANGER)
        eventually(lambda: len(server.heads) == 1)
        idle.sendall(GET)
        assert read_answer(idle) == ("200 OK", HELLO)
        eventually(lambda: observer.load().requests == 0, "nothing is left to do for it")
        assert server.get() == HELLO
        assert idle.recv(1) == b""
        sending.sendall(b"x" * 1000)
        assert read_answer(sending)[0].startswith("400")


def test_a_download_of_somebody_who_was_let_in_goes_on_when_the_server_is_full(
    server: Server,
) -> None:
    page = b"x" * (16 * 2**20)

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        if environ["PATH_INFO"] != "/page":
            return answer(start_response, "200 OK", HELLO)
        environ[LET_IN] = environ["QUERY_STRING"] == "secret"
        return answer(start_response, "200 OK", page)

    server.start(application, gate(server), connection_limit=2)
    with server.connect() as reader, server.connect() as stranger:
        reader.sendall(b"GET /page?secret HTTP/1.1\r\nHost: x\r\n\r\n")
        stranger.sendall(b"GET /page HTTP/1.1\r\nHost: x\r\n\r\n")
        for sock in (reader, stranger):  # both of them are answered, and it is known who they are
            assert sock.recv(1, socket.MSG_PEEK)
        for _ in range(3):
            assert server.get() == HELLO
        assert read_answer(reader) == ("200 OK", page)
        with pytest.raises((ConnectionError, http.client.IncompleteRead)):
            read_answer(stranger)


def test_bodies_of_strangers_take_only_so_much_memory(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timeouts, "MOST_HELD", 100_000)
    observer = LoadObserver()
    server.start(gate=gate(server), observer=observer)
    with contextlib.ExitStack() as closing:
        for _ in range(5):
            sock = closing.enter_context(server.connect())
            sock.sendall(STRANGER.replace(b"1000", b"100000") + b"x" * 60_000)
        eventually(lambda: observer.connections == 1)
        assert server.get() == HELLO


# -- who waits for whom --------------------------------------------------------------------------


def test_the_gate_does_not_wait_for_uploads_that_it_let_in(server: Server) -> None:
    release = threading.Event()

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        release.wait(20)
        return answer(start_response, "200 OK", HELLO)

    server.start(application, threads=1)
    body = form(b"x")
    with contextlib.ExitStack() as closing:
        uploads = [closing.enter_context(server.connect()) for _ in range(3)]
        for sock in uploads:
            sock.sendall(head(len(body)) + body)
        eventually(lambda: len(server.heads) == 3)
        with server.connect() as other:
            other.sendall(head(len(body), "Expect: 100-continue"))
            assert other.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        release.set()
        for sock in uploads:
            assert read_answer(sock) == ("200 OK", HELLO)


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_repository_that_hangs_does_not_hold_the_threads_of_others(
    server: Server, method: str
) -> None:
    release = threading.Event()

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        if environ["PATH_INFO"] == "/hangs":
            release.wait(20)
        return answer(start_response, "200 OK", HELLO)

    def decide(head: RequestHead) -> Verdict:
        if head.path == "/hangs":
            release.wait(20)
        return PassOn(max_body_bytes=100)

    server.start(
        application,
        decide,
        threads=1,
        kind_of=lambda path: Kind.FILES,
        share_of=lambda path, authorization: path,
    )
    body = "" if method == "GET" else "Content-Length: 1\r\n"

    def ask(path: str) -> bytes:
        text = f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{body}\r\n"
        return text.encode() + (b"x" if body else b"")

    with contextlib.ExitStack() as closing:
        hanging = [closing.enter_context(server.connect()) for _ in range(4)]
        for sock in hanging:
            sock.sendall(ask("/hangs"))
        with server.connect() as other:
            other.sendall(ask("/other"))
            assert read_all(other).endswith(HELLO)
        release.set()
        for sock in hanging:
            assert read_answer(sock) == ("200 OK", HELLO)
