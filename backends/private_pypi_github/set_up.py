"""A package repository on GitHub: what is there, what is missing, and how it is made.

The only module that imports PyGithub, which takes a while and 35 MB: commands import this one when
they run. Its own retries and pacing are off; who runs a command again completes what is missing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import requests
from github import Auth, Github, GithubException, RateLimitExceededException, UnknownObjectException
from github.GithubObject import NotSet
from github.Repository import Repository

from private_pypi.backend import Secret
from private_pypi.errors import (
    BackendError,
    BackendUnavailable,
    ConfigurationError,
    NotAllowed,
    WrongSecret,
    cause_of,
)
from private_pypi_github.workflow import MARK, WORKFLOW_PATH

_TIMEOUT = 60  # seconds without a byte
_NEW_REPOSITORY = 20.0  # seconds until its first commit is there
_OLD_WORKFLOW = ".github/workflows/main.yml"
_OBJECT = {"Accept": "application/vnd.github.object+json"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A package repository as it shall be."""

    owner: str
    repo: str
    branch: str | None  # of the index; None: the default branch
    index_filename: str
    index: bytes  # the document of an empty index
    private: bool
    pages: bool
    workflow: Callable[[bool], str]  # its text, with or without the pages

    @property
    def full_name(self) -> str:
        return f"{self.owner}/{self.repo}"


@dataclass(frozen=True, slots=True)
class File:
    """A file of a branch."""

    text: str
    sha: str  # of its blob


@dataclass(frozen=True, slots=True)
class Pages:
    """How the site of a repository is published."""

    by_workflow: bool
    public: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What is there of it."""

    private: bool
    default_branch: str
    is_new: bool
    is_empty: bool  # without a commit
    has_branch: bool
    has_index: bool
    head_changes_workflows: bool  # the newest commit of the branch
    workflows: Mapping[str, File | None]  # by branch; releases run that of their commit
    pages: Pages | None
    has_dead_workflow: bool  # of private-pypi 0.2


@dataclass(frozen=True, slots=True)
class CreateRepository:
    wanted: Wanted

    def __str__(self) -> str:
        kind = "private" if self.wanted.private else "public"
        return f"create the {kind} repository {self.wanted.full_name!r}"


@dataclass(frozen=True, slots=True)
class CreateBranch:
    name: str
    start: str
    becomes_default: bool

    def __str__(self) -> str:
        default = ", which becomes the default" if self.becomes_default else ""
        return f"create branch {self.name!r} at the head of {self.start!r}{default}"


@dataclass(frozen=True, slots=True)
class WriteFile:
    path: str
    branch: str | None  # None: of a repository without a commit
    content: bytes
    replaces: str | None = None  # the blob

    def __str__(self) -> str:
        where = "" if self.branch is None else f" on branch {self.branch!r}"
        return f"{'create' if self.replaces is None else 'renew'} {self.path!r}{where}"


@dataclass(frozen=True, slots=True)
class AddEmptyCommit:
    """GitHub lets only tokens with the right to workflows tag a commit that changes one.

    So no such commit may stay the head of the branch that releases tag.
    """

    branch: str

    def __str__(self) -> str:
        return f"add an empty commit to branch {self.branch!r}, which releases can tag"


@dataclass(frozen=True, slots=True)
class PublishPages:
    is_switch: bool  # from a branch, which is published now
    private: bool

    def __str__(self) -> str:
        if self.is_switch:
            return "let the workflow publish the pages, in place of a branch"
        return "switch the pages on" + (
            ", for those who may read the repository" if self.private else ""
        )


Step = CreateRepository | CreateBranch | WriteFile | AddEmptyCommit | PublishPages


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done, in an order that does no harm when it ends early."""

    steps: tuple[Step, ...]
    notes: tuple[str, ...]
    workflow: str  # its text


def new_repository(wanted: Wanted) -> Found:
    """What is there right after a repository was created."""
    return Found(
        private=wanted.private,
        default_branch="main",
        is_new=True,
        is_empty=False,
        has_branch=wanted.branch in (None, "main"),
        has_index=False,
        head_changes_workflows=False,
        workflows={},
        pages=None,
        has_dead_workflow=False,
    )


def plan(wanted: Wanted, found: Found) -> Plan:
    """From what is there to what shall be, in an order in which nothing runs too early.

    Raises `ConfigurationError` when the repository is public although a private one is wanted.
    """
    if wanted.private and not found.private:
        raise ConfigurationError(
            f"{wanted.full_name!r} is there and public: everybody can read what is published in "
            "it; give --private false if that is meant"
        )
    steps: list[Step] = []
    notes: list[str] = []
    if not wanted.private and found.private:
        notes.append(f"{wanted.full_name!r} is there and stays private")
    branch = wanted.branch or found.default_branch
    if found.is_empty:
        title = f"# {wanted.repo}\n\nPython packages, kept by private_pypi in the releases.\n"
        steps.append(WriteFile("README.md", None, title.encode()))
    if not found.has_branch:
        steps.append(CreateBranch(branch, found.default_branch, found.is_new))
    # A site that the workflow publishes stays, whether it is asked for again or not.
    pages = wanted.pages or (found.pages is not None and found.pages.by_workflow)
    if pages:
        restrict = found.private and (found.pages is None or found.pages.public)
        if found.pages is None or not found.pages.by_workflow or restrict:
            steps.append(PublishPages(found.pages is not None, found.private))
    text = wanted.workflow(pages)
    default = branch if found.is_new else found.default_branch
    for where in dict.fromkeys((branch, default)):
        there = found.workflows.get(where)
        if there is None:
            steps.append(WriteFile(WORKFLOW_PATH, where, text.encode()))
        elif there.text != text and there.text.startswith(MARK):
            steps.append(WriteFile(WORKFLOW_PATH, where, text.encode(), there.sha))
        elif there.text != text:
            notes.append(
                f"{WORKFLOW_PATH!r} on branch {where!r} was written by somebody else and stays"
            )
    if not found.has_index:
        steps.append(WriteFile(wanted.index_filename, branch, wanted.index))
    elif found.head_changes_workflows or any(
        isinstance(step, WriteFile) and (step.path, step.branch) == (WORKFLOW_PATH, branch)
        for step in steps
    ):
        steps.append(AddEmptyCommit(branch))
    if found.has_dead_workflow:
        notes.append(
            f"{_OLD_WORKFLOW!r}, of private-pypi 0.2, fails since GitHub took ::set-env away in "
            "November 2020; remove it"
        )
    return Plan(tuple(steps), tuple(notes), text)


class Account:
    """GitHub as a token sees it."""

    def __init__(self, api_url: str, token: Secret) -> None:
        try:
            self._github = Github(
                auth=Auth.Token(token.reveal()),
                base_url=api_url,
                timeout=_TIMEOUT,
                retry=None,
                seconds_between_requests=None,
                seconds_between_writes=None,
                user_agent="private_pypi",
            )
        except (AssertionError, ValueError) as error:
            raise ConfigurationError(f"--api_url: {api_url!r}: {error}") from error

    def close(self) -> None:
        self._github.close()

    def login(self) -> str:
        """The user of the token; raises `ConfigurationError` when it has none."""
        with _trouble("ask whose token this is"):
            try:
                return self._github.get_user().login
            except RateLimitExceededException:
                raise
            except GithubException as error:
                # The tokens of workflows and of other installations of Apps.
                if error.status in (403, 404):
                    raise ConfigurationError(
                        "this token has no user (it is of a workflow or an App): give --owner"
                    ) from error
                raise

    def look(self, wanted: Wanted) -> Found | None:
        """What is there; None when there is no such repository, or none that the token may see."""
        with _trouble(f"look at {wanted.full_name!r}"):
            repository = self._repository(wanted)
            return None if repository is None else _look(repository, wanted)

    def carry_out(
        self, step: Step, wanted: Wanted, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        """Do it; raises one of our errors with what GitHub said."""
        with _trouble(str(step)):
            if isinstance(step, CreateRepository):
                self._create(wanted, sleep)
                return
            repository = self._repository(wanted)
            if repository is None:
                raise BackendError(f"{wanted.full_name!r} vanished")
            match step:
                case CreateBranch(name, start, becomes_default):
                    head = repository.get_git_ref(f"heads/{start}").object.sha
                    repository.create_git_ref(f"refs/heads/{name}", head)
                    if becomes_default:
                        repository.edit(default_branch=name)
                case WriteFile(path, branch, content, replaces):
                    _write(repository, path, branch, content, replaces)
                case AddEmptyCommit(branch):
                    ref = repository.get_git_ref(f"heads/{branch}")
                    newest = repository.get_git_commit(ref.object.sha)
                    message = "Be a commit that releases can tag"
                    ref.edit(repository.create_git_commit(message, newest.tree, [newest]).sha)
                case PublishPages(is_switch, private):
                    _publish_pages(repository, is_switch=is_switch, private=private)

    def _repository(self, wanted: Wanted) -> Repository | None:
        try:
            return self._github.get_repo(wanted.full_name)
        except UnknownObjectException:
            return None

    def _create(self, wanted: Wanted, sleep: Callable[[float], None]) -> None:
        try:
            kind = self._github.get_user(wanted.owner).type
        except UnknownObjectException as error:
            raise ConfigurationError(
                f"--owner: GitHub has no user or organization {wanted.owner!r}"
            ) from error
        maker: Any
        if kind == "Organization":
            maker = self._github.get_organization(wanted.owner)
        elif self.login().lower() == wanted.owner.lower():
            maker = self._github.get_user()
        else:
            raise ConfigurationError(
                f"--owner: {wanted.owner!r} is a user, and this token is somebody else's"
            )
        repository = maker.create_repo(
            wanted.repo,
            description="Python packages, kept by private_pypi in the releases",
            private=wanted.private,
            auto_init=True,
            has_issues=False,
            has_projects=False,
            has_wiki=False,
        )
        # GitHub answers before the first commit is there.
        deadline = time.monotonic() + _NEW_REPOSITORY
        while True:
            try:
                repository.get_git_ref(f"heads/{repository.default_branch}")
                return
            except GithubException as error:
                if error.status not in (404, 409) or time.monotonic() > deadline:
                    raise
            sleep(1.0)


def _look(repository: Repository, wanted: Wanted) -> Found:
    default = repository.default_branch
    branch = wanted.branch or default
    heads = {name: _head(repository, name) for name in {default, branch}}
    is_empty = not any(heads.values())
    # A branch that is made at the head of another has its files.
    source = {name: name if there else default for name, there in heads.items()}
    workflows = {
        name: None if is_empty else _read(repository, WORKFLOW_PATH, start)
        for name, start in source.items()
    }
    old = _read(repository, _OLD_WORKFLOW, default) if heads[default] else None
    return Found(
        private=repository.private,
        default_branch=default,
        is_new=False,
        is_empty=is_empty,
        has_branch=heads[branch] or (is_empty and branch == default),
        has_index=not is_empty and _is_there(repository, wanted.index_filename, source[branch]),
        head_changes_workflows=not is_empty and _changes_workflows(repository, source[branch]),
        workflows=workflows,
        pages=_pages(repository) if wanted.pages or repository.has_pages else None,
        has_dead_workflow=old is not None and "::set-env" in old.text,
    )


def _head(repository: Repository, branch: str) -> bool:
    try:
        repository.get_git_ref(f"heads/{branch}")
    except GithubException as error:
        if error.status in (404, 409):  # 409: "Git Repository is empty."
            return False
        raise
    return True


def _changes_workflows(repository: Repository, branch: str) -> bool:
    head = repository.get_git_commit(repository.get_git_ref(f"heads/{branch}").object.sha)
    before = _workflows(repository, head.parents[0].sha) if head.parents else None
    return _workflows(repository, head.sha) != before


def _workflows(repository: Repository, commit: str) -> str | None:
    """The tree of the workflows in a commit."""
    try:
        found = repository.get_contents(".github", ref=commit)
    except UnknownObjectException:
        return None
    there = found if isinstance(found, list) else []
    return next((each.sha for each in there if each.name == "workflows"), None)


def _is_there(repository: Repository, path: str, branch: str) -> bool:
    """Whether a branch has a file, of whatever size."""
    try:
        repository.requester.requestJsonAndCheck(
            "GET",
            f"{_root(repository)}/contents/{quote(path)}",
            parameters={"ref": branch},
            headers=_OBJECT,
        )
    except UnknownObjectException:
        return False
    except GithubException as error:
        # "This API returns blobs up to 100 MB in size."
        if error.status == 403 and "too_large" in str(error.data):
            return True
        raise
    return True


def _read(repository: Repository, path: str, branch: str) -> File | None:
    try:
        found = repository.get_contents(path, ref=branch)
    except UnknownObjectException:
        return None
    if isinstance(found, list):
        raise BackendError(f"{path!r} is a folder on branch {branch!r}")
    return File(found.decoded_content.decode("utf-8", "replace"), found.sha)


def _write(
    repository: Repository, path: str, branch: str | None, content: bytes, replaces: str | None
) -> None:
    where = NotSet if branch is None else branch
    if replaces is None:
        repository.create_file(path, f"Create {path}", content, where)
    else:
        repository.update_file(path, f"Renew {path}", content, replaces, where)


def _pages(repository: Repository) -> Pages | None:
    try:
        _, value = repository.requester.requestJsonAndCheck("GET", f"{_root(repository)}/pages")
    except UnknownObjectException:
        return None
    return Pages(by_workflow=value.get("build_type") == "workflow", public=value["public"] is True)


def _root(repository: Repository) -> str:
    return f"/repos/{repository.full_name}"


def _publish_pages(repository: Repository, *, is_switch: bool, private: bool) -> None:
    """Nothing is shown before a deployment, so the site can be restricted after it was made.

    Only Enterprise Cloud restricts sites; elsewhere that of a private repository is for everybody.
    """
    address = f"{_root(repository)}/pages"
    ask = repository.requester.requestJsonAndCheck
    if is_switch and private:
        _restrict(repository)
    ask("PUT" if is_switch else "POST", address, input={"build_type": "workflow"})
    if not is_switch and private:
        try:
            _restrict(repository)
        except (GithubException, NotAllowed):
            ask("DELETE", address)
            raise


def _restrict(repository: Repository) -> None:
    pages = _pages(repository)
    if pages is not None and not pages.public:
        return
    said = ""
    try:
        repository.requester.requestJsonAndCheck(
            "PUT", f"{_root(repository)}/pages", input={"public": False}
        )
    except RateLimitExceededException:
        raise
    except GithubException as error:
        if error.status >= 500:
            raise
        said = f" ({_said(error)})"
    pages = _pages(repository)
    if pages is None or pages.public:
        raise NotAllowed(
            f"GitHub would show the pages of the private repository {repository.full_name!r} to "
            f"everybody{said}; only GitHub Enterprise Cloud restricts them. They were not "
            "switched on; serve the folder of github.gen_gh_pages yourself, or run "
            "without --enable_gh_pages"
        )


@contextmanager
def _trouble(doing: str) -> Iterator[None]:
    """GitHub's errors as ours; no message has the token."""
    try:
        yield
    except RateLimitExceededException as error:
        raise BackendUnavailable(
            f"cannot {doing}: GitHub limits the requests of this token: {_said(error)}",
            retry_after=60,
        ) from error
    except GithubException as error:
        said = f"cannot {doing}: GitHub says {error.status}, {_said(error)}"
        if error.status == 401:
            raise WrongSecret("GitHub does not know this token, or it has expired") from error
        if error.status in (403, 404):
            raise NotAllowed(
                f"{said}; docs/github.md tells which rights the token needs"
            ) from error
        if error.status >= 500:
            raise BackendUnavailable(f"{said}; run this again later") from error
        raise BackendError(said) from error
    except requests.RequestException as error:
        raise BackendUnavailable(
            f"cannot {doing}: GitHub does not answer ({cause_of(error)})"
        ) from error


def _said(error: GithubException) -> str:
    data = error.data if isinstance(error.data, dict) else {}
    parts = [str(data.get("message") or error.message or "nothing more")]
    errors = data.get("errors")
    for each in errors if isinstance(errors, list) else [errors]:
        said = each.get("message") if isinstance(each, dict) else each
        if said:
            parts.append(str(said))
    return "; ".join(parts)[:500]
