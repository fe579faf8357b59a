"""Sets up a package repository on GitHub: finds out what is missing, and creates it.

This is the only module that imports PyGithub. That takes time and 35 MB of memory, so commands
import this module only when they run. Retries and pauses of PyGithub are switched off: if a command
fails, it can be run again, and continues.
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
from private_pypi_github.answers import message_in
from private_pypi_github.workflow import MARK, WORKFLOW_PATH

_TIMEOUT = 60  # seconds between two packets
_NEW_REPOSITORY = 20.0  # seconds to wait for the first commit of a new repository
_OLD_WORKFLOW = ".github/workflows/main.yml"
_OBJECT = {"Accept": "application/vnd.github.object+json"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """How a package repository should be set up."""

    owner: str
    repo: str
    branch: str | None  # of the index; None: the default branch
    index_filename: str
    index: bytes  # the document of an empty index
    private: bool
    pages: bool
    workflow: Callable[[bool], str]  # its text; the argument tells whether it publishes pages

    @property
    def full_name(self) -> str:
        return f"{self.owner}/{self.repo}"


@dataclass(frozen=True, slots=True)
class File:
    """A file of a branch."""

    text: str
    sha: str  # its id in git


@dataclass(frozen=True, slots=True)
class Pages:
    """The settings of a repository's GitHub Pages."""

    by_workflow: bool
    public: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class CurrentState:
    """What a package repository already has."""

    private: bool
    default_branch: str
    is_new: bool
    is_empty: bool  # there is no commit
    has_branch: bool  # the branch of the index
    has_index: bool
    head_changes_workflows: bool  # the newest commit on the branch of the index changes one
    workflows: Mapping[str, File | None]  # by branch; a release runs the one in its commit
    pages: Pages | None
    has_dead_workflow: bool  # the one of private-pypi 0.2, which does not work any more


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
    branch: str | None  # None: the first commit of an empty repository
    content: bytes
    replaces: str | None = None  # the git id of the file before; None: a new file

    def __str__(self) -> str:
        where = "" if self.branch is None else f" on branch {self.branch!r}"
        return f"{'create' if self.replaces is None else 'renew'} {self.path!r}{where}"


@dataclass(frozen=True, slots=True)
class AddEmptyCommit:
    """If a commit changes a workflow, GitHub lets only tokens that may write workflows tag it.

    So such a commit must not be the newest one on the branch of the index, which releases tag.
    """

    branch: str

    def __str__(self) -> str:
        return f"add an empty commit to branch {self.branch!r}, which releases can tag"


@dataclass(frozen=True, slots=True)
class PublishPages:
    is_switch: bool  # pages are published already, but from a branch
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
    """The steps that are missing, in an order that does no harm if a step fails."""

    steps: tuple[Step, ...]
    notes: tuple[str, ...]
    workflow: str  # its text


def new_repository(wanted: Wanted) -> CurrentState:
    """What a repository has right after it was created."""
    return CurrentState(
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


def plan(wanted: Wanted, found: CurrentState) -> Plan:
    """The steps from the current state to the wanted one.

    Raises `ConfigurationError` if the repository is public, but should be private.
    """
    if wanted.private and not found.private:
        raise ConfigurationError(
            f"{wanted.full_name!r} exists and is public: everybody can read what is published in "
            "it; give --private false if you want that"
        )
    steps: list[Step] = []
    notes: list[str] = []
    if not wanted.private and found.private:
        notes.append(f"{wanted.full_name!r} exists and stays private")
    branch = wanted.branch or found.default_branch
    if found.is_empty:
        title = f"# {wanted.repo}\n\nPython packages, kept by private_pypi in the releases.\n"
        steps.append(WriteFile("README.md", None, title.encode()))
    if not found.has_branch:
        steps.append(CreateBranch(branch, found.default_branch, found.is_new))
    # If the workflow publishes pages, it continues to, even if the flag is not given again.
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
            f"{_OLD_WORKFLOW!r}, of private-pypi 0.2, fails since GitHub removed ::set-env in "
            "November 2020; delete it"
        )
    return Plan(tuple(steps), tuple(notes), text)


class Account:
    """GitHub as it is seen with a token."""

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
        """The user of the token; raises `ConfigurationError` if it has none."""
        with _trouble("ask whose token this is"):
            try:
                return self._github.get_user().login
            except RateLimitExceededException:
                raise
            except GithubException as error:
                # GitHub refuses this to tokens of workflows and Apps.
                if error.status in (403, 404):
                    raise ConfigurationError(
                        "this token has no user (it is of a workflow or an App): give --owner"
                    ) from error
                raise

    def look(self, wanted: Wanted) -> CurrentState | None:
        """The current state; None if there is no repository that the token may see."""
        with _trouble(f"look at {wanted.full_name!r}"):
            repository = self._repository(wanted)
            return None if repository is None else _look(repository, wanted)

    def carry_out(
        self, step: Step, wanted: Wanted, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        """Carry out a step; raises an error of private_pypi with GitHub's message."""
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
                f"--owner: GitHub has no user or organisation {wanted.owner!r}"
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


def _look(repository: Repository, wanted: Wanted) -> CurrentState:
    default = repository.default_branch
    branch = wanted.branch or default
    heads = {name: _head(repository, name) for name in {default, branch}}
    is_empty = not any(heads.values())
    # A branch that does not exist yet will start with the files of the default branch.
    source = {name: name if there else default for name, there in heads.items()}
    workflows = {
        name: None if is_empty else _read(repository, WORKFLOW_PATH, start)
        for name, start in source.items()
    }
    old = _read(repository, _OLD_WORKFLOW, default) if heads[default] else None
    return CurrentState(
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
    """The git id of the folder with the workflows in a commit."""
    try:
        found = repository.get_contents(".github", ref=commit)
    except UnknownObjectException:
        return None
    there = found if isinstance(found, list) else []
    return next((each.sha for each in there if each.name == "workflows"), None)


def _is_there(repository: Repository, path: str, branch: str) -> bool:
    """Whether a branch has a file, which may be too large for GitHub to send."""
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
    """Switch the pages on; those of a private repository only if GitHub can restrict them.

    Only Enterprise Cloud can. New pages show nothing before the first deployment, so they can be
    restricted after they were switched on.
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
    """Turn errors of PyGithub and `requests` into errors of private_pypi, without the token."""
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
    return message_in(error.data, error.message or "no reason given")
