"""The storage that is another index: its pages and files, over HTTP or in a folder.

JSON is asked for and HTML understood. What the upstream answers is only absence if it is 404 or 410
(protocol 79); everything else that is no page of an index is trouble.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import re
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from private_pypi.backend import (
    Access,
    Backend,
    Folders,
    Secret,
    Storage,
    Traits,
    UpstreamNames,
    UpstreamPage,
    Usage,
)
from private_pypi.distributions.filenames import project_name
from private_pypi.errors import (
    BackendError,
    BackendUnavailable,
    FileNotFound,
    ProjectNotFound,
    Unsupported,
)
from private_pypi.model import Download, FileHandle, LocalFile, Stream
from private_pypi_mirror.addresses import last_component, origin_of, shown
from private_pypi_mirror.connection import Answer, Connection, Transfer
from private_pypi_mirror.folder import Folder
from private_pypi_mirror.html import NotAPage
from private_pypi_mirror.names import html_names, json_names
from private_pypi_mirror.pages import Page, html_page, json_page
from private_pypi_mirror.settings import IndexMirrorSettings

_LARGEST_PAGE: Final = 64 << 20  # bytes
_SMALL_PAGE: Final = 1 << 20  # bytes of a page that does not wait for its turn
_MOST_LARGE: Final = 4  # larger pages that are read at the same time
_LARGEST_LIST: Final = 1 << 30  # bytes
_LARGEST_FILE: Final = 1 << 40  # bytes
_LARGEST_METADATA: Final = 64 << 20  # bytes
_PAGE_SECONDS: Final = 120.0  # to wait for a page, or for a part of a file
_LIST_SECONDS: Final = 1800.0
_JSON: Final = ("application/vnd.pypi.simple.v1+json", "application/json")
_HTML: Final = ("application/vnd.pypi.simple.v1+html", "text/html", "application/xhtml+xml")
_PAGES: Final = {
    "Accept": "application/vnd.pypi.simple.v1+json, "
    "application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.01",
    "Accept-Encoding": "gzip",
}
_FILES: Final = {"Accept": "*/*", "Accept-Encoding": "identity"}
_CONTENT_RANGE: Final = re.compile(r"bytes ([0-9]{1,18})-[0-9]{1,18}/([0-9]{1,18}|\*)")
_GZIPPED: Final = (".gz", ".tgz")
_GONE: Final = (404, 410)
_CHARSETS: Final = ("utf-8", "ascii", "iso8859-1", "cp1252")


class MirrorStorage(Storage["MirrorBackend"]):
    """What another index has. Every secret of the table sees the same."""

    def access(self, project: str | None = None) -> Access:
        return self.backend.settings.access_of(self.secret)

    def usage(self) -> Usage:
        return self.backend.connection.usage()

    # -- pages -----------------------------------------------------------------------------------

    def project_page(self, project: str, validator: str) -> UpstreamPage | None:
        if project_name(project) != project:  # it becomes a part of an address
            raise ProjectNotFound(project)
        if self.backend.folder is not None:
            return self._page_of_folder(self.backend.folder, project, validator)
        url = f"{self.backend.settings.base_url}{project}/"
        answer = self._get_page(url, validator)
        if answer is None:
            return None
        with contextlib.closing(answer), contextlib.ExitStack() as turn:
            if answer.status in _GONE:
                raise ProjectNotFound(project)
            self._require_page(answer)
            body = self._in_turn(answer.body(_LARGEST_PAGE, _PAGE_SECONDS), answer.url, turn)
            with _no_page(answer.url):
                if answer.media_type in _JSON:
                    page = json_page(b"".join(body), answer.url, project)
                else:
                    needs_end = not answer.is_delimited
                    page = html_page(_texts(answer, body), answer.url, needs_end=needs_end)
        return _page(page, answer.url, answer.validator)

    def _in_turn(
        self, body: Iterator[bytes], url: str, turn: contextlib.ExitStack
    ) -> Iterator[bytes]:
        """The body of a page. A large one takes a turn, which `turn` ends: it needs much memory."""
        size, is_large = 0, False
        for piece in body:
            size += len(piece)
            if size > _SMALL_PAGE and not is_large:
                if not self.backend.large_pages.acquire(timeout=_PAGE_SECONDS):
                    raise BackendUnavailable(
                        f"{shown(url)} is large, and too many large pages are read at the same time"
                    )
                turn.callback(self.backend.large_pages.release)
                is_large = True
            yield piece

    def project_names(self, validator: str) -> UpstreamNames | None:
        if self.backend.folder is not None:
            return UpstreamNames(names=iter(self.backend.folder.projects()))
        url = self.backend.settings.base_url
        answer = self._get_page(url, validator)
        if answer is None:
            return None
        try:
            if answer.status in _GONE:
                raise BackendError(
                    f"{shown(answer.url)} answered {answer.status}: the upstream has no list of "
                    "projects there"
                )
            self._require_page(answer)
        except BaseException:
            answer.close()
            raise
        return UpstreamNames(names=Transfer(answer, _names(answer)), validator=answer.validator)

    def _get_page(self, url: str, validator: str) -> Answer | None:
        """The answer for a page; None: the page has not changed."""
        answer = self.backend.connection.get(url, _PAGES, validator)
        if answer.status != 304:
            return answer
        answer.close()
        if not answer.is_conditional:
            raise BackendError(
                f"{shown(answer.url)} answered 304 (Not Modified) to a request without a condition"
            )
        return None

    def _require_page(self, answer: Answer) -> None:
        """Raise unless the answer may be a page."""
        if answer.status != 200:
            raise answer.error(there_are_credentials=self.backend.connection.has_credentials)
        if answer.media_type not in (*_JSON, *_HTML):
            raise BackendError(
                f"{shown(answer.url)} answered {answer.media_type[:80] or 'no media type'!r}, "
                "which is not a page of an index; is index_url right?"
            )

    def _page_of_folder(self, folder: Folder, project: str, validator: str) -> UpstreamPage | None:
        found = folder.read_page(project, validator, _LARGEST_PAGE + 1)
        if found is None:
            return None
        content, new_validator = found
        url = folder.page_url(project)
        if len(content) > _LARGEST_PAGE:
            raise BackendError(f"{shown(url)} has more than {_LARGEST_PAGE} bytes")
        with _no_page(url):
            # A file that is being written may be short, so it must have its last tag.
            page = html_page([content.decode("utf-8", "replace")], url, needs_end=True)
        return _page(page, url, new_validator)

    # -- files -----------------------------------------------------------------------------------

    def open_file(self, file: FileHandle) -> Download:
        return self._opened(file.location, file.filename, file, _LARGEST_FILE)

    def open_metadata(self, file: FileHandle) -> Download:
        path, mark, query = file.location.partition("?")
        location = f"{path}.metadata{mark}{query}"
        return self._opened(location, f"{file.filename}.metadata", None, _LARGEST_METADATA)

    def _opened(
        self, location: str, filename: str, file: FileHandle | None, most: int
    ) -> LocalFile | Stream:
        """A file of the upstream; `file`: what is known of it, if it is a distribution file."""
        folder = self.backend.folder
        if folder is not None and origin_of(location) is None:
            return LocalFile(folder.open_file(location, filename))
        has_sha256 = file is not None and file.sha256 is not None
        self._require_safe(location, has_sha256=has_sha256)
        answer = self.backend.connection.get(location, _FILES)
        try:
            if answer.status in _GONE:
                raise FileNotFound(filename)
            self._require_file(answer, filename)
            is_known = file is not None and (has_sha256 or file.size is not None)
            if not answer.is_delimited and not is_known:
                raise BackendError(
                    f"{shown(answer.url)} does not say its length, and the index does not either, "
                    "so a file that is cut off would not be noticed"
                )
        except BaseException:
            answer.close()
            raise
        # How long a file may take is limited where its bytes are kept.
        seconds = _PAGE_SECONDS if file is None else float("inf")
        return Stream(answer.raw(most, seconds), answer.length or 0)

    def read_part(self, location: str, start: int, length: int) -> bytes:
        if length <= 0:
            return b""
        name = last_component(location)
        if self.backend.folder is not None and origin_of(location) is None:
            with self.backend.folder.open_file(location, name) as file:
                file.seek(start)
                return file.read(length)
        return self._part(location, name, start, length)[0]

    def file_size(self, file: FileHandle) -> int | None:
        folder = self.backend.folder
        if folder is not None and origin_of(file.location) is None:
            with folder.open_file(file.location, file.filename) as opened:
                return opened.seek(0, io.SEEK_END)
        return self._part(file.location, file.filename, 0, 1)[1]

    def _part(self, location: str, name: str, start: int, length: int) -> tuple[bytes, int | None]:
        """A part of a file, and the size of the file (None: the upstream does not say it)."""
        self._require_safe(location, has_sha256=True)
        headers = {**_FILES, "Range": f"bytes={start}-{start + length - 1}"}
        with contextlib.closing(self.backend.connection.get(location, headers)) as answer:
            if answer.status in _GONE:
                raise FileNotFound(name)
            if answer.status == 416:  # beyond the end
                return b"", None
            if answer.status == 200:
                raise Unsupported(f"{shown(answer.url)} does not send parts of files")
            self._require_file(answer, name, status=206)
            said = _CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", "").strip().lower())
            if said is None or int(said[1]) != start:
                raise BackendError(f"{shown(answer.url)} sent another part than was asked for")
            size = None if said[2] == "*" else int(said[2])
            return b"".join(answer.raw(length, _PAGE_SECONDS)), size

    def _require_safe(self, location: str, *, has_sha256: bool) -> None:
        """Raise unless a file may be fetched from this address."""
        origin = origin_of(location)
        if origin is None:
            raise BackendError(
                f"the upstream has this file at {shown(location)}; only http: and https: addresses "
                "are used, and file: addresses if index_url is one itself"
            )
        is_encrypted = _is_encrypted(self.backend.settings.base_url)
        if is_encrypted and origin[0] == "http" and not has_sha256:
            raise BackendError(
                f"the upstream has this file at {shown(location)}, which is not encrypted, and "
                "does not give its SHA-256"
            )

    def _require_file(self, answer: Answer, filename: str, *, status: int = 200) -> None:
        """Raise unless the answer may be a file."""
        if answer.status != status:
            raise answer.error(there_are_credentials=self.backend.connection.has_credentials)
        if answer.media_type in _HTML:
            raise BackendError(
                f"{shown(answer.url)} answered a web page in place of a file, perhaps one to sign "
                "in"
            )
        # Some web servers call a file that ends with .gz compressed. Its bytes are the right ones.
        is_gzip = answer.encoding in ("gzip", "x-gzip") and filename.endswith(_GZIPPED)
        if answer.encoding and not is_gzip:
            raise BackendError(
                f"{shown(answer.url)} sends the file compressed ({answer.encoding[:20]!r}), "
                "although it was asked not to"
            )


class MirrorBackend(Backend[IndexMirrorSettings]):
    """Another index."""

    Settings = IndexMirrorSettings
    View = MirrorStorage
    traits = Traits(largest_file=_LARGEST_FILE, needs_admin_secret=False)

    def __init__(self, settings: IndexMirrorSettings, folders: Folders) -> None:
        super().__init__(settings, folders)
        password = (settings.password or Secret("")).reveal()
        self.connection = Connection(
            settings.base_url,
            settings.username,
            password,
            proxy=settings.proxy,
            ca_file=settings.ca_file,
        )
        self.large_pages = threading.BoundedSemaphore(_MOST_LARGE)
        self.folder = Folder(settings.base_url) if settings.is_folder else None

    def close(self) -> None:
        self.connection.close()


def _names(answer: Answer) -> Iterator[str]:
    """The names of a list while it arrives."""
    with _no_page(answer.url):
        body = answer.body(_LARGEST_LIST, _LIST_SECONDS)
        if answer.media_type in _JSON:
            yield from json_names(body)
        else:
            needs_end = not answer.is_delimited
            yield from html_names(_texts(answer, body), answer.url, needs_end=needs_end)


def _texts(answer: Answer, body: Iterator[bytes]) -> Iterator[str]:
    """The body as text. Names and addresses are ASCII, so a wrong charset does no harm."""
    charset = answer.headers.get("Content-Type", "").lower().partition("charset=")[2].strip(" \"';")
    with contextlib.suppress(LookupError, ValueError):
        charset = codecs.lookup(charset).name
    decoder = codecs.getincrementaldecoder(charset if charset in _CHARSETS else "utf-8")("replace")
    for piece in body:
        yield decoder.decode(piece)
    yield decoder.decode(b"", final=True)


def _is_encrypted(url: str) -> bool:
    return url[:6].lower() == "https:"


def _page(page: Page, url: str, validator: str) -> UpstreamPage:
    """The page, without core metadata that would arrive unencrypted from an encrypted index."""
    files, status = page
    if _is_encrypted(url):
        files = [
            replace(file, core_metadata=None)
            if file.core_metadata is not None and not _is_encrypted(file.url)
            else file
            for file in files
        ]
    return UpstreamPage(files=files, status=status, validator=validator)


@contextlib.contextmanager
def _no_page(url: str) -> Iterator[None]:
    """Turn `NotAPage` into an error that names the address."""
    try:
        yield
    except NotAPage as error:
        raise BackendError(f"{shown(url)}: {error}") from None
