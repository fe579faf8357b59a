"""What each REST operation does and answers; reads no socket and checks no description."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, urlencode

from .git import FILE_MODE, FOLDER_MODE, Commit, Person, TreeEntry
from .shapes import JSON, Shapes, lines_of_base64
from .state import (
    Account,
    Asset,
    Hub,
    RateLimit,
    Release,
    Repository,
    Role,
    Token,
    asset_name,
)

MAX_BODY = 125_000  # characters of a release's notes
MAX_ASSETS = 1000  # of one release
MAX_ASSET_BYTES = 2 * 1024**3 - 1  # "must be under 2 GiB"
_MAX_INLINE = 1024**2  # bytes of a file that the contents API answers as JSON
_MAX_CONTENT = 100 * 1024**2  # bytes of a file or blob that the API answers at all


class Refusal(Exception):
    """An answer that is not a success."""

    def __init__(
        self,
        status: int,
        message: str,
        errors: Sequence[Mapping[str, object]] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.errors = list(errors)
        self.headers = dict(headers or {})

    def body(self) -> JSON:
        """As GitHub writes it."""
        shape: JSON = {
            "message": self.message,
            "documentation_url": "https://docs.github.com/rest",
            "status": str(self.status),
        }
        return {**shape, "errors": self.errors} if self.errors else shape


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request, understood."""

    hub: Hub
    shapes: Shapes
    storage: str  # address of the host that keeps assets
    token: Token | None
    parameters: Mapping[str, str]
    query: Mapping[str, str]
    body: Any
    accept: str
    url: str  # of the request, without its query

    @property
    def actor(self) -> Account:
        """Who does it: the user, or the bot of the installation."""
        if self.token is None:
            raise Refusal(401, "Requires authentication")
        return self.token.user or self.hub.account("github-actions[bot]", "Bot")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A success. `content` is sent as it is, `body` as JSON."""

    status: int = 200
    body: Any = None
    content: bytes | None = None
    content_type: str = "application/json; charset=utf-8"
    headers: Mapping[str, str] = field(default_factory=dict)


Handler = Callable[[Call], Answer]


def handlers() -> Mapping[str, Handler]:
    """The operations that are built, by "METHOD /template".

    Asking for another one that GitHub describes (pull requests, archives, builds of pages, changes
    of accounts) is a violation of its own kind.
    """
    repo = "/repos/{owner}/{repo}"
    return {
        "GET /": lambda call: Answer(body=call.shapes.root()),
        "GET /meta": lambda call: Answer(body={"verifiable_password_authentication": False}),
        "GET /rate_limit": _rate_limit,
        "GET /user": _own_user,
        "GET /users/{username}": _user,
        "GET /orgs/{org}": _organization,
        "GET /user/repos": _own_repositories,
        "GET /users/{username}/repos": _repositories_of,
        "GET /orgs/{org}/repos": _repositories_of,
        "GET /installation/repositories": _installation_repositories,
        "POST /user/repos": _create_own_repository,
        "POST /orgs/{org}/repos": _create_repository,
        f"GET {repo}": _repository,
        f"PATCH {repo}": _edit_repository,
        f"DELETE {repo}": _delete_repository,
        f"GET {repo}/collaborators/{{username}}/permission": _permission,
        f"GET {repo}/branches/{{branch}}": _branch,
        f"GET {repo}/readme": _readme,
        f"GET {repo}/contents/{{path}}": _contents,
        f"PUT {repo}/contents/{{path}}": _put_contents,
        f"DELETE {repo}/contents/{{path}}": _delete_contents,
        f"POST {repo}/git/blobs": _create_blob,
        f"GET {repo}/git/blobs/{{file_sha}}": _blob,
        f"POST {repo}/git/trees": _create_tree,
        f"GET {repo}/git/trees/{{tree_sha}}": _tree,
        f"POST {repo}/git/commits": _create_commit,
        f"GET {repo}/git/commits/{{commit_sha}}": _commit,
        f"GET {repo}/git/ref/{{ref}}": _ref,
        f"GET {repo}/git/matching-refs/{{ref}}": _matching_refs,
        f"POST {repo}/git/refs": _create_ref,
        f"PATCH {repo}/git/refs/{{ref}}": _update_ref,
        f"DELETE {repo}/git/refs/{{ref}}": _delete_ref,
        f"GET {repo}/releases": _releases,
        f"POST {repo}/releases": _create_release,
        f"GET {repo}/releases/latest": _latest_release,
        f"GET {repo}/releases/tags/{{tag}}": _release_by_tag,
        f"GET {repo}/releases/{{release_id}}": _release,
        f"PATCH {repo}/releases/{{release_id}}": _edit_release,
        f"DELETE {repo}/releases/{{release_id}}": _delete_release,
        f"GET {repo}/releases/{{release_id}}/assets": _assets,
        f"GET {repo}/releases/assets/{{asset_id}}": _asset,
        f"PATCH {repo}/releases/assets/{{asset_id}}": _edit_asset,
        f"DELETE {repo}/releases/assets/{{asset_id}}": _delete_asset,
        f"POST {repo}/actions/workflows/{{workflow_id}}/dispatches": _dispatch_workflow,
        f"POST {repo}/dispatches": _dispatch,
        f"GET {repo}/pages": _pages,
        f"POST {repo}/pages": _create_pages,
        f"PUT {repo}/pages": _edit_pages,
        f"DELETE {repo}/pages": _delete_pages,
    }


# Who asks


def _rate_limit(call: Call) -> Answer:
    if not call.hub.limits_rates:
        raise Refusal(404, "Rate limiting is not enabled.")
    now = call.hub.clock.seconds()
    core = call.token.core if call.token else call.hub.anonymous
    graphql = call.token.graphql if call.token else RateLimit(limit=0)
    return Answer(body=call.shapes.rate_limits(core.at(now), graphql.at(now)))


def _own_user(call: Call) -> Answer:
    if call.token is None:
        raise Refusal(401, "Requires authentication")
    if call.token.user is None:
        raise Refusal(403, "Resource not accessible by integration")
    user = call.token.user
    own = [r for r in call.hub.repositories.values() if r.owner is user]
    private = sum(repository.private for repository in own)
    shape = call.shapes.user(user, public_repos=len(own) - private, private_repos=private)
    return Answer(body=shape)


def _user(call: Call) -> Answer:
    account = _account(call, call.parameters["username"])
    own = [r for r in call.hub.repositories.values() if r.owner is account]
    public = sum(not repository.private for repository in own)
    return Answer(body=call.shapes.user(account, public_repos=public, private_repos=None))


def _organization(call: Call) -> Answer:
    account = _account(call, call.parameters["org"])
    if account.type != "Organization":
        raise Refusal(404, "Not Found")
    own = [r for r in call.hub.repositories.values() if r.owner is account]
    public = sum(not repository.private for repository in own)
    return Answer(body=call.shapes.organization(account, public_repos=public))


def _account(call: Call, login: str) -> Account:
    account = call.hub.accounts.get(login.lower())
    if account is None:
        raise Refusal(404, "Not Found")
    return account


# Repositories


def find_repository(
    hub: Hub, token: Token | None, owner: str, name: str, need: Role = Role.READ
) -> Repository:
    """The repository, when the token may do what is needed with it; else GitHub's refusal."""
    repository = hub.repositories.get(f"{owner}/{name}".lower())
    role = hub.role_of(token, repository) if repository else Role.NONE
    if repository is None or role < Role.METADATA:
        raise Refusal(404, "Not Found")
    if role < need:
        if token is None:
            raise Refusal(401, "Requires authentication")
        if token.user is None:
            raise Refusal(403, "Resource not accessible by integration")
        if token.fine_grained:
            raise Refusal(403, "Resource not accessible by personal access token")
        if need == Role.ADMIN:
            raise Refusal(403, "Must have admin rights to Repository.")
        raise Refusal(404, "Not Found")
    return repository


def _find(call: Call, need: Role = Role.READ) -> Repository:
    parameters = call.parameters
    return find_repository(call.hub, call.token, parameters["owner"], parameters["repo"], need)


def _shown_role(call: Call, repository: Repository) -> Role | None:
    # `permissions` are those of the user, not of the token, and there are none without a user.
    if call.token is None:
        return None
    if call.token.user is None:
        return Role.NONE
    return call.hub.role_of_user(call.token.user, repository)


def _repository(call: Call) -> Answer:
    repository = _find(call, Role.METADATA)
    role = _shown_role(call, repository)
    return Answer(body=call.shapes.repository(repository, role=role))


def _own_repositories(call: Call) -> Answer:
    if call.token is None:
        raise Refusal(401, "Requires authentication")
    if call.token.user is None:
        raise Refusal(403, "Resource not accessible by integration")
    user = call.token.user
    return _listed_repositories(
        call,
        lambda repository: (
            repository.roles.get(user.login.lower(), Role.NONE) > Role.NONE
            and call.hub.role_of(call.token, repository) > Role.NONE
        ),
        minimal=False,
    )


def _repositories_of(call: Call) -> Answer:
    login = call.parameters.get("username") or call.parameters["org"]
    account = _account(call, login)
    # "Lists public repositories for the specified user": never the private ones.
    public_only = "username" in call.parameters

    def belongs(repository: Repository) -> bool:
        visible = call.hub.role_of(call.token, repository) >= Role.METADATA
        return repository.owner is account and visible and not (public_only and repository.private)

    return _listed_repositories(call, belongs, minimal=True)


def _listed_repositories(
    call: Call, wanted: Callable[[Repository], bool], *, minimal: bool
) -> Answer:
    found = sorted(
        (r for r in call.hub.repositories.values() if wanted(r)), key=lambda r: r.full_name.lower()
    )
    page, headers = _page(call, found)
    shapes = [call.shapes.repository(r, role=_shown_role(call, r), minimal=minimal) for r in page]
    return Answer(body=shapes, headers=headers)


def _installation_repositories(call: Call) -> Answer:
    if call.token is None or call.token.user is not None:
        raise Refusal(403, "You must authenticate with an installation access token")
    token = call.token
    found = [r for name, r in call.hub.repositories.items() if name in token.rights]
    page, headers = _page(call, found)
    shapes = [call.shapes.repository(r, role=Role.NONE) for r in page]
    return Answer(body={"total_count": len(found), "repositories": shapes}, headers=headers)


def _create_own_repository(call: Call) -> Answer:
    if call.actor.type == "Bot":
        raise Refusal(403, "Resource not accessible by integration")
    return _make_repository(call, call.actor)


def _create_repository(call: Call) -> Answer:
    owner = _account(call, call.parameters["org"])
    if owner.type != "Organization" or call.actor.type == "Bot":
        raise Refusal(404, "Not Found")
    return _make_repository(call, owner)


def _make_repository(call: Call, owner: Account) -> Answer:
    name = call.body["name"]
    if f"{owner.login}/{name}".lower() in call.hub.repositories:
        message = "name already exists on this account"
        raise Refusal(
            422,
            "Repository creation failed.",
            [{"resource": "Repository", "code": "custom", "field": "name", "message": message}],
        )
    repository = call.hub.add_repository(
        owner,
        name,
        private=call.body.get("private", False),
        default_branch="main",
        description=call.body.get("description"),
        auto_init=call.body.get("auto_init", False),
    )
    repository.roles[call.actor.login.lower()] = Role.ADMIN
    shape = call.shapes.repository(repository, role=Role.ADMIN)
    return Answer(status=201, body=shape, headers={"Location": shape["url"]})


def _edit_repository(call: Call) -> Answer:
    repository = _find(call, Role.ADMIN)
    branch = call.body.get("default_branch", repository.default_branch)
    if branch != repository.default_branch and f"refs/heads/{branch}" not in repository.refs:
        raise _invalid("Repository", "default_branch")
    repository.default_branch = branch
    repository.private = call.body.get("private", repository.private)
    repository.description = call.body.get("description", repository.description)
    role = _shown_role(call, repository)
    return Answer(body=call.shapes.repository(repository, role=role))


def _delete_repository(call: Call) -> Answer:
    repository = _find(call, Role.ADMIN)
    del call.hub.repositories[repository.full_name.lower()]
    return Answer(status=204)


def _permission(call: Call) -> Answer:
    repository = _find(call)
    account = _account(call, call.parameters["username"])
    themselves = call.token is not None and call.token.user is account
    if not themselves and call.hub.role_of(call.token, repository) < Role.WRITE:
        raise Refusal(403, "Must have push access to view collaborator permission.")
    role = call.hub.role_of_user(account, repository)
    return Answer(body=call.shapes.permission(account, role))


# Git


def _head(repository: Repository) -> None:
    if repository.is_empty:
        raise Refusal(409, "Git Repository is empty.")


def _branch(call: Call) -> Answer:
    repository = _find(call)
    name = call.parameters["branch"]
    head = repository.head(name)
    if head is None:
        raise Refusal(404, "Branch not found")
    return Answer(body=call.shapes.branch(repository, name, head))


def _ref(call: Call) -> Answer:
    repository = _find(call)
    _head(repository)
    name = f"refs/{call.parameters['ref']}"
    if name not in repository.refs:
        raise Refusal(404, "Not Found")
    return Answer(body=call.shapes.ref(repository, name, repository.refs[name]))


def _matching_refs(call: Call) -> Answer:
    repository = _find(call)
    _head(repository)
    prefix = f"refs/{call.parameters['ref']}"
    found = sorted(name for name in repository.refs if name.startswith(prefix))
    return Answer(body=[call.shapes.ref(repository, name, repository.refs[name]) for name in found])


def _create_ref(call: Call) -> Answer:
    repository = _find(call, Role.WRITE)
    _head(repository)
    name, sha = call.body["ref"], call.body["sha"]
    if not name.startswith("refs/") or name.count("/") < 2:
        raise Refusal(422, "Reference name must start with 'refs/' and have at least two slashes.")
    if name in repository.refs:
        raise Refusal(422, "Reference already exists")
    if repository.git.commit(sha) is None:
        raise Refusal(422, "Object does not exist")
    if name.removeprefix("refs/tags/") in repository.burnt_tags and name.startswith("refs/tags/"):
        raise Refusal(422, "Repository rule violations found\n\nCannot create ref")
    repository.refs[name] = sha
    shape = call.shapes.ref(repository, name, sha)
    return Answer(status=201, body=shape, headers={"Location": shape["url"]})


def _update_ref(call: Call) -> Answer:
    repository = _find(call, Role.WRITE)
    _head(repository)
    name, sha = f"refs/{call.parameters['ref']}", call.body["sha"]
    if name not in repository.refs:
        raise Refusal(422, "Reference does not exist")
    if repository.git.commit(sha) is None:
        raise Refusal(422, "Object does not exist")
    _check_unlocked(repository, name)
    ancestors = {commit.sha for commit in repository.git.history(sha)}
    if not call.body.get("force", False) and repository.refs[name] not in ancestors:
        raise Refusal(422, "Update is not a fast forward")
    repository.refs[name] = sha
    return Answer(body=call.shapes.ref(repository, name, sha))


def _delete_ref(call: Call) -> Answer:
    repository = _find(call, Role.WRITE)
    _head(repository)
    name = f"refs/{call.parameters['ref']}"
    if name not in repository.refs:
        raise Refusal(422, "Reference does not exist")
    _check_unlocked(repository, name)
    del repository.refs[name]
    # A published release whose tag goes away becomes a draft again.
    for release in repository.releases.values():
        if name == f"refs/tags/{release.tag_name}":
            release.published_at = None
    return Answer(status=204)


def _check_unlocked(repository: Repository, name: str) -> None:
    # "Git tags can't be moved" nor deleted: documentation, "Immutable releases".
    if name.startswith("refs/tags/") and name.removeprefix("refs/tags/") in (
        repository.locked_tags()
    ):
        raise Refusal(422, "Repository rule violations found\n\nCannot update this protected ref.")


def _blob(call: Call) -> Answer:
    repository = _find(call)
    sha = call.parameters["file_sha"]
    content = repository.git.blob(sha)
    if content is None:
        raise Refusal(404, "Not Found")
    if len(content) > _MAX_CONTENT:
        raise _too_large("blob")
    if _wants_raw(call):
        return _raw(content)
    return Answer(body=call.shapes.blob(repository, sha, content))


def _create_blob(call: Call) -> Answer:
    repository = _find(call, Role.WRITE)
    _head(repository)
    content = call.body["content"]
    encoded = call.body.get("encoding", "utf-8") == "base64"
    sha = repository.git.add_blob(_decoded(content) if encoded else content.encode())
    shape = call.shapes.short_blob(repository, sha)
    return Answer(status=201, body=shape, headers={"Location": shape["url"]})


def _tree(call: Call) -> Answer:
    repository = _find(call)
    _head(repository)
    name = call.parameters["tree_sha"]
    commit = repository.resolve(name)
    sha = commit.tree if commit else name
    if repository.git.tree(sha) is None:
        raise Refusal(404, "Not Found")
    return Answer(body=call.shapes.tree(repository, sha, recursive="recursive" in call.query))


def _create_tree(call: Call) -> Answer:
    repository = _find(call, Role.WRITE)
    _head(repository)
    git, sha = repository.git, call.body.get("base_tree")
    commit = git.commit(sha) if sha else None
    sha = commit.tree if commit else sha
    if sha is not None and git.tree(sha) is None:
        raise Refusal(422, "Base tree does not exist")
    for item in call.body["tree"]:
        path = item["path"]
        name = path.rpartition("/")[2]
        mode = item.get("mode", FILE_MODE)
        if "content" in item:
            entry = TreeEntry(name=name, mode=mode, sha=git.add_blob(item["content"].encode()))
        elif item.get("sha") is None:
            entry = None
        elif git.kind(item["sha"]) != ("tree" if mode == FOLDER_MODE else "blob"):
            raise Refusal(422, f"GitRPC::BadObjectState: {item['sha']} does not exist")
        else:
            entry = TreeEntry(name=name, mode=mode, sha=item["sha"])
        sha = git.with_entry(sha, path, entry)
    if sha is None:
        raise Refusal(422, "Invalid tree info")
    shape = call.shapes.tree(repository, sha, recursive=False)
    return Answer(status=201, body=shape, headers={"Location": shape["url"]})


def _commit(call: Call) -> Answer:
    repository = _find(call)
    _head(repository)
    commit = repository.git.commit(call.parameters["commit_sha"])
    if commit is None:
        raise Refusal(404, "Not Found")
    return Answer(body=call.shapes.git_commit(repository, commit))


def _create_commit(call: Call) -> Answer:
    repository = _find(call, Role.WRITE)
    _head(repository)
    tree, parents = call.body["tree"], tuple(call.body.get("parents", ()))
    if repository.git.tree(tree) is None:
        raise Refusal(422, "Tree SHA does not exist")
    if any(repository.git.commit(parent) is None for parent in parents):
        raise Refusal(422, "Parent SHA does not exist or is not a commit object")
    author, committer = _people(call)
    commit = repository.git.add_commit(
        tree=tree,
        parents=parents,
        author=author,
        committer=committer,
        message=call.body["message"],
    )
    shape = call.shapes.git_commit(repository, commit)
    return Answer(status=201, body=shape, headers={"Location": shape["url"]})


def _people(call: Call) -> tuple[Person, Person]:
    now, login = call.hub.clock.now(), call.actor.login
    themselves = {"name": login, "email": f"{login}@users.noreply.github.com"}

    def person(given: Mapping[str, str]) -> Person:
        date = datetime.fromisoformat(given["date"]).astimezone(UTC) if "date" in given else now
        return Person(name=given["name"], email=given["email"], date=date)

    committer = {**themselves, **call.body.get("committer", {})}
    return person(call.body.get("author", committer)), person(committer)


# Files on branches


def _readme(call: Call) -> Answer:
    repository = _find(call)
    head = repository.head()
    for entry in repository.git.tree(head.tree) or () if head else ():
        if entry.name.lower().startswith("readme"):
            return _file(call, repository, entry.name, repository.default_branch, entry)
    raise Refusal(404, "Not Found")


def _contents(call: Call) -> Answer:
    repository = _find(call)
    if repository.is_empty:
        raise Refusal(404, "This repository is empty.")
    ref = call.query.get("ref", repository.default_branch)
    commit = repository.resolve(ref)
    if commit is None:
        raise Refusal(404, f"No commit found for the ref {ref}")
    path = call.parameters["path"].strip("/")
    entry = repository.git.find(commit.tree, path)
    if entry is None:
        raise Refusal(404, "Not Found")
    if entry.kind != "tree":
        return _file(call, repository, path, ref, entry)
    below = repository.git.tree(entry.sha) or ()
    prefix = f"{path}/" if path else ""
    return Answer(
        body=[call.shapes.content(repository, prefix + item.name, ref, item) for item in below]
    )


def _file(call: Call, repository: Repository, path: str, ref: str, entry: TreeEntry) -> Answer:
    # Sizes: "Get repository content", "Notes": up to 1 MB everything is supported, up to 100 MB
    # only raw and object (whose content is then empty and its encoding "none"), beyond nothing.
    content = repository.git.blob(entry.sha) or b""
    if len(content) > _MAX_CONTENT:
        raise _too_large("blob")
    if _wants_raw(call):
        return _raw(content)
    shape = call.shapes.content(repository, path, ref, entry)
    if len(content) > _MAX_INLINE:
        return Answer(body={**shape, "content": "", "encoding": "none"})
    return Answer(body={**shape, "content": lines_of_base64(content), "encoding": "base64"})


def _put_contents(call: Call) -> Answer:
    content = _decoded(call.body["content"])
    entry, answer = _change_file(call, content)
    return Answer(status=200 if entry else 201, body=answer)


def _delete_contents(call: Call) -> Answer:
    entry, answer = _change_file(call, None)
    if entry is None:
        raise Refusal(404, "Not Found")
    return Answer(body=answer)


def _change_file(call: Call, content: bytes | None) -> tuple[TreeEntry | None, JSON]:
    repository = _find(call, Role.WRITE)
    branch = call.body.get("branch", repository.default_branch)
    head = repository.head(branch)
    if head is None and not repository.is_empty:
        raise Refusal(404, f"Branch {branch} not found")
    path = call.parameters["path"].strip("/")
    if path.startswith(".github/workflows/") and call.token and call.token.user is None:
        # An Actions job can never be given the permission `workflows`.
        raise Refusal(403, "Resource not accessible by integration")
    old = repository.git.find(head.tree, path) if head else None
    _check_replaced(path, old, call.body.get("sha"))
    if old is None and content is None:
        return None, {}
    author, committer = _people(call)
    commit = repository.commit_file(
        path,
        content,
        branch=branch,
        message=call.body["message"],
        author=author,
        committer=committer,
    )
    new = repository.git.find(commit.tree, path)
    return old, call.shapes.file_commit(repository, path, branch, new, commit)


def _check_replaced(path: str, old: TreeEntry | None, sha: str | None) -> None:
    # The blob that is replaced must be named: this is GitHub's compare-and-swap for a file.
    if old is not None and old.kind == "tree":
        raise Refusal(422, f"{path} is a directory")
    if old is not None and sha is None:
        raise Refusal(422, 'Invalid request.\n\n"sha" wasn\'t supplied.')
    if sha is not None and (old is None or old.sha != sha):
        raise Refusal(409, f"{path} does not match {sha}")


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except binascii.Error as error:
        raise Refusal(422, "content is not valid Base64") from error


def _wants_raw(call: Call) -> bool:
    return "application/vnd.github.raw" in call.accept or "vnd.github.v3.raw" in call.accept


def _raw(content: bytes) -> Answer:
    kind = "application/vnd.github.raw+json; charset=utf-8"
    return Answer(content=content, content_type=kind)


def _too_large(what: str) -> Refusal:
    message = f"This API returns {what}s up to 100 MB in size."
    errors = [{"resource": what.capitalize(), "field": "data", "code": "too_large"}]
    return Refusal(403, message, errors)


# Releases


def _may_see_drafts(call: Call, repository: Repository) -> bool:
    # "Information about draft releases is available only to users with push access."
    return call.hub.role_of(call.token, repository) >= Role.WRITE


def _releases(call: Call) -> Answer:
    repository = _find(call)
    found = call.hub.listed_releases(repository, with_drafts=_may_see_drafts(call, repository))
    page, headers = _page(call, found, limit=call.hub.listing_limit)
    return Answer(body=[_release_shape(call, repository, r) for r in page], headers=headers)


def _release_shape(call: Call, repository: Repository, release: Release) -> JSON:
    shape = call.shapes.release(repository, release)
    shape["assets"] = shape["assets"][: call.hub.inlined_assets]
    if not call.hub.offers_digests:
        shape["assets"] = [{**asset, "digest": None} for asset in shape["assets"]]
    return shape


def _asset_shape(call: Call, repository: Repository, release: Release, asset: Asset) -> JSON:
    digest = call.hub.offers_digests
    return call.shapes.asset(repository, release, asset, digest=digest)


def _find_release(call: Call, repository: Repository) -> Release:
    release = repository.releases.get(int(call.parameters["release_id"]))
    if release is None or (release.draft and not _may_see_drafts(call, repository)):
        raise Refusal(404, "Not Found")
    return release


def _release(call: Call) -> Answer:
    repository = _find(call)
    release = _find_release(call, repository)
    return Answer(body=_release_shape(call, repository, release))


def _latest_release(call: Call) -> Answer:
    repository = _find(call)
    listed = call.hub.listed_releases(repository, with_drafts=False)
    full = [release for release in listed if not release.prerelease]
    if not full:
        raise Refusal(404, "Not Found")
    return Answer(body=_release_shape(call, repository, full[0]))


def _release_by_tag(call: Call) -> Answer:
    repository = _find(call)
    release = _published(repository, call.parameters["tag"])
    if release is None:
        raise Refusal(404, "Not Found")
    return Answer(body=_release_shape(call, repository, release))


def _published(repository: Repository, tag: str) -> Release | None:
    of_tag = (r for r in repository.releases.values() if r.tag_name == tag and not r.draft)
    return next(of_tag, None)


def _create_release(call: Call) -> Answer:
    repository = _find(call, Role.WRITE)
    if repository.is_empty:
        raise Refusal(422, "Repository is empty.")
    tag = call.body["tag_name"]
    _check_release(call, repository, tag)
    now = call.hub.clock.now()
    release = Release(
        id=call.hub.next_id(),
        tag_name=tag,
        target_commitish=call.body.get("target_commitish") or repository.default_branch,
        name=call.body.get("name"),
        body=call.body.get("body"),
        prerelease=call.body.get("prerelease", False),
        author=call.actor,
        drafted_at=now,
        updated_at=now,
        untagged=f"untagged-{secrets.token_hex(10)}",
    )
    if not call.body.get("draft", False):
        _publish(call, repository, release)
    repository.releases[release.id] = release
    shape = _release_shape(call, repository, release)
    return Answer(status=201, body=shape, headers={"Location": shape["url"]})


def _edit_release(call: Call) -> Answer:
    repository = _find(call, Role.WRITE)
    release = _find_release(call, repository)
    body = call.body or {}
    tag = body.get("tag_name", release.tag_name)
    _check_release(call, repository, tag)
    if release.immutable and (tag != release.tag_name or body.get("draft")):
        raise Refusal(422, "Cannot change the tag of an immutable release")
    if not release.draft and tag != release.tag_name and _published(repository, tag):
        raise _already_exists("tag_name")
    if release.draft and not body.get("draft", True):
        # Checked and tagged under the new name and target before anything is changed.
        old = release.tag_name, release.target_commitish
        release.tag_name = tag
        release.target_commitish = body.get("target_commitish") or release.target_commitish
        try:
            _publish(call, repository, release)
        except Refusal:
            release.tag_name, release.target_commitish = old
            raise
    elif body.get("draft"):
        release.published_at = None
    release.tag_name = tag
    release.target_commitish = body.get("target_commitish") or release.target_commitish
    release.name = body.get("name", release.name)
    release.body = body.get("body", release.body)
    release.prerelease = body.get("prerelease", release.prerelease)
    release.updated_at = call.hub.clock.now()
    return Answer(body=_release_shape(call, repository, release))


def _check_release(call: Call, repository: Repository, tag: str) -> None:
    notes = (call.body or {}).get("body") or ""
    if len(notes) > MAX_BODY:
        message = f"body is too long (maximum is {MAX_BODY} characters)"
        errors = [{"resource": "Release", "code": "custom", "field": "body", "message": message}]
        raise Refusal(422, "Validation Failed", errors)
    if not _is_ref(tag):
        message = "tag_name is not a valid tag"
        errors = [
            {"resource": "Release", "code": "custom", "field": "tag_name", "message": message}
        ]
        raise Refusal(422, "Validation Failed", errors)


def _is_ref(name: str) -> bool:
    # The rules of git-check-ref-format.
    parts = name.split("/")
    return (
        all(part and not part.startswith(".") and not part.endswith(".lock") for part in parts)
        and not name.endswith(".")
        and name != "@"
        and not re.search(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{", name)
    )


def _publish(call: Call, repository: Repository, release: Release) -> None:
    """Tag it (at the head of the target, unless the tag is there) and show it to readers."""
    tag = release.tag_name
    if _published(repository, tag):
        raise _already_exists("tag_name")
    if tag in repository.burnt_tags:
        message = "tag_name was used by an immutable release"
        errors = [
            {"resource": "Release", "code": "custom", "field": "tag_name", "message": message}
        ]
        raise Refusal(422, "Validation Failed", errors)
    if f"refs/tags/{tag}" not in repository.refs:
        target = repository.resolve(release.target_commitish)
        if target is None:
            raise _invalid("Release", "target_commitish")
        if call.token and call.token.user is None and _changes_workflows(repository, target):
            raise Refusal(403, "Resource not accessible by integration")
        repository.refs[f"refs/tags/{tag}"] = target.sha
    release.published_at = call.hub.clock.now()
    release.immutable = repository.immutable_releases


def _changes_workflows(repository: Repository, commit: Commit) -> bool:
    """Whether tagging this commit for a release needs the permission `workflows`.

    "GitHub Actions – Enforcing workflow scope when creating a release" (changelog of 2023-11-02).
    """

    def workflows(tree: str) -> str | None:
        entry = repository.git.find(tree, ".github/workflows")
        return entry.sha if entry else None

    before = [repository.git.commit(parent) for parent in commit.parents]
    return any(
        workflows(commit.tree) != (workflows(parent.tree) if parent else None)
        for parent in before or [None]
    )


def _delete_release(call: Call) -> Answer:
    repository = _find(call, Role.WRITE)
    release = _find_release(call, repository)
    if release.immutable:
        repository.burnt_tags.add(release.tag_name)
    for asset in release.assets.values():
        asset.path.unlink(missing_ok=True)
    del repository.releases[release.id]  # its tag stays
    return Answer(status=204)


def _already_exists(name: str) -> Refusal:
    errors = [{"resource": "Release", "code": "already_exists", "field": name}]
    return Refusal(422, "Validation Failed", errors)


def _invalid(resource: str, name: str) -> Refusal:
    errors = [{"resource": resource, "code": "invalid", "field": name}]
    return Refusal(422, "Validation Failed", errors)


# Assets


def begin_upload(call: Call, size: int | None, content_type: str) -> Upload:
    """Make room for an asset of so many bytes, in state "starter".

    The caller writes them to `asset.path` and calls `finish`; until then the asset stays what it
    is, as it does on GitHub after a failure.
    """
    repository = _find(call, Role.WRITE)
    release = _find_release(call, repository)
    if release.immutable:
        raise Refusal(422, "Cannot upload assets to an immutable release.")
    if size is None or size == 0:
        raise Refusal(400, "Bad Content-Length: 0")
    if size > MAX_ASSET_BYTES:
        errors = [{"resource": "ReleaseAsset", "code": "custom", "field": "size"}]
        raise Refusal(422, "Validation Failed", errors)
    name = asset_name(call.query["name"])
    taken = any(asset.name == name for asset in release.assets.values())
    if taken or len(release.assets) >= MAX_ASSETS:
        code, field_name = ("already_exists", "name") if taken else ("custom", "assets")
        errors = [{"resource": "ReleaseAsset", "code": code, "field": field_name}]
        raise Refusal(422, "Validation Failed", errors)
    now = call.hub.clock.now()
    asset = Asset(
        id=call.hub.next_id(),
        name=name,
        label=call.query.get("label", ""),
        content_type=content_type,
        uploader=call.actor,
        created_at=now,
        updated_at=now,
        path=call.hub.folder / f"asset-{secrets.token_hex(8)}",
    )
    asset.path.touch()
    release.assets[asset.id] = asset
    return Upload(call=call, repository=repository, release=release, asset=asset, size=size)


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """An asset on its way."""

    call: Call
    repository: Repository
    release: Release
    asset: Asset
    size: int

    def finish(self, sha256: str) -> Answer:
        """Everything is there, and this is its digest (hex)."""
        if self.asset.id not in self.release.assets:
            raise Refusal(404, "Not Found")  # deleted meanwhile
        self.asset.size = self.size
        self.asset.sha256 = sha256
        self.asset.state = "uploaded"
        self.asset.updated_at = self.call.hub.clock.now()
        shape = _asset_shape(self.call, self.repository, self.release, self.asset)
        return Answer(status=201, body=shape, headers={"Location": shape["url"]})


def _assets(call: Call) -> Answer:
    repository = _find(call)
    release = _find_release(call, repository)
    page, headers = _page(call, list(release.assets.values()))
    shapes = [_asset_shape(call, repository, release, asset) for asset in page]
    return Answer(body=shapes, headers=headers)


def _find_asset(call: Call, repository: Repository) -> tuple[Release, Asset]:
    number = int(call.parameters["asset_id"])
    for release in repository.releases.values():
        if number in release.assets and (not release.draft or _may_see_drafts(call, repository)):
            return release, release.assets[number]
    raise Refusal(404, "Not Found")


def _asset(call: Call) -> Answer:
    repository = _find(call)
    release, asset = _find_asset(call, repository)
    if "application/octet-stream" not in call.accept:
        return Answer(body=_asset_shape(call, repository, release, asset))
    if asset.state != "uploaded":
        raise Refusal(404, "Not Found")
    asset.download_count += 1
    return Answer(
        status=302, headers={"Location": signed_url(call.hub, call.storage, repository, asset)}
    )


def signed_url(hub: Hub, storage: str, repository: Repository, asset: Asset) -> str:
    """Where the content is, for a while and for whoever holds this address.

    `se` is the end of its validity, `sig` its signature, as in a shared access signature.
    """
    path = f"/github-production-release-asset/{repository.id}/{asset.id}"
    end = hub.clock.now() + hub.asset_url_validity
    query = {
        "sp": "r",
        "sv": "2018-11-09",
        "sr": "b",
        "se": end.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "rscd": f"attachment; filename={asset.name}",
        "rsct": "application/octet-stream",
    }
    return f"{storage}{path}?{urlencode({**query, 'sig': signature(hub, path, query)})}"


def signature(hub: Hub, path: str, query: Mapping[str, str]) -> str:
    """Base64 of what only this hub can compute about a path and its parameters (without `sig`)."""
    message = json.dumps([path, sorted((k, v) for k, v in query.items() if k != "sig")])
    digest = hmac.new(hub.signing_key, message.encode(), hashlib.sha256).digest()
    return base64.b64encode(digest).decode()


def _edit_asset(call: Call) -> Answer:
    repository = _find(call, Role.WRITE)
    release, asset = _find_asset(call, repository)
    if release.immutable:
        raise Refusal(422, "Cannot update assets of an immutable release.")
    body = call.body or {}
    name = asset_name(body.get("name", asset.name))
    if any(other.name == name and other is not asset for other in release.assets.values()):
        errors = [{"resource": "ReleaseAsset", "code": "already_exists", "field": "name"}]
        raise Refusal(422, "Validation Failed", errors)
    asset.name, asset.label = name, body.get("label", asset.label)
    asset.updated_at = call.hub.clock.now()
    return Answer(body=_asset_shape(call, repository, release, asset))


def _delete_asset(call: Call) -> Answer:
    repository = _find(call, Role.WRITE)
    release, asset = _find_asset(call, repository)
    if release.immutable:
        raise Refusal(422, "Cannot delete assets of an immutable release.")
    asset.path.unlink(missing_ok=True)
    del release.assets[asset.id]
    return Answer(status=204)


# Workflows and pages


def _dispatch_workflow(call: Call) -> Answer:
    repository = _find(call, Role.WRITE)
    workflow, ref = call.parameters["workflow_id"], call.body["ref"]
    commit = repository.resolve(ref)
    if commit is None:
        raise Refusal(422, f"No ref found for: {ref}")
    if repository.git.find(commit.tree, f".github/workflows/{workflow}") is None:
        raise Refusal(404, "Not Found")
    repository.dispatches.append(
        {"workflow": workflow, "ref": ref, "inputs": call.body.get("inputs", {})}
    )
    if not call.body.get("return_run_details", False):
        return Answer(status=204)
    run, url = call.hub.next_id(), f"{call.shapes.api}/repos/{repository.full_name}/actions/runs"
    return Answer(
        body={
            "workflow_run_id": run,
            "run_url": f"{url}/{run}",
            "html_url": f"{call.shapes.html}/{repository.full_name}/actions/runs/{run}",
        }
    )


def _dispatch(call: Call) -> Answer:
    repository = _find(call, Role.WRITE)
    repository.dispatches.append(
        {"event": call.body["event_type"], "payload": call.body.get("client_payload", {})}
    )
    return Answer(status=204)


def _pages(call: Call) -> Answer:
    repository = _find(call)
    if repository.pages is None:
        raise Refusal(404, "Not Found")
    return Answer(body=call.shapes.pages(repository, repository.pages))


def _create_pages(call: Call) -> Answer:
    repository = _find(call, Role.MAINTAIN)
    if repository.pages is not None:
        raise Refusal(409, "GitHub Pages is already enabled.")
    _check_source(repository, call.body)
    repository.pages = dict(call.body)
    return Answer(status=201, body=call.shapes.pages(repository, repository.pages))


def _edit_pages(call: Call) -> Answer:
    repository = _find(call, Role.MAINTAIN)
    if repository.pages is None:
        raise Refusal(404, "Not Found")
    _check_source(repository, call.body)
    if call.body.get("public") is False and not call.hub.restricts_pages:
        raise Refusal(422, "Access control is not available for this GitHub Pages site.")
    repository.pages = {**repository.pages, **call.body}
    return Answer(status=204)


def _delete_pages(call: Call) -> Answer:
    repository = _find(call, Role.MAINTAIN)
    if repository.pages is None:
        raise Refusal(404, "Not Found")
    repository.pages = None
    return Answer(status=204)


def _check_source(repository: Repository, settings: Mapping[str, Any]) -> None:
    source = settings.get("source")
    branch = source.get("branch") if isinstance(source, dict) else None
    if branch is not None and repository.head(branch) is None:
        raise Refusal(422, f"The {branch} branch must exist before GitHub Pages can be built.")


# Pages of listings


def _page(
    call: Call, items: Sequence[Any], *, limit: int | None = None
) -> tuple[Sequence[Any], dict[str, str]]:
    """The items of the page asked for, and the Link header.

    "Only the first 10000 results are available." is what GitHub answers (422) beyond `limit`.
    """
    size = min(max(int(call.query.get("per_page", 30)), 1), 100)
    number = max(int(call.query.get("page", 1)), 1)
    if limit is not None and (number - 1) * size >= limit:
        raise Refusal(422, f"Only the first {limit} results are available.")
    available = items[:limit] if limit is not None else items
    last = max(-(-len(available) // size), 1)
    links: dict[str, int] = {}
    if number > 1:
        links |= {"prev": number - 1}
    if number < last:
        links |= {"next": number + 1, "last": last}
    if number > 1:
        links |= {"first": 1}
    text = ", ".join(
        f'<{call.url}?{urlencode({**call.query, "page": page}, quote_via=quote)}>; rel="{rel}"'
        for rel, page in links.items()
    )
    start = (number - 1) * size
    return available[start : start + size], {"Link": text} if text else {}
