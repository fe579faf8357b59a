"""How files are stored in releases if each project has its own repository.

    release           its tag names a version: 1.2.0, v1.2.0, demo-1.2.0, demo@1.2.0, demo/v1.2.0, …
    asset             a distribution file
    label of asset    the filename, if GitHub has changed the name of the asset; if the file is
                      yanked, also the reason: `demo-1.0.zip (yanked: "broken")`
    another asset     the core metadata of the file, `<filename>.metadata`
    another asset     the mark of a file that was deleted, `<filename>.deleted`

The name of a deleted file is never used again: it is "burnt". The mark tells this to every server.
It is part of the listing, can be written by every token that may upload files, and is not affected
by anything that people do with the file or with the notes of the release.

Other assets and releases are ignored. Several projects may share a repository. This module makes
no requests.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from urllib.parse import parse_qs, urlencode, urlsplit

from packaging.utils import NormalizedName, canonicalize_name
from packaging.version import InvalidVersion, Version

from private_pypi.model import FileHandle, StoredFile
from private_pypi_github.releases import GitHubAsset, GitHubRelease, asset_name, is_filename

DELETED = ".deleted"
"""The suffix in the name of the asset that marks a deleted file."""

_TAG = re.compile(r"(?P<before>v?)(?P<version>[0-9].*)", re.IGNORECASE | re.DOTALL)
_YANKED = re.compile(r"(?P<text>.*?) ?\(yanked(?:: (?P<reason>.*))?\)", re.DOTALL)
_ASSET_PATH = re.compile(
    r"/repos/(?P<owner>[^/]+)/(?P<repo>[A-Za-z0-9._-]{1,100})/releases/assets/(?P<id>[0-9]{1,18})$"
)


# Versions.


@lru_cache(maxsize=10_000)  # limited, because anybody may choose names of tags
def parse_version(text: str) -> Version | None:
    """A version (PEP 440); None if the text is not one."""
    try:
        return Version(text)
    except (InvalidVersion, ValueError):  # ValueError: too many digits for Python
        return None


def tag_version(tag: str, project: str) -> Version | None:
    """The version of a project that a tag names; None if it does not name one."""
    for name, _, version in _readings(tag):
        if name is None or canonicalize_name(name) == project:
            return version
    return None


def tag_before(tag: str, project: str, others: Collection[str]) -> str | None:
    """What comes before the version in a tag, such as "v" or "demo@"; None if it has no version.

    If it is the tag of another project, one of `others`, the name is replaced by this project's.
    """
    for name, before, _ in _readings(tag):
        if name is None:
            return before
        if canonicalize_name(name) == project:
            return name + before
        if canonicalize_name(name) in others:
            return project + before
    return None


def _readings(tag: str) -> Iterator[tuple[str | None, str, Version]]:
    """All ways to read a tag: the project, the rest of what is before the version, the version."""
    for start, separator in [(0, ""), *((m.end(), m[0]) for m in re.finditer("[-_@/]", tag))]:
        match = _TAG.fullmatch(tag, start)
        version = None if match is None else parse_version(match["version"])
        if match is not None and version is not None:
            name = tag[: start - 1] if start else None
            yield name, separator + match["before"], version


# Files.


@dataclass(frozen=True, slots=True)
class ProjectFile:
    """A distribution file of a project in a release."""

    release: GitHubRelease
    asset: GitHubAsset
    filename: str
    version: Version

    @property
    def age(self) -> tuple[datetime, int]:
        """A key for sorting: the oldest file comes first."""
        return self.asset.created_at, self.asset.id

    @property
    def stored(self) -> StoredFile:
        """The same file for the core."""
        asset = self.asset
        facts = {"name": _digest(self.filename), "release": str(self.release.id)}
        if asset.sha256 is not None:
            facts["sha256"] = asset.sha256
        return StoredFile(
            filename=self.filename,
            size=asset.size,
            location=f"{asset.url}#{urlencode(facts)}",
            stamp=f"{asset.id}:{asset.size}",
            record=None,
            sha256=asset.sha256,
            uploaded_at=asset.created_at,
            yanked=read_label(asset.label)[1],
        )


@dataclass(frozen=True, slots=True)
class ProjectAssetLocation:
    """What the `location` of a file says: an asset, and in the fragment which file it is."""

    owner: str
    repo: str
    asset_id: int
    release_id: int
    name: str  # a hash of the filename, so that an edited filename does not fit
    sha256: str | None  # of the content; None: GitHub has not computed it

    @property
    def repository(self) -> str:
        """The path of the repository in GitHub's interface."""
        return f"/repos/{self.owner}/{self.repo}"

    @property
    def path(self) -> str:
        """The path of the asset in GitHub's interface."""
        return f"{self.repository}/releases/assets/{self.asset_id}"

    def is_of(self, file: FileHandle) -> bool:
        """Whether this is the location of this file, as far as name and hash are known.

        The hash of a file that was only listed may be unknown, and GitHub has not computed that of
        every asset.
        """
        if self.name != _digest(file.filename):
            return False
        return not file.sha256 or self.sha256 in (None, file.sha256)


def parse_project_location(location: str) -> ProjectAssetLocation | None:
    """What a location says; None if it is not the location of an asset."""
    try:
        parts = urlsplit(location)
    except ValueError:
        return None
    found = _ASSET_PATH.search(parts.path)
    facts = {key: values[0] for key, values in parse_qs(parts.fragment).items()}
    if found is None or found["repo"] in (".", "..") or not facts.get("release", "").isdecimal():
        return None
    return ProjectAssetLocation(
        owner=found["owner"],
        repo=found["repo"],
        asset_id=int(found["id"]),
        release_id=int(facts["release"]),
        name=facts.get("name", ""),
        sha256=facts.get("sha256"),
    )


def _digest(filename: str) -> str:
    return hashlib.sha256(filename.encode()).hexdigest()[:16]


FileKey = tuple[str, Version, str]
"""Project, version and the rest of a filename. Equal for names that differ in spelling only."""


def distribution_files(releases: Iterable[GitHubRelease], project: str) -> Iterator[ProjectFile]:
    """The distribution files of a project in published releases. A name may occur several times.

    Files with burnt names are left out: a deletion was interrupted before it removed them.
    """
    public = [release for release in releases if not release.is_draft]
    burnt = burnt_names(public)
    for release in public:
        for found in files_of(release, project):
            if file_key(found.filename) not in burnt:
                yield found


def burnt_names(releases: Iterable[GitHubRelease]) -> dict[FileKey | None, GitHubAsset]:
    """The names of deleted files, each with the asset that marks it."""
    return {key: asset for key, _, asset in marks(releases)}


def marks(releases: Iterable[GitHubRelease]) -> Iterator[tuple[FileKey, str, GitHubAsset]]:
    """The assets in published releases that mark deleted files, each with the name of the file."""
    for release in releases:
        for asset in release.assets if not release.is_draft else ():
            name = true_filename(asset.name, asset.label)
            if asset.is_complete and name.endswith(DELETED):
                deleted = name.removesuffix(DELETED)
                key = file_key(deleted)
                if key is not None:
                    yield key, deleted, asset


def file_key(filename: str) -> FileKey | None:
    """The key of a filename; None if it is not the name of a distribution file."""
    parsed = parse_filename(filename)
    if parsed is None:
        return None
    # What follows the version: the tags of a wheel, or the suffix of a source distribution.
    if filename.endswith(".whl"):
        rest = filename.split("-", 2)[2]
    else:
        rest = ".zip" if filename.endswith(".zip") else ".tar.gz"
    return *parsed, rest.lower()


def files_of(release: GitHubRelease, project: str) -> Iterator[ProjectFile]:
    """The distribution files of a project in a release."""
    for asset in release.assets:
        filename = true_filename(asset.name, asset.label)
        parsed = parse_filename(filename) if asset.is_complete else None
        if parsed is not None and parsed[0] == project:
            yield ProjectFile(release, asset, filename, parsed[1])


def metadata_of(release: GitHubRelease, filename: str) -> list[GitHubAsset]:
    """The assets with the core metadata of a file, or of an earlier file of the same name."""
    wanted = f"{filename}.metadata"
    return [a for a in release.assets if wanted == true_filename(a.name, a.label)]


def true_filename(name: str, label: str) -> str:
    """The name under which an asset was sent: if GitHub changed it, it is in the label."""
    text, _ = read_label(label)
    return text if text != name and asset_name(text) == name else name


def read_label(label: str) -> tuple[str, str | None]:
    """The text of a label, and the reason if the label yanks the file (else None)."""
    match = _YANKED.fullmatch(label)
    if match is None:
        return label, None
    said = match["reason"] or ""
    try:
        reason = json.loads(said)
    except ValueError:
        return match["text"], said  # people who edit labels leave the quotes out
    return match["text"], reason if isinstance(reason, str) else said


def yanked_label(name: str, label: str, reason: str | None) -> str:
    """The label with the reason of a yank, or without one (`reason=None`)."""
    text, _ = read_label(label)
    if reason is None:
        return "" if text == name else text
    return f"{text or name} (yanked{f': {json.dumps(reason)}' if reason else ''})"


def parse_filename(filename: str) -> tuple[NormalizedName, Version] | None:
    """The project and the version in a filename; None if it is not that of a distribution file.

    This is less exact than the core's check, but fast, since a listing has thousands of names.
    """
    if not is_filename(filename):
        return None
    if filename.endswith(".whl"):
        parts = filename.removesuffix(".whl").split("-")
        if len(parts) not in (5, 6):
            return None
        name, version = parts[0], parts[1]
    else:
        stem = filename.removesuffix(".zip").removesuffix(".tar.gz")
        name, dash, version = stem.rpartition("-")
        if not dash:
            return None
    parsed = parse_version(version)
    return None if parsed is None else (canonicalize_name(name), parsed)
