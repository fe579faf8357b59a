"""Storages in memory that answer for one project at a time, reached by a configuration."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from importlib.metadata import EntryPoint, EntryPoints
from typing import ClassVar

import pytest

from private_pypi import plugins
from private_pypi.backend import Known
from private_pypi.model import StoredFile
from private_pypi.testing import LookupMemoryBackend, MemorySettings, MemoryStorage

STORAGES: dict[str, MemoryStorage] = {}
"""By name; emptied for each test."""


@dataclass(frozen=True, kw_only=True)
class NamedSettings(MemorySettings):
    """A storage of `STORAGES`; with `owners`, each of them has one of its own name."""

    owner: str = "mine"
    owners: tuple[str, ...] = ()
    storage: MemoryStorage = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "storage", STORAGES[self.owner])

    def tenant(self, user: str) -> NamedSettings | None:
        """The place of an allowed owner."""
        return replace(self, owner=user, owners=()) if user in self.owners else None


class LookupBackend(LookupMemoryBackend):
    """The storage of the settings; `lagging` are files that its listings do not have yet.

    With `halves` it sends the first half of a part only.
    """

    Settings = NamedSettings
    lagging: ClassVar[frozenset[str]] = frozenset()
    halves: ClassVar[bool] = False

    def read_part(self, location: str, start: int, length: int) -> bytes:
        part = super().read_part(location, start, length)
        return part[: len(part) // 2] if self.halves else part

    def project_files(self, project: str, known: Known | None = None) -> Iterator[StoredFile]:
        return (
            stored
            for stored in super().project_files(project, known)
            if stored.filename not in self.lagging
        )


def install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a configuration say `type = "lookup"`."""
    here = f"{LookupBackend.__module__}:{LookupBackend.__name__}"
    point = EntryPoint(name="lookup", value=here, group=plugins.BACKENDS)

    def find(*, group: str) -> EntryPoints:
        return EntryPoints([point] if group == plugins.BACKENDS else [])

    monkeypatch.setattr(plugins, "entry_points", find)
    STORAGES.clear()
