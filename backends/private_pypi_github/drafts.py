"""Drafts: releases that are being filled, and are not shown to readers before they are published.

A writer that is killed leaves a draft. It must not be removed while its writer could still be at
work. So a draft says in its notes until when that may be, and while a writer of this ROOT works on
a draft, it holds a lock file and leaves a mark beside it.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote, urlencode

import filelock

from private_pypi.backend import Folders
from private_pypi.errors import (
    AccessError,
    BackendError,
    BackendUnavailable,
    FileNotFound,
    NotAllowed,
    PrivatePypiError,
)
from private_pypi_github.answers import message_of
from private_pypi_github.client import Client
from private_pypi_github.package_repository import PackageRepository
from private_pypi_github.releases import (
    GitHubAsset,
    GitHubRelease,
    draft_until,
    format_draft_notes,
    parse_asset,
    parse_release,
)


def create_draft(
    client: Client, full_name: str, tag: str, until: datetime, **more: object
) -> GitHubRelease:
    """Create a draft on which its writer may work `until` then; `more` are fields of GitHub's."""
    value = {"tag_name": tag, "name": tag, "body": format_draft_notes(until), "draft": True, **more}
    answer = client.send("POST", f"/repos/{full_name}/releases", value, expected=(201, 404, 422))
    if answer.status == 404:
        # GitHub answers this if the token may read, but its scope does not include writing.
        raise NotAllowed(f"GitHub does not allow this token to publish in {full_name!r}")
    if answer.status == 422:
        raise BackendError(
            f"GitHub refuses a release {tag!r} in {full_name!r}: {message_of(answer)}"
        )
    return parse_release(answer.json())


def discard_draft(client: Client, full_name: str, draft: int) -> None:
    """Remove a draft. If that fails, it is removed by a later sweep."""
    with contextlib.suppress(PrivatePypiError):
        client.send("DELETE", f"/repos/{full_name}/releases/{draft}", expected=(204, 404))


def send_asset(
    client: Client,
    release: GitHubRelease,
    name: str,
    content: BinaryIO | bytes,
    *,
    label: str = "",
    deadline: float | None = None,
) -> GitHubAsset:
    """Send an asset of a release. `deadline` is a time of `time.monotonic()`.

    Raises `FileNotFound` if GitHub answers that there is no such release (404), and
    `BackendUnavailable` if GitHub did not get the whole asset. It then keeps what it got, in the
    state "starter".
    """
    query = {"name": name, "label": label} if label else {"name": name}
    url = f"{release.upload_url}?{urlencode(query, quote_via=quote)}"
    answer = client.upload(url, content, expected=(201, 404, 422), deadline=deadline)
    if answer.status == 404:
        raise FileNotFound(name)
    if answer.status == 422:
        raise BackendError(
            f"GitHub refuses the asset {name!r} in the release {release.tag!r}: "
            + message_of(answer)
        )
    asset = parse_asset(answer.json())
    if not asset.is_complete:
        raise BackendUnavailable(f"GitHub did not take all of {name!r}")
    return asset


def facts_of(content: bytes) -> tuple[int, str]:
    """Size and SHA-256, as `require_same` takes them."""
    return len(content), hashlib.sha256(content).hexdigest()


def require_same(asset: GitHubAsset, name: str, facts: tuple[int, str]) -> None:
    """Raise `BackendUnavailable` unless GitHub received the bytes with this size and SHA-256."""
    size, sha256 = facts
    if (asset.size, asset.sha256 or sha256) != (size, sha256):
        raise BackendUnavailable(f"GitHub received other bytes of {name!r} than were sent")


@dataclass(slots=True)
class SeenDrafts:
    """What a listing saw that is needed to remove abandoned drafts."""

    drafts: list[tuple[GitHubRelease, datetime]] = field(default_factory=list)
    """Drafts, each with the time of GitHub's clock at which it was seen."""
    published: dict[str, int] = field(default_factory=dict)
    """The tags of published releases, with their ids."""


class Drafts:
    """The drafts of one package repository."""

    def __init__(self, repository: PackageRepository, folders: Folders) -> None:
        self._repository = repository
        self._locks = folders.lock

    def discard(self, draft: int) -> None:
        discard_draft(self._repository.client, self._repository.name, draft)

    def sweep(self, seen: SeenDrafts) -> None:
        """Remove the drafts, made by private_pypi, that no writer can still be working on.

        If there is a published release with the tag of a draft, the draft is removed at once: its
        writer could not publish it anyway, and learns what was published. A draft that was itself
        published after it was seen is left alone.
        """
        for release, seen_at in seen.drafts:
            until = draft_until(release)
            if until is None or seen.published.get(release.tag) == release.id:
                continue
            if release.tag in seen.published or until < seen_at:
                self.discard(release.id)

    @contextlib.contextmanager
    def held(self, draft: int) -> Iterator[None]:
        """Work on a draft; it is removed on failure, or by others if this process is killed.

        The block has to end before the draft is published, because what may already be published
        must not be removed. So a mark exists only while its lock is held, or after its writer was
        killed.
        """
        mark, lock = self._mark(draft)
        # If the disk is full, only the time in the notes tells when the draft is abandoned.
        with contextlib.suppress(OSError):
            lock.acquire()
            mark.touch()
        try:
            yield
        except BaseException:
            self.discard(draft)
            raise
        finally:
            with contextlib.suppress(OSError):
                mark.unlink(missing_ok=True)
                Path(lock.lock_file).unlink(missing_ok=True)
            lock.release()

    def _mark(self, draft: int) -> tuple[Path, filelock.BaseFileLock]:
        """The mark that a killed writer leaves, and the lock that a writer holds until then."""
        mark = self._locks / f"draft-{draft}"
        return mark, filelock.FileLock(mark.with_suffix(".lock"))

    def discard_abandoned(self) -> None:
        """Remove the drafts of writers of this ROOT that were killed.

        After a power cut, a mark may come back although its release has been published. So GitHub
        is asked whether it is still a draft. A mark that is gone once the lock is held belonged to
        a writer that has finished meanwhile.
        """
        for path in self._locks.glob("draft-*[0-9]"):
            draft = int(path.name.removeprefix("draft-"))
            mark, lock = self._mark(draft)
            try:
                lock.acquire(timeout=0)
            except (filelock.Timeout, OSError):
                continue
            try:
                if mark.exists():
                    self._discard_if_draft(draft)
                    mark.unlink(missing_ok=True)
                Path(lock.lock_file).unlink(missing_ok=True)
            except (BackendError, AccessError, OSError):
                return  # the upload that follows will report the trouble
            finally:
                lock.release()

    def _discard_if_draft(self, number: int) -> None:
        path = f"{self._repository.path}/releases/{number}"
        answer = self._repository.client.get(path, expected=(200, 404))
        if answer.status == 200 and draft_until(parse_release(answer.json())) is not None:
            self.discard(number)
