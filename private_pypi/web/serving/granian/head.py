"""The head of a request: checked, and as the WSGI environment that the application gets."""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Mapping
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


class Fields:
    """What the fields of a request say, and where it comes from: all of its head but the address.

    Clients send the same fields with each request, and to check and to convert them takes longer
    than many an answer. So a connection keeps those of its last request (`is_same`).
    """

    __slots__ = (
        "authority",
        "content_length",
        "environ",
        "given",
        "has_body",
        "id",
        "is_http2",
        "method",
        "problem",
        "size",
        "version",
    )

    def __init__(
        self, scope: Scope, given: list[tuple[str, str]], client: str, constant: dict[str, Any]
    ) -> None:
        """`given` are the fields, and `constant` is what `constant_environ` made."""
        self.given = given
        self.method = method = scope.method
        self.version = version = scope.http_version
        self.authority = scope.authority
        self.is_http2 = version == "2"
        environ = constant.copy()
        host, _, port = client.rpartition(":")
        environ["REMOTE_ADDR"] = environ["REMOTE_HOST"] = host.strip("[]") or "localhost"
        environ["REMOTE_PORT"] = port
        environ["REQUEST_METHOD"] = method
        environ["SERVER_PROTOCOL"] = "HTTP/1.0" if version == "1" else f"HTTP/{version}"
        self.environ: Mapping[str, Any] = environ
        """The part of the WSGI environment that follows from this. Copy it, and do not change it:
        other requests have it as well."""
        self.problem: BadFraming | None = None
        """Why the request is refused; None if it is not."""
        hosts = 0
        size = 0
        for name, value in given:
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
        if self.authority is not None:  # of HTTP/2, or of an absolute address in the first line
            environ["HTTP_HOST"] = self.authority
        self.size = size
        """Bytes, about."""
        try:
            _check(environ, hosts, version)
        except BadFraming as error:
            self.problem = error
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
        self.id: str | None = environ.get("HTTP_X_REQUEST_ID")
        """The request's id that the client gave; see `request_id`."""

    def is_same(self, scope: Scope, given: list[tuple[str, str]]) -> bool:
        """Whether another request, of the same client, has equal ones in every byte."""
        return (
            given == self.given
            and scope.method == self.method
            and scope.http_version == self.version
            and scope.authority == self.authority
        )


class Head:
    """The head of one request."""

    __slots__ = ("began", "client", "fields", "id", "path", "problem", "query")

    def __init__(
        self,
        scope: Scope,
        client: str,
        constant: dict[str, Any],
        largest: int,
        last: Fields | None = None,
    ) -> None:
        """`constant` is what `constant_environ` made. A head of `largest` bytes is refused.

        `last`: those of the last request of the same client.
        """
        self.began = time.monotonic()
        self.client = client
        """The address and port of the other side; empty for a Unix socket."""
        given = scope.headers.items()
        if last is None or not last.is_same(scope, given):
            last = Fields(scope, given, client, constant)
        self.fields = fields = last
        path = scope.path
        if not path.isascii():  # in WSGI, each byte of it is a character of latin-1
            path = path.encode().decode("latin-1")
        self.path = path_info(path, constant["SCRIPT_NAME"])
        """The `PATH_INFO`."""
        self.query = scope.query_string
        self.problem = fields.problem
        """Why the request is refused; None if it is not."""
        if not path.startswith("/") and (path, fields.method) != ("*", "OPTIONS"):
            self.problem = self.problem or BadFraming(
                "The address of a request begins with '/', 'http://' or 'https://'"
            )
        # granian reads up to twice as much.
        if fields.size + len(path) + len(self.query) >= largest:
            self.problem = BadFraming(
                f"The head must have less than {largest} bytes, but it is larger", 431
            )
        self.id = request_id(fields.id)

    @property
    def method(self) -> str:
        """Such as GET."""
        return self.fields.method

    @property
    def is_http2(self) -> bool:
        """Whether the connection is one of HTTP/2."""
        return self.fields.is_http2

    @property
    def has_body(self) -> bool:
        """Whether a body follows."""
        return self.fields.has_body

    @property
    def content_length(self) -> int | None:
        """Bytes of the body; None if the request does not say it."""
        return self.fields.content_length

    def new_environ(self) -> dict[str, Any]:
        """The WSGI environment without a body, to which others may add."""
        return {
            **self.fields.environ,
            "PATH_INFO": self.path,
            "QUERY_STRING": self.query,
            REQUEST_ID: self.id,
        }

    def field(self, key: str) -> str | None:
        """A field of the head by its name in the environment, such as HTTP_AUTHORIZATION."""
        return self.fields.environ.get(key)

    @property
    def wants_continue(self) -> bool:
        """Whether the client sends the body only when it is asked to."""
        return (self.field("HTTP_EXPECT") or "").lower() == "100-continue"

    def headers(self) -> dict[str, str]:
        """The headers with names such as AUTHORIZATION and CONTENT_TYPE."""
        kept = {"CONTENT_TYPE", "CONTENT_LENGTH"}
        return {
            key.removeprefix("HTTP_"): value
            for key, value in self.fields.environ.items()
            if key.startswith("HTTP_") or key in kept
        }


@functools.lru_cache(maxsize=256)
def _key(name: str) -> str:
    """The key of a header in the environment; "" if the header is dropped, as waitress does."""
    if "_" in name:  # it could not be told from a name with hyphens
        return ""
    key = name.upper().replace("-", "_")
    return key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"


def _check(environ: dict[str, Any], hosts: int, version: str) -> None:
    """Refuse what granian lets through, though programs could understand it differently."""
    if hosts > 1:
        raise BadFraming("There is more than one field Host")
    host = environ.get("HTTP_HOST")
    if host is None:
        if version != "1":
            raise BadFraming("The field Host is missing")
    elif not _is_host(host):
        raise BadFraming("The field Host is not a host, with or without a port")
    coding = environ.get("HTTP_TRANSFER_ENCODING")
    if coding is not None and coding.strip().lower() != "chunked":
        raise BadFraming("The only supported Transfer-Encoding is 'chunked'", 501)


@functools.lru_cache(maxsize=256)
def _is_host(host: str) -> bool:
    return HOST.fullmatch(host.encode("latin-1", "replace")) is not None
