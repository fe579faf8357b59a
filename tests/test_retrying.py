"""Retries, with a clock that only moves when somebody sleeps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from private_pypi.backend import (
    NO_INDEX,
    Access,
    AnyBackend,
    Backend,
    Folders,
    SupportsAssetIds,
    SupportsDelete,
    SupportsLookup,
    SupportsParts,
    SupportsRecent,
    SupportsUsage,
    SupportsYank,
    Usage,
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
from private_pypi.model import StoredFile
from private_pypi.retrying import retrying
from private_pypi.testing import LocalMemoryBackend, MemoryBackend, MemoryStorage
from private_pypi.testing.contract import (
    AssetIdsContract,
    DeletingContract,
    PartsContract,
    RecentContract,
    RecordsContract,
    RightsPerProjectContract,
    YankingContract,
    content_of,
    document,
    make_upload,
    published,
)


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
def storage() -> MemoryStorage:
    return MemoryStorage()


@pytest.fixture
def backend(storage: MemoryStorage, clock: Clock) -> AnyBackend:
    return retrying(storage.open(), sleep=clock.sleep, clock=lambda: clock.now)


def down(retry_after: int = 0) -> BackendUnavailable:
    return BackendUnavailable("the storage is down", retry_after=retry_after)


class TestRetryingBackend(DeletingContract, RecentContract, YankingContract):
    """Patience changes nothing of what a backend promises."""

    constant_memory = False

    @pytest.fixture
    def storage(self, tmp_path: Path) -> MemoryStorage:
        return MemoryStorage(read_secret=self.read_secret, write_secret=self.write_secret)

    def open_backend(self, storage: Any, secret: str, folders: Folders) -> AnyBackend:
        return retrying(storage.open(secret, folders=folders))


def every_call(
    backend: AnyBackend, tmp_path: Path
) -> dict[str, tuple[Callable[[], object], object]]:
    """For each verb that is tried again: a call of it, and what it returns."""
    upload = make_upload(tmp_path, "demo-1.0.tar.gz", b"content")
    stored = backend.put_file(upload)
    file = published(upload, stored)
    revision = backend.write_index(document(tmp_path, b"mtime = 1\n"), NO_INDEX)
    assert isinstance(backend, SupportsDelete)
    assert isinstance(backend, SupportsRecent)
    assert isinstance(backend, SupportsYank)
    delete_file, recent_files = backend.delete_file, backend.recent_files
    yank_file = backend.yank_file
    long_ago = datetime.now(UTC) - timedelta(days=1)
    return {
        "access": (backend.access, Access.WRITE),
        "list_files": (lambda: list(backend.list_files()), [stored]),
        "recent_files": (lambda: list(recent_files(long_ago)), [stored]),
        "open_file": (lambda: content_of(backend.open_file(file)), b"content"),
        "open_core_metadata": (
            lambda: content_of(backend.open_core_metadata(file)),
            upload.core_metadata,
        ),
        "put_file": (lambda: backend.put_file(upload), stored),
        "read_index": (lambda: backend.read_index(tmp_path / "index.toml"), revision),
        "yank_file": (lambda: yank_file(file, "broken"), None),
        "delete_file": (lambda: delete_file(file), None),
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
    verb: str, backend: AnyBackend, storage: MemoryStorage, clock: Clock, tmp_path: Path
) -> None:
    call, expected = every_call(backend, tmp_path)[verb]
    storage.calls.clear()
    storage.fail_next(verb, down(), times=2)
    assert call() == expected
    assert storage.calls == {verb: 3}
    assert len(clock.slept) == 2


@pytest.mark.parametrize("verb", VERBS)
def test_the_third_failure_is_raised(
    verb: str, backend: AnyBackend, storage: MemoryStorage, tmp_path: Path
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
    backend: AnyBackend,
    storage: MemoryStorage,
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
    backend: AnyBackend, storage: MemoryStorage, clock: Clock, tmp_path: Path
) -> None:
    storage.fail_next("write_index", down())
    with pytest.raises(BackendUnavailable):
        backend.write_index(document(tmp_path, b"mtime = 1\n"), NO_INDEX)
    assert (storage.calls["write_index"], clock.slept) == (1, [])
    revision = backend.write_index(document(tmp_path, b"mtime = 1\n"), NO_INDEX)
    with pytest.raises(StaleIndex):
        backend.write_index(document(tmp_path, b"mtime = 2\n"), NO_INDEX)
    assert backend.read_index(tmp_path / "index.toml") == revision


def test_waits_grow_and_differ(storage: MemoryStorage, clock: Clock) -> None:
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


def test_what_the_storage_asks_for_is_waited(
    backend: AnyBackend, storage: MemoryStorage, clock: Clock
) -> None:
    storage.fail_next("access", down(retry_after=10))
    assert backend.access() == Access.WRITE
    assert 10 <= clock.slept[0] <= 10.25


def test_a_wait_that_is_too_long_is_left_to_the_caller(
    backend: AnyBackend, storage: MemoryStorage, clock: Clock
) -> None:
    storage.fail_next("access", down(retry_after=11))
    with pytest.raises(BackendUnavailable) as raised:
        backend.access()
    assert raised.value.retry_after == 11
    assert (storage.calls["access"], clock.slept) == (1, [])


def test_patience_ends_some_time_after_the_first_failure(
    storage: MemoryStorage, clock: Clock
) -> None:
    backend = retrying(
        storage.open(), attempts=100, patience=30, sleep=clock.sleep, clock=lambda: clock.now
    )
    storage.fail_next("access", down(retry_after=8), times=100)
    with pytest.raises(BackendUnavailable):
        backend.access()
    assert 3 <= len(clock.slept) < 5
    assert sum(clock.slept) <= 30


def test_a_listing_that_breaks_goes_on_where_it_was(
    backend: AnyBackend, storage: MemoryStorage, clock: Clock, tmp_path: Path
) -> None:
    stored = [
        backend.put_file(make_upload(tmp_path, f"demo-{number}.tar.gz")) for number in range(6)
    ]
    for after in (2, 3, 5):
        storage.fail_next("list_files", down(), after=after)
    listed = list(backend.list_files())
    assert sorted(listed, key=lambda file: file.filename) == stored
    assert (storage.calls["list_files"], len(clock.slept)) == (4, 3)


def test_a_listing_that_always_breaks_at_one_place_ends(
    backend: AnyBackend, storage: MemoryStorage, tmp_path: Path
) -> None:
    for number in range(6):
        backend.put_file(make_upload(tmp_path, f"demo-{number}.tar.gz"))
    storage.fail_next("list_files", down(), times=100, after=2)
    with pytest.raises(BackendUnavailable):
        list(backend.list_files())
    assert storage.calls["list_files"] == 3


def test_a_listing_passes_on_what_is_known(backend: AnyBackend, tmp_path: Path) -> None:
    stored = backend.put_file(make_upload(tmp_path, "demo-1.0.tar.gz"))
    assert stored.record is not None
    (listed,) = backend.list_files(lambda filename, stamp: stamp == stored.stamp)
    assert listed.record is None


class Bare(Backend[Any]):
    """Neither deletes nor tells what is new."""

    Settings = MemoryBackend.Settings
    capabilities = LocalMemoryBackend.capabilities
    location_key = "url"

    access = MemoryBackend.access
    list_files = MemoryBackend.list_files
    open_file = MemoryBackend.open_file
    open_core_metadata = MemoryBackend.open_core_metadata
    put_file = MemoryBackend.put_file
    read_index = MemoryBackend.read_index
    write_index = MemoryBackend.write_index


class Counting(Bare):
    """Tells what it asked."""

    def usage(self) -> Usage:
        return Usage(requests={"2xx": 1})


def test_what_is_optional_is_there_exactly_when_the_backend_has_it(
    backend: AnyBackend, storage: MemoryStorage
) -> None:
    assert isinstance(backend, SupportsDelete)
    assert isinstance(backend, SupportsRecent)
    assert isinstance(backend, SupportsYank)
    memory = storage.open()
    bare = retrying(Bare(memory.settings, memory.secret, memory.folders))
    assert not isinstance(bare, SupportsDelete)
    assert not isinstance(bare, SupportsRecent)
    assert not isinstance(bare, SupportsYank)
    assert not isinstance(bare, SupportsUsage)
    counting = retrying(Counting(memory.settings, memory.secret, memory.folders))
    assert isinstance(counting, SupportsUsage)
    assert counting.usage() == Usage(requests={"2xx": 1})


def test_the_traits_are_those_of_the_backend(storage: MemoryStorage) -> None:
    memory = storage.open()
    bare = Bare(memory.settings, memory.secret, memory.folders)
    patient = retrying(bare)
    traits = ["settings", "secret", "folders", "Settings", "capabilities", "location_key"]
    for trait in traits:
        assert getattr(patient, trait) is getattr(bare, trait)


class TestRetryingLookup(
    RightsPerProjectContract,
    RecordsContract,
    PartsContract,
    AssetIdsContract,
    DeletingContract,
    YankingContract,
):
    """Nor of what one promises that answers for a project at a time."""

    constant_memory = False

    @pytest.fixture
    def storage(self, tmp_path: Path) -> MemoryStorage:
        storage = MemoryStorage(read_secret=self.read_secret, write_secret=self.write_secret)
        storage.projects.update(self.projects)
        storage.rights[self.partial_secret] = {"demo": Access.READ}
        return storage

    def open_backend(self, storage: Any, secret: str, folders: Folders) -> AnyBackend:
        return retrying(storage.open_lookup(secret))

    def asset_id(self, storage: Any, stored: StoredFile) -> str:
        return stored.location


def test_what_is_looked_up_is_tried_again(
    storage: MemoryStorage, clock: Clock, tmp_path: Path
) -> None:
    storage.projects.update(["demo", *(f"project-{number}" for number in range(6))])
    lookup = storage.open_lookup()
    stored = [
        lookup.put_file(make_upload(tmp_path, f"demo-{number}.tar.gz", b"content"))
        for number in range(6)
    ]
    patient = retrying(lookup, sleep=clock.sleep, clock=lambda: clock.now)
    assert isinstance(patient, SupportsLookup)
    assert isinstance(patient, SupportsParts)
    assert isinstance(patient, SupportsAssetIds)
    for after in (2, 5):
        storage.fail_next("project_files", down(), after=after)
        storage.fail_next("projects", down(), after=after)
    storage.fail_next("read_part", down(), times=2)
    storage.fail_next("open_asset", down(), times=2)
    found = list(patient.project_files("demo", lambda filename, stamp: stamp == stored[0].stamp))
    assert sorted(found, key=lambda file: file.filename) == [
        replace(stored[0], record=None),
        *stored[1:],
    ]
    assert list(patient.projects()) == ["demo", *(f"project-{number}" for number in range(6))]
    assert patient.read_part(stored[0].location, 1, 3) == b"ont"
    file, download = patient.open_asset(stored[0].location, stored[0].filename)
    assert (file, content_of(download)) == (stored[0], b"content")
    assert [storage.calls[name] for name in ("project_files", "projects")] == [3, 3]
    assert [storage.calls[name] for name in ("read_part", "open_asset")] == [3, 3]
