"""Turns a checkout of github-hosted-pypi or of MIT-Kavli-PyPi into a site of private_pypi.

There, what is registered is said by HTML pages alone, and nobody compared it with the files. Here,
the metadata inside a hosted file decides which project and version it is; the pages decide only
what no file says: links to git, tags, homepages and authors. Every address of a file is kept, and
whatever cannot be taken is named with its reason.

First everything is read and decided (`read_old_site`), then everything is written (`write_site`).
Nothing is read outside of the checkout: symbolic links are not followed, and only READMEs are
fetched, when asked for.
"""

from __future__ import annotations

import os
import posixpath
import re
import shlex
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urljoin, urlsplit, urlunsplit

import tomlkit
from packaging.utils import NormalizedName
from packaging.version import Version

from private_pypi.backend import Secret, system_errors
from private_pypi.distributions.core_metadata import examine, read_core_metadata
from private_pypi.distributions.filenames import is_filename, normalize, project_name
from private_pypi.distributions.records import one_line
from private_pypi.errors import BackendError, ConfigurationError, InvalidUpload
from private_pypi.model import StoredFile
from private_pypi_static_site.folder import SETTINGS, SiteFolder, SiteSettings
from private_pypi_static_site.making.old_pages import Listed, OldPage, read_page
from private_pypi_static_site.making.releases import repository_of, tags_for, version_of
from private_pypi_static_site.making.source_builds import fetch_tag, read_readme
from private_pypi_static_site.project_file import (
    Project,
    SiteFile,
    SiteVersion,
    format_project,
    is_url,
    parse_project,
)

_LARGEST_PAGE: Final = 4 << 20  # bytes
_LONGEST_SHOWN: Final = 200  # characters of a text from a page, in the report
_GIT_SECONDS: Final = 60
_MOST_COMMITS: Final = 100_000
# See private_pypi_github.requirement: git gets no other variables, such as tokens or GIT_DIR.
_NEEDED_BY_GIT: Final = ("HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "PATH", "XDG_CONFIG_HOME")

_DISPLAY_NAME: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")
_HOSTED: Final = re.compile(r"packages/([^/]+)/([^/]+)")

# What the two systems consist of, besides a page for each project.
_SCRIPTS: Final = (
    *(".github/actions.py", ".github/tests.py", ".github/download_release.py"),
    *("update_pkgs.py", "migrate_packages.py", "pkg_template.html", "index.html"),
    *("static/index_styles.css", "static/package_styles.css"),
    *("static/pypi_checker.js", "static/package_page.js"),
)
_WORKFLOWS: Final = ("register", "update", "delete", "static", "tests")
_OF_OLD_WORKFLOWS: Final = re.compile(r"actions\.py|tests\.py|actions/deploy-pages")


@dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    """What an old site becomes, and what is to be said about it. Paths are relative to `source`."""

    source: Path
    kind: str  # the system that it is of
    settings: SiteSettings
    projects: Sequence[Project]
    files: Sequence[str]
    """The paths of all stored wheels and sdists, which are kept there, in the index or not."""
    moved: Mapping[str, str]
    """For files of another project than that of their folder: the path that they get in addition,
    and where they are now."""
    disagreements: Sequence[str]  # sentences: where pages and files say different things
    left_out: Sequence[str]  # sentences: what was not taken, and why
    notes: Sequence[str]  # sentences: anything else to know
    old: Sequence[str]  # the paths of what is not needed any more
    needed: AbstractSet[str]
    """Those of them that still are needed, as the only record of what was left out."""


def read_old_site(source: Path, environ: Mapping[str, str]) -> Migration:
    """Read a checkout and decide what becomes of it. Changes nothing.

    `environ` has what git needs to be found. Raises `ConfigurationError` if the folder is not a
    checkout of one of the two systems, and `BackendError` if it cannot be read.
    """
    with system_errors(f"cannot read {str(source)!r}"):
        return _Reading(source, environ).result()


@dataclass(slots=True)
class _Stored:
    """A file in packages/ that can be in the index."""

    path: str
    project: NormalizedName
    version: Version
    file: SiteFile
    display_name: str | None
    summary: str | None


@dataclass(slots=True)
class _Link:
    """A version that is only a link to a tag."""

    version: Version
    tag: str
    git: str


@dataclass(slots=True)
class _Old:
    """A project of the old site while it is read."""

    name: NormalizedName
    page: OldPage | None = None
    display_name: str = ""
    description: str = ""
    shown_version: str = ""  # on the home page
    homepage: str | None = None
    stored: list[_Stored] = field(default_factory=list)
    links: dict[Version, _Link] = field(default_factory=dict)
    tags: dict[Version, list[str]] = field(default_factory=dict)  # of versions that have files


class _Reading:
    def __init__(self, source: Path, environ: Mapping[str, str]) -> None:
        self._source = source
        self._environ = environ
        self._disagreements: list[str] = []
        self._left_out: list[str] = []
        self._notes: list[str] = []
        self._incomplete: set[str] = set()  # folders of which something is left out
        self._projects: dict[NormalizedName, _Old] = {}
        self._stored: dict[str, _Stored | None] = {}  # by path; None: not in the index
        self._moved: dict[str, str] = {}
        self._settings = SiteSettings()

    def result(self) -> Migration:
        home = self._page("index.html")
        has_packages = _is_folder(self._source / "packages")
        self._read_project_pages(home)
        is_either = _is_file(self._source / "pkg_template.html") or any(
            old.page is not None and (old.page.versions or old.page.homepage)
            for old in self._projects.values()
        )
        if home is None or not is_either:
            raise ConfigurationError(
                f"{str(self._source)!r} is no checkout of github-hosted-pypi or MIT-Kavli-PyPi: "
                "those have an index.html, and a folder with an index.html for each project"
            )
        self._settings = self._found_settings(home)
        if has_packages:
            self._read_packages()
        for old in list(self._projects.values()):
            for listed in old.page.versions if old.page else ():
                self._read_listed(old, listed)
        projects = [self._project(old) for _, old in sorted(self._projects.items())]
        old_files = self._old_files()
        return Migration(
            source=self._source,
            kind="MIT-Kavli-PyPi" if has_packages else "github-hosted-pypi",
            settings=self._settings,
            projects=projects,
            files=sorted(self._stored),
            moved=self._moved,
            # A page can say the same several times, such as a password in each of its links.
            disagreements=[*dict.fromkeys(self._disagreements)],
            left_out=[*dict.fromkeys(self._left_out)],
            notes=[*dict.fromkeys(self._notes)],
            old=old_files,
            needed={path for path in old_files if path.partition("/")[0] in self._incomplete},
        )

    def _leave_out(self, folder: str, why: str) -> None:
        name = folder if project_name(folder) == folder else _shown(folder)
        self._left_out.append(f"{name}: {why}")
        self._incomplete.add(folder)

    # -- pages ---------------------------------------------------------------------------------

    def _page(self, path: str) -> OldPage | None:
        """A page of the checkout; None if there is none."""
        file = self._source / path
        if not _is_file(file):
            return None
        folder = path.rpartition("/")[0] or path
        with file.open("rb") as opened:
            content = opened.read(_LARGEST_PAGE + 1)
        if len(content) > _LARGEST_PAGE:
            self._leave_out(folder, f"its page is larger than {_LARGEST_PAGE >> 20} MiB")
            return None
        page = read_page(content.decode("utf-8", "replace"))
        if page.has_lost_links:
            self._leave_out(folder, "its page has a link with < inside, which cannot be read")
        return page

    def _read_project_pages(self, home: OldPage | None) -> None:
        cards = {}
        for card in home.cards if home else ():
            folder = card.href.removeprefix("./").removesuffix("index.html").removesuffix("/")
            if re.fullmatch(r"[A-Za-z0-9._-]+", folder):
                cards[folder] = card
        for name in _folders(self._source):
            page = self._page(f"{name}/index.html")
            if page is None or not (name in cards or page.versions or page.homepage):
                continue
            if project_name(name) != name:
                self._leave_out(
                    name,
                    "installers ask for a folder with the normalised name, so they never saw this "
                    f"one; rename it to {normalize(name)!r} to have it taken",
                )
                continue
            if name not in cards:
                self._notes.append(f"{name}: the home page did not list it; now it does")
            old = self._projects[normalize(name)] = _Old(normalize(name), page)
            self._read_facts(old)
        for folder, card in cards.items():
            if folder in self._projects:
                self._read_card(self._projects[normalize(folder)], card.name, card.version)
                self._projects[normalize(folder)].description = card.description
            elif card.version and folder not in self._incomplete:
                self._leave_out(folder, "the home page lists it, but it has no page")

    def _read_facts(self, old: _Old) -> None:
        """The name and the homepage of a project, as its page has them."""
        assert old.page is not None
        if old.page.homepage:
            address = _without_credentials(old.page.homepage)
            if address != old.page.homepage:
                self._notes.append(
                    f"{old.name}: its page contained a user name or password for its homepage; "
                    "revoke it, since everybody could read it"
                )
            old.homepage = address if _is_address(address) else None
        if project_name(old.page.header) == old.name:
            old.display_name = old.page.header
        elif old.page.header:
            # Registering replaced words such as _author inside of the name by what they stand for.
            self._disagreements.append(
                f"{old.name}: the page called it {_shown(old.page.header)}, which is another name"
            )

    def _read_card(self, old: _Old, name: str, version: str) -> None:
        if project_name(name) == old.name:
            old.display_name = name
        elif name:
            self._disagreements.append(
                f"{old.name}: the home page called it {_shown(name)}, which is another name"
            )
        old.shown_version = version

    def _found_settings(self, home: OldPage | None) -> SiteSettings:
        """The title of the home page, and the address that the commands for pip have."""
        told = Counter(
            f"{url.rstrip('/')}/"
            for page in (home, *(old.page for old in self._projects.values()))
            if page is not None
            for url in page.index_urls
            if _is_address(url)
        )
        hosted = _address_of_pages(_git(self._source, self._environ, "remote", "get-url", "origin"))
        by_case = {url.lower(): url for url in told}
        if hosted and hosted.lower() in by_case:
            url = by_case[hosted.lower()]
        else:
            url = next((url for url, _ in told.most_common(1)), hosted or "")
        others = sorted({*told, *([hosted] if hosted else [])} - {url})
        if any(other.lower() != url.lower() for other in others):
            self._notes.append(
                f"the address of the site is taken to be {url}, but there is also "
                f"{', '.join(map(_shown, others[:5]))}; correct `url` in {SETTINGS} if necessary"
            )
        title = _line(home.title if home else None)
        return SiteSettings(title=title or SiteSettings().title, url=url)

    # -- hosted files --------------------------------------------------------------------------

    def _read_packages(self) -> None:
        times = self._upload_times()
        strangers = []
        folders = _folders(self._source / "packages")
        with os.scandir(self._source / "packages") as entries:
            for name in sorted({entry.name for entry in entries} - {*folders}):
                if not name.startswith("."):
                    self._leave_out("packages", f"{_shown(f'packages/{name}')} is no folder")
        for folder in folders:
            if project_name(folder) != folder:
                self._leave_out(folder, "packages/ has a folder that is no normalised name")
                continue
            with os.scandir(self._source / "packages" / folder) as entries:
                names = sorted(entry.name for entry in entries if not entry.name.startswith("."))
            for name in names:
                path = f"packages/{folder}/{name}"
                if not is_filename(name):
                    if not name.endswith(".metadata"):
                        self._leave_out(folder, f"{_shown(path)} is no wheel or sdist")
                elif not _is_file(self._source / path):
                    self._leave_out(folder, f"{_shown(path)} is no regular file")
                else:
                    stored = self._examined(folder, path, times.get(path))
                    self._stored[path] = stored
                    if stored is None:
                        continue
                    if stored.project == folder:
                        self._add_stored(folder, stored)
                    else:
                        strangers.append((folder, stored))
        for folder, stored in strangers:
            self._read_stranger(folder, stored)

    def _examined(self, folder: str, path: str, uploaded_at: datetime | None) -> _Stored | None:
        file = self._source / path
        try:
            with file.open("rb") as opened:
                size = os.fstat(opened.fileno()).st_size
                known = StoredFile(
                    filename=file.name, size=size, location="", stamp="", uploaded_at=uploaded_at
                )
                found = examine(known, opened).file
        except InvalidUpload as error:
            self._leave_out(
                folder, f"{error}; the file stays in the folder, but the site does not show it"
            )
            return None
        return _Stored(
            path=path,
            project=found.project,
            version=Version(found.version),
            file=SiteFile(
                filename=file.name,
                sha256=found.sha256,
                size=size,
                uploaded_at=uploaded_at,
                requires_python=found.requires_python,
                core_metadata_sha256=found.core_metadata_sha256,
            ),
            display_name=found.published_name,
            summary=found.summary,
        )

    def _add_stored(self, folder: str, stored: _Stored) -> None:
        if folder not in self._projects:
            self._notes.append(f"{folder}: had files, but no page; now it has one")
        name = normalize(folder)
        self._projects.setdefault(name, _Old(name)).stored.append(stored)

    def _read_stranger(self, folder: str, stored: _Stored) -> None:
        """Decide about a file that lies in the folder of another project."""
        of, to = self._projects.get(normalize(folder)), self._projects.get(stored.project)
        said = f"{stored.path} is a file of {stored.project} {stored.version}"
        target = f"packages/{stored.project}/{stored.file.filename}"
        is_of_both = (
            of is not None
            and to is not None
            and of.homepage is not None
            and to.homepage is not None
            and _repository(of.homepage) == _repository(to.homepage)
        )
        if not is_of_both or to is None:
            # It would become a release of a project that may be somebody else's.
            self._leave_out(
                folder,
                f"{said}, and this site has no such project with the same homepage; the file stays "
                "in the folder, but the site does not show it. It can be registered under its own "
                "name, with static_site.register",
            )
            self._stored[stored.path] = None
        elif target in self._stored:
            self._disagreements.append(f"{folder}: {said}, where {target} is registered already")
        else:
            self._disagreements.append(
                f"{folder}: {said}; it is registered there, and copied to {target}"
            )
            self._moved[target] = stored.path
            to.stored.append(stored)

    def _upload_times(self) -> Mapping[str, datetime]:
        """When each file got its present content, according to the history of the checkout."""
        told = _git(
            self._source,
            self._environ,
            *("log", "--no-show-signature", "--no-renames", "--diff-filter=AM", "--name-only"),
            *("--relative", "-z", f"--max-count={_MOST_COMMITS}", "--decorate=short"),
            *("--format=%x01%ct %D", "--", "packages"),
        )
        times: dict[str, datetime] = {}
        is_cut_off = False
        time = None
        for part in told.split("\x00"):  # the newest commit comes first
            text = part.strip("\n")
            if text.startswith("\x01"):
                seconds, _, refs = text[1:].partition(" ")
                # Where the history of a shallow clone begins, all files seem to be new.
                is_grafted = "grafted" in refs.split(", ")
                is_cut_off |= is_grafted
                # A commit can claim any time, even one before 1970 or after 9999.
                is_time = re.fullmatch("[0-9]{1,11}", seconds) and not is_grafted
                time = datetime.fromtimestamp(int(seconds), UTC) if is_time else None
            elif text and time is not None:
                times.setdefault(text, time)
        if is_cut_off:
            self._notes.append(
                "this checkout has a part of the history only, so upload times may be unknown; "
                "run git fetch --unshallow before"
            )
        return times

    # -- listed versions -----------------------------------------------------------------------

    def _read_listed(self, old: _Old, listed: Listed) -> None:
        if listed.href.startswith("git+"):
            self._read_link(old, listed)
            return
        path = self._path_of(old.name, listed.href)
        what = f"{_shown(listed.text)}, which the page lists"
        advice = f"register it again with static_site.update {old.name} {_given(listed.tag)}"
        if path is None:
            address = _shown(_without_credentials(listed.href))
            self._leave_out(
                old.name, f"{what}, is at {address}, whose size and hash are not known; {advice}"
            )
        elif path not in self._stored:
            self._leave_out(old.name, f"{what}, is at {_shown(path)}, which is missing; {advice}")
        elif (stored := self._stored[path]) is None:
            self._disagreements.append(
                f"{old.name}: {what}, is at {_shown(path)}, which is left out"
            )
        else:
            if _version(listed.text) != stored.version or stored.project != old.name:
                self._disagreements.append(
                    f"{old.name}: the page said {_shown(listed.text)}, but "
                    f"{stored.file.filename} is {stored.project} {stored.version}"
                )
            if listed.tag is not None and _is_tag(listed.tag) and stored.project == old.name:
                old.tags.setdefault(stored.version, []).append(listed.tag)

    def _path_of(self, name: str, href: str) -> str | None:
        """The path in packages/ that a link on a project page leads to; None: it leads elsewhere.

        `..` leads at most to the root of the site, as in a browser.
        """
        base = self._settings.url or "https://site.invalid/"
        try:
            parts = urlsplit(urljoin(f"{base}{name}/", href))
        except ValueError:
            return None
        root = urlsplit(base)
        if (parts.scheme, parts.netloc) != (root.scheme, root.netloc):
            return None
        path = posixpath.normpath(unquote(parts.path))
        found = _HOSTED.fullmatch(path.removeprefix(unquote(root.path)))
        return found[0] if found and path.startswith(unquote(root.path)) else None

    def _read_link(self, old: _Old, listed: Listed) -> None:
        address, tag, egg = _parsed_link(listed.href, old.name)
        said = f"{_shown(listed.text)}, which the page lists"
        link = _shown(_without_credentials(listed.href))
        clean = _without_credentials(address)
        if clean != address:
            self._notes.append(
                f"{old.name}: a link contained a user name or password; revoke it, since everybody "
                "could read it"
            )
        if not _is_address(clean) or not _is_tag(tag):
            # A template once changed so that updates wrote `git+b('https:…'@0.2`.
            tag = tag if _is_tag(tag) else listed.tag or ""
            if old.homepage is None or not _is_tag(tag):
                self._leave_out(
                    old.name,
                    f"{said}, has a broken link: {link}; it needs `git`, the address of its "
                    "repository (https), and `tag`",
                )
                return
            self._disagreements.append(
                f"{old.name}: {said}, has a broken link: {link}; taken as tag {_shown(tag)} of its "
                f"homepage {old.homepage}"
            )
            clean = old.homepage
        elif "subdirectory=" in listed.href.partition("#")[2]:
            self._leave_out(old.name, f"{said}, is in a subdirectory, which cannot be said: {link}")
            return
        if egg is None and "egg=" in listed.href.partition("#")[2]:
            self._disagreements.append(
                f"{old.name}: {said}, has a link for another project, so installers never saw it: "
                f"{link}"
            )
        version = _version(egg) or _version(listed.text)
        if version is None:  # so installers never saw it
            version = version_of(tag)
            if version is None:
                self._leave_out(
                    old.name,
                    f"{said}, is no version (PEP 440); it needs `version` for tag {_shown(tag)}",
                )
                return
            self._disagreements.append(
                f"{old.name}: {said}, is no version (PEP 440); taken as {version}, as its tag says"
            )
        for what, text in (("the text", listed.text), ("the tag", tag)):
            other = _version(text)
            if other is not None and other != version:
                self._disagreements.append(
                    f"{old.name}: {what} says {_shown(text)}, but the link is one of {version}"
                )
        if any(stored.version == version for stored in old.stored):
            old.tags.setdefault(version, []).append(tag)
            self._notes.append(f"{old.name}: {version} has files, so its link to git is not needed")
            return
        before, found = old.links.get(version), _Link(version, tag, clean)
        if before is not None and before != found:
            # pip takes the last one on a page.
            self._leave_out(
                old.name,
                f"{version} is listed twice; of tags {_shown(before.tag)} and {_shown(tag)}, the "
                "second is taken, as pip does",
            )
        old.links[version] = found

    # -- results -------------------------------------------------------------------------------

    def _project(self, old: _Old) -> Project:
        versions = [
            SiteVersion(version=str(link.version), tag=link.tag, git=link.git)
            for link in old.links.values()
        ]
        for version in {stored.version for stored in old.stored}:
            tags = old.tags.get(version, [])
            right = [tag for tag in tags if _version(tag) == version]
            versions.append(
                SiteVersion(
                    version=str(version),
                    tag=next(iter((*right, *tags)), None),
                    files=tuple(stored.file for stored in old.stored if stored.version == version),
                )
            )
        versions.sort(key=lambda each: each.parsed)
        newest = [each for each in versions if not each.parsed.is_prerelease] or versions
        shown = _version(old.shown_version)
        if shown is not None and newest and newest[-1].parsed != shown:
            self._disagreements.append(
                f"{old.name}: the home page said {_shown(old.shown_version)}, but the newest "
                f"version is {newest[-1].version}"
            )
        last = max(old.stored, key=lambda each: each.version, default=None)
        name = old.display_name or (last.display_name if last else None) or old.name
        project = Project(
            name=name if _DISPLAY_NAME.fullmatch(name) else old.name,
            homepage=old.homepage,
            author=_line(old.page.author if old.page else None),
            summary=_line(old.description) or _line(last.summary if last else None),
            versions=tuple(versions),
        )
        where = f"projects/{old.name}.toml"
        return parse_project(format_project(project), old.name, where=where)

    def _old_files(self) -> list[str]:
        """The paths of generated pages, and of what generated them."""
        workflows = [
            path
            for name in _WORKFLOWS
            for path in (f".github/workflows/{name}.yml", f".github/workflows/{name}.yaml")
            if self._is_old_workflow(path)
        ]
        pages = [f"{name}/index.html" for name, old in self._projects.items() if old.page]
        listed = [*_SCRIPTS, *workflows, *pages]
        return sorted(path for path in listed if _is_inside(self._source, path))

    def _is_old_workflow(self, path: str) -> bool:
        if not _is_inside(self._source, path):
            return False
        with (self._source / path).open("rb") as opened:
            text = opened.read(_LARGEST_PAGE).decode("utf-8", "replace")
        return _OF_OLD_WORKFLOWS.search(text) is not None


# -- writing ---------------------------------------------------------------------------------------


def require_no_site(folder: Path, migration: Migration) -> None:
    """Raise `ConfigurationError` if a site or other files are where a migration would write."""
    if (folder / SETTINGS).exists():
        raise ConfigurationError(
            f"{str(folder)!r} is a site already (it has {SETTINGS}); give an empty folder with "
            "--folder"
        )
    # Not even a hostile checkout may have something written outside of it.
    targets = [*migration.files, *migration.moved]
    folders = {"projects", "packages", *map(posixpath.dirname, targets)}
    for path in sorted({SETTINGS, *folders}):
        if (folder / path).is_symlink():
            raise ConfigurationError(f"{str(folder / path)!r} is a symbolic link; remove it")
    for path in targets:
        source = migration.source / migration.moved.get(path, path)
        target = folder / path
        if os.path.lexists(target) and not (_is_file(target) and _same(source, target)):
            raise ConfigurationError(f"{str(target)!r} exists, and is not the file of the old site")


Readmes = Mapping[tuple[NormalizedName, str], bytes]
"""READMEs by project and version."""


def fetch_readmes(
    migration: Migration,
    *,
    token: Secret | None,
    api_url: str,
    environ: Mapping[str, str],
    progress: Callable[[int, int | None, str], None],
) -> tuple[Readmes, Sequence[str]]:
    """Get the READMEs of versions that are links to git, and sentences about those without one.

    Nothing is asked of other hosts than the GitHub of `api_url`: anybody may be named on a page.
    """
    readmes, missing = {}, []
    links = [
        (project.normalized, version)
        for project in migration.projects
        for version in project.versions
        if version.git is not None and version.tag is not None
    ]
    for number, (name, version) in enumerate(links):
        progress(number, len(links), "READMEs")
        try:
            address = repository_of(version.git or "", api_url).address
            with tempfile.TemporaryDirectory(prefix="private-pypi-") as temporary:
                checkout = Path(temporary, "checkout")
                fetch_tag(address, version.tag or "", checkout, token=token, environ=environ)
                content = read_readme(checkout)
        except (BackendError, ConfigurationError) as error:
            missing.append(
                f"{name}: {version.version} gets no README: {' '.join(str(error).split())}"
            )
            continue
        if content is not None:
            readmes[name, version.version] = content
    return readmes, missing


def write_site(migration: Migration, folder: Path, readmes: Readmes) -> None:
    """Write the new site; the folder may be the old one.

    A repeated migration must be possible after a crash. So `site.toml`, by which a folder is known
    as a site, is written last.
    """
    site = SiteFolder(folder)
    with system_errors(f"cannot write {str(folder)!r}"):
        folder.mkdir(parents=True, exist_ok=True)
    with site.changing():
        require_no_site(folder, migration)
        for path in (*migration.files, *migration.moved):
            source = migration.source / migration.moved.get(path, path)
            with system_errors(f"cannot copy {str(source)!r}"):
                _copy(source, folder / path)
        for project in migration.projects:
            for file in (file for version in project.versions for file in version.files):
                hosted = site.hosted(project.normalized, file.filename)
                content = read_core_metadata(hosted, file.filename)
                if content is not None:
                    site.write(site.core_metadata(project.normalized, file.filename), content)
            # Not on top of one that a migration before this one wrote, whose form could differ.
            path = f"projects/{project.normalized}.toml"
            site.write(folder / path, format_project(project).encode())
        for (name, version), content in readmes.items():
            site.write(site.readme(name, version), content)
        settings = {"title": migration.settings.title, "url": migration.settings.url}
        site.write(folder / SETTINGS, tomlkit.dumps(settings).encode())


def remove_files(migration: Migration, paths: AbstractSet[str]) -> None:
    """Remove these paths of `migration.old` from the old site, and folders that become empty."""
    with system_errors(f"cannot remove the old pages of {str(migration.source)!r}"):
        for path in sorted(paths):
            if not _is_inside(migration.source, path):
                continue
            file = migration.source / path
            file.unlink()
            if file.parent != migration.source and not any(file.parent.iterdir()):
                file.parent.rmdir()


def _copy(source: Path, target: Path) -> None:
    if target.exists():  # it is the same
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.part")
    try:
        shutil.copyfile(source, part, follow_symlinks=False)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def _same(one: Path, other: Path) -> bool:
    if one.stat().st_size != other.stat().st_size:
        return False
    with one.open("rb") as first, other.open("rb") as second:
        while chunk := first.read(1 << 20):
            if second.read(1 << 20) != chunk:
                return False
    return True


# -- helpers ---------------------------------------------------------------------------------------


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _is_file(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _is_inside(root: Path, path: str) -> bool:
    """Whether this is a regular file below a folder, with no symbolic link on the way."""
    *folders, _ = _steps(root, path)
    return _is_file(root / path) and all(map(_is_folder, folders))


def _steps(root: Path, path: str) -> Iterator[Path]:
    for part in path.split("/"):
        root = root / part
        yield root


def _folders(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(
            entry.name
            for entry in entries
            if entry.is_dir(follow_symlinks=False) and not entry.name.startswith(".")
        )


def _line(text: str | None) -> str | None:
    """A text for a project's file: on one line, without characters that are not shown."""
    return one_line("".join(each if each.isprintable() else " " for each in text or ""))


def _is_address(text: str) -> bool:
    return is_url(text) and text.isprintable()


def _version(text: str | None) -> Version | None:
    try:
        return Version(text) if text and len(text) <= 255 else None
    except ValueError:  # InvalidVersion, or too many digits for Python to convert
        return None


def _is_tag(text: str | None) -> bool:
    try:
        return bool(text) and text in tags_for(text or "")
    except ConfigurationError:
        return False


def _given(tag: str | None) -> str:
    return shlex.quote(tag) if tag is not None and _is_tag(tag) else "TAG"


def _parsed_link(href: str, name: str) -> tuple[str, str, str | None]:
    """The address of the repository, the tag, and the version that `#egg=<name>-<version>` has."""
    try:
        parts = urlsplit(href.removeprefix("git+"))
    except ValueError:
        return "", "", None
    path, _, tag = parts.path.rpartition("@")
    egg = re.search(r"(?:^|&)egg=([^&]*)", parts.fragment)
    text = unquote(egg[1]) if egg else ""
    version = text.removeprefix(f"{name}-")
    address = urlunsplit((parts.scheme, parts.netloc, path, "", ""))
    return address, unquote(tag), version if version != text else None


def _without_credentials(url: str) -> str:
    """An address without user name and password; any text in which there may be one, too."""
    return re.sub(r"(://)[^/\s]*@(?=[^/\s])", r"\1", url)


def _repository(homepage: str) -> str:
    return homepage.lower().rstrip("/").removesuffix(".git")


def _shown(text: str) -> str:
    return repr(text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…")


def _address_of_pages(origin: str) -> str | None:
    """Where GitHub Pages serves the repository that a checkout was cloned from."""
    found = re.fullmatch(
        r"(?:https://(?:[^@/]*@)?|ssh://git@|git@)github\.com[/:]"
        r"([A-Za-z0-9-]+)/([A-Za-z0-9._-]+?)(?:\.git)?/?",
        origin.strip(),
    )
    if found is None:
        return None
    owner, name = found[1].lower(), found[2]
    own = f"https://{owner}.github.io/"
    return own if name.lower() == f"{owner}.github.io" else f"{own}{name}/"


def _git(folder: Path, environ: Mapping[str, str], *words: str) -> str:
    """What git says about a checkout; "" if it is none, or there is no git.

    The configuration of a checkout can name programs for git to run. The commands that are used
    here run none, except that a partial clone would fetch what it lacks: no protocol is allowed.
    """
    if not any((parent / ".git").exists() for parent in (folder, *folder.parents)):
        return ""
    needed = {name: environ[name] for name in _NEEDED_BY_GIT if name in environ}
    try:
        ended = subprocess.run(
            ["git", "--no-pager", "-C", str(folder), *words],
            env={**needed, "GIT_ALLOW_PROTOCOL": "none", "GIT_OPTIONAL_LOCKS": "0"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_GIT_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return ended.stdout.decode("utf-8", "replace") if ended.returncode == 0 else ""
