"""Requests and answers as waitress has them, with what a gate adds; they own no socket."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

from waitress.parser import HTTPRequestParser
from waitress.task import WSGITask
from waitress.utilities import BadRequest

from private_pypi.errors import PrivatePypiError
from private_pypi.web.receiving import READ_SIZE, RECEIVED_FORM, FormReceiver
from private_pypi.web.serving.gate import Answer, Refuse

if TYPE_CHECKING:
    from private_pypi.web.serving.channel import FormBody

LARGE = 64 * 1024  # bytes; from here on, what is sent is not copied into waitress' buffers


class Request(HTTPRequestParser):  # type: ignore[misc]
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
        self.form_body: FormBody | None = None
        self.answer: Answer | None = None  # when it was at hand

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


class Task(WSGITask):  # type: ignore[misc]
    """An answer of the application."""

    wrote_header: bool
    content_bytes_written: int

    def get_environment(self) -> dict[str, Any]:
        environ: dict[str, Any] = super().get_environment()
        if self.request.form is not None:
            environ[RECEIVED_FORM] = self.request.form
        return environ

    def execute(self) -> None:
        if self.request.answer is None:
            super().execute()
            return
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
