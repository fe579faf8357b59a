"""A server keeps answering, whatever its clients and one of its storages do."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
import zipfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

import pytest
import requests

from private_pypi.testing.distributions import make_wheel
from tests.faults.servers import (
    READER,
    Server,
    Servers,
    basic,
    get_request,
    install_backend,
    read_answer,
    table,
    temporary_files,
    upload_request,
)
from tests.waiting import eventually

pytestmark = pytest.mark.needs("a server in a process of its own")

MANY = 50
MIB = 2**20
LARGE = 256 * MIB
PATIENCE = 1.0  # seconds for most pages, each of which takes a few milliseconds

# A storage that hangs in the methods that the file HANGING names, for as long as it does.
HANGING = '''
import dataclasses
import os
import time
from pathlib import Path
from statistics import median

from private_pypi_file_system.backend import FileSystemBackend, FileSystemStorage


class HangingStorage(FileSystemStorage):
    """The file system behind a network that may be cut."""

    def _hang(self, method):
        while method in Path(os.environ["HANGING"]).read_text().split():
            time.sleep(0.05)

    def access(self, project=None):
        self._hang("access")
        return super().access(project)

    def list_files(self):
        self._hang("list_files")
        return super().list_files()

    def read_index(self, into, unless=None):
        self._hang("read_index")
        return super().read_index(into, unless)

    def open_file(self, file):
        self._hang("open_file")
        return super().open_file(file)

    def put_file(self, upload):
        self._hang("put_file")
        return super().put_file(upload)


class HangingBackend(FileSystemBackend):
    View = HangingStorage
    traits = dataclasses.replace(
        FileSystemBackend.traits, lists_cheaply=True, opens_here=False, answers_at_once=False
    )
'''


class Hanging:
    """Which methods of the hanging storage hang."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "hanging"
        self.environ = install_backend(folder / "site", "hanging", "HangingBackend", HANGING)
        self.environ["HANGING"] = str(self._file)
        self.now()

    def now(self, *methods: str) -> None:
        self._file.write_text(" ".join(methods))


@pytest.fixture
def hanging(tmp_path: Path) -> Iterator[Hanging]:
    hanging = Hanging(tmp_path)
    yield hanging
    hanging.now()


def two_repositories(servers: Servers, root: Path, hanging: Hanging) -> Server:
    config = table() + table("slow", type="hanging")
    server = servers.start(root, config, environ=hanging.environ)
    for name in ("mine", "slow"):
        eventually(lambda name=name: is_ready(server, name), f"{name} is ready")
        server.publish(*make_wheel(), auth=(name, "w"))
        server.publish(*make_wheel("other", files={"data": bytes(MIB)}), auth=(name, "w"))
        assert list(server.listed(repository=name)) == [make_wheel()[0]]
    return server


def is_ready(server: Server, repository: str) -> bool:
    return server.status(f"/r/{repository}/simple/", auth=(repository, "r")) == 200


def assert_pages_come(server: Server, *repositories: str, seconds: float = 2.0) -> None:
    """Ask for pages one after the other, each on a new connection, as installers begin."""
    took: list[float] = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for repository in repositories:
            for page in ("", "demo/", "other/", "unknown/"):
                path = f"/r/{repository}/simple/{page}"
                begun = time.monotonic()
                answer = server.get(path, (repository, "r"))
                took.append(time.monotonic() - begun)
                expected = (404, 503) if page == "unknown/" else (200,)
                assert answer.status_code in expected, answer.text
    # One that waits for what hangs is never answered; a busy machine delays a few of the others.
    assert median(took) < PATIENCE, sorted(took)


@contextlib.contextmanager
def connections(
    server: Server, count: int, *, buffer: int | None = None
) -> Iterator[list[socket.socket]]:
    with contextlib.ExitStack() as stack:
        opened = []
        for _ in range(count):
            connection = socket.socket()
            stack.callback(connection.close)
            if buffer is not None:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
            connection.settimeout(20)
            connection.connect(("127.0.0.1", server.port))
            opened.append(connection)
        yield opened


def drop_large_file(storage: Path) -> str:
    filename = "large-1.0-py3-none-any.whl"
    (storage / "large").mkdir(parents=True)
    zeros = bytes(MIB)
    with zipfile.ZipFile(storage / "large" / filename, "w", zipfile.ZIP_STORED) as wheel:
        with wheel.open("large.bin", "w") as member:
            for _ in range(LARGE // MIB):
                member.write(zeros)
        wheel.writestr(
            "large-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: large\nVersion: 1.0\n"
        )
        wheel.writestr("large-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\n")
        wheel.writestr("large-1.0.dist-info/RECORD", "")
    return filename


def memory(server: Server) -> int:
    """Bytes of memory that are the server's own."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(status.partition("RssAnon:")[2].split()[0]) * 1024


def test_stalled_and_half_sent_requests_stop_no_page(servers: Servers, root: Path) -> None:
    large = drop_large_file(root / "cache" / "mine" / "storage")
    server = servers.start(root)
    for name in ("demo", "other"):
        server.publish(*make_wheel(name))
    before = memory(server)
    filename, content = make_wheel(version="2.0", files={"data": bytes(MIB)})
    head, body = upload_request(filename, content)
    with (
        connections(server, MANY, buffer=4096) as downloads,
        connections(server, MANY) as requests_,
        connections(server, MANY) as bodies,
        connections(server, MANY) as uploads,
    ):
        for download in downloads:
            download.sendall(get_request(f"/r/mine/simple/large/{large}"))
        for request in requests_:
            request.sendall(get_request("/r/mine/simple/demo/")[:-2])
        for half in bodies:
            half.sendall(
                b"POST /r/mine/simple/demo/x/yank HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nx"
            )
        for upload in uploads:
            upload.sendall(head + body[: len(body) // 2])
        eventually(lambda: len(temporary_files(root)) == MANY, "uploads have begun")
        assert_pages_come(server, "mine")
        assert server.content(make_wheel()[0]) == make_wheel()[1]
        server.publish(*make_wheel(version="3.0"))
        # 256 MB for everybody would be 12 GB.
        assert memory(server) - before < 64 * MIB

        # Nobody was forgotten: each can still go on.
        for request in requests_:
            request.sendall(b"\r\n")
            assert read_answer(request)[0] == 200
        for upload in uploads:
            upload.sendall(body[len(body) // 2 :])
        assert Counter(read_answer(upload)[0] for upload in uploads) == {200: MANY}
        received = 0
        while received < LARGE:
            received += len(downloads[0].recv(MIB))
    eventually(lambda: not temporary_files(root), "no part of an upload is left")
    assert server.content(filename) == content


def test_a_storage_that_hangs_with_files_stops_no_page(
    servers: Servers, root: Path, hanging: Hanging
) -> None:
    server = two_repositories(servers, root, hanging)
    hanging.now("open_file", "list_files", "read_index")
    filename = make_wheel("other")[0]
    with connections(server, MANY) as downloads:
        for download in downloads:
            download.sendall(get_request(f"/r/slow/simple/other/{filename}", ("slow", "r")))
        assert_pages_come(server, "mine", "slow")
        server.publish(*make_wheel(version="2.0"))
        hanging.now()
        assert Counter(read_status(download) for download in downloads) == {200: MANY}


def read_status(connection: socket.socket) -> int:
    return int(connection.recv(12).split()[1])


def test_a_storage_that_hangs_with_uploads_stops_no_page(
    servers: Servers, root: Path, hanging: Hanging
) -> None:
    server = two_repositories(servers, root, hanging)
    hanging.now("put_file", "read_index")
    filename, content = make_wheel(version="2.0")
    head, body = upload_request(filename, content, auth=("slow", "w"))
    with connections(server, MANY) as uploads:
        for upload in uploads:
            upload.sendall(head + body)
        assert_pages_come(server, "mine", "slow")
        assert server.content(make_wheel()[0]) == make_wheel()[1]
        hanging.now()
        assert Counter(read_answer(upload)[0] for upload in uploads) == {200: MANY}


def test_a_storage_that_hangs_with_verdicts_stops_no_page(
    servers: Servers, root: Path, hanging: Hanging
) -> None:
    server = two_repositories(servers, root, hanging)
    hanging.now("access", "read_index", "list_files")
    stop = threading.Event()
    statuses: Counter[int] = Counter()

    def ask(number: int) -> None:
        count = 0
        while not stop.is_set():
            count += 1
            auth = ("slow", f"guess-{number}-{count}")
            statuses[server.status("/r/slow/simple/demo/", auth=auth)] += 1
            time.sleep(0.1)  # it is the server that shall be busy

    with ThreadPoolExecutor(MANY) as pool:
        asking = [pool.submit(ask, number) for number in range(MANY)]
        try:
            # Who was granted before, is granted still.
            assert_pages_come(server, "mine", "slow", seconds=3)
        finally:
            hanging.now()
            stop.set()
        for one in asking:
            one.result(timeout=30)
    # Nobody knows whether these secrets are wrong as long as the storage says nothing.
    assert set(statuses) == {401, 503}


def test_a_storage_that_hangs_from_the_start_stops_no_other(
    servers: Servers, root: Path, hanging: Hanging
) -> None:
    hanging.now("access", "read_index", "list_files", "open_file")
    config = table() + table("slow", type="hanging")
    server = servers.start(root, config, environ=hanging.environ)
    server.publish(*make_wheel())
    server.publish(*make_wheel("other"))
    assert_pages_come(server, "mine")
    with pytest.raises(requests.Timeout):
        server.get("/r/slow/simple/demo/", ("slow", "r"), timeout=0.3)
    hanging.now()
    eventually(lambda: is_ready(server, "slow"), "the storage is followed")
    assert server.stop() == 0


WRONG = 2000


def test_wrong_secrets_by_the_thousand_cost_little(servers: Servers, root: Path) -> None:
    server = servers.start(root)
    server.publish(*make_wheel())
    server.publish(*make_wheel("other"))
    before = memory(server)
    challenges: Counter[tuple[int, str | None]] = Counter()
    guards = threading.Lock()

    def guess(number: int) -> None:
        with requests.Session() as session:
            for count in range(WRONG // 4):
                # Half of them are of one who has a wrong secret, half of one who guesses.
                secret = "wrong" if count % 2 else f"guess-{number}-{count}"
                answer = session.get(
                    f"{server.url}/r/mine/simple/demo/",
                    headers={"Authorization": basic("mine", secret)},
                    timeout=20,
                )
                with guards:
                    challenges[answer.status_code, answer.headers.get("WWW-Authenticate")] += 1

    with ThreadPoolExecutor(4) as pool:
        guessing = [pool.submit(guess, number) for number in range(4)]
        assert_pages_come(server, "mine", seconds=1)
        for one in guessing:
            one.result(timeout=60)
    (((status, challenge), count),) = challenges.items()
    assert (status, count) == (401, WRONG)
    assert challenge is not None
    assert challenge.startswith("Basic ")
    assert memory(server) - before < 16 * MIB
    assert server.get("/r/mine/simple/demo/", READER).status_code == 200
