"""Distribution files in the releases of one GitHub repository; it opens none of them.

How a file lies in its release is in `releases`. The index document is a file of a branch, replaced
by compare-and-swap of its git blob.

A file is published by the last request of four: until then its release is a draft, which readers
are not shown. GitHub decides between two writers, because a tag has one published release. What a
killed writer left is a draft that bears its age; listings, also of what is new, remove it after a
day.

Whoever may push sees drafts in listings; whoever may not sees none, and removes none.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote, urlsplit

from private_pypi.backend import (
    ANY_STAMP,
    NO_INDEX,
    Access,
    Backend,
    Capabilities,
    Folders,
    Known,
    RemoteSettings,
    Secret,
)
from private_pypi.errors import (
    BackendError,
    BackendUnavailable,
    FileAlreadyExists,
    FileNotFound,
    InvalidUpload,
    NotAllowed,
    StaleIndex,
)
from private_pypi.model import DistributionFile, Download, Redirect, StoredFile, Stream, Upload
from private_pypi_github.client import (
    OBJECT,
    Address,
    Answer,
    Chunks,
    Client,
    Connection,
    is_token,
    message_of,
)
from private_pypi_github.releases import (
    Asset,
    Location,
    Release,
    drafted_at,
    fit_record,
    format_draft_notes,
    format_notes,
    is_filename,
    newest_first,
    parse_asset,
    parse_location,
    parse_release,
    stored_file,
)

LISTING_ENDS_AT = 10_000
"""Releases after which GitHub lists no more; those beyond are found by their tags."""

_PAGE = 100  # releases
_DRAFT_LIVES = timedelta(days=1)
_OWNER = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_-]{0,98}[A-Za-z0-9_])?")
_REPO = re.compile(r"[A-Za-z0-9._-]{1,100}")
_GIT_ID = re.compile("[0-9a-f]{40}")
_RULE = re.compile(r"protected|rule|pull request|signed|status check", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class GitHubSettings(RemoteSettings):
    """The table of a `github` repository."""

    owner: str
    repo: str
    branch: str | None = None  # of the index; None: the repository's default branch
    index_filename: str = "index.toml"
    api_url: str = "https://api.github.com"
    connection: Connection = field(
        init=False, repr=False, compare=False, default_factory=Connection
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not _OWNER.fullmatch(self.owner):
            raise ValueError(f"owner: {self.owner!r} is no user or organization of GitHub")
        if not _REPO.fullmatch(self.repo) or self.repo in (".", ".."):
            raise ValueError(f"repo: {self.repo!r} is no name of a repository, without its owner")
        if self.branch == "":
            raise ValueError("branch: must not be empty; leave it out for the default branch")
        parts = self.index_filename.split("/")
        if not self.index_filename.isprintable() or {"", ".", ".."} & set(parts):
            raise ValueError(f"index_filename: {self.index_filename!r} is no path below the root")
        url = urlsplit(self.api_url)
        if url.scheme not in ("https", "http") or not url.hostname or url.query or url.fragment:
            raise ValueError(
                f"api_url: {self.api_url!r} is no address of an API; right is "
                "https://HOST/api/v3 for GitHub Enterprise Server"
            )
        if "@" in url.netloc:
            raise ValueError("api_url: must not hold a user or password")


class GitHubBackend(Backend[GitHubSettings]):
    """A repository on GitHub, seen with a token: of a user, of a workflow or of an App."""

    Settings = GitHubSettings
    capabilities = Capabilities(largest_file=2 * 2**30 - 1)
    location_key = "url"

    def __init__(self, settings: GitHubSettings, secret: Secret, folders: Folders) -> None:
        super().__init__(settings, secret, folders)
        self._client = Client(settings.connection, settings.api_url.rstrip("/"), secret)
        self._root = f"/repos/{settings.owner}/{settings.repo}"
        self._name = f"{settings.owner}/{settings.repo}"

    def access(self, project: str | None = None) -> Access:
        """Asks for the repository alone: tokens without a user cannot ask who they are.

        Such tokens are never told that they may push, so they are believed to until GitHub refuses.
        """
        if not is_token(self.secret):
            return Access.NONE
        answer = self._client.get(self._root, expected=(200, 401, 403, 404))
        if answer.status != 200:
            return Access.NONE
        permissions = answer.member("permissions", default={})
        may_push = isinstance(permissions, dict) and any(
            permissions.get(right) for right in ("push", "maintain", "admin")
        )
        if may_push or _has_no_user(self.secret):
            return Access.WRITE
        return Access.READ

    # Listing.

    def list_files(self, known: Known | None = None) -> Iterator[StoredFile]:
        seen: set[str] = set()
        number = 0
        for page in self._pages(conditional=False):
            for release in page:
                number += 1
                if not release.is_draft and release.tag not in seen:
                    seen.add(release.tag)
                    stored = stored_file(release)
                    if stored is not None:
                        yield stored
        # A deletion in the middle moves releases from a page that we shall read to one that we
        # have read, and beyond its end the listing says nothing: only tags are told at once.
        is_cut = number >= LISTING_ENDS_AT
        for tag in self._tags():
            if not is_filename(tag) or tag in seen:
                continue
            if is_cut and known is not None and known(tag, ANY_STAMP):
                yield StoredFile(filename=tag, size=0, location="", stamp=ANY_STAMP, record=None)
                continue
            missed = self._release(tag)
            stored = None if missed is None else stored_file(missed)
            if stored is not None:
                yield stored

    def recent_files(self, since: datetime) -> Iterator[StoredFile]:
        """GitHub sorts releases by the date of their commit, which is the head at publication.

        So once an older release was seen, newer ones can follow only while the commit is the same;
        and not even those where a page shows that equal ones are sorted by publication.
        """
        for page in self._pages(conditional=True):
            published = [release for release in page if release.published_at is not None]
            younger = [r for r in published if r.published_at and r.published_at >= since]
            for release in sorted(younger, key=lambda r: str(r.published_at), reverse=True):
                stored = stored_file(release)
                if stored is not None:
                    yield stored
            older = [release for release in published if release not in younger]
            if older and (
                published[-1].created_at < older[0].created_at
                or (published[-1] is older[-1] and newest_first(published))
            ):
                return

    def _pages(self, *, conditional: bool) -> Iterator[list[Release]]:
        """The pages of the listing; stale drafts on them are removed."""
        number = 1
        while True:
            answer = self._client.get(
                f"{self._root}/releases?per_page={_PAGE}&page={number}", conditional=conditional
            )
            page = [parse_release(value) for value in _list(answer)]
            for release in page:
                self._sweep(release, answer.date)
            yield page
            if not answer.has_next:
                return
            number += 1

    def _tags(self) -> list[str]:
        answer = self._client.get(f"{self._root}/git/matching-refs/tags/", expected=(200, 409))
        if answer.status == 409:  # "Git Repository is empty."
            return []
        return [str(ref.get("ref")).removeprefix("refs/tags/") for ref in _list(answer)]

    def _sweep(self, release: Release, date: datetime) -> None:
        """Remove the draft of a writer that was killed, if this is one."""
        begun_at = drafted_at(release)
        if begun_at is not None and date - begun_at > _DRAFT_LIVES:
            self._discard(release.id)

    def _release(self, tag: str) -> Release | None:
        """The published release of a tag; None also when we may not see the repository."""
        path = f"{self._root}/releases/tags/{quote(tag, safe='')}"
        answer = self._client.get(path, expected=(200, 404))
        return None if answer.status == 404 else parse_release(answer.json())

    def _require_visible(self) -> None:
        """Raise unless the repository is there: only then a 404 below it is an absence."""
        answer = self._client.get(self._root, expected=(200, 404), conditional=True)
        if answer.status == 404:
            raise BackendError(
                f"GitHub shows no repository {self._name!r} to this token: it was deleted or "
                "renamed, or the token lost its access"
            )

    # Opening.

    def open_file(self, file: DistributionFile) -> Download:
        location = _location_of(file)
        download = None if location is None else self._open(location.asset, file.size)
        if download is not None:
            return download
        stored = self._find(file)
        location = parse_location(stored.location)
        download = None if location is None else self._open(location.asset, stored.size)
        if download is None:
            raise BackendUnavailable(f"the release of {file.filename!r} is being changed")
        return download

    def open_core_metadata(self, file: DistributionFile) -> Download:
        location = _location_of(file) or parse_location(self._find(file).location)
        for _ in range(2):
            if location is None or location.metadata is None:
                raise FileNotFound(f"{file.filename}.metadata")
            download = self._open(location.metadata, None)
            if download is not None:
                return download
            location = parse_location(self._find(file).location)
        raise BackendUnavailable(f"the release of {file.filename!r} is being changed")

    def _find(self, file: DistributionFile) -> StoredFile:
        release = self._release(file.filename)
        stored = None if release is None else stored_file(release)
        if stored is None:
            self._require_visible()
            raise FileNotFound(file.filename)
        return stored

    def _open(self, number: int, size: int | None) -> Download | None:
        """The content of an asset, or where it is; None when there is no such asset."""
        for _ in range(2):
            found = self._client.content(f"{self._root}/releases/assets/{number}", number)
            if found is None:
                return None
            if isinstance(found, Chunks):
                return _stream(found, size)
            if self.settings.download == "redirect":
                return Redirect(found.url, found.expires_at)
            chunks = self._fetch(found, number)
            if chunks is not None:
                return _stream(chunks, size)
        raise BackendUnavailable("GitHub's storage refuses the addresses that GitHub signs")

    def _fetch(self, address: Address, number: int) -> Chunks | None:
        chunks = self._client.fetch(address)
        if chunks is None:
            self.settings.connection.forget_addresses({number})
        return chunks

    # Publishing.

    def put_file(self, upload: Upload) -> StoredFile:
        filename = upload.file.filename
        if not is_filename(filename):
            raise InvalidUpload(f"{filename!r} is no name that this storage can keep")
        record = fit_record(upload.record)
        existing = self._client.get(
            f"{self._root}/releases/tags/{quote(filename, safe='')}", expected=(200, 404)
        )
        if existing.status == 200:
            return self._put_again(parse_release(existing.json()), upload)
        if upload.file.size == 0:
            raise InvalidUpload(f"{filename!r} is empty; GitHub stores no empty files")
        draft, upload_url = self._draft(filename, existing.date)
        with self._discarded_on_failure(draft):
            with upload.content.open("rb") as content:
                file = self._upload(upload_url, filename, content)
            if (file.size, file.sha256 or upload.file.sha256) != (
                upload.file.size,
                upload.file.sha256,
            ):
                raise BackendUnavailable(f"GitHub received other bytes of {filename!r} than sent")
            metadata = None
            if upload.core_metadata:
                metadata = self._upload(upload_url, f"{filename}.metadata", upload.core_metadata)
                said = hashlib.sha256(upload.core_metadata).hexdigest()
                if metadata.sha256 not in (None, said):
                    raise BackendUnavailable(f"GitHub received other metadata of {filename!r}")
        return self._publish(draft, upload, format_notes(record, file, metadata))

    def _draft(self, filename: str, now: datetime) -> tuple[int, str]:
        """A new draft: its id, and the address that takes its assets."""
        value = {
            "tag_name": filename,
            "name": filename,
            "body": format_draft_notes(now),
            "draft": True,
        }
        if self.settings.branch is not None:
            value["target_commitish"] = self.settings.branch
        answer = self._client.send(
            "POST", f"{self._root}/releases", value, expected=(201, 404, 422)
        )
        if answer.status == 404:
            # What GitHub answers to a token that may read, when its scope is too narrow.
            raise NotAllowed(f"GitHub does not allow this token to publish in {self._name!r}")
        if answer.status == 422:
            raise BackendError(
                f"GitHub refuses a release {filename!r} in {self._name!r}: {message_of(answer)}"
            )
        draft = parse_release(answer.json())
        return draft.id, str(answer.member("upload_url")).partition("{")[0]

    def _upload(self, upload_url: str, name: str, content: BinaryIO | bytes) -> Asset:
        answer = self._client.upload(
            f"{upload_url}?name={quote(name, safe='')}", content, expected=(201, 404, 422)
        )
        if answer.status == 404:
            raise BackendUnavailable(f"the draft of {name!r} vanished")
        if answer.status == 422:
            raise BackendError(f"GitHub refuses the asset {name!r}: {message_of(answer)}")
        asset = parse_asset(answer.json())
        if not asset.is_complete:
            raise BackendUnavailable(f"GitHub did not take all of {name!r}")
        return asset

    def _publish(self, draft: int, upload: Upload, notes: str) -> StoredFile:
        """Show the draft; from here on nobody knows before GitHub answers.

        So it is not discarded after a lost answer: it may be published already.
        """
        filename = upload.file.filename
        try:
            answer = self._client.send(
                "PATCH",
                f"{self._root}/releases/{draft}",
                {"tag_name": filename, "body": notes, "draft": False},
                expected=(200, 404, 422),
            )
        except NotAllowed:
            self._discard(draft)
            raise
        if answer.status == 404:
            raise BackendUnavailable(f"the draft of {filename!r} vanished")
        if answer.status == 422:
            self._discard(draft)
            winner = self._release(filename)
            if winner is None:
                raise BackendError(
                    f"GitHub refuses to publish {filename!r} in {self._name!r}: "
                    + message_of(answer)
                )
            return self._put_again(winner, upload)
        stored = stored_file(parse_release(answer.json()))
        if stored is None:
            raise BackendError(f"GitHub published {filename!r} without its file")
        return stored

    def _put_again(self, release: Release, upload: Upload) -> StoredFile:
        """What is published under the name, if it has the same bytes."""
        filename = upload.file.filename
        stored = stored_file(release)
        location = None if stored is None else parse_location(stored.location)
        if stored is None or location is None:
            raise BackendError(
                f"there is a release {filename!r} in {self._name!r} without its file; delete it"
            )
        sha256 = location.sha256
        if sha256 is None and stored.size == upload.file.size:
            sha256 = self._hash(location.asset)
        if (stored.size, sha256) != (upload.file.size, upload.file.sha256):
            raise FileAlreadyExists(filename)
        return stored

    def _hash(self, number: int) -> str:
        """The SHA-256 of an asset that is so old that GitHub has none."""
        download = self._open(number, None)
        if isinstance(download, Redirect):
            chunks = self._client.fetch(Address(download.url, download.expires_at, 0.0))
            download = None if chunks is None else _stream(chunks, None)
        if not isinstance(download, Stream):
            raise BackendUnavailable("the published file cannot be read")
        digest = hashlib.sha256()
        for chunk in download.chunks:
            digest.update(chunk)
        return digest.hexdigest()

    @contextlib.contextmanager
    def _discarded_on_failure(self, draft: int) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self._discard(draft)
            raise

    def _discard(self, draft: int) -> None:
        """Remove a draft; what cannot be removed now is by a later listing."""
        with contextlib.suppress(BackendError, NotAllowed):
            self._client.send("DELETE", f"{self._root}/releases/{draft}", expected=(204, 404))

    def delete_file(self, file: DistributionFile) -> None:
        """The release first: one that lost its tag turns into a draft, which nobody would remove.

        The tag of an immutable release may stay protected; it is only a name then.
        """
        release = self._release(file.filename)
        if release is not None:
            answer = self._client.send(
                "DELETE", f"{self._root}/releases/{release.id}", expected=(204, 404)
            )
            if answer.status == 404 and self._release(file.filename) is not None:
                raise NotAllowed(f"GitHub does not allow this token to delete {file.filename!r}")
            self.settings.connection.forget_addresses({asset.id for asset in release.assets})
        else:
            self._require_visible()
        if is_filename(file.filename):
            path = f"{self._root}/git/refs/tags/{quote(file.filename, safe='')}"
            try:
                self._client.send("DELETE", path, expected=(204, 404, 409, 422))
            except NotAllowed:
                # Who could delete the release may be kept by a rule from deleting its tag.
                if release is None:
                    raise

    # The index document.

    def read_index(self, into: Path, unless: str | None = None) -> str:
        revision = self._client.get_blob(self._index_path(), into, unless)
        if revision is None:
            self._require_visible()
            self._require_branch()
            return NO_INDEX
        return revision

    def write_index(self, content: Path, replaces: str) -> str:
        if replaces != NO_INDEX and not _GIT_ID.fullmatch(replaces):
            raise StaleIndex(f"{replaces!r} is no revision of an index on GitHub")
        value = {"message": f"Update {self.settings.index_filename}"}
        if replaces != NO_INDEX:
            value["sha"] = replaces
        if self.settings.branch is not None:
            value["branch"] = self.settings.branch
        with content.open("rb") as file:
            answer = self._client.put_base64(
                self._contents_path(), value, file, expected=(200, 201, 404, 409, 422)
            )
        if answer.status in (200, 201):
            return str(answer.member("content", "sha"))
        self._refuse_index(answer, replaces)
        raise StaleIndex("the index was written by somebody else since it was read")

    def _refuse_index(self, answer: Answer, replaces: str) -> None:
        """Raise unless what GitHub refused was the revision, or that others write just now."""
        said = f"GitHub refuses to write {self.settings.index_filename!r}: {message_of(answer)}"
        current = self._client.get(self._index_path(), accept=OBJECT, expected=(200, 404))
        revision = NO_INDEX if current.status == 404 else str(current.member("sha"))
        if revision != replaces:
            return
        if answer.status == 404 or _RULE.search(message_of(answer)):
            raise NotAllowed(said)
        if answer.status == 422:
            raise BackendError(said)

    def _contents_path(self) -> str:
        return f"{self._root}/contents/{quote(self.settings.index_filename)}"

    def _index_path(self) -> str:
        branch = self.settings.branch
        return self._contents_path() + (f"?ref={quote(branch, safe='')}" if branch else "")

    def _require_branch(self) -> None:
        """Raise when the branch of the index is missing, unless nothing was committed yet."""
        branch = self.settings.branch
        if branch is None:
            return
        path = f"{self._root}/git/ref/heads/{quote(branch)}"
        answer = self._client.get(path, expected=(200, 404, 409), conditional=True)
        if answer.status == 404:
            raise BackendError(f"there is no branch {branch!r} in {self._name!r}")


def _has_no_user(token: Secret) -> bool:
    """Whether this is the token of a workflow or of another installation of an App."""
    return token.reveal().startswith("ghs_")


def _location_of(file: DistributionFile) -> Location | None:
    """Where the file says that it is, unless that is where other bytes are.

    Who has just listed a file does not know its hash; 0.2 wrote locations that do not say theirs.
    """
    location = parse_location(file.location)
    if location is None or "" in (location.sha256 or "", file.sha256):
        return location
    return location if location.sha256 == file.sha256 else None


def _stream(chunks: Chunks, size: int | None) -> Stream:
    announced = chunks.size
    return Stream(chunks, (size or 0) if announced is None else announced)


def _list(answer: Answer) -> list[dict[str, object]]:
    value = answer.json()
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise BackendError("GitHub answered no list where it lists")
    return value
