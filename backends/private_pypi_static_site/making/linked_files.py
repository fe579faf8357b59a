"""Finds out whether the files that a site links are where it says; downloads none of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from private_pypi.backend import Secret
from private_pypi.errors import BackendError
from private_pypi_static_site.making.http_client import AT_ONCE, HttpClient
from private_pypi_static_site.project_file import Project, SiteFile, by_filename

_LARGEST_METADATA: Final = 32 << 20  # bytes
_LOOPBACK: Final = {"127.0.0.1", "localhost", "::1"}


@dataclass(frozen=True, slots=True)
class HostToken:
    """A token, and the only host that gets it: links come from pull requests of strangers."""

    host: str  # with the port, if it is not that of the scheme
    token: Secret

    def headers_for(self, url: str) -> Mapping[str, str]:
        """The headers of a request to this address: with the token if it is its host's."""
        parts = urlsplit(url)
        is_safe = parts.scheme == "https" or parts.hostname in _LOOPBACK
        if not is_safe or parts.netloc.lower() != self.host.lower():
            return {}
        return {"Authorization": f"Bearer {self.token.reveal()}"}


def check_links(
    projects: Sequence[Project],
    client: HttpClient,
    token: HostToken | None = None,
    *,
    progress: Callable[[int, int, str], None] = lambda *_: None,
) -> list[str]:
    """A sentence for each linked file that is not there, or is another one; a few at a time.

    Each address is asked with HEAD, or GET without reading the file where HEAD is refused. The size
    is compared where the server tells it, and the core metadata are read and compared.
    """
    files = [
        (project, file)
        for project in projects
        for file in by_filename(project).values()
        if file.url is not None
    ]

    def problems(entry: tuple[Project, SiteFile]) -> list[str]:
        project, file = entry
        return [
            f"{project.normalized}: {file.filename}: {problem}"
            for problem in _problems_of(file, client, token)
        ]

    found: list[str] = []
    pool = ThreadPoolExecutor(max_workers=AT_ONCE)
    try:
        for done, sentences in enumerate(pool.map(problems, files), 1):
            found += sentences
            progress(done, len(files), "links checked")
    finally:
        pool.shutdown(cancel_futures=True)
    return found


def _problems_of(file: SiteFile, client: HttpClient, token: HostToken | None) -> Iterator[str]:
    assert file.url is not None

    def headers(url: str) -> Mapping[str, str]:
        # What is compared is the size of the file itself.
        return {"Accept-Encoding": "identity", **(token.headers_for(url) if token else {})}

    try:
        answer = client.ask("HEAD", file.url, headers=headers, leaves_host=True)
        if answer.status not in (200, 404, 410):  # some storages sign for GET only
            answer = client.ask("GET", file.url, headers=headers, leaves_host=True)
        if answer.status != 200:
            yield _refused(file.url, answer.status)
            return
        size = answer.headers.get("Content-Length", "")
        if size.isdecimal() and int(size[:20]) != file.size:
            yield f"{file.url} has {size[:20]} bytes, but the project's file says {file.size}"
        if file.core_metadata_sha256 is None:
            return
        url = f"{file.url}.metadata"
        answer = client.ask(
            "GET", url, headers=headers, leaves_host=True, largest=_LARGEST_METADATA
        )
        if answer.status != 200:
            yield _refused(url, answer.status)
        elif hashlib.sha256(answer.body).hexdigest() != file.core_metadata_sha256:
            # pip and uv refuse the file then.
            yield f"{url} has other content than `core_metadata_sha256` says"
    except BackendError as error:
        yield str(error)


def _refused(url: str, status: int) -> str:
    match status:
        case 404 | 410:
            return f"{url} is not there ({status}), or needs a token"
        case 401 | 403:
            return f"{url} may not be read ({status}); give a token with --token_env"
        case _:
            return f"{url} answered {status}"
