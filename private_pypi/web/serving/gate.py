"""What the engine and the application agree on: the types of all questions and answers.

The *gate* is a function of the application that the engine calls with the head of a request that
has a body. Its verdict says what to do with the body before any of it is read.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from private_pypi.web.serving.receiving import FormLimits

if TYPE_CHECKING:
    from private_pypi.web.serving.growing import GrowingFile


@dataclass(frozen=True, slots=True)
class RequestHead:
    """What is known of a request before its body."""

    method: str
    path: str  # decoded, without the option url_prefix: the later PATH_INFO
    headers: Mapping[str, str]  # with names such as AUTHORIZATION and CONTENT_TYPE
    content_length: int | None  # bytes; None if the body is chunked
    remote_addr: str  # of the client, which a trusted proxy may name
    request_id: str


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole response. As a verdict: send this, and do not read the body."""

    status: int
    reason: str  # latin-1
    headers: Sequence[tuple[str, str]] = ()
    body: bytes = b""
    rest: GrowingFile | None = None
    """What follows the body while it arrives, only in an answer that was prepared (see `Later`).
    Whoever does not send it closes it."""

    @property
    def length(self) -> int:
        """The bytes of all that is sent after the head."""
        return len(self.body) + (0 if self.rest is None else len(self.rest))


@dataclass(frozen=True, slots=True)
class ReceiveForm:
    """A verdict: receive an upload form, which the application takes with `receive_form`.

    It also means that the client was let in, so it gets more time than strangers do.
    """

    folder: Path
    limits: FormLimits


@dataclass(frozen=True, slots=True)
class PassOn:
    """A verdict: give the body to the application as `wsgi.input`.

    The body is kept in memory, so the limit has to be small.
    """

    max_body_bytes: int


class Kind(enum.Enum):
    """What the answer to a GET or HEAD may have to wait for. Each kind has threads of its own."""

    PAGES = enum.auto()  # nothing outside of this machine
    FILES = enum.auto()  # a storage
    PEOPLE = enum.auto()  # a storage, and the rendering of a README


Verdict = Answer | ReceiveForm | PassOn
Gate = Callable[[RequestHead], Verdict]

AtOnce = Callable[[dict[str, Any]], Answer | None]
"""The answer to a GET, given its WSGI environment, or None to call the application.

It is called in the loop, or in a thread in which granian hands requests over, one after another.
So it must not wait for a storage, render a page or read a large file. It may raise `Later`; after
the wait the application is called, unless an answer was prepared.
"""

KindOf = Callable[[str], Kind]
"""The kind of a GET or HEAD, given its path."""

ShareOf = Callable[[str, str | None], str]
"""The share of the threads that a request uses, given its path and its `Authorization` header.

A share is the name of a repository, or "" for all requests that are not for one. Like `AtOnce` it
is called in the loop.
"""

LET_IN = "private_pypi.let_in"
"""The key in a WSGI environment under which the application says that it accepted a secret.

Connections with such a request are not closed when there are too many.
"""

REQUEST_ID = "private_pypi.request_id"
"""The key in a WSGI environment of the request's id, which is also sent as `X-Request-ID`."""

CLIENT_CLOSED = 499
"""The status of an exchange whose client closed the connection before the answer."""


class Exchange(NamedTuple):
    """A request and its answer."""

    request_id: str
    environ: Mapping[str, Any] | None  # of WSGI, and what was added; None: the head is unreadable
    status: int
    sent: int  # bytes of the body that were handed over to the connection
    seconds: float  # from the first byte of the request to the last that was handed over


class Load(NamedTuple):
    """How busy the engine is."""

    connections: int  # that are open
    requests: int  # that wait for a thread, or are in one


class RequestObserver(Protocol):
    """Gets to know each answer. Its methods must not block."""

    def serving(self, load: Callable[[], Load]) -> None:
        """Called once, before the first request. `load` may be called at any time."""

    def answered(self, exchange: Exchange) -> None:
        """Called after every answer, in the thread that gave it."""
