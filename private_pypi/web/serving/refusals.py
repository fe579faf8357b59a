"""The answers that an engine gives itself, without asking the application."""

from __future__ import annotations

import http

from private_pypi.web.serving.gate import Answer
from private_pypi.web.serving.timeouts import LOWEST_RATE


def plain_answer(status: int, sentence: str) -> Answer:
    """An answer whose body is one sentence."""
    # Python 3.11 has an older phrase for 413.
    reason = "Content Too Large" if status == 413 else http.HTTPStatus(status).phrase
    headers = (("Content-Type", "text/plain; charset=utf-8"),)
    return Answer(status=status, reason=reason, headers=headers, body=sentence.encode() + b"\n")


def too_large(limit: int) -> Answer:
    """The answer to a body of more than `limit` bytes."""
    return plain_answer(413, f"a body has at most {limit} bytes here")


def too_slow() -> Answer:
    """The answer to a client that takes too long to send a body."""
    return plain_answer(
        408,
        f"the body arrived too slowly: it must arrive at {LOWEST_RATE} bytes per second or more",
    )
