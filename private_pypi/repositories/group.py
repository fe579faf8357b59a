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
6. If a member is in trouble, the names that it might have are in trouble, too. It does not matter
   to names for which a member before it answers.

For a name in `mix`, all members answer together, and each file says where it is from. Rules 5 and 6
hold for these names as well.

A group that is a member follows the same rules inside. It decides nothing about rights: its members
are asked with the secret of the caller. What its private members have or had does not come from the
mirrors of the group around it either, and the other way round.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial

from packaging.utils import NormalizedName

from private_pypi.backend import Access, Secret
from private_pypi.configuration.config import GroupSettings
from private_pypi.errors import (
    BackendError,
    FileHidden,
    FileNotFound,
    NotAllowed,
    PrivatePypiError,
    ProjectNotFound,
    WrongSecret,
)
from private_pypi.index.local import ProjectLine
from private_pypi.index.looking import Look
from private_pypi.model import DistributionFile, ListedFile, Upload
from private_pypi.repositories.answers import (
    Absent,
    Elsewhere,
    Found,
    ProjectList,
    ToFetch,
    mixed_found,
)
from private_pypi.repositories.explaining import Explanation
from private_pypi.repositories.group_explaining import answered, unanswered
from private_pypi.repositories.group_lists import GroupLists
from private_pypi.repositories.group_members import (
    TROUBLE,
    Answer,
    HiddenFromCaller,
    Leaf,
    Path,
    Patterns,
    Step,
    any_had,
    cannot_tell,
    founds,
    may_be_named,
    secret_for,
    together,
    untold,
)
from private_pypi.repositories.group_publishing import Publishing
from private_pypi.repositories.mirror import Mirror
from private_pypi.repositories.opening import Opened
from private_pypi.repositories.releases import files_of_release
from private_pypi.repositories.repository import Repository, RepositoryState
from private_pypi.storage.arriving import Arriving
from private_pypi.system.background import Pending


class Group(Repository):
    """Other repositories, behind one name."""

    def __init__(self, settings: GroupSettings, members: Sequence[Repository]) -> None:
        self.name = settings.name
        self.type = "group"
        self.claimed = (*settings.claimed, *(glob for each in members for glob in each.claimed))
        self._settings = settings
        self._claims = Patterns(settings.claimed)  # without those of the members
        self._members = tuple(members)
        self._publish_to = next(
            (each for each in members if each.name == settings.publish_to), None
        )
        if self._publish_to is not None:
            self.max_file_bytes = self._publish_to.max_file_bytes
            self.rights_per_project = self._publish_to.rights_per_project
        leaves = tuple(self._all_leaves())
        self._leaves = {leaf.path: leaf for leaf in leaves}
        self._publishing = Publishing(self.name, self._path_to_publish(), self._leaves)
        self._private = tuple(leaf.repository for leaf in leaves if not leaf.repository.is_mirror)

    @property
    def members(self) -> Sequence[Repository]:
        """The repositories that answer for the group, in the order in which they are asked."""
        return self._members

    @property
    def publish_to(self) -> Repository | None:
        """The member in which is published; None: nothing can be published."""
        return self._publish_to

    @property
    def own_claims(self) -> Sequence[str]:
        """The patterns of the group itself, without those of its members."""
        return self._claims.patterns

    def has_member(self, repository: Repository) -> bool:
        """Whether a repository is a member, or one of a group that is a member, and so on."""
        return any(
            each is repository or (isinstance(each, Group) and each.has_member(repository))
            for each in self._members
        )

    def members_for(self, secret: Secret) -> list[Repository]:
        """The mirrors, and the members that let the caller in; in order."""

        def is_seen(member: Repository) -> bool:
            if isinstance(member, Group):
                return bool(member.members_for(secret))
            return secret_for(member, secret) is not None

        return [member for member in self._members if is_seen(member)]

    def readable(self, secret: Secret) -> Iterator[tuple[Repository, Secret]]:
        """The private repositories in this group, at any depth, that let the caller in.

        Each comes with the secret with which it is asked.
        """
        for repository in dict.fromkeys(self._private):
            own = secret_for(repository, secret)
            if own is not None:
                yield repository, own

    def _all_leaves(self) -> Iterator[Leaf]:
        """The repositories that are not groups, in the order in which they are asked."""
        for member in self._members:
            step = Step(
                mix=self._settings.mix,
                group_claims=self._claims,
                member_claims=Patterns(member.claimed),
                any_claims=Patterns(glob for each in self._members for glob in each.claimed),
                others=tuple(self._others(member)),
            )
            if isinstance(member, Group):
                for leaf in member._leaves.values():
                    yield Leaf((member.name, *leaf.path), leaf.repository, (step, *leaf.steps))
            else:
                yield Leaf((member.name,), member, (step,))

    def _others(self, member: Repository) -> Iterator[Repository]:
        """The private repositories of all members but one."""
        for each in self._members:
            if isinstance(each, Group) and each is not member:
                yield from each._private
            elif each is not member and not each.is_mirror:
                yield each

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
        Raises `Unsupported` if nothing can be published here by somebody who may read.
        """
        published = self._publishing.path
        best = Access.NONE
        trouble: NotAllowed | BackendError | None = None
        for leaf in self._leaves.values():
            if leaf.repository.is_mirror and self._private:
                continue
            publishes = leaf.path == published
            needed = need if publishes else min(need, Access.READ)
            try:
                access = leaf.repository.access(secret, needed, ask=ask, client=client)
            except WrongSecret:
                continue
            except (NotAllowed, BackendError) as error:  # a refusal with a reason, or trouble
                if not isinstance(trouble, BackendError):
                    # Without asking, it is only not known yet, and nobody is answered with it.
                    is_trouble = ask and isinstance(error, BackendError)
                    trouble = untold(error) if is_trouble else error
                continue
            best = max(best, access if publishes else min(access, Access.READ))
            if best >= need:
                return best
        if trouble is not None and (best is Access.NONE or isinstance(trouble, BackendError)):
            raise trouble
        if best > Access.NONE and not published:
            raise self._publishing.read_only()
        return best

    # -- state -----------------------------------------------------------------------------------

    def require_ready(self) -> None:
        """Raise an error unless all private members can answer; it does not name them."""
        for member in self._private:
            try:
                member.require_ready()
            except TROUBLE as error:
                raise untold(error) from error

    def state(self) -> RepositoryState:
        """Ready if all members are; with the first error of any."""
        return together([(member.name, member.state()) for member in self._members])

    def state_for(self, secret: Secret) -> RepositoryState:
        """The same; of members that refuse the caller, neither names nor messages."""
        states = []
        for member in self._members:
            state = member.state_for(secret)
            name, has_words = member.name, state.error is not None or state.stale is not None
            if has_words and not may_be_named(member, secret):
                name = "a member"
                error, stale = (text and "is in trouble" for text in (state.error, state.stale))
                state = replace(state, error=error, stale=stale)
            states.append((name, state))
        return together(states)

    def synced_at(self) -> float | None:
        """When one of the private members was synchronised last; see `Repository`.

        The state does not have it, because it has those of the members.
        """
        self.require_ready()
        times = (member.synced_at() for member in self._private)
        return max((at for at in times if at is not None), default=None)

    def serial(self) -> int:
        """The sum of the serials of the members."""
        return sum(member.serial() for member in self._members)

    def may_ask_storage(self) -> bool:
        """Whether any member may."""
        return any(member.may_ask_storage() for member in self._members)

    # -- which member answers ----------------------------------------------------------------------

    def ever_had(self, project: NormalizedName) -> bool:
        """Whether a private member has or had a project; see `Repository`."""
        return any_had(self._private, project)

    def had_names(self) -> Collection[NormalizedName]:
        """The names that private members have or had; see `Repository`."""
        return {name for member in self._private for name in member.had_names()}

    def _answers(
        self,
        project: NormalizedName,
        secret: Secret,
        *,
        ask: bool,
        mirrors_may: Callable[[], bool] = lambda: True,
    ) -> list[Answer]:
        """The repositories that answer for a project: one, or all that have it if it is mixed.

        `mirrors_may`: whether the group around this one lets mirrors answer. It is only called if a
        mirror is to be asked, because it may raise an error.

        Raises `HiddenFromCaller`.
        """
        is_mixed = self._is_mixed(project)
        claimants = [each for each in self._members if each.claims(project)]
        answers: list[Answer] = []
        for member in claimants or self._members:
            if cannot_tell(member) and not claimants:
                continue
            may_mirror = partial(self._mirrors_may, project, member, secret, mirrors_may, ask=ask)
            answers += self._of_member(member, project, secret, ask=ask, mirrors_may=may_mirror)
            if answers and not is_mixed:
                break
        return answers

    def _mirrors_may(
        self,
        project: NormalizedName,
        member: Repository,
        secret: Secret,
        around: Callable[[], bool],
        *,
        ask: bool,
    ) -> bool:
        """Whether a mirror may answer for a project: `member`, or a mirror in it."""
        if self._claims.match(project):
            return False
        trouble: PrivatePypiError | None = None
        try:
            # A group that is the member looks at its own members itself.
            if not self._is_mixed(project) and any_had(
                self._others(member), project, secret, ask=ask
            ):
                return False
        except TROUBLE as error:
            trouble = error  # it does not matter if the group around knows that it was private
        if not around():
            return False
        if trouble is not None:
            raise trouble
        return True

    def mirrors_for(self, project: NormalizedName) -> Iterator[Mirror]:
        """The mirrors that may answer for a project here; none for a private one that is safe."""
        for leaf in self._leaves.values():
            mirror = leaf.repository
            if not isinstance(mirror, Mirror) or not mirror.mirrors(project):
                continue
            others = (
                each for step in leaf.steps if project not in step.mix for each in step.others
            )
            if leaf.may_answer(project) and not any_had(others, project):
                yield mirror

    def _is_mixed(self, project: NormalizedName) -> bool:
        return project in self._settings.mix

    def _of_member(
        self,
        member: Repository,
        project: NormalizedName,
        secret: Secret,
        *,
        ask: bool,
        mirrors_may: Callable[[], bool],
    ) -> list[Answer]:
        if isinstance(member, Group):
            inner = member._answers(project, secret, ask=ask, mirrors_may=mirrors_may)
            return [replace(each, path=(member.name, *each.path)) for each in inner]
        if member.is_mirror and not mirrors_may():
            return []
        own = secret_for(member, secret, ask=ask)
        try:
            found = None if own is None else member.find(project, own, ask=ask)
        except WrongSecret:
            if own != secret:  # then it is the server's own secret that is wrong
                raise
            own = None
        if own is None:
            if member.claims(project) or any_had([member], project, secret, ask=ask):
                raise HiddenFromCaller
            return []
        if not isinstance(found, Found):
            if cannot_tell(member):
                raise HiddenFromCaller
            return []
        return [Answer((member.name,), member, own, found)]

    def _answering(
        self, project: NormalizedName, secret: Secret, *, ask: bool = True
    ) -> list[Answer]:
        try:
            return self._answers(project, secret, ask=ask)
        except HiddenFromCaller:
            return []

    # -- reading ---------------------------------------------------------------------------------

    def find(
        self, project: NormalizedName, secret: Secret, *, ask: bool = True
    ) -> Found | Elsewhere | Absent:
        """The project as the member has it that answers for it; see `Repository`."""
        answers = self._answering(project, secret, ask=ask)
        if not answers:
            return Absent()
        # The files of a mixed name say where they are from, even if only one member has it.
        steps = self._leaves[answers[0].path].steps
        is_mixed = len(answers) > 1 or any(project in step.mix for step in steps)
        return mixed_found(project, founds(answers)) if is_mixed else answers[0].found

    def explain(self, project: NormalizedName, secret: Secret) -> Explanation:
        """What those that answer say of a project, and why they do; see also `unanswered`."""
        answers = self._answering(project, secret)
        if not answers:
            return unanswered(project, secret, self._leaves.values(), self.ever_had)
        said = {each.path: each.repository.explain(project, each.secret) for each in answers}
        return answered(project, said, self._leaves)

    def begin_find(
        self, project: NormalizedName, secret: Secret, *, for_installer: bool = False
    ) -> Pending | None:
        """Begin to ask the first mirror that has to be asked, if mirrors may answer."""
        try:
            for mirror in self.mirrors_for(project):
                pending = mirror.begin_find(project, Secret(""), for_installer=for_installer)
                if pending is not None:
                    return pending
                is_there = isinstance(mirror.find(project, Secret(""), ask=False), Found)
                if is_there and not self._is_mixed(project):
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
        missing = FileNotFound(filename)
        for answer in self._asked(project, secret, need):
            try:
                file = answer.repository.file(project, filename, answer.secret, need)
            except FileNotFound as error:
                # The reason why a file is hidden is worth more than that another has none.
                missing = missing if isinstance(missing, FileHidden) else error
            else:
                return replace(file, source=answer.path)
        raise missing

    def begin_look(
        self, project: NormalizedName, filename: str, secret: Secret, since: float
    ) -> Look | None:
        """The same of the first private member that may answer and lets the caller in."""
        for leaf in self._leaves.values():
            if leaf.repository.is_mirror or not leaf.may_answer(project):
                continue
            own = secret_for(leaf.repository, secret)
            if own is not None:
                look = leaf.repository.begin_look(project, filename, own, since)
                if look is not None:
                    return look
        return None

    def to_fetch(
        self,
        project: NormalizedName,
        filename: str,
        secret: Secret,
        *,
        core_metadata: bool,
    ) -> ToFetch | None:
        """The same of the only member that answers for the project; see `Repository`."""
        answers = self._answering(project, secret, ask=False)
        if len(answers) != 1:
            return None
        (answer,) = answers
        return answer.repository.to_fetch(
            project, filename, answer.secret, core_metadata=core_metadata
        )

    def release(
        self,
        project: NormalizedName,
        version: str,
        secret: Secret,
        need: Access = Access.READ,
    ) -> Sequence[ListedFile]:
        """The files of a version; see `Repository`."""
        answers = self._asked(project, secret, need)
        if not answers:
            raise ProjectNotFound(project)
        if need > Access.READ:
            (answer,) = answers
            files = answer.repository.release(project, version, answer.secret, need)
            return [replace(file, source=answer.path) for file in files]
        return files_of_release(mixed_found(project, founds(answers)).files(), project, version)

    def _asked(self, project: NormalizedName, secret: Secret, need: Access) -> list[Answer]:
        """The repositories that answer. To change something, only the one that can be changed.

        That one is asked with the secret of the caller, even if everybody may read it.
        """
        answers = self._answering(project, secret)
        if need <= Access.READ or not answers:
            return answers
        published = self._publishing.path
        changeable = [replace(each, secret=secret) for each in answers if each.path == published]
        if not changeable:
            raise NotAllowed(
                f"this project is in repository {answers[0].repository.name!r}, and only "
                + (
                    f"{published[-1]!r} can be changed through {self.name!r}"
                    if published
                    else f"reading is possible through {self.name!r}"
                )
            )
        return changeable

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
        if not file.source:  # it was read from a page, which is that of the member
            file = self.file(file.project, file.filename, secret)
        member = self._leaves[file.source].repository
        own = secret_for(member, secret)
        if own is None:
            raise FileNotFound(file.filename)
        return member, own, replace(file, source=())

    # -- lists -----------------------------------------------------------------------------------

    def _lists(self, secret: Secret) -> GroupLists:
        leaves = self._leaves.values()
        return GroupLists([(leaf, secret_for(leaf.repository, secret)) for leaf in leaves])

    def list_projects(self, secret: Secret) -> ProjectList:
        """The names for which a member that lets the caller in answers."""
        return self._lists(secret).projects()

    def search(
        self, words: Sequence[str], secret: Secret, *, limit: int, offset: int
    ) -> tuple[int, list[ProjectLine]]:
        """How many projects have every word in their name, summary or keywords, and some of them.

        Without words, these are the projects of private members only, because mirrors may have
        hundreds of thousands. Mirrors whose list of projects was not read yet are left out. The
        number may be too large if there are more than are returned.
        """
        return self._lists(secret).search(words, limit=limit, offset=offset)

    def newest_releases(
        self, limit: int, secret: Secret, *, once_each: bool = True
    ) -> list[ProjectLine]:
        """The releases of private members that were uploaded last."""

        def newest(repository: Repository, own: Secret) -> Iterable[ProjectLine]:
            return repository.newest_releases(limit, own, once_each=once_each)

        return self._lists(secret).newest(newest)[:limit]

    def newest_projects(self, limit: int, secret: Secret) -> list[ProjectLine]:
        """The projects of private members whose first upload was last."""

        def newest(repository: Repository, own: Secret) -> Iterable[ProjectLine]:
            return repository.newest_projects(limit, own)

        return self._lists(secret).newest(newest)[:limit]

    # -- changing --------------------------------------------------------------------------------

    def _path_to_publish(self) -> Path:
        """The way to the repository in which files are published; () if nothing can be."""
        wanted = self._publish_to
        if wanted is None:
            return ()
        if not isinstance(wanted, Group):
            return (wanted.name,)
        inner = wanted._publishing.path
        return (wanted.name, *inner) if inner else ()

    def is_published(self, upload: Upload, secret: Secret) -> bool:
        """Whether the member of `publish_to` has a file of this name."""
        return self._publishing.repository_for(upload.file.project, secret).is_published(
            upload, secret
        )

    def publish(self, upload: Upload, secret: Secret) -> DistributionFile:
        """Publish a file in the member of `publish_to`."""
        return self._publishing.repository_for(upload.file.project, secret).publish(upload, secret)

    def yank(self, files: Sequence[ListedFile], reason: str | None, secret: Secret) -> None:
        """Yank or un-yank files of the member of `publish_to`."""
        self._publishing.repository_of(files).yank(
            [replace(file, source=()) for file in files], reason, secret
        )

    def delete(self, files: Sequence[ListedFile], secret: Secret) -> None:
        """Delete files of the member of `publish_to` for ever."""
        self._publishing.repository_of(files).delete(
            [replace(file, source=()) for file in files], secret
        )

    # -- at an instant -----------------------------------------------------------------------------

    def at(self, instant: datetime) -> Group:
        """The group with its members as they were at an instant (UTC)."""
        settings = replace(self._settings, publish_to=None)
        return Group(settings, [each.at(instant) for each in self._members])
