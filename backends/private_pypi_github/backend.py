"""Distribution files in the releases of one GitHub repository; it opens none of them.

How a file lies in its release is in `releases`. The index document is a file of a branch, replaced
by compare-and-swap of its git blob.

A file is published by the last request of four: until then its release is a draft, which readers
are not shown. GitHub decides between two writers, because a tag has one published release.

What a killed writer left is a draft, and is removed by whoever can tell that nobody works on it:
the next publisher of the same ROOT at once, by a lock file of the draft that nobody holds; and
every listing, of all files or of what is new, as soon as the name is published, or the time is over
that the draft itself says, and after which its writer would have given up. Whoever may push sees
drafts in listings; whoever may not sees none, and removes none.

Yanks are comments in the notes of the release, which may be edited also when it is immutable.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote

import filelock

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
    Usage,
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
from private_pypi.model import (
    DistributionFile,
    Download,
    Record,
    StoredFile,
    Upload,
)
from private_pypi_github.client import (
    OBJECT,
    Answer,
    Client,
    Connection,
    is_token,
    message_of,
)
from private_pypi_github.releases import (
    MAX_NOTES,
    Asset,
    Location,
    Release,
    draft_until,
    fit_record,
    format_draft_notes,
    format_notes,
    is_filename,
    length_of,
    newest_first,
    parse_asset,
    parse_location,
    parse_release,
    stored_file,
    yanked_notes,
)
from private_pypi_github.shared import (
    callers_token,
    check_api_url,
    check_owner,
    hash_content,
    open_content,
    repository_access,
)

LISTING_ENDS_AT = 10_000
"""Releases after which GitHub lists no more; those beyond are found by their tags."""

_PAGE = 100  # releases
_SLOWEST = 64 * 1024  # bytes a second: who sends slower gives up
_SHORTEST = 600.0  # seconds that even the smallest upload may take
_DRAFT_MARGIN = timedelta(minutes=15)  # for the last request of an upload, and slow clocks
_MAX_IN_FOLDER = 1000  # files that GitHub lists ("Get repository content")
_NO_REF = (404, 409)  # 409: "Git Repository is empty."
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
        check_owner("owner", self.owner)
        if not _REPO.fullmatch(self.repo) or self.repo in (".", ".."):
            raise ValueError(f"repo: {self.repo!r} is no name of a repository, without its owner")
        if self.branch == "":
            raise ValueError("branch: must not be empty; leave it out for the default branch")
        parts = self.index_filename.split("/")
        if not self.index_filename.isprintable() or {"", ".", ".."} & set(parts):
            raise ValueError(f"index_filename: {self.index_filename!r} is no path below the root")
        check_api_url(self.api_url)


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
        """Asks for the repository: tokens without a user cannot ask who they are.

        Asked again it does not count against the limit, as long as nothing changed.
        """
        if not is_token(self.secret):
            return Access.NONE
        for _ in range(2):  # in moments of trouble GitHub answers 404, too
            answer = self._client.get(self._root, expected=(200, 401, 403, 404), conditional=True)
            if answer.status != 404:
                break
        if answer.status != 200:
            return Access.NONE
        return repository_access(self._client, self.secret, answer)

    def usage(self) -> Usage:
        return self._client.usage()

    # Listing.

    def list_files(self, known: Known | None = None) -> Iterator[StoredFile]:
        seen: dict[str, int] = {}
        drafts: list[tuple[Release, datetime]] = []
        number = 0
        for page, date in self._pages(conditional=False):
            for release in page:
                number += 1
                if release.is_draft:
                    drafts.append((release, date))
                elif release.tag not in seen:
                    seen[release.tag] = release.id
                    stored = stored_file(release)
                    if stored is not None:
                        yield stored
        self._sweep(drafts, seen)
        # A deletion in the middle moves releases from a page that we shall read to one that we
        # have read, and beyond its end the listing says nothing: only tags are told at once.
        is_cut = number >= LISTING_ENDS_AT
        missed = [tag for tag in self._tags() if is_filename(tag) and tag not in seen]
        for tag in self._released(missed):
            if is_cut and known is not None and known(tag, ANY_STAMP):
                yield StoredFile(filename=tag, size=0, location="", stamp=ANY_STAMP, record=None)
                continue
            found = self._release(tag)
            stored = None if found is None else stored_file(found)
            if stored is not None:
                yield stored

    def recent_files(self, since: datetime) -> Iterator[StoredFile]:
        """GitHub sorts releases by the date of their commit, which is the head at publication.

        So once an older release was seen, newer ones can follow only while the commit is the same;
        and not even those where a page shows that equal ones are sorted by publication.
        """
        for page, date in self._pages(conditional=True):
            published = [release for release in page if release.published_at is not None]
            drafts = [(release, date) for release in page if release.is_draft]
            self._sweep(drafts, {release.tag: release.id for release in published})
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

    def _pages(self, *, conditional: bool) -> Iterator[tuple[list[Release], datetime]]:
        """The pages of the listing, with drafts if we may see them, and GitHub's time at each."""
        number = 1
        while True:
            answer = self._client.get(
                f"{self._root}/releases?per_page={_PAGE}&page={number}", conditional=conditional
            )
            yield [parse_release(value) for value in answer.objects()], answer.date
            if not answer.has_next or number * _PAGE >= LISTING_ENDS_AT:
                return
            number += 1

    def _tags(self) -> list[str]:
        tags: list[str] = []
        path: str | None = f"{self._root}/git/matching-refs/tags/"
        while path is not None:
            answer = self._client.get(path, expected=(200, 409))
            if answer.status == 409:  # "Git Repository is empty."
                return []
            tags += [str(ref.get("ref")).removeprefix("refs/tags/") for ref in answer.objects()]
            path = answer.next_page
        return tags

    def _released(self, tags: Sequence[str]) -> Iterator[str]:
        """Those of the tags that have a published release: a hundred are asked for at once.

        A release that was deleted by hand leaves its tag.
        """
        for start in range(0, len(tags), _PAGE):
            part = tags[start : start + _PAGE]
            names = {f"t{number}": tag for number, tag in enumerate(part)}
            parameters = "".join(f", ${name}: String!" for name in names)
            fields = " ".join(f"{name}: release(tagName: ${name}) {{ isDraft }}" for name in names)
            data = self._client.graphql(
                f"query($owner: String!, $repo: String!{parameters})"
                f" {{ repository(owner: $owner, name: $repo) {{ {fields} }} }}",
                {"owner": self.settings.owner, "repo": self.settings.repo, **names},
            )
            found = data.get("repository")
            if not isinstance(found, dict) or not found.keys() >= names.keys():
                raise BackendError("GitHub answered a query about releases without them")
            # Nothing says that whoever may see drafts is not given one.
            for name, tag in names.items():
                if isinstance(found[name], dict) and found[name].get("isDraft") is False:
                    yield tag

    def _sweep(
        self, drafts: Sequence[tuple[Release, datetime]], published: Mapping[str, int]
    ) -> None:
        """Remove our drafts among these, each seen at a time, that nobody can be at work on.

        One under a name that another release has (`published`: its id) is in vain: should its
        writer still be at work, it finds out what was published, and would have been told the same
        at its end. One that was itself published since is no draft any more.
        """
        for release, seen_at in drafts:
            until = draft_until(release)
            if until is None or published.get(release.tag) == release.id:
                continue
            if release.tag in published or until < seen_at:
                self._discard(release.id)

    def _release(self, tag: str) -> Release | None:
        """The published release of a tag; None also when we may not see the repository.

        In moments of trouble GitHub answers 404, too: an absence is believed when told twice.
        """
        path = f"{self._root}/releases/tags/{quote(tag, safe='')}"
        for _ in range(2):
            answer = self._client.get(path, expected=(200, 404))
            if answer.status == 200:
                return parse_release(answer.json())
        return None

    def _require_visible(self) -> None:
        """Raise unless the repository is there: only then a 404 below it is an absence."""
        answer = self._client.get(self._root, expected=(200, 404), conditional=True)
        if answer.status == 404:
            raise BackendError(
                f"GitHub shows no repository {self._name!r} to this token: it was deleted or "
                "renamed, or the token lost its access"
            )

    # Opening.

    @callers_token()
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

    @callers_token()
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
        redirect = self.settings.download == "redirect"
        return open_content(self._client, self._asset_path(number), number, size, redirect=redirect)

    def _asset_path(self, number: int) -> str:
        return f"{self._root}/releases/assets/{number}"

    # Publishing.

    @callers_token()
    def put_file(self, upload: Upload) -> StoredFile:
        filename = upload.file.filename
        if not is_filename(filename):
            raise InvalidUpload(f"{filename!r} is no name that this storage can keep")
        record = fit_record(upload.record)
        self._discard_abandoned()
        # A published release has its tag: who finds none need not ask for the release.
        tag = self._client.get(self._ref_path(filename), expected=(200, *_NO_REF))
        if tag.status == 200:
            existing = self._release(filename)
            if existing is not None:
                return self._put_again(existing, upload)
            self._renew_tag(filename, str(tag.member("object", "sha")))
        if upload.file.size == 0:
            raise InvalidUpload(f"{filename!r} is empty; GitHub stores no empty files")
        seconds = _SHORTEST + upload.file.size / _SLOWEST
        deadline = time.monotonic() + seconds
        until = tag.date + timedelta(seconds=seconds) + _DRAFT_MARGIN
        draft, upload_url = self._draft(filename, until)
        try:
            with self._held(draft):
                notes = self._fill(upload_url, upload, record, deadline)
        except FileNotFound:
            return self._after_loss(upload)
        return self._publish(draft, upload, notes)

    def _fill(self, upload_url: str, upload: Upload, record: Record, deadline: float) -> str:
        """Send the assets of a draft; the notes to publish them with.

        Raises `FileNotFound` when the draft is gone.
        """
        filename = upload.file.filename
        with upload.content.open("rb") as content:
            file = self._upload(upload_url, filename, content, deadline)
        if (file.size, file.sha256 or upload.file.sha256) != (
            upload.file.size,
            upload.file.sha256,
        ):
            raise BackendUnavailable(f"GitHub received other bytes of {filename!r} than sent")
        metadata = None
        if upload.core_metadata:
            name = f"{filename}.metadata"
            metadata = self._upload(upload_url, name, upload.core_metadata, deadline)
            said = hashlib.sha256(upload.core_metadata).hexdigest()
            if metadata.sha256 not in (None, said):
                raise BackendUnavailable(f"GitHub received other metadata of {filename!r}")
        if time.monotonic() > deadline:  # the draft may be taken for abandoned soon
            raise BackendUnavailable(f"sending {filename!r} to GitHub took too long")
        return format_notes(record, file, metadata)

    def _renew_tag(self, filename: str, commit: str) -> None:
        """Move a tag without a release, of one that was deleted by hand, to the head of the branch.

        On an old commit the new release would be listed among the old ones, where who asks for
        recent files does not look. The tag is moved and not removed, since its release may be
        published just now. What GitHub refuses is no hindrance: `update_index` finds it anywhere.
        """
        branch = self.settings.branch
        if branch is None:
            repository = self._client.get(self._root, conditional=True)
            branch = str(repository.member("default_branch"))
        head = self._client.get(
            f"{self._root}/git/ref/heads/{quote(branch)}", expected=(200, *_NO_REF)
        )
        if head.status == 200 and head.member("object", "sha") != commit:
            with contextlib.suppress(NotAllowed):
                self._client.send(
                    "PATCH",
                    f"{self._root}/git/refs/tags/{quote(filename, safe='')}",
                    {"sha": head.member("object", "sha"), "force": True},
                    expected=(200, 404, 409, 422),
                )

    def _ref_path(self, filename: str) -> str:
        return f"{self._root}/git/ref/tags/{quote(filename, safe='')}"

    def _draft(self, filename: str, until: datetime) -> tuple[int, str]:
        """A new draft: its id, and the address that takes its assets."""
        value = {
            "tag_name": filename,
            "name": filename,
            "body": format_draft_notes(until),
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

    def _upload(
        self, upload_url: str, name: str, content: BinaryIO | bytes, deadline: float
    ) -> Asset:
        answer = self._client.upload(
            f"{upload_url}?name={quote(name, safe='')}",
            content,
            expected=(201, 404, 422),
            deadline=deadline,
        )
        if answer.status == 404:
            raise FileNotFound(name)
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
            return self._after_loss(upload)
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

    def _after_loss(self, upload: Upload) -> StoredFile:
        """What is published although our draft is gone: it was in vain, or taken for abandoned."""
        winner = self._release(upload.file.filename)
        if winner is None:
            raise BackendUnavailable(f"the draft of {upload.file.filename!r} vanished")
        return self._put_again(winner, upload)

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
            sha256 = hash_content(self._client, self._asset_path(location.asset), location.asset)
        if (stored.size, sha256) != (upload.file.size, upload.file.sha256):
            raise FileAlreadyExists(filename)
        return stored

    @contextlib.contextmanager
    def _held(self, draft: int) -> Iterator[None]:
        """Work on a draft that is removed on failure, also by others should we be killed.

        It ends before the draft is published: what may be published already is not to be removed.
        So the mark is there only while the lock is held, or after we were killed.
        """
        mark, lock = self._mark(draft)
        with contextlib.suppress(OSError):  # a disk that is full: then the draft tells its own end
            lock.acquire()
            mark.touch()
        try:
            yield
        except BaseException:
            self._discard(draft)
            raise
        finally:
            with contextlib.suppress(OSError):
                mark.unlink(missing_ok=True)
                Path(lock.lock_file).unlink(missing_ok=True)
            lock.release()

    def _mark(self, draft: int) -> tuple[Path, filelock.BaseFileLock]:
        """What a draft leaves when its writer is killed, and what its writer holds until then."""
        mark = self.folders.lock / f"draft-{draft}"
        return mark, filelock.FileLock(mark.with_suffix(".lock"))

    def _discard_abandoned(self) -> None:
        """Remove what writers of this ROOT left when they were killed.

        A mark that came back after a power cut may name a release that was published since. One
        that is gone when we hold the lock was of a writer that has sent everything meanwhile.
        """
        for path in self.folders.lock.glob("draft-*[0-9]"):
            number = int(path.name.removeprefix("draft-"))
            mark, lock = self._mark(number)
            try:
                lock.acquire(timeout=0)
            except (filelock.Timeout, OSError):
                continue
            try:
                if mark.exists():
                    self._discard_if_draft(number)
                    mark.unlink(missing_ok=True)
                Path(lock.lock_file).unlink(missing_ok=True)
            except (BackendError, OSError):  # the publication shall say what the trouble is
                return
            finally:
                lock.release()

    def _discard_if_draft(self, number: int) -> None:
        answer = self._client.get(f"{self._root}/releases/{number}", expected=(200, 404))
        if answer.status == 200 and draft_until(parse_release(answer.json())) is not None:
            self._discard(number)

    def _discard(self, draft: int) -> None:
        """Remove a draft, or leave it to a later listing."""
        with contextlib.suppress(BackendError, NotAllowed):
            self._client.send("DELETE", f"{self._root}/releases/{draft}", expected=(204, 404))

    @callers_token()
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

    @callers_token()
    def yank_file(self, file: DistributionFile, reason: str | None) -> None:
        filename = file.filename
        release = self._release(filename)
        if release is None or stored_file(release) is None:
            self._require_visible()
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
            f"{self._root}/releases/{release.id}",
            {"body": notes},
            expected=(200, 404, 422),
        )
        if answer.status == 404:
            if self._release(filename) is not None:
                raise NotAllowed(f"GitHub does not allow this token to yank {filename!r}")
            raise FileNotFound(filename)
        if answer.status == 422:
            raise BackendError(
                f"GitHub refuses to edit the notes of {filename!r}: {message_of(answer)}"
            )

    # The index document.

    def read_index(self, into: Path, unless: str | None = None) -> str:
        path = self._index_path()
        if self.settings.connection.is_absent(path) and self._folder_lacks_index():
            return NO_INDEX
        # In moments of trouble GitHub answers 404, too: an absence that is news is believed when it
        # is answered twice, and the repository was seen in between.
        for _ in range(1 if self.settings.connection.is_absent(path) else 2):
            revision = self._client.get_blob(path, into, unless)
            if revision is not None:
                self.settings.connection.note_absent(path, False)
                return revision
            self._require_visible()
            self._require_branch()
        self.settings.connection.note_absent(path, True)
        return NO_INDEX

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
            self.settings.connection.note_absent(self._index_path(), False)
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

    def _folder_lacks_index(self) -> bool:
        """Whether the folder of the document lists no such file; False also when it may be cut.

        An answer about a folder that did not change is not counted, and each 404 is.
        """
        folder, _, name = self.settings.index_filename.rpartition("/")
        path = self._at_branch(f"{self._root}/contents/{quote(folder)}")
        answer = self._client.get(path, expected=(200, 404), conditional=True)
        if answer.status == 404:
            return False
        files = answer.objects()
        return len(files) < _MAX_IN_FOLDER and all(file.get("name") != name for file in files)

    def _contents_path(self) -> str:
        return f"{self._root}/contents/{quote(self.settings.index_filename)}"

    def _index_path(self) -> str:
        return self._at_branch(self._contents_path())

    def _at_branch(self, path: str) -> str:
        """The path, of the branch of the index."""
        branch = self.settings.branch
        return path + (f"?ref={quote(branch, safe='')}" if branch else "")

    def _require_branch(self) -> None:
        """Raise when the branch of the index is missing, unless nothing was committed yet."""
        branch = self.settings.branch
        if branch is None:
            return
        path = f"{self._root}/git/ref/heads/{quote(branch)}"
        answer = self._client.get(path, expected=(200, 404, 409), conditional=True)
        if answer.status == 404:
            raise BackendError(f"there is no branch {branch!r} in {self._name!r}")


def _location_of(file: DistributionFile) -> Location | None:
    """Where the file says that it is, unless that is where other bytes are.

    Who has just listed a file does not know its hash; 0.2 wrote locations that do not say theirs.
    """
    location = parse_location(file.location)
    if location is None or "" in (location.sha256 or "", file.sha256):
        return location
    return location if location.sha256 == file.sha256 else None
