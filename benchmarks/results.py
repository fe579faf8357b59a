"""What a run measured, and what follows from it; nothing here measures or prints."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from enum import Enum

OURS = "private_pypi"
ONCE = "once"
"""Not a server: the same bytes read, hashed, written and synced once."""


class Unit(Enum):
    """What a value counts; samples are always in the plain unit (1/s, bytes/s, s, bytes, 1)."""

    RATE = "per second"
    SPEED = "bytes per second"
    TIME = "seconds"
    MEMORY = "bytes"
    COUNT = "number"

    @property
    def more_is_better(self) -> bool:
        return self in (Unit.RATE, Unit.SPEED)

    def show(self, value: float) -> str:
        """The value for people, with its unit."""
        match self:
            case Unit.RATE:
                return f"{_digits(value)}/s"
            case Unit.SPEED:
                return f"{_digits(value / 1e6)} MB/s"
            case Unit.TIME:
                return f"{_digits(value * 1e3)} ms" if value < 1 else f"{_digits(value)} s"
            case Unit.MEMORY:
                return f"{_digits(value / 1e6)} MB"
            case Unit.COUNT:
                return f"{value:,.3g}" if value % 1 else f"{value:,.0f}"


@dataclass(frozen=True, slots=True)
class Measure:
    """Something that is measured of every server that can do it."""

    key: str
    title: str
    unit: Unit


@dataclass(frozen=True, slots=True)
class Sample:
    """One value of one round."""

    measure: Measure
    server: str
    files: int  # in the index
    round: int
    value: float


@dataclass(slots=True)
class Results:
    """All samples of a run, and the sentences that a reader needs beside them."""

    samples: list[Sample] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def add(self, measure: Measure, server: str, files: int, round_: int, value: float) -> None:
        self.samples.append(Sample(measure, server, files, round_, value))

    def remark(self, sentence: str) -> None:
        if sentence not in self.remarks:
            self.remarks.append(sentence)

    def servers(self) -> list[str]:
        """The measured servers, ours first, the others by name."""
        names = dict.fromkeys(s.server for s in self.samples if s.server != ONCE)
        return sorted(names, key=lambda name: (name != OURS, name))

    def value(self, measure: Measure, server: str, files: int) -> float | None:
        """The median over the rounds; None when it was not measured."""
        values = list(self._rounds(measure, server, files).values())
        return statistics.median(values) if values else None

    def times_better(
        self, measure: Measure, peer: str, files: int, *, ours: str = OURS
    ) -> float | None:
        """How many times better ours is: the median of the ratios of the rounds that both have."""
        ratio = _median_ratio(
            self._rounds(measure, ours, files), self._rounds(measure, peer, files)
        )
        if ratio is None or measure.unit.more_is_better:
            return ratio
        return 1 / ratio if ratio else None

    def growth(self, measure: Measure, smaller: int, larger: int) -> float | None:
        """Our value at `larger` files, in units of that at `smaller`; ratios as above."""
        return _median_ratio(
            self._rounds(measure, OURS, larger), self._rounds(measure, OURS, smaller)
        )

    def times_once(self, measure: Measure, server: str, files: int) -> float | None:
        """The value in units of doing it once without a server."""
        return _median_ratio(
            self._rounds(measure, server, files), self._rounds(measure, ONCE, files)
        )

    def as_json(self) -> list[dict[str, object]]:
        """Every sample, in plain units."""
        return [
            {
                "measure": s.measure.key,
                "unit": s.measure.unit.value,
                "server": s.server,
                "files": s.files,
                "round": s.round,
                "value": s.value,
            }
            for s in self.samples
        ]

    def _rounds(self, measure: Measure, server: str, files: int) -> dict[int, float]:
        return {
            s.round: s.value
            for s in self.samples
            if s.measure == measure and s.server == server and s.files == files
        }


@dataclass(frozen=True, slots=True)
class Target:
    """A promise, and what became of it in this run."""

    promise: str
    measured: float | None  # None: not measured
    limit: float
    at_least: bool
    show: str  # a format for `measured` and `limit`

    @property
    def reached(self) -> bool | None:
        """None: not measured."""
        if self.measured is None:
            return None
        return self.measured >= self.limit if self.at_least else self.measured <= self.limit


def _median_ratio(over: dict[int, float], under: dict[int, float]) -> float | None:
    shared = [over[n] / under[n] for n in over.keys() & under.keys() if under[n]]
    return statistics.median(shared) if shared else None


def _digits(value: float) -> str:
    """Three digits, and thousands set apart."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    if abs(value) >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}"
