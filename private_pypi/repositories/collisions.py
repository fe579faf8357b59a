"""Finds private names that exist on a public index too ("dependency confusion").

Whoever has a second index beside this one may be given a stranger's project under a private name,
and so may everybody, where the configuration mixes the two. Here is what the command `check` and
the start page of a group have in common; what each of them asks for is its own matter.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from packaging.utils import NormalizedName
from packaging.version import Version

from private_pypi.backend import Secret
from private_pypi.errors import BackendError, PrivatePypiError
from private_pypi.model import ListedFile
from private_pypi.repositories.answers import Found
from private_pypi.repositories.group import Group
from private_pypi.repositories.mirror import Mirror
from private_pypi.repositories.mirrored_pages import ListNotRead
from private_pypi.repositories.repository import NotAtHand, Repository


@dataclass(frozen=True, slots=True, kw_only=True)
class Collision:
    """A private name that a public index has as well. Versions are normalised (PEP 440)."""

    project: NormalizedName
    repository: str  # the private one
    ours: str | None  # the highest version; None: no files (any more), or they are not known
    index: str  # the mirror, or the address of the public index
    theirs: str | None  # the highest version; None: no files, or they are not known
    is_served: bool = False  # whether the group may serve the public project as well

    @property
    def is_higher(self) -> bool:
        """Whether an installer that asks both indexes would prefer the public project."""
        if self.theirs is None:
            return False
        return self.ours is None or Version(self.theirs) > Version(self.ours)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimedMatch:
    """A claimed pattern that names of a public index match."""

    pattern: str
    index: str  # as in `Collision`
    count: int
    names: Sequence[NormalizedName]  # the first of them


def highest(files: Sequence[ListedFile]) -> str | None:
    """The highest version of files as a repository orders them."""
    return files[-1].version if files else None


def mirrors_of(repository: Repository) -> Iterator[Mirror]:
    """The mirrors in a repository: itself, or members of the group that it is, and of theirs."""
    if isinstance(repository, Mirror):
        yield repository
    elif isinstance(repository, Group):
        for member in repository.members:
            yield from mirrors_of(member)


def claimed_matches(
    mirror: Mirror, patterns: Iterable[str], *, index: str, most: int
) -> list[ClaimedMatch]:
    """The patterns that names of a mirror's upstream match; its list must have been read.

    Of each at most `most` names are told.
    """
    found = []
    for pattern in dict.fromkeys(patterns):
        count, names = mirror.index.names_like(pattern, limit=most)
        if count:
            found.append(ClaimedMatch(pattern=pattern, index=index, count=count, names=names))
    return found


# -- what is known without asking ------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownCollisions:
    """The collisions in a group that one caller may know of."""

    collisions: Sequence[Collision]  # the first ones, by name
    total: int
    names: Collection[NormalizedName]  # of all
    claimed: Sequence[ClaimedMatch]
    unread: Sequence[str]  # mirrors whose list of projects is being read now
    troubled: Sequence[str]  # private repositories that cannot tell their names now


def known_collisions(
    group: Group, secret: Secret, *, most: int, most_names: int
) -> KnownCollisions:
    """What is known about a group without waiting for the upstream of any mirror.

    Private names are those of the members that let the caller in. Of `most` names the versions are
    told, if they are known; what is not, is asked for in the background. `most_names`: how many
    names are told of each claimed pattern, and compared for members with rights for each project.
    """
    private = list(group.readable(secret))
    patterns = [*group.own_claims, *(glob for member, _ in private for glob in member.claimed)]
    found: list[tuple[NormalizedName, Repository, Secret, Mirror]] = []
    claimed: list[ClaimedMatch] = []
    unread: list[str] = []
    private_names = [_names_for(member, own, most_names) for member, own in private]
    for mirror in dict.fromkeys(mirrors_of(group)):
        try:
            mirror.require_names(ask=False)
        except ListNotRead:
            unread.append(mirror.name)
            continue
        claimed += claimed_matches(mirror, patterns, index=mirror.name, most=most_names)
        for (member, own), names in zip(private, private_names, strict=True):
            found += ((name, member, own, mirror) for name in mirror.index.names_among(names or ()))
    found.sort(key=lambda each: each[0])

    def without_found(match: ClaimedMatch) -> ClaimedMatch:
        told = {name for name, _, _, mirror in found if mirror.name == match.index}
        names = [name for name in match.names if name not in told]
        return replace(match, names=names, count=match.count - len(match.names) + len(names))

    return KnownCollisions(
        collisions=[
            Collision(
                project=name,
                repository=member.name,
                ours=_ours_at_hand(member, name, own),
                index=mirror.name,
                theirs=_theirs_at_hand(mirror, name),
                is_served=_serves(group, mirror, name),
            )
            for name, member, own, mirror in found[:most]
        ],
        total=len(found),
        names=frozenset(name for name, *_ in found),
        claimed=[match for match in map(without_found, claimed) if match.names],
        unread=unread,
        troubled=[
            member.name
            for (member, _), names in zip(private, private_names, strict=True)
            if names is None
        ],
    )


def _names_for(
    repository: Repository, secret: Secret, most: int
) -> Collection[NormalizedName] | None:
    """The private names that the caller may see; None: they are not known now."""
    try:
        if not repository.rights_per_project:
            return repository.had_names()
        # Only names of projects that this caller may see.
        lines = repository.search((), secret, limit=most, offset=0)[1]
        return [NormalizedName(line.name) for line in lines]
    except BackendError:
        return None


def _serves(group: Group, mirror: Mirror, name: NormalizedName) -> bool:
    try:
        return mirror in group.mirrors_for(name)
    except BackendError:  # then it serves nothing under this name
        return False


def _ours_at_hand(repository: Repository, name: NormalizedName, secret: Secret) -> str | None:
    try:
        found = repository.find(name, secret, ask=False)
        return highest(found.files()) if isinstance(found, Found) else None
    except PrivatePypiError:
        return None


def _theirs_at_hand(mirror: Mirror, name: NormalizedName) -> str | None:
    try:
        return highest(mirror.upstream_files(name, ask=False) or ())
    except NotAtHand:
        return None
