"""The interface of the fake GitHub for tests: it starts and stops the servers, and sets them up."""

from __future__ import annotations

import functools
import hashlib
import re
import secrets
import socket
import tempfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from pathlib import Path
from types import TracebackType
from typing import Any

from .faults import Fault, Host, Kind
from .git import Person
from .server import Front, Request
from .state import Asset, Clock, Hub, Release, Repository, roles


class FakeGitHub(AbstractContextManager["FakeGitHub"]):
    """A GitHub on loopback ports, as a context manager.

    At the end, the test fails if a request or an answer was not as GitHub describes it (see
    `violations`). Everything may be called from any thread while it serves.

    """

    def __init__(self, folder: Path | None = None) -> None:
        """Assets are stored in `folder`, or in a temporary folder."""
        self._temporary = None
        if folder is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="fake-github-")
            folder = Path(self._temporary.name)
        self._hub = Hub(folder)
        self._front = Front(self._hub)
        self.allow_violations = False

    def __enter__(self) -> FakeGitHub:
        self._front.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._front.stop()
        if self._temporary is not None:
            self._temporary.cleanup()
        if error is None and not self.allow_violations:
            assert not self.violations, "\n".join(self.violations)

    # Where it is

    @property
    def api_url(self) -> str:
        """The API, as on the public GitHub: without a prefix, and uploads have another port."""
        return f"http://127.0.0.1:{self._front.port('api')}"

    @property
    def enterprise_url(self) -> str:
        """The API, as on an Enterprise server: `/api/v3`, and uploads are sent to the same port.

        The host is `localhost`, the only one that PyGithub accepts without TLS.

        """
        _know_localhost()
        return f"http://localhost:{self._front.port('api')}/api/v3"

    @property
    def graphql_url(self) -> str:
        """The address for GraphQL queries."""
        return f"{self.api_url}/graphql"

    # What is there

    def make_org(self, login: str) -> None:
        """An organization."""
        with self._hub.lock:
            self._hub.account(login, "Organization")

    def make_user(self, login: str) -> None:
        """A user without any rights."""
        with self._hub.lock:
            self._hub.account(login, "User")

    def make_repo(
        self,
        owner: str,
        name: str,
        *,
        private: bool = False,
        default_branch: str = "main",
        empty: bool = False,
        immutable_releases: bool = False,
    ) -> Repository:
        """A repository with one commit, or none if it is `empty`.

        If the owner does not exist yet, it becomes an organization. The result is the live state:
        change nothing in it except `immutable_releases`.

        """
        with self._hub.lock:
            repository = self._hub.add_repository(
                self._hub.account(owner, "Organization"),
                name,
                private=private,
                default_branch=default_branch,
                description=None,
                auto_init=not empty,
            )
            repository.immutable_releases = immutable_releases
            return repository

    def move_repo(self, full_name: str, to: str) -> None:
        """Rename it, or transfer it to another owner: `to` is "owner/name"."""
        owner, _, name = to.partition("/")
        with self._hub.lock:
            account = self._hub.account(owner, "Organization")
            self._hub.move_repository(self.repo(full_name), account, name)

    def make_token(
        self,
        user: str | None = None,
        rights: Mapping[str, str] | None = None,
        *,
        limited_to: Mapping[str, str] | None = None,
        valid_for: timedelta | None = None,
        prefix: str | None = None,
    ) -> str:
        """A token with rights: {"owner/name": "read" | "triage" | "write" | "admin"}.

        One that is limited, or has no user, may also have the right "metadata": it sees that there
        is a repository, and nothing of what is in it ("Permissions required for fine-grained
        personal access tokens": releases need Contents).

        With a user it is theirs: the rights are given to the user (who is made when missing), and
        the token has all that the user has; `limited_to` makes it a fine-grained one that has no
        more than this. Without a user it is that of an Actions job or another App installation: it
        has the rights, although `permissions` of a repository never say so. `prefix` is of tokens
        that do not begin as those of the public GitHub, by which their kind is seen.
        """
        rights = rights or {}
        with self._hub.lock:
            expires_at = self._hub.clock.now() + valid_for if valid_for else None
            if user is None:
                token = self._hub.add_token(
                    None, roles(rights), fine_grained=True, expires_at=expires_at, prefix=prefix
                )
                return token.raw
            account = self._hub.account(user, "User")
            self.set_rights(user, rights)
            return self._hub.add_token(
                account,
                roles(rights if limited_to is None else limited_to),
                fine_grained=limited_to is not None,
                expires_at=expires_at,
                prefix=prefix,
            ).raw

    def set_rights(self, user: str, rights: Mapping[str, str]) -> None:
        """Set what a user may do with these repositories ("none": nothing)."""
        with self._hub.lock:
            for name, role in roles(rights).items():
                self.repo(name).roles[user.lower()] = role

    def revoke(self, token: str) -> None:
        """Make a token invalid."""
        with self._hub.lock:
            del self._hub.tokens[token]

    def repo(self, full_name: str) -> Repository:
        """The live state of a repository, by "owner/name"."""
        return self._hub.repositories[full_name.lower()]

    def make_release(
        self,
        full_name: str,
        tag: str,
        files: Mapping[str, bytes] | None = None,
        *,
        body: str = "",
        draft: bool = False,
        prerelease: bool = False,
        content_type: str = "application/zip",
        author: str = "somebody",
    ) -> Release:
        """A release at the head of the default branch, created by somebody else without a request.

        Its files keep their names.
        """
        with self._hub.lock:
            repository, now = self.repo(full_name), self._hub.clock.now()
            account = self._hub.account(author)
            release = Release(
                id=self._hub.next_id(),
                tag_name=tag,
                target_commitish=repository.default_branch,
                name=tag,
                body=body,
                prerelease=prerelease,
                author=account,
                drafted_at=now,
                updated_at=now,
                untagged=f"untagged-{secrets.token_hex(10)}",
            )
            for name, content in (files or {}).items():
                asset = Asset(
                    id=self._hub.next_id(),
                    name=name,
                    label="",
                    content_type=content_type,
                    uploader=account,
                    created_at=now,
                    updated_at=now,
                    path=self._hub.folder / f"asset-{secrets.token_hex(8)}",
                    size=len(content),
                    sha256=hashlib.sha256(content).hexdigest(),
                    state="uploaded",
                )
                asset.path.write_bytes(content)
                release.assets[asset.id] = asset
            if not draft:
                head = repository.head()
                assert head is not None, f"{full_name} is empty"
                repository.refs.setdefault(f"refs/tags/{tag}", head.sha)
                release.published_at = now
                release.immutable = repository.immutable_releases
            repository.releases[release.id] = release
            return release

    def copy_release(self, full_name: str, tag: str, copies: Iterable[str]) -> None:
        """The published release `tag` under other tags as well, on the same commit.

        The copies have assets of their own, over the same bytes; where the notes name an asset by
        its id or by the tag, those of a copy name its own.
        """
        with self._hub.lock:
            repository = self.repo(full_name)
            (model,) = (r for r in repository.releases.values() if r.tag_name == tag)
            assert not model.draft, f"{tag} is a draft"
            for copy in copies:
                assets: dict[int, Asset] = {}
                renamed = {tag: copy}
                for asset in model.assets.values():
                    number = self._hub.next_id()
                    name = asset.name.replace(tag, copy)
                    assets[number] = replace(asset, id=number, name=name)
                    renamed[str(asset.id)] = str(number)
                body = model.body or ""
                for old, new in renamed.items():
                    body = re.sub(rf"\b{re.escape(old)}\b", new, body)
                release = replace(
                    model,
                    id=self._hub.next_id(),
                    tag_name=copy,
                    name=copy,
                    body=body,
                    assets=assets,
                )
                repository.releases[release.id] = release
                repository.refs[f"refs/tags/{copy}"] = repository.refs[f"refs/tags/{tag}"]

    def releases(self, full_name: str, *, drafts: bool = False) -> list[Release]:
        """The releases in the order of GitHub's listing; drafts only with `drafts`."""
        with self._hub.lock:
            return self._hub.listed_releases(self.repo(full_name), with_drafts=drafts)

    def file(self, full_name: str, path: str, branch: str | None = None) -> bytes | None:
        """The content of a file at the head of a branch; None if it does not exist."""
        with self._hub.lock:
            repository = self.repo(full_name)
            head = repository.head(branch)
            entry = repository.git.find(head.tree, path) if head else None
            return repository.git.blob(entry.sha) if entry else None

    def commit(
        self, full_name: str, path: str, content: bytes | None, branch: str | None = None
    ) -> str:
        """Commit a file to a branch as somebody else (None: remove it); returns the commit's id."""
        with self._hub.lock:
            repository = self.repo(full_name)
            who = Person(
                name="somebody", email="somebody@example.invalid", date=self._hub.clock.now()
            )
            return repository.commit_file(
                path,
                content,
                branch=branch or repository.default_branch,
                message=f"Change {path}",
                author=who,
                committer=who,
            ).sha

    def asset_content(self, full_name: str, tag: str, name: str) -> bytes | None:
        """The bytes of an asset of a published release; None if it does not exist."""
        with self._hub.lock:
            for release in self.repo(full_name).releases.values():
                if release.tag_name == tag and not release.draft:
                    for asset in release.assets.values():
                        if asset.name == name:
                            return asset.path.read_bytes()
        return None

    def serve_git(self, folder: Path) -> None:
        """Serve the bare repositories OWNER/NAME in a folder with git, to those who may read them.

        They have nothing to do with what the interface says of these repositories.

        """
        self._front.git_folder = folder

    # How it behaves

    @property
    def clock(self) -> Clock:
        """The clock of this GitHub; `clock.advance(seconds)` moves it."""
        return self._hub.clock

    def now(self) -> datetime:
        """The time of this GitHub, UTC."""
        return self._hub.clock.now()

    @property
    def asset_url_validity(self) -> timedelta:
        """How long a signed address of an asset is valid."""
        return self._hub.asset_url_validity

    @asset_url_validity.setter
    def asset_url_validity(self, value: timedelta) -> None:
        self._hub.asset_url_validity = value

    @property
    def listing_limit(self) -> int:
        """How many releases a listing has at most."""
        return self._hub.listing_limit

    @listing_limit.setter
    def listing_limit(self, value: int) -> None:
        self._hub.listing_limit = value

    @property
    def shuffles_ties(self) -> bool:
        """Whether releases of one commit are listed in random order instead of by id."""
        return self._hub.shuffles_ties

    @shuffles_ties.setter
    def shuffles_ties(self, value: bool) -> None:
        self._hub.shuffles_ties = value

    @property
    def offers_digests(self) -> bool:
        """Whether assets have a digest, which older Enterprise servers lack."""
        return self._hub.offers_digests

    @offers_digests.setter
    def offers_digests(self, value: bool) -> None:
        self._hub.offers_digests = value

    @property
    def limits_rates(self) -> bool:
        """Whether rate limits are switched on; by default, Enterprise servers have none."""
        return self._hub.limits_rates

    @limits_rates.setter
    def limits_rates(self, value: bool) -> None:
        self._hub.limits_rates = value

    @property
    def inlined_assets(self) -> int | None:
        """How many assets a release shows at most (None: all). A listing has the rest."""
        return self._hub.inlined_assets

    @inlined_assets.setter
    def inlined_assets(self, value: int | None) -> None:
        self._hub.inlined_assets = value

    @property
    def restricts_pages(self) -> bool:
        """Whether pages can be restricted to readers of the repository (Enterprise Cloud)."""
        return self._hub.restricts_pages

    @restricts_pages.setter
    def restricts_pages(self, value: bool) -> None:
        self._hub.restricts_pages = value

    @property
    def latency(self) -> float:
        """Seconds to wait before every answer."""
        return self._front.latency

    @latency.setter
    def latency(self, value: float) -> None:
        self._front.latency = value

    def before_request(self, hook: Callable[[str], None] | None) -> None:
        """Call this with "METHOD /path" for each request, before anything is done."""
        self._front.before_request = hook

    def set_remaining(self, token: str, remaining: int) -> None:
        """Set how many requests a token may still make in this hour."""
        with self._hub.lock:
            limit = self._hub.tokens[token].core.at(self._hub.clock.seconds())
            limit.used = limit.limit - remaining

    # What goes wrong

    def fail(
        self,
        kind: Kind,
        *,
        on: str = "*",
        host: Host | None = None,
        at: int = 1,
        times: int = 1,
        applied: bool = False,
        seconds: float = 60.0,
    ) -> Fault:
        """Let the `at`-th request from now that matches (and the next ones, `times` in all) fail.

        `on` is a shell pattern for "METHOD /path" (without Enterprise prefix and query), `host` is
        "api", "uploads" or "storage". With `applied` the request takes effect although the client
        is told otherwise. `seconds` is how long a time-out lasts, or what a limit says to wait.
        """
        return self._front.faults.add(
            Fault(
                kind=kind,
                on=on,
                host=host,
                after=at - 1,
                times=times,
                applied=applied,
                seconds=seconds,
            )
        )

    def fail_next(self, kind: Kind, *, applied: bool = False) -> Fault:
        """Let the next request fail, whatever it is."""
        return self.fail(kind, applied=applied)

    def heal(self) -> None:
        """Forget all faults."""
        self._front.faults.clear()

    # What was asked

    @property
    def requests(self) -> list[Request]:
        """All requests since the start or `forget_requests`, in the order in which they ended."""
        return list(self._front.requests)

    def forget_requests(self) -> None:
        """Start a new log."""
        self._front.requests.clear()

    def asked(self, on: str = "*") -> list[Request]:
        """The requests whose "METHOD /path" matches a shell pattern."""
        return [request for request in self.requests if fnmatchcase(request.name, on)]

    @property
    def counted(self) -> int:
        """How many requests of the log were counted against a primary rate limit."""
        return sum(request.counted for request in self._front.requests)

    @property
    def violations(self) -> list[str]:
        """Requests and answers that GitHub's descriptions do not allow, or that the fake lacks."""
        return list(self._front.violations)


@functools.cache
def _know_localhost() -> None:
    """Let this process know `localhost` even if the system does not.

    A bare Debian lacks /etc/hosts. It is in the package netbase, which --quick does not need.

    """
    asked = socket.getaddrinfo
    try:
        asked("localhost", None)
    except OSError:

        def answer(host: Any, *rest: Any, **options: Any) -> Any:
            return asked("127.0.0.1" if host == "localhost" else host, *rest, **options)

        socket.getaddrinfo = answer
