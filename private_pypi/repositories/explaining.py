"""What a repository serves of a project and what it does not, with the reasons, as values."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import NamedTuple

from packaging.utils import NormalizedName

from private_pypi.distributions.filenames import parse_filename
from private_pypi.errors import InvalidFilename
from private_pypi.index.rows import file_order
from private_pypi.model import FRESH, Freshness, ListedFile
from private_pypi.policy import HiddenFile
from private_pypi.storage.bounded import BoundedBytes

MOST_BYTES = 30 * 10**6
"""How much memory the explanations of a mirror may take: they are of about 20,000 files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """All files of a project that a caller may know of: those that are served, and the others."""

    project: NormalizedName
    is_found: bool  # whether the repository has the project, perhaps without a file that is served
    files: Sequence[ListedFile] = ()  # that are served; ordered by version (PEP 440), then by name
    hidden: Sequence[HiddenFile] = ()  # that are not served, in the same order
    exceptions: Mapping[str, str] = field(default_factory=dict)
    """By filename, for served files that a rule would hide: why it does not, as a sentence."""
    notes: Sequence[str] = ()
    """Sentences about the whole project: from where it is, why there is nothing, what is wrong."""
    elsewhere: str | None = None
    """The address of the page of another index to which clients are sent, except by a group."""
    freshness: Freshness = FRESH


class _Kept(NamedTuple):
    of: Hashable
    said: Explanation
    until: datetime


class KeptExplanations:
    """Explanations that were made lately, in a limited part of memory; safe for many threads."""

    def __init__(self) -> None:
        self._kept: BoundedBytes[_Kept] = BoundedBytes(MOST_BYTES)

    def find(self, question: Hashable, of: Hashable, *, now: datetime) -> Explanation | None:
        """What was kept for a question and an equal state `of`; None: nothing.

        `now`: in UTC.
        """
        kept = self._kept.find(question)
        return kept.said if kept is not None and kept.of == of and now < kept.until else None

    def keep(self, question: Hashable, of: Hashable, said: Explanation, *, until: datetime) -> None:
        """Keep an explanation as long as the state is equal, and until an instant (UTC)."""
        self._kept.keep(question, _Kept(of, said, until), _size(said))

    @property
    def size(self) -> int:
        """Roughly how much memory they take, in bytes."""
        return self._kept.size


def _size(said: Explanation) -> int:
    # One without files takes memory as well, and anybody can ask for many of them, such as for a
    # project at other and other instants.
    return 1500 * (1 + len(said.files) + len(said.hidden))


def about_member(path: Sequence[str], note: str) -> str:
    """A sentence about the member of a group that is reached by a path of names."""
    return f"member {'/'.join(path)!r}: {note}"


def hidden_file(filename: str, rule: str, reason: str) -> HiddenFile:
    """A file that is not served, of which only the name is known."""
    try:
        version: str | None = str(parse_filename(filename).version)
    except InvalidFilename:
        version = None
    return HiddenFile(filename=filename, version=version, rule=rule, reason=reason)


def ordered(hidden: Iterable[HiddenFile]) -> list[HiddenFile]:
    """Hidden files in the order of `Explanation.hidden`; those of unknown versions come first."""
    return sorted(hidden, key=lambda file: file_order(file.version, file.filename))


def mixed(explanations: Mapping[tuple[str, ...], Explanation]) -> Explanation:
    """What several members of a group say of one project; there is at least one.

    They are given by the names that lead to them, which files get before their `source`. Of equal
    names of files, the first member's counts.
    """
    files: dict[str, ListedFile] = {}
    hidden: dict[str, HiddenFile] = {}
    exceptions: dict[str, str] = {}
    for path, each in explanations.items():
        for file in each.files:
            if file.filename not in files:
                files[file.filename] = replace(file, source=(*path, *file.source))
                if file.filename in each.exceptions:
                    exceptions[file.filename] = each.exceptions[file.filename]
        for other in each.hidden:
            hidden.setdefault(other.filename, other)
    ages = [each.freshness.age for each in explanations.values() if each.freshness.age is not None]
    return Explanation(
        project=next(iter(explanations.values())).project,
        is_found=True,
        files=sorted(files.values(), key=lambda file: file_order(file.version, file.filename)),
        hidden=ordered(each for name, each in hidden.items() if name not in files),
        exceptions=exceptions,
        notes=[
            about_member(path, note) for path, each in explanations.items() for note in each.notes
        ],
        freshness=Freshness(max(ages, default=None)),
    )
