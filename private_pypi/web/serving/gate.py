"""What the application is asked before it is called, and what it may answer; decides nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from private_pypi.web.receiving import FormLimits


@dataclass(frozen=True, slots=True)
class RequestHead:
    """What is known of a request before its body."""

    method: str
    path: str  # decoded, without url_prefix: the later PATH_INFO
    headers: Mapping[str, str]  # names as in AUTHORIZATION, CONTENT_TYPE
    content_length: int | None  # bytes; None: chunked
    remote_addr: str  # of the peer, which may be a proxy


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
