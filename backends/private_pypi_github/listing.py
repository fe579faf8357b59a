"""Which files are in the releases of one repository."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from private_pypi.errors import BackendError
from private_pypi.model import StoredFile, StoredName
from private_pypi_github.answers import GitHubAnswer
from private_pypi_github.drafts import SeenDrafts
from private_pypi_github.package_repository import PackageRepository
from private_pypi_github.releases import (
    GitHubRelease,
    is_filename,
    newest_first,
    parse_release,
    stored_file,
)
from private_pypi_github.shared import LISTING_ENDS_AT, PAGE, tags_in


class Listing:
    """Lists releases, and remembers the drafts that it saw."""

    def __init__(self, repository: PackageRepository) -> None:
        self._repository = repository
        self._client = repository.client
        self._seen: SeenDrafts | None = None

    def all_files(self) -> Iterator[StoredFile | StoredName]:
        """All files, as `SupportsList` promises."""
        seen = SeenDrafts()
        published = seen.published
        number = 0
        for page, date in self._pages(conditional=False):
            for release in page:
                number += 1
                if release.is_draft:
                    seen.drafts.append((release, date))
                elif release.tag not in published:
                    published[release.tag] = release.id
                    stored = stored_file(release)
                    if stored is not None:
                        yield stored
        self._seen = seen
        # A release can be missing above: if another one is deleted meanwhile, releases move to a
        # page that was already read; and GitHub does not list all of very many. The tags are
        # complete, because GitHub gives all of them in one answer.
        is_cut = number >= LISTING_ENDS_AT
        missed = [tag for tag in self.tags() if is_filename(tag) and tag not in published]
        for tag in self._released(missed):
            if is_cut:  # there may be many, and each would cost a request
                yield StoredName(tag)
                continue
            stored = self.file(tag)
            if stored is not None:
                yield stored

    def file(self, filename: str) -> StoredFile | None:
        """A published file by its name; None also if the token may not see the repository."""
        release = self._repository.release(filename)
        return None if release is None else stored_file(release)

    def recent_files(self, since: datetime) -> Iterator[StoredFile]:
        """Files that were published at `since` or later.

        GitHub sorts releases by the date of the tagged commit, and a new release tags the head of
        its branch. So after a release that is too old, newer ones can follow only as long as they
        have the same commit. If the page shows that GitHub sorts releases of one commit by the time
        of their publication, not even those can follow.
        """
        seen = self._seen = SeenDrafts()
        for page, date in self._pages(conditional=True):
            published = [release for release in page if release.published_at is not None]
            seen.drafts += [(release, date) for release in page if release.is_draft]
            seen.published.update({release.tag: release.id for release in published})
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

    def take_drafts(self) -> SeenDrafts:
        """What the last listing saw, once; if there is none, the newest releases are listed."""
        if self._seen is None:
            for _ in self.recent_files(datetime.max.replace(tzinfo=UTC)):
                pass
        seen, self._seen = self._seen or SeenDrafts(), None
        return seen

    def _pages(self, *, conditional: bool) -> Iterator[tuple[list[GitHubRelease], datetime]]:
        """The pages of GitHub's listing, each with the time of GitHub's clock.

        They include drafts if the token may push. With `conditional`, pages that did not change do
        not count against the limit of requests.
        """
        number = 1
        while True:
            path = f"{self._repository.path}/releases?per_page={PAGE}&page={number}"
            if conditional:
                answer, page = self._client.get_kept(path, _parse_releases)
            else:
                answer = self._client.get(path)
                page = _parse_releases(answer)
            yield page or [], answer.date
            if answer.next_page is None or number * PAGE >= LISTING_ENDS_AT:
                return
            number += 1

    def tags(self) -> list[str]:
        """All tags of the repository."""
        tags: list[str] = []
        path: str | None = f"{self._repository.path}/git/matching-refs/tags/"
        seen: set[str] = set()
        while path is not None:
            seen.add(path)
            answer = self._client.get(path, expected=(200, 409))
            tags += tags_in(answer)
            path = answer.next_page
            if path in seen:
                raise BackendError("GitHub's listing of tags leads back to an earlier page")
        return tags

    def _released(self, tags: Sequence[str]) -> Iterator[str]:
        """Those of the tags that have a published release, with one request for each hundred.

        If somebody deletes a release on GitHub, its tag stays.
        """
        for start in range(0, len(tags), PAGE):
            part = tags[start : start + PAGE]
            names = {f"t{number}": tag for number, tag in enumerate(part)}
            parameters = "".join(f", ${name}: String!" for name in names)
            fields = " ".join(f"{name}: release(tagName: ${name}) {{ isDraft }}" for name in names)
            data = self._client.graphql(
                f"query($owner: String!, $repo: String!{parameters})"
                f" {{ repository(owner: $owner, name: $repo) {{ {fields} }} }}",
                {"owner": self._repository.owner, "repo": self._repository.repo, **names},
            )
            found = data.get("repository")
            if not isinstance(found, dict) or not found.keys() >= names.keys():
                raise BackendError("GitHub's answer to a query about releases lacks some of them")
            # GitHub does not document that drafts are left out here.
            for name, tag in names.items():
                if isinstance(found[name], dict) and found[name].get("isDraft") is False:
                    yield tag


def _parse_releases(answer: GitHubAnswer) -> list[GitHubRelease]:
    return [parse_release(value) for value in answer.objects()]
