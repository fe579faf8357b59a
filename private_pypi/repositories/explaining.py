"""What a repository serves of a project and what it does not, with the reasons, as values."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cache

from packaging.utils import NormalizedName
from packaging.version import Version

from private_pypi.distributions.filenames import parse_filename
from private_pypi.errors import InvalidFilename
from private_pypi.index.rows import version_key
from private_pypi.model import FRESH, Freshness, ListedFile
from private_pypi.policy import HiddenFile

MOST_KEPT = 20_000
"""Files whose explanations are kept in memory, which take about 1.5 kB each."""


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


@dataclass(frozen=True, slots=True)
class _Kept:
    of: Hashable
    said: Explanation
    until: datetime

    @property
    def size(self) -> int:
        """The number of files."""
        return len(self.said.files) + len(self.said.hidden)


class KeptExplanations:
    """Explanations that were made lately, of at most `MOST_KEPT` files; safe for many threads."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Hashable, _Kept] = OrderedDict()
        self._lock = threading.Lock()  # guards _kept

    def find(self, question: Hashable, of: Hashable, *, now: datetime) -> Explanation | None:
        """What was kept for a question and an equal state `of`; None: nothing.

        `now`: in UTC.
        """
        kept = self._kept.get(question)
        return kept.said if kept is not None and kept.of == of and now < kept.until else None

    def keep(self, question: Hashable, of: Hashable, said: Explanation, *, until: datetime) -> None:
        """Keep an explanation as long as the state is equal, and until an instant (UTC)."""
        with self._lock:
            self._kept[question] = _Kept(of, said, until)
            self._kept.move_to_end(question)
            while self.size() > MOST_KEPT:
                self._kept.popitem(last=False)

    def size(self) -> int:
        """The files of all explanations that are kept."""
        return sum(each.size for each in self._kept.values())


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
    return sorted(hidden, key=_order())


def _order() -> Callable[[ListedFile | HiddenFile], tuple[str, str]]:
    """A key for sorting. A project has many files of one version, which takes long to parse."""
    key = cache(lambda version: version_key(Version(version)) if version else "")
    return lambda file: (key(file.version), file.filename)


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
        files=sorted(files.values(), key=_order()),
        hidden=ordered(each for name, each in hidden.items() if name not in files),
        exceptions=exceptions,
        notes=[
            about_member(path, note) for path, each in explanations.items() for note in each.notes
        ],
        freshness=Freshness(max(ages, default=None)),
    )
