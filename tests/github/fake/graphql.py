"""GitHub's GraphQL types over the hub: what queries about repositories and releases may ask.

The library executes queries on GitHub's own types, so that neither a query nor an answer can differ
from them. Objects are mappings of fields; a field with arguments is a function.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache, partial
from typing import Any
from urllib.parse import quote

import graphql

from .described import FOLDER
from .git import Commit, TreeEntry
from .rest_releases import signed_url
from .state import (
    Account,
    Asset,
    Hub,
    RateLimit,
    Release,
    Repository,
    Role,
    Token,
    node_id,
    stamp,
)

_MAX_PAGE = 100
_MAX_TEXT = 512_000  # bytes of a blob that `text` shows

Node = dict[str, Any]


def execute(
    hub: Hub, token: Token, limit: RateLimit, *, html: str, storage: str, request: Mapping[str, Any]
) -> dict[str, Any]:
    """The body that answers one request: `data`, and `errors` as GitHub writes them."""
    result = graphql.graphql_sync(
        _schema(),
        request["query"],
        root_value=_Nodes(hub, token, limit, html=html, storage=storage).query(),
        variable_values=request.get("variables"),
        operation_name=request.get("operationName"),
    )
    answer: dict[str, Any] = {}
    if result.data is not None:
        answer["data"] = result.data
    if result.errors:
        answer["errors"] = [
            {**(error.extensions or {}), **_without_extensions(error)} for error in result.errors
        ]
    return answer


@cache
def _schema() -> graphql.GraphQLSchema:
    return graphql.build_schema((FOLDER / "github.graphql").read_text("utf-8"))


def _without_extensions(error: graphql.GraphQLError) -> dict[str, Any]:
    return {key: value for key, value in error.formatted.items() if key != "extensions"}


class _Nodes:
    """Makes nodes for the bearer of one token."""

    def __init__(
        self, hub: Hub, token: Token, limit: RateLimit, *, html: str, storage: str
    ) -> None:
        self._hub = hub
        self._token = token
        self._limit = limit
        self._html = html
        self._storage = storage

    def query(self) -> Node:
        """Query."""
        return {
            "node": lambda _, id: self._node(id),  # noqa: A006
            "nodes": lambda _, ids: [self._node(one) for one in ids],
            "organization": lambda _, login: self._login(login, "Organization"),
            "user": lambda _, login: self._login(login, "User"),
            "repositoryOwner": lambda _, login: self._login(login, None),
            "repository": lambda _, owner, name, followRenames=True: self._by_name(owner, name),
            "viewer": lambda _: self._viewer(),
            "rateLimit": lambda _, dryRun=False: {
                "cost": 1,
                "limit": self._limit.limit,
                "nodeCount": 0,
                "remaining": self._limit.remaining,
                "used": self._limit.used,
                "resetAt": stamp(datetime.fromtimestamp(self._limit.reset, UTC)),
            },
        }

    def _viewer(self) -> Node:
        if self._token.user is None:
            raise _error("FORBIDDEN", "Resource not accessible by integration")
        return self._account(self._token.user)

    def _login(self, login: str, kind: str | None) -> Node | None:
        account = self._hub.accounts.get(login.lower())
        if account is None or kind not in (None, account.type):
            what = kind or "repository owner"
            raise _error("NOT_FOUND", f"Could not resolve to a {what} with the login of '{login}'.")
        return self._account(account)

    def _by_name(self, owner: str, name: str) -> Node:
        repository = self._hub.repositories.get(f"{owner}/{name}".lower())
        if repository is None or not self._may_read(repository):
            message = f"Could not resolve to a Repository with the name '{owner}/{name}'."
            raise _error("NOT_FOUND", message)
        return self._repository(repository)

    def _node(self, wanted: str) -> Node | None:
        try:
            text = base64.urlsafe_b64decode(wanted + "=" * (-len(wanted) % 4)).decode()
        except (binascii.Error, UnicodeDecodeError):
            text = ""
        kind, _, number = text.partition(":")
        for repository in self._hub.repositories.values():
            if not self._may_read(repository):
                continue
            if (kind, number) == ("Repository", str(repository.id)):
                return self._repository(repository)
            for release in self._releases(repository):
                if (kind, number) == ("Release", str(release.id)):
                    return self._release(repository, release)
                for asset in release.assets.values():
                    if (kind, number) == ("ReleaseAsset", str(asset.id)):
                        return self._asset(repository, release, asset)
        for account in self._hub.accounts.values():
            if (kind, number) == (account.type, str(account.id)):
                return self._account(account)
        raise _error("NOT_FOUND", f"Could not resolve to a node with the global id of '{wanted}'")

    def _may_read(self, repository: Repository) -> bool:
        return self._hub.role_of(self._token, repository) >= Role.READ

    def _releases(self, repository: Repository) -> list[Release]:
        writes = self._hub.role_of(self._token, repository) >= Role.WRITE
        return self._hub.listed_releases(repository, with_drafts=writes)

    def _account(self, account: Account) -> Node:
        def repositories(_: object, **arguments: Any) -> Node:
            found = [
                repository
                for repository in self._hub.repositories.values()
                if repository.owner is account and self._may_read(repository)
            ]
            if arguments.get("privacy"):
                private = arguments["privacy"] == "PRIVATE"
                found = [repository for repository in found if repository.private == private]
            keys = {
                "CREATED_AT": lambda repository: repository.id,
                "NAME": lambda repository: repository.name.lower(),
                "PUSHED_AT": lambda repository: repository.pushed_at,
                "STARGAZERS": lambda repository: 0,
                "UPDATED_AT": lambda repository: repository.pushed_at,
            }
            return _connection(
                _ordered(found, keys, arguments.get("orderBy")), self._repository, arguments
            )

        return {
            "__typename": "Organization" if account.type == "Organization" else "User",
            "id": node_id(account.type, account.id),
            "databaseId": account.id,
            "login": account.login,
            "name": account.login,
            "url": f"{self._html}/{account.login}",
            "viewerIsAMember": False,
            "repository": lambda _, name, followRenames=True: self._by_name(account.login, name),
            "repositories": repositories,
        }

    def _repository(self, repository: Repository) -> Node:
        role = self._hub.role_of_user(self._token.user, repository)
        shown = role.name if self._token.user and role > Role.NONE else None

        def releases(_: object, **arguments: Any) -> Node:
            keys = {"CREATED_AT": repository.created_at_of, "NAME": lambda r: r.name or r.tag_name}
            found = _ordered(self._releases(repository), keys, arguments.get("orderBy"))
            return _connection(found, partial(self._release, repository), arguments)

        def release(_: object, tagName: str) -> Node | None:
            # Not documented: whoever may see drafts may be given one, where nothing is published.
            found = [one for one in self._releases(repository) if one.tag_name == tagName]
            one = min(found, key=lambda release: release.draft, default=None)
            return None if one is None else self._release(repository, one)

        return {
            "__typename": "Repository",
            "id": node_id("Repository", repository.id),
            "databaseId": repository.id,
            "name": repository.name,
            "nameWithOwner": repository.full_name,
            "isArchived": False,
            "isPrivate": repository.private,
            "owner": lambda _: self._account(repository.owner),
            "url": f"{self._html}/{repository.full_name}",
            "viewerPermission": shown,
            "visibility": "PRIVATE" if repository.private else "PUBLIC",
            "defaultBranchRef": lambda _: self._ref(
                repository, f"refs/heads/{repository.default_branch}"
            ),
            "object": lambda _, expression=None, oid=None: self._object(
                repository, expression or oid or ""
            ),
            "release": release,
            "releases": releases,
        }

    def _ref(self, repository: Repository, name: str) -> Node | None:
        commit = repository.git.commit(repository.refs.get(name, ""))
        if commit is None:
            return None
        prefix, _, short = name.removeprefix("refs/").partition("/")
        return {
            "__typename": "Ref",
            "id": node_id("Ref", f"{repository.id}:{name}"),
            "name": short,
            "prefix": f"refs/{prefix}/",
            "target": lambda _: self._commit(repository, commit),
        }

    def _object(self, repository: Repository, expression: str) -> Node | None:
        name, colon, path = expression.partition(":")
        commit = repository.resolve(name) or (repository.head() if name == "HEAD" else None)
        if commit is None:
            kind = repository.git.kind(name)
            entry = TreeEntry(name="", mode="040000" if kind == "tree" else "100644", sha=name)
            return self._entry(repository, entry) if kind else None
        if not colon:
            return self._commit(repository, commit)
        found = repository.git.find(commit.tree, path)
        return self._entry(repository, found) if found else None

    def _commit(self, repository: Repository, commit: Commit) -> Node:
        return {
            "__typename": "Commit",
            "id": node_id("Commit", f"{repository.id}:{commit.sha}"),
            "oid": commit.sha,
            "abbreviatedOid": commit.sha[:7],
            "committedDate": stamp(commit.committer.date),
        }

    def _entry(self, repository: Repository, entry: TreeEntry) -> Node:
        if entry.kind == "tree":
            return {
                "__typename": "Tree",
                "id": node_id("Tree", f"{repository.id}:{entry.sha}"),
                "oid": entry.sha,
                "entries": lambda _: [
                    {
                        "name": child.name,
                        "path": child.name,
                        "mode": int(child.mode, 8),
                        "oid": child.sha,
                        "type": child.kind,
                        "size": len(repository.git.blob(child.sha) or b""),
                        "object": partial(self._entry_field, repository, child),
                    }
                    for child in repository.git.tree(entry.sha) or ()
                ],
            }
        content = repository.git.blob(entry.sha) or b""
        binary = b"\0" in content
        url = f"/{repository.full_name}/commit/{entry.sha}"
        return {
            "__typename": "Blob",
            "id": node_id("Blob", f"{repository.id}:{entry.sha}"),
            "oid": entry.sha,
            "abbreviatedOid": entry.sha[:7],
            "byteSize": len(content),
            "commitResourcePath": url,
            "commitUrl": self._html + url,
            "isBinary": binary,
            "isTruncated": len(content) > _MAX_TEXT,
            "repository": lambda _: self._repository(repository),
            "text": None if binary else content[:_MAX_TEXT].decode("utf-8", "replace"),
        }

    def _entry_field(self, repository: Repository, entry: TreeEntry, _: object) -> Node:
        return self._entry(repository, entry)

    def _release(self, repository: Repository, release: Release) -> Node:
        def assets(_: object, **arguments: Any) -> Node:
            name = arguments.get("name")
            found = [a for a in release.assets.values() if name in (None, a.name)]
            return _connection(found, partial(self._asset, repository, release), arguments)

        ref = f"refs/tags/{release.tag_name}"
        page = release.untagged if release.draft else quote(release.tag_name)
        path = f"/{repository.full_name}/releases/tag/{page}"

        def is_latest(_: object) -> bool:
            listed = self._releases(repository)
            full = (one for one in listed if not one.draft and not one.prerelease)
            return next(full, None) is release

        commit = None if release.draft else repository.resolve(ref)
        return {
            "__typename": "Release",
            "id": node_id("Release", release.id),
            "databaseId": release.id,
            "author": lambda _: _user_or_none(self._account(release.author)),
            "createdAt": stamp(repository.created_at_of(release)),
            "description": release.body,
            "descriptionHTML": release.body,
            "shortDescriptionHTML": lambda _, limit=200: (release.body or "")[:limit],
            "isDraft": release.draft,
            "isLatest": is_latest,
            "isPrerelease": release.prerelease,
            "name": release.name,
            "publishedAt": stamp(release.published_at) if release.published_at else None,
            "updatedAt": stamp(release.updated_at),
            "repository": lambda _: self._repository(repository),
            "resourcePath": path,
            "url": self._html + path,
            "tagName": release.tag_name,
            "tag": lambda _: None if release.draft else self._ref(repository, ref),
            "tagCommit": self._commit(repository, commit) if commit else None,
            "viewerCanReact": True,
            "releaseAssets": assets,
        }

    def _asset(self, repository: Repository, release: Release, asset: Asset) -> Node:
        page = release.untagged if release.draft else quote(release.tag_name)
        return {
            "__typename": "ReleaseAsset",
            "id": node_id("ReleaseAsset", asset.id),
            "name": asset.name,
            "contentType": asset.content_type,
            "createdAt": stamp(asset.created_at),
            "updatedAt": stamp(asset.updated_at),
            "downloadCount": asset.download_count,
            "size": asset.size,
            "release": lambda _: self._release(repository, release),
            "uploadedBy": lambda _: self._account(asset.uploader),
            "downloadUrl": (
                f"{self._html}/{repository.full_name}/releases/download/{page}/{quote(asset.name)}"
            ),
            # What PyPIHub sends installers to, which works for private repositories, too.
            "url": lambda _: signed_url(self._hub, self._storage, repository, asset),
        }


def _user_or_none(account: Node) -> Node | None:
    return account if account["__typename"] == "User" else None


def _ordered(
    items: Sequence[Any], keys: Mapping[str, Callable[[Any], Any]], order: Mapping[str, str] | None
) -> list[Any]:
    if order is None:
        return list(items)
    return sorted(items, key=keys[order["field"]], reverse=order["direction"] == "DESC")


def _connection(
    items: Sequence[Any], make: Callable[[Any], Node], arguments: Mapping[str, Any]
) -> Node:
    """A page of items; cursors are positions."""
    bounds = [arguments[name] for name in ("first", "last") if arguments.get(name) is not None]
    if len(bounds) != 1:
        raise _error(
            "MISSING_PAGINATION_BOUNDARIES",
            "You must provide a `first` or `last` value to properly paginate the connection.",
        )
    (size,) = bounds
    if not 0 <= size <= _MAX_PAGE:
        message = f"`first` and `last` must be within 0 and {_MAX_PAGE}."
        raise _error("EXCESSIVE_PAGINATION", message)
    start = _position(arguments["after"]) + 1 if arguments.get("after") else 0
    end = _position(arguments["before"]) if arguments.get("before") else len(items)
    if arguments.get("last") is None:
        end = min(end, start + size)
    else:
        start = max(start, end - size)
    page = [(position, make(items[position])) for position in range(start, min(end, len(items)))]
    return {
        "edges": [{"cursor": _cursor(position), "node": node} for position, node in page],
        "nodes": [node for _, node in page],
        "pageInfo": {
            "startCursor": _cursor(page[0][0]) if page else None,
            "endCursor": _cursor(page[-1][0]) if page else None,
            "hasNextPage": end < len(items),
            "hasPreviousPage": start > 0,
        },
        "totalCount": len(items),
    }


def _cursor(position: int) -> str:
    return base64.b64encode(f"cursor:{position}".encode()).decode()


def _position(cursor: str) -> int:
    try:
        return int(base64.b64decode(cursor).decode().removeprefix("cursor:"))
    except ValueError as error:
        message = f"`{cursor}` does not appear to be a valid cursor."
        raise _error("INVALID_CURSOR_ARGUMENTS", message) from error


def _error(kind: str, message: str) -> graphql.GraphQLError:
    return graphql.GraphQLError(message, extensions={"type": kind})
