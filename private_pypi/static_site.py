"""An index as a folder of static pages, for any web server; it asks no storage and no network.

Layout, as private-pypi 0.2 had it: `index.html` lists the projects, `<project>/index.html` their
files, `index.toml` is the document that the pages were made of. A file that everybody can fetch
where it is stored is linked to that place; any other lies beside its page, with its core metadata.

What was written is listed in `.private_pypi-site.json`, so that another run removes what has
vanished and nothing else. The list is written before the first page and again after the last, so
that a run that was killed at any moment is completed by the next.
"""

from __future__ import annotations

import errno
import hashlib
import html
import json
import os
import re
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from packaging.utils import NormalizedName
from packaging.version import Version

from private_pypi.core_metadata import offered_core_metadata
from private_pypi.errors import BackendError, ConfigurationError, InvalidUpload, StorageFull
from private_pypi.model import DistributionFile
from private_pypi.simple_api import API_VERSION, Representation, project_detail

LIST = ".private_pypi-site.json"
"""The name of the list of what was written."""

_TEMPORARY = ".private_pypi-site.tmp"
_PATH = re.compile(
    r"index\.html|index\.toml|\.nojekyll|"
    r"[a-z0-9-]+/(?:index\.html|[A-Za-z0-9._+!-]+\.(?:whl|zip|tar\.gz)(?:\.metadata)?)"
)
_CHUNK = 1 << 20  # bytes
_TOLD = 5  # foreign files that a message names


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteFile:
    """A file of the index, and where a page links it to."""

    file: DistributionFile
    address: str | None
    """Where everybody gets the bytes, under this filename, and at the same address with
    `.metadata` the core metadata; None: the file lies in the folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteUpdate:
    """What `write_site` did; its text is a line for people."""

    projects: int
    linked: int  # files that lie elsewhere
    kept: int  # files that lie in the folder
    removed: int  # pages and files of what has vanished

    def __str__(self) -> str:
        removed = f"; {self.removed} old pages and files removed" if self.removed else ""
        return (
            f"projects: {self.projects}; files: {self.linked} linked, "
            f"{self.kept} in the folder{removed}"
        )


Fetch = Callable[[DistributionFile], Iterator[bytes]]
"""The content of a file that shall lie in the folder; may raise what a backend raises."""

Progress = Callable[[int, int | None, str], None]
"""Called with: how many, of how many (None: unknown), what is being done."""


def write_site(
    folder: Path,
    name: str,
    files: Iterable[SiteFile],
    *,
    document: bytes,
    fetch: Fetch,
    progress: Progress = lambda *_: None,
) -> SiteUpdate:
    """Make the folder show exactly these files; every page is replaced whole, or not at all.

    Files that are there already are not fetched again. Raises `ConfigurationError`, before
    anything is written, when something that is not ours lies where a page belongs.
    """
    by_project = _by_project(files)
    wanted = {"index.html", "index.toml", ".nojekyll"}
    for project, members in by_project.items():
        wanted.add(f"{project}/index.html")
        for each in members:
            if each.address is None:
                wanted |= {f"{project}/{each.file.filename}", _metadata_path(each.file)}
    with _usable(folder):
        folder.mkdir(parents=True, exist_ok=True)
        ours = _read_list(folder)
        _refuse_foreign(folder, wanted, ours)
        temporary = folder / _TEMPORARY
        with _emptied(temporary):
            place = _Place(folder, temporary)
            place.write(LIST, _format_list(ours | wanted))
            co_hosted = [
                each.file
                for members in by_project.values()
                for each in members
                if each.address is None
            ]
            with_metadata: set[str] = set()
            for number, file in enumerate(co_hosted):
                progress(number, len(co_hosted), f"fetching into {folder.name}")
                if place.put_file(file, fetch):
                    with_metadata.add(file.filename)
            # Files before the pages that link to them, projects before the page that lists them.
            for project, members in by_project.items():
                page = _project_page(project, members, with_metadata)
                place.write(f"{project}/index.html", page.encode())
            place.write(".nojekyll", b"")
            place.write("index.toml", document)
            place.write("index.html", start_page(name, by_project).encode())
            wanted -= {
                _metadata_path(file) for file in co_hosted if file.filename not in with_metadata
            }
            removed = [path for path in sorted(ours - wanted) if place.remove(path)]
            place.write(LIST, _format_list(wanted))
    return SiteUpdate(
        projects=len(by_project),
        linked=sum(map(len, by_project.values())) - len(co_hosted),
        kept=len(co_hosted),
        removed=len(removed),
    )


def start_page(name: str, by_project: Mapping[NormalizedName, Sequence[SiteFile]]) -> str:
    """The list of the projects: for installers the root page of PEP 503, and readable.

    `by_project` is in order, the newest file of a project last.
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
        f'<li><a href="{project}/">{project}</a>\n'
        + (f"<p>{html.escape(summary)}</p>\n" if summary else "")
        + f"<p>{' · '.join(facts)}</p></li>\n"
    )


def _project_page(
    project: NormalizedName, members: Sequence[SiteFile], with_metadata: set[str]
) -> str:
    addresses = {each.file.filename: each.address for each in members}
    files = [
        each.file
        if each.address is not None or each.file.filename in with_metadata
        else replace(each.file, core_metadata_sha256=None)
        for each in members
    ]
    return project_detail(
        project,
        files,
        Representation.TEXT_HTML,
        serial=0,
        address=lambda file: addresses[file.filename],
    )


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


# The folder.


class _Place:
    """The folder, for one run: what is written is made whole elsewhere, and moved."""

    def __init__(self, folder: Path, temporary: Path) -> None:
        self._folder = folder
        self._part = temporary / "part"

    def write(self, path: str, content: bytes) -> None:
        target = self._target(path)
        with suppress(FileNotFoundError):
            if target.stat().st_size == len(content) and target.read_bytes() == content:
                return  # its time of change stays, which caches and copies go by
        self._part.write_bytes(content)
        self._part.replace(target)

    def put_file(self, file: DistributionFile, fetch: Fetch) -> bool:
        """The file, and its core metadata where the index knows them; whether they are there."""
        target = self._target(f"{file.project}/{file.filename}")
        if not _has_bytes(target, file):
            digest = hashlib.sha256()
            with self._part.open("wb") as part:
                for chunk in fetch(file):
                    digest.update(chunk)
                    part.write(chunk)
            if digest.hexdigest() != file.sha256:
                raise BackendError(f"the storage gave other bytes of {file.filename!r}")
            self._part.replace(target)
        if file.core_metadata_sha256 is None:
            return False
        try:
            metadata = offered_core_metadata(target, file.filename)
        except InvalidUpload:
            return False
        if metadata is None or hashlib.sha256(metadata).hexdigest() != file.core_metadata_sha256:
            return False
        self.write(_metadata_path(file), metadata)
        return True

    def remove(self, path: str) -> bool:
        """Remove what we wrote, and the folder of a project when nothing else is in it."""
        target = self._folder / path
        if target.parent.is_symlink():
            return False
        try:
            target.unlink()
        except (FileNotFoundError, NotADirectoryError):
            return False
        if target.parent != self._folder:
            with suppress(OSError):  # not empty: somebody keeps something there
                target.parent.rmdir()
        return True

    def _target(self, path: str) -> Path:
        target = self._folder / path
        target.parent.mkdir(exist_ok=True)
        return target


def _has_bytes(path: Path, file: DistributionFile) -> bool:
    try:
        if path.stat().st_size != file.size:
            return False
        with path.open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest() == file.sha256
    except FileNotFoundError:
        return False


def _read_list(folder: Path) -> set[str]:
    path = folder / LIST
    try:
        paths = json.loads(path.read_text(encoding="utf-8"))["paths"]
        if not all(isinstance(each, str) and _PATH.fullmatch(each) for each in paths):
            raise ValueError
    except FileNotFoundError:
        return set()
    except (KeyError, TypeError, ValueError) as error:
        # Whatever it names would be removed.
        raise ConfigurationError(
            f"{str(path)!r} is no list of a static site; choose an empty folder"
        ) from error
    return set(paths)


def _format_list(paths: Iterable[str]) -> bytes:
    return json.dumps({"paths": sorted(paths)}, indent=0).encode() + b"\n"


def _refuse_foreign(folder: Path, wanted: Iterable[str], ours: set[str]) -> None:
    foreign = set()
    for path in wanted:
        target = folder / path
        if path not in ours and os.path.lexists(target):
            foreign.add(path)
        elif path != target.name and (
            target.parent.is_symlink() or (target.parent.exists() and not target.parent.is_dir())
        ):
            foreign.add(target.parent.name)
    if foreign:
        named = sorted(foreign)
        more = f" and {len(named) - _TOLD} more" if len(named) > _TOLD else ""
        raise ConfigurationError(
            f"{str(folder)!r} holds {', '.join(map(repr, named[:_TOLD]))}{more}, which this "
            "command did not write; choose an empty folder, or move that away"
        )


@contextmanager
def _emptied(folder: Path) -> Iterator[None]:
    """A folder for parts, without those of a run that was killed; gone afterwards."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _usable(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFull(f"no space left for the pages in {str(folder)!r}") from error
        raise ConfigurationError(
            f"cannot write the pages into {str(folder)!r}: {error.strerror or error}"
        ) from error
