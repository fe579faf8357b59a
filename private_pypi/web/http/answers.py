"""Errors as HTTP answers: which status they have, and in which form clients show the text.

This module does not use Flask, because the gate also answers with errors.
"""

from __future__ import annotations

import html
import json
from collections.abc import Sequence

from private_pypi.errors import (
    AccessError,
    AlreadyConfigured,
    BackendError,
    BackendUnavailable,
    ConfigurationError,
    FileAlreadyExists,
    InvalidIndex,
    InvalidUpload,
    LoopDetected,
    NotAllowed,
    NotConfigured,
    NotFound,
    PrivatePypiError,
    StaleIndex,
    StorageFull,
    TooLarge,
    Unsupported,
)
from private_pypi.web.http.credentials import CHALLENGE
from private_pypi.web.serving import Answer

_STATUSES: Sequence[tuple[type[PrivatePypiError], int]] = (
    # The first matching class decides, so subclasses come before their base classes.
    (NotAllowed, 403),
    (AccessError, 401),
    (NotFound, 404),
    (FileAlreadyExists, 409),
    (AlreadyConfigured, 409),
    (TooLarge, 413),
    (InvalidUpload, 400),
    (ConfigurationError, 400),
    (NotConfigured, 503),
    (StorageFull, 507),
    (BackendUnavailable, 503),
    (LoopDetected, 508),
    (BackendError, 502),
    (InvalidIndex, 502),
    (StaleIndex, 503),
    (Unsupported, 501),
)

_MAX_REASON = 300  # characters


def status_of(error: PrivatePypiError) -> int:
    """The status for an error; 500 if its class is not in the table."""
    return next((status for kind, status in _STATUSES if isinstance(error, kind)), 500)


def answer_error(error: PrivatePypiError, accept: str | None) -> Answer:
    """The answer to a request that failed with `error`."""
    headers: list[tuple[str, str]] = []
    status = status_of(error)
    if status == 401:
        headers.append(CHALLENGE)
    if isinstance(error, BackendUnavailable):
        # In whole seconds: poetry reads the value as a number and fails on a date (protocol 90).
        headers.append(("Retry-After", str(error.retry_after)))
    elif isinstance(error, NotConfigured):
        headers.append(("Retry-After", "60"))
    elif isinstance(error, StaleIndex):
        headers.append(("Retry-After", "5"))
    return answer_text(status, str(error), accept, headers)


def answer_text(
    status: int,
    sentence: str,
    accept: str | None,
    headers: Sequence[tuple[str, str]] = (),
) -> Answer:
    """A sentence in all places where clients look for it (protocol 57).

    twine, hatch and flit show the reason phrase; poetry and `pip -v` show the body. uv sends
    `Accept: application/json` and shows the message of a JSON object, if the Content-Type is
    exactly that.
    """
    reason = _reason(sentence)
    content_type, body = _body(status, reason, sentence, accept or "")
    return Answer(
        status,
        reason,
        (
            ("Content-Type", content_type),
            ("Content-Length", str(len(body))),
            ("Cache-Control", "no-store"),
            ("Vary", "Accept"),
            *headers,
        ),
        body,
    )


def _body(status: int, reason: str, sentence: str, accept: str) -> tuple[str, bytes]:
    accept = accept.lower()
    if "application/problem+json" in accept:
        problem = {"status": status, "title": reason, "detail": sentence}
        return "application/problem+json", json.dumps(problem).encode()
    if "application/json" in accept:
        message = {"code": f"{status} {reason}", "title": reason, "message": sentence}
        return "application/json", json.dumps(message).encode()
    if "text/html" in accept and "simple" not in accept and "text/plain" not in accept:
        title = f"{status} {html.escape(reason)}"
        page = (
            f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
            f"</head><body><h1>{title}</h1><p>{html.escape(sentence)}</p></body></html>\n"
        )
        return "text/html; charset=utf-8", page.encode()
    return "text/plain; charset=utf-8", (sentence + "\n").encode()


def _reason(sentence: str) -> str:
    """A reason phrase: one line of printable latin-1 (RFC 9112 §4)."""
    line = sentence.splitlines()[0] if sentence else "error"
    line = "".join(c if c.isprintable() else "?" for c in line[:_MAX_REASON])
    return line.encode("latin-1", "replace").decode("latin-1")
