"""REST operations on accounts, repositories, workflows and pages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .calls import (
    REPO,
    Answer,
    Call,
    Handler,
    Refusal,
    find,
    invalid,
    page_of,
    shown_role,
)
from .state import (
    Account,
    RateLimit,
    Repository,
    Role,
)

_LONGEST_BODY = 65_536  # characters of the text of a pull request

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


def _repository(call: Call) -> Answer:
    repository = find(call, Role.METADATA)
    role = shown_role(call, repository)
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
    page, headers = page_of(call, found)
    shapes = [call.shapes.repository(r, role=shown_role(call, r), minimal=minimal) for r in page]
    return Answer(body=shapes, headers=headers)


def _installation_repositories(call: Call) -> Answer:
    if call.token is None or call.token.user is not None:
        raise Refusal(403, "You must authenticate with an installation access token")
    token = call.token
    found = [r for name, r in call.hub.repositories.items() if name in token.rights]
    page, headers = page_of(call, found)
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
    repository = find(call, Role.ADMIN)
    branch = call.body.get("default_branch", repository.default_branch)
    if branch != repository.default_branch and f"refs/heads/{branch}" not in repository.refs:
        raise invalid("Repository", "default_branch")
    repository.default_branch = branch
    repository.private = call.body.get("private", repository.private)
    repository.description = call.body.get("description", repository.description)
    role = shown_role(call, repository)
    return Answer(body=call.shapes.repository(repository, role=role))


def _delete_repository(call: Call) -> Answer:
    repository = find(call, Role.ADMIN)
    del call.hub.repositories[repository.full_name.lower()]
    return Answer(status=204)


def _permission(call: Call) -> Answer:
    repository = find(call)
    account = _account(call, call.parameters["username"])
    themselves = call.token is not None and call.token.user is account
    if not themselves and call.hub.role_of(call.token, repository) < Role.WRITE:
        raise Refusal(403, "Must have push access to view collaborator permission.")
    role = call.hub.role_of_user(account, repository)
    return Answer(body=call.shapes.permission(account, role))


# Workflows and pages


def _dispatch_workflow(call: Call) -> Answer:
    repository = find(call, Role.WRITE)
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
    repository = find(call, Role.WRITE)
    repository.dispatches.append(
        {"event": call.body["event_type"], "payload": call.body.get("client_payload", {})}
    )
    return Answer(status=204)


def _pages(call: Call) -> Answer:
    repository = find(call)
    if repository.pages is None:
        raise Refusal(404, "Not Found")
    return Answer(body=call.shapes.pages(repository, repository.pages))


def _create_pages(call: Call) -> Answer:
    repository = find(call, Role.MAINTAIN)
    if repository.pages is not None:
        raise Refusal(409, "GitHub Pages is already enabled.")
    _check_source(repository, call.body)
    repository.pages = dict(call.body)
    return Answer(status=201, body=call.shapes.pages(repository, repository.pages))


def _edit_pages(call: Call) -> Answer:
    repository = find(call, Role.MAINTAIN)
    if repository.pages is None:
        raise Refusal(404, "Not Found")
    _check_source(repository, call.body)
    if call.body.get("public") is False and not call.hub.restricts_pages:
        raise Refusal(422, "Access control is not available for this GitHub Pages site.")
    repository.pages = {**repository.pages, **call.body}
    return Answer(status=204)


def _delete_pages(call: Call) -> Answer:
    repository = find(call, Role.MAINTAIN)
    if repository.pages is None:
        raise Refusal(404, "Not Found")
    repository.pages = None
    return Answer(status=204)


def _check_source(repository: Repository, settings: Mapping[str, Any]) -> None:
    source = settings.get("source")
    branch = source.get("branch") if isinstance(source, dict) else None
    if branch is not None and repository.head(branch) is None:
        raise Refusal(422, f"The {branch} branch must exist before GitHub Pages can be built.")


def _create_pull(call: Call) -> Answer:
    """Open a pull request. Branches that git has pushed elsewhere count as there."""
    repository = find(call, Role.WRITE)
    told = {name: str(call.body.get(name, "")) for name in ("title", "body", "head", "base")}
    if not told["title"]:
        raise invalid("PullRequest", "title")
    if repository.head(told["base"]) is None:
        raise invalid("PullRequest", "base")
    if len(told["body"]) > _LONGEST_BODY:
        raise invalid("PullRequest", "body")
    repository.pulls.append(told)
    shape = call.shapes.pull_request(repository, len(repository.pulls), told, call.actor)
    return Answer(status=201, body=shape, headers={"Location": shape["url"]})


HANDLERS: Mapping[str, Handler] = {
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
    f"GET {REPO}": _repository,
    f"PATCH {REPO}": _edit_repository,
    f"DELETE {REPO}": _delete_repository,
    f"GET {REPO}/collaborators/{{username}}/permission": _permission,
    f"POST {REPO}/actions/workflows/{{workflow_id}}/dispatches": _dispatch_workflow,
    f"POST {REPO}/dispatches": _dispatch,
    f"POST {REPO}/pulls": _create_pull,
    f"GET {REPO}/pages": _pages,
    f"POST {REPO}/pages": _create_pages,
    f"PUT {REPO}/pages": _edit_pages,
    f"DELETE {REPO}/pages": _delete_pages,
}
