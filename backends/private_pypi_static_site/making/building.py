"""Builds a site: from its folder to an output folder that any web server can serve.

The pages of a project are made again if its file, its hosted files, its READMEs, the verdict on its
name or the templates have changed. What was made, and from what, is kept in the output folder in
`.private_pypi-build.json`. Rendered READMEs are kept in `.private_pypi-cache/` of the site.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import re
import shutil
import stat
import subprocess
from collections import deque
from collections.abc import Callable, Mapping, Set
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Final, TypeAlias
from urllib.parse import quote

from packaging.utils import NormalizedName

from private_pypi.distributions.descriptions import NOTHING, Description, parse_description
from private_pypi.errors import ConfigurationError
from private_pypi.model import DistributionFile
from private_pypi.pages.output_folder import OutputFolder, writing
from private_pypi.pages.readme import Renderer, without_markup
from private_pypi.pages.releases import current_release
from private_pypi.pages.simple_api import Representation, project_detail, project_list
from private_pypi_static_site.folder import SiteFolder
from private_pypi_static_site.making.public_index import Verdict
from private_pypi_static_site.making.rendering import (
    Card,
    Pages,
    ShownFile,
    ShownProject,
    ShownVersion,
)
from private_pypi_static_site.project_file import Project, SiteFile, SiteVersion, parse_project

STATE: Final = ".private_pypi-build.json"
CACHE: Final = ".private_pypi-cache"

_FIXED: Final = ("index.html", "index.json", "files.html", "404.html", ".nojekyll", STATE)
# All paths that a build writes; the list of an output folder cannot name others.
_SEGMENT: Final = r"[A-Za-z0-9][A-Za-z0-9._+!-]*"
_KNOWN: Final = re.compile(
    rf"{'|'.join(map(re.escape, _FIXED))}|{_SEGMENT}(?:/{_SEGMENT}){{1,2}}", re.ASCII
)
_LARGEST_METADATA: Final = 4 << 20  # bytes of core metadata or a README that are looked at
_AHEAD: Final = 50  # projects whose READMEs are rendered while pages of others are written
_RENDERERS: Final = 2  # processes
_CHUNK: Final = 1 << 20  # bytes

Progress: TypeAlias = Callable[[int, int | None, str], None]
"""Called with the number of items that are done, their total, and a description."""

Stamp: TypeAlias = str | None
"""Size and time of a file, by which a change is noticed; None: there is no file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """What a build did. `str()` of it is a line for people."""

    projects: int
    made: int  # projects whose pages were made again
    files: int  # files on all pages
    removed: int  # old pages and files

    def __str__(self) -> str:
        removed = f"; {self.removed} old pages and files removed" if self.removed else ""
        return (
            f"projects: {self.projects}, of which {self.made} new or changed; "
            f"files: {self.files}{removed}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kept:
    """What is known of a project whose pages are made."""

    key: str  # of what they were made from, other than files
    inputs: Mapping[str, Stamp]  # files of the site, by their paths in it
    outputs: Mapping[str, Stamp]  # what was written, by paths in the output folder
    card: Card
    anchors: list[str]  # for the flat page
    readmes: list[str]  # keys of the rendered READMEs


def build_site(
    site: SiteFolder,
    output_folder: Path,
    *,
    public_index: str,
    verdicts: Mapping[NormalizedName, Verdict],
    progress: Progress = lambda *_: None,
) -> Built:
    """Build a site. Each page is replaced atomically, and unchanged ones are left alone.

    `public_index` is the address of the public index's simple API. Raises `ConfigurationError` for
    everything that is wrong in the site, before a page of it is changed if possible, and for an
    output folder that has something else at the place of a page.
    """
    settings = site.settings()
    _check_place(site.root, output_folder)
    is_own = _is_own_cache(site.root)
    pages = Pages(
        settings,
        site.root / "templates",
        public_index=public_index if settings.check_public_index else None,
    )
    kept = _read_state(output_folder)
    with _Readmes(site.root / CACHE, enabled=settings.readmes, reads=is_own) as readmes:
        unchanged, changed = _compare(site, output_folder, pages, kept, verdicts, readmes)
        names = sorted(unchanged.keys() | changed.keys())
        assets = {f"static/{asset.name}": asset.content for asset in pages.assets.values()}
        wanted = {*_FIXED, *assets}
        for each in unchanged.values():
            wanted.update(each.outputs)  # not |=, which makes another set
        for _, project in changed.values():
            wanted |= _paths(project)
        with writing(output_folder, wanted, _KNOWN) as output:
            for path, content in assets.items():
                output.write(path, content)
            made = _make_all(site, pages, output, readmes, changed, verdicts, progress)
            done = {name: unchanged.get(name) or made[name] for name in names}
            # Files are written before the pages that link to them, the list of projects last.
            anchors = [anchor for each in done.values() for anchor in each.anchors]
            output.write("files.html", pages.files(anchors).encode())
            output.write("404.html", pages.not_found().encode())
            output.write(".nojekyll", b"")  # GitHub would leave out files whose names begin with _
            listed = [(name, 0) for name in names]
            text = "".join(project_list(listed, Representation.JSON, serial=0))
            output.write("index.json", text.encode())
            output.write("index.html", pages.start([each.card for each in done.values()]).encode())
            output.write(STATE, _format_state(done))
            removed = output.finish()
            readmes.forget(
                {key for each in kept.values() for key in each.readmes},
                {key for each in done.values() for key in each.readmes},
            )
    return Built(projects=len(names), made=len(changed), files=len(anchors), removed=removed)


def _compare(
    site: SiteFolder,
    output_folder: Path,
    pages: Pages,
    kept: Mapping[str, _Kept],
    verdicts: Mapping[NormalizedName, Verdict],
    readmes: _Readmes,
) -> tuple[dict[NormalizedName, _Kept], dict[NormalizedName, tuple[str, Project]]]:
    """The projects whose pages are as they have to be, and the others with their new keys."""
    unchanged: dict[NormalizedName, _Kept] = {}
    changed: dict[NormalizedName, tuple[str, Project]] = {}
    by = _made_by()
    for name in site.names():
        text = site.project_text(name)
        facts = [by, pages.fingerprint, text, repr(verdicts.get(name))]
        key = hashlib.sha256(repr(facts).encode()).hexdigest()
        old = kept.get(name)
        if old is not None and old.key == key and _is_same(name, old, site.root, output_folder):
            unchanged[name] = old
        else:
            readmes.expect()
            project = parse_project(text, name, where=f"projects/{name}.toml")
            if project.versions:  # there may be only the names of files that were deleted
                changed[name] = key, project
    return unchanged, changed


def _make_all(
    site: SiteFolder,
    pages: Pages,
    output: OutputFolder,
    readmes: _Readmes,
    changed: Mapping[NormalizedName, tuple[str, Project]],
    verdicts: Mapping[NormalizedName, Verdict],
    progress: Progress,
) -> dict[NormalizedName, _Kept]:
    """Make the pages of projects, while the READMEs of the next ones are being rendered."""
    made: dict[NormalizedName, _Kept] = {}
    started: deque[_Making] = deque()

    def finish() -> None:
        making = started.popleft()
        progress(len(made), len(changed), "making the pages of projects")
        made[making.project.normalized] = making.finish(pages, output)

    for name, (key, project) in changed.items():
        started.append(_Making(site, project, key, verdicts.get(name), output, readmes))
        if len(started) > _AHEAD:
            finish()
    while started:
        finish()
    return made


class _Making:
    """A project whose files are placed and whose READMEs are being rendered."""

    def __init__(
        self,
        site: SiteFolder,
        project: Project,
        key: str,
        verdict: Verdict | None,
        output: OutputFolder,
        readmes: _Readmes,
    ) -> None:
        self.project = project
        self._key = key
        self._verdict = verdict
        self._inputs: dict[str, Stamp] = {}
        self._outputs: list[str] = []
        self._site = site
        self._output = output
        for folder in ("packages", "readmes"):
            for path in (site.root / folder, site.root / folder / project.normalized):
                if path.is_symlink():  # it may lead out of the site
                    raise ConfigurationError(f"{str(path)!r} must not be a symbolic link")
        self._versions = [self._version(each, readmes) for each in reversed(project.versions)]

    def _version(
        self, version: SiteVersion, readmes: _Readmes
    ) -> tuple[ShownVersion, str, Future[str]]:
        name = self.project.normalized
        metadata: bytes | None = None
        files = []
        for each in sorted(version.files, key=_shown_first):
            found = self._place(each)
            metadata = metadata or found
            file = _distribution_file(self.project, version, each)
            url = f"packages/{name}/{quote(each.filename, safe='')}"
            files.append(ShownFile(file=file, url=each.url or url))
        if metadata is not None:
            description = parse_description(metadata)
        else:
            content = self._read(self._site.readme(name, version.version))
            description = NOTHING if content is None else _readme(content)
        shown = ShownVersion(source=version, files=tuple(files), description=description)
        return shown, *readmes.html(description)

    def _place(self, file: SiteFile) -> bytes | None:
        """Put a hosted file into the output folder; returns its core metadata if they are known."""
        name = self.project.normalized
        path = f"packages/{name}/{file.filename}"
        metadata = self._read(self._site.core_metadata(name, file.filename))
        if metadata is not None and file.core_metadata_sha256 is not None:
            found = hashlib.sha256(metadata).hexdigest()
            _require_equal(f"{path}.metadata", found, name, file.core_metadata_sha256)
        if file.url is not None:
            return metadata
        source = self._site.hosted(name, file.filename)
        self._inputs[path] = _stamp(str(source))
        if self._inputs[path] is None:
            raise ConfigurationError(
                f"{path} is missing; projects/{name}.toml has it without `url`, as a file of the "
                "site"
            )
        _require_equal(path, _sha256(source), name, file.sha256)
        _link(source, self._output, path, file.sha256)
        self._outputs.append(path)
        if file.core_metadata_sha256 is not None:
            if metadata is None:
                raise ConfigurationError(
                    f"{path}.metadata is missing; projects/{name}.toml has its hash"
                )
            self._write(f"{path}.metadata", metadata)
        return metadata

    def _read(self, path: Path) -> bytes | None:
        """A small file of the site; None if there is none."""
        relative = path.relative_to(self._site.root).as_posix()
        stamp = self._inputs[relative] = _stamp(str(path))
        if stamp is None:
            return None
        if path.stat().st_size > _LARGEST_METADATA:
            raise ConfigurationError(f"{relative} is larger than 4 MiB")
        return path.read_bytes()

    def _write(self, path: str, content: bytes) -> None:
        self._output.write(path, content)
        self._outputs.append(path)

    def finish(self, pages: Pages, output: OutputFolder) -> _Kept:
        """Write the pages."""
        versions = tuple(
            replace(shown, readme=rendered.result()) for shown, _, rendered in self._versions
        )
        name = self.project.normalized
        shown = ShownProject(
            project=self.project,
            versions=versions,
            current=current_release(versions),
            verdict=self._verdict,
        )
        for version in versions:
            page = pages.version(shown, version)
            self._write(f"{name}/{version.version}/index.html", page.encode())
        files = [each for version in reversed(versions) for each in version.files]
        urls = {each.file.filename: each.at("../") for each in files}
        listed = project_detail(
            name,
            [each.file for each in files],
            Representation.JSON,
            serial=0,
            address=lambda file: urls[file.filename],
        )
        self._write(f"{name}/index.json", listed.encode())
        self._write(f"{name}/index.html", pages.project(shown).encode())
        return _Kept(
            key=self._key,
            inputs=self._inputs,
            outputs={path: _stamp(f"{output.folder}/{path}") for path in self._outputs},
            card=Card.of(shown),
            anchors=[each.anchor("") for each in files],
            readmes=sorted({key for _, key, _ in self._versions if key}),
        )


def _paths(project: Project) -> set[str]:
    """All that is written for a project."""
    name = project.normalized
    paths = {f"{name}/index.html", f"{name}/index.json"}
    for version in project.versions:
        paths.add(f"{name}/{version.version}/index.html")
        for file in version.files:
            if file.url is None:
                path = f"packages/{name}/{file.filename}"
                paths |= {path, f"{path}.metadata"} if file.core_metadata_sha256 else {path}
    return paths


def _distribution_file(project: Project, version: SiteVersion, file: SiteFile) -> DistributionFile:
    return DistributionFile(
        project=project.normalized,
        filename=file.filename,
        size=file.size,
        sha256=file.sha256,
        location="",
        version=version.version,
        uploaded_at=file.uploaded_at,
        requires_python=file.requires_python,
        yanked=file.yanked,
        core_metadata_sha256=file.core_metadata_sha256,
    )


def _readme(content: bytes) -> Description:
    """The description of a version of which only the README is known."""
    fields = b"Description-Content-Type: text/markdown\n\n"
    return parse_description(fields + content)


def _shown_first(file: SiteFile) -> tuple[bool, str]:
    return not file.filename.endswith(".whl"), file.filename


# -- files -----------------------------------------------------------------------------------------


def _stamp(path: str) -> Stamp:
    try:
        found = os.lstat(path)  # not through `Path`, because there may be 100,000 of them
    except (FileNotFoundError, NotADirectoryError):
        return None
    if not stat.S_ISREG(found.st_mode):
        raise ConfigurationError(f"{path!r} must be a regular file")
    return f"{found.st_size}-{found.st_mtime_ns}"


def _is_same(name: NormalizedName, kept: _Kept, site: Path, output: Path) -> bool:
    """Whether all files, of which and to which the pages were made, are as they were then.

    The times of pages cannot be known to somebody who has put this state into a repository.
    """
    if None in kept.outputs.values() or f"{name}/index.html" not in kept.outputs:
        return False
    return all(
        _stamp(f"{folder}/{path}") == stamp
        for folder, stamps in ((site, kept.inputs), (output, kept.outputs))
        for path, stamp in stamps.items()
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _require_equal(path: str, found: str, name: NormalizedName, wanted: str) -> None:
    if found != wanted:
        raise ConfigurationError(
            f"{path} has the SHA-256 {found}, but projects/{name}.toml says {wanted}; restore the "
            "file, or register its version anew"
        )


def _link(source: Path, output: OutputFolder, path: str, sha256: str) -> None:
    """Make a file of the output folder the same as a file of the site."""
    target = output.target(path)
    if target.exists() and (target.samefile(source) or _sha256(target) == sha256):
        return
    output.part.unlink(missing_ok=True)
    try:
        output.part.hardlink_to(source)
    except OSError:  # on another file system, or one without such links
        shutil.copyfile(source, output.part)
    output.part.replace(target)


def _check_place(site: Path, output: Path) -> None:
    """Refuse to write pages between the files of the site."""
    root, place = site.resolve(), output.resolve()
    around = [place, *place.parents]
    own = [root / name for name in ("packages", "projects", "readmes", "templates", ".git", CACHE)]
    if root == place or place in root.parents or any(each in around for each in own):
        raise ConfigurationError(
            f"the pages cannot be written into {str(output)!r}, where the site itself is; choose "
            "an empty folder"
        )
    inside = output.relative_to(site) if output.is_relative_to(site) else Path()
    for part in (inside, *inside.parents):
        if part != Path() and (site / part).is_symlink():  # a pull request can contain links
            raise ConfigurationError(
                f"{str(site / part)!r} is a symbolic link; give the folder to which it leads"
            )


def _is_own_cache(site: Path) -> bool:
    """Whether the READMEs that are kept were rendered here: pages show them as they are.

    Raises `ConfigurationError` if somebody has put them into the repository of the site.
    """
    is_repository = any(os.path.lexists(each / ".git") for each in (site, *site.parents))
    if not is_repository or not os.path.lexists(site / CACHE):
        return True
    command = ["git", "-C", str(site), "ls-files", "-z", "--", f":(icase){CACHE}"]
    try:
        found = subprocess.run(command, capture_output=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return False
    if found.stdout:
        raise ConfigurationError(
            f"{CACHE} is in the repository of git, and pages would show what it has; remove it: "
            f"git rm -r {CACHE}"
        )
    return found.returncode == 0


# -- what is kept between builds -------------------------------------------------------------------


def _made_by() -> str:
    """What pages and rendered READMEs depend on besides their sources."""
    names = ("private_pypi", "readme_renderer", "packaging")
    return " ".join(importlib.metadata.version(name) for name in names)


def _read_state(output_folder: Path) -> dict[str, _Kept]:
    try:
        values = json.loads((output_folder / STATE).read_bytes())
        return {
            name: _Kept(**{**each, "card": Card(**each["card"])}) for name, each in values.items()
        }
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}  # then everything is made anew


def _format_state(done: Mapping[NormalizedName, _Kept]) -> bytes:
    keys = [each.name for each in fields(Card)]
    values: dict[str, Any] = {
        name: {
            "key": kept.key,
            "inputs": kept.inputs,
            "outputs": kept.outputs,
            "card": {key: getattr(kept.card, key) for key in keys},  # `asdict` copies all values
            "anchors": kept.anchors,
            "readmes": kept.readmes,
        }
        for name, kept in done.items()
    }
    return json.dumps(values, separators=(",", ":")).encode()


class _Readmes(AbstractContextManager["_Readmes"]):
    """Renders READMEs in child processes, and keeps what comes of it in a folder."""

    def __init__(self, cache: Path, *, enabled: bool, reads: bool) -> None:
        self._cache = cache
        self._reads = reads  # what is kept; else all are rendered again
        self._folder = cache / "readmes"
        self._enabled = enabled
        self._threads = ThreadPoolExecutor(_RENDERERS, thread_name_prefix="readmes")
        self._idle: deque[Renderer] = deque(Renderer() for _ in range(_RENDERERS))
        self._by = _made_by()

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown(cancel_futures=True)
        for renderer in self._idle:
            renderer.close()

    def expect(self) -> None:
        """Start a child process, which takes a while, because one may be needed soon."""
        if self._enabled:
            self._idle[0].start()

    def html(self, description: Description) -> tuple[str, Future[str]]:
        """The key under which a rendered README is kept ("": it is not), and its HTML, later."""
        at_once = without_markup(description) if self._enabled else ""
        if at_once is not None:
            return "", _done(at_once)
        facts = [self._by, description.content_type, description.text]
        key = hashlib.sha256(repr(facts).encode()).hexdigest()
        with suppress(OSError, UnicodeDecodeError):
            if not self._reads:
                return key, self._threads.submit(self._render, key, description)
            return key, _done((self._folder / key[:2] / key).read_text(encoding="utf-8"))
        return key, self._threads.submit(self._render, key, description)

    def _render(self, key: str, description: Description) -> str:
        renderer = self._idle.popleft()
        try:
            html = renderer.html(description)
        finally:
            self._idle.append(renderer)
        path = self._folder / key[:2] / key
        with suppress(OSError):  # then it is rendered again the next time
            path.parent.mkdir(parents=True, exist_ok=True)
            ignore = self._cache / ".gitignore"
            if not ignore.exists():
                ignore.write_text("*\n")
            part = path.with_name(f".{key}.part")
            part.write_text(html, encoding="utf-8")
            part.replace(path)
        return html

    def forget(self, before: Set[str], now: Set[str]) -> None:
        """Remove what the last build still needed; all that is not needed now, if it is unknown."""
        known = before or {path.name for path in self._folder.glob("*/*")}
        for key in known - now:
            (self._folder / key[:2] / key).unlink(missing_ok=True)


def _done(html: str) -> Future[str]:
    future: Future[str] = Future()
    future.set_result(html)
    return future
