"""Distribution files in the releases of one GitHub repository; no archive is looked into.

`releases` describes how a file is stored in its release, and `index_document` how the index
document is stored on a branch.

A file is published by the last of four requests. Until then its release is a draft, which GitHub
does not show to readers. If two writers publish the same file, GitHub decides, because a tag can
have only one published release.

A writer that is killed leaves a draft. It is removed as soon as its writer cannot be at work any
more: by the next upload to the same ROOT, because the lock file of the draft is free; or after a
listing (`sweep`), if the name has been published, or if the time is over that the draft names.
GitHub shows drafts only to tokens that may push, so with other tokens none are removed.

A yank is a comment in the notes of the release, which can be edited even if it is immutable.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from urllib.parse import quote

from private_pypi.backend import (
    Access,
    Address,
    Backend,
    Folders,
    PublicAddress,
    RemoteSettings,
    Secret,
    Storage,
    Traits,
    Usage,
)
from private_pypi.errors import (
    BackendError,
    BackendUnavailable,
    FileNotFound,
    InvalidUpload,
    NotAllowed,
)
from private_pypi.model import (
    DistributionFile,
    Download,
    FileHandle,
    Record,
    StoredFile,
    StoredName,
    Upload,
)
from private_pypi_github.answers import message_of
from private_pypi_github.client import Client, has_form_of_token, is_token
from private_pypi_github.connection import Connection
from private_pypi_github.drafts import Drafts, create_draft, facts_of, require_same, send_asset
from private_pypi_github.index_document import GitHubIndex
from private_pypi_github.listing import Listing
from private_pypi_github.package_repository import PackageRepository, commit_of
from private_pypi_github.pages import public_addresses, visibility
from private_pypi_github.releases import (
    MAX_NOTES,
    AssetLocation,
    GitHubRelease,
    fit_record,
    format_notes,
    is_filename,
    length_of,
    parse_location,
    parse_release,
    stored_file,
    yanked_notes,
)
from private_pypi_github.shared import (
    check_api_url,
    check_owner,
    open_content,
    repository_access,
    require_same_file,
    understand_repository,
)

_SLOWEST = 64 * 1024  # bytes a second; an upload to GitHub that is slower is given up
_SHORTEST = 600.0  # seconds that even the smallest upload may take
_DRAFT_MARGIN = timedelta(minutes=15)  # for the last request of an upload, and slow clocks
_NO_REF = (404, 409)  # 409: "Git Repository is empty."
_REPO = re.compile(r"[A-Za-z0-9._-]{1,100}")


@dataclass(frozen=True, kw_only=True)
class GitHubSettings(RemoteSettings):
    """The table of a `github` repository."""

    names_storage = ("owner", "repo", "api_url")

    owner: str
    repo: str
    branch: str | None = None  # of the index; None: the repository's default branch
    index_filename: str = "index.toml"
    api_url: Address = "https://api.github.com"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_owner("owner", self.owner)
        if not _REPO.fullmatch(self.repo) or self.repo in (".", ".."):
            raise ValueError(
                f"repo: {self.repo!r} is not the name of a repository (without its owner)"
            )
        if self.branch == "":
            raise ValueError("branch: must not be empty; leave it out for the default branch")
        parts = self.index_filename.split("/")
        if not self.index_filename.isprintable() or {"", ".", ".."} & set(parts):
            raise ValueError(
                f"index_filename: {self.index_filename!r} is not a path in the repository"
            )
        check_api_url(self.api_url)


class GitHubStorage(Storage["GitHubBackend"]):
    """A repository on GitHub as it is seen with a token of a user, a workflow or an App."""

    def __init__(self, backend: GitHubBackend, secret: Secret) -> None:
        super().__init__(backend, secret)
        settings = backend.settings
        self.settings, self.folders = settings, backend.folders
        self._client = Client(backend.connection, settings.api_url.rstrip("/"), secret)
        self._repository = PackageRepository(
            self._client, settings.owner, settings.repo, settings.branch
        )
        self._listing = Listing(self._repository)
        self._drafts = Drafts(self._repository, backend.folders)
        self._index = GitHubIndex(self._repository, backend.connection, settings.index_filename)

    def access(self, project: str | None = None) -> Access:
        """Asks for the repository, because tokens without a user cannot ask for themselves.

        If nothing has changed, asking again does not count against the limit of requests.
        """
        if not is_token(self.secret):
            return Access.NONE
        for _ in range(2):  # GitHub sometimes answers 404 when it is in trouble
            answer, _ = self._client.get_kept(
                self._repository.path, understand_repository, expected=(200, 401, 403, 404)
            )
            if answer.status != 404:
                break
        if answer.status != 200:
            return Access.NONE
        return repository_access(self._client, self.secret, answer)

    def usage(self) -> Usage:
        return self._client.usage()

    # Listing.

    def list_files(self) -> Iterator[StoredFile | StoredName]:
        return self._listing.all_files()

    def find_file(self, filename: str) -> StoredFile | None:
        return self._listing.file(filename)

    def recent_files(self, since: datetime) -> Iterator[StoredFile]:
        return self._listing.recent_files(since)

    def sweep(self) -> None:
        self._drafts.sweep(self._listing.take_drafts())

    # Opening.

    def open_file(self, file: FileHandle) -> Download:
        location = _location_of(file)
        download = None if location is None else self._open(location.asset_id, file.size)
        if download is not None:
            return download
        stored = self._find(file)
        location = parse_location(stored.location)
        download = None if location is None else self._open(location.asset_id, stored.size)
        if download is None:
            raise BackendUnavailable(f"the release of {file.filename!r} is being changed")
        return download

    def open_core_metadata(self, file: DistributionFile) -> Download:
        location = _location_of(file) or parse_location(self._find(file).location)
        for _ in range(2):
            if location is None or location.metadata_id is None:
                raise FileNotFound(f"{file.filename}.metadata")
            download = self._open(location.metadata_id, None)
            if download is not None:
                return download
            location = parse_location(self._find(file).location)
        raise BackendUnavailable(f"the release of {file.filename!r} is being changed")

    def public_addresses(self, files: Sequence[DistributionFile]) -> Mapping[str, PublicAddress]:
        return public_addresses(files, visibility(self._client, self._repository.name))

    def _find(self, file: FileHandle) -> StoredFile:
        stored = self.find_file(file.filename)
        if stored is None:
            self._repository.require_visible()
            raise FileNotFound(file.filename)
        return stored

    def _open(self, asset_id: int, size: int | None) -> Download | None:
        """The content of an asset, or its address; None if there is no such asset."""
        redirect = self.settings.download == "redirect"
        path = self._repository.asset_path(asset_id)
        return open_content(self._client, path, asset_id, size, redirect=redirect)

    # Publishing.

    def put_file(self, upload: Upload) -> StoredFile:
        filename = upload.file.filename
        if not is_filename(filename):
            raise InvalidUpload(f"this storage cannot keep files with a name like {filename!r}")
        record = fit_record(upload.record)
        self._drafts.discard_abandoned()
        # Every published release has its tag, so without the tag GitHub need not be asked for it.
        tag = self._client.get(self._repository.tag_path(filename), expected=(200, *_NO_REF))
        if tag.status == 200:
            existing = self._repository.release(filename)
            if existing is not None:
                return self._put_again(existing, upload)
            self._renew_tag(filename, commit_of(tag))
        if upload.file.size == 0:
            raise InvalidUpload(f"{filename!r} is empty; GitHub stores no empty files")
        seconds = _SHORTEST + upload.file.size / _SLOWEST
        deadline = time.monotonic() + seconds
        until = tag.date + timedelta(seconds=seconds) + _DRAFT_MARGIN
        branch = self.settings.branch
        more = {} if branch is None else {"target_commitish": branch}
        draft = create_draft(self._client, self._repository.name, filename, until, **more)
        try:
            with self._drafts.held(draft.id):
                notes = self._fill(draft, upload, record, deadline)
        except FileNotFound:
            return self._after_loss(upload)
        return self._publish(draft.id, upload, notes)

    def _fill(self, draft: GitHubRelease, upload: Upload, record: Record, deadline: float) -> str:
        """Send the assets of a draft, and return the notes to publish it with.

        Raises `FileNotFound` if the draft is gone.
        """
        filename = upload.file.filename
        with upload.content.open("rb") as content:
            file = send_asset(self._client, draft, filename, content, deadline=deadline)
        require_same(file, filename, (upload.file.size, upload.file.sha256))
        metadata = None
        if upload.core_metadata:
            name = f"{filename}.metadata"
            said = upload.core_metadata
            metadata = send_asset(self._client, draft, name, said, deadline=deadline)
            require_same(metadata, name, facts_of(said))
        if time.monotonic() > deadline:  # others may soon remove the draft as abandoned
            raise BackendUnavailable(f"sending {filename!r} to GitHub took too long")
        return format_notes(record, file, metadata)

    def _renew_tag(self, filename: str, commit: str) -> None:
        """Move a tag that has no release, because that was deleted, to the head of the branch.

        A release is listed by the date of its commit. At an old commit, `recent_files` would not
        find the new release. The tag is moved instead of deleted, since somebody may publish its
        release at this moment. If GitHub refuses to move it, the upload goes on: `update_index`
        finds a release at any commit.
        """
        root, branch = self._repository.path, self.settings.branch
        if branch is None:
            repository, _ = self._client.get_kept(root, understand_repository)
            branch = str(repository.member("default_branch"))
        head = self._client.get(f"{root}/git/ref/heads/{quote(branch)}", expected=(200, *_NO_REF))
        if head.status == 200 and commit_of(head) != commit:
            with contextlib.suppress(NotAllowed):
                self._client.send(
                    "PATCH",
                    self._repository.tag_path(filename, ref="refs"),
                    {"sha": commit_of(head), "force": True},
                    expected=(200, 404, 409, 422),
                )

    def _publish(self, draft: int, upload: Upload, notes: str) -> StoredFile:
        """Publish the draft.

        If GitHub's answer is lost, the draft may have been published, so it is not removed then.
        """
        filename = upload.file.filename
        try:
            answer = self._client.send(
                "PATCH",
                f"{self._repository.path}/releases/{draft}",
                {"tag_name": filename, "body": notes, "draft": False},
                expected=(200, 404, 422),
            )
        except NotAllowed:
            self._drafts.discard(draft)
            raise
        if answer.status == 404:
            return self._after_loss(upload)
        if answer.status == 422:
            self._drafts.discard(draft)
            winner = self._repository.release(filename)
            if winner is None:
                raise BackendError(
                    f"GitHub refuses to publish {filename!r} in {self._repository.name!r}: "
                    + message_of(answer)
                )
            return self._put_again(winner, upload)
        stored = stored_file(parse_release(answer.json()))
        if stored is None:
            raise BackendError(f"GitHub published {filename!r} without its file")
        return stored

    def _after_loss(self, upload: Upload) -> StoredFile:
        """What was published instead of our draft, which somebody has removed."""
        winner = self._repository.release(upload.file.filename)
        if winner is None:
            raise BackendUnavailable(f"the draft of {upload.file.filename!r} vanished")
        return self._put_again(winner, upload)

    def _put_again(self, release: GitHubRelease, upload: Upload) -> StoredFile:
        """The file that is published under this name, if it has the same bytes."""
        filename = upload.file.filename
        stored = stored_file(release)
        location = None if stored is None else parse_location(stored.location)
        if stored is None or location is None:
            raise BackendError(
                f"the release {filename!r} in {self._repository.name!r} lacks its file; delete "
                "the release"
            )
        path = self._repository.asset_path(location.asset_id)
        published = stored.size, location.sha256
        require_same_file(self._client, path, location.asset_id, published, upload.file)
        return stored

    # Deleting and yanking.

    def delete_file(self, file: FileHandle) -> None:
        """Deletes the release before its tag.

        In the other order, the release would become a draft, which nobody would ever remove. GitHub
        may refuse to delete the tag of an immutable release. Without a release, it does no harm.
        """
        release = self._repository.release(file.filename)
        if release is not None:
            answer = self._client.send(
                "DELETE", f"{self._repository.path}/releases/{release.id}", expected=(204, 404)
            )
            if answer.status == 404 and self._repository.release(file.filename) is not None:
                raise NotAllowed(f"GitHub does not allow this token to delete {file.filename!r}")
            self.backend.connection.forget_addresses({asset.id for asset in release.assets})
        else:
            self._repository.require_visible()
        if is_filename(file.filename):
            path = self._repository.tag_path(file.filename, ref="refs")
            try:
                self._client.send("DELETE", path, expected=(204, 404, 409, 422))
            except NotAllowed:
                # A rule of the repository may protect tags, but not releases.
                if release is None:
                    raise

    def yank_file(self, file: FileHandle, reason: str | None) -> None:
        filename = file.filename
        release = self._repository.release(filename)
        if release is None or stored_file(release) is None:
            self._repository.require_visible()
            raise FileNotFound(filename)
        notes = yanked_notes(release.notes, reason)
        if notes == release.notes:
            return
        if length_of(notes) > MAX_NOTES:
            raise InvalidUpload(
                f"the reason does not fit into the notes of the release of {filename!r}: GitHub "
                f"takes {MAX_NOTES} characters, and {length_of(notes)} would be needed"
            )
        answer = self._client.send(
            "PATCH",
            f"{self._repository.path}/releases/{release.id}",
            {"body": notes},
            expected=(200, 404, 422),
        )
        if answer.status == 404:
            if self._repository.release(filename) is not None:
                raise NotAllowed(f"GitHub does not allow this token to yank {filename!r}")
            raise FileNotFound(filename)
        if answer.status == 422:
            raise BackendError(
                f"GitHub refuses to edit the notes of {filename!r}: {message_of(answer)}"
            )

    # The index document.

    def read_index(self, into: Path, unless: str | None = None) -> str:
        return self._index.read(into, unless)

    def write_index(self, content: Path, replaces: str) -> str:
        return self._index.write(content, replaces)


class GitHubBackend(Backend[GitHubSettings]):
    """The releases of one GitHub repository."""

    Settings = GitHubSettings
    View = GitHubStorage
    traits = Traits(largest_file=2 * 2**30 - 1)
    location_key = "url"

    def __init__(self, settings: GitHubSettings, folders: Folders) -> None:
        super().__init__(settings, folders)
        self.connection = Connection()

    @classmethod
    def may_be_secret(cls, secret: Secret) -> bool:
        return has_form_of_token(secret)

    def close(self) -> None:
        self.connection.close()


def _location_of(file: FileHandle) -> AssetLocation | None:
    """The location of a file, unless it is known to be that of other bytes.

    The hash of a file that was only listed may be unknown, and private-pypi 0.2 wrote locations
    without a hash.
    """
    location = parse_location(file.location)
    if location is None or not location.sha256 or not file.sha256:
        return location
    return location if location.sha256 == file.sha256 else None
