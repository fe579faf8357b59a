"""Asking a server many times, and sending it files; knows no particular server."""

from __future__ import annotations

import hashlib
import http.client
import json
import random
import shutil
import socket
import statistics
import subprocess
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urljoin, urlsplit

from benchmarks.corpus import Form

HOST = "127.0.0.1"
_PATIENCE = 60.0  # seconds for one answer


@dataclass(frozen=True, slots=True)
class Request:
    """A GET."""

    path: str
    headers: Mapping[str, str] = field(default_factory=dict)

    def encode(self) -> bytes:
        """As it goes over the wire (HTTP/1.1, keep-alive)."""
        lines = [f"GET {self.path} HTTP/1.1", f"Host: {HOST}"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        return "\r\n".join([*lines, "", ""]).encode("latin-1")


@dataclass(frozen=True, slots=True)
class Answer:
    """One response, read to its end."""

    status: int
    headers: Mapping[str, str]  # lower-case names
    body: bytes
    seconds: float


@dataclass(frozen=True, slots=True)
class Load:
    """What many requests over some connections came to."""

    requests: int
    failures: int  # answers of 400 and above, broken connections, time-outs
    per_second: float
    median: float  # seconds
    worst: float  # seconds; the 99th percentile


def ask(
    port: int,
    path: str,
    headers: Mapping[str, str],
    *,
    method: str = "GET",
    body: bytes | None = None,
    timeout: float = _PATIENCE,
) -> Answer:
    """One request over a connection of its own."""
    begin = time.perf_counter()
    connection = http.client.HTTPConnection(HOST, port, timeout=timeout)
    try:
        connection.request(method, path, body=body, headers=dict(headers))
        response = connection.getresponse()
        content = response.read()
        names = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, names, content, time.perf_counter() - begin)
    finally:
        connection.close()


class Generator(ABC):
    """Something that asks as fast as a server answers."""

    name: str

    @abstractmethod
    def run(
        self, port: int, requests: Sequence[Request], *, connections: int, seconds: float
    ) -> Load:
        """Ask for randomly chosen requests, over and over, for `seconds`."""


def find_generator(folder: Path, seconds: float) -> Generator:
    """wrk where it is installed; else threads of our own, which reach a third of its rate.

    wrk takes a second at least, so it is not used in runs of fewer `seconds`, which only show that
    everything works.
    """
    wrk = shutil.which("wrk")
    return Wrk(wrk, folder) if wrk and seconds >= 1 else Threads()


# The requests come ready-made, separated by a character that no request contains.
_WRK_SCRIPT = """
local requests = {}
function init(arguments)
  local file = io.open(arguments[1], "rb")
  for one in file:read("*a"):gmatch("[^\\30]+") do requests[#requests + 1] = one end
  file:close()
  math.randomseed(20)
end
function request() return requests[math.random(#requests)] end
function done(summary, latency, _)
  local bad = summary.errors
  io.write(string.format(
    'RESULT {"requests": %d, "microseconds": %d, "failures": %d, "median": %d, "worst": %d}\\n',
    summary.requests, summary.duration,
    bad.status + bad.connect + bad.read + bad.write + bad.timeout,
    latency:percentile(50), latency:percentile(99)))
end
"""


class Wrk(Generator):
    """The tool wrk, with one thread: it takes little of the processors from the server."""

    def __init__(self, command: str, folder: Path) -> None:
        version = subprocess.run([command, "--version"], capture_output=True, text=True)
        self.name = " ".join(version.stdout.split()[:2])
        self._command = command
        self._requests = folder / "requests"
        self._script = folder / "wrk.lua"
        self._script.write_text(_WRK_SCRIPT)

    def run(
        self, port: int, requests: Sequence[Request], *, connections: int, seconds: float
    ) -> Load:
        self._requests.write_bytes(b"\x1e".join(request.encode() for request in requests))
        whole = round(seconds)  # wrk knows only whole seconds
        command = [self._command, "-t1", f"-c{connections}", f"-d{whole}s", "--timeout", "30s"]
        command += ["-s", str(self._script), f"http://{HOST}:{port}", "--", str(self._requests)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=whole + 60)
        line = next((x for x in done.stdout.splitlines() if x.startswith("RESULT ")), None)
        if line is None:
            raise RuntimeError(f"wrk said: {done.stdout[-500:]}{done.stderr[-500:]}")
        result = json.loads(line.removeprefix("RESULT "))
        return Load(
            requests=result["requests"],
            failures=result["failures"],
            per_second=result["requests"] / (result["microseconds"] / 1e6),
            median=result["median"] / 1e6,
            worst=result["worst"] / 1e6,
        )


class Threads(Generator):
    """Threads with `http.client`, for machines without wrk and for less than a second."""

    name = "threads of Python"

    def run(
        self, port: int, requests: Sequence[Request], *, connections: int, seconds: float
    ) -> Load:
        latencies: list[float] = []
        failures: list[str] = []
        begin = time.perf_counter()

        def work(seed: int) -> None:
            choose = random.Random(seed)
            connection = http.client.HTTPConnection(HOST, port, timeout=30)
            while True:
                chosen = choose.choice(requests)
                before = time.perf_counter()
                try:
                    connection.request("GET", chosen.path, headers=dict(chosen.headers))
                    response = connection.getresponse()
                    response.read()
                    if response.status >= 400:
                        failures.append(str(response.status))
                except (OSError, http.client.HTTPException) as error:
                    failures.append(str(error))
                    connection.close()
                latencies.append(time.perf_counter() - before)
                if time.perf_counter() >= begin + seconds:
                    break
            connection.close()

        together([threading.Thread(target=work, args=(n,)) for n in range(connections)])
        return _load(latencies, len(failures), time.perf_counter() - begin)


def download(port: int, request: Request, size: int, *, connections: int) -> float:
    """Bytes per second of fetching a file of `size` bytes over each connection at once."""
    received = [0] * connections

    def work(number: int) -> None:
        buffer = bytearray(2**20)
        with socket.create_connection((HOST, port), timeout=_PATIENCE) as connection:
            connection.sendall(request.encode())
            head = bytearray()
            while b"\r\n\r\n" not in head:
                chunk = connection.recv(65536)
                if not chunk:
                    return
                head += chunk
            received[number] = len(head) - head.index(b"\r\n\r\n") - 4
            while received[number] < size:
                count = connection.recv_into(buffer)
                if not count:
                    return
                received[number] += count

    begin = time.perf_counter()
    together([threading.Thread(target=work, args=(n,)) for n in range(connections)])
    elapsed = time.perf_counter() - begin
    if min(received) < size:
        raise RuntimeError(f"of {size} bytes came {received}")
    return sum(received) / elapsed


@dataclass(frozen=True, slots=True)
class Fetched:
    """A file that came as a whole."""

    first_byte: float  # seconds until the first byte of the file was there
    seconds: float
    sha256: str


def fetch(port: int, path: str, headers: Mapping[str, str], size: int) -> Fetched:
    """Fetch a file of `size` bytes over a connection of its own; follows redirects.

    The hash is computed afterwards, so that it takes no time from the transfer.
    """
    content = bytearray(size)
    view = memoryview(content)
    begin = time.perf_counter()
    for _ in range(4):
        connection = http.client.HTTPConnection(HOST, port, timeout=_PATIENCE)
        try:
            connection.request("GET", path, headers=dict(headers))
            response = connection.getresponse()
            if response.status in (301, 302, 307, 308):
                target = urlsplit(
                    urljoin(f"http://{HOST}:{port}{path}", response.headers["Location"])
                )
                assert target.port is not None
                port, path = target.port, target.path
                continue
            if response.status != 200:
                raise RuntimeError(f"GET {path}: {response.status} {response.read()[:300]!r}")
            first = response.read1(min(size, 2**16))
            first_byte = time.perf_counter() - begin
            view[: len(first)] = first
            received = len(first)
            while received < size and (count := response.readinto(view[received:][: 2**20])):
                received += count
            seconds = time.perf_counter() - begin
            if received != size or response.read(1):
                raise RuntimeError(f"GET {path}: not the {size} bytes of the file")
            return Fetched(first_byte, seconds, hashlib.sha256(content).hexdigest())
        finally:
            connection.close()
    raise RuntimeError(f"GET {path}: too many redirects")


def upload(
    port: int,
    path: str,
    headers: Mapping[str, str],
    forms: Sequence[Form],
    *,
    connections: int = 1,
    limit: float = 60.0,
) -> Load:
    """Send the forms, each once, for at most `limit` seconds; connections are kept alive."""
    latencies: list[float] = []
    failures: list[str] = []
    waiting = iter(forms)
    lock = threading.Lock()  # guards waiting
    begin = time.perf_counter()

    def work() -> None:
        sender = _Sender(port, path, headers)
        while time.perf_counter() < begin + limit:
            with lock:
                form = next(waiting, None)
            if form is None:
                break
            before = time.perf_counter()
            try:
                answer = sender.send(form)
                if answer.status not in (200, 201):
                    failures.append(f"{answer.status} {answer.body[:300]!r}")
            except (OSError, http.client.HTTPException) as error:
                failures.append(repr(error))
                sender.close()
            latencies.append(time.perf_counter() - before)
        sender.close()

    together([threading.Thread(target=work) for _ in range(connections)])
    if failures:
        raise RuntimeError(f"{len(failures)} of {len(latencies)} uploads failed: {failures[0]}")
    return _load(latencies, 0, time.perf_counter() - begin)


class _Sender:
    """One connection for uploads, opened again when the server has closed it."""

    def __init__(self, port: int, path: str, headers: Mapping[str, str]) -> None:
        self._connection = http.client.HTTPConnection(HOST, port, timeout=300)
        self._path = path
        self._headers = dict(headers)
        self._used = False

    def send(self, form: Form) -> Answer:
        try:
            return self._send(form)
        except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
            if not self._used:
                raise
            # A kept connection may have been closed before our request arrived.
            self.close()
            return self._send(form)

    def close(self) -> None:
        self._used = False
        self._connection.close()

    def _send(self, form: Form) -> Answer:
        begin = time.perf_counter()
        headers = {
            **self._headers,
            "Content-Type": form.content_type,
            "Content-Length": str(form.length),
        }
        body = _pieces(form)
        self._connection.request("POST", self._path, body=body, headers=headers)
        response = self._connection.getresponse()
        content = response.read()
        self._used = True
        return Answer(response.status, {}, content, time.perf_counter() - begin)


def _pieces(form: Form) -> bytes | Iterator[bytes]:
    if isinstance(form.file, bytes):
        return form.head + form.file + form.tail

    def read(path: Path) -> Iterator[bytes]:
        yield form.head
        with path.open("rb") as file:
            while block := file.read(2**20):
                yield block
        yield form.tail

    return read(form.file)


def _load(latencies: Sequence[float], failures: int, elapsed: float) -> Load:
    ordered = sorted(latencies)
    return Load(
        requests=len(ordered),
        failures=failures,
        per_second=len(ordered) / elapsed,
        median=statistics.median(ordered) if ordered else 0.0,
        worst=ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)] if ordered else 0.0,
    )


def together(threads: Sequence[threading.Thread]) -> None:
    """Start threads, and wait for all of them."""
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
