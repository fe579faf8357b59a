"""The file of a project, `projects/<name>.toml`: its versions, and where their files are.

These files are the truth of a site. People review them in pull requests and may edit them by hand,
so everything is checked when they are read, and comments are kept when they are written.

    name = "Demo"
    homepage = "https://github.com/acme/demo"

    [[versions]]
    version = "1.0"
    tag = "v1.0"

    [[versions.files]]
    filename = "demo-1.0-py3-none-any.whl"
    sha256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
    size = 1234
    uploaded_at = 2026-01-03T12:30:00Z

A file without `url` lies in the site, at `packages/<name>/<filename>`. A version without files has
`git`, the address of the repository in which its tag is.

`burnt = ["demo-0.9.tar.gz"]` lists the names of deleted files. They are not used again, because
installers and lock files remember the content of a filename.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import unquote, urlsplit

import tomli
import tomlkit
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import NormalizedName
from packaging.version import InvalidVersion, Version

from private_pypi.distributions.filenames import file_key, normalize, parse_filename
from private_pypi.errors import ConfigurationError, InvalidFilename

LARGEST: Final = 4 << 20
"""Bytes of a project's file; a larger one is wrong."""

_SHA256: Final = re.compile("[0-9a-f]{64}")
_LONGEST: Final = 255
"""Characters of a version, and of what says which versions of Python a file is for.

Python converts texts of at most 4,300 digits to numbers."""
_LARGEST_FILE: Final = 2**63 - 1  # bytes; what the indexes of servers can hold
# A host with other characters could end a part of a page's Content-Security-Policy.
_HOST: Final = re.compile(r"[\w.:\[\]-]+")
_SAFE_URL: Final = re.compile(r"https?://[^\s\"'<>\\^`{|}\x00-\x20\x7f]+")

T = TypeVar("T")


class InvalidProject(ConfigurationError):
    """A project's file is wrong; the message says where, and what would be right."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteFile:
    """A distribution file of a version."""

    filename: str
    sha256: str  # lower-case hex
    size: int  # bytes
    url: str | None = None  # where it is; None: in the site
    uploaded_at: datetime | None = None  # UTC
    requires_python: str | None = None
    core_metadata_sha256: str | None = None
    """Of the core metadata that lie beside the file, under its address and ".metadata"; None: there
    are none, for installers. The site may have a copy for its pages."""
    yanked: str | None = None  # the reason, or "" if none was given; None: not yanked


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteVersion:
    """A version of a project. It has files, or a tag of a git repository to install from."""

    version: str  # normalised (PEP 440)
    tag: str | None = None  # in the project's repository
    git: str | None = None  # address of a git repository, for a version without files
    yanked: str | None = None  # of a version without files; see `SiteFile.yanked`
    files: tuple[SiteFile, ...] = ()

    @property
    def parsed(self) -> Version:
        """The version, which can be compared."""
        return Version(self.version)


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """A project of a site."""

    name: str  # as it is shown
    homepage: str | None = None  # http or https
    author: str | None = None
    summary: str | None = None
    ours_on_public: bool = False  # whether the project of this name on the public index is ours
    versions: tuple[SiteVersion, ...] = ()  # oldest first
    burnt: tuple[str, ...] = ()
    """The names of deleted files, which must not be used again."""
    source: str | None = None
    """The name under which its sources know the project, if it was registered under another."""

    @property
    def normalized(self) -> NormalizedName:
        """The name of its folder and of its file (PEP 503)."""
        return normalize(self.name)

    def find(self, version: str) -> SiteVersion | None:
        """A version, in any spelling."""
        return next((each for each in self.versions if each.parsed == Version(version)), None)


# -- reading ---------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Table:
    """A table of TOML whose keys are taken one by one; what is left is wrong."""

    where: str  # for messages
    values: dict[str, Any] = field(default_factory=dict)

    def take(self, key: str, kind: type[T], *, required: bool = False) -> T | None:
        value = self.values.pop(key, None)
        if value is None:
            if required:
                raise InvalidProject(f"{self.where}: {key!r} is missing")
            return None
        if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
            names = {
                str: "a text",
                int: "a whole number",
                bool: "true or false",
                list: "a list",
                datetime: "a time with its zone, such as 2026-01-03T12:30:00Z",
            }
            raise InvalidProject(f"{self.where}: {key!r} must be {names[kind]}, not {value!r}")
        # Servers take any reason of a yank, so pages have to be safe with one.
        if isinstance(value, str) and key != "yanked" and not value.isprintable():
            raise InvalidProject(f"{self.where}: {key!r} has control characters")
        return value

    def tables(self, key: str) -> list[_Table]:
        listed = self.take(key, list) or []
        for number, value in enumerate(listed, 1):
            if not isinstance(value, dict):
                raise InvalidProject(f"{self.where}: {key} {number} must be a table, not {value!r}")
        return [_Table(f"{self.where}, {key} {n}", dict(each)) for n, each in enumerate(listed, 1)]

    def url(self, key: str) -> str | None:
        text = self.take(key, str)
        if text is not None and not is_url(text):
            raise InvalidProject(
                f"{self.where}: {key!r} must be an address that begins with https:// or http://, "
                f"not {text!r}"
            )
        return text

    def require_short(self, key: str, text: str) -> None:
        if len(text) > _LONGEST:
            raise InvalidProject(
                f"{self.where}: {key!r} has {len(text)} characters; {_LONGEST} is the limit"
            )

    def end(self) -> None:
        if self.values:
            unknown = ", ".join(map(repr, sorted(self.values)))
            raise InvalidProject(f"{self.where}: unknown: {unknown}")


def is_url(text: str) -> bool:
    """Whether a text is an address that pages may link to: http or https, and no credentials."""
    if not _SAFE_URL.fullmatch(text) or not text.isprintable():
        return False
    try:
        parts = urlsplit(text)
        has_host = bool(parts.hostname) and _HOST.fullmatch(parts.netloc) is not None
        return has_host and parts.port != 0
    except ValueError:
        return False


def parse_project(text: str, name: str, *, where: str) -> Project:
    """Parse the file of a project with this normalised name; raises `InvalidProject`.

    `where` is the path of the file for messages.
    """
    try:
        table = _Table(where, tomli.loads(text))
    except (tomli.TOMLDecodeError, RecursionError, ValueError) as error:
        raise InvalidProject(f"{where}: no TOML: {error}") from error
    project = Project(
        name=table.take("name", str, required=True) or "",
        homepage=table.url("homepage"),
        author=table.take("author", str),
        summary=table.take("summary", str),
        ours_on_public=table.take("ours_on_public", bool) or False,
        source=table.take("source", str),
        versions=(),
    )
    if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?", project.name):
        raise InvalidProject(f"{where}: {project.name!r} is no name of a project (PEP 508)")
    if project.normalized != name:
        raise InvalidProject(
            f"{where}: the file of {project.name!r} must be called {project.normalized}.toml"
        )
    versions = [_parse_version(each, project) for each in table.tables("versions")]
    burnt = _parse_burnt(table, project)
    table.end()
    seen: set[Version] = set()
    names: dict[str, str] = {}  # by `file_key`, because installers take them for one file
    for version in versions:
        if version.parsed in seen:
            raise InvalidProject(f"{where}: version {version.version!r} is there twice")
        seen.add(version.parsed)
        for file in version.files:
            key = file_key(file.filename)
            if key in names:
                other = "" if names[key] == file.filename else f", also as {names[key]!r}"
                raise InvalidProject(f"{where}: the file {file.filename!r} is there twice{other}")
            names[key] = file.filename
            if key in burnt:
                raise InvalidProject(
                    f"{where}: {file.filename!r} was deleted ('burnt' has it); publish a new "
                    "version instead, or remove it from 'burnt' if nobody has installed it"
                )
    return replace(
        project,
        versions=tuple(sorted(versions, key=lambda each: each.parsed)),
        burnt=tuple(burnt.values()),
    )


def _parse_burnt(table: _Table, project: Project) -> dict[str, str]:
    """The names of deleted files by their `file_key`."""
    burnt: dict[str, str] = {}
    for name in table.take("burnt", list) or []:
        try:
            parsed = parse_filename(name) if isinstance(name, str) else None
        except InvalidFilename as error:
            raise InvalidProject(f"{table.where}: 'burnt': {error}") from None
        if parsed is None or parsed.project != project.normalized:
            raise InvalidProject(
                f"{table.where}: 'burnt' has {name!r}, which is no file of {project.normalized}"
            )
        burnt.setdefault(parsed.key, name)
    return burnt


def _parse_version(table: _Table, project: Project) -> SiteVersion:
    text = table.take("version", str, required=True) or ""
    table.require_short("version", text)
    try:
        version = str(Version(text))
    except InvalidVersion:
        raise InvalidProject(f"{table.where}: {text!r} is no version (PEP 440)") from None
    found = SiteVersion(
        version=version,
        tag=table.take("tag", str),
        git=table.url("git"),
        yanked=table.take("yanked", str),
        files=tuple(_parse_file(each, project, version) for each in table.tables("files")),
    )
    table.end()
    if not found.files and (found.git is None or not found.tag):
        raise InvalidProject(
            f"{table.where}: version {version!r} has no files, so it needs `git` and `tag`"
        )
    if found.files and (found.git is not None or found.yanked is not None):
        raise InvalidProject(
            f"{table.where}: version {version!r} has files, so it must not have `git`, and files "
            "are yanked one by one"
        )
    return found


def _parse_file(table: _Table, project: Project, version: str) -> SiteFile:
    filename = table.take("filename", str, required=True) or ""
    try:
        parsed = parse_filename(filename)
    except InvalidFilename as error:
        raise InvalidProject(f"{table.where}: {error}") from None
    if parsed.project != project.normalized or parsed.version != Version(version):
        raise InvalidProject(
            f"{table.where}: {filename!r} is a file of {parsed.project} {parsed.version}, not of "
            f"{project.normalized} {version}"
        )
    size = table.take("size", int, required=True) or 0
    requires_python = table.take("requires_python", str)
    table.require_short("requires_python", requires_python or "")
    try:
        SpecifierSet(requires_python or "")
    except InvalidSpecifier as error:
        raise InvalidProject(f"{table.where}: 'requires_python': {error}") from None
    if not 0 <= size <= _LARGEST_FILE:
        raise InvalidProject(f"{table.where}: 'size' must be from 0 to {_LARGEST_FILE}")
    file = SiteFile(
        filename=filename,
        sha256=_sha256(table, "sha256", required=True) or "",
        size=size,
        url=table.url("url"),
        uploaded_at=_moment(table),
        requires_python=requires_python,
        core_metadata_sha256=_sha256(table, "core_metadata_sha256"),
        yanked=table.take("yanked", str),
    )
    if file.url is not None and "#" in file.url:
        # Pages add the hash there, and some installers refuse a page with two of them.
        raise InvalidProject(f"{table.where}: 'url' must not have a part that begins with #")
    if file.url is not None and not unquote(urlsplit(file.url).path).endswith("/" + filename):
        # Installers read the filename from the end of the address.
        raise InvalidProject(f"{table.where}: 'url' must end with /{filename}")
    table.end()
    return file


def _moment(table: _Table) -> datetime | None:
    moment = table.take("uploaded_at", datetime)
    if moment is None:
        return None
    if moment.tzinfo is None:
        raise InvalidProject(f"{table.where}: 'uploaded_at' has no zone; write Z at its end")
    try:
        return moment.astimezone(UTC)
    except OverflowError:  # the first or the last day that there is, in another zone
        raise InvalidProject(f"{table.where}: 'uploaded_at' is out of range") from None


def _sha256(table: _Table, key: str, *, required: bool = False) -> str | None:
    text = table.take(key, str, required=required)
    if text is not None and not _SHA256.fullmatch(text):
        raise InvalidProject(f"{table.where}: {key!r} must be 64 lower-case hex digits")
    return text


def read_text(path: Path) -> str:
    """Read the text of a project's file; raises `InvalidProject`, and `FileNotFoundError`."""
    if path.is_symlink() or not path.is_file():
        if not path.exists():
            raise FileNotFoundError(path)
        raise InvalidProject(f"{path}: not a regular file")
    if path.stat().st_size > LARGEST:
        raise InvalidProject(f"{path}: larger than 4 MiB")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InvalidProject(f"{path}: not UTF-8") from error


def read_project(path: Path) -> Project:
    """Read the file of a project; raises `InvalidProject`, and `FileNotFoundError`."""
    return parse_project(read_text(path), path.stem, where=f"projects/{path.name}")


# -- writing ---------------------------------------------------------------------------------------


def format_project(project: Project, old: str | None = None) -> str:
    """The file of a project. Comments and the order of keys of `old`, its text so far, are kept.

    The versions are written again where they differ, and stay as they are otherwise.
    """
    document = tomlkit.parse(old) if old is not None else tomlkit.document()
    for key, value in (
        ("name", project.name),
        ("source", project.source),
        ("homepage", project.homepage),
        ("author", project.author),
        ("summary", project.summary),
        ("ours_on_public", project.ours_on_public or None),
    ):
        _set(document, key, value)
    if list(project.burnt) != list(document.get("burnt", [])):
        # A line for each name, so that pull requests seldom conflict.
        names = tomlkit.array().multiline(multiline=True)
        names.extend(project.burnt)
        _set(document, "burnt", names or None)
    kept: dict[Version, Any] = {}
    if old is not None:
        before = parse_project(old, project.normalized, where=project.normalized)
        tables = document.get("versions", [])
        unchanged = {each.parsed: each for each in before.versions}
        for table in tables:
            version = Version(str(table["version"]))
            if unchanged[version] == project.find(str(version)):
                kept[version] = table
        document.pop("versions", None)
    array = tomlkit.aot()
    for each in project.versions:
        array.append(kept.get(each.parsed) or _version_table(each))
    if array:
        document["versions"] = array
    # Tables that are kept bring the blank lines that were around them.
    return re.sub("\n{3,}", "\n\n", tomlkit.dumps(document)).strip("\n") + "\n"


def _version_table(version: SiteVersion) -> Any:
    table = tomlkit.table()
    for key, text in (
        ("version", version.version),
        ("tag", version.tag),
        ("git", version.git),
        ("yanked", version.yanked),
    ):
        _set(table, key, text)
    files = tomlkit.aot()
    for file in version.files:
        row = tomlkit.table()
        for key, value in (
            ("filename", file.filename),
            ("sha256", file.sha256),
            ("size", file.size),
            ("url", file.url),
            ("uploaded_at", file.uploaded_at),
            ("requires_python", file.requires_python),
            ("core_metadata_sha256", file.core_metadata_sha256),
            ("yanked", file.yanked),
        ):
            _set(row, key, value)
        files.append(row)
    if files:
        table["files"] = files
    return table


def _set(table: Any, key: str, value: object) -> None:
    if value is None:
        table.pop(key, None)
    elif table.get(key) != value:
        table[key] = value


def yank(version: SiteVersion, reason: str | None, filenames: Sequence[str] = ()) -> SiteVersion:
    """The version with a yank of these files, or of all; `reason` None takes a yank back."""
    if not version.files:
        return replace(version, yanked=reason)
    files = tuple(
        replace(file, yanked=reason) if not filenames or file.filename in filenames else file
        for file in version.files
    )
    return replace(version, files=files)


def burn(project: Project, filenames: Collection[str]) -> Project:
    """The project without these files, whose names are burnt; versions without files vanish."""
    versions = []
    gone: list[str] = []
    for version in project.versions:
        files = tuple(each for each in version.files if each.filename not in filenames)
        gone += [each.filename for each in version.files if each not in files]
        if files or not version.files:
            versions.append(replace(version, files=files))
    return replace(project, versions=tuple(versions), burnt=(*project.burnt, *gone))


def by_filename(project: Project) -> Mapping[str, SiteFile]:
    """All files of a project."""
    return {file.filename: file for version in project.versions for file in version.files}
