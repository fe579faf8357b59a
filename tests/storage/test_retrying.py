"""Retries, with a clock that only moves when somebody sleeps."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from private_pypi.backend import (
    NO_INDEX,
    STORAGE_CAPABILITIES,
    Access,
    AnyStorage,
    Folders,
    Secret,
    SupportsDelete,
    SupportsRecent,
    SupportsUsage,
    Usage,
    capability,
)
from private_pypi.errors import (
    BackendError,
    BackendUnavailable,
    FileAlreadyExists,
    FileNotFound,
    NotAllowed,
    PrivatePypiError,
    StaleIndex,
    StorageFull,
)
from private_pypi.storage.retrying import retrying
from private_pypi.testing import Memory, MemoryBackend, MemorySettings
from private_pypi.testing.contract import (
    DeletingContract,
    InProcessContract,
    RecentContract,
    YankingContract,
)
from private_pypi.testing.contract.helpers import content_of, document, make_upload, published
from private_pypi.testing.memory import AnyMemoryStorage


class Clock:
    """Remembers every sleep, and takes no time."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def storage() -> Memory:
    return Memory()


@pytest.fixture
def backend(storage: Memory, clock: Clock) -> Any:
    return retrying(storage.open(), sleep=clock.sleep, clock=lambda: clock.now)


def down(retry_after: int = 0) -> BackendUnavailable:
    return BackendUnavailable("the storage is down", retry_after=retry_after)


class PatientBackend(MemoryBackend):
    def seen_with(self, secret: Secret) -> AnyStorage:
        return retrying(super().seen_with(secret), sleep=lambda seconds: None)


class TestRetryingStorage(InProcessContract, DeletingContract, RecentContract, YankingContract):
    """Patience changes nothing of what a storage promises."""

    constant_memory = False

    @pytest.fixture
    def place(self, tmp_path: Path) -> Memory:
        return Memory(read_secret=self.read_secret, write_secret=self.write_secret)

    def open_backend(self, place: Any, folders: Folders) -> MemoryBackend:
        settings = MemorySettings(name="mine", max_file_bytes=1 << 30, storage=place)
        return PatientBackend(settings, folders)

    def break_storage(self, place: Any) -> None:
        place.broken = True


def every_call(backend: Any, tmp_path: Path) -> dict[str, tuple[Callable[[], object], object]]:
    """For each verb that is tried again: a call of it, and what it returns."""
    upload = make_upload(tmp_path, "demo-1.0.tar.gz", b"content")
    stored = backend.put_file(upload)
    file = published(upload, stored)
    revision = backend.write_index(document(tmp_path, b"mtime = 1\n"), NO_INDEX)
    long_ago = datetime.now(UTC) - timedelta(days=1)
    return {
        "access": (backend.access, Access.WRITE),
        "list_files": (lambda: list(backend.list_files()), [stored]),
        "recent_files": (lambda: list(backend.recent_files(long_ago)), [stored]),
        "open_file": (lambda: content_of(backend.open_file(file)), b"content"),
        "open_core_metadata": (
            lambda: content_of(backend.open_core_metadata(file)),
            upload.core_metadata,
        ),
        "put_file": (lambda: backend.put_file(upload), stored),
        "read_index": (lambda: backend.read_index(tmp_path / "index.toml"), revision),
        "yank_file": (lambda: backend.yank_file(file, "broken"), None),
        "delete_file": (lambda: backend.delete_file(file), None),
    }


VERBS = [
    "access",
    "list_files",
    "recent_files",
    "open_file",
    "open_core_metadata",
    "put_file",
    "read_index",
    "yank_file",
    "delete_file",
]


@pytest.mark.parametrize("verb", VERBS)
def test_a_call_that_may_be_repeated_is_tried_again(
    verb: str, backend: Any, storage: Memory, clock: Clock, tmp_path: Path
) -> None:
    call, expected = every_call(backend, tmp_path)[verb]
    storage.calls.clear()
    storage.fail_next(verb, down(), times=2)
    assert call() == expected
    assert storage.calls == {verb: 3}
    assert len(clock.slept) == 2


@pytest.mark.parametrize("verb", VERBS)
def test_the_third_failure_is_raised(
    verb: str, backend: Any, storage: Memory, tmp_path: Path
) -> None:
    call, _ = every_call(backend, tmp_path)[verb]
    storage.calls.clear()
    storage.fail_next(verb, down(retry_after=7), times=3)
    with pytest.raises(BackendUnavailable) as raised:
        call()
    assert raised.value.retry_after == 7
    assert storage.calls == {verb: 3}


@pytest.mark.parametrize(
    "error",
    [
        BackendError("strange answer"),
        StorageFull("no space"),
        FileNotFound("demo-1.0.tar.gz"),
        FileAlreadyExists("demo-1.0.tar.gz"),
        NotAllowed("read only"),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("verb", ["list_files", "put_file", "open_file"])
def test_other_errors_are_raised_at_once(
    error: PrivatePypiError,
    verb: str,
    backend: Any,
    storage: Memory,
    clock: Clock,
    tmp_path: Path,
) -> None:
    call, _ = every_call(backend, tmp_path)[verb]
    storage.fail_next(verb, error)
    with pytest.raises(type(error)) as raised:
        call()
    assert raised.value is error
    assert clock.slept == []


def test_an_index_is_never_written_twice(
    backend: Any, storage: Memory, clock: Clock, tmp_path: Path
) -> None:
    storage.fail_next("write_index", down())
    with pytest.raises(BackendUnavailable):
        backend.write_index(document(tmp_path, b"mtime = 1\n"), NO_INDEX)
    assert (storage.calls["write_index"], clock.slept) == (1, [])
    revision = backend.write_index(document(tmp_path, b"mtime = 1\n"), NO_INDEX)
    with pytest.raises(StaleIndex):
        backend.write_index(document(tmp_path, b"mtime = 2\n"), NO_INDEX)
    assert backend.read_index(tmp_path / "index.toml") == revision


def test_waits_grow_and_differ(storage: Memory, clock: Clock) -> None:
    backend = retrying(storage.open(), attempts=5, sleep=clock.sleep, clock=lambda: clock.now)
    storage.fail_next("access", down(), times=4)
    assert backend.access() == Access.WRITE
    for wait, least in zip(clock.slept, [0.25, 0.5, 1, 2], strict=True):
        assert least <= wait <= 2 * least
    first = clock.slept
    clock.slept = []
    storage.fail_next("access", down(), times=4)
    assert backend.access() == Access.WRITE
    assert clock.slept != first


def test_what_the_storage_asks_for_is_waited(backend: Any, storage: Memory, clock: Clock) -> None:
    storage.fail_next("access", down(retry_after=10))
    assert backend.access() == Access.WRITE
    assert 10 <= clock.slept[0] <= 10.25


def test_a_wait_that_is_too_long_is_left_to_the_caller(
    backend: Any, storage: Memory, clock: Clock
) -> None:
    storage.fail_next("access", down(retry_after=11))
    with pytest.raises(BackendUnavailable) as raised:
        backend.access()
    assert raised.value.retry_after == 11
    assert (storage.calls["access"], clock.slept) == (1, [])


def test_patience_ends_some_time_after_the_first_failure(storage: Memory, clock: Clock) -> None:
    backend = retrying(
        storage.open(), attempts=100, patience=30, sleep=clock.sleep, clock=lambda: clock.now
    )
    storage.fail_next("access", down(retry_after=8), times=100)
    with pytest.raises(BackendUnavailable):
        backend.access()
    assert 3 <= len(clock.slept) < 5
    assert sum(clock.slept) <= 30


def listed_names(files: Iterable[Any]) -> list[str]:
    return [file.filename for file in files]


def test_a_listing_that_breaks_begins_again_and_ends_whole(
    backend: Any, storage: Memory, clock: Clock, tmp_path: Path
) -> None:
    stored = [
        backend.put_file(make_upload(tmp_path, f"demo-{number}.tar.gz")) for number in range(6)
    ]
    for after in (2, 3, 5):
        storage.fail_next("list_files", down(), after=after)
    listed = list(backend.list_files())
    assert sorted(set(listed_names(listed))) == listed_names(stored)
    assert len(listed) == 2 + 3 + 5 + 6  # some were given again: nobody kept the names of all
    assert (storage.calls["list_files"], len(clock.slept)) == (4, 3)


def test_a_listing_that_always_breaks_at_one_place_ends(
    backend: Any, storage: Memory, tmp_path: Path
) -> None:
    for number in range(6):
        backend.put_file(make_upload(tmp_path, f"demo-{number}.tar.gz"))
    storage.fail_next("list_files", down(), times=100, after=2)
    with pytest.raises(BackendUnavailable):
        list(backend.list_files())
    assert storage.calls["list_files"] == 3


class Bare(AnyMemoryStorage):
    """Can do what every storage in memory can, and does not list."""


class Counting(Bare):
    """Tells what it asked, and has a method of a protocol that it does not support."""

    lacks = frozenset({SupportsDelete})

    def usage(self) -> Usage:
        return Usage(requests={"2xx": 1})


def test_a_protocol_is_supported_exactly_when_the_storage_supports_it(
    backend: Any, storage: Memory
) -> None:
    memory = storage.open()
    for protocol in STORAGE_CAPABILITIES:
        can = capability(memory, protocol) is not None
        assert (capability(backend, protocol) is not None) == can, protocol
    bare = retrying(Bare(memory.backend, memory.secret))
    assert capability(bare, SupportsDelete) is not None
    assert capability(bare, SupportsRecent) is None
    assert capability(bare, SupportsUsage) is None
    counting = retrying(Counting(memory.backend, memory.secret))
    usage = capability(counting, SupportsUsage)
    assert usage is not None
    assert usage.usage() == Usage(requests={"2xx": 1})
    assert capability(counting, SupportsDelete) is None


def test_backend_and_secret_are_those_of_the_storage(storage: Memory) -> None:
    memory = storage.open()
    patient = retrying(memory)
    assert patient.backend is memory.backend
    assert patient.secret is memory.secret


def test_what_is_looked_up_is_tried_again(storage: Memory, clock: Clock, tmp_path: Path) -> None:
    storage.projects.update(["demo", *(f"project-{number}" for number in range(6))])
    lookup = storage.open_lookup()
    stored = [
        lookup.put_file(make_upload(tmp_path, f"demo-{number}.tar.gz", b"content"))
        for number in range(6)
    ]
    patient = retrying(lookup, sleep=clock.sleep, clock=lambda: clock.now)
    for after in (2, 5):
        storage.fail_next("project_files", down(), after=after)
        storage.fail_next("projects", down(), after=after)
    storage.fail_next("read_part", down(), times=2)
    storage.fail_next("find_alias", down(), times=2)
    found = list(patient.project_files("demo"))
    assert sorted(set(listed_names(found))) == listed_names(stored)
    assert sorted(set(patient.projects())) == [
        "demo",
        *(f"project-{number}" for number in range(6)),
    ]
    assert patient.read_part(stored[0].location, 1, 3) == b"ont"
    assert patient.find_alias(stored[0].location, stored[0].filename) == stored[0]
    assert [storage.calls[name] for name in ("project_files", "projects")] == [3, 3]
    assert [storage.calls[name] for name in ("read_part", "find_alias")] == [3, 3]
