"""The tables of groups: which members they have, and which combinations are refused."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from fnmatch import fnmatchcase
from graphlib import CycleError, TopologicalSorter
from typing import Final

from packaging.utils import is_normalized_name

from private_pypi.backend import MirrorSettings, SupportsUpstream, can
from private_pypi.configuration.settings import GroupSettings, RepositorySettings
from private_pypi.configuration.tables import Table, checked_claims, normalized_patterns
from private_pypi.storage import plugins

GROUP: Final = "group"
"""The type of a table that is no storage, but has other tables as its members."""

# The keys of a group.
OF_GROUPS: Final = {
    "members": tuple[str, ...],
    "mix": tuple[str, ...],
    "publish_to": str,
    "claimed": tuple[str, ...],
    "anonymous_read": bool,
}


def with_members_of(name: str, tables: Mapping[str, Table]) -> dict[str, Table]:
    """The table of a name, and those of its members if it is a group, and of theirs, in order."""
    wanted, left = {name}, [name]
    while left:
        values = tables[left.pop()].values
        members = values.get("members", ()) if values.get("type") == GROUP else ()
        names = {each.lower() for each in members if isinstance(each, str)}
        left += (names & tables.keys()) - wanted
        wanted |= names
    return {each: table for each, table in tables.items() if each in wanted}


def checked_group(table: Table) -> GroupSettings:
    """The table of a group, whose members are checked later."""
    table.reject_unknown_keys(["type", *OF_GROUPS])
    values = {key: table.value(key, kind, None) for key, kind in OF_GROUPS.items()}
    members = tuple(name.lower() for name in values["members"] or ())
    if "members" not in table.values or values["members"] == ():
        why = "must not be empty" if "members" in table.values else "missing"
        table.problem(f"{why}; it must be a list of names of other tables, in order", "members")
    publish_to = values["publish_to"]
    if members and publish_to is not None and publish_to.lower() not in members:
        table.problem(f"{publish_to!r} is not one of the members", "publish_to")
    return GroupSettings(
        name=table.name,
        members=members,
        mix=frozenset(normalized_patterns(values["mix"] or ())),
        publish_to=None if publish_to is None else publish_to.lower(),
        claimed=checked_claims(table),
        anonymous_read=bool(values["anonymous_read"]),
    )


def checked_groups(
    groups: Mapping[str, GroupSettings],
    repositories: Mapping[str, RepositorySettings],
    tables: Mapping[str, Table],
) -> dict[str, GroupSettings]:
    """The groups, each after its members."""
    for group in groups.values():
        for problem in _member_problems(group, groups, repositories, tables):
            tables[group.name].problem(problem, "members")
    graph = {
        name: [member for member in group.members if member in groups]
        for name, group in groups.items()
    }
    try:
        ordered = {name: groups[name] for name in TopologicalSorter(graph).static_order()}
    except CycleError as error:
        first, *others = reversed(error.args[1])
        tables[first].problem(
            "a group cannot be a member of itself"
            if others == [first]
            else f"the groups are members of each other: {' → '.join((first, *others))}",
            "members",
        )
        return {}
    inside: dict[str, list[str]] = {}  # of each group: all tables in it, at any depth
    for group in ordered.values():
        inside[group.name] = [
            each for member in group.members for each in (member, *inside.get(member, ()))
        ]
        table = tables[group.name]
        _check_publish_to(group, groups, repositories, table)
        claims = {
            each: (repositories.get(each) or groups[each]).claimed
            for each in (group.name, *inside[group.name])
            if each in repositories or each in groups
        }
        _check_mix(group, claims, table)
        _check_readers(
            [repositories[each] for each in inside[group.name] if each in repositories], table
        )
    return ordered


def _member_problems(
    group: GroupSettings,
    groups: Mapping[str, GroupSettings],
    repositories: Mapping[str, RepositorySettings],
    tables: Mapping[str, Table],
) -> Iterator[str]:
    for number, member in enumerate(group.members):
        if member in group.members[:number]:
            if group.members[:number].count(member) == 1:
                yield f"{member!r} is there more than once"
            continue
        settings = repositories.get(member)
        if settings is None:
            if member in tables:  # a group, or a table with mistakes, which are reported
                continue
            known = [name for name in tables if name != group.name]
            yield f"there is no table {member!r}{plugins.did_you_mean(member, known)}"
            continue
        if settings.backend.has_only_tenants:
            yield (
                f"{member!r} has nothing but tenants, each with secrets of its own, which a group "
                "cannot ask; make a table for the one tenant that is meant"
            )
        elif settings.backend_class.traits.rights_per_project and not settings.claimed:
            yield (
                f"{member!r} is of type {settings.type!r}, which cannot tell a project that does "
                "not exist from one that the caller may not see. So it must say which names it "
                f"answers for: give the table [{member}] a key claimed, such as "
                "claimed = ['acme-*']"
            )


def _check_publish_to(
    group: GroupSettings,
    groups: Mapping[str, GroupSettings],
    repositories: Mapping[str, RepositorySettings],
    table: Table,
) -> None:
    wanted = group.publish_to
    if wanted not in group.members:
        return
    if wanted in groups and groups[wanted].publish_to is None:
        table.problem(f"the group {wanted!r} has no publish_to itself", "publish_to")
    elif wanted in repositories and can(repositories[wanted].backend_class, SupportsUpstream):
        table.problem(f"{wanted!r} is a mirror, where nothing can be published", "publish_to")


def _check_mix(group: GroupSettings, claims: Mapping[str, tuple[str, ...]], table: Table) -> None:
    """`claims`: of the group and of everything in it."""
    for name in sorted(group.mix):
        if not is_normalized_name(name):
            table.problem(f"{name!r} is not the name of a project; patterns cannot be mixed", "mix")
        for claimant, patterns in claims.items():
            if any(fnmatchcase(name, pattern) for pattern in patterns):
                table.problem(
                    f"{name!r} is claimed by [{claimant}], which then answers for it alone; take "
                    "it out of mix, or out of claimed",
                    "mix",
                )


def _check_readers(members: Collection[RepositorySettings], table: Table) -> None:
    """Nobody may read a mirror only because they have an account at a provider.

    A storage with rights for each project accepts the secrets of all its users. Each of them may
    read the group, although they see nothing of that member, and so its mirrors.
    """
    stored = [each for each in members if not can(each.backend_class, SupportsUpstream)]
    by_project = [each for each in stored if each.backend_class.traits.rights_per_project]
    for mirror in members:
        own = mirror.backend
        if (
            by_project
            and isinstance(own, MirrorSettings)
            and not (own.reads_public_index or mirror.anonymous_read)
        ):
            table.problem(
                f"everybody with an account at the provider of [{by_project[0].name}] could read "
                f"the mirror [{mirror.name}] here, because that member accepts the secrets of all "
                f"of them; give the mirror an address of its own, or say anonymous_read = true in "
                f"[{mirror.name}] if everybody may read it",
                "members",
            )
