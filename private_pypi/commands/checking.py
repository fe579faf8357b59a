"""The command `check`: which private names exist on the public index as well."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

from packaging.utils import NormalizedName

from private_pypi.backend import (
    Access,
    MirrorSettings,
    Secret,
    SupportsList,
    SupportsProjects,
    SupportsUpstream,
    can,
    capability,
)
from private_pypi.backend.public_index import public_index_url
from private_pypi.commands.command_line import UsageError
from private_pypi.commands.files import say, warn
from private_pypi.commands.indexing import Progress
from private_pypi.commands.opening import (
    LOOKUP_SECONDS,
    CommandFolders,
    StoredGrant,
    folders_of_command,
    found_files,
    listed_names,
    open_repository,
    sources_of_command,
)
from private_pypi.configuration.config import (
    Configuration,
    ConfigurationText,
    RepositorySettings,
    check_repository,
    read_configuration,
)
from private_pypi.errors import BackendError, ConfigurationError, PrivatePypiError
from private_pypi.repositories import Repository, make_repository
from private_pypi.repositories.collisions import (
    ClaimedMatch,
    Collision,
    claimed_matches,
    highest,
    mirrors_of,
)
from private_pypi.repositories.group import Group
from private_pypi.repositories.mirror import Mirror
from private_pypi.repositories.mirrored_pages import ListNotRead
from private_pypi.storage.verdicts import Expiry

_TOLD = 10  # names of each claimed pattern that are told
_MOST_CLAIMED = 1000  # names of each claimed pattern for which it is looked where they are served
_PUBLIC = "the-public-index"  # the name of a mirror that is in no configuration


def check(
    name: str,
    *,
    config: str | None = None,
    admin_secret: str | None = None,
    root: str | None = None,
    index_url: str = public_index_url(),
    environ: Mapping[str, str],
) -> int:
    """Report private names that exist on the public index as well.

    Such names can lead to "dependency confusion", where a stranger's project is installed.
    Private names are those that a repository has or ever had, and those that it claims. Of a group,
    those of all members are compared with what its mirrors read; of another repository, with the
    index of --index_url. The newest version of each of the two projects is printed.

    A line begins with "public:" if this server may serve the public project under your name: in a
    group because the name is in `mix`, or from a mirror that people may read at its own address. A
    line begins with "warning:" if the name is safe on this server. But clients that are configured
    to use the public index as well may get the stranger's project.

    The exit code is 0 if there is nothing or there are only warnings, 1 if there is a line
    "public:", and 2 if something could not be found out, such as when an index does not answer.
    The list of projects of an index is read once (40 MB for the public one), and then only the
    pages of those names that are in it. With --root, the list that the server has is used.

    Args:
        name: The name of a group, or of a repository that is not a mirror.
        config: Path of a configuration file with a table for NAME, and for the members of a group.
            Without it, the configuration in ROOT is read.
        admin_secret: Path of the file of admin secrets (TOML), for storages that need one.
        root: The folder of the server. It is needed for a file_system repository without a path
            of its own, whose files are stored inside this folder. With it, deleted projects are
            known too, and lists of projects that the server has read are not read again.
        index_url: For a repository that is not a group: the index with which it is compared.

    Example:
        private_pypi check all --config config.toml --root ROOT
    """
    progress = Progress()
    try:
        with ExitStack() as stack:
            found = _check(name, config, admin_secret, root, index_url, environ, stack, progress)
    except UsageError:
        raise
    except PrivatePypiError as error:
        progress.end()
        problems = error.problems if isinstance(error, ConfigurationError) else [str(error)]
        for problem in problems:
            warn(f"error: {problem}")
        return 2
    progress.end()
    for line in found.lines:
        say(line)
    for trouble in found.troubles:
        warn(f"error: {trouble}")
    if found.troubles:
        return 2
    return 1 if found.is_public else 0


@dataclass(slots=True)
class _Report:
    lines: list[str] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)  # why something is not known
    is_public: bool = False  # whether any name may be served from the public index


@dataclass(frozen=True, slots=True, kw_only=True)
class _Checked:
    """What is compared."""

    name: str
    top: Repository  # the group, or the repository
    private: Sequence[StoredGrant]
    mirrors: Mapping[str, Mirror]  # by what they are called in the report


def _check(
    name: str,
    config: str | None,
    admin_secret: str | None,
    root: str | None,
    index_url: str,
    environ: Mapping[str, str],
    stack: ExitStack,
    progress: Progress,
) -> _Report:
    source, admin_source = sources_of_command(
        config, admin_secret, None if root is None else Path(root)
    )
    configuration = read_configuration(
        source,
        admin_source,
        environ=environ,
        only=name,
        with_members=True,
    )
    tables = list(configuration.repositories.values())
    stored = [each for each in tables if not can(each.backend_class, SupportsUpstream)]
    if name.lower() in configuration.repositories and not stored:
        raise UsageError(
            f"{name!r} is a mirror, which has no private names; name a group, or a repository "
            "with files of its own"
        )
    folders = stack.enter_context(folders_of_command(stored, root))
    checked = _open(name.lower(), configuration, folders, index_url, source, environ, stack)
    return _compare(checked, progress)


def _open(
    name: str,
    configuration: Configuration,
    folders: CommandFolders,
    index_url: str,
    source: ConfigurationText,
    environ: Mapping[str, str],
    stack: ExitStack,
) -> _Checked:
    private: list[StoredGrant] = []
    opened: dict[str, Repository] = {}
    for table in configuration.repositories.values():
        if can(table.backend_class, SupportsUpstream):
            opened[table.name] = _open_mirror(table, folders.root, folders, stack)
            continue
        traits = table.backend_class.traits
        if table.admin_secret is None and (traits.needs_admin_secret or traits.rights_per_project):
            raise ConfigurationError(
                f"the storage of {table.name!r} needs a secret that may read: give --admin_secret, "
                f"the path of a file with a table [{table.name}]"
            )
        grant = stack.enter_context(open_repository(table, None, folders, access=Access.READ))
        private.append(grant)
        opened[table.name] = grant.repository
    for group in configuration.groups.values():  # each comes after its members
        opened[group.name] = Group(group, [opened[each] for each in group.members])
    mirrors = {each.name: each for each in opened.values() if isinstance(each, Mirror)}
    if name not in configuration.groups:
        table = check_repository(
            _PUBLIC,
            {"type": "mirror", "index_url": index_url},
            source=replace(source, name="--index_url"),
            environ=environ,
        )
        # Not in ROOT, where it would stay.
        mirrors = {index_url: _open_mirror(table, folders.tmp, folders, stack)}
    return _Checked(name=name, top=opened[name], private=private, mirrors=mirrors)


def _open_mirror(
    table: RepositorySettings, root: Path, folders: CommandFolders, stack: ExitStack
) -> Mirror:
    expiry = Expiry(timedelta(), timedelta())  # nobody but this command asks
    mirror = make_repository(table, root=root, tmp=folders.tmp, expiry=expiry, extra_index_url="")
    assert isinstance(mirror, Mirror)
    stack.callback(mirror.close)
    return mirror


# -- comparing -------------------------------------------------------------------------------------


def _compare(checked: _Checked, progress: Progress) -> _Report:
    report = _Report()
    names = {grant.name: _private_names(grant, report) for grant in checked.private}
    everybodys = {name for each in names.values() for name in each}
    patterns = list(dict.fromkeys(_patterns(checked)))
    found = 0
    # Without names, there is nothing for which a long list would have to be read.
    for index, mirror in checked.mirrors.items() if everybodys or patterns else ():
        try:
            _read_list(mirror, index, progress)
        except PrivatePypiError as error:
            report.troubles.append(f"{index}: {error}")
            continue
        taken = mirror.index.names_among(sorted(everybodys))
        for done, name in enumerate(sorted(taken)):
            progress(done, len(taken), f"comparing with {index}")
            found += _compare_name(checked, report, index, mirror, name, names)
        for match in claimed_matches(mirror, patterns, index=index, most=_MOST_CLAIMED):
            others = [name for name in match.names if name not in taken]
            if others:
                found += 1
                count = match.count - len(match.names) + len(others)
                rest = replace(match, names=others, count=count)
                _tell_claimed(checked, report, rest, mirror)
    what = f"{_count(everybodys, 'private name')} and {_count(patterns, 'claimed pattern')}"
    where = ", ".join(checked.mirrors) or "nothing, because the group has no mirror"
    ending = "; nothing was found" if not found and not report.troubles else ""
    report.lines.insert(0, f"{checked.name}: compared {what} with {where}{ending}")
    return report


def _count(items: Collection[object], what: str) -> str:
    return f"{len(items)} {what}{'' if len(items) == 1 else 's'}"


def _patterns(checked: _Checked) -> Iterator[str]:
    if isinstance(checked.top, Group):
        yield from checked.top.claimed
    for grant in checked.private:
        yield from grant.repository.claimed


def _private_names(grant: StoredGrant, report: _Report) -> Collection[NormalizedName]:
    """The names that a repository has or had; those that its storage lists, too."""
    names = set(grant.repository.had_names())
    storage = grant.repository.storage(grant.secret)
    if capability(storage, SupportsList) is not None:
        return names
    if capability(storage, SupportsProjects) is not None:
        return names | set(listed_names(grant))
    report.lines.append(
        f"warning: the storage of {grant.name} cannot list its projects, so only those that this "
        "server has looked up (--root) and claimed patterns were compared"
    )
    return names


def _read_list(mirror: Mirror, index: str, progress: Progress) -> None:
    begun = time.monotonic()
    while True:
        try:
            mirror.require_names()
            return
        except ListNotRead:
            seconds = int(time.monotonic() - begun)
            if seconds > LOOKUP_SECONDS:
                raise
            progress(seconds, None, f"seconds spent on reading the list of projects of {index}")
            time.sleep(0.2)  # another process may be reading it, which is told at once


def _compare_name(
    checked: _Checked,
    report: _Report,
    index: str,
    mirror: Mirror,
    name: NormalizedName,
    names: Mapping[str, Collection[NormalizedName]],
) -> int:
    """Report what one name comes to; the number of private repositories that it is about."""
    try:
        theirs = mirror.upstream_files(name)
        if theirs is None:  # it was deleted after the list was made
            return 0
        owners = [grant for grant in checked.private if name in names[grant.name]]
        collisions = []
        for grant in owners:
            ours = highest(found_files(grant, name))
            if ours is None and not grant.repository.ever_had(name):
                continue  # it has no files, such as a repository on GitHub without releases
            collisions.append(
                Collision(
                    project=name,
                    repository=grant.name,
                    ours=ours,
                    index=index,
                    theirs=highest(theirs),
                )
            )
        places = _places(checked, mirror, name)
    except BackendError as error:
        report.troubles.append(f"{name}: {error}")
        return 1
    for each in collisions:
        report.is_public |= bool(places)
        report.lines.append(f"{'public' if places else 'warning'}: {_told(each)}{_at(places)}")
    return len(collisions)


def _told(collision: Collision) -> str:
    each = collision
    ours = "no files any more" if each.ours is None else each.ours
    theirs = "a project without files" if each.theirs is None else each.theirs
    higher = ", which is higher" if each.is_higher and each.ours is not None else ""
    return f"{each.project}: {each.repository} has {ours}, and {each.index} has {theirs}{higher}"


def _tell_claimed(checked: _Checked, report: _Report, match: ClaimedMatch, mirror: Mirror) -> None:
    places = sorted({place for name in match.names for place in _places(checked, mirror, name)})
    shown = ", ".join(match.names[:_TOLD])
    more = f" and {match.count - _TOLD} more" if match.count > _TOLD else ""
    report.is_public |= bool(places)
    report.lines.append(
        f"{'public' if places else 'warning'}: claimed {match.pattern}: {match.index} has "
        f"{shown}{more}{_at(places)}"
    )


def _at(places: Sequence[str]) -> str:
    return f"; the public project may be installed from {' and '.join(places)}" if places else ""


def _places(checked: _Checked, mirror: Mirror, name: NormalizedName) -> list[str]:
    """The addresses of this server where the public project of this name may be served."""
    if mirror not in mirrors_of(checked.top) or not mirror.mirrors(name) or _denies(mirror, name):
        return []
    places = [mirror] if _is_readable(mirror) else []
    groups = (each for each in _groups_in(checked.top) if mirror in each.mirrors_for(name))
    return [f"/r/{each.name}/" for each in (*groups, *places)]


def _groups_in(repository: Repository) -> Iterator[Group]:
    if isinstance(repository, Group):
        yield repository
        for member in repository.members:
            yield from _groups_in(member)


def _is_readable(mirror: Mirror) -> bool:
    """Whether anybody may read a mirror at its own address, and not only in a group."""
    own = mirror.settings.backend
    assert isinstance(own, MirrorSettings)
    return mirror.is_public or bool(own.read_secret)


def _denies(mirror: Mirror, name: NormalizedName) -> bool:
    """Whether `deny` hides all files of a project whose page was read."""
    said = mirror.explain(name, Secret(""))
    return bool(said.hidden) and not said.files and all(each.rule == "deny" for each in said.hidden)
