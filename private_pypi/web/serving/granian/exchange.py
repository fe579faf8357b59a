"""One request and its answer: the order of the default engine, as a coroutine."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from io import BytesIO
from typing import Any, NamedTuple, Protocol, TypeVar

from private_pypi.errors import InvalidUpload, PrivatePypiError
from private_pypi.web.serving.form_body import FormBody
from private_pypi.web.serving.gate import (
    CLIENT_CLOSED,
    LET_IN,
    Answer,
    Exchange,
    PassOn,
    ReceiveForm,
    RequestHead,
    Verdict,
)
from private_pypi.web.serving.granian.body import Body, CutOff, Expired
from private_pypi.web.serving.granian.connections import Connection, Connections
from private_pypi.web.serving.granian.head import Head, Scope
from private_pypi.web.serving.granian.piped import Piped
from private_pypi.web.serving.granian.responding import (
    LARGE,
    Application,
    Broken,
    FileBody,
    Response,
    call,
)
from private_pypi.web.serving.growing import WAITING, AnswerWait, Later
from private_pypi.web.serving.heads import hides_early_answers
from private_pypi.web.serving.pools import Pool
from private_pypi.web.serving.receiving import RECEIVED_FORM, FormReceiver
from private_pypi.web.serving.refusals import plain_answer, too_large, too_slow
from private_pypi.web.serving.running import RunningServer
from private_pypi.web.serving.timeouts import Stage

logger = logging.getLogger(__name__)

T = TypeVar("T")

_LARGEST_KEPT = 8 * 1024  # bytes of fields that a connection keeps for its next request


class ClientGone(Exception):
    """Nobody waits for the answer any more."""


class Watcher(Protocol):
    """What granian gives for each request."""

    scope: Scope
    proto: Any

    def taskref(self, task: asyncio.Task[None]) -> None:
        """Keep the task until granian has done with the request."""

    def done(self) -> None:
        """Send 500 if there was no answer."""

    def err(self, error: BaseException) -> None:
        """Send 500 if there was no answer, and write the error to the log."""


class _Begun(NamedTuple):
    """A request that was not answered at once."""

    head: Head
    environ: dict[str, Any]  # with what was found out
    answer: Answer | None  # if it is at hand, and large
    later: Later | None  # what it has to wait for, if this is known


@dataclass(slots=True, kw_only=True)
class Serving(RunningServer):
    """What all requests of a running server share. `take` is what granian calls."""

    application: Application
    connections: Connections
    max_head_bytes: int
    constant: dict[str, Any]
    """The part of the WSGI environment that all requests have."""
    ident: str  # the header `Server`
    folder: str  # of the open files of this process
    pipes: asyncio.Semaphore  # as many as there may be connections: HTTP/2 could ask for more
    running: set[asyncio.Task[Any]] = field(default_factory=set)
    opened: set[Piped] = field(default_factory=set)  # pipes from which granian reads
    is_leaving: bool = False  # each answer is the last one on its connection
    is_ended: bool = False  # granian was told to end, so it must not have to read from a pipe

    def take(self, loop: asyncio.AbstractEventLoop, watcher: Watcher) -> None:
        """Answer a request if the answer is at hand, or else have the loop do it.

        granian calls this in its thread for Python, in which only one request is at a time. To
        hand a request over to the loop takes about as long as to answer it. Raises nothing.
        """
        try:
            begun = self._begin(watcher.scope, watcher.proto)
            if begun is not None:
                loop.call_soon_threadsafe(self._start, loop, watcher, begun)
        except BaseException as error:
            watcher.err(error)

    def _begin(self, scope: Scope, protocol: Any) -> _Begun | None:
        """Answer a request; if the answer is not at hand, return what is known of it."""
        client = scope.client
        connection = self.connections.of(client)
        head = Head(scope, client, self.constant, self.max_head_bytes, connection.fields)
        connection.begun += 1
        answer: Answer | None = None
        later: Later | None = None
        environ = head.new_environ()
        fields = head.fields
        is_bare = head.problem is None and not fields.has_body
        connection.fields = fields if is_bare and fields.size <= _LARGEST_KEPT else None
        if is_bare and fields.method == "GET":
            try:
                answer = self._at_hand(environ)
            except Later as error:
                later = error
            if answer is not None and len(answer.body) <= LARGE:
                connection.was_let_in = bool(environ.get(LET_IN))
                headers = [*answer.headers, *self.own_headers(head)]
                protocol.response_bytes(answer.status, headers, answer.body)
                self.note(head, environ, answer.status, len(answer.body))
                return None
        return _Begun(head, environ, answer, later)

    def _start(self, loop: asyncio.AbstractEventLoop, watcher: Watcher, begun: _Begun) -> None:
        task = loop.create_task(self._answer(watcher, begun))
        self.running.add(task)
        task.add_done_callback(self.running.discard)
        watcher.taskref(task)

    async def _answer(self, watcher: Watcher, begun: _Begun) -> None:
        head, environ, answer, later = begun
        connection = self.connections.of(head.client)
        running = RunningExchange(self, head, environ, connection, watcher.proto, later)
        try:
            await running.run(answer)
        except asyncio.CancelledError:
            watcher.done()  # the server ends, and says how many connections it has cut
        except BaseException as error:
            watcher.err(error)
        else:
            watcher.done()

    def _at_hand(self, environ: dict[str, Any]) -> Answer | None:
        try:
            return self.at_once(environ) if self.find_client(environ) else None
        except Later:
            raise
        except Exception:
            logger.exception("no answer at hand for %r", environ["PATH_INFO"])
            return None

    def own_headers(self, head: Head, *, is_last: bool = False) -> list[tuple[str, str]]:
        """The headers that every answer has. `is_last`: nothing can follow on the connection."""
        own = [("Server", self.ident), ("X-Request-ID", head.id)]
        # HTTP/2 has no such header; there, granian tells clients at the end (RFC 9113 §6.8).
        if (is_last or self.is_leaving) and not head.is_http2:
            own.append(("Connection", "close"))
        return own

    def note(self, head: Head, environ: dict[str, Any], status: int, sent: int) -> None:
        """Tell the observer of an answer."""
        if self.observer is None:
            return
        seconds = time.monotonic() - head.began
        try:
            self.observer.answered(Exchange(head.id, environ, status, sent, seconds))
        except Exception:
            logger.exception("an answer was not noted")


class RunningExchange:
    """A request that is not answered at once."""

    def __init__(
        self,
        serving: Serving,
        head: Head,
        environ: dict[str, Any],
        connection: Connection,
        protocol: Any,
        later: Later | None,
    ) -> None:
        """`environ`: that of the head, with what was found out until the application is called.

        `later`: what it has to wait for, if this is known before the application is called.
        """
        self._serving = serving
        self._head = head
        self._connection = connection
        self._protocol = protocol
        self._later = later
        self._body = Body(protocol, head)
        self._environ = environ
        self._share = serving.share_of(head.path, head.field("HTTP_AUTHORIZATION"))
        self._form: FormReceiver | PrivatePypiError | None = None
        self._queue: FormBody | None = None  # of a form
        self._input = b""  # any other body
        self._kept = 0  # bytes of it so far
        self._piped: Piped | None = None
        self._stage = Stage.SERVER
        self._is_sent = False

    # For `connections`.

    @property
    def stage(self) -> Stage:
        """What it waits for."""
        if self._piped is not None:
            return Stage.SENDING if self._piped.waits_for_client else Stage.SERVER
        return self._stage

    @property
    def is_let_in(self) -> bool:
        """Whether a secret of this request was accepted so far."""
        return isinstance(self._form, FormReceiver) or bool(self._environ.get(LET_IN))

    @property
    def held(self) -> int:
        """How much memory its body takes, in bytes."""
        return 0 if self._form is not None else self._kept

    def expire(self) -> None:
        """End the body, because the client takes too long to send it."""
        self._body.expire()

    def gone(self) -> None:
        """Release what is being sent, because the client has gone."""
        if self._piped is not None:
            self._piped.stop()

    # Called by granian's coroutine.

    async def run(self, answer: Answer | None = None) -> None:
        """Answer it, with `answer` if it is at hand."""
        self._connection.requests.add(self)
        try:
            if self._head.problem is not None:
                problem = self._head.problem
                await self._refuse(plain_answer(problem.status, str(problem)))
            elif answer is not None:
                await self._send_response(_as_response(answer))
            elif not self._head.has_body:
                await self._answer()
            else:
                await self._receive()
        except CutOff:
            await self._refuse(plain_answer(400, "the body is cut off or malformed"), lingers=False)
        except ClientGone:
            self._note(CLIENT_CLOSED, 0)
        except Expired:
            await self._refuse(too_slow(), lingers=False)
        finally:
            self._connection.requests.discard(self)
            self._connection.was_let_in = self.is_let_in
            if self._queue is not None:
                self._queue.close()  # which deletes the file if it was not taken

    def _connection_ends(self) -> None:
        """Send nothing: the client has gone, or has to see that there is no answer."""
        self._serving.connections.cut_one(self._head.client)

    # The body.

    async def _receive(self) -> None:
        """Ask the gate about the body, receive it, and answer."""
        verdict = await self._ask_gate()
        limit = self._serving.max_body_bytes
        match verdict:
            case None:
                await self._refuse(plain_answer(500, "the server failed"))
                return
            case Answer():
                await self._refuse(verdict)
                return
            case PassOn():
                limit = min(limit, verdict.max_body_bytes)
            case ReceiveForm():
                try:
                    self._form = FormReceiver(
                        self._environ.get("CONTENT_TYPE", ""), verdict.folder, verdict.limits
                    )
                except InvalidUpload as error:
                    self._form = error
        length = self._head.content_length
        if length is not None and length > limit:
            await self._refuse(too_large(limit))
            return
        self._stage = Stage.BODY
        if self._form is None:
            is_taken = await self._receive_bytes(limit)
        else:
            is_taken = await self._receive_form(limit)
        self._stage = Stage.SERVER
        if not is_taken:
            await self._refuse(too_large(limit))
        elif self._body.is_read or not self._hides_early_answers:
            await self._answer()
            if not self._body.is_read:
                await self._discard(Stage.LINGERING)
        else:
            await self._discard(Stage.DISCARDING)
            await self._answer()

    async def _ask_gate(self) -> Verdict | None:
        environ = self._environ.copy()
        serving = self._serving

        def decide() -> Verdict:
            serving.find_client(environ)
            head = RequestHead(
                method=self._head.method,
                path=self._head.path,
                headers=self._head.headers(),
                content_length=self._head.content_length,
                remote_addr=environ["REMOTE_ADDR"],
                request_id=self._head.id,
            )
            return serving.gate(head)

        try:
            return await self._in(serving.pools.deciding, decide)
        except Exception:
            logger.exception("the gate failed for %s", self._head.path)
            return None

    async def _receive_bytes(self, limit: int) -> bool:
        """Keep the body in memory; returns whether it is within the limit."""
        data = bytearray()
        while piece := await self._body.read():
            data += piece
            self._kept = len(data)
            if len(data) > limit:
                return False
        self._input = bytes(data)
        return True

    async def _receive_form(self, limit: int) -> bool:
        """Have the body written to disk; returns whether it is within the limit."""
        form = self._form
        if not isinstance(form, FormReceiver):
            return True
        loop = asyncio.get_running_loop()
        news = asyncio.Event()
        self._queue = queue = FormBody(
            form,
            partial(self._serving.pools.receiving.add, share=self._share),
            partial(_call_soon, loop, news.set),
        )
        while piece := await self._body.read():
            if self._body.received > limit:
                return False
            queue.append(piece)
            self._stage = Stage.SERVER  # the client does not have to send now
            while queue.is_full:
                await _next(news)
            self._stage = Stage.BODY
            if queue.is_settled:  # it has failed
                break
        else:
            queue.end()
            while not queue.is_settled:
                await _next(news)
        if queue.error is not None:
            self._form = queue.error
        return True

    @property
    def _hides_early_answers(self) -> bool:
        """Whether an answer that is sent before the end of the body would not reach the client.

        A client that waits for `100 Continue` is not sending yet, so it can be answered.
        """
        is_asked = self._head.wants_continue and not self._body.received
        return not is_asked and hides_early_answers(self._environ.get("HTTP_VIA", ""))

    async def _refuse(self, answer: Answer, *, lingers: bool = True) -> None:
        """Answer without the application, and drop the rest of the body."""
        is_open = lingers and not self._body.is_read and self._head.problem is None
        if is_open and self._hides_early_answers:
            await self._discard(Stage.DISCARDING)
            is_open = False
        environ = self._environ.copy()
        self._serving.find_client(environ)
        self._send(answer.status, answer.headers, answer.body)
        self._serving.note(self._head, environ, answer.status, len(answer.body))
        if is_open:
            await self._discard(Stage.LINGERING)

    async def _discard(self, stage: Stage) -> None:
        """Read the rest of the body and drop it, so that the client can read the answer.

        If granian stopped to read while the client is still sending, the kernel would send a
        reset, which can overtake the answer.
        """
        self._stage = stage
        try:
            while await self._body.read():
                pass
        except CutOff:
            pass  # then there is nothing left to read
        except Expired:
            if self._is_sent:
                self._connection_ends()
        self._stage = Stage.SERVER

    # The answer.

    async def _answer(self) -> None:
        """Call the application, again and again while it has to wait, and send its answer."""
        serving, head = self._serving, self._head
        if head.method in ("GET", "HEAD") and not head.has_body:
            pool = serving.pools.reading(serving.kind_of(head.path))
        else:
            pool = serving.pools.writing
        wait, later = AnswerWait(), self._later
        while True:
            if later is not None:
                wait.begin(later)
                answer = await self._wait(later, wait)
                if answer is not None and head.method == "GET":
                    await self._send_response(_as_response(answer))
                    return
            # Anew, because the application reads the headers of proxies itself.
            self._environ = environ = head.new_environ()
            environ[WAITING] = wait.so_far()
            environ["wsgi.input"] = BytesIO(self._input)
            environ["wsgi.file_wrapper"] = FileBody
            if self._form is not None:
                environ[RECEIVED_FORM] = self._form
            if head.has_body:
                environ["CONTENT_LENGTH"] = str(self._body.received)
            try:
                response = await self._in(pool, partial(_call, serving.application, environ))
            except Exception:
                logger.exception("Exception while serving %s", head.path)
                response = None
            if not isinstance(response, Later):
                break
            later = response
        if response is None:
            answer = plain_answer(500, "the server failed; its log says why")
            response = _as_response(answer)
        try:
            await self._send_response(response)
        finally:
            if response.source is not None:
                serving.pools.sending.add(response.close, self._share)

    async def _wait(self, later: Later, wait: AnswerWait) -> Answer | None:
        """Wait until the application may be able to answer, and return what was prepared.

        Raises `ClientGone`.
        """
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        prepared: list[Answer | None] = []

        def wake() -> None:
            if later.prepare is not None and not gone.done():
                try:
                    answer = later.prepare()
                    if answer is not None and answer.rest is not None:
                        answer.rest.close()  # only a thread of a pool can send it
                        answer = None
                    prepared.append(answer)
                except Exception:
                    logger.exception("an answer could not be prepared")
            _call_soon(loop, ready.set)

        gone = asyncio.ensure_future(_gone(self._protocol))
        waiting = asyncio.ensure_future(ready.wait())
        later.call_when_ready(wake)
        try:
            await asyncio.wait(
                (gone, waiting), timeout=wait.left, return_when=asyncio.FIRST_COMPLETED
            )
            if gone.done():
                raise ClientGone
        finally:
            later.forget(wake)
            gone.cancel()
            waiting.cancel()
        return prepared[0] if prepared else None

    async def _send_response(self, response: Response) -> None:
        serving = self._serving
        sending = partial(self._in, serving.pools.sending)
        try:
            while response.source is not None and not response.is_long:
                await self._more(response)
                await sending(response.fill)
        except Broken:
            self._note(response.status, 0)
            self._connection_ends()
            return
        if not response.is_long:
            body = b"".join(response.pieces)
            self._send(response.status, response.headers, body)
            self._note(response.status, len(body))
            return
        async with serving.pipes:
            await self._pipe(response)

    async def _pipe(self, response: Response) -> None:
        """Send a long answer."""
        serving = self._serving
        if serving.is_ended:  # the request came in the same moment
            self._note(CLIENT_CLOSED, 0)
            self._connection_ends()
            return
        add = partial(serving.pools.sending.add, share=self._share)
        self._piped = piped = Piped(response, add, serving.folder, serving.opened)
        response.source, response.pieces = None, []  # which `piped` releases
        self._protocol.response_file(response.status, self._with_own(response.headers), piped.path)
        self._is_sent = True
        is_whole = await piped.send()
        self._piped = None
        self._note(response.status if is_whole else CLIENT_CLOSED, piped.moved)
        if not is_whole:
            self._connection_ends()  # so that it is not taken for the end of the body

    async def _more(self, response: Response) -> None:
        """Wait until more of a short body has arrived."""
        assert response.source is not None
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        wake = partial(_call_soon, loop, ready.set)
        response.source.call_when_more(wake)
        try:
            await ready.wait()
        finally:
            if response.source is not None:
                response.source.forget(wake)

    def _send(self, status: int, headers: Sequence[tuple[str, str]], body: bytes) -> None:
        """Hand a whole answer over to granian."""
        self._is_sent = True
        if self._head.method == "HEAD" or not body:
            self._protocol.response_empty(status, self._with_own(headers))
        else:
            self._protocol.response_bytes(status, self._with_own(headers), body)

    def _with_own(self, headers: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
        """The headers as granian takes them, with those that every answer has."""
        # granian fails for a value that is not ASCII.
        own = [(name, value.encode("ascii", "replace").decode()) for name, value in headers]
        is_last = not self._body.is_read or self._head.problem is not None
        return own + self._serving.own_headers(self._head, is_last=is_last)

    def _note(self, status: int, sent: int) -> None:
        self._serving.note(self._head, self._environ, status, sent)

    # Workers.

    async def _in(self, pool: Pool, work: Callable[[], T]) -> T:
        """Do this in a thread of the pool; returns or raises what it does."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()
        pool.add(partial(_do, work, done, loop), self._share)
        return await done


def _do(work: Callable[[], T], done: asyncio.Future[T], loop: asyncio.AbstractEventLoop) -> None:
    """Do this in a worker, and tell the loop what came of it."""
    result: Any = None
    problem: BaseException | None = None
    try:
        result = work()
    except BaseException as error:
        problem = error

    def tell() -> None:
        if done.done():  # cancelled, because the server ends
            if isinstance(result, Response):
                result.close()
        elif problem is not None:
            done.set_exception(problem)
        else:
            done.set_result(result)

    try:
        loop.call_soon_threadsafe(tell)
    except RuntimeError:  # the loop has ended
        if isinstance(result, Response):
            result.close()


def _as_response(answer: Answer) -> Response:
    """A whole answer as one of the application."""
    size = len(answer.body)
    return Response(answer.status, list(answer.headers), [answer.body], None, size)


def _call(application: Application, environ: dict[str, Any]) -> Response | Later:
    try:
        return call(application, environ)
    except Later as later:
        return later


def _call_soon(loop: asyncio.AbstractEventLoop, call: Callable[[], object]) -> None:
    """Have the loop make a call, from any thread, unless it has ended."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(call)


async def _next(news: asyncio.Event) -> None:
    await news.wait()
    news.clear()


async def _gone(protocol: Any) -> None:
    await protocol.client_disconnect()
