"""What a GitHub knows: accounts, tokens, repositories, releases, assets; nothing about HTTP."""

from __future__ import annotations

import base64
import itertools
import re
import secrets
import threading
import time
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from pathlib import Path

from .git import FILE_MODE, Commit, GitObjects, Person, TreeEntry

_USER_RATE = 5000
_INSTALLATION_RATE = 1000  # "1,000 requests per hour per repository" for GITHUB_TOKEN
_ANONYMOUS_RATE = 60
_HOUR = 3600


class Role(IntEnum):
    """What an account may do with a repository; each includes those before it."""

    NONE = 0
    METADATA = 1  # of tokens alone: to see that there is a repository, and not what is in it
    READ = 2
    TRIAGE = 3
    WRITE = 4
    MAINTAIN = 5
    ADMIN = 6


class Clock:
    """The time of this GitHub: that of the machine, moved by `advance`."""

    def __init__(self) -> None:
        self._offset = 0.0

    def advance(self, seconds: float) -> None:
        """Let so many seconds pass at once."""
        self._offset += seconds

    def seconds(self) -> float:
        """Unix time."""
        return time.time() + self._offset

    def now(self) -> datetime:
        """UTC in whole seconds, the precision of GitHub's answers."""
        return datetime.fromtimestamp(int(self.seconds()), UTC)


@dataclass(eq=False, kw_only=True)
class Account:
    """A user, an organization, or the bot behind an installation."""

    id: int
    login: str
    type: str  # "User", "Organization" or "Bot"
    created_at: datetime


@dataclass(eq=False, kw_only=True)
class RateLimit:
    """One primary limit: so many requests in an hour, then none until it is over."""

    limit: int
    used: int = 0
    reset: int = 0  # unix time

    def at(self, now: float) -> RateLimit:
        """The same limit, begun anew when its hour is over."""
        if now >= self.reset:
            self.used, self.reset = 0, int(now) + _HOUR
        return self

    @property
    def remaining(self) -> int:
        """Requests that are left."""
        return max(self.limit - self.used, 0)


@dataclass(eq=False, kw_only=True)
class Token:
    """A secret: of a user, or (user None) of an Actions job or another installation of an App."""

    raw: str
    user: Account | None
    rights: Mapping[str, Role]  # by "owner/name" in lower case
    fine_grained: bool
    expires_at: datetime | None
    core: RateLimit
    graphql: RateLimit

    @property
    def id(self) -> str:
        """A name for logs that does not give the secret away."""
        who = self.user.login if self.user else "installation"
        return f"{who}:{self.raw[-4:]}"


@dataclass(eq=False, kw_only=True)
class Asset:
    """A file of a release. `state` is "starter" until its whole content has arrived."""

    id: int
    name: str
    label: str | None
    content_type: str
    uploader: Account
    created_at: datetime
    updated_at: datetime
    path: Path
    size: int = 0
    sha256: str | None = None
    state: str = "starter"
    download_count: int = 0


@dataclass(eq=False, kw_only=True)
class Release:
    """A release; `published_at` None means a draft."""

    id: int
    tag_name: str
    target_commitish: str
    name: str | None
    body: str | None
    prerelease: bool
    author: Account
    drafted_at: datetime
    updated_at: datetime
    untagged: str  # what a draft's page is called
    published_at: datetime | None = None
    immutable: bool = False
    assets: dict[int, Asset] = field(default_factory=dict)

    @property
    def draft(self) -> bool:
        """Whether readers must not see it."""
        return self.published_at is None


@dataclass(eq=False, kw_only=True)
class Repository:
    """A repository with its git objects, refs and releases."""

    id: int
    name: str
    owner: Account
    private: bool
    default_branch: str
    description: str | None
    created_at: datetime
    pushed_at: datetime
    git: GitObjects = field(default_factory=GitObjects)
    refs: dict[str, str] = field(default_factory=dict)  # "refs/heads/main" -> commit
    releases: dict[int, Release] = field(default_factory=dict)
    roles: dict[str, Role] = field(default_factory=dict)  # login in lower case -> role
    immutable_releases: bool = False
    burnt_tags: set[str] = field(default_factory=set)  # of immutable releases that were deleted
    pages: dict[str, object] | None = None
    dispatches: list[dict[str, object]] = field(default_factory=list)
    pulls: list[dict[str, str]] = field(default_factory=list)  # title, body, head, base

    @property
    def full_name(self) -> str:
        """owner/name."""
        return f"{self.owner.login}/{self.name}"

    @property
    def is_empty(self) -> bool:
        """Whether nothing was ever committed."""
        return not self.refs

    def head(self, branch: str | None = None) -> Commit | None:
        """The newest commit of a branch (default: the default branch)."""
        sha = self.refs.get(f"refs/heads/{branch or self.default_branch}")
        return self.git.commit(sha) if sha else None

    def resolve(self, name: str) -> Commit | None:
        """The commit that a branch, a tag, a full ref or an id names."""
        for ref in (f"refs/heads/{name}", f"refs/tags/{name}", name, f"refs/{name}"):
            if ref in self.refs:
                return self.git.commit(self.refs[ref])
        return self.git.commit(name)

    def locked_tags(self) -> set[str]:
        """Tags that may neither be moved nor deleted, because an immutable release has them."""
        return {release.tag_name for release in self.releases.values() if release.immutable}

    def created_at_of(self, release: Release) -> datetime:
        """`created_at` as GitHub answers it: of the tagged commit, once there is one."""
        commit = None if release.draft else self.resolve(f"refs/tags/{release.tag_name}")
        return commit.committer.date if commit else release.drafted_at

    def commit_file(
        self,
        path: str,
        content: bytes | None,
        *,
        branch: str,
        message: str,
        author: Person,
        committer: Person,
    ) -> Commit:
        """Put a file (None: remove it) on a branch by a commit, which becomes its head."""
        parent = self.head(branch)
        entry = None
        if content is not None:
            name = path.rpartition("/")[2]
            entry = TreeEntry(name=name, mode=FILE_MODE, sha=self.git.add_blob(content))
        commit = self.git.add_commit(
            tree=self.git.with_entry(parent.tree if parent else None, path, entry),
            parents=(parent.sha,) if parent else (),
            author=author,
            committer=committer,
            message=message,
        )
        self.refs[f"refs/heads/{branch}"] = commit.sha
        self.pushed_at = committer.date
        return commit


class Hub:
    """Everything on one GitHub. `lock` guards all of it, and is held while a request is decided."""

    def __init__(self, folder: Path) -> None:
        self.lock = threading.RLock()
        self.clock = Clock()
        self.folder = folder
        self.accounts: dict[str, Account] = {}
        self.repositories: dict[str, Repository] = {}
        self.tokens: dict[str, Token] = {}
        self.anonymous = RateLimit(limit=_ANONYMOUS_RATE)
        self.listing_limit = 10_000
        self.offers_digests = True
        self.limits_rates = True
        self.inlined_assets: int | None = None
        self.moved: dict[str, Repository] = {}  # by the "owner/name" of before, in lower case
        self.restricts_pages = False
        self.shuffles_ties = False
        self.asset_url_validity = timedelta(seconds=300)
        self.signing_key = secrets.token_bytes(16)
        self._ids = itertools.count(1001)

    def next_id(self) -> int:
        """A number that nothing else has."""
        return next(self._ids)

    def account(self, login: str, type: str = "User") -> Account:  # noqa: A002
        """The account of this login, made when there is none."""
        key = login.lower()
        if key not in self.accounts:
            self.accounts[key] = Account(
                id=self.next_id(), login=login, type=type, created_at=self.clock.now()
            )
        return self.accounts[key]

    def add_repository(
        self,
        owner: Account,
        name: str,
        *,
        private: bool,
        default_branch: str,
        description: str | None,
        auto_init: bool,
    ) -> Repository:
        """A new repository; with `auto_init` its README is committed."""
        now = self.clock.now()
        repository = Repository(
            id=self.next_id(),
            name=name,
            owner=owner,
            private=private,
            default_branch=default_branch,
            description=description,
            created_at=now,
            pushed_at=now,
        )
        if owner.type == "User":
            repository.roles[owner.login.lower()] = Role.ADMIN
        if auto_init:
            who = Person(name=owner.login, email=f"{owner.login}@example.invalid", date=now)
            text = f"# {name}" + (f"\n{description}" if description else "")
            repository.commit_file(
                "README.md",
                text.encode(),
                branch=default_branch,
                message="Initial commit",
                author=who,
                committer=who,
            )
        self.repositories[repository.full_name.lower()] = repository
        return repository

    def move_repository(self, repository: Repository, owner: Account, name: str) -> None:
        """Rename or transfer it; who asks for what it was called is told where it is now."""
        old = repository.full_name.lower()
        del self.repositories[old]
        repository.owner, repository.name = owner, name
        self.repositories[repository.full_name.lower()] = repository
        self.moved[old] = repository

    def add_token(
        self,
        user: Account | None,
        rights: Mapping[str, Role],
        *,
        fine_grained: bool,
        expires_at: datetime | None,
        prefix: str | None = None,
    ) -> Token:
        """A new token. An installation has nothing but these rights; a user's is limited by them
        only when it is fine-grained."""
        if prefix is None:
            prefix = "ghs_" if user is None else "github_pat_" if fine_grained else "ghp_"
        limit = _INSTALLATION_RATE if user is None else _USER_RATE
        token = Token(
            raw=prefix + secrets.token_hex(18),
            user=user,
            rights={name.lower(): role for name, role in rights.items()},
            fine_grained=fine_grained,
            expires_at=expires_at,
            core=RateLimit(limit=limit),
            graphql=RateLimit(limit=limit),
        )
        self.tokens[token.raw] = token
        return token

    def role_of_user(self, user: Account | None, repository: Repository) -> Role:
        """What the account itself may do, whatever its token."""
        floor = Role.NONE if repository.private else Role.READ
        return max(repository.roles.get(user.login.lower(), Role.NONE) if user else floor, floor)

    def role_of(self, token: Token | None, repository: Repository) -> Role:
        """What the bearer of a token may do with a repository."""
        floor = Role.NONE if repository.private else Role.READ
        if token is None:
            return floor
        granted = token.rights.get(repository.full_name.lower(), Role.NONE)
        if token.user is None:
            return max(granted, floor)
        own = self.role_of_user(token.user, repository)
        return max(min(own, granted), floor) if token.fine_grained else own

    def listed_releases(self, repository: Repository, *, with_drafts: bool) -> list[Release]:
        """Releases in the order of GitHub's listing: by `created_at`, newest first.

        Releases of one commit are equal in that order. GitHub documents nothing for them: the
        newest id comes first here, or with `shuffles_ties` anything.
        """

        def order(release: Release) -> tuple[datetime, int]:
            tie = hash((release.id, 7919)) if self.shuffles_ties else release.id
            return repository.created_at_of(release), tie

        wanted = (r for r in repository.releases.values() if with_drafts or not r.draft)
        return sorted(wanted, key=order, reverse=True)


def asset_name(name: str) -> str:
    """The name that GitHub gives to an uploaded asset.

    "GitHub renames asset filenames that have special characters, non-alphanumeric characters, and
    leading or trailing periods" (REST documentation, "Upload a release asset"). The letters that
    stay and the treatment of the rest are what the `gh` client expects (cli/cli,
    pkg/cmd/release/upload).
    """
    plain = unicodedata.normalize("NFD", name)
    plain = "".join(letter for letter in plain if unicodedata.category(letter) != "Mn")
    if plain.startswith("."):
        plain = f"default{plain}"
    plain = re.sub(r"[^A-Za-z0-9_+@-]+", ".", plain).strip(".")
    if plain != name and "." not in plain:
        plain = f"default.{plain}"
    return plain


def node_id(kind: str, number: int | str) -> str:
    """An opaque global id, as GraphQL and REST share it."""
    return base64.urlsafe_b64encode(f"{kind}:{number}".encode()).decode().rstrip("=")


def stamp(moment: datetime) -> str:
    """A time as GitHub writes it."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def roles(rights: Mapping[str, str]) -> dict[str, Role]:
    """Rights in words ("read", "write", "admin", …) as roles."""
    return {name: Role[word.upper()] for name, word in rights.items()}
