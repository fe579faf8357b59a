"""Requests and answers as waitress has them, with what a gate adds; they own no socket."""

from __future__ import annotations

import logging
import random
import re
import sys
import time
from io import BytesIO
from typing import TYPE_CHECKING, Any

from waitress.channel import ClientDisconnected
from waitress.parser import HTTPRequestParser
from waitress.task import ErrorTask, WSGITask
from waitress.task import Task as WaitressTask
from waitress.utilities import BadRequest, InternalServerError

from private_pypi.errors import PrivatePypiError
from private_pypi.web.receiving import READ_SIZE, RECEIVED_FORM, FormReceiver
from private_pypi.web.serving.gate import CLIENT_WENT, REQUEST_ID, Answer, Exchange, Refuse

if TYPE_CHECKING:
    from private_pypi.web.serving.channel import FormBody

logger = logging.getLogger(__name__)

LARGE = 64 * 1024  # bytes; from here on, what is sent is not copied into waitress' buffers


# What others use: hex, UUIDs, base64, and `Root=1-67891233-abcdef012345`.
_SANE_ID = re.compile(r"[A-Za-z0-9._:+/=-]{1,128}")


class Request(HTTPRequestParser):  # type: ignore[misc]
    """A request that waits, after its head, for a verdict about its body."""

    # waitress sets these only when it can read the head
    command = "GET"
    path = "/"
    url_scheme = ""  # after all others
    expect_continue: bool

    def __init__(self, adj: Any) -> None:
        super().__init__(adj)
        self.began = time.time()
        self.wants_continue = False
        self.asked_gate = False
        self.max_body_bytes = sys.maxsize
        self.form: FormReceiver | PrivatePypiError | None = None
        self.form_body: FormBody | None = None
        self.answer: Answer | None = None  # when it was at hand
        self.swallows_since: float | None = None  # answered already, but not to be told yet
        self.environ: dict[str, Any] | None = None  # with which that was asked for
        self._id = ""

    @property
    def id(self) -> str:
        """What the client calls it, if that can stand in a header and a log; else random."""
        if not self._id:
            said = self.headers.get("X_REQUEST_ID")
            sane = said is not None and _SANE_ID.fullmatch(said)
            self._id = said if sane else f"{random.getrandbits(64):016x}"
        return self._id

    def received(self, data: bytes) -> int:
        if not self.headers_finished:
            try:
                taken: int = super().received(data)
            except ValueError:  # of urlsplit or int; the loop would close without a word
                self.fail(BadRequest("The head of the request cannot be read"))
                return len(data)
            # waitress would answer it by itself
            self.wants_continue, self.expect_continue = self.expect_continue, False
            return taken
        body = self.body_rcv
        taken = body.received(data)
        self.body_bytes_received += taken
        if self.swallows_since is not None:
            self.completed = bool(body.completed or body.error)
            return taken
        if body.error:
            self.fail(body.error)
        elif len(body) > self.max_body_bytes:
            self.fail(too_large(self.max_body_bytes))
        elif self.body_bytes_received > 8 * len(body) + LARGE:  # a chunk of one byte takes six
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
    def hides_early_answers(self) -> bool:
        """Whether an answer before the end of the body would not reach the client.

        A proxy may cut a client of HTTP/1 off when it hears one, as Go's do (Caddy among them):
        the client sees a broken connection, and tries again. `Via` says that there is one, and
        how the client speaks (RFC 9110 §7.6.3). Who awaits `100 Continue` is not sending yet.
        """
        if self.is_read or self.wants_continue or self.swallows_since is not None:
            return False
        nearest = self.headers.get("VIA", "").rpartition(",")[2].split()
        protocol = nearest[0].upper().removeprefix("HTTP/") if nearest else ""
        return protocol.startswith("1.") and not self.body_rcv.error

    def swallow(self) -> None:
        """Read on to the end of the body, and drop it; only then is it to be answered."""
        self.swallows_since = time.time()
        self.body_rcv.buf = Swallowed(self.body_rcv.buf)
        self.completed = False

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


class Swallowed:
    """Stands where waitress keeps the bytes of a body that nobody wants any more."""

    def __init__(self, before: Any) -> None:
        self._before = before  # what there is of it already

    def append(self, data: bytes) -> None:
        pass

    def __len__(self) -> int:
        return 0

    def getfile(self) -> BytesIO:
        return BytesIO()

    def close(self) -> None:
        self._before.close()


class Refusal:
    """A verdict in the form in which waitress knows errors."""

    def __init__(self, refusal: Refuse) -> None:
        self._refusal = refusal

    def to_response(self, ident: str | None = None) -> tuple[str, list[tuple[str, str]], bytes]:
        refusal = self._refusal
        reason = " ".join(refusal.reason.split())
        reason = reason.encode("latin-1", "replace").decode("latin-1")
        return f"{refusal.status} {reason}", list(refusal.headers), refusal.body


def too_large(limit: int) -> Refusal:
    return plain_refusal(413, "Content Too Large", f"a body has at most {limit} bytes here")


def plain_refusal(status: int, reason: str, sentence: str) -> Refusal:
    headers = (("Content-Type", "text/plain; charset=utf-8"),)
    return Refusal(
        Refuse(status=status, reason=reason, headers=headers, body=sentence.encode() + b"\n")
    )


class _Watched(WaitressTask):  # type: ignore[misc]
    """An answer that bears the id of its request, and of which the watcher is told."""

    wrote_header: bool
    content_bytes_written: int
    environ: dict[str, Any] | None = None

    def service(self) -> None:
        status = None
        try:
            super().service()
        except ClientDisconnected:
            status = CLIENT_WENT
            raise
        except Exception:
            # A second answer says so, if nothing was sent yet; it does not know the request.
            status = int(self.status[:3]) if self.wrote_header else 500
            raise
        finally:
            watcher = self.channel.running.watcher
            if watcher is not None:
                try:
                    watcher.answered(self._exchange(status or int(self.status[:3])))
                except Exception:
                    logger.exception("an answer was not noted")

    def _exchange(self, status: int) -> Exchange:
        request = self.request
        sent = self.content_bytes_written
        if request.command == "HEAD" or not self.has_body:
            sent = 0
        elif self.content_length:  # of a file nothing else is known here
            sent = max(sent, self.content_length)
        return Exchange(request.id, self._seen(), status, sent, time.time() - request.began)

    def _seen(self) -> dict[str, Any] | None:
        """The environment of the request, with the address of the client."""
        raise NotImplementedError

    def build_response_header(self) -> bytes:
        header: bytes = super().build_response_header()
        return b"%sX-Request-ID: %s\r\n\r\n" % (header[:-2], self.request.id.encode())


class Failure(_Watched, ErrorTask):  # type: ignore[misc]
    """An answer without the application: of the gate, or of waitress."""

    def service(self) -> None:
        if isinstance(self.request.error, InternalServerError):
            ErrorTask.service(self)  # after an application that failed, of which was told
        else:
            super().service()

    def _seen(self) -> dict[str, Any] | None:
        if not self.request.url_scheme:
            return None
        environ = Task(self.channel, self.request).get_environment()
        self.channel.running.find_client(environ)
        return environ


class Task(_Watched, WSGITask):  # type: ignore[misc]
    """An answer of the application."""

    def _seen(self) -> dict[str, Any] | None:
        if self.request.answer is not None and self.environ is not None:
            self.channel.running.find_client(self.environ)
        return self.environ

    def get_environment(self) -> dict[str, Any]:
        environ: dict[str, Any] = super().get_environment()
        environ[REQUEST_ID] = self.request.id
        if self.request.form is not None:
            environ[RECEIVED_FORM] = self.request.form
        return environ

    def execute(self) -> None:
        if self.request.answer is None:
            super().execute()
            return
        self.environ = self.request.environ
        self.status, headers, body = self.request.answer
        self.response_headers.extend(headers)
        self.content_length = len(body)
        self.complete = True
        self.write(body)

    def set_close_on_finish(self) -> None:
        # waitress ends the connection after an answer whose length is not told; that of an answer
        # without a body (304, 204) is known all the same.
        closes = self.request.headers.get("CONNECTION", "").lower() == "close"
        if self.has_body or closes or self.version != "1.1":
            super().set_close_on_finish()

    def write(self, data: bytes) -> None:
        is_whole = self.complete and self.has_body and len(data) == self.content_length
        if self.wrote_header or not is_whole or len(data) >= LARGE:
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
