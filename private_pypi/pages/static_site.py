"""Writes an index as a folder of static pages, which any web server can serve.

The layout is that of private-pypi 0.2: `index.html` lists the projects, `<project>/index.html` the
files of a project, and `index.toml` is the index document of the pages. A page links to a file
where it is stored, if everybody can fetch it there. Other files are copied into the folder of their
project, together with their core metadata. `index.json` beside a page is the same in JSON (PEP
691), for web servers that can send it as the type that installers expect.
"""

from __future__ import annotations

import hashlib
import html
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from packaging.utils import NormalizedName
from packaging.version import Version

from private_pypi.distributions.core_metadata import read_core_metadata
from private_pypi.errors import BackendError, InvalidUpload
from private_pypi.model import DistributionFile
from private_pypi.pages.output_folder import LIST as LIST
from private_pypi.pages.output_folder import OutputFolder, writing
from private_pypi.pages.simple_api import (
    API_VERSION,
    Representation,
    project_detail,
    project_list,
)

_PATH = re.compile(
    r"index\.html|index\.json|index\.toml|\.nojekyll|"
    r"[a-z0-9-]+/(?:index\.html|index\.json|[A-Za-z0-9._+!-]+\.(?:whl|zip|tar\.gz)(?:\.metadata)?)"
)
_TYPES = {"index.html": Representation.TEXT_HTML, "index.json": Representation.JSON}


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteFile:
    """A file of the index, and where its page links to."""

    file: DistributionFile
    address: str | None
    """The URL at which everybody can fetch the file, with its core metadata at the same URL plus
    `.metadata`. None: the file is copied into the folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteUpdate:
    """What `write_site` did. `str()` of it is a line for people."""

    projects: int
    linked: int  # files that are stored elsewhere
    kept: int  # files in the folder
    removed: int  # old pages and files

    def __str__(self) -> str:
        removed = f"; {self.removed} old pages and files removed" if self.removed else ""
        return (
            f"projects: {self.projects}; files: {self.linked} linked, "
            f"{self.kept} in the folder{removed}"
        )


Fetch = Callable[[DistributionFile], Iterator[bytes]]
"""Returns the content of a file in chunks. It may raise the errors of a backend."""

FetchCoreMetadata = Callable[[DistributionFile], bytes | None]
"""Returns the core metadata that are stored with a file; None: none. Raises what `Fetch` raises."""

Document = Callable[[Sequence[DistributionFile]], bytes]
"""Returns the index document for the files as the pages show them, ordered as on the pages."""

Progress = Callable[[int, int | None, str], None]
"""Called with the number of items that are done, their total (None: unknown), and a description."""


def write_site(
    folder: Path,
    name: str,
    files: Iterable[SiteFile],
    *,
    document: bytes | Document,
    fetch: Fetch,
    fetch_core_metadata: FetchCoreMetadata = lambda _: None,
    with_json: bool = False,
    progress: Progress = lambda *_: None,
) -> SiteUpdate:
    """Write the pages for exactly these files into a folder. Each page is replaced atomically.

    Files that are in the folder already are not fetched again. Core metadata are taken from the
    file, and fetched only if those are not the ones that the index says. Raises
    `ConfigurationError`, before anything is written, if the folder contains something else at the
    place of a page or file, and `BackendError` if a file is not the one that the index says.
    """
    pages = ("index.html", "index.json") if with_json else ("index.html",)
    by_project = _by_project(files)
    wanted = {*pages, "index.toml", ".nojekyll"}
    for project, members in by_project.items():
        wanted |= {f"{project}/{page}" for page in pages}
        for each in members:
            if each.address is None:
                wanted |= {f"{project}/{each.file.filename}", _metadata_path(each.file)}
    with writing(folder, wanted, _PATH) as output:
        co_hosted = [
            each.file for members in by_project.values() for each in members if each.address is None
        ]
        with_metadata: set[str] = set()
        for number, file in enumerate(co_hosted):
            progress(number, len(co_hosted), f"fetching into {folder.name}")
            _put_file(output, file, fetch)
            if _put_core_metadata(output, file, fetch_core_metadata):
                with_metadata.add(file.filename)
            else:
                output.give_up(_metadata_path(file))
        # Files are written before the pages that link to them, the list of projects last.
        shown: list[DistributionFile] = []
        for project, members in by_project.items():
            files_of_page = [_as_shown(each, with_metadata) for each in members]
            addresses = {each.file.filename: each.address for each in members}
            shown += files_of_page
            for page in pages:
                text = project_detail(
                    project,
                    files_of_page,
                    _TYPES[page],
                    serial=None,
                    address=lambda file, of=addresses: of[file.filename],  # type: ignore[misc]
                )
                output.write(f"{project}/{page}", text.encode())
        output.write(".nojekyll", b"")
        output.write("index.toml", document(shown) if callable(document) else document)
        if with_json:
            listed = [(project, 0) for project in by_project]
            text = "".join(project_list(listed, Representation.JSON, serial=None))
            output.write("index.json", text.encode())
        output.write("index.html", start_page(name, by_project).encode())
        removed = output.finish()
    return SiteUpdate(
        projects=len(by_project),
        linked=sum(map(len, by_project.values())) - len(co_hosted),
        kept=len(co_hosted),
        removed=removed,
    )


def start_page(name: str, by_project: Mapping[NormalizedName, Sequence[SiteFile]]) -> str:
    """The list of projects, for people and for installers (PEP 503).

    The projects of `by_project` are in order. The newest file of a project is the last one.
    """
    title = html.escape(name)
    items = "".join(
        _item(project, [each.file for each in files]) for project, files in by_project.items()
    )
    if not items:
        items = "<li><p>There are no projects yet.</p></li>\n"
    return (
        "<!DOCTYPE html>\n"
        '<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="pypi:repository-version" content="{API_VERSION}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{title}: Python packages</title>\n<style>\n{_STYLE}</style>\n</head>\n<body>\n"
        f"<main>\n<h1>{title}</h1>\n"
        "<p>A Python package index. Install from it with the address of this page:</p>\n"
        "<pre><code>pip install --index-url ADDRESS PROJECT</code></pre>\n"
        f"<h2>{len(by_project)} project{'' if len(by_project) == 1 else 's'}</h2>\n"
        f"<ul>\n{items}</ul>\n</main>\n</body>\n</html>\n"
    )


_STYLE = """\
:root { color-scheme: light dark; --ink: #1b2530; --soft: #52606d; --paper: #fff;
  --tint: #f2f5f8; --line: #d8dfe6; --link: #0b57a4; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6ebf0; --soft: #a3b0bd; --paper: #14191f;
  --tint: #1d252d; --line: #34404b; --link: #7cb8f5; } }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; }
main { max-width: 46rem; margin: 0 auto; padding: 2rem 1rem 4rem; }
h1 { font-size: 1.75rem; margin: 0 0 .5rem; overflow-wrap: anywhere; }
h2 { font-size: 1rem; margin: 2rem 0 .5rem; color: var(--soft); font-weight: 600; }
pre { background: var(--tint); padding: .75rem 1rem; border-radius: .375rem;
  white-space: pre-wrap; overflow-wrap: anywhere; }
code { font: .9rem ui-monospace, monospace; }
ul { list-style: none; margin: 0; padding: 0; border-top: 1px solid var(--line); }
li { padding: .625rem 0; border-bottom: 1px solid var(--line); }
li p { margin: 0; color: var(--soft); font-size: .9rem; overflow-wrap: anywhere; }
a { color: var(--link); font-weight: 600; overflow-wrap: anywhere; }
a:focus-visible { outline: 3px solid var(--link); outline-offset: 2px; }
"""


def _item(project: NormalizedName, files: Sequence[DistributionFile]) -> str:
    shown = [file for file in files if file.yanked is None] or files
    facts = [shown[-1].version, f"{len(files)} file{'' if len(files) == 1 else 's'}"]
    moments = [file.uploaded_at for file in files if file.uploaded_at is not None]
    if moments:
        facts.append(f"{max(moments):%Y-%m-%d}")
    if shown is files:
        facts.append("yanked")
    summary = shown[-1].summary
    return (
        f'<li><a href="{project}/">{html.escape(shown[-1].published_name or project)}</a>\n'
        + (f"<p>{html.escape(summary)}</p>\n" if summary else "")
        + f"<p>{' · '.join(facts)}</p></li>\n"
    )


def _as_shown(each: SiteFile, with_metadata: set[str]) -> DistributionFile:
    """The file, without the hash of core metadata that are not in the folder."""
    if each.address is not None or each.file.filename in with_metadata:
        return each.file
    return replace(each.file, core_metadata_sha256=None)


def _by_project(files: Iterable[SiteFile]) -> dict[NormalizedName, list[SiteFile]]:
    found: dict[NormalizedName, list[SiteFile]] = defaultdict(list)
    for each in files:
        found[each.file.project].append(each)
    return {
        project: sorted(
            found[project], key=lambda each: (Version(each.file.version), each.file.filename)
        )
        for project in sorted(found)
    }


def _metadata_path(file: DistributionFile) -> str:
    return f"{file.project}/{file.filename}.metadata"


def _put_file(output: OutputFolder, file: DistributionFile, fetch: Fetch) -> None:
    """Write a file, unless it is there."""
    target = output.target(f"{file.project}/{file.filename}")
    if _has_bytes(target, file):
        return
    digest, size = hashlib.sha256(), 0
    with output.part.open("wb") as part:
        for chunk in fetch(file):
            size += len(chunk)
            if size > file.size:
                break
            digest.update(chunk)
            part.write(chunk)
    if (size, digest.hexdigest()) != (file.size, file.sha256):
        raise BackendError(
            f"the storage gave another content of {file.filename!r} than the index says"
        )
    output.part.replace(target)


def _put_core_metadata(
    output: OutputFolder, file: DistributionFile, fetch: FetchCoreMetadata
) -> bool:
    """Write the core metadata of a file that is there; return whether it has any."""
    if file.core_metadata_sha256 is None:
        return False
    path = _metadata_path(file)

    def in_file() -> bytes | None:
        with suppress(InvalidUpload):  # then only the storage may have them
            return read_core_metadata(
                output.target(f"{file.project}/{file.filename}"), file.filename
            )
        return None

    def in_folder() -> bytes | None:
        with suppress(FileNotFoundError):
            return output.target(path).read_bytes()
        return None

    for read in (in_file, in_folder, lambda: fetch(file)):
        content = read()
        if content is not None and hashlib.sha256(content).hexdigest() == file.core_metadata_sha256:
            output.write(path, content)
            return True
    return False


def _has_bytes(path: Path, file: DistributionFile) -> bool:
    try:
        if path.stat().st_size != file.size:
            return False
        with path.open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest() == file.sha256
    except FileNotFoundError:
        return False
