"""Several repositories behind one address, without mixing them.

A group decides for each project which of its members answers for it; that one answers for it as a
whole. A member is a *mirror* (`mirror`), another group, or *private*, which is every other one.

1. If members claim the name (`claimed`), only these may answer. If the group itself claims it, only
   private members may.
2. A member that cannot tell an absent project from one that the caller may not see, such as one
   of type `github_projects`, answers only for names that it claims, and its answer is final.
3. A name that a private member has or ever had never comes from a mirror.
4. Of the members that are left, the first that has the project answers.
5. If a member does not let the caller in, the names that it has, had or claims are absent for this
   caller. They are not passed on to the members after it.
6. If a member is in trouble, the names that it might have are in trouble, too.

For a name in `mix`, all members answer together, and each file says where it is from. Rules 5 and 6
hold for these names as well.
"""

from __future__ import annotations

import copy
import heapq
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import NamedTuple

from packaging.utils import NormalizedName
from packaging.version import Version

from private_pypi.backend import Access, Secret
from private_pypi.configuration.config import GroupSettings
from private_pypi.errors import (
    BackendError,
    FileNotFound,
    NotAllowed,
    PrivatePypiError,
    ProjectNotFound,
    Unsupported,
    WrongSecret,
)
from private_pypi.index.local import ProjectLine
from private_pypi.index.rows import version_key
from private_pypi.model import DistributionFile, Freshness, ListedFile, ProjectPage, Upload
from private_pypi.repositories.answers import Absent, Elsewhere, Found, ProjectList
from private_pypi.repositories.mirror import ListNotRead, Mirror
from private_pypi.repositories.opening import Opened
from private_pypi.repositories.releases import files_of_release
from private_pypi.repositories.repository import Repository, RepositoryState
from private_pypi.storage.arriving import Arriving
from private_pypi.system.background import Pending


class _Answer(NamedTuple):
    """A member that has a project, and the secret with which it was asked."""

    member: Repository
    secret: Secret
    found: Found


@dataclass(frozen=True, slots=True)
class _Member:
    repository: Repository
    is_mirror: bool

    @property
    def cannot_tell(self) -> bool:
        """Whether it cannot tell an absent project from one that the caller may not see."""
        return self.repository.rights_per_project and not isinstance(self.repository, Group)


class Group(Repository):
    """Other repositories, behind one name."""

    def __init__(self, settings: GroupSettings, members: Sequence[Repository]) -> None:
        self.name = settings.name
        self.type = "group"
        self.claimed = settings.claimed
        self._settings = settings
        self._members = [_Member(each, isinstance(each, Mirror)) for each in members]
        self._publish_to = next(
            (each for each in members if each.name == settings.publish_to), None
        )
        if self._publish_to is not None:
            self.max_file_bytes = self._publish_to.max_file_bytes
            self.rights_per_project = self._publish_to.rights_per_project

    @property
    def members(self) -> Sequence[Repository]:
        """The members, in order."""
        return [each.repository for each in self._members]

    @property
    def publish_to(self) -> Repository | None:
        """The member in which is published; None: nothing can be published."""
        return self._publish_to

    def members_for(self, secret: Secret) -> list[Repository]:
        """The mirrors, and the members that let the caller in; in order."""
        return [
            each.repository
            for each in self._members
            if self._secret_for(each, secret, ask=True) is not None
        ]

    @property
    def _private(self) -> list[Repository]:
        return [each.repository for each in self._members if not each.is_mirror]

    # -- rights ----------------------------------------------------------------------------------

    @property
    def is_public(self) -> bool:
        """Whether people without a secret may read what public members and mirrors have."""
        return self._settings.anonymous_read

    def public_secret(self, *, ask: bool = True) -> Secret:
        """An empty secret: each member decides whether it is public."""
        return Secret("")

    def access(
        self,
        secret: Secret,
        need: Access,
        *,
        project: NormalizedName | None = None,
        ask: bool = True,
        client: str = "",
    ) -> Access:
        """READ if any private member lets the secret in; see `Repository`.

        WRITE if the member of `publish_to` does. Mirrors decide only if there is no private member.
        """
        best, trouble = Access.NONE, None
        for member in self._private or self.members:
            publishes = need > Access.READ and member is self._publish_to
            try:
                access = member.access(
                    secret, need if publishes else Access.READ, ask=ask, client=client
                )
            except WrongSecret:
                continue
            except BackendError as error:
                trouble = error
                continue
            best = max(best, access if member is self._publish_to else min(access, Access.READ))
            if best >= need:
                return best
        if trouble is not None:
            raise trouble
        return best

    def _secret_for(self, member: _Member, secret: Secret, *, ask: bool) -> Secret | None:
        """The secret with which a member is asked; None: it does not let the caller in."""
        repository = member.repository
        if member.is_mirror:
            return Secret("")  # whoever may read the group may read its mirrors
        if secret:
            try:
                if repository.access(secret, Access.READ, ask=ask) >= Access.READ:
                    return secret
            except WrongSecret:
                pass
        return repository.public_secret(ask=ask) if repository.is_public else None

    # -- state -----------------------------------------------------------------------------------

    def require_ready(self) -> None:
        """Raise an error unless all private members can answer."""
        for member in self._private:
            member.require_ready()

    def state(self) -> RepositoryState:
        """Ready if all members are; with the first error of any."""
        states = {member.name: member.state() for member in self.members}
        errors = (f"{name}: {state.error}" for name, state in states.items() if state.error)
        stale = (f"{name}: {state.stale}" for name, state in states.items() if state.stale)
        return RepositoryState(
            ready=all(state.ready for state in states.values()),
            synced_at=None,
            error=next(errors, None),
            stale=next(stale, None),
        )

    def serial(self) -> int:
        """The sum of the serials of the members."""
        return sum(member.serial() for member in self.members)

    # -- which member answers ----------------------------------------------------------------------

    def claims(self, project: NormalizedName) -> bool:
        """Whether the group or one of its members claims this name."""
        return super().claims(project) or any(each.claims(project) for each in self.members)

    def ever_had(self, project: NormalizedName) -> bool:
        """Whether a private member has or had a project; see `Repository`."""
        return any(member.ever_had(project) for member in self._private)

    def had_names(self) -> Collection[NormalizedName]:
        """The names that private members have or had; see `Repository`."""
        return {name for member in self._private for name in member.had_names()}

    def may_ask_storage(self) -> bool:
        """Whether any member may."""
        return any(member.may_ask_storage() for member in self.members)

    def _candidates(self, project: NormalizedName) -> Iterator[_Member]:
        """The members that may answer for a project, in order: rules 1 to 3.

        Whether it was private is only asked before a mirror could answer for it.
        """
        claimants = [each for each in self._members if each.repository.claims(project)]
        if claimants:
            yield from claimants
            return
        is_ours = super().claims(project)
        # A mirror must not answer before it is known that no private member had the project.
        is_private = is_ours or self._is_mixed(project) or self.ever_had(project)
        for member in self._members:
            if member.cannot_tell or (
                member.is_mirror and is_private and not self._is_mixed(project)
            ):
                continue
            yield member

    def mirrors_for(self, project: NormalizedName) -> Iterator[Mirror]:
        """The mirrors that may answer for a project here; none for a private one that is safe."""
        for member in self._candidates(project):
            repository = member.repository
            if isinstance(repository, Group):
                yield from repository.mirrors_for(project)
            elif isinstance(repository, Mirror) and repository.mirrors(project):
                yield repository

    def _is_mixed(self, project: NormalizedName) -> bool:
        return project in self._settings.mix

    def _answers(self, project: NormalizedName, secret: Secret, *, ask: bool) -> Iterator[_Answer]:
        """The members that have a project: the one that answers for it, or all if it is mixed."""
        for member in self._candidates(project):
            own = self._secret_for(member, secret, ask=ask)
            if own is None:
                if member.repository.claims(project) or member.repository.ever_had(project):
                    raise _HiddenFromCaller
                continue
            found = member.repository.find(project, own, ask=ask)
            if isinstance(found, Found):
                yield _Answer(member.repository, own, found)
                if not self._is_mixed(project):
                    return
            elif member.cannot_tell:
                return

    def _all_answers(
        self, project: NormalizedName, secret: Secret, *, ask: bool = True
    ) -> list[_Answer]:
        try:
            return list(self._answers(project, secret, ask=ask))
        except _HiddenFromCaller:
            return []

    # -- reading ---------------------------------------------------------------------------------

    def find(
        self, project: NormalizedName, secret: Secret, *, ask: bool = True
    ) -> Found | Elsewhere | Absent:
        """The project as the member has it that answers for it; see `Repository`."""
        answers = self._all_answers(project, secret, ask=ask)
        if not answers:
            return Absent()
        return _mixed(project, answers) if self._is_mixed(project) else answers[0].found

    def begin_find(self, project: NormalizedName, secret: Secret) -> Pending | None:
        """Begin to ask the first mirror that may answer, if no private member does."""
        try:
            for member in self._candidates(project):
                if member.is_mirror:
                    return member.repository.begin_find(project, Secret(""))
                if member.repository.ever_had(project):
                    break
        except PrivatePypiError:
            pass  # `find` meets it as well
        return None

    def file(
        self,
        project: NormalizedName,
        filename: str,
        secret: Secret,
        need: Access = Access.READ,
    ) -> ListedFile:
        """A file of the member that answers for the project; see `Repository`."""
        missing: FileNotFound | None = None
        for member, own, _ in self._all_answers(project, secret):
            self._require_changeable(member, need)
            try:
                return _from(member, member.file(project, filename, own, need))
            except FileNotFound as error:
                missing = missing or error
        raise missing or FileNotFound(filename)

    def release(
        self,
        project: NormalizedName,
        version: str,
        secret: Secret,
        need: Access = Access.READ,
    ) -> Sequence[ListedFile]:
        """The files of a version; see `Repository`."""
        answers = self._all_answers(project, secret)
        if not answers:
            raise ProjectNotFound(project)
        if need > Access.READ:
            member, own, _ = answers[0]
            self._require_changeable(member, need)
            return [_from(member, file) for file in member.release(project, version, own, need)]
        files = _mixed(project, answers).files()
        return files_of_release(files, project, version)

    def _require_changeable(self, member: Repository, need: Access) -> None:
        if need > Access.READ and member is not self._publish_to:
            raise NotAllowed(
                f"this project is in repository {member.name!r}, and only "
                + (
                    f"{self._publish_to.name!r} can be changed through {self.name!r}"
                    if self._publish_to is not None
                    else f"reading is possible through {self.name!r}"
                )
            )

    def open_file(
        self, file: ListedFile, secret: Secret, awaited: Arriving | None = None
    ) -> Opened:
        """The content of a file, from the member that it is from."""
        member, own, inner = self._member_of(file, secret)
        return member.open_file(inner, own, awaited)

    def open_core_metadata(
        self, file: ListedFile, secret: Secret, awaited: Arriving | None = None
    ) -> Opened:
        """The core metadata, from the member that the file is from."""
        member, own, inner = self._member_of(file, secret)
        return member.open_core_metadata(inner, own, awaited)

    def _member_of(self, file: ListedFile, secret: Secret) -> tuple[Repository, Secret, ListedFile]:
        if not file.source:  # as the page of a project lists it that is not mixed
            answers = self._all_answers(NormalizedName(file.project), secret)
            if not answers:
                raise FileNotFound(file.filename)
            return answers[0].member, answers[0].secret, file
        name, *rest = file.source
        member = next(each for each in self._members if each.repository.name == name)
        own = self._secret_for(member, secret, ask=True)
        if own is None:
            raise FileNotFound(file.filename)
        return member.repository, own, replace(file, source=tuple(rest))

    # -- lists -----------------------------------------------------------------------------------

    def list_projects(self, secret: Secret) -> ProjectList:
        """The names for which a member that lets the caller in answers."""
        lists: list[Iterable[tuple[NormalizedName, int]]] = []
        kept_in: list[Hashable] = []
        ages: list[float] = []
        serial = 0
        private = self.had_names() if any(each.is_mirror for each in self._members) else ()
        refused: set[NormalizedName] = set()
        for member in self._members:
            repository = member.repository
            own = self._secret_for(member, secret, ask=True)
            if own is None:
                refused.update(repository.had_names())
                kept_in.append((repository.name, repository.serial()))
                continue
            listed = repository.list_projects(own)
            kept_in.append((listed.kept_in, listed.serial))
            serial += listed.serial
            if listed.freshness.age is not None:
                ages.append(listed.freshness.age)
            lists.append(self._answered_by(member, listed, frozenset(refused), private))

        def read() -> Iterator[tuple[NormalizedName, int]]:
            last = ""
            for name, number in heapq.merge(*lists, key=lambda each: each[0]):
                if name != last:
                    yield name, number
                last = name

        return ProjectList((self.name, *kept_in), serial, Freshness(max(ages, default=None)), read)

    def _answered_by(
        self,
        member: _Member,
        listed: ProjectList,
        refused: Collection[NormalizedName],
        private: Collection[NormalizedName],
    ) -> Iterable[tuple[NormalizedName, int]]:
        return _Filtered(listed, lambda name: self._is_answered_by(member, name, refused, private))

    def _is_answered_by(
        self,
        member: _Member,
        name: NormalizedName,
        refused: Collection[NormalizedName],
        private: Collection[NormalizedName],
    ) -> bool:
        """Whether a member may answer for a name that it lists."""
        if name in refused:
            return False
        claimants = [each for each in self._members if each.repository.claims(name)]
        if claimants:
            return member in claimants
        if member.cannot_tell:
            return False
        is_ours = name in private or super().claims(name)
        return not (member.is_mirror and is_ours) or self._is_mixed(name)

    def search(
        self, words: Sequence[str], secret: Secret, *, limit: int, offset: int
    ) -> tuple[int, list[ProjectLine]]:
        """How many projects have every word in their name, summary or keywords, and some of them.

        Without words, these are the projects of private members only, because mirrors may have
        hundreds of thousands. Mirrors whose list of projects was not read yet are left out.
        """
        total, lines = 0, dict[str, ProjectLine]()
        private = self.had_names() if any(each.is_mirror for each in self._members) else ()
        refused: set[NormalizedName] = set()
        for member in self._members:
            own = self._secret_for(member, secret, ask=True)
            if own is None:
                refused.update(member.repository.had_names())
                continue
            if member.is_mirror and not words:
                continue
            try:
                count, found = member.repository.search(words, own, limit=offset + limit, offset=0)
            except ListNotRead:
                continue
            total += count
            for line in found:
                name = NormalizedName(line.name)
                if line.name in lines or not self._is_answered_by(member, name, refused, private):
                    total -= 1
                else:
                    lines[line.name] = line
        wanted = "-".join(words).lower()
        ordered = sorted(lines.values(), key=lambda line: (line.name != wanted, line.name))
        return total, ordered[offset : offset + limit]

    def newest_releases(
        self, limit: int, secret: Secret, *, once_each: bool = True
    ) -> list[ProjectLine]:
        """The releases of private members that were uploaded last."""
        lines = [
            line
            for repository, own in self.readable(secret)
            for line in repository.newest_releases(limit, own, once_each=once_each)
        ]
        return _newest_first(lines)[:limit]

    def newest_projects(self, limit: int, secret: Secret) -> list[ProjectLine]:
        """The projects of private members whose first upload was last."""
        lines = [
            line
            for repository, own in self.readable(secret)
            for line in repository.newest_projects(limit, own)
        ]
        return _newest_first(lines)[:limit]

    def readable(self, secret: Secret) -> Iterator[tuple[Repository, Secret]]:
        """The private members that let the caller in, each with the secret to ask it with."""
        for member in self._members:
            own = None if member.is_mirror else self._secret_for(member, secret, ask=True)
            if own is not None:
                yield member.repository, own

    # -- changing --------------------------------------------------------------------------------

    def is_published(self, upload: Upload, secret: Secret) -> bool:
        """Whether the member of `publish_to` has a file of this name."""
        return self._published_in(upload.file.project, secret).is_published(upload, secret)

    def publish(self, upload: Upload, secret: Secret) -> DistributionFile:
        """Publish a file in the member of `publish_to`."""
        return self._published_in(upload.file.project, secret).publish(upload, secret)

    def _published_in(self, project: NormalizedName, secret: Secret) -> Repository:
        """The member of `publish_to`, if what it has of a project would be seen here."""
        wanted = self._publish_to
        if wanted is None:
            raise self._read_only()
        is_mixed = self._is_mixed(project)
        for member in self._members:
            repository = member.repository
            if repository is wanted:
                break
            is_before = not member.is_mirror and not member.cannot_tell and not is_mixed
            if is_before and repository.ever_had(project):
                raise NotAllowed(
                    f"project {project!r} is in repository {repository.name!r}, so a file that is "
                    f"published in {wanted.name!r} would not be seen in {self.name!r}"
                )
        claimants = [each.repository for each in self._members if each.repository.claims(project)]
        if claimants and wanted not in claimants:
            raise NotAllowed(
                f"project {project!r} is claimed by repository {claimants[0].name!r}, so a file "
                f"that is published in {wanted.name!r} would not be seen in {self.name!r}"
            )
        return wanted

    def yank(self, files: Sequence[ListedFile], reason: str | None, secret: Secret) -> None:
        """Yank or un-yank files of the member of `publish_to`."""
        self._changed(files).yank([_inner(file) for file in files], reason, secret)

    def delete(self, files: Sequence[ListedFile], secret: Secret) -> None:
        """Delete files of the member of `publish_to` for ever."""
        self._changed(files).delete([_inner(file) for file in files], secret)

    def _changed(self, files: Sequence[ListedFile]) -> Repository:
        wanted = self._publish_to
        if wanted is None or any(file.source[0] != wanted.name for file in files):
            raise self._read_only()
        return wanted

    def _read_only(self) -> Unsupported:
        return Unsupported(
            f"nothing can be published through {self.name!r}: it is a group without publish_to"
        )

    # -- at an instant -----------------------------------------------------------------------------

    def at(self, instant: datetime) -> Group:
        """The group with its members as they were at an instant (UTC)."""
        frozen = copy.copy(self)
        frozen._members = [
            _Member(each.repository.at(instant), each.is_mirror) for each in self._members
        ]
        frozen._publish_to = None
        return frozen


class _HiddenFromCaller(Exception):
    """A member that does not let the caller in has the project."""


@dataclass(frozen=True, slots=True)
class _Filtered:
    """The entries of a list for which a condition holds; can be iterated several times."""

    listed: ProjectList
    holds: Callable[[NormalizedName], bool]

    def __iter__(self) -> Iterator[tuple[NormalizedName, int]]:
        return (each for each in self.listed.read() if self.holds(each[0]))


def _from(member: Repository, file: ListedFile) -> ListedFile:
    return replace(file, source=(member.name, *file.source))


def _inner(file: ListedFile) -> ListedFile:
    return replace(file, source=file.source[1:])


def _mixed(project: NormalizedName, answers: Sequence[_Answer]) -> Found:
    """The files of several members as one project. Of equal names, the first member's counts."""

    def read() -> ProjectPage:
        pages = [(each.member, each.found.read()) for each in answers]
        files: dict[str, ListedFile] = {}
        for member, page in pages:
            for file in page.files:
                files.setdefault(file.filename, _from(member, file))
        ordered = sorted(
            files.values(), key=lambda file: (version_key(Version(file.version)), file.filename)
        )
        status = next((page.status for _, page in pages if page.status is not None), None)
        return ProjectPage(ordered, status)

    ages = [each.found.freshness.age for each in answers if each.found.freshness.age is not None]
    return Found(
        project,
        sum(each.found.serial for each in answers),
        Freshness(max(ages, default=None)),
        ("mix", *((each.found.kept_in, each.found.serial) for each in answers)),
        read,
    )


def _newest_first(lines: Iterable[ProjectLine]) -> list[ProjectLine]:
    oldest = datetime.min.replace(tzinfo=UTC)
    return sorted(lines, key=lambda line: line.uploaded_at or oldest, reverse=True)
