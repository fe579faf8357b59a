"""What the benchmarks of a single storage share: where and how a run was made, and its files."""

from __future__ import annotations

import json
import os
import platform
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

from benchmarks.report import describe_machine

PlanT = TypeVar("PlanT")


@dataclass(frozen=True, slots=True)
class Setting(Generic[PlanT]):
    """Where and how a run was made."""

    date: str
    machine: str
    python: str
    other_work: tuple[float, float]  # load averages, before and at the end
    seconds: float
    plan: PlanT


@dataclass(frozen=True, slots=True)
class Started:
    """A run that has begun."""

    _load: float = field(default_factory=lambda: os.getloadavg()[0])
    _begin: float = field(default_factory=time.monotonic)

    def ended(self, plan: PlanT) -> Setting[PlanT]:
        """The setting of the run, which ends now."""
        return Setting(
            date=time.strftime("%d %B %Y"),
            machine=describe_machine(),
            python=platform.python_version(),
            other_work=(self._load, os.getloadavg()[0]),
            seconds=time.monotonic() - self._begin,
            plan=plan,
        )


def write_results(folder: Path, name: str, *, text: str, picture: str, rows: object) -> None:
    """Write NAME.md (in capitals), name.svg and name.json, and print the text."""
    (folder / f"{name.upper()}.md").write_text(text)
    (folder / f"{name}.svg").write_text(picture)
    (folder / f"{name}.json").write_text(json.dumps(rows, indent=1) + "\n")
    print(text)
