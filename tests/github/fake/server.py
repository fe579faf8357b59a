"""The HTTP side of the fake GitHub, on three loopback ports: API, uploads and storage."""

from __future__ import annotations

import base64
import binascii
import contextlib
import gzip
import hashlib
import json
import socket
import struct
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from .calls import Answer, Call, Handler, Refusal, find_repository
from .described import Description, NotAsDescribed, Operation
from .faults import Fault, Faults, Host
from .git_http import git_answer
from .graphql import execute
from .rest import handlers
from .rest_releases import begin_upload, signature, signed_url
from .shapes import Shapes
from .state import Hub, RateLimit, Role, Token

_GIT = ("/info/refs", "/git-upload-pack")  # how addresses of git over HTTP end
_UPLOAD = "POST /repos/{owner}/{repo}/releases/{release_id}/assets"
_CHUNK = 1024 * 1024
_API_VERSIONS = ("2022-11-28", "2026-03-10")
_UNAVAILABLE = "Service unavailable"
_END_SECONDS = 10.0  # that the end waits for requests that are being answered
# Faults that happen during an upload, and not before it.
_BREAKDOWNS = ("timeout", "reset", "500", "502", "503")


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One line of the log. `status` is None if the answer was not sent completely."""

    host: Host
    method: str
    path: str  # without the prefix of an Enterprise server, not decoded
    query: str
    status: int | None
    counted: bool  # against the primary rate limit
    conditional: bool
    token: str | None  # who, never the secret
    fault: str | None

    @property
    def name(self) -> str:
        """METHOD /path."""
        return f"{self.method} {self.path}"


@dataclass(frozen=True, slots=True)
class _Reply:
    """An answer as bytes or as a file, ready to be sent."""

    status: int
    headers: Mapping[str, str]
    body: bytes = b""
    file: Path | None = None
    span: tuple[int, int] = (0, 0)  # of the file, end exclusive
    counted: bool = False
    breaks: bool = False  # only half of it is sent (nothing, when the status is 0), then a reset

    @property
    def size(self) -> int:
        return self.span[1] - self.span[0] if self.file else len(self.body)


class Front:
    """The state that the handlers of all three ports share."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.faults = Faults()
        self.requests: list[Request] = []
        self.violations: list[str] = []
        self.git_folder: Path | None = None  # with the bare repository OWNER/NAME, for each
        self.latency = 0.0  # seconds before every answer
        self.before_request: Callable[[str], None] | None = None
        self.closing = threading.Event()
        self.description = _description()
        self.handlers: Mapping[str, Handler] = handlers()
        self._servers: dict[Host, _Server] = {
            "api": _Server(self, "api"),
            "uploads": _Server(self, "uploads"),
            "storage": _Server(self, "storage"),
        }

    def port(self, host: Host) -> int:
        """The address of this host."""
        return int(self._servers[host].server_address[1])

    def host_at(self, port: int | None) -> Host:
        """The host that listens on a port; for unknown ports, the API."""
        return next((host for host in self._servers if self.port(host) == port), "api")

    def start(self) -> None:
        """Serve in threads until `stop`."""
        for server in self._servers.values():
            thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
            thread.start()

    def stop(self) -> None:
        """End every server and every connection."""
        self.closing.set()
        for server in self._servers.values():
            server.shutdown()
            server.server_close()

    # What is the same for REST and GraphQL

    def authenticate(self, header: str | None) -> Token | None:
        """The token of an Authorization header, or None; refuses a wrong one (401)."""
        if header is None:
            return None
        scheme, _, value = header.partition(" ")
        if scheme.lower() == "basic":
            try:
                value = base64.b64decode(value).decode().partition(":")[2]
            except (binascii.Error, UnicodeDecodeError):
                value = ""
        elif scheme.lower() not in ("token", "bearer"):
            value = ""
        token = self.hub.tokens.get(value.strip())
        expires_at = token.expires_at if token else None
        if token is None or (expires_at is not None and expires_at <= self.hub.clock.now()):
            raise Refusal(401, "Bad credentials")
        return token

    def limit_of(self, token: Token | None, resource: str) -> RateLimit:
        """The primary limit that counts requests of this token, for the current hour."""
        limit = self.hub.anonymous
        if token is not None:
            limit = token.graphql if resource == "graphql" else token.core
        return limit.at(self.hub.clock.seconds())

    def spend(self, limit: RateLimit) -> None:
        """Count a request, or refuse it if none remains."""
        if limit.remaining == 0:
            raise Refusal(403, "API rate limit exceeded")
        limit.used += 1


class _Server(ThreadingHTTPServer):
    """One port. Its connections are cut when it is closed."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, front: Front, host: Host) -> None:
        self.front = front
        self.host = host
        self._connections: set[socket.socket] = set()
        self._guard = threading.Condition()  # guards _connections
        super().__init__(("127.0.0.1", 0), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._guard:
            self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._guard:
            self._connections.discard(request)
            self._guard.notify_all()
        super().shutdown_request(request)

    def server_close(self) -> None:
        super().server_close()
        with self._guard:
            for connection in self._connections:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            # What a thread still did, for nobody, would happen in the next test.
            self._guard.wait_for(lambda: not self._connections, timeout=_END_SECONDS)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that close the connection; any other error is a violation."""
        error = sys.exception()
        if not isinstance(error, (ConnectionError, TimeoutError)):
            self.front.violations.append(f"the fake broke: {error!r}")
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def log_message(self, *_: object) -> None:
        """Write nothing: requests are in `Front.requests`."""

    def do_GET(self) -> None:
        self._serve()

    def date_time_string(self, timestamp: float | None = None) -> str:
        """The time of this GitHub for the Date header."""
        return super().date_time_string(timestamp or self.server.front.hub.clock.seconds())

    do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_GET

    def _serve(self) -> None:
        front, target = self.server.front, urlsplit(self.path)
        # Clients that use this server as a proxy name the host in the request line.
        addressed = front.host_at(target.port) if target.netloc else self.server.host
        host, path = _host_and_path(addressed, target.path)
        name = f"{self.command} {path}"
        self._left = int(self.headers.get("Content-Length") or 0)
        self._token: Token | None = None
        fault = front.faults.take(host, name)
        if front.before_request is not None:
            front.before_request(name)
        if front.closing.wait(front.latency):
            self._reset()
            return
        reply: _Reply | None = None
        try:
            reply = self._outcome(fault, host, path, target.query)
        finally:
            # Before the answer is sent, so that a client that has it finds the request in the log.
            self._log(fault, host, path, target.query, reply)
        if fault is not None and fault.kind == "timeout":
            front.closing.wait(fault.seconds)
        if reply is not None and reply.status:
            self._send(reply)
        if reply is None or reply.breaks:
            self._reset()

    def _log(
        self, fault: Fault | None, host: Host, path: str, query: str, reply: _Reply | None
    ) -> None:
        self.server.front.requests.append(
            Request(
                host=host,
                method=self.command,
                path=path,
                query=query,
                status=reply.status if reply is not None and not reply.breaks else None,
                counted=reply is not None and reply.counted,
                conditional="If-None-Match" in self.headers,
                token=self._token.id if self._token else None,
                fault=fault.kind if fault else None,
            )
        )

    def _outcome(self, fault: Fault | None, host: Host, path: str, query: str) -> _Reply | None:
        """The final answer, or None for no answer; the body of the request has been read."""
        reply = None
        if fault is None or fault.applied or fault.kind in ("cut", "short"):
            reply = self._reply(host, path, query)
        elif host == "uploads" and fault.kind in _BREAKDOWNS:
            self._break_upload(path, query)
        self._drain()
        return reply if fault is None else self._disturbed(fault, host, reply)

    def _reply(self, host: Host, path: str, query: str) -> _Reply:
        if host == "storage":
            return self._stored(path, query)
        if path == "/graphql" and self.command == "POST":
            return self._graphql()
        if self.server.front.git_folder is not None and path.endswith(_GIT):
            return self._git(self.server.front.git_folder, path, query)
        return self._rest(host, path, query)

    def _git(self, folder: Path, path: str, query: str) -> _Reply:
        """Git over HTTP for those who may read the repository; clients log in when asked to."""
        hub, name = (
            self.server.front.hub,
            next(p for e in _GIT if (p := path.removesuffix(e)) != path),
        )
        owner, _, repo = name.strip("/").removesuffix(".git").partition("/")
        try:
            with hub.lock:
                self._token = self.server.front.authenticate(self.headers.get("Authorization"))
                repository = find_repository(hub, self._token, owner, repo)
        except Refusal:
            return _Reply(401, {"WWW-Authenticate": 'Basic realm="GitHub"'}, b"")
        body = b"".join(self._read(self._left))
        there = f"/{repository.full_name}{path.removeprefix(name)}"
        return _Reply(*git_answer(folder, self.command, there, query, self.headers, body))

    # REST

    def _rest(self, host: Host, path: str, query_text: str) -> _Reply:
        front = self.server.front
        path = self._by_name(path)
        limit, counted = front.limit_of(None, "core"), False
        operation = front.description.find(self.command, path)
        try:
            if "Transfer-Encoding" in self.headers:
                self.close_connection = True  # where its body ends is not known here
                raise Refusal(400, "Bad Content-Length: a length is required")
            limit, counted = self._admit("core", free=path == "/rate_limit")
            query = dict(parse_qsl(query_text, keep_blank_values=True))
            if operation is None:
                answer = self._page_of_html(path)
            else:
                answer = self._operate(host, operation, query)
        except Refusal as refusal:
            self._check(operation, refusal.status, refusal.body())
            limit = front.limit_of(self._token, "core")
            return self._refused(refusal, limit, counted)
        if operation is not None and answer.content is None:
            self._check(operation, answer.status, answer.body)
        return self._answered(answer, limit, counted)

    def _admit(self, resource: str, *, free: bool = False) -> tuple[RateLimit, bool]:
        """Authenticate and count; the limit, and whether the request was counted."""
        front = self.server.front
        if not self.headers.get("User-Agent"):
            # REST documentation, "Getting started", "User agent required".
            raise Refusal(403, "Request forbidden by administrative rules.")
        version = self.headers.get("X-GitHub-Api-Version", _API_VERSIONS[0])
        if version not in _API_VERSIONS:
            raise Refusal(400, f"Unsupported API version: {version}")
        with front.hub.lock:
            self._token = front.authenticate(self.headers.get("Authorization"))
            limit = front.limit_of(self._token, resource)
            if not free:
                front.spend(limit)
        return limit, not free

    def _operate(self, host: Host, operation: Operation, query: Mapping[str, str]) -> Answer:
        front = self.server.front
        is_upload = operation.name == _UPLOAD
        if is_upload != (host == "uploads"):
            raise Refusal(404, "Not Found")
        body = b"" if is_upload and self._left else self._json()
        try:
            front.description.check_request(operation, query, body)
        except NotAsDescribed as error:
            front.violations.append(f"request: {error}")
            raise Refusal(422, f"Invalid request.\n\n{error}") from error
        call = self._call(operation, query, body)
        with front.hub.lock:
            self._redirect_moved(call)
        if is_upload:
            return self._upload(call)
        if operation.name not in front.handlers:
            front.violations.append(f"not built: {operation.name}")
            raise Refusal(404, "Not Found")
        with front.hub.lock:
            return front.handlers[operation.name](call)

    def _by_name(self, path: str) -> str:
        """The path of a repository that is asked for by its id, as redirects name it."""
        parts = path.split("/", 3)
        if parts[1] == "repositories" and len(parts) > 2:
            for repository in self.server.front.hub.repositories.values():
                if parts[2] == str(repository.id):
                    return "/".join(["/repos", repository.full_name, *parts[3:]])
        return path

    def _redirect_moved(self, call: Call) -> None:
        """Redirect requests that use the old name of a repository that was renamed or transferred.

        REST documentation, "Best practices for using the REST API", "Follow redirects".
        """
        name = f"{call.parameters.get('owner')}/{call.parameters.get('repo')}".lower()
        moved = call.hub.moved.get(name)
        readable = moved is not None and call.hub.role_of(call.token, moved) >= Role.READ
        if moved is None or not readable or name in call.hub.repositories:
            return
        target = urlsplit(self.path)
        rest = "/".join(_host_and_path(self.server.host, target.path)[1].split("/")[4:])
        url = f"{call.shapes.api}/repositories/{moved.id}" + (f"/{rest}" if rest else "")
        location = url + (f"?{target.query}" if target.query else "")
        status = 301 if self.command == "GET" else 307
        raise Refusal(status, "Moved Permanently", headers={"Location": location})

    def _call(self, operation: Operation, query: Mapping[str, str], body: object) -> Call:
        name = self.headers.get("Host", f"127.0.0.1:{self.server.front.port('api')}")
        machine = name.partition(":")[0]
        front = self.server.front
        api = f"http://{machine}:{front.port('api')}"
        enterprise = urlsplit(self.path).path.startswith("/api/")
        return Call(
            hub=front.hub,
            shapes=Shapes(
                api=f"{api}/api/v3" if enterprise else api,
                uploads=(
                    f"{api}/api/uploads"
                    if enterprise
                    else f"http://{machine}:{front.port('uploads')}"
                ),
                html=api,
            ),
            storage=self._storage(),
            token=self._token,
            parameters=operation.parameters,
            query=query,
            body=body,
            accept=self.headers.get("Accept", "*/*"),
            url=f"http://{name}{urlsplit(self.path).path}",
        )

    def _storage(self) -> str:
        # For a proxy's client it is of another domain, as at GitHub: `gh` gives its token away
        # within one domain.
        machine = self.headers.get("Host", "127.0.0.1").partition(":")[0]
        if urlsplit(self.path).netloc:
            machine = "storage.localhost"
        return f"http://{machine}:{self.server.front.port('storage')}"

    def _upload(self, call: Call) -> Answer:
        kind = self.headers.get("Content-Type", "application/octet-stream")
        size = int(self.headers["Content-Length"]) if "Content-Length" in self.headers else None
        with call.hub.lock:
            upload = begin_upload(call, size, kind)
        digest = hashlib.sha256()
        with upload.asset.path.open("wb") as file:
            for chunk in self._read(upload.size):
                digest.update(chunk)
                file.write(chunk)
        with call.hub.lock:
            return upload.finish(digest.hexdigest())

    def _break_upload(self, path: str, query: str) -> None:
        """Take half of an upload; what GitHub may keep of it is an asset in state "starter"."""
        operation = self.server.front.description.find(self.command, path)
        if operation is None or operation.name != _UPLOAD:
            return
        with contextlib.suppress(Refusal):
            self._admit("core")
            call = self._call(operation, dict(parse_qsl(query)), b"")
            with call.hub.lock:
                begin_upload(call, self._left, "application/octet-stream")
            for _ in self._read(self._left // 2):
                pass

    def _page_of_html(self, path: str) -> Answer:
        """The one page of the web site that clients use: a public asset by its name."""
        front = self.server.front
        parts = [unquote(part) for part in path.strip("/").split("/")]
        if len(parts) == 6 and parts[2:4] == ["releases", "download"]:
            with front.hub.lock:
                repository = find_repository(front.hub, None, parts[0], parts[1])
                for release in repository.releases.values():
                    for asset in release.assets.values():
                        if (release.tag_name, asset.name) == (parts[4], parts[5]) and (
                            not release.draft and asset.state == "uploaded"
                        ):
                            asset.download_count += 1
                            url = signed_url(front.hub, self._storage(), repository, asset)
                            return Answer(status=302, headers={"Location": url})
        else:
            front.violations.append(f"not described: {self.command} {path}")
        raise Refusal(404, "Not Found")

    def _json(self) -> Any:
        content = b"".join(self._read(self._left))
        if not content:
            return None
        try:
            return json.loads(content)
        except ValueError as error:
            raise Refusal(400, "Problems parsing JSON") from error

    def _check(self, operation: Operation | None, status: int, body: object) -> None:
        if operation is not None:
            try:
                self.server.front.description.check_answer(operation, status, body)
            except NotAsDescribed as error:
                self.server.front.violations.append(f"answer: {error}")

    def _answered(self, answer: Answer, limit: RateLimit, counted: bool) -> _Reply:
        content = answer.content
        if content is None:
            content = b"" if answer.body is None else _dumped(answer.body)
        headers = {**self._standard(limit), **answer.headers}
        if content:
            headers["Content-Type"] = answer.content_type
        if answer.status == 200 and self.command in ("GET", "HEAD"):
            # An ETag belongs to one token and one media type, as on GitHub.
            variant = f"{self._token.raw if self._token else ''} {self.headers.get('Accept')}"
            digest = hashlib.sha256(variant.encode() + content).hexdigest()
            headers["ETag"] = f'W/"{digest}"'
            headers["Cache-Control"] = "private, max-age=60, s-maxage=60"
            headers["Vary"] = "Accept, Authorization, Cookie, X-GitHub-OTP, Accept-Encoding"
            if _matches(self.headers.get("If-None-Match"), headers["ETag"]):
                # "Making a conditional request does not count against your primary rate limit if
                # a 304 response is returned and the request was made while correctly authorized".
                if self._token is not None and counted:
                    with self.server.front.hub.lock:
                        limit.used -= 1
                    counted = False
                headers |= self._standard(limit)
                headers.pop("Content-Type", None)
                return _Reply(304, headers, counted=counted)
        if len(content) > 1000 and "gzip" in self.headers.get("Accept-Encoding", ""):
            content = gzip.compress(content, 1)
            headers["Content-Encoding"] = "gzip"
        return _Reply(answer.status, headers, content, counted=counted)

    def _refused(self, refusal: Refusal, limit: RateLimit, counted: bool) -> _Reply:
        headers = {
            **self._standard(limit),
            "Content-Type": "application/json; charset=utf-8",
            **refusal.headers,
        }
        return _Reply(refusal.status, headers, _dumped(refusal.body()), counted=counted)

    def _standard(self, limit: RateLimit, resource: str = "core") -> dict[str, str]:
        headers = {
            "X-GitHub-Media-Type": "github.v3; format=json",
            "X-GitHub-Request-Id": f"FA4E:{len(self.server.front.requests):X}",
            "X-RateLimit-Limit": str(limit.limit),
            "X-RateLimit-Remaining": str(limit.remaining),
            "X-RateLimit-Reset": str(limit.reset),
            "X-RateLimit-Used": str(limit.used),
            "X-RateLimit-Resource": resource,
        }
        if self._token is not None and self._token.user and not self._token.fine_grained:
            headers["X-OAuth-Scopes"] = "repo, workflow"
        return headers

    # GraphQL

    def _graphql(self) -> _Reply:
        front = self.server.front
        limit, counted = front.limit_of(None, "graphql"), False
        try:
            limit, counted = self._admit("graphql")
            if self._token is None:
                raise Refusal(401, "This endpoint requires you to be authenticated.")
            body = self._json()
            if not isinstance(body, dict) or not isinstance(body.get("query"), str):
                raise Refusal(400, "A query attribute must be specified and must be a string.")
            html = f"http://{self.headers['Host']}"
            with front.hub.lock:
                result = execute(
                    front.hub, self._token, limit, html=html, storage=self._storage(), request=body
                )
        except Refusal as refusal:
            limit = front.limit_of(self._token, "graphql")
            return self._refused(refusal, limit, counted)
        headers = self._standard(limit, "graphql")
        headers["Content-Type"] = "application/json; charset=utf-8"
        return _Reply(200, headers, _dumped(result), counted=counted)

    # Storage

    def _stored(self, path: str, query_text: str) -> _Reply:
        front, query = self.server.front, dict(parse_qsl(query_text))
        hub, number = front.hub, path.rpartition("/")[2]
        if "Authorization" in self.headers:
            # The storage refuses a second kind of authentication beside the signature.
            return _xml(400, "InvalidAuthenticationInfo")
        if query.get("sig") != signature(hub, path, query):
            return _xml(403, "AuthenticationFailed")
        if datetime.fromisoformat(query["se"]) <= hub.clock.now():
            return _xml(403, "AuthenticationFailed")
        with hub.lock:
            asset = next(
                (
                    asset
                    for repository in hub.repositories.values()
                    for release in repository.releases.values()
                    for asset in release.assets.values()
                    if str(asset.id) == number
                ),
                None,
            )
        if asset is None or not asset.path.exists():
            return _xml(404, "BlobNotFound")
        headers = {
            "Content-Type": query["rsct"],
            "Content-Disposition": query["rscd"],
            "Accept-Ranges": "bytes",
            "ETag": f'"0x{asset.id:016X}"',
        }
        start, end = 0, asset.size
        text = self.headers.get("Range", "")
        if text.startswith("bytes=") and "," not in text:
            first, _, last = text.removeprefix("bytes=").partition("-")
            start = int(first) if first else max(asset.size - int(last), 0)
            end = min(int(last) + 1, asset.size) if first and last else asset.size
            if start >= asset.size:
                reply = _xml(416, "InvalidRange")
                return _Reply(
                    416,
                    {**reply.headers, "Content-Range": f"bytes */{asset.size}"},
                    reply.body,
                )
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{asset.size}"
        status = 206 if "Content-Range" in headers else 200
        return _Reply(status, headers, file=asset.path, span=(start, end))

    # Faults, and the wire

    def _disturbed(self, fault: Fault, host: Host, reply: _Reply | None) -> _Reply | None:
        """What is sent instead of the answer; None for nothing."""
        counted = reply is not None and reply.counted
        limit = self.server.front.limit_of(self._token, "core")
        match fault.kind:
            case "timeout" | "reset":
                return replace(reply, status=0, breaks=True) if reply is not None else None
            case "cut":
                return replace(reply, breaks=True) if reply is not None else None
            case "short":
                if reply is None:
                    return None
                headers = {k: v for k, v in reply.headers.items() if k != "Content-Encoding"}
                zipped = "Content-Encoding" in reply.headers
                body = gzip.decompress(reply.body) if zipped else reply.body
                return replace(reply, headers=headers, body=body[: len(body) // 2])
            case "rate-limit":
                now = self.server.front.hub.clock.seconds()
                headers = {
                    "X-RateLimit-Remaining": "0",
                    "X-RateLimit-Reset": str(int(now + fault.seconds)),
                }
                refusal = Refusal(403, "API rate limit exceeded", headers=headers)
            case "secondary":
                headers = {"Retry-After": str(int(fault.seconds))}
                message = "You have exceeded a secondary rate limit."
                refusal = Refusal(403, message, headers=headers)
            case "429":
                headers = {"Retry-After": str(int(fault.seconds))}
                refusal = Refusal(429, "Too many requests", headers=headers)
            case "422":
                refusal = Refusal(422, "Validation Failed")
            case "403":
                refusal = Refusal(403, "Resource not accessible by integration")
            case "404":
                refusal = Refusal(404, "Not Found")
            case "500" | "502" | "503":
                if host == "storage":
                    return _xml(int(fault.kind), "ServerBusy")
                refusal = Refusal(int(fault.kind), _UNAVAILABLE)
        return self._refused(refusal, limit, counted)

    def _send(self, reply: _Reply) -> None:
        size = reply.size
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        if reply.status not in (204, 304):
            self.send_header("Content-Length", str(size))
        self.end_headers()
        if self.command == "HEAD" or reply.status in (204, 304):
            return
        wanted = size // 2 if reply.breaks else size
        if reply.file is None:
            self.wfile.write(reply.body[:wanted])
            return
        with reply.file.open("rb") as file:
            file.seek(reply.span[0])
            while wanted and (chunk := file.read(min(wanted, _CHUNK))):
                self.wfile.write(chunk)
                wanted -= len(chunk)

    def _read(self, size: int) -> Iterator[bytes]:
        """So much of the request's body; a client that ends before is a connection error."""
        while size:
            chunk = self.rfile.read(min(size, _CHUNK))
            if not chunk:
                raise ConnectionAbortedError("the client left in the middle of its body")
            size -= len(chunk)
            self._left -= len(chunk)
            yield chunk

    def _drain(self) -> None:
        for _ in self._read(self._left):
            pass

    def _reset(self) -> None:
        self.close_connection = True
        # Nothing lingers: the peer gets RST, and what it has not read yet is lost.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.rfile.close()
        self.connection.close()


@cache
def _description() -> Description:
    return Description()


def _host_and_path(host: Host, path: str) -> tuple[Host, str]:
    """Enterprise servers have everything on one host: /api/v3, /api/uploads, /api/graphql."""
    if host == "api" and path.startswith("/api/uploads/"):
        return "uploads", path.removeprefix("/api/uploads")
    if host == "api" and (path == "/api/v3" or path.startswith("/api/v3/")):
        return "api", path.removeprefix("/api/v3") or "/"
    return host, "/graphql" if path == "/api/graphql" else path


def _dumped(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _matches(header: str | None, etag: str) -> bool:
    if header is None:
        return False
    known = [tag.strip().removeprefix("W/") for tag in header.split(",")]
    return header.strip() == "*" or etag.removeprefix("W/") in known


def _xml(status: int, code: str) -> _Reply:
    body = f'<?xml version="1.0" encoding="utf-8"?><Error><Code>{code}</Code></Error>'
    return _Reply(status, {"Content-Type": "application/xml"}, body.encode())
