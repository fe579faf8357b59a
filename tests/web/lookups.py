"""Storages in memory that answer for one project at a time, named in a configuration."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from importlib.metadata import EntryPoint, EntryPoints
from typing import ClassVar

import pytest

from private_pypi.backend import BackendSettings, Folders
from private_pypi.model import StoredFile
from private_pypi.storage import plugins
from private_pypi.testing import LookupMemoryBackend, LookupMemoryStorage, Memory, MemorySettings

STORAGES: dict[str, Memory] = {}
"""By name; emptied for each test."""


@dataclass(frozen=True, kw_only=True)
class NamedSettings(MemorySettings):
    """A storage of `STORAGES`; with `owners`, each of them has one of its own name."""

    owner: str = "mine"
    owners: tuple[str, ...] = ()
    storage: Memory = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "storage", STORAGES[self.owner])


class LookupStorage(LookupMemoryStorage):
    """The storage of the settings; `lagging` are files that its listings do not have yet.

    With `halves` it sends the first half of a part only.
    """

    lagging: ClassVar[frozenset[str]] = frozenset()
    halves: ClassVar[bool] = False

    def read_part(self, location: str, start: int, length: int) -> bytes:
        part = super().read_part(location, start, length)
        return part[: len(part) // 2] if self.halves else part

    def project_files(self, project: str) -> Iterator[StoredFile]:
        return (
            stored
            for stored in super().project_files(project)
            if stored.filename not in self.lagging
        )


class LookupBackend(LookupMemoryBackend):
    """The same, with a place for each of `owners`."""

    Settings = NamedSettings
    View = LookupStorage

    def tenant_settings(self, name: str) -> NamedSettings | None:
        settings = self.settings
        assert isinstance(settings, NamedSettings)
        return replace(settings, owner=name, owners=()) if name in settings.owners else None

    def tenant(self, settings: BackendSettings, folders: Folders) -> LookupBackend:
        assert isinstance(settings, NamedSettings)
        return LookupBackend(settings, folders)


def install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a configuration say `type = "lookup"`."""
    here = f"{LookupBackend.__module__}:{LookupBackend.__name__}"
    point = EntryPoint(name="lookup", value=here, group=plugins.BACKENDS)

    def find(*, group: str) -> EntryPoints:
        return EntryPoints([point] if group == plugins.BACKENDS else [])

    monkeypatch.setattr(plugins, "entry_points", find)
    STORAGES.clear()
