"""Looks at projects, below the web: what one who waits is told, and what stays in memory."""

from __future__ import annotations

import gc
import logging
import threading
import weakref
from collections.abc import Callable, Hashable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest
from packaging.utils import canonicalize_name

from private_pypi.errors import BackendUnavailable, ProjectNotFound
from private_pypi.index.local import LocalIndex
from private_pypi.index.lookups import ProjectLookups
from private_pypi.model import StoredFile
from private_pypi.storage.file_cache import FileCache
from private_pypi.storage.remembered_facts import RememberedFacts
from private_pypi.system.background import Background, StillRunning
from private_pypi.testing import LookupMemoryStorage, Memory

T = TypeVar("T")

DEMO = canonicalize_name("demo")


class Counting(Background):
    """Counts how often a result is asked for."""

    asked = 0

    def result(self, key: Hashable, call: Callable[[], T], *, wait: float) -> T:
        self.asked += 1
        return super().result(key, call, wait=wait)


class Joining(Background):
    """Here somebody else's lookup, with another secret, always runs and fails."""

    def result(self, key: Hashable, call: Callable[[], T], *, wait: float) -> T:
        raise ProjectNotFound("demo")


@pytest.fixture
def storage() -> Memory:
    storage = Memory()
    storage.projects.add("demo")
    return storage


Make = Callable[..., ProjectLookups]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    made: list[Any] = []

    def make(background: Background, budget: float = 60.0) -> ProjectLookups:
        index = LocalIndex(tmp_path / "index.sqlite", identity="memory", always_ready=True)
        facts = RememberedFacts(tmp_path / "facts.sqlite")
        made.extend((index, facts, background))
        return ProjectLookups(
            index,
            facts,
            FileCache(tmp_path / "metadata", tmp_path, max_bytes=1000),
            background,
            title="mine",
            place="mine",
            tmp=tmp_path,
            interval=timedelta(hours=1),
            stale_for=timedelta(hours=1),
            budget=budget,
        )

    yield make
    for each in made:
        each.close()


def test_who_finds_every_thread_held_by_a_storage_that_hangs_is_told_at_once(
    storage: Memory, make: Make
) -> None:
    background = Counting("test", most=1)
    lookups = make(background)
    go = threading.Event()
    with pytest.raises(StillRunning):
        background.result("hangs", lambda: go.wait(60), wait=0.01)
    background.asked = 0
    with pytest.raises(BackendUnavailable, match="too many requests"):
        lookups.look_up(DEMO, storage.open_lookup(), b"ours")
    assert background.asked == 1
    go.set()


def test_who_comes_while_the_server_stops_is_told_at_once(storage: Memory, make: Make) -> None:
    background = Counting("test", most=1)
    lookups = make(background)
    background.close()
    with pytest.raises(BackendUnavailable, match="the server is stopping"):
        lookups.look_up(DEMO, storage.open_lookup(), b"ours")
    assert background.asked == 1


def test_what_another_secret_met_is_not_ours_also_when_the_time_is_over(
    storage: Memory, make: Make
) -> None:
    """Its absence would be a 404 for us, and a client would look elsewhere."""
    lookups = make(Joining("test", most=1), budget=0.0)
    with pytest.raises(StillRunning):
        lookups.look_up(DEMO, storage.open_lookup(), b"ours")


class Listing(LookupMemoryStorage):
    """Fails with a large listing in its hands."""

    listings: list[weakref.ref[Any]]

    def project_files(self, project: str) -> Iterator[StoredFile]:
        listing = type("Listing", (), {})()
        self.listings.append(weakref.ref(listing))
        raise BackendUnavailable("half of it came")


def test_trouble_that_is_remembered_holds_nothing_of_what_was_read(
    storage: Memory, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)  # it would keep the errors that are logged
    lookups = make(Background("test", most=1))
    opened = storage.open_lookup()
    backend = Listing(opened.backend, opened.secret)
    backend.listings = []
    for _ in range(3):
        with pytest.raises(BackendUnavailable, match="half of it came"):
            lookups.look_up(DEMO, backend, b"ours")
    (listing,) = backend.listings  # asked once
    gc.collect()
    assert listing() is None
