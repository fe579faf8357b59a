"""What one caller sees of all members of a group together: lists, searches and feeds.

Which member answers for one project is decided in `group`. Here the same rules, which are numbered
there, are applied to the names that each member lists.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from packaging.utils import NormalizedName

from private_pypi.backend import Secret
from private_pypi.errors import PrivatePypiError
from private_pypi.index.local import ProjectLine
from private_pypi.model import Freshness
from private_pypi.repositories.answers import Found, ProjectList
from private_pypi.repositories.group_members import TROUBLE, Leaf, untold
from private_pypi.repositories.mirrored_pages import ListNotRead
from private_pypi.repositories.repository import Repository

_MOST_READ = 10_000  # lines of a search that are read of one member

_Holds = Callable[[NormalizedName], bool]


class GroupLists:
    """The members of a group, each with the secret with which it is asked for this caller."""

    def __init__(self, entries: Sequence[tuple[Leaf, Secret | None]]) -> None:
        """None: the member does not let the caller in. The order is that of the members."""
        self._entries = entries
        self._had: dict[int, frozenset[NormalizedName]] = {}  # by the id of the repository

    def projects(self) -> ProjectList:
        """The names for which a member answers."""
        lists: list[Iterable[tuple[NormalizedName, int]]] = []
        key: list[Hashable] = []
        ages: list[float] = []
        serial = 0
        for number, (leaf, own) in enumerate(self._entries):
            claims = [
                (step.mix, step.group_claims.patterns, step.member_claims.patterns)
                for step in leaf.steps
            ]
            key.append((leaf.path, *claims))
            if own is None:
                key.append(None)
                continue
            listed = leaf.repository.list_projects(own)
            key.append((listed.kept_in, listed.serial))
            serial += listed.serial
            if listed.freshness.age is not None:
                ages.append(listed.freshness.age)
            lists.append(_Filtered(listed, self._shows(number)))

        def read() -> Iterator[tuple[NormalizedName, int]]:
            last = ""
            for name, number in heapq.merge(*lists, key=lambda each: each[0]):
                if name != last:
                    yield name, number
                last = name

        # All names that hide others are known by now. They change without those that are listed.
        kept_in = ("group", *key, *self._had.values())
        return ProjectList(kept_in, serial, Freshness(max(ages, default=None)), read)

    def search(
        self, words: Sequence[str], *, limit: int, offset: int
    ) -> tuple[int, list[ProjectLine]]:
        """How many projects are found, and some of them; see `Repository.search`."""
        total, lines = 0, dict[str, ProjectLine]()
        for number, (leaf, own) in enumerate(self._entries):
            if own is None or (leaf.repository.is_mirror and not words):
                continue
            answers = self._answers(number)
            read = kept = left_out = count = 0
            while kept < offset + limit and read < _MOST_READ:
                try:
                    count, part = leaf.repository.search(
                        words, own, limit=offset + limit, offset=read
                    )
                except ListNotRead:
                    break
                read += len(part)
                for line in part:
                    if line.name not in lines and answers(line.name):
                        lines[line.name] = line
                        kept += 1
                    else:
                        left_out += 1
                if not part or read >= count:
                    break
            total += count - left_out
        wanted = "-".join(words).lower()
        ordered = sorted(lines.values(), key=lambda line: (line.name != wanted, line.name))
        return total, ordered[offset : offset + limit]

    def newest(
        self, newest: Callable[[Repository, Secret], Iterable[ProjectLine]]
    ) -> list[ProjectLine]:
        """What `newest` gives of private members, as far as they answer, the newest first."""
        lines: list[ProjectLine] = []
        for number, (leaf, own) in enumerate(self._entries):
            if own is None or leaf.repository.is_mirror:
                continue
            answers = self._answers(number)
            lines += (each for each in newest(leaf.repository, own) if answers(each.name))
        oldest = datetime.min.replace(tzinfo=UTC)
        return sorted(lines, key=lambda line: line.uploaded_at or oldest, reverse=True)

    # -- the rules -------------------------------------------------------------------------------

    def _answers(self, number: int) -> _Holds:
        """Whether a member that has a name answers for it, because none before it does."""
        leaf, _ = self._entries[number]
        shows = self._shows(number)
        before = [
            (each, own, leaf.mix_with(each), self._shows(at))
            for at, (each, own) in enumerate(self._entries[:number])
            if own is not None and not each.repository.is_mirror
        ]

        def is_answered_by(each: Leaf, own: Secret, name: NormalizedName) -> bool:
            try:
                return isinstance(each.repository.find(name, own, ask=False), Found)
            except PrivatePypiError:
                return True  # perhaps

        return lambda name: (
            shows(name)
            and not any(
                name not in mix and shown(name) and is_answered_by(each, own, name)
                for each, own, mix, shown in before
            )
        )

    def _shows(self, number: int) -> _Holds:
        """Whether a name of a member may be shown, unless another one answers for it: rules 1 to 5.

        Raises the trouble of members that cannot say which names they had.
        """
        leaf, _ = self._entries[number]
        private = [
            (step.mix, self._had_by(other))
            for step in leaf.steps
            if leaf.repository.is_mirror
            for other in step.others
        ]
        # Of members that do not let the caller in, and of those whose answer is final. Only for
        # names that are mixed, members after this one are asked as well.
        hiding = [
            (
                each,
                frozenset() if own is not None else self._had_by(each.repository),
                leaf.mix_with(each) if at > number else None,
            )
            for at, (each, own) in enumerate(self._entries)
            if own is None or (at < number and each.repository.rights_per_project)
        ]

        def shows(name: NormalizedName) -> bool:
            return (
                leaf.may_answer(name)
                and not any(name in had and name not in mix for mix, had in private)
                and not any(
                    (only is None or name in only)
                    and (name in had or each.claims(name))
                    and each.may_answer(name)
                    for each, had, only in hiding
                )
            )

        return shows

    def _had_by(self, repository: Repository) -> frozenset[NormalizedName]:
        had = self._had.get(id(repository))
        if had is None:
            try:
                had = self._had[id(repository)] = frozenset(repository.had_names())
            except TROUBLE as error:
                is_seen = any(
                    own is not None and leaf.repository is repository for leaf, own in self._entries
                )
                if is_seen:
                    raise
                raise untold(error) from error
        return had


@dataclass(frozen=True, slots=True)
class _Filtered:
    """The entries of a list for which a condition holds; can be iterated several times."""

    listed: ProjectList
    holds: _Holds

    def __iter__(self) -> Iterator[tuple[NormalizedName, int]]:
        return (each for each in self.listed.read() if self.holds(each[0]))
