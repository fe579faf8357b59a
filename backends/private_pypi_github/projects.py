"""Distribution files in the releases of many GitHub repositories, one for each project.

This is how PyPIHub serves an owner: nothing is stored but the assets that people and workflows
attach to their releases, and the caller's own token decides what there is. What is called how is in
`project_names`; how an upload becomes an asset is in `project_publishing`.

GitHub keeps no facts about our files beside the assets, so files have no record: their hash and
their time are those of the asset, and the core reads the rest from the files.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from private_pypi.backend import (
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
    FileNotFound,
    NotAllowed,
    ProjectNotFound,
    Unsupported,
)
from private_pypi.model import DistributionFile, Download, StoredFile, Stream, Upload
from private_pypi_github.client import (
    Answer,
    Chunks,
    Client,
    Connection,
    Moved,
    NoSuchNode,
    is_token,
    message_of,
)
from private_pypi_github.project_layout import (
    Found,
    Place,
    distribution_files,
    files_of,
    metadata_of,
    parse_filename,
    parse_place,
)
from private_pypi_github.project_names import Replacement, Rules
from private_pypi_github.project_publishing import Publisher
from private_pypi_github.releases import Asset, Release, parse_asset, parse_release
from private_pypi_github.shared import (
    callers_token,
    check_api_url,
    check_owner,
    open_content,
    repository_access,
    require_contents,
)

T = TypeVar("T")

LISTING_ENDS_AT = 10_000
"""Releases after which GitHub lists no more; those beyond are found by their tags."""

_PAGE = 100  # releases or repositories
_PASSES = 4  # over a listing that changes meanwhile
_WHOLE_PAGE = 100  # assets; a list of them that ends at this number may have been cut
_MAX_METADATA = 16 * 2**20  # bytes
_NODE = """
query($id: ID!) {
  node(id: $id) {
    ... on ReleaseAsset {
      name
      release { databaseId isDraft repository { name owner { login } } }
    }
  }
}
"""


@dataclass(frozen=True, kw_only=True)
class GitHubProjectsSettings(RemoteSettings):
    """The table of a `github_projects` repository."""

    owner: str | None = None  # of all repositories; None: of none, see `any_owner`
    owners: tuple[str, ...] = ()  # whom `any_owner` is restricted to; empty: nobody is refused
    any_owner: bool = False  # owners are served under their own names as well
    replace: tuple[Replacement, ...] = ()  # from the name of a project to that of its repository
    prereleases: bool = True  # whether releases that GitHub calls pre-releases are shown
    include: tuple[str, ...] = ()  # globs over filenames; empty: all
    exclude: tuple[str, ...] = ()
    api_url: str = "https://api.github.com"
    connection: Connection = field(
        init=False, repr=False, compare=False, default_factory=Connection
    )
    rules: Rules = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.owner is not None:
            check_owner("owner", self.owner)
        for owner in self.owners:
            check_owner("owners", owner)
        if self.owner is None and not self.any_owner:
            if len(self.owners) != 1:
                raise ValueError(
                    "owner: missing; it is whose repositories are served, or any_owner = true "
                    "serves each of `owners` under its own name"
                )
            object.__setattr__(self, "owner", self.owners[0])
        elif self.owners and not self.any_owner:
            raise ValueError(
                "owners: needs any_owner = true, which serves each of them under its own name"
            )
        check_api_url(self.api_url)
        object.__setattr__(self, "rules", Rules(self.replace))

    def tenant(self, user: str) -> GitHubProjectsSettings | None:
        """The settings for another owner, by the name that GitHub knows it by; None: not here.

        GitHub does not distinguish case in these names.
        """
        allowed = {owner.casefold() for owner in (*self.owners, self.owner or "") if owner}
        if not self.any_owner or (self.owners and user.casefold() not in allowed):
            return None
        try:
            tenant = replace(self, name=user, owner=user, owners=(), any_owner=False)
        except ValueError:  # no name that GitHub could know
            return None
        # Sockets and ETags are kept by token, so all owners may share them.
        object.__setattr__(tenant, "connection", self.connection)
        return tenant


@dataclass(frozen=True, slots=True)
class _Repository:
    """A repository in a listing."""

    owner: str
    name: str
    is_private: bool


def _parse_repository(value: dict[str, Any]) -> _Repository:
    try:
        return _Repository(
            owner=str(value["owner"]["login"]),
            name=str(value["name"]),
            is_private=value["private"] is not False,
        )
    except (KeyError, TypeError) as error:
        raise BackendError("GitHub answered a repository of an unknown form") from error


class GitHubProjectsBackend(Backend[GitHubProjectsSettings]):
    """The repositories of an owner, as far as a token may see them."""

    Settings = GitHubProjectsSettings
    capabilities = Capabilities(
        largest_file=2 * 2**30 - 1,
        needs_admin_secret=False,
        rights_per_project=True,
        lists_files=False,
    )
    location_key = "url"

    def __init__(self, settings: GitHubProjectsSettings, secret: Secret, folders: Folders) -> None:
        super().__init__(settings, secret, folders)
        self._client = Client(settings.connection, settings.api_url.rstrip("/"), secret)

    def usage(self) -> Usage:
        return self._client.usage()

    # Access.

    @callers_token()
    def access(self, project: str | None = None) -> Access:
        """Without a project: whether GitHub knows the token, which counts against no limit.

        With one: what the token may do with its repository. `NotAllowed` where GitHub shows that
        there is one and says why the token may not see it, such as a policy of the organization.
        """
        if not is_token(self.secret):
            return Access.NONE
        if project is None:
            return Access.READ if self._is_known() else Access.NONE
        repository = self._repository(project)
        if repository is None:
            return Access.NONE
        return repository_access(self._client, self.secret, repository)

    def _is_known(self) -> bool:
        answer = self._client.get("/rate_limit", expected=(200, 401, 403, 404))
        if answer.status == 404:  # "Rate limiting is not enabled." on GitHub Enterprise Server
            answer = self._client.get("/meta", expected=(200, 401, 403))
        return answer.status == 200

    def _owner(self) -> str:
        if self.settings.owner is None:
            raise NotAllowed(
                f"repository {self.settings.name!r} has no owner of its own: use the name of an "
                "owner on GitHub that it serves as the user"
            )
        return self.settings.owner

    def _full_name(self, project: str) -> str:
        """What the project's repository was called when it got its name; raises `NotFound`."""
        owner, name = self._owner(), self.settings.rules.repository(project)
        if name is None:
            raise ProjectNotFound(project)
        return f"{owner}/{name}"

    def _repository(self, project: str) -> Answer | None:
        """What GitHub says of the project's repository; None when it shows none to this token."""
        try:
            path = f"/repos/{self._full_name(project)}"
        except ProjectNotFound:
            return None
        answer = self._get(path, (200, 301, 404))
        if answer.status == 404 and self._client.forget(path):
            # It was there before: in moments of trouble GitHub answers 404, too.
            answer = self._get(path, (200, 301, 404))
        if answer.status == 301:
            return self._moved(answer, project)
        return answer if answer.status == 200 else None

    def _moved(self, answer: Answer, project: str) -> Answer | None:
        """The repository that had another name before, as long as its owner is the same."""
        found = re.search(r"/repositories/([0-9]{1,18})$", answer.headers.get("Location", ""))
        if found is None:
            raise BackendError(f"GitHub does not say where the repository of {project!r} is now")
        answer = self._get(f"/repositories/{found[1]}", (200, 404))
        if answer.status == 404:
            return None
        owner = str(answer.member("owner", "login"))
        if owner.casefold() != self._owner().casefold():
            raise BackendError(
                f"the repository of project {project!r} was transferred to {owner!r}, whom this "
                "repository does not serve"
            )
        return answer

    def _get(self, path: str, expected: Collection[int], *, conditional: bool = True) -> Answer:
        answer = self._client.get(path, expected={*expected, 403}, conditional=conditional)
        if answer.status == 403:
            raise NotAllowed(f"GitHub does not show this to the token: {message_of(answer)}")
        return answer

    # Listings.

    @callers_token()
    def project_files(self, project: str, known: Known | None = None) -> Iterator[StoredFile]:
        """The assets of all published releases that are distribution files of the project.

        Where several have one filename, the oldest is meant: the same name never changes its bytes.
        """
        _, releases, _ = self._releases(project)
        oldest: dict[str, Found] = {}
        for found in distribution_files(releases, project):
            if self._is_shown(found.filename, found.release.is_prerelease):
                other = oldest.setdefault(found.filename, found)
                if found.age < other.age:
                    oldest[found.filename] = found
        newest_first = sorted(oldest.values(), key=lambda f: (f.version, f.filename), reverse=True)
        return iter([found.stored for found in newest_first])

    def _is_shown(self, filename: str, is_prerelease: bool) -> bool:
        settings, fits = self.settings, partial(fnmatchcase, filename)
        return (
            (settings.prereleases or not is_prerelease)
            and (not settings.include or any(fits(glob) for glob in settings.include))
            and not any(fits(glob) for glob in settings.exclude)
        )

    def _releases(self, project: str) -> tuple[str, list[Release], datetime]:
        """All releases, newest commit first, with the repository's name and GitHub's time.

        Whoever may push sees drafts, too. Raises `ProjectNotFound`.
        """
        name = self._full_name(project)
        try:
            listed = self._whole(f"/repos/{name}/releases?per_page={_PAGE}", parse_release)
        except Moved:
            listed = None
        if listed is None:
            repository = self._repository(project)
            if repository is None:
                raise ProjectNotFound(project)
            name = str(repository.member("full_name"))
            listed = self._whole(f"/repos/{name}/releases?per_page={_PAGE}", parse_release)
            if listed is None:
                raise BackendUnavailable(
                    f"GitHub shows the repository {name!r} to this token, but not its releases: "
                    "the token needs to read contents"
                )
        found, answer = listed
        releases = [self._with_all_assets(name, release) for release in found]
        if len(releases) >= LISTING_ENDS_AT:
            releases += self._unlisted(name, {release.tag for release in releases})
        return name, releases, answer.date

    def _whole(
        self, path: str, parse: Callable[[dict[str, Any]], T], *member: str
    ) -> tuple[list[T], Answer] | None:
        """All items of a listing as they were at one time, and its last answer; None for 404.

        They are parsed page by page: as JSON they take many times the memory.

        What is deleted while pages are read moves an item to a page that was read already. So
        unless GitHub confirms every page, they are read once more.
        """
        before: list[object] | None = None
        for _ in range(_PASSES):
            items: list[T] = []
            ids: list[object] = []
            is_new, number = False, 0
            while True:
                number += 1
                answer = self._get(f"{path}&page={number}", (200, 404))
                if answer.status == 404 and number == 1:
                    return None
                if answer.status == 404:
                    raise BackendUnavailable("GitHub lists less than it announced")
                page = answer.objects(*member)
                items += map(parse, page)
                ids += [(item.get("id"), len(item.get("assets") or ())) for item in page]
                is_new = is_new or answer.is_new
                # What GitHub confirms to be the same items may have got a page behind it since.
                may_go_on = answer.has_next or (len(page) == _PAGE and not answer.is_new)
                if not may_go_on or len(items) >= LISTING_ENDS_AT:
                    break
            if number == 1 or not is_new or ids == before:
                return items, answer
            before = ids
        raise BackendUnavailable("GitHub's listing changes faster than it can be read")

    def _with_all_assets(self, name: str, release: Release) -> Release:
        """GitHub does not document how many assets a release in a listing has at most.

        Lists with over fifty are whole; one whose length is that of a page is looked at again.
        """
        if not release.assets or len(release.assets) % _WHOLE_PAGE:
            return release
        path = f"/repos/{name}/releases/{release.id}/assets?per_page={_PAGE}"
        listed = self._whole(path, parse_asset)
        if listed is None:
            raise BackendUnavailable(f"release {release.tag!r} vanished while it was read")
        return replace(release, assets=tuple(listed[0]))

    def _unlisted(self, name: str, listed: Collection[str]) -> Iterator[Release]:
        """The published releases beyond the end of GitHub's listing."""
        tags = self._get(f"/repos/{name}/git/matching-refs/tags/", (200, 409))
        for ref in tags.objects() if tags.status == 200 else ():
            tag = str(ref.get("ref")).removeprefix("refs/tags/")
            if tag not in listed:
                path = f"/repos/{name}/releases/tags/{quote(tag, safe='')}"
                answer = self._get(path, (200, 404))
                if answer.status == 200:
                    yield self._with_all_assets(name, parse_release(answer.json()))

    @callers_token()
    def projects(self) -> Iterator[str]:
        """What the names of the owner's repositories can tell; it opens none of them."""
        if self.settings.owner is None:
            return iter(())
        owner = self.settings.owner
        names: set[str] = set()
        is_checked = False
        for listed, answer in self._repositories(owner):
            ours = [each for each in listed if each.owner.casefold() == owner.casefold()]
            private = next((each for each in ours if each.is_private), None)
            if private is not None and not is_checked:
                # Who may see projects is told what is known of them. A token has one set of rights
                # for all the repositories that it may see.
                full_name = f"{private.owner}/{private.name}"
                require_contents(self._client, answer, full_name, is_private=True)
                is_checked = True
            for each in ours:
                names |= self.settings.rules.projects(each.name)
        return iter(sorted(names))

    def _repositories(self, owner: str) -> Iterator[tuple[list[_Repository], Answer]]:
        """All repositories of an owner that GitHub shows to the token, some of them twice, and
        others.

        The listing of a user never has private ones, and that of an organization not those of
        collaborators from outside: these are in the token's own listing.
        """
        account = self._get(f"/users/{owner}", (200, 404))
        if account.status == 404:
            return
        kind = "orgs" if account.member("type") == "Organization" else "users"
        listings = [self._whole(f"/{kind}/{owner}/repos?per_page={_PAGE}", _parse_repository)]
        try:
            path = f"/user/repos?affiliation=owner,collaborator&per_page={_PAGE}"
            listings.append(self._whole(path, _parse_repository))
        except NotAllowed:  # the token has no user
            path = f"/installation/repositories?per_page={_PAGE}"
            listings.append(self._whole(path, _parse_repository, "repositories"))
        for listing in listings:
            if listing is None:
                raise BackendUnavailable(f"GitHub shows {owner!r}, but not its repositories")
            yield listing

    # Opening.

    @callers_token()
    def open_file(self, file: DistributionFile) -> Download:
        place = self._place(file.location)
        if place is not None and place.is_of(file):
            with contextlib.suppress(Moved):
                download = self._open(place, file.size)
                if download is not None:
                    return download
        stored = self._find(file)
        place = self._place(stored.location)
        download = None if place is None else self._open(place, stored.size)
        if download is None:
            raise BackendUnavailable(f"the release of {file.filename!r} is being changed")
        return download

    def _find(self, file: DistributionFile) -> StoredFile:
        try:
            for stored in self.project_files(file.project):
                if stored.filename == file.filename:
                    if file.sha256 and stored.sha256 not in (None, file.sha256):
                        break  # somebody has replaced it
                    return stored
        except ProjectNotFound:
            pass
        raise FileNotFound(file.filename)

    def _open(self, place: Place, size: int | None) -> Download | None:
        redirect = self.settings.download == "redirect"
        return open_content(self._client, place.path, place.asset, size, redirect=redirect)

    @callers_token()
    def open_core_metadata(self, file: DistributionFile) -> Download:
        """The asset `<filename>.metadata` beside the file, if it is what the index advertises.

        Nothing says of which bytes it was made: it may be of a file that was replaced since.
        """
        name = f"{file.filename}.metadata"
        place = self._place(file.location)
        if place is not None and place.is_of(file) and file.core_metadata_sha256 is not None:
            with contextlib.suppress(Moved):
                answer = self._get(f"{place.repository}/releases/{place.release}", (200, 404))
                if answer.status == 200:
                    for asset in metadata_of(parse_release(answer.json()), file.filename):
                        download = self._open_metadata(place, asset, file.core_metadata_sha256)
                        if download is not None:
                            return download
        raise FileNotFound(name)

    def _open_metadata(self, place: Place, asset: Asset, sha256: str) -> Download | None:
        there = replace(place, asset=asset.id)
        if asset.sha256 is not None:
            return self._open(there, asset.size) if asset.sha256 == sha256 else None
        content = self._read(there, 0, min(asset.size, _MAX_METADATA))
        if content is None or hashlib.sha256(content).hexdigest() != sha256:
            return None
        return Stream(iter([content]), len(content))

    @callers_token()
    def read_part(self, location: str, start: int, length: int) -> bytes:
        place = self._place(location)
        content = None if place is None else self._read(place, start, length)
        if content is None:
            raise FileNotFound(location.partition("#")[0])
        return content

    def _read(self, place: Place, start: int, length: int) -> bytes | None:
        if length <= 0:
            return b""
        for _ in range(2):
            found = self._client.content(place.path, place.asset)
            if found is None or isinstance(found, Chunks):
                return None if found is None else found.part(start, length)
            content = self._client.fetch_part(found, start, length)
            if content is not None:
                return content
            self._client.forget_address(place.asset)
        raise BackendUnavailable("GitHub's storage refuses the addresses that GitHub signs")

    @callers_token()
    def open_asset(self, asset_id: str, filename: str) -> tuple[StoredFile, Download]:
        """A file by the global id that PyPIHub put into its links, as lock files keep them."""
        owner = self._owner()
        try:
            node = self._client.graphql(_NODE, {"id": asset_id}).get("node") or {}
        except NoSuchNode:
            raise FileNotFound(filename) from None
        release, name = node.get("release") or {}, node.get("name")
        repository = release.get("repository") or {}
        login = str((repository.get("owner") or {}).get("login"))
        if release.get("isDraft", True) or login.casefold() != owner.casefold():
            raise FileNotFound(filename)
        full_name = f"{login}/{repository.get('name')}"
        answer = self._get(f"/repos/{full_name}/releases/{release.get('databaseId')}", (200, 404))
        if answer.status == 404:
            raise FileNotFound(filename)
        whole = self._with_all_assets(full_name, parse_release(answer.json()))
        parsed = parse_filename(filename)
        for found in files_of(whole, parsed[0]) if parsed is not None else ():
            is_meant = found.asset.name == name and filename in (name, found.filename)
            if is_meant and self._is_shown(found.filename, whole.is_prerelease):
                place = self._place(found.stored.location)
                download = None if place is None else self._open(place, found.asset.size)
                if download is not None:
                    return found.stored, download
        raise FileNotFound(filename)

    def _place(self, location: str) -> Place | None:
        """Where a file lies; None for the location of something else, or of another owner."""
        place = parse_place(location)
        is_ours = place is not None and place.owner.casefold() == self._owner().casefold()
        return place if is_ours else None

    # Publishing.

    @callers_token()
    def put_file(self, upload: Upload) -> StoredFile:
        return self._publisher().put_file(upload)

    @callers_token()
    def delete_file(self, file: DistributionFile) -> None:
        self._publisher().delete_file(file)

    @callers_token()
    def yank_file(self, file: DistributionFile, reason: str | None) -> None:
        self._publisher().yank_file(file, reason)

    def _publisher(self) -> Publisher:
        return Publisher(self._client, self._releases, self._is_shown)

    # There is no listing of all files, and no index.

    def list_files(self, known: Known | None = None) -> Iterator[StoredFile]:
        raise Unsupported("GitHub has no listing of all files of an owner; ask for a project")

    def read_index(self, into: Path, unless: str | None = None) -> str:
        raise Unsupported("a repository of type 'github_projects' has no index document")

    def write_index(self, content: Path, replaces: str) -> str:
        raise Unsupported("a repository of type 'github_projects' has no index document")
