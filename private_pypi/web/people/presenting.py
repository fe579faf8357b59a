"""What pages for people show, as values: releases, files, commands; pure, and without markup."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from urllib.parse import quote

from packaging.utils import NormalizedName
from packaging.version import Version

from private_pypi.errors import InvalidFilename
from private_pypi.filenames import parse_filename
from private_pypi.model import DistributionFile


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """The files of one version."""

    version: str
    files: tuple[DistributionFile, ...]

    @property
    def is_prerelease(self) -> bool:
        """Whether installers pass it over unless told otherwise."""
        return Version(self.version).is_prerelease

    @property
    def is_yanked(self) -> bool:
        """Whether all of its files are."""
        return all(file.yanked is not None for file in self.files)

    @property
    def uploaded_at(self) -> datetime | None:
        """When its first file came; None when that is not known."""
        return min((file.uploaded_at for file in self.files if file.uploaded_at), default=None)

    @property
    def yank_reasons(self) -> tuple[str, ...]:
        """Why its files were yanked, as far as somebody said."""
        return tuple(dict.fromkeys(file.yanked for file in self.files if file.yanked))

    @property
    def requires_python(self) -> str | None:
        """What its files say, the first that says something."""
        return next((file.requires_python for file in self.files if file.requires_python), None)


def releases_of(files: Sequence[DistributionFile]) -> tuple[Release, ...]:
    """The releases, newest first, from files ordered by version; wheels before sources."""
    releases = [
        Release(version=version, files=tuple(sorted(group, key=_shown_first)))
        for version, group in groupby(files, key=lambda file: file.version)
    ]
    return tuple(reversed(releases))


def current_release(releases: Sequence[Release]) -> Release:
    """What an installer would take: the newest final one that is not yanked, if there is one."""
    usable = [release for release in releases if not release.is_yanked]
    final = [release for release in usable if not release.is_prerelease]
    return next(iter([*final, *usable, *releases]))


def with_metadata_first(files: Sequence[DistributionFile]) -> list[DistributionFile]:
    """In which order files are asked for the description of their release: cheapest first."""
    return sorted(files, key=lambda file: (file.core_metadata_sha256 is None, file.size))


def _shown_first(file: DistributionFile) -> tuple[bool, str]:
    return not file.filename.endswith(".whl"), file.filename


def kind_of(file: DistributionFile) -> str:
    """What a file is, in words."""
    try:
        parsed = parse_filename(file.filename)
    except InvalidFilename:
        return "file"
    if parsed.kind == "sdist":
        return "source"
    python, abi, platform = file.filename.removesuffix(".whl").rsplit("-", 3)[1:]
    tags = dict.fromkeys((python, abi, platform))  # the first two are often the same
    return "wheel for " + ", ".join(tag for tag in tags if tag not in ("none", "any"))


def size_of(size: int) -> str:
    """A number of bytes for people, in decimal units."""
    amount = float(size)
    for unit in ("bytes", "kB", "MB", "GB"):
        if amount < 1000 or unit == "GB":
            break
        amount /= 1000
    return f"{amount:.0f} {unit}" if unit == "bytes" or amount >= 100 else f"{amount:.1f} {unit}"


def day_of(moment: datetime) -> str:
    """A day, such as 3 Jan 2026 (UTC)."""
    in_utc = moment.astimezone(UTC)
    return f"{in_utc.day} {_MONTHS[in_utc.month - 1]} {in_utc.year}"


def minute_of(moment: datetime) -> str:
    """A moment to the minute, in UTC."""
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")


_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


# -- commands ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a repository is for tools; `base` is the server's address, without a final slash."""

    base: str
    repository: str
    needs_secret: bool

    @property
    def index_url(self) -> str:
        """What installers are given, without a user."""
        return f"{self.base}/r/{quote(self.repository, safe='')}/simple/"

    @property
    def upload_url(self) -> str:
        """What uploaders are given."""
        return f"{self.base}/r/{quote(self.repository, safe='')}/"

    @property
    def index_url_with_user(self) -> str:
        """The same with the user, for tools that then ask for the secret or look it up."""
        if not self.needs_secret:
            return self.index_url
        scheme, _, rest = self.index_url.partition("://")
        return f"{scheme}://{quote(self.repository, safe='')}@{rest}"

    @property
    def host(self) -> str:
        """The name in `.netrc`: without a port, which it does not know."""
        name = self.base.partition("://")[2].partition("/")[0]
        return re.sub(r":[0-9]+$", "", name).strip("[]")

    @property
    def netloc(self) -> str:
        """Host and port: what a keyring knows the secret by."""
        return self.base.partition("://")[2].partition("/")[0]

    @property
    def index_name(self) -> str:
        """A name for the index that every tool takes."""
        return re.sub(r"[^a-z0-9]+", "-", self.repository.lower()).strip("-") or "private"

    @property
    def variable(self) -> str:
        """The middle of uv's and poetry's variables (`UV_INDEX_<this>_USERNAME`)."""
        return self.index_name.upper().replace("-", "_")


@dataclass(frozen=True, slots=True)
class Command:
    """Something to copy into a terminal."""

    tool: str
    text: str


def install_commands(
    place: Place, project: NormalizedName, version: str | None
) -> tuple[Command, ...]:
    """How pip, uv and poetry install a project; `version` None: the newest."""
    what = shlex.quote(project if version is None else f"{project}=={version}")
    name = shlex.quote(place.index_name)
    url = shlex.quote(place.index_url_with_user)
    bare = shlex.quote(place.index_url)
    return (
        Command("pip", f"pip install --index-url {url} {what}"),
        # Without the user: uv writes the address into a file that others read.
        Command("uv", f"uv add --index {name}={bare} {what}"),
        Command(
            "poetry",
            f"poetry source add --priority=explicit {name} {bare}\n"
            f"poetry add --source {name} {what}",
        ),
    )
