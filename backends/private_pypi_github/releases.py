"""How a distribution file is stored in a release, in the layout of private-pypi 0.2.

    tag and title of the release  the filename
    first asset                   the file; GitHub may change its name
    second asset                  its core metadata, `<filename>.metadata`
    notes                         its record: a flat TOML table of strings

The notes begin with comments of private_pypi, which version 0.2 ignores:

    # private_pypi: file 123, core metadata 124
    # private_pypi: yanked "the reason"

The first one names the assets by their ids, because GitHub changes names that have characters such
as `!`. It also shows which bytes the record describes: if somebody replaces an asset, the new one
gets another id. The second one yanks the file. It also works in notes that have no record.

This module makes no requests.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

import tomli

from private_pypi.errors import BackendError, InvalidUpload
from private_pypi.model import Record, StoredFile

MAX_NOTES = 125_000  # characters
_RESERVE = 2_000  # characters of the notes that are kept for comments, such as a yank

_SUFFIXES = (".whl", ".tar.gz", ".zip")
_OURS = "# private_pypi: "
_ASSETS = re.compile(r"file (?P<file>[0-9]+)(?:, core metadata (?P<metadata>[0-9]+))?")
_YANKED = re.compile(r"yanked(?:\s+(?P<reason>.*))?")
_DRAFT = re.compile(r"draft until (?P<time>\S+)")
# What is never left out of a record, even if it is too long.
_FACTS = {
    "name",
    "version",
    "distrib",
    "sha256",
    "size",
    "uploaded_at",
    "requires_python",
    "core_metadata_sha256",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class GitHubAsset:
    """A file of a release on GitHub. If its bytes are replaced, the new asset has another id."""

    id: int
    name: str
    size: int  # bytes
    sha256: str | None  # computed by GitHub; None for assets that are older than this feature
    url: str
    is_complete: bool
    label: str  # a name for people to read; "": none
    created_at: datetime  # UTC


@dataclass(frozen=True, slots=True, kw_only=True)
class GitHubRelease:
    """A release on GitHub, which has a tag and files. Not to be confused with one of a project."""

    id: int
    tag: str
    is_draft: bool
    created_at: datetime  # UTC; the time of the tagged commit
    published_at: datetime | None  # UTC; None for a draft
    notes: str
    assets: tuple[GitHubAsset, ...]
    is_prerelease: bool
    is_immutable: bool
    upload_url: str  # the address to which assets are sent


@dataclass(frozen=True, slots=True)
class AssetLocation:
    """What the `location` of a file says.

    As text, it is the address of the asset, which is all that private-pypi 0.2 reads. The rest is
    in the fragment of the address, which is never sent.
    """

    asset_id: int
    sha256: str | None  # of the asset; None: unknown
    metadata_id: int | None  # the asset with the core metadata


def parse_release(value: Any) -> GitHubRelease:
    """A release from GitHub's JSON; raises `BackendError` if something is missing."""
    try:
        published_at = value["published_at"]
        return GitHubRelease(
            id=int(value["id"]),
            tag=str(value["tag_name"]),
            is_draft=bool(value["draft"]),
            created_at=parse_time(value["created_at"]),
            published_at=None if published_at is None else parse_time(published_at),
            notes=value.get("body") or "",
            assets=tuple(parse_asset(asset) for asset in value["assets"]),
            is_prerelease=bool(value["prerelease"]),
            is_immutable=bool(value.get("immutable")),  # older Enterprise servers lack this
            upload_url=str(value["upload_url"]).partition("{")[0],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise BackendError("GitHub answered with a release of an unknown form") from error


def parse_asset(value: Any) -> GitHubAsset:
    """An asset from GitHub's JSON; raises `BackendError` if something is missing."""
    try:
        digest = value.get("digest") or ""
        return GitHubAsset(
            id=int(value["id"]),
            name=str(value["name"]),
            size=int(value["size"]),
            sha256=digest.removeprefix("sha256:") if digest.startswith("sha256:") else None,
            url=str(value["url"]),
            is_complete=value["state"] == "uploaded",
            label=value.get("label") or "",
            created_at=parse_time(value["created_at"]),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise BackendError("GitHub answered with an asset of an unknown form") from error


def parse_time(text: str) -> datetime:
    """A time as GitHub writes it (RFC 3339), in UTC."""
    return datetime.fromisoformat(text).astimezone(UTC)


def is_filename(tag: str) -> bool:
    """Whether a tag can be the name of a distribution file."""
    return tag.endswith(_SUFFIXES)


# A published file.


def stored_file(release: GitHubRelease) -> StoredFile | None:
    """The distribution file in a release; None for a draft, and for any other release."""
    if release.is_draft or not is_filename(release.tag):
        return None
    notes = _read_notes(release.notes)
    asset = _find_asset(release, notes.file, release.tag)
    if asset is None:
        return None
    is_bound = notes.describes(asset)
    sha256 = asset.sha256
    metadata = None
    if is_bound:
        sha256 = sha256 or notes.record.get("sha256")
        if notes.metadata is not None:
            metadata = _find_asset(release, notes.metadata, f"{release.tag}.metadata")
    # Records of private-pypi 0.2 do not name the asset. If GitHub computed a hash, it must be the
    # one in the record.
    describes_asset = is_bound or (
        notes.file is None and asset.sha256 in (None, notes.record.get("sha256"))
    )
    record = notes.record if describes_asset and notes.record else None
    return StoredFile(
        filename=release.tag,
        size=asset.size,
        location=format_location(asset, sha256, metadata),
        stamp=f"{asset.id}:{asset.size}",
        record=record,
        # Without a record, somebody created the release by hand.
        uploaded_at=release.published_at if record is None else None,
        yanked=notes.yanked,
    )


def format_location(asset: GitHubAsset, sha256: str | None, metadata: GitHubAsset | None) -> str:
    """The text of a location; the opposite of `parse_location`."""
    parts = [f"sha256={sha256}"] if sha256 else []
    parts += [f"metadata={metadata.id}"] if metadata else []
    return asset.url + ("#" + "&".join(parts) if parts else "")


def parse_location(text: str) -> AssetLocation | None:
    """What a location says; None if it is not the location of an asset.

    Of the address only the id is used, because anybody may have edited the index document.
    """
    try:
        parts = urlsplit(text)
    except ValueError:
        return None
    found = re.search(r"/releases/assets/([0-9]{1,18})$", parts.path)
    if found is None:
        return None
    facts = {key: values[0] for key, values in parse_qs(parts.fragment).items()}
    metadata = facts.get("metadata", "")
    return AssetLocation(
        asset_id=int(found[1]),
        sha256=facts.get("sha256"),
        metadata_id=int(metadata) if re.fullmatch("[0-9]{1,18}", metadata) else None,
    )


def _find_asset(release: GitHubRelease, asset_id: int | None, name: str) -> GitHubAsset | None:
    """A complete asset by its id; if there is none, by its name, which GitHub may have changed."""
    complete = [asset for asset in release.assets if asset.is_complete]
    found: dict[object, GitHubAsset] = {asset.name: asset for asset in complete}
    found |= {asset.id: asset for asset in complete}
    return found.get(asset_id) or found.get(name) or found.get(asset_name(name))


def asset_name(name: str) -> str:
    """The name that GitHub gives to an asset when a distribution file is sent.

    "GitHub renames asset filenames that have special characters" (REST documentation).
    """
    return re.sub(r"[^A-Za-z0-9._+@-]+", ".", name)


# Notes.


@dataclass(frozen=True, slots=True)
class _Notes:
    record: Record
    file: int | None  # the id of the asset; None in notes of private-pypi 0.2
    metadata: int | None  # the id of the asset
    yanked: str | None  # the reason; None: not yanked

    def describes(self, asset: GitHubAsset) -> bool:
        """Whether the record describes the bytes of this asset.

        In a copy of a repository, the assets have other ids, and only their hashes can tell.
        """
        if self.file is None:
            return False
        return self.file == asset.id or (
            asset.sha256 is not None and asset.sha256 == self.record.get("sha256")
        )


def fit_record(record: Record) -> Record:
    """The record without its longest values, if it is too long for the notes of a release.

    Raises `InvalidUpload` if not even the indispensable values fit.
    """
    room = MAX_NOTES - _RESERVE
    lines = {key: length_of(_line(key, value)) for key, value in record.items()}
    total = sum(lines.values())
    kept = dict(record)
    for key in sorted(lines.keys() - _FACTS, key=lambda key: (-lines[key], key)):
        if total <= room:
            break
        total -= lines[key]
        del kept[key]
    if total > room:
        raise InvalidUpload(
            f"the facts of the file have {total} characters; release notes hold {room}"
        )
    return kept


def format_notes(record: Record, file: GitHubAsset, metadata: GitHubAsset | None) -> str:
    """The notes of a published file."""
    comment = f"{_OURS}file {file.id}"
    if metadata is not None:
        comment += f", core metadata {metadata.id}"
    return f"{comment}\n" + "".join(_line(key, value) for key, value in record.items())


def yanked_notes(notes: str, reason: str | None) -> str:
    """The notes with a comment that yanks the file, or without one (`reason=None`)."""
    comments, rest = _split(notes)
    kept = [line for line in comments if not _YANKED.fullmatch(_comment(line))]
    if reason is not None and kept and not kept[-1].endswith("\n"):
        kept.append("\n")
    if reason is not None:
        kept.append(f"{_OURS}yanked {_toml_string(reason)}\n")
    return "".join(kept) + rest


def format_draft_notes(until: datetime) -> str:
    """The notes of a draft, which say until when its writer may be at work on it."""
    return f"{_OURS}draft until {until.astimezone(UTC).isoformat()}\n"


def draft_until(release: GitHubRelease) -> datetime | None:
    """Until when a writer may work on this draft; None if private_pypi did not create it."""
    comments, _ = _split(release.notes)
    match = _DRAFT.match(_comment(comments[0])) if comments and release.is_draft else None
    if match is None:
        return None
    try:
        return parse_time(match["time"])
    except ValueError:
        return None


def _split(notes: str) -> tuple[list[str], str]:
    """The comments of private_pypi at the start of the notes, line by line, and the rest."""
    comments = []
    end = 0
    while notes.startswith(_OURS, end):
        start, end = end, notes.find("\n", end) + 1 or len(notes)
        comments.append(notes[start:end])
    return comments, notes[end:]


def _comment(line: str) -> str:
    return line.removeprefix(_OURS).rstrip("\r\n\t ")


def _read_yank(comments: Sequence[str]) -> str | None:
    for line in comments:
        match = _YANKED.fullmatch(_comment(line))
        if match is not None:
            said = match["reason"] or ""
            try:
                value = tomli.loads(f"reason = {said}")["reason"]
            except tomli.TOMLDecodeError:
                return said  # people who edit notes by hand leave the quotes out
            return value if isinstance(value, str) else said
    return None


def _read_notes(text: str) -> _Notes:
    """Never raises: the core reads what is missing from the file itself."""
    comments, _ = _split(text)
    yanked = _read_yank(comments)
    match = next(filter(None, (_ASSETS.fullmatch(_comment(line)) for line in comments)), None)
    try:
        table: Mapping[str, object] = tomli.loads(text.replace("\r\n", "\n"))
    except (tomli.TOMLDecodeError, RecursionError):
        table = {}
    record = {key: value for key, value in table.items() if isinstance(value, str)}
    if match is None or not record:
        return _Notes(record, None, None, yanked)
    metadata = match["metadata"]
    return _Notes(record, int(match["file"]), None if metadata is None else int(metadata), yanked)


def _line(key: str, value: str) -> str:
    return f"{_toml_string(key)} = {_toml_string(value)}\n"


def length_of(text: str) -> int:
    """The length of notes in UTF-16 code units, the most that GitHub can count."""
    return len(text.encode("utf-16-le")) // 2


def _toml_string(text: str) -> str:
    """A basic string of TOML 1.0, with quotes, backslashes and control characters escaped."""
    whole = text.encode("utf-8", "replace").decode()
    escaped = r'["\\\x00-\x1f\x7f-\x9f\u2028\u2029]'
    return '"' + re.sub(escaped, lambda match: f"\\u{ord(match[0]):04x}", whole) + '"'


# Listings.


def newest_first(releases: Sequence[GitHubRelease]) -> bool:
    """Whether releases are sorted by the time of their commit, then of their publication."""
    moments = [(release.created_at, release.published_at) for release in releases]
    known = [(created, published) for created, published in moments if published is not None]
    return known == sorted(known, reverse=True)
