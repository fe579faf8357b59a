"""Distribution files in the releases of many GitHub repositories, one for each project.

This works like PyPIHub: files are the assets that people and workflows attach to their releases,
and the caller's own token decides which of them there are. `project_names` describes the names of
repositories, `project_layout` how files are stored, and `project_publishing` how they get there.

Files have no records. Their hash and their time are those of the asset, and the core reads
everything else from the files themselves.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from fnmatch import fnmatchcase
from functools import partial
from typing import Any, TypeVar
from urllib.parse import quote

from private_pypi.backend import (
    Access,
    Address,
    Backend,
    BackendSettings,
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
    NotAllowed,
    ProjectNotFound,
)
from private_pypi.model import (
    DistributionFile,
    Download,
    FileHandle,
    StoredFile,
    Stream,
    Upload,
)
from private_pypi_github.answers import GitHubAnswer, Moved, NoSuchNode, message_of
from private_pypi_github.client import Client, has_form_of_token, is_token
from private_pypi_github.connection import Connection
from private_pypi_github.downloads import Chunks
from private_pypi_github.project_layout import (
    ProjectAssetLocation,
    ProjectFile,
    distribution_files,
    metadata_of,
    parse_filename,
    parse_project_location,
)
from private_pypi_github.project_names import Replacement, ReplaceRules
from private_pypi_github.project_publishing import Publisher
from private_pypi_github.releases import GitHubAsset, GitHubRelease, parse_asset, parse_release
from private_pypi_github.shared import (
    LISTING_ENDS_AT,
    PAGE,
    check_api_url,
    check_owner,
    open_content,
    repository_access,
    require_contents,
    tags_in,
    understand_repository,
)

T = TypeVar("T")

_PASSES = 4  # attempts to read a listing that keeps changing
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

    names_storage = ("owner", "api_url")

    owner: str | None = None  # of the repositories; None: see `any_owner`
    owners: tuple[str, ...] = ()  # restricts `any_owner` to these; empty: all owners are served
    any_owner: bool = False  # also serve other owners, each under its own name
    replace: tuple[Replacement, ...] = ()  # from the name of a project to that of its repository
    prereleases: bool = True  # whether releases that GitHub calls pre-releases are shown
    include: tuple[str, ...] = ()  # globs over filenames; empty: all
    exclude: tuple[str, ...] = ()
    api_url: Address = "https://api.github.com"
    rules: ReplaceRules = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.owner is not None:
            check_owner("owner", self.owner)
        for owner in self.owners:
            check_owner("owners", owner)
        if self.owner is None and not self.any_owner:
            if len(self.owners) != 1:
                raise ValueError(
                    "owner: missing; name the owner whose repositories are served, or set "
                    "any_owner = true to serve each of `owners` under its own name"
                )
            object.__setattr__(self, "owner", self.owners[0])
        elif self.owners and not self.any_owner:
            raise ValueError(
                "owners: needs any_owner = true, which serves each of them under its own name"
            )
        check_api_url(self.api_url)
        object.__setattr__(self, "rules", ReplaceRules(self.replace))

    def tenant(self, user: str) -> GitHubProjectsSettings | None:
        """The settings for another owner, by its name on GitHub; None if it is not served.

        Case does not matter in these names.
        """
        allowed = {owner.casefold() for owner in (*self.owners, self.owner or "") if owner}
        if not self.any_owner or (self.owners and user.casefold() not in allowed):
            return None
        try:
            return replace(self, name=user, owner=user, owners=(), any_owner=False)
        except ValueError:  # `user` cannot be a name on GitHub
            return None


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
        raise BackendError("GitHub answered with a repository of an unknown form") from error


def _kind_of_account(answer: GitHubAnswer) -> str:
    """The name of this kind of account in the paths of GitHub's interface."""
    return "orgs" if answer.member("type") == "Organization" else "users"


def _release_in(answer: GitHubAnswer) -> GitHubRelease:
    return parse_release(answer.json())


class GitHubProjectsStorage(Storage["GitHubProjectsBackend"]):
    """The repositories of an owner, as far as a token may see them."""

    def __init__(self, backend: GitHubProjectsBackend, secret: Secret) -> None:
        super().__init__(backend, secret)
        self.settings = backend.settings
        self._client = Client(backend.connection, self.settings.api_url.rstrip("/"), secret)

    def usage(self) -> Usage:
        return self._client.usage()

    # Access.

    def access(self, project: str | None = None) -> Access:
        """Without a project: whether the token is valid. This request counts against no limit.

        With a project: what the token may do with its repository. Raises `NotAllowed` if GitHub
        tells why the token may not see an existing repository, such as a policy of its owner.
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
                f"repository {self.settings.name!r} has no owner of its own: use the name of a "
                "user or an organisation on GitHub as the user"
            )
        return self.settings.owner

    def _full_name(self, project: str) -> str:
        """The name of the project's repository, by the rules; raises `ProjectNotFound`."""
        owner, name = self._owner(), self.settings.rules.repository(project)
        if name is None:
            raise ProjectNotFound(project)
        return f"{owner}/{name}"

    def _repository(self, project: str) -> GitHubAnswer | None:
        """GitHub's answer for the project's repository; None if the token may not see one."""
        try:
            path = f"/repos/{self._full_name(project)}"
        except ProjectNotFound:
            return None
        answer, repository = self._get(path, understand_repository, (200, 301, 404))
        return self._moved(answer, project) if answer.status == 301 else repository

    def _moved(self, answer: GitHubAnswer, project: str) -> GitHubAnswer | None:
        """The repository if it was renamed. Raises `BackendError` if it has another owner now."""
        found = re.search(r"/repositories/([0-9]{1,18})$", answer.headers.get("Location", ""))
        if found is None:
            raise BackendError(f"GitHub does not say where the repository of {project!r} is now")
        path = f"/repositories/{found[1]}"
        _, repository = self._get(path, understand_repository, (200, 404))
        if repository is None:
            return None
        owner = str(repository.member("owner", "login"))
        if owner.casefold() != self._owner().casefold():
            raise BackendError(
                f"the repository of project {project!r} was transferred to {owner!r}, an owner "
                "that is not served here"
            )
        return repository

    def _get(
        self, path: str, understand: Callable[[GitHubAnswer], T], expected: Collection[int] = (200,)
    ) -> tuple[GitHubAnswer, T | None]:
        """Like `Client.get_kept`, but raises `NotAllowed` for 403.

        GitHub sometimes answers 404 when it is in trouble, so it is asked twice.
        """
        for _ in range(2):
            answer, understood = self._client.get_kept(path, understand, expected={*expected, 403})
            if answer.status != 404:
                break
        if answer.status == 403:
            raise NotAllowed(f"GitHub does not show this to the token: {message_of(answer)}")
        return answer, understood

    # Listings.

    def project_files(self, project: str) -> Iterator[StoredFile]:
        """The distribution files of the project in all published releases.

        If several have the same filename, the oldest one is used, so that a name keeps its bytes.
        """
        _, releases, _ = self._releases(project)
        oldest: dict[str, ProjectFile] = {}
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

    def _releases(self, project: str) -> tuple[str, list[GitHubRelease], datetime]:
        """The name of the repository, all its releases, and the time of GitHub's clock.

        The releases with the newest commits come first. They include drafts if the token may push.
        Raises `ProjectNotFound`.
        """
        name = self._full_name(project)
        try:
            listed = self._whole(f"/repos/{name}/releases?per_page={PAGE}", parse_release)
        except Moved:
            listed = None
        if listed is None:
            repository = self._repository(project)
            if repository is None:
                raise ProjectNotFound(project)
            name = str(repository.member("full_name"))
            listed = self._whole(f"/repos/{name}/releases?per_page={PAGE}", parse_release)
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
    ) -> tuple[list[T], GitHubAnswer] | None:
        """All items of a listing as they were at one time, and the last answer; None for 404.

        Each page is parsed at once, because the JSON takes many times the memory.

        If something is deleted while pages are read, an item can move to a page that was already
        read. So all pages are read again, until they are the same twice, or GitHub confirms for
        every page that it has not changed.
        """

        def parse_page(answer: GitHubAnswer) -> list[tuple[object, T]]:
            return [
                ((value.get("id"), len(value.get("assets") or ())), parse(value))
                for value in answer.objects(*member)
            ]

        before: list[object] | None = None
        for _ in range(_PASSES):
            items: list[T] = []
            ids: list[object] = []
            is_new, number = False, 0
            while True:
                number += 1
                answer, page = self._get(f"{path}&page={number}", parse_page, (200, 404))
                if page is None and number == 1:
                    return None
                if page is None:
                    raise BackendUnavailable("GitHub lists fewer pages than it announced")
                items += (item for _, item in page)
                ids += (key for key, _ in page)
                is_new = is_new or answer.is_new
                # GitHub confirms that the items of a page are the same, but there may be a new page
                # after it.
                may_go_on = answer.next_page or (len(page) == PAGE and not answer.is_new)
                if not may_go_on or number * PAGE >= LISTING_ENDS_AT:
                    break
            if number == 1 or not is_new or ids == before:
                return items, answer
            before = ids
        raise BackendUnavailable("GitHub's listing changes faster than it can be read")

    def _with_all_assets(self, name: str, release: GitHubRelease) -> GitHubRelease:
        """The release with all of its assets.

        GitHub does not document how many assets of a release a listing has at most. If there are
        exactly as many as fit into a page, some may be missing, so they are listed separately.
        """
        if not release.assets or len(release.assets) % PAGE:
            return release
        path = f"/repos/{name}/releases/{release.id}/assets?per_page={PAGE}"
        listed = self._whole(path, parse_asset)
        if listed is None:
            raise BackendUnavailable(f"the release {release.tag!r} was deleted while it was read")
        return replace(release, assets=tuple(listed[0]))

    def _unlisted(self, name: str, listed: Collection[str]) -> Iterator[GitHubRelease]:
        """The published releases that GitHub does not list, because there are too many."""
        path = f"/repos/{name}/git/matching-refs/tags/"
        _, tags = self._get(path, tags_in, (200, 409))
        for tag in tags or ():
            if tag not in listed:
                path = f"/repos/{name}/releases/tags/{quote(tag, safe='')}"
                _, release = self._get(path, _release_in, (200, 404))
                if release is not None:
                    yield self._with_all_assets(name, release)

    def projects(self) -> Iterator[str]:
        """The projects that follow from the names of the owner's repositories."""
        if self.settings.owner is None:
            return iter(())
        owner = self.settings.owner
        names: set[str] = set()
        is_checked = False
        for listed, answer in self._repositories(owner):
            ours = [each for each in listed if each.owner.casefold() == owner.casefold()]
            private = next((each for each in ours if each.is_private), None)
            if private is not None and not is_checked:
                # A caller that may list projects also gets what is known about them, so the token
                # must be able to read contents. Its permissions are the same for all repositories.
                full_name = f"{private.owner}/{private.name}"
                require_contents(self._client, answer, full_name, is_private=True)
                is_checked = True
            for each in ours:
                names |= self.settings.rules.projects(each.name)
        return iter(sorted(names))

    def _repositories(self, owner: str) -> Iterator[tuple[list[_Repository], GitHubAnswer]]:
        """All repositories of an owner that the token may see, in several listings.

        The listing of a user has no private repositories, and the listing of an organisation lacks
        those that are shared with an outside collaborator. They are in the token's own listing,
        which also has repositories of other owners. A repository may occur twice.
        """
        _, kind = self._get(f"/users/{owner}", _kind_of_account, (200, 404))
        if kind is None:
            return
        listings = [self._whole(f"/{kind}/{owner}/repos?per_page={PAGE}", _parse_repository)]
        try:
            path = f"/user/repos?affiliation=owner,collaborator&per_page={PAGE}"
            listings.append(self._whole(path, _parse_repository))
        except NotAllowed:  # the token has no user
            path = f"/installation/repositories?per_page={PAGE}"
            listings.append(self._whole(path, _parse_repository, "repositories"))
        for listing in listings:
            if listing is None:
                raise BackendUnavailable(
                    f"GitHub shows {owner!r} to this token, but not its repositories"
                )
            yield listing

    # Opening.

    def open_file(self, file: FileHandle) -> Download:
        location = self._parse(file.location)
        if location is not None and location.is_of(file):
            with contextlib.suppress(Moved):
                download = self._open(location, file.size)
                if download is not None:
                    return download
        stored = self._find(file)
        location = self._parse(stored.location)
        download = None if location is None else self._open(location, stored.size)
        if download is None:
            raise BackendUnavailable(f"the release of {file.filename!r} is being changed")
        return download

    def _find(self, file: FileHandle) -> StoredFile:
        try:
            for stored in self.project_files(file.project):
                if stored.filename == file.filename:
                    if file.sha256 and stored.sha256 not in (None, file.sha256):
                        break  # somebody has replaced the asset
                    return stored
        except ProjectNotFound:
            pass
        raise FileNotFound(file.filename)

    def _open(self, location: ProjectAssetLocation, size: int | None) -> Download | None:
        redirect = self.settings.download == "redirect"
        return open_content(self._client, location.path, location.asset_id, size, redirect=redirect)

    def open_core_metadata(self, file: DistributionFile) -> Download:
        """The asset `<filename>.metadata`, if its hash is the one that the index advertises.

        Otherwise it may belong to an earlier file of this name, which somebody has replaced.
        """
        name = f"{file.filename}.metadata"
        location = self._parse(file.location)
        if location is not None and location.is_of(file) and file.core_metadata_sha256 is not None:
            with contextlib.suppress(Moved):
                path = f"{location.repository}/releases/{location.release_id}"
                _, release = self._get(path, _release_in, (200, 404))
                if release is not None:
                    for asset in metadata_of(release, file.filename):
                        download = self._open_metadata(location, asset, file.core_metadata_sha256)
                        if download is not None:
                            return download
        raise FileNotFound(name)

    def _open_metadata(
        self, location: ProjectAssetLocation, asset: GitHubAsset, sha256: str
    ) -> Download | None:
        there = replace(location, asset_id=asset.id)
        if asset.sha256 is not None:
            return self._open(there, asset.size) if asset.sha256 == sha256 else None
        content = self._read(there, 0, min(asset.size, _MAX_METADATA))
        if content is None or hashlib.sha256(content).hexdigest() != sha256:
            return None
        return Stream(iter([content]), len(content))

    def public_addresses(self, files: Sequence[DistributionFile]) -> Mapping[str, PublicAddress]:
        by_project: dict[str, list[DistributionFile]] = {}
        for file in files:
            by_project.setdefault(file.project, []).append(file)
        found: dict[str, PublicAddress] = {}
        for project, its_files in by_project.items():
            repository = self._repository(project)
            if repository is None or repository.member("private") is not False:
                continue
            _, releases, _ = self._releases(project)
            base = f"{repository.member('html_url')}/releases/download"
            published = {
                asset.id: (release, asset)
                for release in releases
                if not release.is_draft
                for asset in release.assets
            }
            for file in its_files:
                location = self._parse(file.location)
                if location is None or not location.is_of(file):
                    continue
                release, asset = published.get(location.asset_id, (None, None))
                # GitHub has changed some names. Installers need the right one.
                if release is None or asset is None or asset.name != file.filename:
                    continue
                found[file.filename] = PublicAddress(
                    url=f"{base}/{quote(release.tag)}/{quote(asset.name)}",
                    has_core_metadata=file.core_metadata_sha256 is not None
                    and any(
                        each.name == f"{asset.name}.metadata"
                        and each.sha256 == file.core_metadata_sha256
                        for each in release.assets
                    ),
                )
        return found

    def read_part(self, location: str, start: int, length: int) -> bytes:
        parsed = self._parse(location)
        content = None if parsed is None else self._read(parsed, start, length)
        if content is None:
            raise FileNotFound(location.partition("#")[0])
        return content

    def _read(self, location: ProjectAssetLocation, start: int, length: int) -> bytes | None:
        if length <= 0:
            return b""
        for _ in range(2):
            found = self._client.content(location.path, location.asset_id)
            if found is None or isinstance(found, Chunks):
                return None if found is None else found.part(start, length)
            content = self._client.fetch_part(found, start, length)
            if content is not None:
                return content
            self._client.forget_address(location.asset_id)
        raise BackendUnavailable("GitHub's storage refuses the addresses that GitHub signed")

    def find_alias(self, alias: str, filename: str) -> StoredFile:
        """A file by its global id on GitHub, which is in links of PyPIHub and so in lock files."""
        owner = self._owner()
        node = self._node(alias)
        if node is None:
            raise FileNotFound(filename)
        release, name = node.get("release") or {}, node.get("name")
        repository = release.get("repository") or {}
        login = str((repository.get("owner") or {}).get("login"))
        if release.get("isDraft", True) or login.casefold() != owner.casefold():
            raise FileNotFound(filename)
        full_name = f"{login}/{repository.get('name')}"
        path = f"/repos/{full_name}/releases/{release.get('databaseId')}"
        _, found_release = self._get(path, _release_in, (200, 404))
        if found_release is None:
            raise FileNotFound(filename)
        whole = self._with_all_assets(full_name, found_release)
        parsed = parse_filename(filename)
        for found in distribution_files([whole], parsed[0]) if parsed is not None else ():
            is_meant = found.asset.name == name and filename in (name, found.filename)
            if is_meant and self._is_shown(found.filename, whole.is_prerelease):
                return found.stored
        raise FileNotFound(filename)

    def _node(self, asset_id: str) -> dict[str, Any] | None:
        """GitHub's answer for an asset by its global id; None if there is none."""
        for _ in range(2):
            with contextlib.suppress(NoSuchNode):
                return self._client.graphql(_NODE, {"id": asset_id}).get("node") or {}
        return None

    def _parse(self, text: str) -> ProjectAssetLocation | None:
        """A location; None if it is invalid, or if the repository has another owner."""
        location = parse_project_location(text)
        is_ours = location is not None and location.owner.casefold() == self._owner().casefold()
        return location if is_ours else None

    # Publishing.

    def put_file(self, upload: Upload) -> StoredFile:
        return self._publisher().put_file(upload)

    def delete_file(self, file: FileHandle) -> None:
        self._publisher().delete_file(file)

    def restore_name(self, project: str, filename: str) -> list[str]:
        return self._publisher().restore_name(project, filename)

    def yank_file(self, file: FileHandle, reason: str | None) -> None:
        self._publisher().yank_file(file, reason)

    def _publisher(self) -> Publisher:
        return Publisher(self._client, self._releases, self._is_shown)


class GitHubProjectsBackend(Backend[GitHubProjectsSettings]):
    """The repositories of an owner, and those of further owners as tenants."""

    Settings = GitHubProjectsSettings
    View = GitHubProjectsStorage
    traits = Traits(largest_file=2 * 2**30 - 1, needs_admin_secret=False, rights_per_project=True)
    location_key = "url"

    def __init__(
        self,
        settings: GitHubProjectsSettings,
        folders: Folders,
        *,
        shared: Connection | None = None,
    ) -> None:
        """`shared` is for tenants: the connection of the table that they belong to.

        A connection keeps answers separately for each token, so several owners can share it.
        """
        super().__init__(settings, folders)
        self.connection = Connection() if shared is None else shared
        self._is_tenant = shared is not None

    @classmethod
    def may_be_secret(cls, secret: Secret) -> bool:
        return has_form_of_token(secret)

    def tenant_settings(self, name: str) -> GitHubProjectsSettings | None:
        return self.settings.tenant(name)

    def tenant(self, settings: BackendSettings, folders: Folders) -> GitHubProjectsBackend:
        assert isinstance(settings, GitHubProjectsSettings)
        return GitHubProjectsBackend(settings, folders, shared=self.connection)

    def close(self) -> None:
        if not self._is_tenant:
            self.connection.close()
