"""Registers and updates projects of a site, deletes them and their versions, and yanks releases.

What comes from elsewhere is fetched and checked in a temporary folder first. The site is locked
only while it is changed (`transactions`).
"""

from __future__ import annotations

import hashlib
import stat
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from packaging.utils import NormalizedName
from packaging.version import Version

from private_pypi.backend import Secret, system_errors
from private_pypi.commands.command_line import UsageError
from private_pypi.commands.files import say
from private_pypi.distributions.core_metadata import read_core_metadata
from private_pypi.distributions.descriptions import NOTHING, Description, parse_description
from private_pypi.distributions.filenames import normalize, parse_filename, project_name
from private_pypi.distributions.records import one_line
from private_pypi.distributions.upload import ReceivedFile, check_upload
from private_pypi.errors import BackendError, ConfigurationError, NotFound
from private_pypi_static_site import project_file
from private_pypi_static_site.folder import LARGEST_HOSTED, SiteFolder
from private_pypi_static_site.making import releases, source_builds
from private_pypi_static_site.making.releases import Asset, GitHub, Release
from private_pypi_static_site.making.renaming import rename_wheel
from private_pypi_static_site.making.site_checks import problems_of
from private_pypi_static_site.making.summaries import Line, Summary
from private_pypi_static_site.making.transactions import Change, changing
from private_pypi_static_site.project_file import Project, SiteFile, SiteVersion, parse_project

_LARGEST_METADATA: Final = 16 << 20  # bytes of a `.metadata` asset
_MOST_SHOWN: Final = 100  # files, or requirements, in a summary


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where a new version comes from, and how the site is to have it."""

    tag: str  # or a version; with or without a leading `v`
    api_url: str = releases.API_URL
    token: Secret | None = None
    host_files: bool = False  # put all files into the site
    link_only: bool = False  # no files: installers get the tag from git
    build: bool = False  # from the tag, although there may be a release
    environ: Mapping[str, str] = field(default_factory=dict)  # for git and builds

    def __post_init__(self) -> None:
        if self.link_only and (self.host_files or self.build):
            raise UsageError("--link_only has no files; leave out --host_files and --build")
        releases.tags_for(self.tag)


@dataclass(frozen=True, slots=True, kw_only=True)
class _NewFile:
    """A file that was checked."""

    path: Path
    site: SiteFile
    core_metadata: bytes
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Made:
    """A version that can be added."""

    version: SiteVersion
    files: Sequence[_NewFile] = ()
    readme: bytes | None = None
    description: Description = field(default_factory=Description)
    warnings: tuple[str, ...] = ()


# -- register and update ---------------------------------------------------------------------------


def register(folder: SiteFolder, project: Project, source: Source) -> Summary:
    """Add a project with its first version; see `update` for the errors.

    `project` has no versions yet. What it does not say (author, summary) is taken from the metadata
    of the version. `project.source` is set if the sources have another name.
    """
    folder.settings()
    # First, because its message does not repeat a password that somebody left in the address.
    releases.repository_of(project.homepage or "", source.api_url)
    _check_project(project)
    _require_free(folder, project)
    with _temporary_folder() as temporary:
        made = _make(project, source, temporary)
        authors = (
            each if isinstance(each, str) else each.label for each in made.description.authors
        )
        project = replace(
            project,
            author=project.author or _shown(", ".join(authors)),
            summary=project.summary or _shown(made.description.summary),
        )
        with changing(folder, project.normalized) as change:
            _require_free(folder, project)
            _add(change, project, made)
    return _summary("registered", project, made)


def update(folder: SiteFolder, name: str, source: Source) -> Summary:
    """Add a version to a project.

    Raises `NotFound` if there is no such project, `ConfigurationError` if the version is there, or
    if the tag, the files and the project do not belong together, and `BackendError` if something
    cannot be fetched or built.
    """
    folder.settings()
    project = _project(folder, name)
    if project.homepage is None:
        raise ConfigurationError(
            f"projects/{project.normalized}.toml has no homepage; it must be the address of the "
            "repository"
        )
    with _temporary_folder() as temporary:
        made = _make(project, source, temporary)
        with changing(folder, project.normalized) as change:
            project = _project(folder, name)  # it may have changed meanwhile
            _require_new(project, made.version.parsed)
            _add(change, project, made)
    return _summary("updated", project, made)


@contextmanager
def _temporary_folder() -> Iterator[Path]:
    # What a build left may still be written to, which is no reason to fail.
    with tempfile.TemporaryDirectory(prefix="private-pypi-", ignore_cleanup_errors=True) as path:
        yield Path(path)


def _check_project(project: Project) -> None:
    for flag, text in (("--author", project.author), ("--short_desc", project.summary)):
        if text is not None and not text.isprintable():
            raise UsageError(f"{flag} must be one line without control characters")
    for name in (project.name, project.source):
        if name is not None and (not name.isascii() or project_name(name) is None):
            raise UsageError(
                f"{name[:100]!r} is no name of a project; it must consist of letters, digits and "
                ". _ - and begin and end with a letter or a digit"
            )
    project_file.parse_project(  # raises if something else would be wrong in it
        project_file.format_project(project), project.normalized, where="the project"
    )


def _require_free(folder: SiteFolder, project: Project) -> None:
    if folder.project(project.normalized) is not None:
        raise ConfigurationError(
            f"the site already has a project {project.normalized!r}; add versions with "
            "static_site.update, or take another name with --as"
        )


def _require_new(project: Project, version: Version) -> None:
    if project.find(str(version)) is not None:
        raise ConfigurationError(
            f"{project.name} {version} is already there; if it is broken, yank it with "
            "static_site.yank, and publish a new version"
        )


def _project(folder: SiteFolder, name: str) -> Project:
    normalized = project_name(name)
    project = None if normalized is None else folder.project(normalized)
    if project is None:
        raise NotFound(f"the site has no project {name[:100]!r}")
    return project


def _add(change: Change, project: Project, made: _Made) -> None:
    folder, name, version = change.folder, project.normalized, made.version
    change.announce([file.site.filename for file in made.files], [version.version])
    for file in made.files:
        if file.site.url is None:
            # At most 100 MB.
            folder.write(folder.hosted(name, file.site.filename), file.path.read_bytes())
        folder.write(folder.core_metadata(name, file.site.filename), file.core_metadata)
    if made.readme is not None:
        folder.write(folder.readme(name, version.version), made.readme)
    change.finish(replace(project, versions=(*project.versions, version)))


# -- making a version ------------------------------------------------------------------------------


def _make(project: Project, source: Source, temporary: Path) -> _Made:
    if project.source is not None and source.link_only:
        raise UsageError(
            "a version without files cannot be renamed, so --link_only is not possible"
        )
    known = releases.version_of(source.tag)
    if known is not None:
        _require_new(project, known)  # before anything is fetched
    repository = releases.repository_of(project.homepage or "", source.api_url)
    with closing(GitHub(repository, source.token)) as github:
        private = github.is_private()
        if source.link_only:
            return _linked(github, project, source, temporary)
        if private is None and source.host_files:
            raise ConfigurationError(_invisible(github))
        if private is not False and not source.host_files:
            if source.build or project.source is not None:
                raise ConfigurationError(
                    f"{_hidden(github, private)}, and its files would become public with the site; "
                    "give --host_files if that is meant"
                )
            try:
                made = _linked(github, project, source, temporary)
            except BackendError as error:
                if private:
                    raise
                raise BackendError(f"{_invisible(github)}; {error}") from error
            note = (
                f"{_hidden(github, private)}: the site has only a link that those with access to "
                "it can follow; --host_files would make its files as public as the site"
            )
            return replace(made, warnings=(note, *made.warnings))
        made = _with_files(github, project, source, temporary)
        if private:
            note = (
                f"{github.repository.address} is private, and everybody who can read the site can "
                "read these files"
            )
            made = replace(made, warnings=(note, *made.warnings))
        return made


def _hidden(github: GitHub, private: bool | None) -> str:
    return f"{github.repository.address} is private" if private else _invisible(github)


def _invisible(github: GitHub) -> str:
    return (
        f"{github.repository.address} is not there, or is private and may not be read without "
        "a token that has access (--token_env)"
    )


def _with_files(github: GitHub, project: Project, source: Source, temporary: Path) -> _Made:
    tags, name = releases.tags_for(source.tag), normalize(project.source or project.name)
    release = None if source.build else github.release(tags)
    assets = () if release is None else release.files(name)
    if release is not None and not assets:
        _require_no_others(release, name)
    if release is not None and assets:
        tag = release.tag
        _check_versions(tag, [asset.filename for asset in assets])
        made = _from_release(github, release, assets, project, source, temporary)
    else:
        tag = release.tag if release is not None else _find_tag(github, tags, source)
        made = _built(github, tag, project, source, temporary)
    description = parse_description(made[0].core_metadata)
    version = SiteVersion(
        version=str(parse_filename(made[0].site.filename).version),
        tag=tag,
        files=tuple(file.site for file in made),
    )
    _require_new(project, version.parsed)
    warnings = tuple(each for file in made for each in file.warnings)
    return _Made(version=version, files=made, description=description, warnings=warnings)


def _require_no_others(release: Release, name: NormalizedName) -> None:
    """Nothing of the project is in a release; raise an error if wheels of another project are."""
    others = {parsed.project for _, parsed in release.wheels_and_sdists() if parsed.kind == "wheel"}
    if others:
        raise ConfigurationError(
            f"the release {release.tag} has files of {', '.join(sorted(others))}, but not of "
            f"{name}; register {min(others)}, with --as for another name in the site, or give "
            "--build"
        )


def _check_versions(tag: str, filenames: Sequence[str]) -> None:
    """All files must be of the version that the tag names, or of one if it names none."""
    found = {parse_filename(each).version: each for each in filenames}
    wanted = releases.version_of(tag)
    for version, filename in found.items():
        if wanted is not None and version != wanted:
            raise ConfigurationError(
                f"the tag {tag} says version {wanted}, but {filename} is of version {version}; "
                "they must be the same"
            )
    if len(found) > 1:
        raise ConfigurationError(
            f"the tag {tag} has files of several versions: {', '.join(map(str, sorted(found)))}"
        )


def _from_release(
    github: GitHub,
    release: Release,
    assets: Sequence[Asset],
    project: Project,
    source: Source,
    temporary: Path,
) -> Sequence[_NewFile]:
    made, notes = [], []
    for asset in assets:
        is_sdist = parse_filename(asset.filename).kind == "sdist"
        if project.source is not None and is_sdist:
            notes.append(_not_renamed(asset.filename))
            continue
        is_linked = (
            not source.host_files
            and project.source is None
            and releases.is_at(asset.url, asset.filename)
        )
        if not is_linked:
            _require_small(asset.filename, asset.size)
        say(f"fetching {asset.filename} ({asset.size} bytes)")
        path = temporary / asset.filename
        github.download(asset, path)
        file = _checked(path, asset.uploaded_at)
        if project.source is not None:
            file = _renamed(file, project, temporary, asset.uploaded_at)
        elif is_linked:
            offered = _has_metadata(github, release, file, temporary)
            digest = file.site.core_metadata_sha256 if offered else None
            site = replace(file.site, url=asset.url, core_metadata_sha256=digest)
            file = replace(file, site=site)
            path.unlink()  # it may be large, and is not needed any more
        made.append(file)
    return _with_notes(made, notes, project)


def _has_metadata(github: GitHub, release: Release, file: _NewFile, temporary: Path) -> bool:
    """Whether the release has the core metadata of a file beside it, byte for byte."""
    asset = release.find(f"{file.site.filename}.metadata")
    if asset is None or asset.size != len(file.core_metadata) or asset.size > _LARGEST_METADATA:
        return False
    path = temporary / "metadata"
    github.download(asset, path)
    return releases.is_at(asset.url, asset.filename) and path.read_bytes() == file.core_metadata


def _built(
    github: GitHub, tag: str, project: Project, source: Source, temporary: Path
) -> Sequence[_NewFile]:
    checkout, now = temporary / "checkout", datetime.now(UTC).replace(microsecond=0)
    address = github.repository.address
    say(f"building {address} at {tag}")
    source_builds.fetch_tag(address, tag, checkout, token=source.token, environ=source.environ)
    paths = source_builds.build_files(checkout, temporary / "build", environ=source.environ)
    name = normalize(project.source or project.name)
    for path in paths:
        found = parse_filename(path.name)
        if found.project != name:
            raise ConfigurationError(
                f"the tag {tag} builds files of {found.project}, but the project is {name}; "
                f"register {found.project}, with --as for another name in the site"
            )
    _check_versions(tag, [path.name for path in paths])
    made, notes = [], []
    for path in paths:
        if project.source is not None and parse_filename(path.name).kind == "sdist":
            notes.append(_not_renamed(path.name))
            continue
        _require_small(path.name, path.stat().st_size)
        file = _checked(path, now)
        if project.source is not None:
            file = _renamed(file, project, temporary, now)
        made.append(file)
    return _with_notes(made, notes, project)


def _with_notes(
    made: Sequence[_NewFile], notes: Sequence[str], project: Project
) -> Sequence[_NewFile]:
    if not made:
        raise ConfigurationError(
            f"there is no wheel that could be renamed to {project.name}, only an sdist; give "
            "--build to build one"
        )
    return [replace(made[0], warnings=(*notes, *made[0].warnings)), *made[1:]]


def _not_renamed(filename: str) -> str:
    return f"{filename} is left out, because an sdist cannot be renamed"


def _require_small(filename: str, size: int) -> None:
    if size > LARGEST_HOSTED:
        raise ConfigurationError(
            f"{filename} has {size} bytes, and GitHub takes files of up to {LARGEST_HOSTED} bytes "
            "into a repository; upload it to a release of a public repository, to which the site "
            "links without --host_files"
        )


def _checked(path: Path, uploaded_at: datetime) -> _NewFile:
    """Check a file as uploads are checked; raises `InvalidUpload`."""
    parsed = parse_filename(path.name)
    with system_errors(f"cannot read {path.name!r}"):
        with path.open("rb") as content:
            sha256 = hashlib.file_digest(content, "sha256").hexdigest()
        size = path.stat().st_size
    form = [
        (":action", "file_upload"),
        ("filetype", "bdist_wheel" if parsed.kind == "wheel" else "sdist"),
        ("name", parsed.project),
        ("version", str(parsed.version)),
        ("sha256_digest", sha256),
    ]
    received = ReceivedFile(filename=path.name, path=path, size=size, digests={"sha256": sha256})
    upload = check_upload(form, received, max_file_bytes=size, now=uploaded_at)
    core_metadata = upload.core_metadata
    if core_metadata is None:  # of an sdist, which pages show, but installers may not rely on
        core_metadata = read_core_metadata(path, path.name) or b""
    site = SiteFile(
        filename=path.name,
        sha256=sha256,
        size=size,
        uploaded_at=uploaded_at,
        requires_python=upload.file.requires_python,
        core_metadata_sha256=upload.file.core_metadata_sha256,
    )
    warnings = tuple(f"{path.name}: {each}" for each in upload.warnings)
    return _NewFile(path=path, site=site, core_metadata=core_metadata, warnings=warnings)


def _renamed(file: _NewFile, project: Project, temporary: Path, uploaded_at: datetime) -> _NewFile:
    folder = temporary / "renamed"
    folder.mkdir(exist_ok=True)
    path = rename_wheel(file.path, project.name, folder)
    _require_small(path.name, path.stat().st_size)
    note = (
        f"{path.name} was made from {file.path.name} (sha256 {file.site.sha256}); what it "
        f"asks about itself by the name {project.source}, such as its version, it does not find"
    )
    renamed = _checked(path, uploaded_at)
    return replace(renamed, warnings=(note, *file.warnings, *renamed.warnings))


# -- versions without files ------------------------------------------------------------------------


def _find_tag(github: GitHub, tags: Sequence[str], source: Source) -> str:
    return source_builds.find_tag(
        github.repository.address, tags, token=source.token, environ=source.environ
    )


def _linked(github: GitHub, project: Project, source: Source, temporary: Path) -> _Made:
    """A version that installers get from git; nothing of it is run."""
    address = github.repository.address
    tag = _find_tag(github, releases.tags_for(source.tag), source)
    version = releases.version_of(tag)
    if version is None:
        raise ConfigurationError(
            f"the tag {tag} names no version, which a version without files needs; it must be like "
            "v1.0 (PEP 440)"
        )
    checkout = temporary / "checkout"
    source_builds.fetch_tag(address, tag, checkout, token=source.token, environ=source.environ)
    declared = source_builds.read_declared(checkout)
    _check_declared(declared, project, tag, version)
    made = SiteVersion(version=str(version), tag=tag, git=address)
    _require_new(project, made.parsed)
    return _Made(
        version=made,
        readme=source_builds.read_readme(checkout),
        description=Description(
            summary=_text(declared.get("description")), authors=tuple(_authors(declared))
        ),
    )


def _check_declared(
    declared: Mapping[str, Any], project: Project, tag: str, version: Version
) -> None:
    """Compare with what `pyproject.toml` says; what is dynamic is not known without a build."""
    name, said = _text(declared.get("name")), _text(declared.get("version"))
    if name is not None and normalize(name) != project.normalized:
        raise ConfigurationError(
            f"the project is {project.name}, but pyproject.toml at the tag {tag} has the name "
            f"{name}; installers would refuse it"
        )
    try:
        differs = said is not None and Version(said) != version
    except ValueError:
        differs = True
    if differs:
        raise ConfigurationError(
            f"the tag {tag} says version {version}, but pyproject.toml says {said}; they "
            "must be the same"
        )


def _authors(declared: Mapping[str, Any]) -> Sequence[str]:
    listed = declared.get("authors")
    people = [each for each in listed if isinstance(each, dict)] if isinstance(listed, list) else []
    names = (_text(each.get("name") or each.get("email")) for each in people[:20])
    return [name for name in names if name is not None]


def _text(value: object) -> str | None:
    return one_line(value) if isinstance(value, str) else None


def _shown(text: str | None) -> str | None:
    """A text of a package as the file of a project may have it."""
    line = one_line(text)
    return line and "".join(each if each.isprintable() else "\ufffd" for each in line)


# -- delete and yank -------------------------------------------------------------------------------


def delete(folder: SiteFolder, name: str, version: str | None) -> Summary:
    """Remove a project, or one of its versions, with the files and texts that the site has of it.

    Raises `NotFound` if it is not there.
    """
    folder.settings()
    with changing(folder, normalize(name)) as change:
        project = _project(folder, name)
        gone = project.versions if version is None else (_version(project, version),)
        change.announce(
            [file.filename for each in gone for file in each.files],
            [each.version for each in gone],
        )
        if version is None:
            folder.delete_project(project.normalized)
        else:
            names = [file.filename for each in gone for file in each.files]
            kept = tuple(each for each in project.versions if each not in gone)
            burnt = project_file.burn(project, names).burnt
            change.finish(replace(project, versions=kept, burnt=burnt))
    lines = [line for each in gone for line in _version_lines(each)]
    warnings = []
    if any(file.url is None for each in gone for file in each.files):
        warnings.append("the history of a git repository still has the deleted files")
    what = project.name if version is None else f"{project.name} {gone[0].version}"
    return Summary(done="deleted", what=what, lines=tuple(lines), warnings=tuple(warnings))


def yank(
    folder: SiteFolder, name: str, version: str, filename: str | None, reason: str | None
) -> Summary:
    """Yank a version, or one of its files; `reason` None takes a yank back.

    Raises `NotFound` if it is not there.
    """
    folder.settings()
    if reason is not None and not reason.isprintable():
        raise UsageError("--reason must be one line without control characters")
    with changing(folder, normalize(name)) as change:
        project = _project(folder, name)
        old = _version(project, version)
        if filename is not None and filename not in [file.filename for file in old.files]:
            raise NotFound(f"{project.name} {old.version} has no file {filename[:300]!r}")
        new = project_file.yank(old, reason, () if filename is None else (filename,))
        versions = tuple(new if each is old else each for each in project.versions)
        change.finish(replace(project, versions=versions))
    lines = [Line(label="file", value=filename)] if filename is not None else []
    lines += [Line(label="reason", value=reason)] if reason else []
    done = "un-yanked" if reason is None else "yanked"
    return Summary(done=done, what=f"{project.name} {old.version}", lines=tuple(lines))


def _version(project: Project, version: str) -> SiteVersion:
    try:
        found = project.find(version)
    except ValueError as error:  # InvalidVersion, or too many digits for Python to convert
        raise UsageError(
            f"{version[:100]!r} is no version; it must be like 1.0 (PEP 440)"
        ) from error
    if found is None:
        raise NotFound(f"{project.name} has no version {version[:100]!r}")
    return found


# -- what changed ----------------------------------------------------------------------------------


def describe(folder: SiteFolder, name: str, before: str | None) -> Summary:
    """What is different in a project; `before` is the text of its file before, None for none.

    It is read from the site, and not told by what has changed it.
    """
    normalized = project_name(name)
    if normalized is None:
        raise UsageError(f"{name[:100]!r} is no name of a project")
    old = None if before is None else parse_project(before, normalized, where="before")
    new = folder.project(normalized)
    project = new or old
    if project is None:
        raise ConfigurationError(f"the site has no project {name!r}, and had none before")
    was = {} if old is None else {each.version: each for each in old.versions}
    now = {} if new is None else {each.version: each for each in new.versions}
    lines: list[Line] = []
    for version, made in now.items():
        if was.get(version) != made:
            lines += _metadata_lines(project, _description(folder, project, made))
            lines += _version_lines(made)
    gone = [version for version in was if version not in now]
    lines += [Line(label="version that is removed", value=each) for each in gone]
    if None not in (old, new) and _head(old) != _head(new):
        lines += _metadata_lines(project, NOTHING)
    lines += _decision_lines(old, new)
    done = "deleted" if new is None else "registered" if old is None else "changed"
    changed = [version for version, made in now.items() if version in was and was[version] != made]
    warnings = [f"{version} was there before, and is changed" for version in changed]
    if new is not None:
        warnings += problems_of(folder, new)
    return Summary(done=done, what=project.name, lines=tuple(lines), warnings=tuple(warnings))


def _decision_lines(old: Project | None, new: Project | None) -> Iterator[Line]:
    """What somebody has decided by hand: it takes away a warning, or brings back a danger."""
    if new is None:
        return
    before = Project(name=new.name) if old is None else old
    if new.ours_on_public != before.ours_on_public:
        yield Line(
            label="the project of this name on the public index is ours",
            value="yes" if new.ours_on_public else "no",
        )
    for label, one, other in (
        ("name that must not be used again", new, before),
        ("name of a deleted file that may be used again", before, new),
    ):
        names = [each for each in one.burnt if each not in other.burnt]
        yield from (Line(label=label, value=each) for each in names[:_MOST_SHOWN])
        if len(names) > _MOST_SHOWN:
            yield Line(label=f"{label}: more", value=str(len(names) - _MOST_SHOWN))


def _head(project: Project | None) -> Project | None:
    return None if project is None else replace(project, versions=())


def _description(folder: SiteFolder, project: Project, version: SiteVersion) -> Description:
    """What the core metadata of a version say, if the site has them."""
    for file in version.files:
        path = folder.core_metadata(project.normalized, file.filename)
        folder.require_inside(path)
        with suppress(OSError):
            # A link could lead to a file of this machine.
            found = path.lstat()
            if stat.S_ISREG(found.st_mode) and found.st_size <= _LARGEST_METADATA:
                return parse_description(path.read_bytes())
    return NOTHING


def _summary(done: str, project: Project, made: _Made) -> Summary:
    return Summary(
        done=done,
        what=f"{project.name} {made.version.version}",
        lines=(*_metadata_lines(project, made.description), *_version_lines(made.version)),
        warnings=made.warnings,
    )


def _metadata_lines(project: Project, said: Description) -> Sequence[Line]:
    lines = [Line(label="homepage", value=project.homepage or "")]
    if project.source is not None:
        lines.append(Line(label="name in the sources", value=project.source))
    authors = [each if isinstance(each, str) else each.label for each in said.authors]
    lines += [
        Line(label=label, value=value)
        for label, value in (
            ("author of the project", project.author),
            ("summary of the project", project.summary),
            ("author", ", ".join(authors)),
            ("summary", said.summary),
            ("licence", said.license),
            ("requires Python", said.requires_python),
        )
        if value
    ]
    lines += [Line(label="requires", value=each) for each in said.requires[:_MOST_SHOWN]]
    return lines


def _version_lines(version: SiteVersion) -> Sequence[Line]:
    lines = [Line(label="version", value=version.version)]
    for label, value in (("tag", version.tag), ("git", version.git)):
        if value is not None:
            lines.append(Line(label=label, value=value, is_part=True))
    for file in version.files[:_MOST_SHOWN]:
        lines.append(Line(label="file", value=file.filename))
        facts = {
            "size": f"{file.size} bytes",
            "SHA-256": file.sha256,
            "where": file.url or "in the site",
            "core metadata for installers": file.core_metadata_sha256 or "no",
        }
        lines += [Line(label=label, value=value, is_part=True) for label, value in facts.items()]
    if len(version.files) > _MOST_SHOWN:
        lines.append(Line(label="more files", value=str(len(version.files) - _MOST_SHOWN)))
    return lines
