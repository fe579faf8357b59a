"""The repositories of a server, and which of them a request means; knows neither HTTP nor TOML."""

from __future__ import annotations

import hmac
import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from private_pypi.backend import Access, Secret
from private_pypi.configuration.config import Configuration
from private_pypi.errors import BackendUnavailable, NotAllowed, WrongSecret
from private_pypi.repositories.grants import Grant
from private_pypi.repositories.group import Group
from private_pypi.repositories.making import make_repository
from private_pypi.repositories.mirror import NoteAllowance
from private_pypi.repositories.repository import CLOSING_SECONDS, Repository
from private_pypi.repositories.stored import key_of
from private_pypi.storage.verdicts import Expiry, Question, Verdicts

_log = logging.getLogger(__name__)

_NEEDED = "a repository name and its secret are needed (Basic authentication)"
# Users of uv often see this in a clone of a project, which has the address but no secret.
_NEEDED_TO_READ = (
    f"{_NEEDED}: from ~/.netrc; for uv also by `uv auth login INDEX_URL --username REPOSITORY`, or "
    "from UV_INDEX_<NAME>_USERNAME and UV_INDEX_<NAME>_PASSWORD, NAME being that of the index in "
    "pyproject.toml"
)
_NO_KEY = bytes(64)
_QUIET = 1.0  # seconds that a start waits before it says so


@dataclass(frozen=True, slots=True)
class Credentials:
    """The user and the secret that a request gives; with Bearer authentication there is no user."""

    user: str | None
    secret: Secret
    client: str = ""
    """Identifies whose request it is, such as the network of an IP address. Clients take turns when
    the storage is asked about unknown secrets. "" is a client as well."""


class Repositories:
    """All repositories of a server; immutable. A new configuration makes a new object."""

    def __init__(
        self,
        configuration: Configuration,
        *,
        root: Path,
        tmp: Path,
        expiry: Expiry,
        extra_index_url: str,
        note_allowance: NoteAllowance | None = None,
    ) -> None:
        """`tmp` is a folder that only this process uses, on the file system of `root`.

        `note_allowance` is told when a file is served that only an allowance lets through.
        """
        repositories: dict[str, Repository] = {
            name: make_repository(
                settings,
                root=root,
                tmp=tmp,
                expiry=expiry,
                extra_index_url=extra_index_url,
                note_allowance=note_allowance,
            )
            for name, settings in configuration.repositories.items()
        }
        for name, group in configuration.groups.items():  # each comes after its members
            repositories[name] = Group(group, [repositories[each] for each in group.members])
        self._repositories: Mapping[str, Repository] = repositories
        self._places = {name: _Place(table, None) for name, table in repositories.items()}
        self._have_root_addresses = any(each.has_root_addresses() for each in self)
        self._nobody = Verdicts("", expiry, background=None)  # for all names without a repository

    def __iter__(self) -> Iterator[Repository]:
        return iter(self._repositories.values())

    def __len__(self) -> int:
        return len(self._repositories)

    def may_look_up(self, name: str | None) -> bool:
        """Whether a page of this repository (None: of any) may have to wait for a storage.

        An unknown name may be that of a tenant.
        """
        table = None if name is None else self._repositories.get(name.lower())
        return any(each.may_ask_storage() for each in (self if table is None else (table,)))

    def have_root_addresses(self) -> bool:
        """Whether tenants have addresses at the root of the server (`SupportsRootAddresses`)."""
        return self._have_root_addresses

    def tenant_at(self, host: str, path: str) -> str | None:
        """The name of the tenant with this address at the root of the server; None: there is none.

        See `SupportsRootAddresses`.
        """
        found = (table.tenant_at(host, path) for table in self)
        return next((name for name in found if name is not None), None)

    def start(self, *, wait: float = 0) -> None:
        """Begin to synchronise. Wait at most `wait` seconds until all repositories are ready."""
        for repository in self:
            repository.start()
        deadline = time.monotonic() + wait
        for repository in self:
            told_at = min(deadline, time.monotonic() + _QUIET)
            if repository.wait_until_ready(max(0.0, told_at - time.monotonic())):
                continue
            left = deadline - time.monotonic()
            if told_at <= time.monotonic() < deadline:  # else its thread has logged an error
                _log.info("waiting %.0f s at most for repository %r", left, repository.name)
            repository.wait_until_ready(max(0.0, left))

    def close(self) -> None:
        """Stop all repositories; their files stay.

        All of them are told to stop before any is waited for, and they share `CLOSING_SECONDS`.
        """
        for repository in self:
            repository.begin_close()
        deadline = time.monotonic() + CLOSING_SECONDS
        for repository in self:
            repository.close(max(0.0, deadline - time.monotonic()))

    def authorize(
        self, credentials: Credentials | None, *, name: str | None, need: Access, ask: bool = True
    ) -> Grant:
        """The grant for a request. `name` is the repository in its path; None: there is none.

        Raises `WrongSecret` or `NotAllowed`. An unknown repository and a wrong or missing secret
        give the same error after the same work, so that nobody can find out names of repositories.
        Without `ask`, no storage is asked: `BackendUnavailable` if the answer is not known.
        """
        try:
            place, secret = self._choose(credentials, name)
        except WrongSecret:
            self._check_in_vain(credentials, name, need)
            if credentials is None:
                raise _needed(need) from None
            raise
        table = place.table
        if secret is None:
            # Tenants are not public: nobody may read any owner with the server's own secret.
            if not table.is_public or place.user is not None or need > Access.READ:
                raise _needed(need)
            secret = table.public_secret(ask=ask)
            return Grant(_repository_at(place), Access.READ, secret)
        by_project = table.rights_per_project
        asked = min(need, Access.READ) if by_project else need
        judge = _repository_at(place) if table.secrets_per_tenant else table
        client = "" if credentials is None else credentials.client
        try:
            access = judge.access(secret, asked, ask=ask, client=client) if secret else Access.NONE
        except WrongSecret:
            # The message of the storage would reveal that there is a repository of this name.
            access = Access.NONE
        if access is Access.NONE:
            raise WrongSecret
        if by_project:  # the rest is decided for each project (`Grant.check_project`)
            access = Access.WRITE
        if access < need:
            raise NotAllowed(f"this secret may read repository {table.name!r}, but not change it")
        return Grant(_repository_at(place), access, secret)

    def _check_in_vain(
        self, credentials: Credentials | None, name: str | None, need: Access
    ) -> None:
        """Do the same work for an unknown repository as is done to refuse a wrong secret.

        It is that of a storage on this machine, which compares the secret with those of its table.
        """
        if credentials is None or not credentials.secret:
            return
        key = key_of(Secret(f"{name or credentials.user}\0{credentials.secret.reveal()}"))

        def refuse() -> Access:
            hmac.compare_digest(key, _NO_KEY)
            return Access.NONE

        with suppress(BackendUnavailable):  # too many at a time
            self._nobody.access(Question(key, None), need, refuse)

    def meant(
        self, credentials: Credentials | None, *, name: str | None
    ) -> tuple[Repository, Secret | None] | None:
        """The repository and the secret of a request, without checking the secret.

        For logs of what was tried. None if no repository is meant.
        """
        try:
            place, secret = self._choose(credentials, name)
        except WrongSecret:
            return None
        return place.table, secret

    def _choose(
        self, credentials: Credentials | None, name: str | None
    ) -> tuple[_Place, Secret | None]:
        bound = self._bound(name)
        if credentials is None:
            if bound is None:
                raise WrongSecret
            return bound, None
        if bound is None and name is not None:
            raise WrongSecret
        user, secret = credentials.user, credentials.secret
        if user is None:  # Bearer: the bare secret, or `name:secret`
            prefix, colon, rest = secret.reveal().partition(":")
            if colon and self._find(prefix) is not None:
                user, secret = prefix, Secret(rest)
        named = self._find(user) if user else None
        if named is None:
            if bound is None:
                raise WrongSecret
            return bound, secret
        if name is None or bound is None or named is bound:
            return named, secret
        # ~/.netrc has one entry for each host, which may be that of a member.
        if named.user is None and _has_member(bound.table, named.table):
            return bound, secret
        # The path and the user both name a repository, and one of them may name a tenant of it.
        if bound.table is not named.table or len({bound.user, named.user, None}) > 2:
            raise WrongSecret
        return (named if bound.user is None else bound), secret

    def _bound(self, name: str | None) -> _Place | None:
        """The repository that the path names, or the only one of this server; None: neither."""
        if name is not None:
            return self._find(name)
        return next(iter(self._places.values())) if len(self._places) == 1 else None

    def _find(self, name: str) -> _Place | None:
        """The table of this name, or else the table with a tenant of this name."""
        name = name.lower()
        place = self._places.get(name)
        if place is not None:
            return place
        for table in self._repositories.values():
            if table.has_tenant(name):
                return _Place(table, name)
        return None


class _Place(NamedTuple):
    """The repository that a request means, before its secret was checked."""

    table: Repository
    user: str | None  # the name of a tenant, in lower case; None: the table itself


def _has_member(table: Repository, other: Repository) -> bool:
    return isinstance(table, Group) and table.has_member(other)


def _repository_at(place: _Place) -> Repository:
    if place.user is None:
        return place.table
    tenant = place.table.tenant(place.user)
    if tenant is None:
        raise WrongSecret
    return tenant


def _needed(need: Access) -> WrongSecret:
    return WrongSecret(_NEEDED if need > Access.READ else _NEEDED_TO_READ)
