"""The end of a server, its use of memory and disk, and its options."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from private_pypi.errors import ConfigurationError
from private_pypi.web.serving import (
    Stop,
    option_names,
    serve,
)
from tests.waiting import eventually
from tests.web.serving.servers import (
    FORM_END,
    FORM_START,
    HELLO,
    Server,
    digest,
    echo,
    form,
    head,
    read_all,
    read_answer,
    refuse,
    send_until_closed,
)

# -- the end -------------------------------------------------------------------------------------


def test_the_end_waits_for_uploads_and_answers_and_closes_what_is_idle(server: Server) -> None:
    entered, release = threading.Event(), threading.Event()

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        if environ["PATH_INFO"] == "/slow":
            entered.set()
            release.wait(20)
        return server.tell_form(environ, start_response)

    server.start(application, drain_seconds=60)
    idle, upload, slow = server.client(), server.connect(), server.connect()
    idle.request("GET", "/")
    assert idle.getresponse().read() == HELLO
    body = form(b"x" * 10**6)
    upload.sendall(head(len(body)) + body[:1000])
    slow.sendall(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
    assert entered.wait(20)
    eventually(lambda: server.files() != [])

    server.stop.request()
    assert idle.sock is not None
    assert idle.sock.recv(1) == b""
    with pytest.raises(ConnectionError):
        server.connect()
    assert server.is_running

    upload.sendall(body[1000:])
    data = read_all(upload)
    assert data.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"\r\nconnection: close\r\n" in data.lower()
    assert data.endswith(digest(b"x" * 10**6))
    release.set()
    assert read_all(slow).endswith(HELLO)
    server.end()


def test_what_was_sent_before_the_end_is_answered(server: Server) -> None:
    # the kernel has taken these connections; closing the listener would reset them
    server.start()
    for _ in range(20):
        clients = [server.connect() for _ in range(3)]
        for sock in clients:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        server.end()
        assert [read_all(sock)[-5:] for sock in clients] == [HELLO] * 3
        server.stop = Stop()
        server.start()


def test_a_server_that_was_told_to_stop_still_answers_for_a_while(server: Server) -> None:
    """A balancer that has not noticed yet loses nothing, and keeps no connection."""
    server.start(leave_seconds=3)
    with server.connect() as idle:
        server.stop.request()
        for sock in (idle, server.connect()):
            sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            told = read_all(sock)
            assert told.startswith(b"HTTP/1.1 200 OK\r\n")
            assert b"\r\nconnection: close\r\n" in told.lower()
            assert told.endswith(HELLO)
    server.end()
    with pytest.raises(ConnectionRefusedError):
        server.connect()


def test_the_end_does_not_wait_for_ever(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    server.start(drain_seconds=0.5)
    with server.connect() as sock:
        sock.sendall(head(10**6) + FORM_START + b"x")
        eventually(lambda: server.files() != [])
        with caplog.at_level(logging.WARNING):
            server.end()
        assert "1 connections were cut after 0.5 seconds" in caplog.text
        assert server.files() == []


def test_a_stop_before_the_start_ends_at_once(server: Server) -> None:
    server.stop.request()
    server.start(drain_seconds=60)
    server.end()


PROGRAM = """
    import resource
    import sys
    from pathlib import Path
    from private_pypi.errors import StorageFull
    from private_pypi.web.serving.receiving import FormLimits, receive_form
    from private_pypi.web.serving import ReceiveForm, serve

    folder, limits = Path(sys.argv[1]), FormLimits(max_file_bytes=10**9)

    def peak():
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(line.split()[1] for line in lines if line.startswith("VmHWM"))

    def application(environ, start_response):
        status, size = "200 OK", 0
        if environ["REQUEST_METHOD"] == "POST":
            try:
                form = receive_form(environ, folder, limits)
                size = form.file.size
                form.close()
            except StorageFull as error:
                status = f"507 {error}"
        body = f"{size} {peak()}".encode()
        start_response(status, [("Content-Length", str(len(body)))])
        return [body]

    # Beyond this size a write fails, as it does on a full disk.
    largest_file = int(sys.argv[2])
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))

    serve(
        application,
        lambda head: ReceiveForm(folder, limits),
        host="127.0.0.1",
        port=0,
        on_listening=lambda addresses: print(addresses[0], flush=True),
    )
    print("ended")
"""


@pytest.fixture
def largest_file() -> int:
    return 10**9


@pytest.fixture
def process(server: Server, largest_file: int) -> Iterator[subprocess.Popen[str]]:
    arguments = [textwrap.dedent(PROGRAM), str(server.folder), str(largest_file)]
    with subprocess.Popen(
        [sys.executable, "-c", *arguments], stdout=subprocess.PIPE, text=True
    ) as started:
        assert started.stdout is not None
        server.port = int(started.stdout.readline().rpartition(":")[2])
        yield started
        started.kill()


def listens(server: Server) -> bool:
    try:
        server.connect().close()
    except ConnectionError:
        return False
    return True


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_lets_an_upload_finish(
    server: Server, process: subprocess.Popen[str], number: signal.Signals
) -> None:
    body = form(b"x" * 10**6)
    with server.connect() as sock:
        sock.sendall(head(len(body)) + body[:1000])
        eventually(lambda: server.files() != [])
        process.send_signal(number)
        eventually(lambda: not listens(server), "the first signal has arrived")
        assert process.poll() is None
        sock.sendall(body[1000:])
        status, answered = read_answer(sock)
    assert (status, answered.split()[0]) == ("200 OK", b"1000000")
    assert process.communicate(timeout=20)[0] == "ended\n"
    assert process.returncode == 0


def test_a_second_signal_ends_at_once(server: Server, process: subprocess.Popen[str]) -> None:
    with server.connect() as sock:
        sock.sendall(head(10**6) + FORM_START)
        eventually(lambda: server.files() != [])
        process.send_signal(signal.SIGTERM)
        eventually(lambda: not listens(server), "the first signal has arrived")
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == -signal.SIGTERM


def test_memory_does_not_grow_with_an_upload(
    server: Server, process: subprocess.Popen[str]
) -> None:
    before = int(server.get().split()[1])  # KiB
    size, piece = 300 * 2**20, os.urandom(2**20)
    with server.connect() as sock:
        sock.sendall(head(len(FORM_START) + size + len(FORM_END)) + FORM_START)
        for _ in range(size // len(piece)):
            sock.sendall(piece)
        sock.sendall(FORM_END)
        received, after = map(int, read_answer(sock)[1].split())
    assert received == size
    assert after - before < 15 * 1024


@pytest.mark.parametrize("largest_file", [10**6])
def test_a_disk_that_fills_up_in_mid_body_is_an_answer(
    server: Server, process: subprocess.Popen[str]
) -> None:
    size = 64 * 2**20
    with server.connect() as sock:
        sock.sendall(head(len(FORM_START) + size) + FORM_START)
        assert send_until_closed(sock, size) == size
        assert read_answer(sock)[0].startswith("507 no space left for the upload")
    assert server.files() == []
    small = form(b"x" * 1000)
    with server.connect() as sock:
        sock.sendall(head(len(small)) + small)
        assert read_answer(sock)[1].split()[0] == b"1000"


# -- options -------------------------------------------------------------------------------------


def refused_options(options: Mapping[str, Any], host: str = "127.0.0.1", port: int = 0) -> str:
    with pytest.raises(ConfigurationError) as caught:
        serve(
            echo,
            refuse,
            host=host,
            port=port,
            options=options,
            on_listening=lambda addresses: pytest.fail("it must not listen"),
        )
    return str(caught.value)


def test_the_options_are_those_of_waitress() -> None:
    assert {"threads", "channel_timeout", "trusted_proxy", "url_prefix"} <= option_names()
    assert "sockets" not in option_names()  # no text makes one


def test_wrong_options_are_named_all_at_once() -> None:
    assert refused_options({"threads": "many", "backlog": "x", "color": "red"}).splitlines() == [
        "--threads many: not a whole number",
        "--backlog x: not a whole number",
        "--color: the server has no such option",
    ]
    assert refused_options({"threads": 0}) == "--threads 0: at least 1 is needed"
    assert (
        refused_options({"unix_socket_perms": "9"}) == "--unix_socket_perms 9: not an octal number"
    )


def test_options_that_do_not_go_together_are_named() -> None:
    problem = refused_options({"trusted_proxy_count": 2})
    assert "trusted_proxy_count" in problem
    assert "--trusted_proxy_count 2" in problem


def test_an_address_that_cannot_be_had_is_named(server: Server) -> None:
    server.start()
    assert refused_options({}, port=server.port) == (
        f"port {server.port} on 127.0.0.1 is in use; choose another with --port"
    )
    assert refused_options({}, host="192.0.2.1") == (
        "192.0.2.1 is not an address of this machine; choose another with --host"
    )
    assert refused_options({}, port=65536) == "--port 65536: a port is a number from 0 to 65535"
    assert "cannot listen on host '!'" in refused_options({}, host="!")


def test_an_option_replaces_host_and_port(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    addresses: list[str] = []
    thread = threading.Thread(
        target=serve,
        args=(server.tell_form, server.let_in),
        kwargs={
            "host": "127.0.0.1",
            "port": 0,
            "options": {"unix_socket": str(path)},
            "on_listening": addresses.extend,
            "stop": server.stop,
        },
    )
    thread.start()
    eventually(lambda: bool(addresses))
    assert addresses == [f"unix:{path}"]
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(path))
        body = form(b"x")
        sock.sendall(head(len(body)) + body)
        assert read_answer(sock) == ("200 OK", digest(b"x"))
    server.stop.request()
    thread.join(20)
    assert not thread.is_alive()
