"""Requests and answers in the form that waitress wants, with what our gate adds to them."""

from __future__ import annotations

import functools
import logging
import re
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from waitress.buffers import OverflowableBuffer
from waitress.channel import ClientDisconnected
from waitress.parser import HTTPRequestParser
from waitress.task import ErrorTask, WSGITask
from waitress.task import Task as WaitressTask
from waitress.utilities import InternalServerError, build_http_date

from private_pypi.errors import PrivatePypiError
from private_pypi.web.serving.gate import (
    CLIENT_CLOSED,
    LET_IN,
    REQUEST_ID,
    Answer,
    Exchange,
)
from private_pypi.web.serving.growing import WAITING, AnswerWait, Later
from private_pypi.web.serving.heads import BadFraming, hides_early_answers, path_info, request_id
from private_pypi.web.serving.receiving import READ_SIZE, RECEIVED_FORM, FormReceiver
from private_pypi.web.serving.refusals import plain_answer, too_large
from private_pypi.web.serving.waitress.framing import ChunkedBody, Head, check_head
from private_pypi.web.serving.waitress.waiting import wrapper_for

if TYPE_CHECKING:
    from private_pypi.web.serving.form_body import FormBody

logger = logging.getLogger(__name__)

LARGE = 64 * 1024  # bytes; a body of this size is not copied into the buffers of waitress

# Without a query, escapes or an empty segment, so that it is the path as it stands.
_PLAIN_START = re.compile(rb"(GET|HEAD) ((?:/[A-Za-z0-9._~+!-]+)+/?|/) HTTP/1\.1")


@dataclass(slots=True, eq=False)
class KnownFields:
    """The fields of a request without a body that was accepted, in all forms that are needed.

    Requests with other fields have another object: a request may be answered while the next one on
    its connection is being read, perhaps one of somebody else.
    """

    text: bytes  # as they were sent
    headers: Mapping[str, str]
    environ: Mapping[str, Any] | None = None  # of WSGI, before the application had it


@dataclass(slots=True)
class RepeatedFields:
    """What one connection knows of its last such request.

    Clients send the same fields with each request, and to check and to convert them takes longer
    than many an answer. So this is only done again if they differ in any byte.
    """

    last: KnownFields | None = None


class Request(HTTPRequestParser):  # type: ignore[misc]
    """A request, which waits after its head for the gate's verdict about its body."""

    # Only set by waitress if it can read the head, url_scheme last.
    command = "GET"
    path = "/"
    url_scheme = ""
    expect_continue: bool
    completed: bool
    error: Any
    body_rcv: Any

    def __init__(self, adj: Any, repeated: RepeatedFields | None = None) -> None:
        """`repeated`: those of the connection."""
        super().__init__(adj)
        self._repeated = repeated
        self.known_fields: KnownFields | None = None  # those of this request
        self.began = time.monotonic()
        self.wants_continue = False
        self.asked_gate = False
        self.max_body_bytes = sys.maxsize
        self.form: FormReceiver | PrivatePypiError | None = None
        self.form_body: FormBody | None = None
        self.answer: Answer | None = None  # if it was at hand
        self.is_discarded = False  # refused, but the answer is sent only after the body
        self.environ: dict[str, Any] | None = None  # given to the application or to `at_once`
        self._head = Head(adj.max_request_header_size)
        self.answer_wait = AnswerWait()
        self._id = ""

    @property
    def id(self) -> str:
        """See `heads.request_id`."""
        if not self._id:
            self._id = request_id(self.headers.get("X_REQUEST_ID"))
        return self._id

    def received(self, data: bytes) -> int:
        """Take the beginning of `data` that belongs to this request, and return its length."""
        if not self.headers_finished:
            return self._receive_head(data)
        body = self.body_rcv
        taken: int = body.received(data)
        self.body_bytes_received += taken
        if self.is_discarded:
            self.completed = bool(body.completed or body.error)
            return taken
        if body.error:
            self.refuse(body.error)
        elif len(body) + (body.left if self.chunked else 0) > self.max_body_bytes:
            self.fail(too_large(self.max_body_bytes))
        elif self.body_bytes_received > 2 * len(body) + LARGE:
            # Most of what arrives is the framing of chunks and not content. In chunks of six
            # bytes it would be one half.
            self.refuse(BadFraming("The chunks of the body are too small; send larger ones"))
        elif body.completed:
            self.completed = True
            if self.chunked:
                self.headers["CONTENT_LENGTH"] = str(len(body))
        return taken

    def _receive_head(self, data: bytes) -> int:
        try:
            taken, head = self._head.feed(data)
        except BadFraming as error:
            self.refuse(error)
            return len(data)
        if head is None:
            return taken
        first_line, _, fields = head.partition(b"\r\n")
        if self._repeats(first_line, fields):
            return taken
        host: bytes | None = None
        problem: BadFraming | None = None
        try:
            host = check_head(head)
        except BadFraming as error:
            problem = error
        # waitress reads a refused head as well, so that the log can show its address.
        try:
            super().received(head)
        except ValueError:  # of urlsplit or int
            problem = problem or BadFraming("The head of the request cannot be read")
        if problem is not None:
            self.refuse(problem)
            return len(data)
        if host is not None:
            self.headers["HOST"] = host.decode("latin-1")
        connection = self.headers.get("CONNECTION", "").lower().split(",")
        if "close" in (option.strip() for option in connection):
            self.headers["CONNECTION"] = "close"  # waitress compares the whole field with this
        # Reset, so that waitress does not send `100 Continue` before the gate is asked.
        self.wants_continue, self.expect_continue = self.expect_continue, False
        if self._repeated is not None and _PLAIN_START.fullmatch(first_line) and self._is_bare:
            self._repeated.last = self.known_fields = KnownFields(fields, dict(self.headers))
        return taken

    @property
    def _is_bare(self) -> bool:
        """Whether it was accepted and nothing but its head belongs to it."""
        return self.completed and not self.error and "CONTENT_LENGTH" not in self.headers

    def _repeats(self, first_line: bytes, fields: bytes) -> bool:
        """Whether all but the path is as in the request before, which was accepted.

        Then the attributes are set that `parse_header` of waitress would set.
        """
        known = None if self._repeated is None else self._repeated.last
        if known is None or fields != known.text:
            return False
        start = _PLAIN_START.fullmatch(first_line)
        if start is None:
            return False
        self.first_line = first_line
        self.headers = dict(known.headers)
        self.command, self.version = start[1].decode(), "1.1"
        self.request_uri = self.path = start[2].decode()
        self.proxy_scheme = self.proxy_netloc = self.query = self.fragment = ""
        self.url_scheme = self.adj.url_scheme
        self.headers_finished = self.completed = True
        self.known_fields = known
        return True

    def parse_header(self, header_plus: bytes) -> None:
        """Do as waitress does, but parse a chunked body with our own class."""
        super().parse_header(header_plus)
        if self.chunked:
            self.body_rcv = ChunkedBody(self.body_rcv.buf)

    @property
    def path_info(self) -> str:
        """See `heads.path_info`."""
        return path_info(self.path, self.adj.url_prefix)

    @property
    def has_begun(self) -> bool:
        """Whether anything but empty lines has arrived."""
        return self.headers_finished or self._head.has_begun

    @property
    def held(self) -> int:
        """How much memory it takes, in bytes. A form is written to disk, so it does not count."""
        if self.form_body is not None or self.is_discarded or self.body_rcv is None:
            return self._head.held
        return self._head.held + len(self.body_rcv)

    @property
    def is_full(self) -> bool:
        """Whether some of the body has to be written to disk before more is read."""
        return self.form_body is not None and self.form_body.is_full

    @property
    def is_let_in(self) -> bool:
        """Whether a secret of this request was accepted so far."""
        return self.form_body is not None or bool(self.environ and self.environ.get(LET_IN))

    def refuse(self, error: BadFraming) -> None:
        """Answer that the request is malformed, and read no more of it."""
        self.fail(plain_answer(error.status, str(error)))

    def fail(self, answer: Answer) -> None:
        """Answer with this, and read no more of the request."""
        self.error = _AnswerAsError(answer)
        self.completed = True

    @property
    def hides_early_answers(self) -> bool:
        """Whether an answer that is sent before the end of the body would not reach the client.

        A client that waits for `100 Continue` is not sending yet, so it can be answered.
        """
        if self.is_read or self.wants_continue or self.is_discarded:
            return False
        return hides_early_answers(self.headers.get("VIA", "")) and not self.body_rcv.error

    def discard(self) -> None:
        """Read the rest of the body and drop it; the answer is sent after that."""
        self.is_discarded = True
        self.body_rcv.buf = Discarded(self.body_rcv.buf)
        self.completed = False

    @property
    def awaits_verdict(self) -> bool:
        return self.headers_finished and not self.completed and not self.asked_gate

    @property
    def read_size(self) -> int:
        if self.form_body is None:
            return int(self.adj.recv_bytes)
        # Small chunks take the loop some time to parse, so fewer of them are read at a time.
        return LARGE if self.chunked else READ_SIZE

    @property
    def is_read(self) -> bool:
        """Whether all of it was read from the socket."""
        return self.body_rcv is None or self.body_rcv.completed


class Discarded(OverflowableBuffer):  # type: ignore[misc]
    """The buffer for the rest of a body that is dropped. It stays empty."""

    def __init__(self, before: Any) -> None:
        super().__init__(1)  # with 0 it would make a temporary file
        self._before = before  # the buffer with the beginning of the body

    def append(self, data: bytes) -> None:
        pass

    def close(self) -> None:
        self._before.close()


class _AnswerAsError:
    """An answer in the form in which waitress has errors."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    def to_response(self, ident: str | None = None) -> tuple[str, list[tuple[str, str]], bytes]:
        answer = self._answer
        reason = " ".join(answer.reason.split())
        reason = reason.encode("latin-1", "replace").decode("latin-1")
        return f"{answer.status} {reason}", list(answer.headers), answer.body


@functools.lru_cache(maxsize=1)
def _http_date(second: int) -> str:
    return str(build_http_date(second))


class _ObservedTask(WaitressTask):  # type: ignore[misc]
    """An answer that has the id of its request as a header, and is reported to the observer."""

    wrote_header: bool
    content_bytes_written: int
    environ: dict[str, Any] | None = None

    def service(self) -> None:
        status = None
        is_answered = True
        try:
            super().service()
        except Later:
            is_answered = False
            raise
        except ClientDisconnected:
            status = CLIENT_CLOSED
            raise
        except Exception:
            # If nothing was sent yet, waitress sends a `Failure` next, which is not reported.
            status = int(self.status[:3]) if self.wrote_header else 500
            raise
        finally:
            self.channel.answered(self.request)
            if is_answered:
                self.tell(status or int(self.status[:3]), self._sent)

    @property
    def _sent(self) -> int:
        """Bytes of the body that were handed over."""
        if self.request.command == "HEAD" or not self.has_body:
            return 0
        # The loop sends files, so their bytes are not counted in `content_bytes_written`.
        return max(self.content_bytes_written, self.content_length or 0)

    def tell(self, status: int, sent: int) -> None:
        """Report the answer to the observer."""
        request, observer = self.request, self.channel.running.observer
        if observer is None:
            return
        try:
            seconds = time.monotonic() - request.began
            environ = self._observed_environ()
            observer.answered(Exchange(request.id, environ, status, sent, seconds))
        except Exception:
            logger.exception("an answer was not noted")

    def _observed_environ(self) -> dict[str, Any] | None:
        """The environment of the request with the address of the client; None if unreadable."""
        raise NotImplementedError

    def build_response_header(self) -> bytes:
        header: bytes = super().build_response_header()
        return b"%sX-Request-ID: %s\r\n\r\n" % (header[:-2], self.request.id.encode())


class Failure(_ObservedTask, ErrorTask):  # type: ignore[misc]
    """An answer that does not come from the application, but from the gate or from waitress."""

    def service(self) -> None:
        if isinstance(self.request.error, InternalServerError):
            ErrorTask.service(self)  # the application failed, and this was reported already
        else:
            super().service()

    def _observed_environ(self) -> dict[str, Any] | None:
        if not self.request.url_scheme:
            return None
        environ = Task(self.channel, self.request).get_environment()
        self.channel.running.find_client(environ)
        return environ


class Task(_ObservedTask, WSGITask):  # type: ignore[misc]
    """An answer of the application."""

    def _observed_environ(self) -> dict[str, Any] | None:
        return self.environ

    def get_environment(self) -> dict[str, Any]:
        if self.environ is not None:
            return self.environ
        request = self.request
        known = request.known_fields
        environ: dict[str, Any]
        if known is None or known.environ is None:
            environ = super().get_environment()
            environ["wsgi.file_wrapper"] = wrapper_for(self.channel)
            if known is not None:
                known.environ = dict(environ)
        else:
            environ = {
                **known.environ,
                "REQUEST_METHOD": request.command,
                "REQUEST_URI": request.request_uri,
                "wsgi.input": request.get_body_stream(),
            }
            self.environ = environ
        environ["PATH_INFO"] = request.path_info
        environ[REQUEST_ID] = request.id
        environ[WAITING] = request.answer_wait.so_far()
        form_body = request.form_body
        form = request.form if form_body is None else form_body.error or request.form
        if form is not None:
            environ[RECEIVED_FORM] = form
        request.environ = environ
        return environ

    def head_of_answer(self) -> bytes | None:
        """The head of an answer that is at hand; None if the connection ends with it.

        It has the fields that waitress adds as well. To have waitress do so takes as long as
        everything else that the loop does for a request.
        """
        request, answer = self.request, self.request.answer
        connection = request.headers.get("CONNECTION", "").lower()
        if request.version != "1.1" or connection == "close" or self.channel.must_close(request):
            return None
        lines = [f"HTTP/1.1 {answer.status} {answer.reason}"]
        lines += [f"{name}: {value}" for name, value in answer.headers if name != "Content-Length"]
        if answer.status not in (204, 304):
            lines.append(f"Content-Length: {answer.length}")
        lines += [
            f"Date: {_http_date(int(time.time()))}",
            f"Server: {self.channel.server.adj.ident}",
            f"X-Request-ID: {request.id}\r\n\r\n",
        ]
        return "\r\n".join(lines).encode("latin-1")

    def execute(self) -> None:
        answer = self.request.answer
        if answer is None:
            super().execute()
            return
        self.environ = self.request.environ
        self.status = f"{answer.status} {answer.reason}"
        self.response_headers.extend(answer.headers)
        self.content_length = len(answer.body)
        self.complete = True
        self.write(answer.body)

    def set_close_on_finish(self) -> None:
        # waitress closes the connection after an answer without a Content-Length. An answer that
        # has no body (304, 204) needs none, so the connection can stay open.
        closes = self.request.headers.get("CONNECTION", "").lower() == "close"
        if self.has_body or closes or self.version != "1.1":
            super().set_close_on_finish()

    def write(self, data: bytes) -> None:
        is_whole = self.complete and self.has_body and len(data) == self.content_length
        if self.wrote_header or not is_whole or len(data) >= LARGE:
            super().write(data)
            return
        # Send head and body together, in one packet and with one system call.
        head = self.build_response_header()
        self.wrote_header = True
        self.content_bytes_written += len(data)
        self.channel.write_soon(head + data)

    def build_response_header(self) -> bytes:
        if self.channel.must_close(self.request):
            self.request.headers["CONNECTION"] = "close"
        header: bytes = super().build_response_header()
        return header
