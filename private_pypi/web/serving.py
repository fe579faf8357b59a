"""waitress with a channel of our own: a gate before every body, forms received while they arrive,
and an end that cuts nobody off. The only file that knows waitress; it knows no repository.

As it is, waitress calls the application only after it has spooled the whole body, and says
`100 Continue` before anybody was asked. Here

- the *gate* decides, in a worker thread, as soon as the head of a request with a body is there;
  nothing more is read from that connection meanwhile,
- a form goes from the socket to a `FormReceiver` in another thread, with reading as fast as that
  thread writes,
- an answer that comes before the body has ended is followed by a half-close, and the rest is
  dropped for a while, so that clients which read only after writing see the answer and no reset,
- pools of threads keep apart what answers at once and what waits for others.

Who does what: the loop (one thread) owns the sockets, the parsing and the state of a channel; it
never opens, reads or writes a file. What a worker has to tell the loop goes through the trigger of
the server, which runs a callable in the loop's thread.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import resource
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from types import FrameType
from typing import Any

from waitress import wasyncore
from waitress.adjustments import Adjustments
from waitress.buffers import OverflowableBuffer, ReadOnlyFileBasedBuffer
from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser
from waitress.server import BaseWSGIServer, create_server
from waitress.task import ThreadedTaskDispatcher, WSGITask
from waitress.utilities import BadRequest

from private_pypi.errors import BackendError, ConfigurationError, InvalidUpload, PrivatePypiError
from private_pypi.web.receiving import READ_SIZE, RECEIVED_FORM, FormLimits, FormReceiver

logger = logging.getLogger(__name__)

_HEAD_SECONDS = 30.0  # from the first byte of a request to the end of its head
_FRESH_SECONDS = 1.0  # for which a new connection may still begin when the server ends
_LINGER_SECONDS = 300.0  # for the rest of a refused body; 1 GiB at 30 Mbit/s
_LINGER_IDLE_SECONDS = 5.0  # without a byte of it
_LARGE = 64 * 1024  # bytes; from here on, what is sent is not copied into waitress' buffers
_QUEUED = 512 * 1024  # bytes of one upload between the socket and the disk
_DEFAULTS: Mapping[str, Any] = {
    "threads": 8,  # in each pool
    "connection_limit": 1000,
    "asyncore_use_poll": True,  # select() ends at 1024 files
    "cleanup_interval": 1,
    "ident": "private_pypi",
    # Buffers stay in memory: a temporary folder may be full or missing. The first limit lets a
    # worker wait, the second would make a temporary file.
    "outbuf_high_watermark": 4 * 1024 * 1024,
    "outbuf_overflow": 8 * 1024 * 1024,
}


@dataclass(frozen=True, slots=True)
class RequestHead:
    """What is known of a request before its body."""

    method: str
    path: str  # decoded, without url_prefix: the later PATH_INFO
    headers: Mapping[str, str]  # names as in AUTHORIZATION, CONTENT_TYPE
    content_length: int | None  # bytes; None: chunked
    remote_addr: str  # of the peer, which may be a proxy


@dataclass(frozen=True, slots=True)
class Refuse:
    """Answer at once, and read no further."""

    status: int
    reason: str  # latin-1
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class ReceiveForm:
    """Receive an upload form; the application takes it with `receive_form`."""

    folder: Path
    limits: FormLimits


@dataclass(frozen=True, slots=True)
class PassOn:
    """Give the body to the application as `wsgi.input`. It is kept in memory: for small ones."""

    max_body_bytes: int


Verdict = Refuse | ReceiveForm | PassOn
Gate = Callable[[RequestHead], Verdict]


class Stop:
    """Ends a running `serve` from another thread or a signal handler."""

    def __init__(self) -> None:
        self._wake: Callable[[], None] | None = None
        # Guards _wake against an end of `serve` meanwhile; re-entrant, for a signal may arrive
        # while this very thread holds it.
        self._lock = threading.RLock()
        self.requested = False

    def request(self) -> None:
        """Let `serve` finish what is open and return. Also before it began, and repeatedly."""
        self.requested = True
        with self._lock:
            if self._wake is not None:
                self._wake()

    def wakes(self, wake: Callable[[], None] | None) -> None:
        """What lets a loop notice at once, while there is one."""
        with self._lock:
            self._wake = wake


def option_names() -> frozenset[str]:
    """The options of `serve` that can be given as text."""
    return frozenset(_casts()) - {"sockets"}


def serve(
    application: Callable[..., Any],
    gate: Gate,
    *,
    host: str,
    port: int,
    options: Mapping[str, Any] | None = None,
    on_listening: Callable[[list[str]], None],
    drain_seconds: float = 30.0,
    stop: Stop | None = None,
    apart: Callable[[str], bool] = lambda path: False,
) -> None:
    """Serve until SIGTERM, SIGINT or `stop`, then let everybody finish for `drain_seconds`.

    `options` are those of waitress; `listen`, `unix_socket` or `sockets` there replace `host` and
    `port`. `on_listening` gets the addresses once connections are accepted. A GET of a path for
    which `apart` is true, because it may wait for a storage, runs in a pool of its own.
    Signals are handled only in the main thread; a second one ends the process at once.
    Raises `ConfigurationError` for a wrong option and an address that cannot be had.
    """
    stop = stop or Stop()
    options = _checked(options or {})
    max_body_bytes = int(options.pop("max_request_body_size", sys.maxsize))
    sockets: dict[int, Any] = {}
    pools = _Pools(apart)
    with contextlib.ExitStack() as cleanup:
        cleanup.callback(_close_all, sockets, pools)
        server = _bind(application, sockets, pools, host, port, options)
        running = _Running(gate, pools, max_body_bytes)
        servers = [entry for entry in sockets.values() if isinstance(entry, BaseWSGIServer)]
        _raise_file_limit(server.adj.connection_limit)
        for one in servers:
            one.channel_class = partial(_Channel, running=running)
            one.maintenance = lambda now: None  # `_sweep` knows more of our channels
            one.adj.max_request_body_size = sys.maxsize  # the gate's verdict governs
        pools.start(server.adj.threads)
        stop.wakes(servers[0].pull_trigger)
        cleanup.callback(stop.wakes, None)
        cleanup.enter_context(_signals(stop))
        for one in servers:
            one.accept_connections()
        on_listening([_address(one) for one in servers])
        loop = partial(wasyncore.loop, use_poll=server.adj.asyncore_use_poll, map=sockets, count=1)
        next_sweep = 0.0
        while not stop.requested:
            loop(timeout=server.adj.asyncore_loop_timeout)
            if (now := time.time()) >= next_sweep:
                next_sweep = now + server.adj.cleanup_interval
                _sweep(servers, now)
        _drain(running, servers, loop, drain_seconds)


# -- starting and ending -------------------------------------------------------------------------


def _casts() -> dict[str, Callable[[Any], Any]]:
    return dict(Adjustments._params)


def _checked(options: Mapping[str, Any]) -> dict[str, Any]:
    casts = _casts()
    problems = []
    for name, value in options.items():
        if name not in casts:
            problems.append(f"--{name}: no such option of the server")
            continue
        try:
            number = casts[name](value)
        except (TypeError, ValueError):
            wanted = "an octal number" if name == "unix_socket_perms" else "a whole number"
            problems.append(f"--{name} {value}: not {wanted}")
        else:
            if name == "threads" and number < 1:
                problems.append(f"--{name} {value}: at least 1 is needed")
    if problems:
        raise ConfigurationError(*problems)
    return dict(options)


def _bind(
    application: Callable[..., Any],
    sockets: dict[int, Any],
    pools: _Pools,
    host: str,
    port: int,
    options: dict[str, Any],
) -> Any:
    if not 0 <= port <= 65535:
        raise ConfigurationError(f"--port {port}: a port is a number from 0 to 65535")
    where: dict[str, Any] = {"host": host, "port": port}
    if {"listen", "unix_socket", "sockets"} & set(options):
        where = {}
    try:
        return create_server(
            application,
            map=sockets,
            _start=False,
            _dispatcher=pools,
            **where,
            **{**_DEFAULTS, **options},
        )
    except ValueError as error:  # of Adjustments: options that do not go together, unknown hosts
        if where and "host/port" in str(error):
            raise ConfigurationError(
                f"cannot listen on host {host!r}, port {port}: no such address; "
                "choose others with --host and --port"
            ) from error
        given = " ".join(f"--{name} {options[name]}" for name in options)
        raise ConfigurationError(f"{error} (given: {given})") from error
    except OSError as error:
        raise ConfigurationError(_bind_problem(error, host, port, options)) from error


def _bind_problem(error: OSError, host: str, port: int, options: Mapping[str, Any]) -> str:
    for name in ("listen", "unix_socket"):
        if name in options:
            return f"--{name} {options[name]}: {error.strerror or error}"
    match error.errno:
        case errno.EADDRINUSE:
            return f"port {port} on {host} is in use; choose another with --port"
        case errno.EACCES | errno.EPERM:
            return f"port {port} on {host} is for privileged users; choose another with --port"
        case errno.EADDRNOTAVAIL:
            return f"{host} is no address of this machine; choose another with --host"
    return f"cannot listen on port {port} of {host}: {error.strerror or error}"


def _address(server: Any) -> str:
    host, port = server.effective_host, server.effective_port
    if host == "unix":
        return f"unix:{port}"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _raise_file_limit(connections: int) -> None:
    """A connection may need two more files: what it sends or receives, and one to spare."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 3 * connections + 256
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


@contextlib.contextmanager
def _signals(stop: Stop) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:
        for wanted in before:
            signal.signal(wanted, signal.SIG_DFL)  # the second one ends at once
        stop.request()

    before: dict[signal.Signals, Any] = {}
    for wanted in (signal.SIGTERM, signal.SIGINT):
        before[wanted] = signal.signal(wanted, handle)
    try:
        yield
    finally:
        for wanted, handler in before.items():
            signal.signal(wanted, handler)


def _channels(servers: list[Any]) -> list[_Channel]:
    return [channel for server in servers for channel in list(server.active_channels.values())]


def _sweep(servers: list[Any], now: float) -> None:
    for channel in _channels(servers):
        if channel.is_overdue(now):
            channel.handle_close()


def _drain(
    running: _Running, servers: list[Any], loop: Callable[..., None], drain_seconds: float
) -> None:
    running.draining = True
    for server in servers:
        _accept_waiting(server)
        # Not server.close(): workers still need the trigger.
        wasyncore.dispatcher.close(server)
    loop(timeout=0)  # what was sent before the signal counts as begun
    end = time.monotonic() + drain_seconds
    while time.monotonic() < end:
        for channel in _channels(servers):
            if channel.is_idle and not channel.is_fresh(time.time()):
                channel.handle_close()
        if not _channels(servers) and not running.pools.busy:
            return
        _sweep(servers, time.time())
        loop(timeout=0.05)
    cut = _channels(servers)
    logger.warning("%d connections were cut after %g seconds", len(cut), drain_seconds)


def _accept_waiting(server: Any) -> None:
    """Take the connections that the kernel has accepted already; they would be reset."""
    count = -1
    while count != len(server.active_channels):
        count = len(server.active_channels)
        server.handle_accept()


def _close_all(sockets: dict[int, Any], pools: _Pools) -> None:
    for entry in list(sockets.values()):
        if isinstance(entry, _Channel):
            entry.cut()
    end = time.monotonic() + 1
    while pools.busy and time.monotonic() < end:
        time.sleep(0.01)  # partial files are being removed
    is_quiet = not pools.busy
    pools.stop()
    if is_quiet:
        wasyncore.close_all(sockets)
    # Else a worker hangs: its trigger stays open, lest it writes to a file of that number later.


# -- threads -------------------------------------------------------------------------------------


class _Pool(ThreadedTaskDispatcher):  # type: ignore[misc]
    """waitress' threads, without its warning for every task that has to wait."""

    def add_task(self, task: Any) -> None:
        with self.lock:
            self.queue.append(task)
            self.queue_cv.notify()

    @property
    def busy(self) -> bool:
        with self.lock:
            return bool(self.queue) or self.active_count > 0


class _Pools:
    """What may wait for somebody never takes the thread of what does not."""

    def __init__(self, apart: Callable[[str], bool]) -> None:
        self._apart = apart
        self._pages = _Pool()  # GET and HEAD
        self._files = _Pool()  # those that are apart
        self.writes = _Pool()  # other methods, bodies, and the gate
        self.receiving = _Pool()  # from sockets into files, in small steps
        self.sending = _Pool()  # from files into sockets, likewise

    def start(self, threads: int) -> None:
        for pool in self._all:
            pool.set_thread_count(threads)

    def stop(self) -> None:
        for pool in self._all:
            pool.set_thread_count(0)

    @property
    def busy(self) -> bool:
        return any(pool.busy for pool in self._all)

    def add_task(self, channel: _Channel) -> None:
        """waitress' way to say that the first request of a channel is to be answered."""
        request = channel.requests[0]
        if request.command not in ("GET", "HEAD") or request.body_rcv is not None:
            self.writes.add_task(channel)
        elif self._apart(request.path):
            self._files.add_task(channel)
        else:
            self._pages.add_task(channel)

    @property
    def _all(self) -> tuple[_Pool, ...]:
        return (self._pages, self._files, self.writes, self.receiving, self.sending)


@dataclass(slots=True)
class _Running:
    """What the channels of all listeners share."""

    gate: Gate
    pools: _Pools
    max_body_bytes: int  # the operator's own limit
    draining: bool = False


# -- requests ------------------------------------------------------------------------------------


class _Request(HTTPRequestParser):  # type: ignore[misc]
    """A request that waits, after its head, for a verdict about its body."""

    # waitress sets these only when it can read the head
    command = "GET"
    path = "/"
    expect_continue: bool

    def __init__(self, adj: Any) -> None:
        super().__init__(adj)
        self.began = time.time()
        self.wants_continue = False
        self.asked_gate = False
        self.max_body_bytes = sys.maxsize
        self.form: FormReceiver | PrivatePypiError | None = None
        self.form_body: _FormBody | None = None

    def received(self, data: bytes) -> int:
        if not self.headers_finished:
            taken: int = super().received(data)
            # waitress would answer it by itself
            self.wants_continue, self.expect_continue = self.expect_continue, False
            return taken
        body = self.body_rcv
        taken = body.received(data)
        self.body_bytes_received += taken
        if body.error:
            self.fail(body.error)
        elif len(body) > self.max_body_bytes:
            self.fail(_too_large(self.max_body_bytes))
        elif self.body_bytes_received > 8 * len(body) + _LARGE:  # a chunk of one byte takes six
            self.fail(BadRequest("Chunks without content"))
        elif body.completed:
            self.completed = True
            if self.chunked:
                self.headers["CONTENT_LENGTH"] = str(len(body))
        return taken

    def fail(self, error: Any) -> None:
        self.error = error
        self.completed = True

    @property
    def awaits_verdict(self) -> bool:
        return self.headers_finished and not self.completed and not self.asked_gate

    @property
    def read_size(self) -> int:
        # Chunks are taken apart by copying what follows them: few bytes at a time.
        large = self.form_body is not None and not self.chunked
        return READ_SIZE if large else int(self.adj.recv_bytes)

    @property
    def is_read(self) -> bool:
        """Whether nothing of it is left in the socket."""
        return self.body_rcv is None or self.body_rcv.completed


class _Refusal:
    """A verdict in the form in which waitress knows errors."""

    def __init__(self, refusal: Refuse) -> None:
        self._refusal = refusal

    def to_response(self, ident: str | None = None) -> tuple[str, list[tuple[str, str]], bytes]:
        refusal = self._refusal
        reason = " ".join(refusal.reason.split())
        reason = reason.encode("latin-1", "replace").decode("latin-1")
        return f"{refusal.status} {reason}", list(refusal.headers), refusal.body


def _too_large(limit: int) -> _Refusal:
    return _plain_refusal(413, "Content Too Large", f"a body has at most {limit} bytes here")


def _plain_refusal(status: int, reason: str, sentence: str) -> _Refusal:
    headers = (("Content-Type", "text/plain; charset=utf-8"),)
    return _Refusal(
        Refuse(status=status, reason=reason, headers=headers, body=sentence.encode() + b"\n")
    )


class _Task(WSGITask):  # type: ignore[misc]
    """An answer of the application."""

    wrote_header: bool
    content_bytes_written: int

    def get_environment(self) -> dict[str, Any]:
        environ: dict[str, Any] = super().get_environment()
        if self.request.form is not None:
            environ[RECEIVED_FORM] = self.request.form
        return environ

    def set_close_on_finish(self) -> None:
        # waitress ends the connection after an answer whose length is not told; that of an answer
        # without a body (304, 204) is known all the same.
        closes = self.request.headers.get("CONNECTION", "").lower() == "close"
        if self.has_body or closes or self.version != "1.1":
            super().set_close_on_finish()

    def write(self, data: bytes) -> None:
        is_whole = self.complete and self.has_body and len(data) == self.content_length
        if self.wrote_header or not is_whole or len(data) >= _LARGE:
            super().write(data)
            return
        # Head and body in one packet and one system call.
        head = self.build_response_header()
        self.wrote_header = True
        self.content_bytes_written += len(data)
        self.channel.write_soon(head + data)

    def build_response_header(self) -> bytes:
        if self.channel.must_close(self.request):
            self.request.headers["CONNECTION"] = "close"
        header: bytes = super().build_response_header()
        return header


@dataclass(slots=True)
class _GateTask:
    """Asks the gate in a worker thread and tells the loop."""

    channel: _Channel
    request: _Request
    gate: Gate

    def service(self) -> None:
        verdict: Verdict | None = None  # None: the gate broke
        try:
            verdict = self.gate(self._head())
        except Exception:
            logger.exception("the gate failed for %s", self.request.path)
        tell = partial(self.channel.decided, self.request, verdict)
        self.channel.server.trigger.pull_trigger(tell)

    def _head(self) -> RequestHead:
        request = self.request
        environ = WSGITask(self.channel, request).get_environment()
        return RequestHead(
            method=environ["REQUEST_METHOD"],
            path=environ["PATH_INFO"],
            headers=dict(request.headers),
            content_length=None if request.chunked else request.content_length,
            remote_addr=environ["REMOTE_ADDR"],
        )


class _FormBody:
    """A queue from the loop to the thread that feeds a `FormReceiver`.

    It stands where waitress keeps the bytes of a body, and is itself the task of that thread.
    """

    def __init__(self, channel: _Channel, request: _Request, receiver: FormReceiver) -> None:
        self._channel = channel
        self._request = request
        self._receiver = receiver
        self._pool = channel.running.pools.receiving
        self._lock = threading.Lock()  # guards everything below
        self._chunks: list[bytes] = []
        self._queued = 0  # bytes
        self._total = 0  # bytes
        self._scheduled = False
        self._ended = False
        self._dropped = False
        self._failed = False

    # The loop's side; the first four are those of a buffer of waitress.

    def append(self, data: bytes) -> None:
        with self._lock:
            self._chunks.append(data)
            self._queued += len(data)
            self._total += len(data)
            self._schedule()

    def __len__(self) -> int:
        return self._total

    def getfile(self) -> BytesIO:
        return BytesIO()

    def close(self) -> None:
        """The request is answered; called by the thread that did it."""
        with self._lock:
            self._dropped = True
            is_being_fed = self._scheduled
        if not is_being_fed:
            self._receiver.abort()

    def end(self) -> None:
        """Nothing more will come; the channel is told when all is written."""
        with self._lock:
            self._ended = True
            self._schedule()

    def drop(self) -> None:
        """Nobody wants it any more."""
        with self._lock:
            self._dropped = True
            self._chunks.clear()
            self._schedule()

    @property
    def is_full(self) -> bool:
        return self._queued >= _QUEUED

    @property
    def is_settled(self) -> bool:
        """Whether the application can be asked: all is written, or nothing more can be."""
        with self._lock:
            return self._failed or (self._ended and not self._queued)

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._pool.add_task(self)

    # The worker's side: one piece of work, then the next upload's.

    def service(self) -> None:
        with self._lock:
            chunks, self._chunks = self._chunks, []
            dropped = self._dropped
        if dropped:
            self._receiver.abort()
            return
        is_broken = False
        try:
            for chunk in chunks:
                self._receiver.feed(chunk)
        except Exception:
            logger.exception("an upload could not be received")
            self._request.form = BackendError("the upload could not be received")
            is_broken = True
        with self._lock:
            was_full = self.is_full
            self._queued -= sum(map(len, chunks))
            self._failed = is_broken or self._receiver.failed
            self._scheduled = False
            if self._chunks or self._dropped:
                self._schedule()
            tell = was_full or self._failed or (self._ended and not self._queued)
        if tell:
            self._channel.server.trigger.pull_trigger(
                partial(self._channel.digested, self._request)
            )


class _SharedBytes(ReadOnlyFileBasedBuffer):  # type: ignore[misc]
    """A page on its way; however many clients are slow with it, its bytes are there once."""

    def __init__(self, data: bytes) -> None:
        super().__init__(BytesIO(data))  # which copies nothing
        self.prepare()


@dataclass(slots=True)
class _SendTask:
    """Sends from a file: the loop does not wait for disks."""

    channel: _Channel

    def service(self) -> None:
        self.channel.send_from_file()


# -- connections ---------------------------------------------------------------------------------


class _Channel(HTTPChannel):  # type: ignore[misc]
    """One connection."""

    parser_class = _Request
    task_class = _Task
    request: _Request | None  # the one that is being received
    connected: bool
    will_close: bool
    close_when_flushed: bool
    sendbuf_len: int
    creation_time: float
    last_activity: float

    def __init__(
        self,
        server: Any,
        sock: socket.socket,
        addr: Any,
        adj: Any,
        map: dict[int, Any] | None = None,  # noqa: A002  (waitress' name)
        *,
        running: _Running,
    ) -> None:
        super().__init__(server, sock, addr, adj, map=map)
        self.sendbuf_len = min(self.sendbuf_len, READ_SIZE)  # what is read of a file at once
        self.running = running
        self._paused = False  # until a verdict, or until the disk has a whole form
        self._ahead = b""  # received meanwhile
        self._lingers = False  # after the answer, because input is left
        self._linger_began: float | None = None
        self._sending = False  # a worker sends from a file

    # The loop's side: what waitress asks and tells.

    def readable(self) -> bool:
        if self._linger_began is not None:
            return True
        if self._paused:
            return False
        body = self.request.form_body if self.request is not None else None
        return not (body is not None and body.is_full) and bool(super().readable())

    def writable(self) -> bool:
        return not self._sending and bool(super().writable())

    def handle_read(self) -> None:
        if self._linger_began is not None:
            size = READ_SIZE
        else:
            size = self.adj.recv_bytes if self.request is None else self.request.read_size
        try:
            data = self.recv(size)
        except OSError:
            self.handle_close()
            return
        if data:
            self.last_activity = time.time()
            if self._linger_began is None:
                self.received(data)

    def received(self, data: bytes) -> bool:
        with self.requests_lock:
            # A worker may have decided to close meanwhile.
            if self.will_close or self.close_when_flushed:
                return False
            while data and not self._paused:
                if self.request is None:
                    self.request = _Request(self.adj)
                request = self.request
                taken = request.received(data)
                data = data[taken:] if taken < len(data) else b""
                if request.awaits_verdict:
                    self._paused = True  # until `decided`
                    self._ask_gate(request)
                elif request.completed:
                    if request.form_body is not None and not request.error:
                        self._paused = True  # until `digested`
                        request.form_body.end()
                    elif request.empty:
                        self.request = None
                    else:
                        self._hand_over(request)
                        if request.error:
                            return True
            self._ahead = data
        return True

    def handle_write(self) -> None:
        if self.will_close:
            self.handle_close()
            return
        if type(self.outbufs[0]) is ReadOnlyFileBasedBuffer:  # a file, which may be slow
            self._sending = True
            self.running.pools.sending.add_task(_SendTask(self))
            return
        self._flush_exception(self._flush_some_if_lockable if self.requests else self._flush_some)
        if self.connected and self.close_when_flushed and not self.total_outbufs_len:
            self._end()

    def handle_close(self) -> None:
        super().handle_close()
        request, self.request = self.request, None
        if request is not None:
            if request.form_body is not None:
                request.form_body.drop()
            else:
                request.close()

    def cut(self) -> None:
        """Close without waiting for a worker that hangs while it sends."""
        if self.outbuf_lock.acquire(blocking=False):
            self.outbuf_lock.release()
            self.handle_close()

    def is_overdue(self, now: float) -> bool:
        """Whether the client lets us wait too long."""
        silence = now - self.last_activity
        if self._linger_began is not None:
            return silence > _LINGER_IDLE_SECONDS or now - self._linger_began > _LINGER_SECONDS
        if self._sending:
            return False
        if not self.total_outbufs_len:
            if not self.readable():
                return False  # it waits for us
            if self.request is not None and not self.request.headers_finished:
                patience = min(_HEAD_SECONDS, self.adj.channel_timeout)
                if now - self.request.began > patience:
                    return True
        return bool(silence > self.adj.channel_timeout)

    @property
    def is_idle(self) -> bool:
        return not (
            self.requests
            or self.request is not None
            or self.total_outbufs_len
            or self.close_when_flushed
            or self._linger_began is not None
        )

    def is_fresh(self, now: float) -> bool:
        """Whether a client that has just connected may be about to send its first request.

        It does not know that we end, and unlike on a connection that was used before it would take
        a close for a failure.
        """
        is_new = now - self.creation_time < _FRESH_SECONDS
        return is_new and self.last_activity == self.creation_time

    def must_close(self, request: _Request) -> bool:
        """Whether the answer to `request` is the last on this connection."""
        return self.running.draining or not request.is_read

    # The loop's side: what workers report.

    def decided(self, request: _Request, verdict: Verdict | None) -> None:
        """The gate has spoken; None when it broke."""
        if self.request is not request:
            return  # the client has gone
        self.last_activity = time.time()
        with self.requests_lock:
            self._admit(request, verdict)
            if request.completed or (request.form is not None and request.form_body is None):
                self._hand_over(request)
                return
            if request.wants_continue:
                self.send_continue()
        self._go_on()

    def digested(self, request: _Request) -> None:
        """The disk has what was queued of a form, or will not take it."""
        body = request.form_body
        if self.request is not request or body is None:
            return
        self.last_activity = time.time()
        if body.is_settled:
            with self.requests_lock:
                self._hand_over(request)
            if request.is_read:
                self._go_on()

    def sent(self) -> None:
        """A worker has sent what the socket took."""
        self._sending = False

    def _go_on(self) -> None:
        ahead, self._ahead = self._ahead, b""
        self._paused = False
        if ahead and self.connected:
            self.received(ahead)

    def _ask_gate(self, request: _Request) -> None:
        """Unless an answer is outstanding, which `100 Continue` must not overtake."""
        if not self.requests:
            request.asked_gate = True
            self.running.pools.writes.add_task(_GateTask(self, request, self.running.gate))

    def _admit(self, request: _Request, verdict: Verdict | None) -> None:
        limit = self.running.max_body_bytes
        match verdict:
            case None:
                request.fail(_plain_refusal(500, "Internal Server Error", "the server failed"))
            case Refuse():
                request.fail(_Refusal(verdict))
            case ReceiveForm():
                try:
                    receiver = FormReceiver(
                        request.headers.get("CONTENT_TYPE", ""), verdict.folder, verdict.limits
                    )
                except InvalidUpload as error:
                    request.form = error
                else:
                    request.form = receiver
                    request.form_body = _FormBody(self, request, receiver)
                    request.body_rcv.buf = request.form_body
            case PassOn():
                limit = min(limit, verdict.max_body_bytes)
                request.body_rcv.buf = OverflowableBuffer(limit + 1)
        request.max_body_bytes = limit
        if not request.completed and request.content_length > limit:
            request.fail(_too_large(limit))

    def _hand_over(self, request: _Request) -> None:
        """To a worker, for an answer."""
        self.request = None
        self._lingers = bool(request.error) or not request.is_read
        self.requests.append(request)
        if len(self.requests) == 1:  # else the worker that answers the one before goes on
            self.server.add_task(self)

    def _end(self) -> None:
        """Close. A reset, because of input that nobody read, could overtake the answer."""
        if self._lingers:
            with contextlib.suppress(OSError):
                self.socket.shutdown(socket.SHUT_WR)
                self.close_when_flushed = False
                self._linger_began = self.last_activity = time.time()
                return
        self.handle_close()

    # The workers' side.

    def service(self) -> None:
        super().service()
        with self.requests_lock:
            request = self.request
            if request is not None and request.awaits_verdict and not self.close_when_flushed:
                self._ask_gate(request)

    def write_soon(self, data: Any) -> int:
        if isinstance(data, bytes) and len(data) >= _LARGE:
            data = _SharedBytes(data)
        written: int = super().write_soon(data)
        return written

    def send_from_file(self) -> None:
        with self.outbuf_lock:
            if self.connected:
                self._flush_exception(self._flush_some, do_close=False)
                if self.total_outbufs_len < self.adj.outbuf_high_watermark:
                    self.outbuf_lock.notify()
        self.server.trigger.pull_trigger(self.sent)
