"""The members of a group, as one caller may ask them and may know of them.

The numbers of rules are those in `group`.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import translate

from packaging.utils import NormalizedName

from private_pypi.backend import Access, Secret
from private_pypi.errors import (
    AccessError,
    BackendError,
    BackendUnavailable,
    NotConfigured,
    PrivatePypiError,
)
from private_pypi.repositories.answers import Found
from private_pypi.repositories.repository import NotAtHand, Repository, RepositoryState
from private_pypi.repositories.stored import key_of

_log = logging.getLogger(__name__)

Path = tuple[str, ...]
"""The names of the members that lead from a group to a repository, which is the last one."""

TROUBLE = (BackendError, NotConfigured)
"""What a member raises that does not know its names, or cannot tell them now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A member of a group, as one step from the outermost group to a repository."""

    mix: frozenset[str]  # of the group
    group_claims: Patterns  # by the table of the group itself
    member_claims: Patterns
    any_claims: Patterns  # by any member of the group
    others: tuple[Repository, ...]  # the other members of the group that are not mirrors


@dataclass(frozen=True, slots=True)
class Leaf:
    """A repository that is not a group, and the way to it."""

    path: Path
    repository: Repository
    steps: tuple[Step, ...]  # the outermost first

    def may_answer(self, name: NormalizedName) -> bool:
        """Whether the configuration lets it answer for a project: rules 1 and 2."""
        for step in self.steps:
            if step.any_claims.match(name) and not step.member_claims.match(name):
                return False
            if self.repository.is_mirror and step.group_claims.match(name):
                return False
        return not self.repository.rights_per_project or self.claims(name)

    def claims(self, name: NormalizedName) -> bool:
        """Whether its table claims a name."""
        return self.steps[-1].member_claims.match(name)

    def mix_with(self, other: Leaf) -> frozenset[str]:
        """The names for which both answer together."""
        ways = zip(self.path, other.path, self.steps, strict=False)
        return next((step.mix for own, their, step in ways if own != their), frozenset())


class Patterns:
    """Patterns of project names, as one regular expression, because lists are long."""

    def __init__(self, patterns: Iterable[str]) -> None:
        self.patterns = tuple(patterns)
        self._matches = re.compile("|".join(map(translate, self.patterns)) or r"(?!)").match

    def match(self, name: str) -> bool:
        """Whether one of the patterns matches."""
        return self._matches(name) is not None


@dataclass(frozen=True, slots=True)
class Answer:
    """A repository that has a project, and the secret with which it was asked."""

    path: Path
    repository: Repository  # not a group
    secret: Secret
    found: Found


def founds(answers: Sequence[Answer]) -> dict[Path, Found]:
    """What each of them found, by its path."""
    return {answer.path: answer.found for answer in answers}


class HiddenFromCaller(Exception):
    """The project belongs to a member that does not show it to the caller, or may not show it."""


def secret_for(member: Repository, secret: Secret, *, ask: bool = True) -> Secret | None:
    """The secret with which a member is asked; None: it does not let the caller in.

    `member` is not a group. The secret was accepted by one of the members. Trouble is raised
    without the name of the member, because it is not known whether the caller may know that.
    """
    if member.is_mirror:
        return Secret("")  # whoever may read the group may read its mirrors
    if secret:
        # It is not a made-up one, so it need not take turns with others from the same network.
        client = f"secret {key_of(secret).hex()}"
        try:
            if member.access(secret, Access.READ, ask=ask, client=client) >= Access.READ:
                return secret
        except AccessError:
            pass
        except NotAtHand:
            raise
        except BackendError as error:
            if not ask:  # as in `access`
                raise
            raise untold(error) from error
    return member.public_secret(ask=ask) if member.is_public else None


def may_be_named(member: Repository, secret: Secret, *, ask: bool = True) -> bool:
    """Whether the caller may know of a member. False if that cannot be found out now."""
    if member.members:
        return any(may_be_named(each, secret, ask=ask) for each in member.members)
    try:
        return secret_for(member, secret, ask=ask) is not None
    except PrivatePypiError:
        return False


def told_name(member: Repository, secret: Secret) -> str:
    """What a message calls a member."""
    return f"repository {member.name!r}" if may_be_named(member, secret) else "another member"


def cannot_tell(member: Repository) -> bool:
    """Whether it cannot tell an absent project from one that the caller may not see."""
    return member.rights_per_project and not member.members


def any_had(
    repositories: Iterable[Repository],
    project: NormalizedName,
    secret: Secret | None = None,
    *,
    ask: bool = True,
) -> bool:
    """Whether one of them has or had a project; if that is not known, the trouble is raised.

    It names a repository only if `secret`, that of the caller, may read it.
    """
    trouble: PrivatePypiError | None = None
    for repository in repositories:
        try:
            if repository.ever_had(project):
                return True
        except TROUBLE as error:
            is_told = secret is not None and may_be_named(repository, secret, ask=ask)
            trouble = trouble or (error if is_told else untold(error))
    if trouble is not None:
        raise trouble
    return False


def untold(error: PrivatePypiError) -> BackendUnavailable:
    """The trouble of a member, for callers who may not know its name: messages have names.

    What is not told is logged for the operator.
    """
    _log.warning("a group answers 503: %s", error)
    return BackendUnavailable(
        "a member of this group is in trouble, so it is not known what it has or whom it lets in",
        retry_after=error.retry_after if isinstance(error, BackendUnavailable) else 30,
    )


def together(states: Sequence[tuple[str, RepositoryState]]) -> RepositoryState:
    """The states of members, with their names, as that of one repository."""
    errors = (f"{name}: {state.error}" for name, state in states if state.error)
    stale = (f"{name}: {state.stale}" for name, state in states if state.stale)
    return RepositoryState(
        ready=all(state.ready for _, state in states),
        synced_at=None,
        error=next(errors, None),
        stale=next(stale, None),
    )
