"""How files lie in releases where every project has a repository of its own; it asks nobody.

    release       its tag means a version: 1.2.0, v1.2.0, demo-1.2.0, demo@1.2.0, demo/v1.2.0, …
    asset         a distribution file, whose true name is in its label where GitHub changed it
    its label     `demo-1.0.zip (yanked: "broken")`, where the file is yanked
    another one   its core metadata, `<filename>.metadata`

Other assets and releases are of no concern, and several projects may share a repository.
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

from private_pypi.model import DistributionFile, StoredFile
from private_pypi_github.releases import Asset, Release, asset_name, is_filename

_TAG = re.compile(r"(?P<before>v?)(?P<version>[0-9].*)", re.IGNORECASE | re.DOTALL)
_YANKED = re.compile(r"(?P<text>.*?) ?\(yanked(?:: (?P<reason>.*))?\)", re.DOTALL)
_ASSET_PATH = re.compile(
    r"/repos/(?P<owner>[^/]+)/(?P<repo>[A-Za-z0-9._-]{1,100})/releases/assets/(?P<id>[0-9]{1,18})$"
)


# Versions.


@lru_cache(maxsize=10_000)  # strangers may call their tags as they like
def parse_version(text: str) -> Version | None:
    """A version as PEP 440 reads it; None for what is none."""
    try:
        return Version(text)
    except (InvalidVersion, ValueError):  # the latter for more digits than Python takes
        return None


def tag_version(tag: str, project: str) -> Version | None:
    """The version that a tag means for a project; None when it means none."""
    for name, _, version in _readings(tag):
        if name is None or canonicalize_name(name) == project:
            return version
    return None


def tag_before(tag: str, project: str, others: Collection[str]) -> str | None:
    """What stands before the version in such a tag of a project ("v", "demo@"); None: no such tag.

    The tag of another project (one of `others`) gives the style, with this project's name.
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
    """All ways to read a tag: the project in it, what else is before the version, and that."""
    for start, separator in [(0, ""), *((m.end(), m[0]) for m in re.finditer("[-_@/]", tag))]:
        match = _TAG.fullmatch(tag, start)
        version = None if match is None else parse_version(match["version"])
        if match is not None and version is not None:
            name = tag[: start - 1] if start else None
            yield name, separator + match["before"], version


# Files.


@dataclass(frozen=True, slots=True)
class Found:
    """A distribution file in a release."""

    release: Release
    asset: Asset
    filename: str
    version: Version

    @property
    def age(self) -> tuple[datetime, int]:
        """The less, the older."""
        return self.asset.created_at, self.asset.id

    @property
    def stored(self) -> StoredFile:
        """As the core takes it; GitHub keeps no record."""
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
class Place:
    """What the location of a file says: the address of its asset, and in the fragment of what."""

    owner: str
    repo: str
    asset: int
    release: int
    name: str  # a digest of the filename, which nobody can change by replacing a version in it
    sha256: str | None  # of the content; None: GitHub had no digest

    @property
    def repository(self) -> str:
        """The path of the repository in the interface."""
        return f"/repos/{self.owner}/{self.repo}"

    @property
    def path(self) -> str:
        """The path of the asset in the interface."""
        return f"{self.repository}/releases/assets/{self.asset}"

    def is_of(self, file: DistributionFile) -> bool:
        """Whether this is where these bytes are, and not others of the same or another name.

        Who has just listed a file does not know its hash, and GitHub not that of every asset.
        """
        if self.name != _digest(file.filename):
            return False
        return not file.sha256 or self.sha256 in (None, file.sha256)


def parse_place(location: str) -> Place | None:
    """What a location says; None for the location of something else."""
    try:
        parts = urlsplit(location)
    except ValueError:
        return None
    found = _ASSET_PATH.search(parts.path)
    facts = {key: values[0] for key, values in parse_qs(parts.fragment).items()}
    if found is None or found["repo"] in (".", "..") or not facts.get("release", "").isdecimal():
        return None
    return Place(
        owner=found["owner"],
        repo=found["repo"],
        asset=int(found["id"]),
        release=int(facts["release"]),
        name=facts.get("name", ""),
        sha256=facts.get("sha256"),
    )


def _digest(filename: str) -> str:
    return hashlib.sha256(filename.encode()).hexdigest()[:16]


def distribution_files(releases: Iterable[Release], project: str) -> Iterator[Found]:
    """The distribution files of a project in published releases, some of them twice."""
    for release in releases:
        if not release.is_draft:
            yield from files_of(release, project)


def files_of(release: Release, project: str) -> Iterator[Found]:
    """The distribution files of a project in a release."""
    for asset in release.assets:
        filename = true_filename(asset.name, asset.label)
        parsed = parse_filename(filename) if asset.is_complete else None
        if parsed is not None and parsed[0] == project:
            yield Found(release, asset, filename, parsed[1])


def metadata_of(release: Release, filename: str) -> list[Asset]:
    """The assets that bear the core metadata of a file, or of one that had its name before."""
    wanted = f"{filename}.metadata"
    return [a for a in release.assets if wanted == true_filename(a.name, a.label)]


def true_filename(name: str, label: str) -> str:
    """What an asset is called: as its label says where GitHub changed the name, else its name."""
    text, _ = read_label(label)
    return text if text != name and asset_name(text) == name else name


def read_label(label: str) -> tuple[str, str | None]:
    """The text of a label, and the reason for which it says that the file is yanked."""
    match = _YANKED.fullmatch(label)
    if match is None:
        return label, None
    said = match["reason"] or ""
    try:
        reason = json.loads(said)
    except ValueError:
        return match["text"], said  # people write it without quotes
    return match["text"], reason if isinstance(reason, str) else said


def yanked_label(name: str, label: str, reason: str | None) -> str:
    """The label of an asset that is yanked, or (None) is not; the rest of it stays."""
    text, _ = read_label(label)
    if reason is None:
        return "" if text == name else text
    return f"{text or name} (yanked{f': {json.dumps(reason)}' if reason else ''})"


def parse_filename(filename: str) -> tuple[NormalizedName, Version] | None:
    """The project and the version of a distribution file, from its name alone.

    None when it is none. Cheap, since a listing has thousands of names; the core reads them whole.
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
