"""What GitHub was asked in a run, and would have been asked by others; nothing here measures.

How often private-pypi 0.2 and PyPIHub ask is known from studying these systems. The sections that
the formulas name are those of that study: §1 is about private-pypi 0.2, §2 about PyPIHub.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from tests.github.fake import Request

SEED = "private-pypi 0.2"
PYPIHUB = "PyPIHub"
SYSTEMS = (SEED, PYPIHUB)


@dataclass(frozen=True, slots=True)
class Tally:
    """Requests to GitHub; a mean where something was done several times."""

    counted: float  # against the primary limit of the token
    free: float  # to the API as well, but not counted: mostly those that are answered by 304
    storage: float  # for content, at signed addresses; GitHub does not limit these

    @property
    def api(self) -> float:
        """All but those for content."""
        return self.counted + self.free

    @classmethod
    def of(cls, requests: Iterable[Request], times: int = 1) -> Tally:
        """The tally of a log in which the same thing was done so many times."""
        log = list(requests)
        counted = sum(request.counted for request in log)
        storage = sum(request.host == "storage" for request in log)
        return cls(counted / times, (len(log) - counted - storage) / times, storage / times)


@dataclass(frozen=True, slots=True)
class Formula:
    """How many requests another system would have sent for the same, at least."""

    system: str
    words: str
    reason: str
    sections: str


@dataclass(frozen=True, slots=True)
class Estimate:
    """The value of a formula: computed, not measured."""

    formula: Formula
    requests: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """One thing that was done once, or several times in a row."""

    group: str
    task: str
    way: str  # the type of the repository, and what else was chosen
    seconds: float
    asked: Tally
    others: Sequence[Estimate] = ()

    def estimate(self, system: str) -> Estimate | None:
        """What a system would have asked, if it can do this at all."""
        return next((e for e in self.others if e.formula.system == system), None)


@dataclass(slots=True)
class Outcomes:
    """All that came out of a run, in its order."""

    rows: list[Outcome] = field(default_factory=list)
    fake: dict[str, float] = field(default_factory=dict)  # seconds that an answer takes by itself

    def of(self, group: str) -> list[Outcome]:
        """The rows of a group."""
        return [row for row in self.rows if row.group == group]

    def as_json(self) -> list[dict[str, object]]:
        """Every row, in plain units (seconds, requests)."""
        return [
            {
                "group": row.group,
                "task": row.task,
                "way": row.way,
                "seconds": row.seconds,
                "counted": row.asked.counted,
                "not_counted": row.asked.free,
                "storage": row.asked.storage,
                "computed": {e.formula.system: e.requests for e in row.others},
            }
            for row in self.rows
        ]


_LOGIN = 3
_SYNC = 4
_UPLOAD = 4

UPDATE = Formula(
    SEED,
    "3 + ⌈releases ÷ 100⌉ + 2",
    "It logs in (the repository, the user, the user's rights), lists all releases, reads the old "
    "document and writes the new one. A page is taken to have 100 releases, the most that GitHub "
    "gives; smaller pages would be more requests.",
    "§1.2, §1.9, §1.11",
)
UNCHANGED_UPDATE = Formula(
    SEED,
    "3 + ⌈releases ÷ 100⌉ + 1",
    "The same without writing.",
    "§1.2, §1.9, §1.11",
)
START = Formula(
    SEED,
    "4 + 3",
    "One synchronisation before it serves, and the login of the first reader. It cannot take an "
    "index document of more than 1 MB: GitHub's interface that it uses gives no content then.",
    "§1.2, §1.9, §1.13 (10)",
)
SYNC = Formula(SEED, "4", "Each synchronisation, changed or not; all are counted.", "§1.13 (10)")
UPLOAD = Formula(
    SEED,
    "3 + 4 × files",
    "The login, once in five minutes; then the release by its tag, a draft, the asset, and its "
    "publication. It stores no core metadata, which is one of our requests for each wheel.",
    "§1.9, §1.11",
)
SEED_INSTALL = Formula(
    SEED,
    "3 + packages",
    "The login, once in an hour, and one request for each download; nothing is kept. Without core "
    "metadata an installer reads the wheel itself, and may ask for it more than once.",
    "§1.8, §1.9, §1.13 (10)",
)
SEED_AGAIN = Formula(
    SEED, "packages", "The same while the login is remembered.", "§1.9, §1.13 (10)"
)
PYPIHUB_PAGE = Formula(
    PYPIHUB,
    "⌈releases ÷ 64⌉",
    "One query for each 64 releases, every time: it keeps nothing, and queries cannot be "
    "conditional. A query may count for more than one.",
    "§2, §2.2",
)
PYPIHUB_INSTALL = Formula(
    PYPIHUB,
    "packages × ⌈releases ÷ 64⌉ + packages",
    "A page and a download for each package, every time. Without core metadata an installer may "
    "ask for a wheel more than once.",
    "§2, §2.2",
)


def update_of_seed(releases: int, *, changed: bool) -> Estimate:
    requests = _LOGIN + math.ceil(releases / 100) + (2 if changed else 1)
    return Estimate(UPDATE if changed else UNCHANGED_UPDATE, requests)


def start_of_seed() -> Estimate:
    return Estimate(START, _SYNC + _LOGIN)


def sync_of_seed() -> Estimate:
    return Estimate(SYNC, _SYNC)


def upload_of_seed(files: int) -> Estimate:
    return Estimate(UPLOAD, _LOGIN + _UPLOAD * files)


def install_of_seed(packages: int, *, again: bool) -> Estimate:
    if again:
        return Estimate(SEED_AGAIN, packages)
    return Estimate(SEED_INSTALL, _LOGIN + packages)


def page_of_pypihub(releases: int) -> Estimate:
    return Estimate(PYPIHUB_PAGE, math.ceil(releases / 64))


def install_of_pypihub(packages: int, releases: int) -> Estimate:
    return Estimate(PYPIHUB_INSTALL, packages * math.ceil(releases / 64) + packages)
