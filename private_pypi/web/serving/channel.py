"""One connection: what of it belongs to the loop, what to the threads, and how they talk."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from typing import Any

from waitress.buffers import OverflowableBuffer, ReadOnlyFileBasedBuffer
from waitress.channel import HTTPChannel
from waitress.task import WSGITask

from private_pypi.errors import BackendError, InvalidUpload
from private_pypi.web.receiving import READ_SIZE, FormReceiver
from private_pypi.web.serving.gate import (
    AtOnce,
    Gate,
    PassOn,
    ReceiveForm,
    Refuse,
    RequestHead,
    Verdict,
    Watcher,
)
from private_pypi.web.serving.messages import (
    LARGE,
    Failure,
    Refusal,
    Request,
    Task,
    plain_refusal,
    too_large,
)
from private_pypi.web.serving.pools import Pools

logger = logging.getLogger(__name__)

_HEAD_SECONDS = 30.0  # from the first byte of a request to the end of its head
_FRESH_SECONDS = 1.0  # for which a new connection may still begin when the server ends
_LINGER_SECONDS = 300.0  # for the rest of a refused body; 1 GiB at 30 Mbit/s
_LINGER_IDLE_SECONDS = 5.0  # without a byte of it
_QUEUED = 512 * 1024  # bytes of one upload between the socket and the disk


@dataclass(slots=True)
class Running:
    """What the channels of all listeners share."""

    gate: Gate
    pools: Pools
    max_body_bytes: int  # the operator's own limit
    at_once: AtOnce
    watcher: Watcher | None
    find_client: Callable[[dict[str, Any]], None]
    """Replaces the address of a trusted proxy in a WSGI environment by that of its client."""
    draining: bool = False


@dataclass(slots=True)
class GateTask:
    """Asks the gate in a worker thread and tells the loop."""

    channel: Channel
    request: Request
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
        self.channel.running.find_client(environ)
        return RequestHead(
            method=environ["REQUEST_METHOD"],
            path=environ["PATH_INFO"],
            headers=dict(request.headers),
            content_length=None if request.chunked else request.content_length,
            remote_addr=environ["REMOTE_ADDR"],
            request_id=request.id,
        )


class FormBody:
    """A queue from the loop to the thread that feeds a `FormReceiver`.

    It stands where waitress keeps the bytes of a body, and is itself the task of that thread.
    """

    def __init__(self, channel: Channel, request: Request, receiver: FormReceiver) -> None:
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


class SharedBytes(ReadOnlyFileBasedBuffer):  # type: ignore[misc]
    """A page on its way; however many clients are slow with it, its bytes are there once."""

    def __init__(self, data: bytes) -> None:
        super().__init__(BytesIO(data))  # which copies nothing
        self.prepare()


@dataclass(slots=True)
class SendTask:
    """Sends from a file: the loop does not wait for disks."""

    channel: Channel

    def service(self) -> None:
        self.channel.send_from_file()


class Channel(HTTPChannel):  # type: ignore[misc]
    """One connection."""

    parser_class = Request
    task_class = Task
    error_task_class = Failure
    request: Request | None  # the one that is being received
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
        running: Running,
    ) -> None:
        super().__init__(server, sock, addr, adj, map=map)
        self.sendbuf_len = min(self.sendbuf_len, READ_SIZE)  # what is read of a file at once
        self.running = running
        self._paused = False  # until a verdict, or until the disk has a whole form
        self._ahead = b""  # received meanwhile
        self._lingers = False  # after the answer, because input is left
        self._linger_began: float | None = None
        self._sending = False  # a worker sends from a file
        self._is_at_hand = False  # the answer to the first request, once its lock is free

    # The loop's side: what waitress asks and tells.

    def readable(self) -> bool:
        if self._linger_began is not None:
            return True
        if self._paused:
            return False
        body = self.request.form_body if self.request is not None else None
        if self.request is not None and self.request.swallows_since is not None:
            body = None
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
                    self.request = Request(self.adj)
                request = self.request
                taken = request.received(data)
                data = data[taken:] if taken < len(data) else b""
                if request.awaits_verdict:
                    self._paused = True  # until `decided`
                    self._ask_gate(request)
                elif request.completed:
                    is_swallowed = request.swallows_since is not None
                    if request.form_body is not None and not request.error and not is_swallowed:
                        self._paused = True  # until `digested`
                        request.form_body.end()
                    elif request.empty:
                        self.request = None
                    elif self._answers(request) and request.error:
                        return True
            self._ahead = data
        if self._is_at_hand:
            self._is_at_hand = False
            self.service()
        return True

    def _have_at_hand(self, request: Request) -> bool:
        """Answer in the loop what needs no waiting: two changes of threads cost more than that."""
        # With output outstanding even a short answer could have to wait for the client.
        if request.command != "GET" or request.body_rcv is not None or self.total_outbufs_len:
            return False
        try:
            request.environ = Task(self, request).get_environment()
            request.answer = self.running.at_once(request.environ)
        except Exception:
            logger.exception("no answer at hand for %r", request.path)
        return request.answer is not None

    def handle_write(self) -> None:
        if self.will_close:
            self.handle_close()
            return
        if type(self.outbufs[0]) is ReadOnlyFileBasedBuffer:  # a file, which may be slow
            self._sending = True
            self.running.pools.sending.add_task(SendTask(self))
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
        swallows_since = None if self.request is None else self.request.swallows_since
        if swallows_since is not None and now - swallows_since > _LINGER_SECONDS:
            return True
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

    def must_close(self, request: Request) -> bool:
        """Whether the answer to `request` is the last on this connection."""
        return self.running.draining or not request.is_read

    # The loop's side: what workers report.

    def decided(self, request: Request, verdict: Verdict | None) -> None:
        """The gate has spoken; None when it broke."""
        if self.request is not request:
            return  # the client has gone
        self.last_activity = time.time()
        with self.requests_lock:
            self._admit(request, verdict)
            is_decided = request.form is not None and request.form_body is None
            if (request.completed or is_decided) and self._answers(request):
                return
            if request.wants_continue:
                self.send_continue()
        self._go_on()

    def digested(self, request: Request) -> None:
        """The disk has what was queued of a form, or will not take it."""
        body = request.form_body
        if self.request is not request or body is None or request.swallows_since is not None:
            return
        self.last_activity = time.time()
        if body.is_settled:
            with self.requests_lock:
                is_answered = self._answers(request)
            if is_answered and request.is_read:
                self._go_on()

    def sent(self) -> None:
        """A worker has sent what the socket took."""
        self._sending = False

    def _go_on(self) -> None:
        ahead, self._ahead = self._ahead, b""
        self._paused = False
        if ahead and self.connected:
            self.received(ahead)

    def _ask_gate(self, request: Request) -> None:
        """Unless an answer is outstanding, which `100 Continue` must not overtake."""
        if not self.requests:
            request.asked_gate = True
            self.running.pools.writes.add_task(GateTask(self, request, self.running.gate))

    def _admit(self, request: Request, verdict: Verdict | None) -> None:
        limit = self.running.max_body_bytes
        match verdict:
            case None:
                request.fail(plain_refusal(500, "Internal Server Error", "the server failed"))
            case Refuse():
                request.fail(Refusal(verdict))
            case ReceiveForm():
                try:
                    receiver = FormReceiver(
                        request.headers.get("CONTENT_TYPE", ""), verdict.folder, verdict.limits
                    )
                except InvalidUpload as error:
                    request.form = error
                else:
                    request.form = receiver
                    request.form_body = FormBody(self, request, receiver)
                    request.body_rcv.buf = request.form_body
            case PassOn():
                limit = min(limit, verdict.max_body_bytes)
                request.body_rcv.buf = OverflowableBuffer(limit + 1)
        request.max_body_bytes = limit
        if not request.completed and request.content_length > limit:
            request.fail(too_large(limit))

    def _answers(self, request: Request) -> bool:
        """Hand a request over for its answer, unless the rest of it has to be read before."""
        if request.hides_early_answers:
            request.swallow()
            return False
        self._hand_over(request)
        return True

    def _hand_over(self, request: Request) -> None:
        """To a worker, for an answer."""
        self.request = None
        self._lingers = bool(request.error) or not request.is_read
        self.requests.append(request)
        if len(self.requests) > 1:
            return  # the worker that answers the one before goes on
        self._is_at_hand = not request.error and self._have_at_hand(request)
        if not self._is_at_hand:
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
        if isinstance(data, bytes) and len(data) >= LARGE:
            data = SharedBytes(data)
        written: int = super().write_soon(data)
        return written

    def send_from_file(self) -> None:
        with self.outbuf_lock:
            if self.connected:
                self._flush_exception(self._flush_some, do_close=False)
                if self.total_outbufs_len < self.adj.outbuf_high_watermark:
                    self.outbuf_lock.notify()
        self.server.trigger.pull_trigger(self.sent)
