"""How a distribution file lies in a release, as private-pypi 0.2 laid it out; it asks nobody.

    tag = name of the release     the filename
    first asset                   the file, named like it where GitHub lets it be
    second asset                  its core metadata, `<filename>.metadata`
    notes                         its record: a flat TOML table of strings

The notes begin with comments of ours, which private-pypi 0.2 skips. One names the assets by their
ids, because GitHub changes names with characters such as `!`, and so binds the record to these very
bytes: an asset that somebody replaces gets another id. One says that the file is yanked: also in
notes that are no record, and whatever a form has sent, since no value can stand there.
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
_RESERVE = 2_000  # characters of the notes that are left to comments, so also to a reason of a yank

_SUFFIXES = (".whl", ".tar.gz", ".zip")
_OURS = "# private_pypi: "
_ASSETS = re.compile(r"file (?P<file>[0-9]+)(?:, core metadata (?P<metadata>[0-9]+))?")
_YANKED = re.compile(r"yanked(?:\s+(?P<reason>.*))?")
_DRAFT = re.compile(r"draft until (?P<time>\S+)")
# What must not be left out of a record that is too long.
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
class Asset:
    """A file of a release; its id never stands for other bytes."""

    id: int
    name: str
    size: int  # bytes
    sha256: str | None  # as GitHub computed it; None: it did not
    url: str
    is_complete: bool
    label: str  # what people may have called it; "": nothing
    created_at: datetime  # UTC


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """A release, as far as it concerns us."""

    id: int
    tag: str
    is_draft: bool
    created_at: datetime  # of the tagged commit
    published_at: datetime | None  # None for a draft
    notes: str
    assets: tuple[Asset, ...]
    is_prerelease: bool
    is_immutable: bool
    upload_url: str  # takes assets


@dataclass(frozen=True, slots=True)
class Location:
    """What `location` says: an asset, the bytes it has, and the asset of their core metadata.

    Its text is the address of the asset, which is all that private-pypi 0.2 reads; the rest is in
    the fragment, which is never sent.
    """

    asset: int
    sha256: str | None
    metadata: int | None


def parse_release(value: Any) -> Release:
    """A release from GitHub's JSON; raises `BackendError` when it is none."""
    try:
        published_at = value["published_at"]
        return Release(
            id=int(value["id"]),
            tag=str(value["tag_name"]),
            is_draft=bool(value["draft"]),
            created_at=parse_time(value["created_at"]),
            published_at=None if published_at is None else parse_time(published_at),
            notes=value.get("body") or "",
            assets=tuple(parse_asset(asset) for asset in value["assets"]),
            is_prerelease=bool(value["prerelease"]),
            is_immutable=bool(value.get("immutable")),  # older Enterprise servers do not say it
            upload_url=str(value["upload_url"]).partition("{")[0],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise BackendError("GitHub answered a release of an unknown form") from error


def parse_asset(value: Any) -> Asset:
    """An asset from GitHub's JSON; raises `BackendError` when it is none."""
    try:
        digest = value.get("digest") or ""
        return Asset(
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
        raise BackendError("GitHub answered an asset of an unknown form") from error


def parse_time(text: str) -> datetime:
    """A time as GitHub writes it (RFC 3339), in UTC."""
    return datetime.fromisoformat(text).astimezone(UTC)


def is_filename(tag: str) -> bool:
    """Whether a tag is the name of a distribution file."""
    return tag.endswith(_SUFFIXES)


# A published file.


def stored_file(release: Release) -> StoredFile | None:
    """The file in a release; None for a draft, and for a release of anything else."""
    if release.is_draft or not is_filename(release.tag):
        return None
    notes = _read_notes(release.notes)
    asset = _file_asset(release, notes)
    if asset is None:
        return None
    is_bound = notes.describes(asset)
    sha256 = asset.sha256
    metadata = None
    if is_bound:
        sha256 = sha256 or notes.record.get("sha256")
        metadata = _metadata_asset(release, notes)
    # 0.2 did not bind its records; where GitHub has a digest, it tells whether they are right.
    is_of_these = is_bound or (
        notes.file is None and asset.sha256 in (None, notes.record.get("sha256"))
    )
    return StoredFile(
        filename=release.tag,
        size=asset.size,
        location=format_location(asset, sha256, metadata),
        stamp=f"{asset.id}:{asset.size}",
        record=notes.record if is_of_these and notes.record else None,
        yanked=notes.yanked,
    )


def format_location(asset: Asset, sha256: str | None, metadata: Asset | None) -> str:
    """The address of an asset, with what else `parse_location` shall find."""
    parts = [f"sha256={sha256}"] if sha256 else []
    parts += [f"metadata={metadata.id}"] if metadata else []
    return asset.url + ("#" + "&".join(parts) if parts else "")


def parse_location(text: str) -> Location | None:
    """What a location says; None for the location of something else.

    Only ids are taken from it: it may come from a document that anybody wrote.
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
    return Location(
        asset=int(found[1]),
        sha256=facts.get("sha256"),
        metadata=int(metadata) if re.fullmatch("[0-9]{1,18}", metadata) else None,
    )


def _file_asset(release: Release, notes: _Notes) -> Asset | None:
    by_id = {asset.id: asset for asset in release.assets if asset.is_complete}
    if notes.file in by_id:
        return by_id[notes.file]
    return _named(release, release.tag)


def _metadata_asset(release: Release, notes: _Notes) -> Asset | None:
    if notes.metadata is None:
        return None
    by_id = {asset.id: asset for asset in release.assets if asset.is_complete}
    return by_id.get(notes.metadata) or _named(release, f"{release.tag}.metadata")


def _named(release: Release, name: str) -> Asset | None:
    names = {asset.name: asset for asset in release.assets if asset.is_complete}
    return names.get(name) or names.get(asset_name(name))


def asset_name(name: str) -> str:
    """What GitHub makes of the name of a distribution file.

    "GitHub renames asset filenames that have special characters" (REST documentation).
    """
    return re.sub(r"[^A-Za-z0-9._+@-]+", ".", name)


# Notes.


@dataclass(frozen=True, slots=True)
class _Notes:
    record: Record
    file: int | None  # the ids of the assets; None: private-pypi 0.2 did not say
    metadata: int | None
    yanked: str | None  # the reason

    def describes(self, asset: Asset) -> bool:
        """Whether the record was made for the bytes of this asset.

        In a repository that was copied the ids are others, and only the digest can tell.
        """
        if self.file is None:
            return False
        return self.file == asset.id or (
            asset.sha256 is not None and asset.sha256 == self.record.get("sha256")
        )


def fit_record(record: Record) -> Record:
    """The record without the longest values that notes cannot hold.

    Raises `InvalidUpload` when not even the facts fit.
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


def format_notes(record: Record, file: Asset, metadata: Asset | None) -> str:
    """The notes of a published file."""
    comment = f"{_OURS}file {file.id}"
    if metadata is not None:
        comment += f", core metadata {metadata.id}"
    return f"{comment}\n" + "".join(_line(key, value) for key, value in record.items())


def yanked_notes(notes: str, reason: str | None) -> str:
    """The notes with the comment of a yank (`reason=None`: without); all else stays as it is."""
    comments, rest = _split(notes)
    kept = [line for line in comments if not _YANKED.fullmatch(_comment(line))]
    if reason is not None and kept and not kept[-1].endswith("\n"):
        kept.append("\n")
    if reason is not None:
        kept.append(f"{_OURS}yanked {_toml_string(reason)}\n")
    return "".join(kept) + rest


def format_draft_notes(until: datetime) -> str:
    """The notes of a draft of ours: they say from when on nobody can be at work on it."""
    return f"{_OURS}draft until {until.astimezone(UTC).isoformat()}\n"


def draft_until(release: Release) -> datetime | None:
    """Until when one of us may work on this draft; None when it is none, or somebody else's."""
    comments, _ = _split(release.notes)
    match = _DRAFT.match(_comment(comments[0])) if comments and release.is_draft else None
    if match is None:
        return None
    try:
        return parse_time(match["time"])
    except ValueError:
        return None


def _split(notes: str) -> tuple[list[str], str]:
    """Our comments at the start of the notes, line by line, and the rest."""
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
                return said  # people write it without quotes
            return value if isinstance(value, str) else said
    return None


def _read_notes(text: str) -> _Notes:
    """Whatever is wrong with notes, the file itself says the same: the core opens it then."""
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
    """Characters of notes, in the units of whoever counts the most of them."""
    return len(text.encode("utf-16-le")) // 2


def _toml_string(text: str) -> str:
    """A basic string (TOML 1.0): quotes, backslashes and all control characters are escaped."""
    whole = text.encode("utf-8", "replace").decode()
    return '"' + re.sub(r'["\\\x00-\x1f\x7f-\x9f\u2028\u2029]', _escape, whole) + '"'


def _escape(match: re.Match[str]) -> str:
    return f"\\u{ord(match[0]):04x}"


# Listings.


def newest_first(releases: Sequence[Release]) -> bool:
    """Whether releases are sorted by their commit and then by their publication."""
    moments = [(release.created_at, release.published_at) for release in releases]
    known = [(created, published) for created, published in moments if published is not None]
    return known == sorted(known, reverse=True)
