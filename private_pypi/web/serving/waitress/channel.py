"""One connection of a client: what the loop does with it, and what the workers do."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import socket
import struct
import termios
import time
from dataclasses import dataclass
from functools import partial
from typing import Any

from waitress.buffers import OverflowableBuffer, ReadOnlyFileBasedBuffer
from waitress.channel import HTTPChannel
from waitress.task import WSGITask

from private_pypi.errors import InvalidUpload
from private_pypi.web.serving.form_body import FormBody
from private_pypi.web.serving.gate import (
    Answer,
    PassOn,
    ReceiveForm,
    RequestHead,
    Verdict,
)
from private_pypi.web.serving.growing import GrowingFile, Later
from private_pypi.web.serving.pools import Pools
from private_pypi.web.serving.receiving import READ_SIZE, FormReceiver
from private_pypi.web.serving.refusals import plain_answer, too_large, too_slow
from private_pypi.web.serving.running import RunningServer
from private_pypi.web.serving.timeouts import Progress, Stage, time_limits
from private_pypi.web.serving.waitress.messages import (
    LARGE,
    Failure,
    RepeatedFields,
    Request,
    Task,
)
from private_pypi.web.serving.waitress.waiting import GrowingBuffer, Parked

logger = logging.getLogger(__name__)

_FRESH_SECONDS = 1.0  # in which a new connection may still send a request when the server ends
_TURN = 4 * 2**20  # bytes that are sent to one client before the next one has its turn


@dataclass(slots=True)
class Running(RunningServer):
    """What all connections of a running server share."""

    draining: bool = False


class Dispatcher:
    """Gives the requests of channels to the threads of the pools, as waitress asks for it."""

    def __init__(self, pools: Pools) -> None:
        self._pools = pools

    def add_task(self, channel: Channel) -> None:
        """Have the first request of a channel answered. The name is that of waitress."""
        request = channel.requests[0]
        if request.command in ("GET", "HEAD") and request.body_rcv is None:
            pool = self._pools.reading(channel.running.kind_of(request.path_info))
        else:
            pool = self._pools.writing
        channel.share = channel.share_of(request)
        pool.add(channel.service, channel.share)


class SharedBytes(ReadOnlyFileBasedBuffer):  # type: ignore[misc]
    """Bytes that are being sent, without a copy: connections that send the same page share it."""

    def __init__(self, data: bytes | memoryview) -> None:
        self._left = memoryview(data)

    def prepare(self, size: int | None = None) -> int:
        return len(self)

    def get(self, numbytes: int = -1, skip: bool = False) -> memoryview:
        # All of them, because the socket takes what it has room for with one call.
        found = self._left
        if skip:
            self.skip(len(found))
        return found

    def skip(self, numbytes: int, allow_prune: bool = False) -> None:
        self._left = self._left[numbytes:]

    def close(self) -> None:
        self._left = memoryview(b"")

    def __len__(self) -> int:
        return len(self._left)


class Channel(HTTPChannel):  # type: ignore[misc]
    """One connection of a client.

    The loop calls most methods. Those below "Called by workers" run in other threads, which send
    what they have to say to the loop through the trigger of the server.
    """

    parser_class = Request
    task_class = Task
    error_task_class = Failure
    request: Request | None  # that is being received
    connected: bool
    will_close: bool
    close_when_flushed: bool
    sendbuf_len: int

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
        self.sendbuf_len = min(self.sendbuf_len, READ_SIZE)  # how much is read of a file at a time
        self.running = running
        self._repeated = RepeatedFields()
        self._paused = False  # nothing is read, until there is a verdict or a form is written
        self._ahead = b""  # what was received meanwhile
        self._must_linger = False  # after the answer, because the client may still be sending
        self._is_lingering = False  # the answer was sent
        self._sending = False  # a worker sends from a file
        self._parked: Parked | None = None  # if the first request waits for its answer
        self._answer_is_let_in = False  # of the last answer, which may still be on its way
        self.share = ""  # of the threads, which the last request used that was handed over
        # Unlike the clock of waitress, this one is never set.
        self._created = time.monotonic()
        self._begun = 0  # requests
        self._received = 0  # bytes
        self._sent = 0  # bytes that the socket took
        self._turn = _TURN  # bytes that may be sent before other clients have their turn
        self.progress = Progress(self._created)

    # What the connection waits for, and for how long.

    @property
    def stage(self) -> Stage:
        """What this connection waits for."""
        request = self.request
        if self._is_lingering:
            return Stage.LINGERING
        if self._sending or self._is_starved:
            return Stage.SERVER
        if self.total_outbufs_len:
            return Stage.SENDING
        if self.requests or self._paused:
            return Stage.SERVER
        if request is None:
            return Stage.IDLE
        if not request.headers_finished:
            return Stage.HEAD
        if request.is_discarded:
            return Stage.DISCARDING
        if request.is_full:
            return Stage.SERVER
        return Stage.BODY

    def observe(self, now: float) -> None:
        """Note in `progress` what has changed since the last call."""
        stage = self.stage
        moved = self._received + self._sent
        if stage is Stage.SENDING:
            moved -= self._untaken()
        self.progress.observe(stage, self._begun, moved, now)

    def is_overdue(self, now: float) -> bool:
        """Whether the client takes too long."""
        self.observe(now)
        timeout = self.adj.channel_timeout
        limits = time_limits(self.progress.stage, let_in=self.is_let_in, timeout=timeout)
        return self.progress.is_over(limits, now)

    def expire(self) -> None:
        """End a connection whose client takes too long. If it sends a body, it gets an answer."""
        request = self.request
        if request is None or self.progress.stage not in (Stage.BODY, Stage.DISCARDING):
            self.cut()
            return
        with self.requests_lock:
            if not request.is_discarded:
                request.fail(too_slow())
            self._hand_over(request)
            self._must_linger = False

    def cut(self) -> None:
        """Close, unless a worker is sending: it could hang, and would have to be waited for."""
        if self.outbuf_lock.acquire(blocking=False):
            self.outbuf_lock.release()
            self.handle_close()

    @property
    def address(self) -> str:
        """The host of the other side: a client or a proxy."""
        return str(self.addr[0])

    @property
    def is_let_in(self) -> bool:
        """Whether a request here, or the answer that is being sent, is of a client let in."""
        if self.total_outbufs_len and self._answer_is_let_in:
            return True
        return any(request.is_let_in for request in self._open_requests)

    @property
    def held(self) -> int:
        """How much memory heads and bodies take, in bytes."""
        return sum(request.held for request in self._open_requests)

    @property
    def _open_requests(self) -> list[Request]:
        current = [] if self.request is None else [self.request]
        return [*self.requests, *current]

    @property
    def is_idle(self) -> bool:
        """Whether nothing would be lost if this connection were closed."""
        has_begun = self.request is not None and self.request.has_begun
        return not (
            self.requests
            or has_begun
            or self.total_outbufs_len
            or self.close_when_flushed
            or self._is_lingering
        )

    def is_fresh(self, now: float) -> bool:
        """Whether a client has just connected and may be about to send its first request.

        To close a connection at this moment looks like a failure to the client. On a connection
        that it used before, it expects that.
        """
        return now - self._created < _FRESH_SECONDS and not self._received

    def must_close(self, request: Request) -> bool:
        """Whether the answer to `request` is the last one on this connection."""
        return self.running.draining or not request.is_read

    def share_of(self, request: Request) -> str:
        """The share of the threads that a request uses (see `gate.ShareOf`)."""
        return self.running.share_of(request.path_info, request.headers.get("AUTHORIZATION"))

    def _untaken(self) -> int:
        """Bytes that the kernel keeps until the client takes them; 0 if it does not say."""
        try:
            answer = fcntl.ioctl(self.socket, termios.TIOCOUTQ, bytes(4))
        except OSError:  # not on this system
            return 0
        return int(struct.unpack("i", answer)[0])

    # Called by waitress in the loop.

    def readable(self) -> bool:
        if self._is_lingering:
            return True
        if self._paused:
            return False
        request = self.request
        waits_for_disk = request is not None and not request.is_discarded and request.is_full
        return not waits_for_disk and bool(super().readable())

    def writable(self) -> bool:
        if self._sending or (self._is_starved and not self.will_close):
            return False
        return bool(super().writable())

    @property
    def _is_starved(self) -> bool:
        first = self.outbufs[0]
        return isinstance(first, GrowingBuffer) and first.is_starved

    def handle_read(self) -> None:
        if self._is_lingering:
            size = READ_SIZE
        else:
            size = self.adj.recv_bytes if self.request is None else self.request.read_size
        try:
            data = self.recv(size)
        except OSError:
            self.handle_close()
            return
        self._received += len(data)
        if data and not self._is_lingering:
            self.received(data)

    def received(self, data: bytes) -> bool:
        with self.requests_lock:
            # A worker may have decided to close meanwhile.
            if self.will_close or self.close_when_flushed:
                return False
            while data and not self._paused:
                if self.request is None:
                    self.request = Request(self.adj, self._repeated)
                    self._begun += 1
                request = self.request
                taken = request.received(data)
                data = data[taken:] if taken < len(data) else b""
                if request.awaits_verdict:
                    self._paused = True  # until `decided`
                    self._ask_gate(request)
                elif request.completed:
                    form_body = None if request.is_discarded else request.form_body
                    if form_body is not None and not request.error:
                        self._paused = True  # until `form_written`
                        form_body.end()
                    elif self._answer_or_discard(request) and request.error:
                        data = b""  # the connection ends with this answer
            self._ahead = data
            is_at_hand = bool(self.requests) and self.requests[0].answer is not None
        if is_at_hand and not self._send_at_once():
            self.service()  # takes the lock
        return True

    def _send_at_once(self) -> bool:
        """Send the answer that is at hand, as `service` would; False if it has to do more.

        No worker has anything to do with this channel now, so no lock is taken.
        """
        request = self.requests[0]
        answer = request.answer
        assert answer is not None
        task = Task(self, request)
        head = task.head_of_answer() if len(self.requests) == 1 else None
        if head is None or not self.connected:
            return False
        has_body = answer.status not in (204, 304)
        body, length = (answer.body, answer.length) if has_body else (b"", 0)
        first, rest = head + body[:LARGE], memoryview(body)[LARGE:]  # the rest is not copied
        self._turn = _TURN
        sent = self.send(first)
        if (rest or sent < len(first)) and self.connected:
            # No output is waiting (see `_may_answer`), so waitress' buffer for more is empty.
            self.outbufs[:0] = [SharedBytes(first[sent:]), SharedBytes(rest)]
            self.total_outbufs_len += len(first) - sent + len(rest)
            if sent == len(first):
                self._flush_exception(self._flush_some)
        if answer.rest is not None:
            self._send_rest(answer.rest)
        self.answered(request)
        task.environ = request.environ
        task.tell(answer.status, length)
        request.close()
        with self.requests_lock:
            self.requests.remove(request)
        self._ask_gate_next()
        return True

    def _send_rest(self, rest: GrowingFile) -> None:
        """Queue the rest of a body, which a worker reads and sends as it arrives."""
        buffer = GrowingBuffer(rest, self)
        with self.outbuf_lock:
            if self.connected:
                # As waitress' `write_soon`, but that would read some of it.
                self.outbufs += [buffer, OverflowableBuffer(self.adj.outbuf_overflow)]
                self.current_outbuf_count = 0
                self.total_outbufs_len += len(buffer)
                return
        buffer.close()

    def _have_at_hand(self, request: Request) -> bool:
        """Whether no worker is needed: the loop can answer this itself, or it has to wait.

        For a page of a mirror that is new here, the two changes of threads which this saves, and
        the work of the application until it finds that it has to wait, were a fifth of the time.
        """
        if not self._may_answer(request):
            return False
        try:
            environ = Task(self, request).get_environment()
            if self.running.find_client(environ):
                request.answer = self.running.at_once(environ)
        except Later as later:
            self._park(later)
        except Exception:
            logger.exception("no answer at hand for %r", request.path)
        return request.answer is not None or self._parked is not None

    def _may_answer(self, request: Request) -> bool:
        """Whether the loop may answer this, if it has an answer."""
        # If output is waiting, even a short answer could have to wait for the client.
        is_plain = request.command == "GET" and request.body_rcv is None
        return is_plain and not self.total_outbufs_len

    def _park(self, later: Later) -> None:
        """Let the first request wait for its answer without a thread."""
        self.requests[0].answer_wait.begin(later)
        self._parked = parked = Parked(self, later)
        parked.begin()

    def handle_write(self) -> None:
        if self.will_close:
            self.handle_close()
            return
        first = self.outbufs[0]
        if isinstance(first, GrowingBuffer) and first.is_broken:
            self.handle_close()  # before its announced end, so the client sees that it is cut off
            return
        # Reading a file may block, also when it comes after something else, so a worker does it.
        if any(type(each) in (ReadOnlyFileBasedBuffer, GrowingBuffer) for each in [*self.outbufs]):
            self._sending = True
            self.running.pools.sending.add(self.send_from_file, self.share)
            return
        self._turn = _TURN
        self._flush_exception(self._flush_some_if_lockable if self.requests else self._flush_some)
        if self.connected and self.close_when_flushed and not self.total_outbufs_len:
            self._end()

    def handle_close(self) -> None:
        super().handle_close()
        if self._parked is not None:
            self.resume(self._parked)  # a worker ends it
        request, self.request = self.request, None
        if request is not None:
            request.close()

    # Called in the loop, by workers through the trigger or by the engine.

    def decided(self, request: Request, verdict: Verdict | None) -> None:
        """Apply the verdict of the gate; None if the gate failed."""
        if self.request is not request:
            return  # the client has gone
        with self.requests_lock:
            self._apply(request, verdict)
            is_decided = request.form is not None and request.form_body is None
            if (request.completed or is_decided) and self._answer_or_discard(request):
                return
            if request.wants_continue:
                self.send_continue()
        self._continue_reading()

    def form_written(self, request: Request) -> None:
        """Go on with a form: what was queued of it is on the disk, or it has failed."""
        body = request.form_body
        if self.request is not request or body is None or request.is_discarded:
            return
        if body.is_settled:
            with self.requests_lock:
                is_answered = self._answer_or_discard(request)
            if is_answered and request.is_read:
                self._continue_reading()

    def resume(self, parked: Parked) -> None:
        """Answer a request that waits, if its answer was prepared; else call the application."""
        if self._parked is not parked:
            parked.drop()
            return
        self._parked = None
        parked.end()
        request = self.requests[0]
        if parked.answer is not None and self.connected and self._may_answer(request):
            request.answer = parked.answer
            if self._send_at_once():
                return
            if parked.answer.rest is None:
                self.service()
                return
            request.answer = None
        parked.drop()
        self.server.add_task(self)

    def resume_if_overdue(self) -> None:
        """Do the same when the request has waited too long."""
        if self._parked is not None and self.requests[0].answer_wait.is_over:
            self.resume(self._parked)

    def sent(self) -> None:
        """Note that a worker has sent what the socket took."""
        self._sending = False

    def _continue_reading(self) -> None:
        ahead, self._ahead = self._ahead, b""
        self._paused = False
        if ahead and self.connected:
            self.received(ahead)

    def _ask_gate(self, request: Request) -> None:
        # `100 Continue` must not overtake an answer. If there is one, `service` asks after it.
        if not self.requests:
            request.asked_gate = True
            decide = partial(self.decide, request)
            self.running.pools.deciding.add(decide, self.share_of(request))

    def _apply(self, request: Request, verdict: Verdict | None) -> None:
        limit = self.running.max_body_bytes
        match verdict:
            case None:
                request.fail(plain_answer(500, "the server failed"))
            case Answer():
                request.fail(verdict)
            case ReceiveForm():
                try:
                    receiver = FormReceiver(
                        request.headers.get("CONTENT_TYPE", ""), verdict.folder, verdict.limits
                    )
                except InvalidUpload as error:
                    request.form = error
                else:
                    request.form = receiver
                    written = partial(self.form_written, request)
                    request.form_body = FormBody(
                        receiver,
                        partial(self.running.pools.receiving.add, share=self.share_of(request)),
                        partial(self.server.trigger.pull_trigger, written),
                    )
                    request.body_rcv.buf = request.form_body
            case PassOn():
                limit = min(limit, verdict.max_body_bytes)
                request.body_rcv.buf = OverflowableBuffer(limit + 1)
        request.max_body_bytes = limit
        if not request.completed and request.content_length > limit:
            request.fail(too_large(limit))

    def _answer_or_discard(self, request: Request) -> bool:
        """Hand a request over to be answered, unless the rest of it has to be read first."""
        if request.hides_early_answers:
            request.discard()
            return False
        self._hand_over(request)
        return True

    def _hand_over(self, request: Request) -> None:
        """Have a request answered, by a worker unless its answer is at hand."""
        self.request = None
        self._must_linger = bool(request.error) or not request.is_read
        self.requests.append(request)
        if len(self.requests) > 1:
            return  # the worker that answers the request before it goes on with this one
        if request.error or not self._have_at_hand(request):
            self.server.add_task(self)

    def _end(self) -> None:
        """Close after the last answer, and do so in a way that the client can read it.

        If it is still sending, closing at once would make the kernel send a reset, which can
        overtake the answer.
        """
        if self._must_linger:
            with contextlib.suppress(OSError):
                self.socket.shutdown(socket.SHUT_WR)
                self.close_when_flushed = False
                self._is_lingering = True
                return
        self.handle_close()

    # Called by workers.

    def decide(self, request: Request) -> None:
        """Ask the gate, and tell the loop its verdict."""
        if not self.connected:
            return
        verdict: Verdict | None = None
        try:
            environ = WSGITask(self, request).get_environment()
            self.running.find_client(environ)
            head = RequestHead(
                method=environ["REQUEST_METHOD"],
                path=request.path_info,
                headers=dict(request.headers),
                content_length=None if request.chunked else request.content_length,
                remote_addr=environ["REMOTE_ADDR"],
                request_id=request.id,
            )
            verdict = self.running.gate(head)
        except Exception:
            logger.exception("the gate failed for %s", request.path)
        self.server.trigger.pull_trigger(partial(self.decided, request, verdict))

    def service(self) -> None:
        try:
            super().service()
        except Later as later:
            self._park(later)
            parked = self._parked
            if parked is not None and not self.connected:  # the loop has closed it meanwhile
                self.server.trigger.pull_trigger(partial(self.resume, parked))
            return
        self._ask_gate_next()

    def _ask_gate_next(self) -> None:
        """Ask the gate about the request after one that was answered, if that waits for it."""
        with self.requests_lock:
            request = self.request
            if request is not None and request.awaits_verdict and not self.close_when_flushed:
                self._ask_gate(request)

    def answered(self, request: Request) -> None:
        """Note whose answer was handed over. The client may still have to take some of it."""
        self._answer_is_let_in = request.is_let_in

    def write_soon(self, data: Any) -> int:
        self._turn = _TURN
        if isinstance(data, bytes) and len(data) >= LARGE:
            data = SharedBytes(data)
        written: int = super().write_soon(data)
        return written

    def send(self, data: bytes | memoryview, do_close: bool = True) -> int:
        """Send, unless the turn of this client is over: then act as if its socket were full."""
        if self._turn <= 0:
            return 0
        sent: int = super().send(memoryview(data)[: self._turn], do_close)
        self._turn -= sent
        self._sent += sent
        return sent

    def send_from_file(self) -> None:
        with self.outbuf_lock:
            self._turn = _TURN
            if self.connected:
                self._flush_exception(self._flush_some, do_close=False)
                if self.total_outbufs_len < self.adj.outbuf_high_watermark:
                    self.outbuf_lock.notify()
        self.server.trigger.pull_trigger(self.sent)
