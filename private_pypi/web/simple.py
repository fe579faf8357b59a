"""The simple repository API over HTTP: pages, files and their core metadata (PEP 503, 658, 691)."""

from __future__ import annotations

import functools
import gzip
import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO, cast

from flask import Blueprint, Response, request
from packaging.utils import NormalizedName
from werkzeug.http import http_date, parse_accept_header, parse_etags
from werkzeug.wsgi import wrap_file

from private_pypi.backend import Access
from private_pypi.errors import ProjectNotFound
from private_pypi.filenames import normalize
from private_pypi.model import DistributionFile, LocalFile, Redirect
from private_pypi.repositories import Grant
from private_pypi.simple_api import (
    Representation,
    named_representation,
    negotiate,
    project_detail,
    project_list,
)
from private_pypi.web.answers import answer_text
from private_pypi.web.ranges import NotSatisfiable, parse_range
from private_pypi.web.requests import grant, redirect_within, respond

PAGE_CACHE_CONTROL = "max-age=0, must-revalidate"
"""A new release is visible at once, and a page that did not change costs a 304 (protocol 34).

Not `private`: a shared cache may keep the page, but every use of it is checked here, with the
secret of the one who asks (RFC 9111 §3.5). pdm keeps nothing that is private.
"""

FILE_CACHE_CONTROL = "max-age=365000000, immutable, private"
VARY = "Accept, Accept-Encoding, Authorization"
CORS = ("Access-Control-Allow-Origin", "*")
"""With pages and files that anybody may read: Python in a browser fetches them (protocol 38)."""


_CACHE_BYTES = 24 * 2**20
_WORTH_COMPRESSING = 600  # bytes; below, the header costs more than it saves
_BLOCK = 256 * 1024  # bytes that leave a file at a time
_METADATA = ".metadata"

PageKey = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Page:
    """A rendered page with its strong validators, one for each encoding (protocol 33)."""

    body: bytes
    compressed: bytes | None
    etag: str
    content_type: str
    serial: int

    @property
    def size(self) -> int:
        return len(self.body) + len(self.compressed or b"") + 500


class PageCache:
    """Rendered pages, the least recently used ones dropped above a limit of bytes.

    Keys bear the serial, so nothing needs to be invalidated.
    """

    def __init__(self, max_bytes: int = _CACHE_BYTES) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._pages: OrderedDict[PageKey, Page] = OrderedDict()
        self._lock = threading.Lock()  # guards _pages and _bytes

    def get(self, key: PageKey, render: Callable[[], Page]) -> Page:
        """The page of this key, rendered when it is not there."""
        with self._lock:
            page = self._pages.get(key)
            if page is not None:
                self._pages.move_to_end(key)
                return page
        page = render()
        with self._lock:
            replaced = self._pages.pop(key, None)
            self._bytes += page.size - (replaced.size if replaced else 0)
            self._pages[key] = page
            while self._bytes > self._max_bytes and len(self._pages) > 1:
                _, dropped = self._pages.popitem(last=False)
                self._bytes -= dropped.size
        return page


def make_page(text: str, representation: Representation, serial: int) -> Page:
    """Encode, hash and compress a rendered page, once."""
    body = text.encode()
    compressed = None
    if len(body) > _WORTH_COMPRESSING:
        # mtime 0: the same page is the same bytes on every server, and so is its ETag.
        compressed = gzip.compress(body, compresslevel=6, mtime=0)
    return Page(
        body,
        compressed,
        hashlib.sha256(body).hexdigest()[:32],
        representation.content_type,
        serial,
    )


def make_blueprint(pages: PageCache) -> Blueprint:
    """The routes, relative to the root or to `/r/<repository>`."""
    blueprint = Blueprint("simple", __name__)

    def root(repository: str | None = None, version: str | None = None) -> Response:
        granted = grant(repository, Access.READ)
        representation = _representation(version)
        if representation is None:
            return _not_acceptable()
        granted.repository.require_ready()
        index = granted.repository.index
        serial = index.serial()
        page = pages.get(
            (index, serial, representation),
            lambda: make_page(
                project_list(index.projects(), representation, serial=serial),
                representation,
                serial,
            ),
        )
        return send_page(page, granted)

    def project(name: str, repository: str | None = None, version: str | None = None) -> Response:
        granted = grant(repository, Access.READ)
        normalized = normalize(name)
        if name != normalized:
            return redirect_within(f"../{normalized}/")
        representation = _representation(version)
        if representation is None:
            return _not_acceptable()
        base = f"../../{normalized}/" if version else ""
        page = project_page(pages, granted, normalized, representation, base)
        if page is None:
            return _elsewhere(granted, normalized)
        return send_page(page, granted)

    def alias(name: str, to_root: str, repository: str | None = None) -> Response:
        # hatch looks here for what is published already, and reads HTML only (protocol 94).
        granted = grant(repository, Access.READ)
        normalized = normalize(name)
        base = f"{to_root}simple/{normalized}/"
        page = project_page(pages, granted, normalized, Representation.TEXT_HTML, base)
        if page is None:
            raise ProjectNotFound(normalized)
        return send_page(page, granted)

    def file(name: str, filename: str, repository: str | None = None) -> Response:
        granted = grant(repository, Access.READ)
        normalized = normalize(name)
        if name != normalized:
            return redirect_within(f"../{normalized}/{filename}")
        if filename.endswith(_METADATA):
            found = granted.repository.file(normalized, filename.removesuffix(_METADATA))
            granted.check_project(normalized)
            return send_file(
                granted.open_core_metadata(found),
                found,
                public=granted.repository.is_public,
                etag=found.core_metadata_sha256 or "",
                content_type="text/plain; charset=utf-8",
            )
        found = granted.repository.file(normalized, filename)
        granted.check_project(normalized)
        return send_file(
            granted.open_file(found),
            found,
            public=granted.repository.is_public,
            etag=found.sha256,
            content_type="application/octet-stream",
        )

    def to_slash(
        name: str | None = None, repository: str | None = None, version: str | None = None
    ) -> Response:
        if name is not None and name != normalize(name):
            return redirect_within(f"{normalize(name)}/")
        return redirect_within(request.path.rsplit("/", 1)[1] + "/")

    versions = "<any('v1+json', 'v1+html'):version>"
    for rule, view in (
        ("/simple/", root),
        ("/simple", to_slash),
        (f"/simple/{versions}/", root),
        (f"/simple/{versions}", to_slash),
        (f"/simple/{versions}/<name>/", project),
        (f"/simple/{versions}/<name>", to_slash),
        ("/simple/<name>/", project),
        ("/simple/<name>", to_slash),
        ("/simple/<name>/<filename>", file),
    ):
        blueprint.add_url_rule(rule, view_func=view, methods=["GET"])
    # Below each address that takes uploads, because hatch appends it to the one it was given.
    for rule, to_root in (
        ("/+simple/<name>/", "../../"),
        ("/simple/+simple/<name>/", "../../../"),
        ("/legacy/+simple/<name>/", "../../../"),
    ):
        blueprint.add_url_rule(
            rule, view_func=alias, methods=["GET"], defaults={"to_root": to_root}
        )
    return blueprint


def project_page(
    pages: PageCache,
    granted: Grant,
    project: NormalizedName,
    representation: Representation,
    base: str = "",
) -> Page | None:
    """The page of a project; None when it has no files. Costs one look-up when it is rendered."""
    granted.check_project(project)
    index = granted.repository.index
    serial = index.page_serial(project)
    if serial is None:
        granted.repository.require_ready()
        return None

    def render() -> Page:
        text = project_detail(
            project, index.project_files(project), representation, serial=serial, base=base
        )
        return make_page(text, representation, serial)

    return pages.get((index, project, serial, representation, base), render)


def page_answer(
    page: Page, *, public: bool, accept_encoding: str | None, if_none_match: str | None
) -> tuple[str, list[tuple[str, str]], bytes]:
    """Status, headers and body of a page; 304 when the client has it in this encoding.

    RFC 9110 §13, and protocol 33: a strong ETag for each encoding, the same with 304.
    """
    compressed = page.compressed if accepts_gzip(accept_encoding) else None
    etag = f'"{page.etag}"' if compressed is None else f'"{page.etag}-gzip"'
    headers = [
        ("ETag", etag),
        ("Cache-Control", PAGE_CACHE_CONTROL),
        ("Vary", VARY),
        ("X-PyPI-Last-Serial", str(page.serial)),
    ]
    if public:
        headers.append(CORS)
    if none_matches(if_none_match, etag):
        return "304 Not Modified", headers, b""
    body = page.body if compressed is None else compressed
    headers += [("Content-Type", page.content_type), ("Content-Length", str(len(body)))]
    if compressed is not None:
        headers.append(("Content-Encoding", "gzip"))
    return "200 OK", headers, body


def send_page(page: Page, granted: Grant) -> Response:
    """A page as Flask sends it."""
    status, headers, body = page_answer(
        page,
        public=granted.repository.is_public,
        accept_encoding=request.headers.get("Accept-Encoding"),
        if_none_match=request.headers.get("If-None-Match"),
    )
    return Response(body, status=status, headers=headers)


def send_file(
    opened: LocalFile | Redirect,
    file: DistributionFile,
    *,
    public: bool,
    etag: str,
    content_type: str,
) -> Response:
    """A file, a part of it, or the way to it (RFC 9110 §14)."""
    quoted = f'"{etag}"'
    headers = {
        "ETag": quoted,
        "Cache-Control": FILE_CACHE_CONTROL,
        "Vary": "Authorization",
        "Accept-Ranges": "bytes",
    }
    if public:
        headers.update([CORS])
    if file.uploaded_at is not None:
        headers["Last-Modified"] = http_date(file.uploaded_at)
    if none_matches(request.headers.get("If-None-Match"), quoted):
        return Response(status=304, headers=headers)
    match opened:
        case Redirect(url=url):
            if request.method == "HEAD":
                # A signed address is for one method; this one we can answer (protocol 37).
                headers |= {"Content-Type": content_type, "Content-Length": str(file.size)}
                return Response(headers=headers)
            return Response(status=302, headers={"Location": url, "Cache-Control": "no-store"})
        case LocalFile(path=path):
            return _send_local(path, headers, content_type, quoted)


def _send_local(path: Path, headers: dict[str, str], content_type: str, etag: str) -> Response:
    stream = path.open("rb")
    try:
        size = path.stat().st_size
        asked = request.headers.get("Range") if request.method == "GET" else None
        condition = request.headers.get("If-Range")
        if condition is not None and condition not in (etag, headers.get("Last-Modified")):
            asked = None  # §13.1.5: it changed, so send the whole
        try:
            part = parse_range(asked, size)
        except NotSatisfiable:
            stream.close()
            headers["Content-Range"] = f"bytes */{size}"
            return Response(status=416, headers=headers)
        status = 200
        length = size
        if part is not None:
            status = 206
            length = part.stop - part.start
            stream.seek(part.start)
            headers["Content-Range"] = f"bytes {part.start}-{part.stop - 1}/{size}"
        headers["Content-Type"] = content_type
        headers["Content-Length"] = str(length)
        # The server sends it without holding a thread while the client is slow.
        body = wrap_file(request.environ, cast(IO[bytes], FilePart(stream, length)), _BLOCK)
    except BaseException:
        stream.close()
        raise
    response = Response(body, status=status, headers=headers, direct_passthrough=True)
    response.call_on_close(stream.close)
    return response


class FilePart:
    """The next `length` bytes of a file, with all that servers ask of a file."""

    def __init__(self, file: BinaryIO, length: int) -> None:
        self._file = file
        self._end = file.tell() + length

    def read(self, size: int = -1) -> bytes:
        """At most `size` bytes, none at the end of the part."""
        left = max(0, self._end - self._file.tell())
        return self._file.read(left if size < 0 else min(size, left))

    def seek(self, offset: int, whence: int = 0) -> int:
        """As of the file; 2 counts from the end of the part."""
        if whence == 2:
            return self._file.seek(self._end + offset)
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """As of the file."""
        return self._file.tell()

    def seekable(self) -> bool:
        """It is."""
        return True

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _elsewhere(granted: Grant, project: NormalizedName) -> Response:
    """An unknown project: the extra index, or 404; trouble is neither."""
    granted.repository.require_fresh()
    url = granted.repository.extra_index_url(project)
    if url is None:
        raise ProjectNotFound(project)
    # Never 304, whatever the client has: it may be the page of a project that we had since.
    return Response(status=302, headers={"Location": url, "Cache-Control": "no-store"})


def _representation(version: str | None) -> Representation | None:
    if version is not None:
        return Representation.JSON if version == "v1+json" else Representation.HTML
    name = request.args.get("format")
    if name is not None:
        return named_representation(name)
    return negotiate(request.headers.get("Accept"))


def _not_acceptable() -> Response:
    return respond(
        answer_text(
            406,
            "not acceptable; this page is there as " + ", ".join(r.value for r in Representation),
            None,
            [("Vary", VARY)],
        )
    )


def none_matches(header: str | None, etag: str) -> bool:
    """Whether `If-None-Match` has this strong ETag (quoted)."""
    return header is not None and (header == etag or parse_etags(header).contains(etag[1:-1]))


@functools.lru_cache(maxsize=256)
def accepts_gzip(header: str | None) -> bool:
    """Whether `Accept-Encoding` lets us compress; a client that says nothing gets plain text."""
    return header is not None and parse_accept_header(header)["gzip"] > 0
