"""What the engine asks of those above it, and what it tells them; decides nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from private_pypi.web.receiving import FormLimits


@dataclass(frozen=True, slots=True)
class RequestHead:
    """What is known of a request before its body."""

    method: str
    path: str  # decoded, without url_prefix: the later PATH_INFO
    headers: Mapping[str, str]  # names as in AUTHORIZATION, CONTENT_TYPE
    content_length: int | None  # bytes; None: chunked
    remote_addr: str  # of the client, as far as a trusted proxy tells it
    request_id: str


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

Answer = tuple[str, list[tuple[str, str]], bytes]
"""Status line, headers and body of a whole answer."""

AtOnce = Callable[[dict[str, Any]], Answer | None]
"""The answer to the GET of a WSGI environment if it is at hand; None: call the application.

It is called in the loop, so it waits for nothing: no storage, no rendering, no large file.
"""

REQUEST_ID = "private_pypi.request_id"
"""The key of a request's id in its WSGI environment; its answer has it as `X-Request-ID`."""

CLIENT_WENT = 499
"""The status that an exchange has when the client closed the connection before the answer."""


class Exchange(NamedTuple):
    """A request and its answer, as the engine saw them."""

    request_id: str
    environ: Mapping[str, Any] | None  # of WSGI, and what was added; None: the head is unreadable
    status: int
    sent: int  # bytes of the body that were handed over
    seconds: float  # from the first byte of the request to the last that was handed over


class Load(NamedTuple):
    """What an engine has to do at a moment."""

    connections: int  # open ones
    requests: int  # waiting for a thread, or in one


class Watcher(Protocol):
    """Somebody who wants to know what an engine does; it waits for nothing."""

    def serving(self, load: Callable[[], Load]) -> None:
        """Called once, before the first request; `load` may be called at any time."""

    def answered(self, exchange: Exchange) -> None:
        """Called after every answer, in the thread that gave it: the loop, or a worker."""
