"""Uploads, deletions and yanks if each project has its own repository.

An upload becomes an asset of the release of its version.

- If there is such a release, the asset is sent under a temporary name, checked, and then renamed.
  If two writers do this for the same file, GitHub decides, because names in a release are unique.
- Otherwise the release is created as a draft, which GitHub does not show to readers, and published
  after its file has been sent. If two writers do this, GitHub decides, because a tag can have only
  one published release. The other writer then adds its file to that release.

What a writer leaves when it is killed is not shown and not in the way. The next upload to the same
repository removes it when it is a day old.

A deletion first burns the name (see `project_layout`), and then removes the file. If the server is
killed in between, the file is not shown any more, and the next upload to the repository removes it.
"""

from __future__ import annotations

import contextlib
import re
import secrets
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import BinaryIO

from packaging.version import Version

from private_pypi.errors import (
    AccessError,
    BackendError,
    BackendUnavailable,
    FilenameBurnt,
    FileNotFound,
    InvalidUpload,
    NotAllowed,
    PrivatePypiError,
)
from private_pypi.model import DistributionFile, FileHandle, StoredFile, Upload
from private_pypi_github.answers import message_of
from private_pypi_github.client import Client
from private_pypi_github.drafts import (
    create_draft,
    discard_draft,
    facts_of,
    require_same,
    send_asset,
)
from private_pypi_github.project_layout import (
    DELETED,
    ProjectFile,
    burnt_names,
    distribution_files,
    file_key,
    files_of,
    marks,
    metadata_of,
    parse_filename,
    tag_before,
    tag_version,
    true_filename,
    yanked_label,
)
from private_pypi_github.releases import (
    GitHubAsset,
    GitHubRelease,
    asset_name,
    draft_until,
    is_filename,
    parse_asset,
    parse_release,
)
from private_pypi_github.shared import require_same_file, tags_in

ListReleases = Callable[[str], tuple[str, list[GitHubRelease], datetime]]
"""From a project to the name of its repository, all releases, and the time of GitHub's clock."""

_TRIES = 5  # of an upload, if other writers are faster each time
_LIVES = timedelta(days=1)  # an upload that is not finished after this time was abandoned
_PART = re.compile(r"private_pypi-[0-9a-f]{32}\.part")


class Publisher:
    """Changes releases in the repositories of one owner, with one token."""

    def __init__(
        self, client: Client, list_releases: ListReleases, is_shown: Callable[[str, bool], bool]
    ) -> None:
        """`is_shown(filename, is_prerelease)` tells whether the configuration hides such a file."""
        self._client = client
        self._list = list_releases
        self._is_shown = is_shown

    def put_file(self, upload: Upload) -> StoredFile:
        """As `SupportsPublish.put_file` promises."""
        filename, project = upload.file.filename, upload.file.project
        if not is_filename(filename):
            raise InvalidUpload(f"this storage cannot keep files with a name like {filename!r}")
        refusal = "other writers keep changing the releases of this project"
        for _ in range(_TRIES):
            repository, releases, now = self._list(project)
            self._sweep(repository, releases, project, now)
            if file_key(filename) in burnt_names(releases):
                raise FilenameBurnt(filename)
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

    def _check(self, upload: Upload, release: GitHubRelease | None) -> None:
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

    # Adding to an existing release.

    def _add(self, repository: str, release: GitHubRelease, upload: Upload) -> ProjectFile | None:
        """Send the file as a new asset; None if somebody was faster, or the release is gone."""
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
            # The file is published already, and the core can read its metadata from it.
            with contextlib.suppress(BackendError, AccessError):
                self._put_metadata(repository, release, upload)
        return found

    def _put_metadata(self, repository: str, release: GitHubRelease, upload: Upload) -> None:
        """Send the core metadata. Only the writer that published the file does this."""
        content = upload.core_metadata or b""
        for left in metadata_of(release, upload.file.filename):  # of a file that was deleted
            self._discard(repository, left)
        name = f"{upload.file.filename}.metadata"
        self._put_asset(repository, release, name, content, facts_of(content))

    def _put_asset(
        self,
        repository: str,
        release: GitHubRelease,
        name: str,
        content: BinaryIO | bytes,
        facts: tuple[int, str],
    ) -> GitHubAsset | None:
        """Send an asset under a temporary name and rename it; None if the name is taken."""
        part = f"private_pypi-{secrets.token_hex(16)}.part"
        sent = self._send(repository, release, part, content)
        if sent is None:
            return None
        try:
            require_same(sent, name, facts)
        except BaseException:
            self._discard(repository, sent)
            raise
        # If GitHub's answer is lost, the asset may have been renamed, so it is not removed then.
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
        self._require_name(repository, renamed, name)
        return renamed

    def _send(
        self,
        repository: str,
        release: GitHubRelease,
        name: str,
        content: BinaryIO | bytes,
        label: str = "",
    ) -> GitHubAsset | None:
        """Send an asset; None if the release is gone. As `send_asset`, raises if it is cut."""
        try:
            return send_asset(self._client, release, name, content, label=label)
        except FileNotFound:
            path = f"/repos/{repository}/releases/{release.id}"
            self._require_gone(path, f"publish in {repository!r}")
            return None

    # Creating a release.

    def _create(
        self, repository: str, releases: list[GitHubRelease], upload: Upload, now: datetime
    ) -> tuple[ProjectFile | None, str]:
        """A new release with the file; if somebody was faster, None and what GitHub said."""
        tag = self._tag(repository, releases, upload.file)
        is_prerelease = Version(upload.file.version).is_prerelease
        draft = create_draft(self._client, repository, tag, now + _LIVES, prerelease=is_prerelease)
        try:
            filename = upload.file.filename
            with upload.content.open("rb") as content:
                sent = self._send(repository, draft, filename, content, _label(filename))
            if sent is None:
                raise BackendUnavailable(f"the draft of {tag!r} vanished")
            self._require_name(repository, sent, filename)
            require_same(sent, filename, (upload.file.size, upload.file.sha256))
            if upload.core_metadata:
                name = f"{filename}.metadata"
                said = upload.core_metadata
                metadata = self._send(repository, draft, name, said, _label(name))
                if metadata is not None:
                    require_same(metadata, name, facts_of(said))
        except BaseException:
            discard_draft(self._client, repository, draft.id)
            raise
        return self._publish(repository, draft, sent, upload)

    def _publish(
        self, repository: str, draft: GitHubRelease, sent: GitHubAsset, upload: Upload
    ) -> tuple[ProjectFile | None, str]:
        """Publish the draft. If GitHub's answer is lost, it may have been published, and stays."""
        value = {"tag_name": draft.tag, "body": "", "draft": False, "make_latest": "legacy"}
        try:
            answer = self._client.send(
                "PATCH",
                f"/repos/{repository}/releases/{draft.id}",
                value,
                expected=(200, 404, 422),
            )
        except NotAllowed:
            discard_draft(self._client, repository, draft.id)
            raise
        if answer.status == 200:
            return _found(parse_release(answer.json()), sent, upload.file), ""
        if answer.status == 404:
            raise BackendUnavailable(f"the draft of {draft.tag!r} vanished")
        discard_draft(self._client, repository, draft.id)
        return None, f"GitHub refuses the release {draft.tag!r}: {message_of(answer)}"

    def _tag(self, repository: str, releases: list[GitHubRelease], file: DistributionFile) -> str:
        """The tag of a new release.

        If a tag without a release names the version, it is used: publishing workflows are often
        started by pushing a tag. Otherwise the new tag looks like those of the other releases.
        """
        path = f"/repos/{repository}/git/matching-refs/tags/"
        tags = tags_in(self._client.get(path, expected=(200, 409)))
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

    # The same file again.

    def _put_again(self, repository: str, found: ProjectFile, upload: Upload) -> StoredFile:
        asset = found.asset
        path, published = _path(repository, asset), (asset.size, asset.sha256)
        require_same_file(self._client, path, asset.id, published, upload.file)
        return found.stored

    # Removing and yanking.

    def delete_file(self, file: FileHandle) -> None:
        """As `SupportsDelete` promises. The release stays, and gets the mark of the burnt name."""
        repository, releases, _ = self._list(file.project)
        found = [
            each
            for release in releases
            for each in files_of(release, file.project)
            if not release.is_draft and each.filename == file.filename
        ]
        for each in found:
            if each.release.is_immutable:
                raise NotAllowed(
                    f"the release {each.release.tag!r} is immutable, so no file can be removed "
                    "from it; delete the release on GitHub"
                )
        if found and file_key(file.filename) not in burnt_names(releases):
            self._burn(repository, found[0], file.project)
        for each in found:
            self._remove(repository, each)

    def _burn(self, repository: str, found: ProjectFile, project: str) -> None:
        """Write the mark that keeps the name of a file from being used again, on every server."""
        release, name = found.release, f"{found.filename}{DELETED}"
        for asset in release.assets:  # the rest of a mark whose writer was interrupted
            if not asset.is_complete and name == true_filename(asset.name, asset.label):
                self._delete(repository, asset)
        said = (
            f"{found.filename} was deleted, and its name is not used again.\n"
            "To let it be used again, delete this file from the release.\n"
        )
        try:
            try:
                sent = self._send(repository, release, name, said.encode(), _label(name))
            except NotAllowed:
                # GitHub answers the same if another server took this mark for an abandoned one,
                # and removed it while it was sent.
                sent = self._send(repository, release, name, said.encode(), _label(name))
        except BackendUnavailable:
            raise
        except BackendError as error:  # perhaps another server burns the same name
            releases = self._list(project)[1]
            if file_key(found.filename) in burnt_names(releases):
                return
            assets = (asset for each in releases for asset in each.assets)
            # A third server may have removed the mark of the other one as abandoned.
            if "already_exists" in str(error) or any(
                name == true_filename(asset.name, asset.label) for asset in assets
            ):
                raise BackendUnavailable(
                    f"{found.filename!r} is being deleted by another server", retry_after=1
                ) from error
            raise
        if sent is None:
            raise BackendUnavailable(f"the release {release.tag!r} vanished while it was changed")
        self._require_name(repository, sent, name)

    def restore_name(self, project: str, filename: str) -> list[str]:
        """As `SupportsRestore` promises."""
        repository, releases, _ = self._list(project)
        restored = []
        for key, deleted, asset in marks(releases):
            if key == file_key(filename):
                self._delete(repository, asset)
                restored.append(deleted)
        return restored

    def _remove(self, repository: str, found: ProjectFile) -> None:
        for asset in [found.asset, *metadata_of(found.release, found.filename)]:
            self._delete(repository, asset)

    def yank_file(self, file: FileHandle, reason: str | None) -> None:
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

    def _relabel(self, repository: str, asset: GitHubAsset, label: str) -> None:
        path = _path(repository, asset)
        answer = self._client.send("PATCH", path, {"label": label}, expected=(200, 404, 422))
        if answer.status == 422:
            raise NotAllowed(f"GitHub refuses to label {asset.name!r}: {message_of(answer)}")
        if answer.status == 404:
            self._require_gone(path, f"label {asset.name!r}")
            raise FileNotFound(asset.name)

    def _require_gone(self, path: str, what: str) -> None:
        """Raise `NotAllowed` if `path` exists, since GitHub also answers 404 to a token that may
        only read.
        """
        if self._client.get(path, expected=(200, 404)).status == 200:
            raise NotAllowed(f"GitHub does not allow this token to {what}")

    def _delete(self, repository: str, asset: GitHubAsset) -> None:
        path = _path(repository, asset)
        answer = self._client.send("DELETE", path, expected=(204, 404, 422))
        if answer.status == 422:
            raise NotAllowed(f"GitHub refuses to delete {asset.name!r}: {message_of(answer)}")
        if answer.status == 404:
            self._require_gone(path, f"delete {asset.name!r}")
        self._client.forget_address(asset.id)

    def _require_name(self, repository: str, asset: GitHubAsset, name: str) -> None:
        """Discard an asset and raise if GitHub has changed its name in an unknown way."""
        if true_filename(asset.name, asset.label) != name:
            self._discard(repository, asset)
            raise BackendError(
                f"GitHub has renamed {name!r} to {asset.name!r}, under which it would not be found"
            )

    def _discard(self, repository: str, asset: GitHubAsset) -> None:
        """Remove an asset that is not published. If that fails, a later upload does it."""
        with contextlib.suppress(PrivatePypiError):
            self._client.send("DELETE", _path(repository, asset), expected=(204, 404, 422))

    def _sweep(
        self, repository: str, releases: list[GitHubRelease], project: str, now: datetime
    ) -> None:
        """Remove what killed writers left, if nobody can be at work on it any more."""
        burnt = burnt_names(releases)
        for release in releases:
            for found in files_of(release, project) if not release.is_draft else ():
                mark = burnt.get(file_key(found.filename))
                # A file that is younger than the mark was put there by hand, and stays.
                if mark is not None and found.asset.id < mark.id:
                    with contextlib.suppress(PrivatePypiError):
                        self._remove(repository, found)
            until = draft_until(release)
            if until is not None and until < now:
                discard_draft(self._client, repository, release.id)
            for asset in release.assets:
                is_left = _PART.fullmatch(asset.name) is not None or (
                    not asset.is_complete and asset.name.endswith(DELETED)
                )
                if is_left and now - asset.created_at > _LIVES:
                    self._discard(repository, asset)


def _release_of(releases: list[GitHubRelease], file: DistributionFile) -> GitHubRelease | None:
    """The newest published release of the file's version.

    Releases whose tags have the name of the project are preferred.
    """
    version = Version(file.version)
    public = [release for release in releases if not release.is_draft]
    fitting = [r for r in public if tag_version(r.tag, file.project) == version]
    named = [r for r in fitting if tag_before(r.tag, file.project, ()) not in ("", "v", "V")]
    return next(iter([*named, *fitting]), None)


def _projects_in(release: GitHubRelease) -> set[str]:
    parsed = (parse_filename(true_filename(a.name, a.label)) for a in release.assets)
    return {str(each[0]) for each in parsed if each is not None}


def _found(release: GitHubRelease, asset: GitHubAsset, file: DistributionFile) -> ProjectFile:
    return ProjectFile(release, asset, file.filename, Version(file.version))


def _label(name: str) -> str:
    """The label of a new asset: its filename if GitHub will change that, otherwise nothing."""
    return "" if asset_name(name) == name else name


def _path(repository: str, asset: GitHubAsset) -> str:
    return f"/repos/{repository}/releases/assets/{asset.id}"
