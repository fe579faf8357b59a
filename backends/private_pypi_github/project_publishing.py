"""How an upload becomes an asset of the release of its version; what is shown is not its affair.

A release that is there gets a further asset: its bytes are sent under a name that is no
distribution file's, checked, and then renamed, which GitHub decides between two writers, because
the names in a release are unique. A release that is missing is made as a draft, which readers are
not shown, and published with its file; GitHub decides between two writers, because a tag has one
published release, and the loser adds its file to the winner's.

What a killed writer leaves is invisible, hinders nobody and bears its age: the next upload to the
same repository removes it after a day.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import secrets
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import BinaryIO
from urllib.parse import quote, urlencode

from packaging.version import Version

from private_pypi.errors import (
    BackendError,
    BackendUnavailable,
    FileAlreadyExists,
    FileNotFound,
    InvalidUpload,
    NotAllowed,
    PrivatePypiError,
)
from private_pypi.model import DistributionFile, StoredFile, Upload
from private_pypi_github.client import Client, message_of
from private_pypi_github.project_layout import (
    Found,
    distribution_files,
    files_of,
    metadata_of,
    parse_filename,
    tag_before,
    tag_version,
    true_filename,
    yanked_label,
)
from private_pypi_github.releases import (
    Asset,
    Release,
    asset_name,
    draft_until,
    format_draft_notes,
    is_filename,
    parse_asset,
    parse_release,
)
from private_pypi_github.shared import hash_content

ListReleases = Callable[[str], tuple[str, list[Release], datetime]]
"""All releases of a project with the name of its repository and GitHub's time."""

_TRIES = 5  # for a writer whom others overtake
_LIVES = timedelta(days=1)  # of what a killed writer left
_PART = re.compile(r"private_pypi-[0-9a-f]{32}\.part")


class Publisher:
    """Changes the releases of one owner's repositories, with one token."""

    def __init__(
        self, client: Client, list_releases: ListReleases, is_shown: Callable[[str, bool], bool]
    ) -> None:
        """`is_shown(filename, is_prerelease)`: whether readers may see such a file."""
        self._client = client
        self._list = list_releases
        self._is_shown = is_shown

    def put_file(self, upload: Upload) -> StoredFile:
        """As `Backend.put_file` promises."""
        filename, project = upload.file.filename, upload.file.project
        if not is_filename(filename):
            raise InvalidUpload(f"{filename!r} is no name that this storage can keep")
        refusal = "others change the releases of the same project all the time"
        for _ in range(_TRIES):
            repository, releases, now = self._list(project)
            self._sweep(repository, releases, now)
            same = [f for f in distribution_files(releases, project) if f.filename == filename]
            if same:
                return self._put_again(repository, min(same, key=lambda f: f.age), upload)
            release = _release_of(releases, upload.file)
            self._check(upload, release)
            if release is not None:
                found = self._add(repository, release, upload)
            else:
                found, refusal = self._create(repository, releases, upload, now)
            if found is not None:
                return found.stored
        raise BackendUnavailable(f"{filename!r} cannot be published now: {refusal}")

    def _check(self, upload: Upload, release: Release | None) -> None:
        filename = upload.file.filename
        if upload.file.size == 0:
            raise InvalidUpload(f"{filename!r} is empty; GitHub stores no empty files")
        is_prerelease = (
            Version(upload.file.version).is_prerelease if release is None else release.is_prerelease
        )
        if not self._is_shown(filename, False):
            raise InvalidUpload(
                f"the configuration of this repository (include, exclude) hides {filename!r}"
            )
        if not self._is_shown(filename, is_prerelease):
            raise InvalidUpload(
                f"{filename!r} belongs to a pre-release, and the configuration of this repository "
                "(prereleases) hides those"
            )
        if release is not None and release.is_immutable:
            raise NotAllowed(
                f"the release {release.tag!r} is immutable, so GitHub takes no further file: "
                "publish a new version, or switch immutable releases off in the settings of the "
                "repository before the first file of a version is uploaded"
            )

    # A release that is there.

    def _add(self, repository: str, release: Release, upload: Upload) -> Found | None:
        """The file as a new asset; None when somebody was faster, or the release vanished."""
        with upload.content.open("rb") as content:
            asset = self._put_asset(
                repository,
                release,
                upload.file.filename,
                content,
                (upload.file.size, upload.file.sha256),
            )
        if asset is None:
            return None
        found = _found(release, asset, upload.file)
        if upload.core_metadata:
            # The file is published, and says the same itself.
            with contextlib.suppress(BackendError, NotAllowed):
                self._put_metadata(repository, release, upload)
        return found

    def _put_metadata(self, repository: str, release: Release, upload: Upload) -> None:
        """Only by whoever has just published the file, so nobody else does it."""
        content = upload.core_metadata or b""
        for left in metadata_of(release, upload.file.filename):  # of a file that is no more
            self._discard(repository, left)
        name = f"{upload.file.filename}.metadata"
        self._put_asset(repository, release, name, content, _facts_of(content))

    def _put_asset(
        self,
        repository: str,
        release: Release,
        name: str,
        content: BinaryIO | bytes,
        facts: tuple[int, str],
    ) -> Asset | None:
        """A new asset that is whole as soon as it has its name; None when the name is taken."""
        part = f"private_pypi-{secrets.token_hex(16)}.part"
        sent = self._send(repository, release, part, content, "")
        if sent is None:
            return None
        try:
            _require_same(sent, name, facts)
        except BaseException:
            self._discard(repository, sent)
            raise
        # From here on nobody knows before GitHub answers: it may bear its name already, so it is
        # not discarded after a lost answer.
        value = {"name": name, "label": _label(name)}
        try:
            answer = self._client.send(
                "PATCH", _path(repository, sent), value, expected=(200, 404, 422)
            )
        except NotAllowed:
            self._discard(repository, sent)
            raise
        if answer.status != 200:
            self._discard(repository, sent)
            return None
        renamed = parse_asset(answer.json())
        try:
            _require_name(renamed, name)
        except BackendError:
            self._discard(repository, renamed)
            raise
        return renamed

    def _send(
        self, repository: str, release: Release, name: str, content: BinaryIO | bytes, label: str
    ) -> Asset | None:
        """Send an asset; None when the release vanished. It raises for an asset that is not whole.

        GitHub keeps what it has of one that was cut, and calls it "starter".
        """
        query = {"name": name, "label": label} if label else {"name": name}
        url = f"{release.upload_url}?{urlencode(query, quote_via=quote)}"
        answer = self._client.upload(url, content, expected=(201, 404, 422))
        if answer.status == 404:
            path = f"/repos/{repository}/releases/{release.id}"
            self._require_gone(path, f"publish in {repository!r}")
            return None
        if answer.status == 422:
            raise BackendError(
                f"GitHub refuses an asset in the release {release.tag!r}: {message_of(answer)}"
            )
        asset = parse_asset(answer.json())
        if not asset.is_complete:
            raise BackendUnavailable(f"GitHub did not take all of {name!r}")
        return asset

    # A release that is missing.

    def _create(
        self, repository: str, releases: list[Release], upload: Upload, now: datetime
    ) -> tuple[Found | None, str]:
        """A release with the file; none when somebody was faster, and what GitHub said then."""
        tag = self._tag(repository, releases, upload.file)
        draft = self._draft(repository, tag, upload.file, now)
        try:
            filename = upload.file.filename
            with upload.content.open("rb") as content:
                sent = self._send(repository, draft, filename, content, _label(filename))
            if sent is None:
                raise BackendUnavailable(f"the draft of {tag!r} vanished")
            _require_name(sent, filename)
            _require_same(sent, filename, (upload.file.size, upload.file.sha256))
            if upload.core_metadata:
                name = f"{filename}.metadata"
                said = upload.core_metadata
                metadata = self._send(repository, draft, name, said, _label(name))
                if metadata is not None:
                    _require_same(metadata, name, _facts_of(said))
        except BaseException:
            self._discard_draft(repository, draft)
            raise
        return self._publish(repository, draft, sent, upload)

    def _publish(
        self, repository: str, draft: Release, sent: Asset, upload: Upload
    ) -> tuple[Found | None, str]:
        """Show the draft; from here on nobody knows before GitHub answers."""
        value = {"tag_name": draft.tag, "body": "", "draft": False, "make_latest": "legacy"}
        try:
            answer = self._client.send(
                "PATCH",
                f"/repos/{repository}/releases/{draft.id}",
                value,
                expected=(200, 404, 422),
            )
        except NotAllowed:
            self._discard_draft(repository, draft)
            raise
        if answer.status == 200:
            return _found(parse_release(answer.json()), sent, upload.file), ""
        if answer.status == 404:
            raise BackendUnavailable(f"the draft of {draft.tag!r} vanished")
        self._discard_draft(repository, draft)
        return None, f"GitHub refuses the release {draft.tag!r}: {message_of(answer)}"

    def _draft(self, repository: str, tag: str, file: DistributionFile, now: datetime) -> Release:
        value = {
            "tag_name": tag,
            "name": tag,
            "body": format_draft_notes(now + _LIVES),
            "draft": True,
            "prerelease": Version(file.version).is_prerelease,
        }
        answer = self._client.send(
            "POST", f"/repos/{repository}/releases", value, expected=(201, 404, 422)
        )
        if answer.status == 404:
            # What GitHub answers to a token that may read, when its scope is too narrow.
            raise NotAllowed(f"GitHub does not allow this token to publish in {repository!r}")
        if answer.status == 422:
            raise BackendError(
                f"GitHub refuses a release {tag!r} in {repository!r}: {message_of(answer)}"
            )
        return parse_release(answer.json())

    def _tag(self, repository: str, releases: list[Release], file: DistributionFile) -> str:
        """The tag of a new release: one that means the version already, else one like the others.

        Workflows that publish are often started by the push of a tag.
        """
        path = f"/repos/{repository}/git/matching-refs/tags/"
        answer = self._client.get(path, expected=(200, 409))
        tags = []
        if answer.status == 200:  # else "Git Repository is empty."
            tags = [str(ref.get("ref")).removeprefix("refs/tags/") for ref in answer.objects()]
        taken = {release.tag for release in releases if not release.is_draft}
        version = Version(file.version)
        for tag in tags:
            if tag not in taken and tag_version(tag, file.project) == version:
                return tag
        for release in releases:
            if not release.is_draft:
                others = _projects_in(release)
                before = tag_before(release.tag, file.project, others)
                if before is not None:
                    return f"{before}{file.version}"
        return f"v{file.version}"

    # What is there already.

    def _put_again(self, repository: str, found: Found, upload: Upload) -> StoredFile:
        sha256 = found.asset.sha256
        if found.asset.size == upload.file.size and sha256 is None:
            sha256 = hash_content(self._client, _path(repository, found.asset), found.asset.id)
        if (found.asset.size, sha256) != (upload.file.size, upload.file.sha256):
            raise FileAlreadyExists(upload.file.filename)
        return found.stored

    # Removing and yanking.

    def delete_file(self, file: DistributionFile) -> None:
        """As `SupportsDelete` promises; releases stay, also those without any asset."""
        repository, releases, _ = self._list(file.project)
        for release in releases:
            found = [f for f in files_of(release, file.project) if f.filename == file.filename]
            if not found or release.is_draft:
                continue
            if release.is_immutable:
                raise NotAllowed(
                    f"the release {release.tag!r} is immutable, so GitHub lets nobody remove a "
                    "file from it; delete the release on GitHub"
                )
            for asset in [*(f.asset for f in found), *metadata_of(release, file.filename)]:
                self._delete(repository, asset)

    def yank_file(self, file: DistributionFile, reason: str | None) -> None:
        """As `SupportsYank` promises."""
        repository, releases, _ = self._list(file.project)
        listed = distribution_files(releases, file.project)
        same = [found.asset for found in listed if found.filename == file.filename]
        if not same:
            raise FileNotFound(file.filename)
        for asset in same:
            label = yanked_label(asset.name, asset.label, reason)
            if label != asset.label:
                self._relabel(repository, asset, label)

    def _relabel(self, repository: str, asset: Asset, label: str) -> None:
        path = _path(repository, asset)
        answer = self._client.send("PATCH", path, {"label": label}, expected=(200, 404, 422))
        if answer.status == 422:
            raise NotAllowed(f"GitHub refuses to label {asset.name!r}: {message_of(answer)}")
        if answer.status == 404:
            self._require_gone(path, f"label {asset.name!r}")
            raise FileNotFound(asset.name)

    def _require_gone(self, path: str, what: str) -> None:
        """Raise unless there is nothing any more; GitHub answers 404, too, where one may read."""
        if self._client.get(path, expected=(200, 404)).status == 200:
            raise NotAllowed(f"GitHub does not allow this token to {what}")

    def _delete(self, repository: str, asset: Asset) -> None:
        path = _path(repository, asset)
        answer = self._client.send("DELETE", path, expected=(204, 404, 422))
        if answer.status == 422:
            raise NotAllowed(f"GitHub does not let {asset.name!r} be deleted: {message_of(answer)}")
        if answer.status == 404:
            self._require_gone(path, f"delete {asset.name!r}")
        self._client.forget_address(asset.id)

    def _discard(self, repository: str, asset: Asset) -> None:
        """Remove an asset that is not published; what stays is removed by a later upload."""
        with contextlib.suppress(PrivatePypiError):
            self._client.send("DELETE", _path(repository, asset), expected=(204, 404, 422))

    def _discard_draft(self, repository: str, draft: Release) -> None:
        with contextlib.suppress(PrivatePypiError):
            path = f"/repos/{repository}/releases/{draft.id}"
            self._client.send("DELETE", path, expected=(204, 404))

    def _sweep(self, repository: str, releases: list[Release], now: datetime) -> None:
        """Remove what killed writers left, once nobody can be at work on it."""
        for release in releases:
            until = draft_until(release)
            if until is not None and until < now:
                self._discard_draft(repository, release)
            for asset in release.assets:
                if _PART.fullmatch(asset.name) and now - asset.created_at > _LIVES:
                    self._discard(repository, asset)


def _release_of(releases: list[Release], file: DistributionFile) -> Release | None:
    """The newest published release of the file's version.

    Where releases bear the name of the project, those are meant rather than others of the version.
    """
    version = Version(file.version)
    public = [release for release in releases if not release.is_draft]
    fitting = [r for r in public if tag_version(r.tag, file.project) == version]
    named = [r for r in fitting if tag_before(r.tag, file.project, ()) not in ("", "v", "V")]
    return next(iter([*named, *fitting]), None)


def _projects_in(release: Release) -> set[str]:
    parsed = (parse_filename(true_filename(a.name, a.label)) for a in release.assets)
    return {str(each[0]) for each in parsed if each is not None}


def _found(release: Release, asset: Asset, file: DistributionFile) -> Found:
    return Found(release, asset, file.filename, Version(file.version))


def _require_name(asset: Asset, name: str) -> None:
    """Raise where GitHub has named an asset in a way that we do not know: nobody would find it."""
    if true_filename(asset.name, asset.label) != name:
        raise BackendError(f"GitHub calls {name!r} {asset.name!r}, by which nobody would find it")


def _label(name: str) -> str:
    """What keeps the true name of an asset that GitHub will rename; nothing where it will not."""
    return "" if asset_name(name) == name else name


def _facts_of(content: bytes) -> tuple[int, str]:
    return len(content), hashlib.sha256(content).hexdigest()


def _require_same(asset: Asset, name: str, facts: tuple[int, str]) -> None:
    size, sha256 = facts
    if (asset.size, asset.sha256 or sha256) != (size, sha256):
        raise BackendUnavailable(f"GitHub received other bytes of {name!r} than were sent")


def _path(repository: str, asset: Asset) -> str:
    return f"/repos/{repository}/releases/assets/{asset.id}"
