"""The head of a request: checked, and as the WSGI environment that the application gets."""

from __future__ import annotations

import functools
import sys
import time
from io import BytesIO
from typing import Any, Protocol

from private_pypi.web.serving.gate import REQUEST_ID
from private_pypi.web.serving.growing import WAITING, AnswerWait
from private_pypi.web.serving.heads import HOST, BadFraming, path_info, request_id

_MEANT = ("transfer_encoding", "content_length")
_WITHOUT_BODY = ("GET", "HEAD", "OPTIONS", "TRACE")


class _Headers(Protocol):
    def items(self) -> list[tuple[str, str]]: ...


class Scope(Protocol):
    """What granian says of a request (RSGI)."""

    http_version: str  # "1", "1.1" or "2"
    client: str
    method: str
    path: str  # decoded
    query_string: str
    authority: str | None

    @property
    def headers(self) -> _Headers:
        """In the order in which they came; those that are not ASCII are left out."""


def constant_environ(
    *, host: str, port: str, scheme: str, software: str, prefix: str
) -> dict[str, Any]:
    """The part of the WSGI environment that is the same for all requests (PEP 3333)."""
    return {
        "SERVER_NAME": host,
        "SERVER_PORT": port,
        "SERVER_SOFTWARE": software,
        "SCRIPT_NAME": prefix,
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scheme,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        "wsgi.errors": sys.stderr,
        "wsgi.input_terminated": True,
        WAITING: AnswerWait().so_far(),  # until it has waited
    }


class Head:
    """The head of one request."""

    __slots__ = (
        "began",
        "client",
        "content_length",
        "environ",
        "has_body",
        "id",
        "is_http2",
        "method",
        "problem",
    )

    def __init__(self, scope: Scope, constant: dict[str, Any], largest: int) -> None:
        """`constant` is what `constant_environ` made. A head of `largest` bytes is refused."""
        self.began = time.monotonic()
        self.client = scope.client
        """The address and port of the other side; empty for a Unix socket."""
        self.method = method = scope.method
        version = scope.http_version
        self.is_http2 = version == "2"
        environ = constant.copy()
        host, _, port = self.client.rpartition(":")
        environ["REMOTE_ADDR"] = environ["REMOTE_HOST"] = host.strip("[]") or "localhost"
        environ["REMOTE_PORT"] = port
        environ["REQUEST_METHOD"] = method
        environ["SERVER_PROTOCOL"] = "HTTP/1.0" if version == "1" else f"HTTP/{version}"
        path = scope.path
        if not path.isascii():  # in WSGI, each byte of it is a character of latin-1
            path = path.encode().decode("latin-1")
        environ["PATH_INFO"] = path_info(path, environ["SCRIPT_NAME"])
        environ["QUERY_STRING"] = scope.query_string
        environ["wsgi.input"] = BytesIO()
        self.environ = environ
        self.problem: BadFraming | None = None
        """Why the request is refused; None if it is not."""
        hosts = 0
        size = len(path) + len(environ["QUERY_STRING"])
        for name, value in scope.headers.items():
            size += len(name) + len(value) + 4
            key = _key(name)
            if not key:
                if name in _MEANT:
                    self.problem = BadFraming(
                        "Transfer-Encoding and Content-Length are written with a hyphen"
                    )
                continue
            if key == "HTTP_HOST":
                hosts += 1
            known = environ.get(key)
            if known is not None:
                # A client of HTTP/2 may send the crumbs of a cookie one by one (RFC 9113 §8.2.3).
                value = f"{known}{'; ' if key == 'HTTP_COOKIE' else ', '}{value}"
            environ[key] = value
        if scope.authority is not None:  # of HTTP/2, or of an absolute address in the first line
            environ["HTTP_HOST"] = scope.authority
        try:
            _check(environ, path, hosts, version)
        except BadFraming as error:
            self.problem = error
        if size >= largest:  # granian reads up to twice as much
            self.problem = BadFraming(
                f"The head must have less than {largest} bytes, but it is larger", 431
            )
        length = environ.get("CONTENT_LENGTH")
        self.content_length: int | None = int(length) if length and length.isdecimal() else None
        """Bytes of the body; None if the request does not say it."""
        if "HTTP_TRANSFER_ENCODING" in environ:
            self.has_body = True
            self.content_length = None
        elif self.content_length is None:
            # A body of HTTP/2 needs no length, and granian does not say whether there is one.
            self.has_body = self.is_http2 and method not in _WITHOUT_BODY
        else:
            self.has_body = self.content_length > 0
        self.id = request_id(environ.get("HTTP_X_REQUEST_ID"))
        environ[REQUEST_ID] = self.id

    @property
    def path(self) -> str:
        """The `PATH_INFO`."""
        return str(self.environ["PATH_INFO"])

    @property
    def wants_continue(self) -> bool:
        """Whether the client sends the body only when it is asked to."""
        return str(self.environ.get("HTTP_EXPECT", "")).lower() == "100-continue"

    def headers(self) -> dict[str, str]:
        """The headers with names such as AUTHORIZATION and CONTENT_TYPE."""
        kept = {"CONTENT_TYPE", "CONTENT_LENGTH"}
        return {
            key.removeprefix("HTTP_"): value
            for key, value in self.environ.items()
            if key.startswith("HTTP_") or key in kept
        }


@functools.lru_cache(maxsize=256)
def _key(name: str) -> str:
    """The key of a header in the environment; "" if the header is dropped, as waitress does."""
    if "_" in name:  # it could not be told from a name with hyphens
        return ""
    key = name.upper().replace("-", "_")
    return key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"


def _check(environ: dict[str, Any], path: str, hosts: int, version: str) -> None:
    """Refuse what granian lets through, though programs could understand it differently."""
    if hosts > 1:
        raise BadFraming("There is more than one field Host")
    host = environ.get("HTTP_HOST")
    if host is None:
        if version != "1":
            raise BadFraming("The field Host is missing")
    elif not _is_host(host):
        raise BadFraming("The field Host is not a host, with or without a port")
    if not path.startswith("/") and (path, environ["REQUEST_METHOD"]) != ("*", "OPTIONS"):
        raise BadFraming("The address of a request begins with '/', 'http://' or 'https://'")
    coding = environ.get("HTTP_TRANSFER_ENCODING")
    if coding is not None and coding.strip().lower() != "chunked":
        raise BadFraming("The only supported Transfer-Encoding is 'chunked'", 501)


@functools.lru_cache(maxsize=256)
def _is_host(host: str) -> bool:
    return HOST.fullmatch(host.encode("latin-1", "replace")) is not None
