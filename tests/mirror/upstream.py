"""An index for tests of the mirror: it counts what it is asked, can wait, and can go wrong.

Two servers on loopback share its table of projects: "index" has the pages, and "files" is another
origin, which has the distribution files where `files_elsewhere` is set. What they do wrong is in
`tests.mirror.upstream_faults`.

    with running() as upstream:
        upstream.add(*make_wheel("demo", "1.0"))
        upstream.fail("page", "502", times=1)
        ...  # ask upstream.index_url
        assert upstream.count("page") == 2
"""

from __future__ import annotations

import base64
import email.parser
import gzip
import hashlib
import html
import io
import json
import re
import socket
import struct
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import TYPE_CHECKING, Literal, get_args
from urllib.parse import quote, unquote, urlsplit

from private_pypi.distributions.core_metadata import read_core_metadata
from private_pypi.distributions.filenames import normalize, parse_filename
from private_pypi.errors import PrivatePypiError

if TYPE_CHECKING:
    from tests.mirror.upstream_faults import Fault

JSON = "application/vnd.pypi.simple.v1+json"
HTML = "text/html; charset=utf-8"

Origin = Literal["index", "files"]
Kind = Literal["page", "list", "metadata", "file", "range"]
"""What a request asks for: the page of a project, the list of projects, the core metadata of a
file, a file, or a part of a file (a request with the header Range)."""
KINDS: tuple[Kind, ...] = get_args(Kind)

_PIECE = 64 * 2**10  # bytes of a body that are sent at once
_PATIENCE = 20.0  # seconds for which a test waits for a request


@dataclass(frozen=True, kw_only=True)
class Published:
    """A file, and what the page of its project says of it."""

    filename: str
    content: bytes
    hashes: Mapping[str, str]  # by algorithm; empty: the page gives none
    size: int | None  # None: the page does not say it
    upload_time: str | None = "2026-01-02T12:00:00.250000Z"
    requires_python: str | None = None
    yanked: bool | str | None = None  # None: the key is left out
    core_metadata: bytes | None = None  # what `.metadata` answers; None: 404
    offers_metadata: bool | None = None
    """True: the page offers core metadata with their hash; False: it says that there are none;
    None: the key is left out."""
    hashes_metadata: bool = True  # False: the page offers them without a hash
    provenance: str | None = None
    url: str | None = None  # on the page instead of the address that this server has
    more: Mapping[str, object] = field(default_factory=dict)
    """Further keys of the file in JSON, also instead of those from above."""


@dataclass(kw_only=True)
class Project:
    """A project: its files in the order of the page, by name."""

    files: dict[str, Published] = field(default_factory=dict)
    status: str | None = None  # PEP 792, such as "archived"
    reason: str | None = None
    more: Mapping[str, object] = field(default_factory=dict)  # further keys of the page in JSON


@dataclass(kw_only=True)
class Asked:
    """A request that came, and what became of it."""

    origin: Origin
    method: str
    path: str  # with the query
    headers: Mapping[str, str]  # lower-case names
    kind: Kind | None  # None: something else
    project: str = ""  # of a page
    filename: str = ""  # of a file, a part of it or its metadata
    status: int | None = None  # that was answered; None: none
    sent: int = 0  # bytes of the body


@dataclass(frozen=True, kw_only=True)
class Reply:
    """An answer."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    length: int | None = None
    """What Content-Length announces; None: the size of the body."""
    is_chunked: bool = False
    is_cut: bool = False  # closed after the body: a body in chunks has no end
    pause: float = 0.0
    """Seconds between two bytes of the body; 0: it is sent as fast as it is read."""

    def plus(self, **headers: str) -> Reply:
        """With further headers (`Content_Type` for `Content-Type`)."""
        added = {name.replace("_", "-"): value for name, value in headers.items()}
        return replace(self, headers={**self.headers, **added})


class Hold:
    """Requests wait here until the test releases them; as a context manager, at its end."""

    def __init__(self, kind: Kind, only: str, after: int | None) -> None:
        self._kind = kind
        self._only = only
        self.after = after  # bytes of the body that are sent before; None: not even the status
        self._condition = threading.Condition()
        self._waiting = 0
        self._released = False

    def concerns(self, asked: Asked) -> bool:
        """Whether this request waits here."""
        return not self._released and _concerns(self._kind, self._only, asked)

    def wait(self, ended: threading.Event) -> None:
        """Wait for the release, or for the end of the server."""
        with self._condition:
            self._waiting += 1
            self._condition.notify_all()
            while not self._released and not ended.is_set():
                self._condition.wait(0.02)
            self._waiting -= 1

    def until(self, requests: int = 1) -> None:
        """Return when so many requests wait here."""
        with self._condition:
            arrived = self._condition.wait_for(lambda: self._waiting >= requests, _PATIENCE)
            assert arrived, f"{self._waiting} requests wait, not {requests}"

    def release(self) -> None:
        """Let them go on, and all that come later."""
        with self._condition:
            self._released = True
            self._condition.notify_all()

    def __enter__(self) -> Hold:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()


@dataclass
class _Failing:
    """A fault that is waiting for its requests."""

    kind: Kind | None
    only: str
    fault: Fault
    skip: int
    times: int | None

    def takes(self, asked: Asked) -> bool:
        """Whether this request fails; each is counted once."""
        if not _concerns(self.kind, self.only, asked) or self.times == 0:
            return False
        if self.skip:
            self.skip -= 1
            return False
        if self.times is not None:
            self.times -= 1
        return True


class Upstream:
    """The table of projects, how it is shown, what was asked, and what goes wrong.

    The attributes may be changed at any time.
    """

    def __init__(self) -> None:
        self.projects: dict[str, Project] = {}  # by normalised name
        self.more_names: Sequence[str] = ()  # in the list of projects only, in any spelling
        self.format: Literal["negotiated", "json", "html"] = "negotiated"
        self.html_type = HTML
        self.has_attributes = True
        """False: pages in HTML have nothing but links, and the hashes in them."""
        self.has_hashes = True  # False: no page gives a hash of a file
        self.has_list = True
        self.has_etags = True
        self.has_ranges = True
        self.is_compressed = True  # pages and lists, for those who accept gzip
        self.is_chunked = False
        self.files_elsewhere = False  # on the origin "files", and so with absolute URLs
        self.login: tuple[str, str] | None = None
        """User and password that the origin "index" demands. The origin "files" demands none."""
        self.lock = threading.RLock()  # guards what follows
        self._asked: list[Asked] = []
        self._holds: list[Hold] = []
        self._failing: list[_Failing] = []
        self._trouble_is_over = threading.Event()
        self._listeners: dict[Origin, _Listener] = {}

    # -- addresses -------------------------------------------------------------------------------

    @property
    def index_url(self) -> str:
        """The address of the index, for `index_url`."""
        return f"{self.origin('index')}/simple/"

    def origin(self, name: Origin) -> str:
        """Such as "http://127.0.0.1:20123"."""
        return f"http://127.0.0.1:{self._listeners[name].port}"

    def page_url(self, project: str) -> str:
        """The address of a project's page."""
        return f"{self.index_url}{project}/"

    def file_url(self, filename: str) -> str:
        """The absolute address of a file, as it is on the page."""
        for name, project in self.projects.items():
            if filename in project.files:
                return self._address(name, project.files[filename])
        raise KeyError(filename)

    # -- its files -------------------------------------------------------------------------------

    def add(
        self, filename: str, content: bytes, *, project: str | None = None, **facts: object
    ) -> Published:
        """Publish a file, or another one under the same name.

        `facts` are fields of `Published`; by default they are what is true of the file. `project`
        is needed if the name of the file does not say it.
        """
        name = parse_filename(filename).project if project is None else normalize(project)
        metadata = _core_metadata(filename, content) if filename.endswith(".whl") else None
        fields = email.parser.BytesHeaderParser().parsebytes(metadata or b"")
        known: dict[str, object] = {
            "hashes": {"sha256": hashlib.sha256(content).hexdigest()},
            "size": len(content),
            "requires_python": fields["Requires-Python"],
            "core_metadata": metadata,
            "offers_metadata": metadata is not None or None,
        }
        published = Published(filename=filename, content=content, **{**known, **facts})  # type: ignore[arg-type]
        with self.lock:
            self.projects.setdefault(name, Project()).files[filename] = published
        return published

    def change(self, filename: str, **facts: object) -> None:
        """Let the page say something else of a file (fields of `Published`)."""
        with self.lock:
            for project in self.projects.values():
                if filename in project.files:
                    project.files[filename] = replace(project.files[filename], **facts)  # type: ignore[arg-type]
                    return
        raise KeyError(filename)

    def remove(self, filename: str) -> None:
        """Delete a file; the project stays, also without files."""
        with self.lock:
            for project in self.projects.values():
                project.files.pop(filename, None)

    # -- what was asked --------------------------------------------------------------------------

    @property
    def asked(self) -> list[Asked]:
        """All requests so far, since `forget`."""
        with self.lock:
            return list(self._asked)

    def count(self, kind: Kind | None = None) -> int:
        """The requests of a kind, or all."""
        return sum(kind in (None, each.kind) for each in self.asked)

    def lines(self) -> list[str]:
        """All requests in short, such as "GET /simple/demo/"."""
        return [f"{each.method} {each.path}" for each in self.asked]

    def forget(self) -> None:
        """Count from here."""
        with self.lock:
            self._asked.clear()

    # -- waiting, and going wrong ----------------------------------------------------------------

    def hold(self, kind: Kind, *, only: str = "", after: int | None = None) -> Hold:
        """Let requests of a kind wait, before any answer or `after` so many bytes of the body.

        `only` those for this project (a page) or filename.
        """
        hold = Hold(kind, only, after)
        with self.lock:
            self._holds.append(hold)
        return hold

    def release(self) -> None:
        """End all holds."""
        with self.lock:
            holds, self._holds = self._holds, []
        for hold in holds:
            hold.release()

    def fail(
        self,
        kind: Kind | None,
        fault: str | Fault,
        *,
        only: str = "",
        skip: int = 0,
        times: int | None = None,
    ) -> None:
        """Let requests of a kind (None: all) go wrong as `fault` of `upstream_faults.FAULTS` does.

        The first `skip` of them from now are answered well, `times` of them fail (None: all), and
        `only` those for this project (a page) or filename. Connections that are "refused" are all
        those to the origin of the kind, at once.
        """
        from tests.mirror.upstream_faults import FAULTS, Refused

        found = FAULTS[fault] if isinstance(fault, str) else fault
        assert kind is None or kind in found.kinds, f"{kind} has no fault {fault}"
        if isinstance(found, Refused):
            assert (only, skip, times) == ("", 0, None), "whole origins refuse, for as long"
            for name in ("index", "files") if kind is None else (self.origin_of(kind),):
                self._listeners[name].refuse()
            return
        with self.lock:
            self._failing.append(_Failing(kind, only, found, skip, times))

    def heal(self) -> None:
        """Let everything succeed again; answers that are in trouble end."""
        with self.lock:
            self._failing.clear()
        self.end_trouble()
        for listener in self._listeners.values():
            listener.listen()

    def end_trouble(self) -> None:
        """End the answers that are going wrong at this moment."""
        with self.lock:
            over, self._trouble_is_over = self._trouble_is_over, threading.Event()
        over.set()

    def origin_of(self, kind: Kind) -> Origin:
        """The origin that has the pages or the files."""
        return "index" if kind in ("page", "list") or not self.files_elsewhere else "files"

    def fault_of(self, asked: Asked) -> tuple[Fault, threading.Event] | None:
        """Note a request, and how it fails and until when; None: it does not."""
        with self.lock:
            self._asked.append(asked)
            # Those behind the first that takes it do not count it.
            fault = next((each.fault for each in self._failing if each.takes(asked)), None)
            return None if fault is None else (fault, self._trouble_is_over)

    def hold_of(self, asked: Asked) -> Hold | None:
        """Where a request waits; None: nowhere."""
        with self.lock:
            return next((each for each in self._holds if each.concerns(asked)), None)

    # -- what it answers -------------------------------------------------------------------------

    def describe(self, origin: Origin, method: str, path: str, headers: Mapping[str, str]) -> Asked:
        """What a request is for."""
        asked = Asked(origin=origin, method=method, path=path, headers=headers, kind=None)
        parts = [unquote(part) for part in urlsplit(path).path.split("/")[1:]]
        match parts:
            case ["simple", ""]:
                asked.kind = "list"
            case ["simple", project, ""]:
                asked.kind, asked.project = "page", project
            case ["files", _, filename] if filename.endswith(".metadata"):
                asked.kind, asked.filename = "metadata", filename.removesuffix(".metadata")
            case ["files", _, filename]:
                asked.kind = "range" if "range" in headers else "file"
                asked.filename = filename
        return asked

    def reply(self, asked: Asked) -> Reply:
        """The right answer."""
        if self.login and asked.origin == "index":
            wanted = base64.b64encode(":".join(self.login).encode()).decode()
            if asked.headers.get("authorization") != f"Basic {wanted}":
                refusal = Reply(status=401, body=b"who are you?")
                return refusal.plus(Content_Type="text/plain", WWW_Authenticate='Basic realm="x"')
        with self.lock:
            if asked.kind == "list":
                return self._list(asked)
            if asked.kind == "page":
                return self._page(asked)
            if asked.kind is not None:
                return self._file(asked)
        path, _, query = asked.path.partition("?")
        if re.fullmatch(r"/simple/[^/]+", path):
            return Reply(status=301).plus(Location=f"{path}/" + (f"?{query}" if query else ""))
        return _NOT_FOUND

    def _list(self, asked: Asked) -> Reply:
        if not self.has_list:
            return _NOT_FOUND
        names = [*self.projects, *self.more_names]
        if self._is_json(asked):
            listed = {
                "meta": {"api-version": "1.4"},
                "projects": [{"name": name} for name in names],
            }
            return self._shown(asked, JSON, json.dumps(listed))
        lines = (f'<a href="/simple/{normalize(name)}/">{name}</a><br>' for name in names)
        return self._shown(asked, self.html_type, _document("Simple index", "", lines))

    def _page(self, asked: Asked) -> Reply:
        if asked.project != normalize(asked.project):
            return Reply(status=301).plus(Location=f"/simple/{normalize(asked.project)}/")
        project = self.projects.get(asked.project)
        if project is None:
            return _NOT_FOUND
        return self.page_of(asked, asked.project, project)

    def page_of(self, asked: Asked, name: str, project: Project) -> Reply:
        """The page of a project in the format of a request."""
        if self._is_json(asked):
            return self._shown(asked, JSON, json.dumps(self._page_in_json(name, project)))
        return self._shown(asked, self.html_type, self._page_in_html(name, project))

    def _page_in_json(self, name: str, project: Project) -> dict[str, object]:
        files = [self._file_in_json(name, file) for file in project.files.values()]
        versions = dict.fromkeys(filter(None, map(_version, project.files)))
        page: dict[str, object] = {
            "meta": {"api-version": "1.4", "_last-serial": 7},
            "name": name,
            "versions": [*versions],
            "files": files,
        }
        if project.status is not None:
            reason = {} if project.reason is None else {"reason": project.reason}
            page["project-status"] = {"status": project.status, **reason}
        return {**page, **project.more}

    def _file_in_json(self, project: str, file: Published) -> dict[str, object]:
        hashed = {"sha256": _sha256(file.core_metadata)} if file.core_metadata else True
        offered = file.offers_metadata and (hashed if file.hashes_metadata else True)
        shown: dict[str, object | None] = {
            "filename": file.filename,
            "url": self._address(project, file),
            "size": file.size,
            "upload-time": file.upload_time,
            "requires-python": file.requires_python,
            "yanked": file.yanked,
            "core-metadata": offered,
            "data-dist-info-metadata": offered,
            "provenance": file.provenance,
        }
        known = {key: value for key, value in shown.items() if value is not None}
        return {**known, "hashes": self._hashes(file), **file.more}

    def _page_in_html(self, name: str, project: Project) -> str:
        status = {"status": project.status, "status-reason": project.reason}
        metas = "".join(
            f'<meta name="pypi:project-{key}" content="{html.escape(value)}">'
            for key, value in status.items()
            if value is not None and self.has_attributes
        )
        lines = [self._link(name, file) for file in project.files.values()]
        return _document(f"Links for {name}", metas, lines)

    def _link(self, project: str, file: Published) -> str:
        fragment = "".join(f"#{key}={value}" for key, value in [*self._hashes(file).items()][:1])
        attributes: dict[str, str | None] = {"href": self._address(project, file) + fragment}
        if self.has_attributes:
            attributes["data-requires-python"] = file.requires_python
            if file.yanked is not None and file.yanked is not False:
                attributes["data-yanked"] = "" if file.yanked is True else file.yanked
            if file.offers_metadata and file.core_metadata is not None:
                digest = f"sha256={_sha256(file.core_metadata)}" if file.hashes_metadata else "true"
                attributes["data-core-metadata"] = attributes["data-dist-info-metadata"] = digest
            attributes["data-provenance"] = file.provenance
        shown = " ".join(
            f'{name}="{html.escape(value)}"'
            for name, value in attributes.items()
            if value is not None
        )
        return f"<a {shown}>{html.escape(file.filename)}</a><br>"

    def _address(self, project: str, file: Published) -> str:
        if file.url is not None:
            return file.url
        path = f"/files/{project}/{quote(file.filename)}"
        return self.origin("files" if self.files_elsewhere else "index") + path

    def _hashes(self, file: Published) -> Mapping[str, str]:
        return file.hashes if self.has_hashes else {}

    def _is_json(self, asked: Asked) -> bool:
        if self.format == "negotiated":
            return JSON in asked.headers.get("accept", "")
        return self.format == "json"

    def _shown(self, asked: Asked, content_type: str, text: str) -> Reply:
        """A page or a list, compressed or unchanged where the request allows it."""
        body = text.encode()
        etag = _sha256(body)[:16]
        headers = {"Content-Type": content_type, "Vary": "Accept, Accept-Encoding"}
        if self.is_compressed and "gzip" in asked.headers.get("accept-encoding", ""):
            body = gzip.compress(body, 1, mtime=0)
            etag += "-gzip"
            headers["Content-Encoding"] = "gzip"
        return self._validated(asked, Reply(headers=headers, body=body), etag)

    def _file(self, asked: Asked) -> Reply:
        found = [
            p.files[asked.filename] for p in self.projects.values() if asked.filename in p.files
        ]
        if not found:
            return _NOT_FOUND
        content = found[0].core_metadata if asked.kind == "metadata" else found[0].content
        if content is None:
            return _NOT_FOUND
        whole = Reply(body=content).plus(Content_Type="application/octet-stream")
        etag = _sha256(content)
        wanted = asked.headers.get("range")
        if asked.kind == "metadata" or not self.has_ranges:
            return self._validated(asked, whole, etag)
        whole = whole.plus(Accept_Ranges="bytes")
        is_other = asked.headers.get("if-range", f'"{etag}"') != f'"{etag}"'
        if wanted is None or is_other or asked.method == "HEAD":
            return self._validated(asked, whole, etag)
        bounds = _parse_range(wanted, len(content))
        if bounds is None:
            return Reply(status=416).plus(Content_Range=f"bytes */{len(content)}")
        begin, end = bounds
        part = replace(whole, status=206, body=content[begin:end])
        part = part.plus(Content_Range=f"bytes {begin}-{end - 1}/{len(content)}")
        return part.plus(ETag=f'"{etag}"') if self.has_etags else part

    def _validated(self, asked: Asked, reply: Reply, etag: str) -> Reply:
        if self.has_etags:
            reply = reply.plus(ETag=f'"{etag}"')
            if f'"{etag}"' in asked.headers.get("if-none-match", ""):
                return Reply(status=304).plus(ETag=f'"{etag}"')
        return replace(reply, is_chunked=self.is_chunked)


_NOT_FOUND = Reply(
    status=404, headers={"Content-Type": "text/html"}, body=b"<h1>404 Not Found</h1>"
)


@contextmanager
def running() -> Iterator[Upstream]:
    """An index without projects, until the end of the block."""
    upstream = Upstream()
    listeners: dict[Origin, _Listener] = {
        "index": _Listener(upstream, "index"),
        "files": _Listener(upstream, "files"),
    }
    upstream._listeners = listeners
    try:
        yield upstream
    finally:
        upstream.release()
        for listener in listeners.values():
            listener.close()


def _concerns(kind: Kind | None, only: str, asked: Asked) -> bool:
    return kind in (None, asked.kind) and only in ("", asked.project, asked.filename)


def _core_metadata(filename: str, content: bytes) -> bytes | None:
    try:
        return read_core_metadata(io.BytesIO(content), filename)
    except PrivatePypiError:
        return None  # it is only called a wheel


def _version(filename: str) -> str | None:
    try:
        return str(parse_filename(filename).version)
    except PrivatePypiError:
        return None


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _document(title: str, metas: str, lines: Iterator[str] | Sequence[str]) -> str:
    return (
        '<!DOCTYPE html>\n<html><head><meta name="pypi:repository-version" content="1.4">'
        f"{metas}<title>{title}</title></head>\n<body><h1>{title}</h1>\n"
        + "\n".join(lines)
        + "\n</body></html>\n"
    )


def _parse_range(text: str, size: int) -> tuple[int, int] | None:
    """The begin and the end (exclusive) of a single range (RFC 9110, 14.1.2); None: there is none.

    Several ranges in one request are not supported.
    """
    found = re.fullmatch(r"bytes=(\d*)-(\d*)", text)
    assert found and found.group() != "bytes=-", f"a Range that this server does not know: {text}"
    first, last = found.groups()
    if not first:
        begin, end = max(0, size - int(last)), size
    else:
        begin, end = int(first), min(size, int(last) + 1 if last else size)
    return (begin, end) if begin < end else None


# -- the servers -----------------------------------------------------------------------------------


class Exchange:
    """One request and the means to answer it, in one thread."""

    def __init__(self, handler: _Handler, upstream: Upstream, asked: Asked, ended: threading.Event):
        self.upstream = upstream
        self.asked = asked
        self.ended = ended  # when everybody has to stop; if it goes wrong, also when all is well
        self._handler = handler
        self._hold = upstream.hold_of(asked)

    def good(self) -> Reply:
        """The right answer to the request."""
        return self.upstream.reply(self.asked)

    def whole(self) -> Reply:
        """The right answer to the request if the client has nothing yet, so never a 304."""
        return self.upstream.reply(self._without("if-none-match"))

    def whole_file(self) -> bytes:
        """The file of which a part is asked for."""
        return self.upstream.reply(self._without("range")).body

    def _without(self, header: str) -> Asked:
        kept = {name: value for name, value in self.asked.headers.items() if name != header}
        return replace(self.asked, headers=kept)

    def wait(self) -> None:
        """Wait where requests of this kind are held."""
        if self._hold is not None and self._hold.after is None:
            self._hold.wait(self.ended)

    def send(self, reply: Reply) -> None:
        """Answer, with a body unless the method or the status has none."""
        handler = self._handler
        self.asked.status = reply.status
        handler.send_response_only(reply.status)
        for name, value in reply.headers.items():
            handler.send_header(name, value)
        has_body = reply.status not in (204, 304)
        if has_body and reply.is_chunked:
            handler.send_header("Transfer-Encoding", "chunked")
        elif has_body:
            length = len(reply.body) if reply.length is None else reply.length
            handler.send_header("Content-Length", str(length))
        handler.end_headers()
        if has_body and self.asked.method != "HEAD":
            for piece in self._pieces(reply):
                self.write(b"%x\r\n%s\r\n" % (len(piece), piece) if reply.is_chunked else piece)
                self.asked.sent += len(piece)
            if reply.is_chunked and not reply.is_cut:
                self.write(b"0\r\n\r\n")
        if reply.is_cut:
            self.close()

    def _pieces(self, reply: Reply) -> Iterator[bytes]:
        """The body in pieces; with pauses, and where a hold wants one."""
        body, hold = reply.body, self._hold
        if hold is not None and hold.after is not None:
            if hold.after:
                yield body[: hold.after]
            hold.wait(self.ended)
            if self.ended.is_set():
                self.close()
                return
            body = body[hold.after :]
        size = 1 if reply.pause else _PIECE
        for begin in range(0, len(body), size):
            if reply.pause and self.ended.wait(reply.pause):
                self.close()
                return
            yield body[begin : begin + size]

    def write(self, content: bytes) -> None:
        """Send bytes as they are."""
        self._handler.wfile.write(content)

    def write_body(self, content: bytes) -> None:
        """Send bytes as they are behind a head, which has nothing behind it if HEAD was asked."""
        if self.asked.method != "HEAD":
            self.write(content)

    def close(self) -> None:
        """Close the connection after this answer."""
        self._handler.close_connection = True

    def reset(self) -> None:
        """Close the connection so that the client sees a reset (RST)."""
        linger = struct.pack("ii", 1, 0)
        self._handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else the body waits for the acknowledgement of the head
    server: _Server

    def _handle(self) -> None:
        upstream, listener = self.server.upstream, self.server.listener
        headers = {name.lower(): value for name, value in self.headers.items()}
        asked = upstream.describe(listener.name, self.command, self.path, headers)
        failing = upstream.fault_of(asked)
        exchange = Exchange(self, upstream, asked, self.server.ended)
        try:
            exchange.wait()
            if self.server.ended.is_set():
                self.close_connection = True  # nobody who has waited is answered any more
            elif failing is None:
                exchange.send(exchange.good())
            else:
                fault, exchange.ended = failing
                fault.answer(exchange)
        except OSError:
            self.close_connection = True  # the client has seen enough

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _handle

    def log_message(self, *_: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    """A server whose connections can be closed from outside, and whose threads are waited for."""

    daemon_threads = False
    request_queue_size = 256

    def __init__(self, listener: _Listener, port: int) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.upstream = listener.upstream
        self.listener = listener
        self.ended = threading.Event()
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()  # guards _open
        self._thread = threading.Thread(target=self.serve_forever, args=(0.005,))
        self._thread.start()

    def process_request(self, request, client_address) -> None:  # type: ignore[no-untyped-def]
        with self._lock:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request) -> None:  # type: ignore[no-untyped-def]
        with self._lock:
            self._open.discard(request)
        # `socketserver` would end the writing side first, so that a reset were none.
        self.close_request(request)

    def handle_error(self, request, client_address) -> None:  # type: ignore[no-untyped-def]
        """Only what is wrong with this server is worth a word, not a client that has left."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)

    def end(self) -> None:
        """Close everything, and wait for all threads."""
        self.ended.set()
        self.upstream.end_trouble()
        self.shutdown()
        self._thread.join()
        with self._lock:
            for connection in self._open:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        self.server_close()


class _Listener:
    """A port, on which a server listens or not."""

    def __init__(self, upstream: Upstream, name: Origin) -> None:
        self.upstream = upstream
        self.name: Origin = name
        self._server: _Server | None = _Server(self, 0)
        self.port = self._server.server_port
        self._kept: socket.socket | None = None  # keeps the port while nobody listens

    def refuse(self) -> None:
        """Cut all connections, and refuse new ones."""
        if self._server is not None:
            self._server.end()
            self._server = None
            self._kept = socket.socket()
            self._kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._kept.bind(("127.0.0.1", self.port))

    def listen(self) -> None:
        """Accept connections again."""
        if self._server is None:
            self._server = _Server(self, self.port)
            self._forget()

    def close(self) -> None:
        """End for good."""
        if self._server is not None:
            self._server.end()
        self._forget()

    def _forget(self) -> None:
        if self._kept is not None:
            self._kept.close()
            self._kept = None
