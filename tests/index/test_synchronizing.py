"""Synchronising: nothing that was published since is lost, nothing that is gone stays."""

from __future__ import annotations

import hashlib
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from private_pypi.backend import AnyStorage, Folders, Secret, SupportsRecent
from private_pypi.distributions.records import make_record
from private_pypi.errors import BackendError, BackendUnavailable, InvalidIndex
from private_pypi.index.document import (
    IndexDocument,
    IndexEdit,
    IndexEntry,
    UnexaminedEntry,
    new_entry,
    write_document,
)
from private_pypi.index.document_reader import read_document
from private_pypi.index.local import LocalIndex
from private_pypi.index.rebuilding import update_index
from private_pypi.index.stored_document import edit_index
from private_pypi.index.synchronizing import Pace, Synchronizer, SyncReport
from private_pypi.model import Download, FileHandle, Record, StoredFile, Unlisted
from private_pypi.testing.distributions import make_sdist, make_wheel
from private_pypi.testing.memory import LocalMemoryBackend, Memory, MemoryBackend, MemoryStorage
from private_pypi_file_system import FileSystemBackend
from private_pypi_file_system.backend import FileSystemSettings, FileSystemStorage
from tests.backends.test_memory import AskedMemoryBackend, AskedMemoryStorage
from tests.files import make_file
from tests.waiting import eventually

NOW = datetime.now(UTC)
WHEEL, CONTENT = make_wheel()


def new_folders(root: Path) -> Folders:
    folders = Folders(cache=root / "cache", lock=root / "lock", tmp=root / "tmp")
    for folder in (folders.cache, folders.lock, folders.tmp):
        folder.mkdir(parents=True, exist_ok=True)
    return folders


@dataclass
class Server:
    """One ROOT, with the memory of a storage that others may share."""

    storage: Memory
    root: Path
    backend_class: type[MemoryBackend]

    def __post_init__(self) -> None:
        self.folders = new_folders(self.root)
        self.index = LocalIndex(self.root / "index.sqlite", identity="mine")
        self.backend = self.storage.open("write", backend=self.backend_class, folders=self.folders)

    def synchronizer(self, backend: AnyStorage | None = None, seconds: float = 60) -> Synchronizer:
        return Synchronizer(
            backend or self.backend,
            self.index,
            backend_type="memory",
            name="mine",
            interval=timedelta(seconds=seconds),
        )

    def synchronize(self, backend: AnyStorage | None = None) -> SyncReport:
        return self.synchronizer(backend).synchronize()

    def open(self, view: type[MemoryStorage]) -> MemoryStorage:
        return self.storage.open(
            "write", backend=self.backend_class, folders=self.folders, view=view
        )

    def store(self, filename: str, content: bytes) -> StoredFile:
        """Store a file with its record, as another server would."""
        record = make_record(make_file(filename, content), [])
        self.storage.drop(filename, content, record=record)
        return next(s for s in self.backend.list_files() if s.filename == filename)

    def upload(self, filename: str, content: bytes) -> None:
        """Publish a file as this server would."""
        stored = self.store(filename, content)
        self.index.add_file(make_file(filename, content, location=stored.location), stored.stamp)

    def update_index(self) -> None:
        update_index(self.backend, backend_type="memory", name="mine", folder=self.folders.tmp)

    def edit(self, **changes: object) -> None:
        edit_index(
            self.backend,
            IndexEdit(**changes),  # type: ignore[arg-type]
            backend_type="memory",
        )

    def document(self) -> IndexDocument:
        path = self.root / "read.toml"
        self.backend.read_index(path)
        return read_document(path, location_key="location")[0]

    def put_document(self, document: IndexDocument) -> None:
        path = self.root / "written.toml"
        write_document(document, path, backend_type="memory", location_key="location")
        revision = self.backend.read_index(self.root / "before.toml")
        self.backend.write_index(path, revision)

    def shown(self) -> dict[str, str | None]:
        """Every file that is shown, with its yank."""
        return {
            file.filename: file.yanked
            for project, _ in self.index.projects()
            for file in self.index.project_files(project)
        }


class WithRecent(MemoryBackend):
    """A remote storage that can tell what is new."""


class ListingOnly(MemoryStorage):
    lacks = frozenset({SupportsRecent})


class WithoutRecent(MemoryBackend):
    """A remote storage that can only list."""

    View = ListingOnly


@pytest.fixture
def storage() -> Memory:
    return Memory()


@pytest.fixture
def local(storage: Memory, tmp_path: Path) -> Server:
    return Server(storage, tmp_path / "local", LocalMemoryBackend)


@pytest.fixture
def remote(storage: Memory, tmp_path: Path) -> Server:
    return Server(storage, tmp_path / "remote", WithRecent)


@pytest.fixture(params=["local", "remote"])
def server(request: pytest.FixtureRequest) -> Server:
    return request.getfixturevalue(request.param)  # type: ignore[no-any-return]


# -- the first time --------------------------------------------------------------------------------


def test_an_empty_storage_makes_an_empty_index_that_is_ready(server: Server) -> None:
    assert not server.index.ready()
    server.synchronize()
    assert server.index.ready()
    assert server.shown() == {}
    assert server.index.sync_state().error is None
    assert server.index.sync_state().synced_at is not None


def test_what_is_stored_is_shown(server: Server) -> None:
    stored = server.store(WHEEL, CONTENT)
    server.store(*make_sdist())
    server.store(*make_sdist(format="zip"))
    server.update_index()
    report = server.synchronize()
    assert (report.added, report.changed, report.removed, report.skipped) == (3, 0, 0, ())
    assert sorted(server.shown()) == [WHEEL, "demo-1.0.tar.gz", "demo-1.0.zip"]
    assert server.index.file(WHEEL) == make_file(WHEEL, CONTENT, location=stored.location)
    assert server.storage.calls["open_file"] == 0


def test_records_that_cost_a_request_each_are_asked_for_side_by_side(
    storage: Memory, tmp_path: Path
) -> None:
    """A burst of uploads through another server is shown soon."""
    together = threading.Barrier(4, timeout=20)

    class Waiting(AskedMemoryStorage):
        def read_record(self, file: StoredFile) -> Record | None:
            together.wait()
            return super().read_record(file)

    server = Server(storage, tmp_path / "asked", AskedMemoryBackend)
    names = [server.store(*make_sdist("demo", f"{number}.0")).filename for number in range(8)]
    server.synchronize(server.open(Waiting))
    assert set(server.shown()) == set(names)


def test_it_is_not_ready_before_the_first_listing_is_whole(server: Server) -> None:
    method = "list_files" if server.backend.backend.traits.lists_cheaply else "recent_files"
    server.store(WHEEL, CONTENT)
    server.store(*make_wheel("other"))
    server.storage.fail_next(method, BackendUnavailable("went away"), after=1)
    with pytest.raises(BackendUnavailable, match="went away"):
        server.synchronize()
    assert not server.index.ready()
    assert server.index.sync_state().error == "went away"
    server.synchronize()
    assert server.index.ready()
    assert len(server.shown()) == 2
    assert server.index.sync_state().error is None


def test_a_storage_without_document_and_recent_files_is_listed_once(
    storage: Memory, tmp_path: Path
) -> None:
    server = Server(storage, tmp_path, WithoutRecent)
    server.store(WHEEL, CONTENT)
    server.synchronize()
    server.synchronize()
    assert list(server.shown()) == [WHEEL]
    assert storage.calls["list_files"] == 2  # one is of `store`


def test_an_edit_alone_is_no_listing_for_a_new_root(storage: Memory, tmp_path: Path) -> None:
    server = Server(storage, tmp_path, WithoutRecent)
    stored = server.store(WHEEL, CONTENT)
    server.store(*make_wheel("other"))
    file = make_file(WHEEL, CONTENT, location=stored.location)
    server.edit(yank={WHEEL: "bad"}, files=[file])
    server.synchronize()
    assert server.shown() == {WHEEL: "bad", "other-1.0-py3-none-any.whl": None}


def test_a_temporary_folder_that_is_gone_is_trouble_that_is_remembered(server: Server) -> None:
    server.folders.tmp.rmdir()
    with pytest.raises(BackendError, match="tmp"):
        server.synchronize()
    assert "tmp" in (server.index.sync_state().error or "")


def test_a_second_pass_changes_nothing_and_opens_nothing(server: Server) -> None:
    server.storage.drop(WHEEL, CONTENT)  # without a record: it has to be opened, once
    server.update_index()
    server.storage.drop(*make_wheel("other"))
    server.synchronize()
    opened, serial = server.storage.calls["open_file"], server.index.serial()
    for _ in range(3):
        report = server.synchronize()
        assert (report.added, report.changed, report.removed) == (0, 0, 0)
    assert server.storage.calls["open_file"] == opened == 2
    assert server.index.serial() == serial


# -- a listing -------------------------------------------------------------------------------------


def test_dropped_and_removed_files_are_noticed(local: Server) -> None:
    local.store(WHEEL, CONTENT)
    local.synchronize()
    local.storage.drop(*make_wheel("other"))
    local.storage.remove(WHEEL)
    report = local.synchronize()
    assert (report.added, report.removed) == (1, 1)
    assert list(local.shown()) == ["other-1.0-py3-none-any.whl"]
    assert local.index.project_serial("demo") is not None  # once ours, never the public index's


def test_a_replaced_file_is_opened_again_and_keeps_its_yank(local: Server) -> None:
    local.storage.drop(WHEEL, CONTENT)
    local.synchronize()
    local.index.set_yanked([WHEEL], "bad")
    other = make_wheel(files={"demo.py": b"other"})[1]
    local.storage.drop(WHEEL, other)
    report = local.synchronize()
    assert (report.added, report.changed, report.removed) == (0, 1, 0)
    found = local.index.file(WHEEL)
    assert found is not None
    assert (found.sha256, found.yanked) == (hashlib.sha256(other).hexdigest(), "bad")


def test_a_broken_file_is_reported_once_until_it_changes(local: Server) -> None:
    local.storage.drop(WHEEL, b"no zip at all")
    local.storage.drop("readme.exe", b"")
    local.store(*make_wheel("other"))
    skipped = local.synchronize().skipped
    assert len(skipped) == 2
    assert any(WHEEL in sentence for sentence in skipped)
    assert set(local.index.broken()) == {WHEEL, "readme.exe"}
    assert list(local.shown()) == ["other-1.0-py3-none-any.whl"]
    opened = local.storage.calls["open_file"]
    assert local.synchronize().skipped == ()
    assert local.storage.calls["open_file"] == opened
    local.storage.drop(WHEEL, CONTENT)
    local.storage.remove("readme.exe")
    local.synchronize()
    assert WHEEL in local.shown()
    assert local.index.broken() == {}


def test_a_file_that_broke_is_no_longer_shown(local: Server) -> None:
    local.store(WHEEL, CONTENT)
    local.synchronize()
    local.storage.drop(WHEEL, b"overwritten by accident")
    report = local.synchronize()
    assert report.removed == 1
    assert local.shown() == {}


def test_trouble_with_one_file_is_no_trouble_for_the_others(local: Server) -> None:
    local.storage.drop(WHEEL, CONTENT)
    local.store(*make_wheel("other"))
    local.storage.fail_next("open_file", BackendError("disk error"))
    assert local.synchronize().skipped == ("disk error",)
    assert list(local.shown()) == ["other-1.0-py3-none-any.whl"]
    local.synchronize()  # it is tried again
    assert len(local.shown()) == 2


def test_a_listing_that_breaks_removes_nothing(local: Server) -> None:
    for number in range(5):
        local.store(*make_wheel(version=f"{number}.0"))
    local.synchronize()
    before = local.shown()
    local.storage.fail_next("list_files", BackendUnavailable("unmounted"), after=2)
    with pytest.raises(BackendUnavailable):
        local.synchronize()
    assert local.shown() == before
    assert local.index.ready()


def closing(server: Server, *filenames: str, may_hold_files: bool = True) -> MemoryStorage:
    """The storage, with the files of these names in a folder that cannot be read."""

    class Closing(MemoryStorage):
        def list_files(self) -> Iterator[Any]:
            for stored in super().list_files():
                if stored.filename not in filenames:
                    yield stored
                else:
                    problem = f"{stored.filename} is closed"
                    yield Unlisted(
                        location=stored.location, problem=problem, may_hold_files=may_hold_files
                    )

    return server.open(Closing)


def test_a_folder_that_cannot_be_read_keeps_its_files_and_stops_no_others(local: Server) -> None:
    closed, gone, new = (make_wheel(version=f"{number}.0") for number in range(3))
    local.store(*closed)
    local.store(*gone)
    local.synchronize()
    local.storage.remove(gone[0])
    local.store(*new)
    report = local.synchronize(closing(local, closed[0]))
    assert (report.added, report.removed) == (1, 1)
    assert sorted(local.shown()) == [closed[0], new[0]]
    state = local.index.sync_state()
    assert state.error == f"{closed[0]} is closed"  # what is not there is not known to be absent
    assert state.synced_at is not None
    local.storage.remove(closed[0])
    assert local.synchronize().removed == 1
    assert local.index.sync_state().error is None
    assert list(local.shown()) == [new[0]]


def test_a_storage_is_ready_although_a_folder_of_it_cannot_be_read(local: Server) -> None:
    closed, other = make_wheel("closed"), make_wheel("other")
    local.store(*closed)
    local.store(*other)
    local.synchronize(closing(local, closed[0]))
    assert local.index.ready()
    assert list(local.shown()) == [other[0]]


def test_what_is_no_part_of_the_storage_is_told_and_is_no_trouble(local: Server) -> None:
    local.store(WHEEL, CONTENT)
    local.synchronize()
    report = local.synchronize(closing(local, WHEEL, may_hold_files=False))
    assert (report.removed, local.shown()) == (1, {})
    assert [folder.problem for folder in report.unlisted] == [f"{WHEEL} is closed"]
    assert local.index.sync_state().error is None


def test_a_folder_that_cannot_be_read_is_logged_once(
    local: Server, caplog: pytest.LogCaptureFixture
) -> None:
    local.store(WHEEL, CONTENT)
    local.store(*make_wheel("other"))
    synchronizer = local.synchronizer(closing(local, WHEEL))
    for _ in range(3):
        synchronizer.synchronize()
    assert caplog.messages == [f"mine (memory): {WHEEL} is closed"]


def test_facts_that_the_document_has_are_not_found_out_again(local: Server) -> None:
    local.storage.drop(WHEEL, CONTENT)
    local.update_index()
    opened = local.storage.calls["open_file"]
    local.synchronize()  # as on a server whose ROOT was lost
    found = local.index.file(WHEEL)
    assert found is not None
    assert found.sha256 == hashlib.sha256(CONTENT).hexdigest()
    assert local.storage.calls["open_file"] == opened


def test_yanks_of_another_server_arrive_and_leave(local: Server) -> None:
    local.store(WHEEL, CONTENT)
    local.update_index()
    local.synchronize()
    local.edit(yank={WHEEL: "bad"})
    local.synchronize()
    assert local.shown() == {WHEEL: "bad"}
    local.edit(yank={WHEEL: None})
    local.synchronize()
    assert local.shown() == {WHEEL: None}


def test_a_yanked_file_is_yanked_when_root_was_lost(server: Server, tmp_path: Path) -> None:
    stored = server.store(WHEEL, CONTENT)
    file = make_file(WHEEL, CONTENT, location=stored.location)
    server.edit(yank={WHEEL: "bad"}, files=[file])
    again = Server(server.storage, tmp_path / "new", server.backend_class)
    again.synchronize()
    assert again.shown() == {WHEEL: "bad"}


def test_a_storage_that_moved_is_followed_without_opening_anything(local: Server) -> None:
    class Moved(MemoryStorage):
        def list_files(self) -> Iterator[StoredFile]:
            for stored in super().list_files():
                yield replace(stored, location=f"/new/{stored.filename}")

    local.storage.drop(WHEEL, CONTENT)
    local.synchronize()
    serial = local.index.project_serial("demo")
    local.synchronize(local.open(Moved))
    found = local.index.file(WHEEL)
    assert found is not None
    assert found.location == f"/new/{WHEEL}"
    assert local.index.project_serial("demo") == serial
    assert local.storage.calls["open_file"] == 1


# -- burnt and former names ------------------------------------------------------------------------


def test_burnt_names_of_another_server_win_over_a_listing(server: Server) -> None:
    server.store(WHEEL, CONTENT)
    server.synchronize()
    server.edit(delete=[make_file(WHEEL, CONTENT)])  # and the delete itself is broken off
    server.synchronize()
    assert server.shown() == {}
    assert server.index.burnt(WHEEL) is not None
    server.synchronize()
    assert server.shown() == {}


def test_burnt_and_former_names_are_known_when_root_was_lost(
    server: Server, tmp_path: Path
) -> None:
    server.store(WHEEL, CONTENT)
    server.store(*make_wheel("former"))
    server.update_index()
    server.edit(delete=[make_file(WHEEL, CONTENT)])
    server.storage.remove(WHEEL)
    server.storage.remove("former-1.0-py3-none-any.whl")
    server.update_index()
    again = Server(server.storage, tmp_path / "new", server.backend_class)
    again.synchronize()
    assert again.shown() == {}
    assert again.index.burnt(WHEEL) is not None
    assert again.index.project_serial("demo") is not None
    assert again.index.project_serial("former") is not None
    assert again.index.project_serial("never") is None


# -- what is listed and not shown ------------------------------------------------------------------


UNSHOWN = {
    WHEEL: b"no zip at all",
    "cut-1.0-py3-none-any.whl": CONTENT[: len(CONTENT) // 2],
    "misnamed-1.0-py3-none-any.whl": CONTENT,
    "bad_name-1.0.whl": CONTENT,
    "empty-1.0.tar.gz": b"",
}
PROJECTS = {"demo", "cut", "misnamed", "bad-name", "empty"}


def unshown(index: LocalIndex, projects: set[str] = PROJECTS) -> dict[str, list[str]]:
    """The files of each project that are stored and not shown; every project must be ours."""
    assert [project for project in projects if index.project_serial(project) is None] == []
    return {project: list(index.unshown(project)) for project in projects}


def test_whatever_a_listing_names_makes_its_project_ours(server: Server, tmp_path: Path) -> None:
    for filename, content in UNSHOWN.items():
        server.storage.drop(filename, content)
    expected = {
        "demo": [WHEEL],
        "cut": ["cut-1.0-py3-none-any.whl"],
        "misnamed": ["misnamed-1.0-py3-none-any.whl"],
        "bad-name": ["bad_name-1.0.whl"],
        "empty": ["empty-1.0.tar.gz"],
    }
    for _ in range(2):
        server.synchronize()
        assert server.shown() == {}
        assert unshown(server.index) == expected
    server.update_index()  # and the document tells it to those who cannot list
    for each in (server, Server(server.storage, tmp_path / "new", server.backend_class)):
        each.synchronize()
        assert unshown(each.index) == expected
    assert server.document().skipped == tuple(sorted(UNSHOWN))
    assert set(server.document().former_projects) == PROJECTS


def test_a_file_that_was_mended_or_removed_is_no_longer_in_the_way(server: Server) -> None:
    server.storage.drop(WHEEL, b"no zip at all")
    server.storage.drop("gone-1.0.zip", b"no zip at all")
    server.synchronize()
    assert unshown(server.index, {"demo", "gone"}) == {"demo": [WHEEL], "gone": ["gone-1.0.zip"]}
    server.storage.drop(WHEEL, CONTENT)
    server.storage.remove("gone-1.0.zip")
    server.update_index()
    server.synchronize()
    assert server.shown() == {WHEEL: None}
    assert unshown(server.index, {"demo", "gone"}) == {"demo": [], "gone": []}  # but both are ours


def test_trouble_with_a_file_makes_its_project_ours(server: Server) -> None:
    server.storage.drop(WHEEL, CONTENT)
    server.storage.fail_next("open_file", BackendError("disk error"))
    server.synchronize()
    assert server.index.unshown("demo") == {WHEEL: "disk error"}
    server.storage.fail_next("open_file", BackendError("disk error"))
    assert server.synchronize().skipped == ()  # it was told
    assert server.index.project_serial("demo") is not None
    server.synchronize()
    assert (server.shown(), server.index.unshown("demo")) == ({WHEEL: None}, {})


def test_names_are_known_before_the_files_are_examined(server: Server) -> None:
    server.synchronize()
    server.storage.drop(WHEEL, CONTENT)
    server.storage.held["open_file"] = threading.Event()
    synchronizing = threading.Thread(target=server.synchronize)
    synchronizing.start()
    try:
        eventually(lambda: server.storage.calls["open_file"] > 0)
        assert server.index.unshown("demo") == {WHEEL: "it is not examined yet"}
        assert server.index.project_serial("demo") is not None
        age = server.index.age()
        assert age is not None and age < 60
    finally:
        server.storage.held.pop("open_file").set()
        synchronizing.join()
    assert (server.shown(), server.index.unshown("demo")) == ({WHEEL: None}, {})


def test_broken_entries_of_a_document_make_their_projects_ours(remote: Server) -> None:
    path = remote.root / "broken.toml"
    document = IndexDocument(mtime=now(), entries=(entry("a-1.0.zip"), entry("b-1.0.zip")))
    write_document(document, path, backend_type="memory", location_key="location")
    text = path.read_text().replace("size = 9", "size = 'x'").replace('ext = "zip"', "ext = 1", 1)
    path.write_text(text)
    remote.backend.write_index(path, "")
    assert len(remote.synchronize().skipped) == 2
    assert remote.shown() == {}
    assert unshown(remote.index, {"a", "b"}) == {"a": [], "b": ["b-1.0.zip"]}


def test_a_folder_names_a_project_whatever_is_in_it(tmp_path: Path) -> None:
    storage, folders = tmp_path / "storage", new_folders(tmp_path / "root")
    files = {
        "Wrong.Name/other-1.0-py3-none-any.whl": b"no zip",
        "latest/latest.whl": CONTENT,
        "good/demo-1.0-py3-none-any.whl": CONTENT,
        "-/nameless-1.0.zip": b"no zip",
    }
    for place, content in files.items():
        (storage / place).parent.mkdir(parents=True)
        (storage / place).write_bytes(content)
    index = LocalIndex(tmp_path / "root" / "index.sqlite", identity="mine")
    backend = file_system(storage, folders)
    synchronizer = Synchronizer(
        backend,
        index,
        backend_type="file_system",
        name="mine",
        interval=timedelta(seconds=60),
    )
    for _ in range(2):
        synchronizer.synchronize()
        assert unshown(
            index, {"wrong-name", "other", "latest", "good", "demo", "nameless"}
        ) == {
            "wrong-name": ["other-1.0-py3-none-any.whl"],
            "other": ["other-1.0-py3-none-any.whl"],
            "latest": ["latest.whl"],
            "good": [],
            "demo": [],
            "nameless": ["nameless-1.0.zip"],
        }  # fmt: skip
        update_index(backend, backend_type="file_system", name="mine", folder=folders.tmp)


def test_files_in_trouble_do_not_keep_others_from_being_examined(server: Server) -> None:
    """A synchronisation of many files ends in between, to list what is new meanwhile."""
    server.synchronize()
    for number in range(100):
        server.storage.drop(*make_wheel(version=f"{number}.0"))

    class Troubled(server.backend_class.View):  # type: ignore[name-defined,misc]
        def open_file(self, file: FileHandle) -> Download:
            if file.filename != "demo-99.0-py3-none-any.whl":  # the last to be opened
                time.sleep(0.02)
                raise BackendError(f"trouble with {file.filename}")
            return super().open_file(file)

    synchronizer = server.synchronizer(server.open(Troubled), seconds=0.05)
    rounds = 0
    while not server.shown():
        synchronizer.synchronize()
        rounds += 1
        assert rounds < 200
    assert rounds > 1
    assert set(server.shown()) == {"demo-99.0-py3-none-any.whl"}


# -- races -----------------------------------------------------------------------------------------


def during(server: Server, then: Callable[[], None]) -> MemoryStorage:
    """A backend under which something happens once all is listed, and before it is applied."""

    class Interrupted(server.backend_class.View):  # type: ignore[name-defined,misc]
        def list_files(self) -> Iterator[StoredFile]:
            yield from list(super().list_files())
            then()

        def recent_files(self, since: datetime) -> Iterator[StoredFile]:
            yield from list(super().recent_files(since))
            then()

    return server.open(Interrupted)


def test_an_upload_during_a_listing_stays(server: Server) -> None:
    server.store(*make_wheel("other"))
    server.update_index()
    server.synchronize(during(server, lambda: server.upload(WHEEL, CONTENT)))
    assert WHEEL in server.shown()
    server.synchronize()
    assert len(server.shown()) == 2


def test_an_upload_after_the_document_was_read_stays(remote: Server) -> None:
    remote.store(*make_wheel("other"))
    remote.update_index()

    class Interrupted(MemoryStorage):
        def read_index(self, into: Path, unless: str | None = None) -> str:
            revision = super().read_index(into, unless)
            remote.upload(WHEEL, CONTENT)
            return revision

    remote.synchronize(remote.open(Interrupted))
    assert len(remote.shown()) == 2


def test_a_yank_during_a_synchronisation_wins(server: Server) -> None:
    server.store(WHEEL, CONTENT)
    server.update_index()
    server.synchronize()

    class Interrupted(server.backend_class.View):  # type: ignore[name-defined,misc]
        def read_index(self, into: Path, unless: str | None = None) -> str:
            revision: str = super().read_index(into, None)  # the old one, and read whole
            server.edit(yank={WHEEL: "bad"})
            server.index.set_yanked([WHEEL], "bad")
            return revision + "-again"

    server.synchronize(server.open(Interrupted))
    assert server.shown() == {WHEEL: "bad"}
    server.synchronize()
    assert server.shown() == {WHEEL: "bad"}


@pytest.mark.parametrize("burn", [True, False])
def test_a_delete_during_a_listing_wins(server: Server, burn: bool) -> None:
    server.store(WHEEL, CONTENT)

    def delete() -> None:
        server.index.remove_files([WHEEL], burn=burn, at=NOW)
        server.storage.remove(WHEEL)

    server.synchronize()
    server.store(WHEEL, CONTENT)  # a new stamp: it would be added again
    server.synchronize(during(server, delete))
    assert server.shown() == {}
    server.synchronize()
    assert server.shown() == {}


@pytest.mark.needs("time")
def test_random_uploads_yanks_and_deletes_meet_synchronisations(local: Server) -> None:
    dice = random.Random(7)
    expected: dict[str, str | None] = {}
    number = 0

    def something() -> None:
        nonlocal number
        for _ in range(dice.randint(0, 3)):
            what = dice.choice(["upload", "upload", "yank", "delete"])
            if what == "upload" or not expected:
                number += 1
                wheel = make_wheel(version=f"{number}.0")
                local.upload(*wheel)
                expected[wheel[0]] = None
                continue
            filename = dice.choice(sorted(expected))
            file = local.index.file(filename)
            assert file is not None
            if what == "yank":
                local.edit(yank={filename: "bad"}, files=[file])
                local.index.set_yanked([filename], "bad")
                expected[filename] = "bad"
            else:
                local.edit(delete=[file])
                local.index.remove_files([filename], burn=True, at=NOW)
                local.storage.remove(filename)
                del expected[filename]

    class Busy(MemoryStorage):
        def read_index(self, into: Path, unless: str | None = None) -> str:
            revision = super().read_index(into, unless)
            something()
            return revision

        def list_files(self) -> Iterator[StoredFile]:
            something()
            for stored in list(super().list_files()):
                something()
                yield stored
            something()

    for _ in range(12):
        local.synchronize(local.open(Busy))
        assert local.shown() == expected
    local.synchronize()
    assert local.shown() == expected


def test_what_threads_upload_while_it_synchronises_never_leaves(server: Server) -> None:
    server.synchronize()
    missing: list[str] = []

    def publish(thread: int) -> None:
        for number in range(15):
            filename, content = make_wheel(version=f"{thread}.{number}")
            server.upload(filename, content)
            for _ in range(3):
                if server.index.file(filename) is None:
                    missing.append(filename)
                time.sleep(0.001)

    threads = [threading.Thread(target=publish, args=(thread,)) for thread in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        server.update_index()
        server.synchronize()
    assert missing == []
    assert len(server.shown()) == 60


# -- a document ------------------------------------------------------------------------------------


def entry(filename: str, **changes: object) -> IndexEntry:
    return new_entry(make_file(filename, **changes), stamp="s")


def now(seconds: float = 0) -> int:
    return int(time.time() + seconds)


def test_what_a_document_changes_is_taken_over(remote: Server) -> None:
    remote.put_document(
        IndexDocument(
            mtime=now(),
            entries=(entry("a-1.0.zip"), entry("b-1.0.zip"), entry("c-1.0.zip")),
        )
    )
    remote.synchronize()
    serials = dict(remote.index.projects())
    remote.put_document(
        IndexDocument(
            mtime=now(),
            entries=(entry("a-1.0.zip"), entry("b-1.0.zip", yanked="x"), entry("d-1.0.zip")),
        )
    )
    report = remote.synchronize()
    assert (report.added, report.changed, report.removed) == (1, 1, 1)
    assert remote.shown() == {"a-1.0.zip": None, "b-1.0.zip": "x", "d-1.0.zip": None}
    after = dict(remote.index.projects())
    assert after[make_file("a-1.0.zip").project] == serials[make_file("a-1.0.zip").project]
    assert after[make_file("b-1.0.zip").project] > serials[make_file("b-1.0.zip").project]
    assert remote.index.sync_state().index_mtime == remote.document().mtime


def test_an_unchanged_document_costs_one_request(remote: Server) -> None:
    remote.store(WHEEL, CONTENT)
    remote.update_index()
    remote.synchronize()
    remote.storage.calls.clear()
    remote.synchronize()
    assert dict(remote.storage.calls) == {"read_index": 1, "recent_files": 1}


def test_what_was_published_since_the_document_is_added(remote: Server) -> None:
    remote.put_document(IndexDocument(mtime=now(), entries=(entry("other-1.0.zip"),)))
    remote.synchronize()
    remote.store(WHEEL, CONTENT)
    remote.synchronize()
    assert set(remote.shown()) == {WHEEL, "other-1.0.zip"}


def test_an_upload_stays_until_a_clearly_younger_document_lacks_it(
    storage: Memory, tmp_path: Path
) -> None:
    server = Server(storage, tmp_path, WithoutRecent)
    server.put_document(IndexDocument(mtime=now(), entries=()))
    server.synchronize()
    server.upload(WHEEL, CONTENT)
    # A listing that began about then may not have seen it.
    server.put_document(IndexDocument(mtime=now(60), entries=(entry("other-1.0.zip"),)))
    server.synchronize()
    assert set(server.shown()) == {WHEEL, "other-1.0.zip"}
    server.put_document(IndexDocument(mtime=now(3600), entries=(entry("other-1.0.zip"),)))
    server.synchronize()
    assert set(server.shown()) == {"other-1.0.zip"}


def test_a_file_that_came_back_is_not_dropped_by_an_old_listing(
    storage: Memory, tmp_path: Path
) -> None:
    server = Server(storage, tmp_path, WithoutRecent)
    server.put_document(IndexDocument(mtime=now(-60), entries=(entry(WHEEL),)))
    server.synchronize()
    server.upload(WHEEL, CONTENT)  # somebody had removed it from the storage
    server.put_document(IndexDocument(mtime=now(-30), entries=()))
    server.synchronize()
    assert set(server.shown()) == {WHEEL}


def test_an_upload_that_a_document_has_goes_with_the_next(storage: Memory, tmp_path: Path) -> None:
    server = Server(storage, tmp_path, WithoutRecent)
    server.synchronize()
    server.upload(WHEEL, CONTENT)
    file = server.index.file(WHEEL)
    assert file is not None
    has_it = IndexDocument(mtime=now(), entries=(new_entry(file, stamp=None),))
    server.put_document(has_it)
    server.synchronize()
    server.put_document(replace(has_it, entries=()))  # of the same time: removed, not unseen
    server.synchronize()
    assert server.shown() == {}


def test_an_entry_without_a_stamp_lets_no_file_be_opened_again(remote: Server) -> None:
    remote.storage.drop(WHEEL, CONTENT)
    remote.synchronize()
    file = remote.index.file(WHEEL)
    assert file is not None
    remote.edit(yank={WHEEL: ""}, files=[file])
    remote.synchronize()
    assert remote.shown() == {WHEEL: ""}
    assert remote.storage.calls["open_file"] == 1


def test_a_document_of_an_older_writer_takes_no_summary_away(remote: Server) -> None:
    remote.upload(WHEEL, CONTENT)
    uploaded = remote.index.file(WHEEL)
    assert uploaded is not None

    def write(mtime: int, summary: str | None) -> str | None:
        file = replace(uploaded, summary=summary)
        remote.put_document(IndexDocument(mtime=mtime, entries=(new_entry(file, stamp=None),)))
        remote.synchronize()
        shown = remote.index.file(WHEEL)
        assert shown is not None
        return shown.summary

    begun = now()
    serial = remote.index.project_serial("demo")
    assert write(begun, "A demo") == "A demo"
    assert write(begun + 1, None) == "A demo"
    assert write(begun + 2, "Another") == "Another"
    assert remote.index.project_serial("demo") == serial  # no page of the simple API shows it


def test_a_burnt_name_wins_over_an_entry_of_the_same_document(server: Server) -> None:
    server.edit(delete=[make_file(WHEEL, CONTENT)])
    server.put_document(replace(server.document(), entries=(entry(WHEEL),)))
    server.synchronize()
    assert server.shown() == {}


def test_an_edit_without_any_listing_removes_nothing(remote: Server) -> None:
    for number in range(3):
        remote.upload(*make_wheel(version=f"{number}.0"))
    remote.synchronize()
    file = remote.index.file("demo-1.0-py3-none-any.whl")
    assert file is not None
    remote.edit(yank={file.filename: "bad"}, files=[file])  # the first document there is
    remote.synchronize()
    assert remote.shown() == {
        "demo-0.0-py3-none-any.whl": None,
        "demo-1.0-py3-none-any.whl": "bad",
        "demo-2.0-py3-none-any.whl": None,
    }


def test_a_document_that_vanished_is_trouble_and_removes_nothing(remote: Server) -> None:
    remote.store(WHEEL, CONTENT)
    remote.update_index()
    remote.synchronize()
    remote.storage._index, remote.storage._index_revision = None, ""
    with pytest.raises(BackendError, match="vanished"):
        remote.synchronize()
    assert WHEEL in remote.shown()
    assert "vanished" in (remote.index.sync_state().error or "")


def test_what_was_done_and_what_failed_is_counted(remote: Server) -> None:
    remote.store(WHEEL, CONTENT)
    remote.update_index()
    synchronizer = remote.synchronizer()
    synchronizer.synchronize()
    synchronizer.synchronize()
    after_two = synchronizer.counts.seconds
    remote.storage._index, remote.storage._index_revision = None, ""
    with pytest.raises(BackendError):
        synchronizer.synchronize()
    assert (synchronizer.counts.done, synchronizer.counts.failed) == (2, 1)
    assert 0 < after_two < synchronizer.counts.seconds


def test_a_document_that_is_no_toml_is_trouble_and_removes_nothing(server: Server) -> None:
    server.store(WHEEL, CONTENT)
    server.update_index()
    server.synchronize()
    path = server.root / "broken.toml"
    path.write_text("mtime = 1\npkgs = [}")
    server.backend.write_index(path, server.backend.read_index(server.root / "x"))
    with pytest.raises(InvalidIndex, match="line 2"):
        server.synchronize()
    assert WHEEL in server.shown()
    assert "line 2" in (server.index.sync_state().error or "")


def test_broken_entries_are_reported_and_the_others_shown(remote: Server) -> None:
    path = remote.root / "broken.toml"
    document = IndexDocument(mtime=now(), entries=(entry("a-1.0.zip"), entry("b-1.0.zip")))
    write_document(document, path, backend_type="memory", location_key="location")
    path.write_text(path.read_text().replace("size = 9", "size = 'x'", 1))
    remote.backend.write_index(path, "")
    report = remote.synchronize()
    assert len(report.skipped) == 1
    assert "`size`" in report.skipped[0]
    assert set(remote.shown()) == {"b-1.0.zip"}


def test_a_document_of_0_2_is_served_after_opening_each_file_once(remote: Server) -> None:
    for number in range(3):
        remote.storage.drop(*make_wheel(version=f"{number}.0"))
    remote.storage.drop("demo-9.0-py3-none-any.whl", b"broken")
    old = tuple(
        UnexaminedEntry(
            filename=stored.filename, location=stored.location, sha256="unchecked", meta={}
        )
        for stored in remote.backend.list_files()
    )
    remote.put_document(IndexDocument(mtime=now(3600), unexamined=old))
    assert len(remote.synchronize().skipped) == 1
    found = remote.index.file("demo-1.0-py3-none-any.whl")
    assert found is not None
    assert found.size == len(make_wheel(version="1.0")[1])
    assert found.sha256 == hashlib.sha256(make_wheel(version="1.0")[1]).hexdigest()
    assert len(remote.shown()) == 3
    remote.put_document(IndexDocument(mtime=now(7200), unexamined=old[:-1]))
    remote.synchronize()
    assert remote.storage.calls["open_file"] == 4
    assert len(remote.shown()) == 2


@pytest.mark.needs("time")
def test_a_large_document_is_parsed_in_a_child_process(
    remote: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = tuple(
        entry(f"p{number % 500}-{number}.zip", requires_python=f"<{number}")
        for number in range(5000)
    )
    remote.put_document(IndexDocument(mtime=now(), entries=entries))

    def not_here(*_: object, **__: object) -> None:
        raise AssertionError("a large document is parsed in the serving process")

    monkeypatch.setattr("private_pypi.index.staging.DocumentReader", not_here)
    assert remote.synchronize().added == 5000
    assert len(remote.index.projects()) == 500
    assert remote.index.project_files("p7") == tuple(
        make_file(f"p7-{number}.zip", requires_python=f"<{number}")
        for number in range(7, 5000, 500)
    )
    remote.put_document(IndexDocument(mtime=now(), entries=entries[10:]))
    assert remote.synchronize().removed == 10
    path = remote.root / "broken.toml"
    path.write_text(f"#{'x' * 300_000}\nmtime = [}}")
    remote.backend.write_index(path, remote.backend.read_index(remote.root / "x"))
    with pytest.raises(InvalidIndex, match="line 2"):
        remote.synchronize()
    assert sum(1 for _ in remote.folders.tmp.iterdir()) == 0


# -- being killed, and not being alone -------------------------------------------------------------


def file_system(
    storage: Path, folders: Folders, view: type[FileSystemStorage] = FileSystemStorage
) -> FileSystemStorage:
    settings = FileSystemSettings(name="mine", max_file_bytes=1 << 30, path=storage)
    return view(FileSystemBackend(settings, folders), Secret(""))


CHILD = """
import sys
from datetime import timedelta
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import private_pypi.index.synchronizing as synchronizing
from tests.index.test_synchronizing import *
synchronizing._COMMIT_EVERY = 0.0
root, storage, seconds = Path(sys.argv[2]), Path(sys.argv[3]), float(sys.argv[4])

class Slow(FileSystemStorage):
    def open_file(self, file):
        time.sleep(seconds)
        return super().open_file(file)

folders = new_folders(root)
index = LocalIndex(root / "index.sqlite", identity="mine")
synchronizer = Synchronizer(
    file_system(storage, folders, Slow), index,
    backend_type="file_system", name="mine", interval=timedelta(seconds=60),
)
print(synchronizer.synchronize().added)
"""


def child(root: Path, storage: Path, seconds: float) -> subprocess.Popen[str]:
    tests = str(Path(__file__).parents[2])
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, tests, str(root), str(storage), str(seconds)],
        stdout=subprocess.PIPE,
        text=True,
    )


def dropped(storage: Path, count: int) -> list[str]:
    storage.mkdir()
    filenames = []
    for number in range(count):
        filename, content = make_wheel(version=f"{number}.0")
        (storage / filename).write_bytes(content)
        filenames.append(filename)
    return filenames


def test_a_first_import_that_is_killed_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage, root = tmp_path / "storage", tmp_path / "root"
    filenames = dropped(storage, 120)
    folders = new_folders(root)
    index = LocalIndex(root / "index.sqlite", identity="mine")
    process = child(root, storage, 0.1)
    deadline = time.monotonic() + 60
    while len(index.project_files("demo")) < 10:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    found = len(index.project_files("demo"))
    assert found < 120
    assert not index.ready()

    opened = []

    class Counting(FileSystemStorage):
        def open_file(self, file: FileHandle) -> Download:
            opened.append(file.filename)
            return super().open_file(file)

    report = Synchronizer(
        file_system(storage, folders, Counting),
        index,
        backend_type="file_system",
        name="mine",
        interval=timedelta(seconds=60),
    ).synchronize()
    assert report.added == len(opened) == 120 - found
    assert index.ready()
    assert sorted(file.filename for file in index.project_files("demo")) == sorted(filenames)


def test_a_storage_of_0_2_is_shown_as_it_is(tmp_path: Path) -> None:
    storage, folders = tmp_path / "storage", new_folders(tmp_path / "root")
    (storage / "demo").mkdir(parents=True)
    old = []
    for filename, content in (make_wheel(), make_sdist(), make_sdist(format="zip")):
        path = storage / "demo" / filename
        path.write_bytes(content)
        meta = f'name = "Demo"\nversion = "1.0"\ndistrib = "demo"\nsha256 = "{"0" * 64}"\n'
        Path(f"{path}.meta").write_text(meta)
        old.append(
            UnexaminedEntry(
                filename=filename, location=f"/old/{filename}", sha256="0" * 64, meta={}
            )
        )
    write_document(
        IndexDocument(mtime=1, unexamined=tuple(old)),
        storage / "index.toml",
        backend_type="file_system",
        location_key="package_path",
    )
    index = LocalIndex(tmp_path / "root" / "index.sqlite", identity="mine")
    backend = file_system(storage, folders)
    report = Synchronizer(
        backend,
        index,
        backend_type="file_system",
        name="mine",
        interval=timedelta(seconds=60),
    ).synchronize()
    assert (report.added, report.skipped) == (3, ())
    assert {file.filename: file.sha256 for file in index.project_files("demo")} == {
        filename: hashlib.sha256(content).hexdigest()
        for filename, content in (make_wheel(), make_sdist(), make_sdist(format="zip"))
    }
    update = update_index(backend, backend_type="file_system", name="mine", folder=folders.tmp)
    assert str(update) == "mine: 0 added, 0 removed, 3 changed, 0 unchanged"


@pytest.mark.needs("time")
def test_the_processes_of_one_root_take_turns(tmp_path: Path) -> None:
    storage, root = tmp_path / "storage", tmp_path / "root"
    dropped(storage, 40)
    new_folders(root)
    processes = [child(root, storage, 0.01) for _ in range(3)]
    added = sorted(int(process.communicate()[0]) for process in processes)
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert added == [0, 0, 40]  # nobody did what another one had done
    index = LocalIndex(root / "index.sqlite", identity="mine")
    assert len(index.project_files("demo")) == 40


def test_two_servers_of_one_storage_see_each_others_files(server: Server, tmp_path: Path) -> None:
    other = Server(server.storage, tmp_path / "other", server.backend_class)
    server.synchronize()
    other.synchronize()
    other.upload(WHEEL, CONTENT)
    server.synchronize()
    assert server.index.file(WHEEL) == other.index.file(WHEEL)


# -- in the background -----------------------------------------------------------------------------


@pytest.fixture
def running() -> Iterator[Callable[[Synchronizer], Synchronizer]]:
    started: list[Synchronizer] = []

    def start(synchronizer: Synchronizer) -> Synchronizer:
        synchronizer.start()
        started.append(synchronizer)
        return synchronizer

    yield start
    for synchronizer in started:
        synchronizer.stop()


Start = Callable[[Synchronizer], Synchronizer]


def test_the_thread_follows_the_storage(server: Server, running: Start) -> None:
    server.store(WHEEL, CONTENT)
    synchronizer = running(server.synchronizer(seconds=0.2))
    assert synchronizer.wait_until_ready(30)
    server.store(*make_wheel("other"))
    eventually(lambda: len(server.shown()) == 2)


def test_the_thread_outlives_trouble_and_mistakes(local: Server, running: Start) -> None:
    local.store(WHEEL, CONTENT)
    local.storage.fail_next("list_files", BackendUnavailable("down", retry_after=0))
    local.storage.fail_next("list_files", ZeroDivisionError("a mistake"))
    synchronizer = running(local.synchronizer(seconds=0.1))
    assert not synchronizer.wait_until_ready(0.01) or local.index.ready()
    eventually(lambda: WHEEL in local.shown())
    eventually(lambda: local.index.sync_state().error is None)
    assert local.storage.calls["list_files"] >= 3


def test_waiting_ends_when_the_first_synchronisation_fails(local: Server, running: Start) -> None:
    local.storage.fail_next("list_files", BackendUnavailable("down"), times=1000)
    synchronizer = running(local.synchronizer())
    begun = time.monotonic()
    assert not synchronizer.wait_until_ready(600)
    assert time.monotonic() - begun < 60
    assert local.index.sync_state().error == "down"


def test_stopping_does_not_wait_for_the_interval(local: Server) -> None:
    synchronizer = local.synchronizer(seconds=3600)
    synchronizer.start()
    assert synchronizer.wait_until_ready(30)
    begun = time.monotonic()
    synchronizer.stop()
    assert time.monotonic() - begun < 60
    calls = local.storage.calls["list_files"]
    time.sleep(0.1)
    assert local.storage.calls["list_files"] == calls


def test_a_long_import_is_stopped_in_between(local: Server) -> None:
    for number in range(200):
        local.storage.drop(*make_wheel(version=f"{number}.0"))
    local.storage.delay["open_file"] = 0.2
    synchronizer = local.synchronizer()
    synchronizer.start()
    eventually(lambda: local.storage.calls["open_file"] > 0)
    synchronizer.stop()
    assert local.storage.calls["open_file"] < 200
    assert local.index.sync_state().error is None


def test_a_process_leaves_to_another_what_that_one_just_did(
    local: Server, running: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[Synchronizer] = []
    turn = Synchronizer._turn

    def noted(self: Synchronizer, started_at: float | None) -> float:
        try:
            return turn(self, started_at)
        finally:
            looked.append(self)

    monkeypatch.setattr(Synchronizer, "_turn", noted)
    # The second one comes while the first one lists: what ended before its start does not count.
    local.storage.held["list_files"] = threading.Event()
    first = running(local.synchronizer(seconds=3600))
    eventually(lambda: local.storage.calls["list_files"] == 1)
    second = running(local.synchronizer(seconds=3600))
    eventually(lambda: second in looked)
    assert first not in looked
    local.storage.held["list_files"].set()
    assert first.wait_until_ready(20)
    assert second.wait_until_ready(20)
    before = looked.count(second)
    eventually(lambda: looked.count(second) > before)  # it looks every 2 seconds
    assert (first.counts.done, second.counts.done) == (1, 0)
    assert local.storage.calls["list_files"] == 1


@pytest.mark.needs("time")
def test_a_slow_listing_is_followed_by_the_next_one_in_time(remote: Server, running: Start) -> None:
    remote.storage.delay["recent_files"] = 1.0
    synchronizer = running(remote.synchronizer(seconds=1))
    assert synchronizer.wait_until_ready(30)
    for number in range(3):  # of another server
        filename, content = make_wheel(version=f"{number}.0")
        remote.store(filename, content)
        # 20 times the length of a listing would be 20 seconds.
        eventually(lambda filename=filename: filename in remote.shown(), within=16)  # type: ignore[misc]
        age = remote.index.age()
        assert age is not None and synchronizer.pace.is_believed(age)


@pytest.mark.parametrize(
    ("interval", "took", "earliest", "latest"),
    [
        (60, 0, 48, 60),
        (60, 10, 38, 50),  # so that it ends in time
        (60, 30, 37.5, 37.5),  # the storage has to rest
        (60, 100, 125, 125),
    ],
)
def test_one_rule_says_when_a_listing_is_due_and_for_how_long_it_is_believed(
    interval: float, took: float, earliest: float, latest: float
) -> None:
    pace = Pace(interval)
    due = [pace.due_after(took) for _ in range(100)]
    assert earliest <= min(due) <= max(due) <= latest
    assert pace.is_believed(interval + 10)
    assert not pace.is_believed(interval + 10.1)
    assert not pace.is_believed(None)


def test_a_clock_that_is_set_stops_nothing(
    local: Server, running: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    running(local.synchronizer(seconds=0.2))
    real, set_by = time.time, [0.0]
    for module in ("synchronizing", "local", "reconciling"):
        monkeypatch.setattr(f"private_pypi.index.{module}.time.time", lambda: real() + set_by[0])
    for set_by[0] in (-86_400.0, 86_400.0, 0.0):
        calls = local.storage.calls["list_files"]
        eventually(lambda calls=calls: local.storage.calls["list_files"] >= calls + 3)  # type: ignore[misc]
        eventually(lambda: (local.index.age() or 60) < 30)


def test_an_index_of_the_future_is_synchronised_at_once(
    local: Server, running: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    local.synchronize()
    with local.index.writing() as connection:
        connection.execute("UPDATE state SET listed_at = ?", (time.time() + 86_400,))
    assert local.index.age() is None
    calls = local.storage.calls["list_files"]
    running(local.synchronizer(seconds=3600))
    eventually(lambda: local.index.age() is not None)
    assert local.storage.calls["list_files"] == calls + 1


def test_after_a_failure_it_is_tried_again_long_before_the_interval_is_over(
    local: Server, running: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("private_pypi.index.synchronizing._RETRY_SECONDS", 0.1)
    local.synchronize()
    local.storage.fail_next("list_files", BackendError("away"), times=3)
    calls = local.storage.calls["list_files"]
    running(local.synchronizer(seconds=3600))
    eventually(lambda: local.storage.calls["list_files"] == calls + 4)
    eventually(lambda: local.index.sync_state().error is None)


@pytest.mark.needs("time")
def test_a_lost_local_index_is_built_anew_at_once(
    local: Server, running: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("private_pypi.index.connections._CHECK_EVERY", 0.0)
    local.store(WHEEL, CONTENT)
    synchronizer = running(local.synchronizer(seconds=3600))
    assert synchronizer.wait_until_ready(30)
    for path in local.root.glob("index.sqlite*"):
        path.unlink()
    eventually(lambda: local.index.ready() and WHEEL in local.shown())


@pytest.mark.parametrize("backend_class", [LocalMemoryBackend, WithRecent, WithoutRecent])
def test_a_local_index_that_another_process_began_anew_is_filled_whole(
    storage: Memory, tmp_path: Path, backend_class: type[MemoryBackend]
) -> None:
    server = Server(storage, tmp_path / "root", backend_class)
    server.store(WHEEL, CONTENT)
    server.update_index()
    server.synchronize()
    server.edit(delete=[make_file(WHEEL, CONTENT)])
    sdist, content = make_sdist()
    server.store(sdist, content)
    server.update_index()
    server.synchronize()
    assert server.shown() == {sdist: None}  # this thread has just looked for the file
    for path in server.root.glob("index.sqlite*"):
        path.unlink()
    other = LocalIndex(server.root / "index.sqlite", identity="mine")
    assert not other.ready()
    server.synchronize()
    assert other.ready()
    assert other.burnt(WHEEL) is not None
    assert [file.filename for file in other.project_files("demo")] == [sdist]


def test_a_storage_without_a_document_is_listed_again_for_an_index_begun_anew(
    storage: Memory, tmp_path: Path
) -> None:
    server = Server(storage, tmp_path / "root", WithoutRecent)
    server.store(WHEEL, CONTENT)
    server.synchronize()
    assert server.shown() == {WHEEL: None}
    for path in server.root.glob("index.sqlite*"):
        path.unlink()
    other = LocalIndex(server.root / "index.sqlite", identity="mine")
    assert not other.ready()
    server.synchronize()
    assert (other.ready(), other.has_files("demo")) == (True, True)


def test_nothing_is_left_in_the_temporary_folder(server: Server) -> None:
    server.storage.drop(WHEEL, CONTENT)
    server.update_index()
    server.synchronize()
    assert list(server.folders.tmp.iterdir()) == []


# -- marks of listings ---------------------------------------------------------------------------


class Marked(MemoryStorage):
    """A storage that says whether files were added or removed."""

    mark: str | None = "1"

    def listing_mark(self) -> str | None:
        return self.mark


class MarkedBackend(MemoryBackend):
    View = Marked
    traits = replace(MemoryBackend.traits, lists_cheaply=True)


@pytest.fixture
def marked(tmp_path: Path) -> Server:
    """A server over such a storage, which has a file that is shown."""
    server = Server(Memory(), tmp_path / "marked", MarkedBackend)
    server.store("demo-1.0.tar.gz", b"one")
    return server


def listings(server: Server, synchronizer: Synchronizer, *, passes: int) -> int:
    """How many of some passes in the background list the storage."""
    before = server.storage.calls["list_files"]
    for _ in range(passes):
        synchronizer._pass(hurry=True)
    return server.storage.calls["list_files"] - before


def test_a_storage_in_which_nothing_is_new_is_not_listed(marked: Server) -> None:
    synchronizer = marked.synchronizer()
    # The second one makes sure that nobody is still writing to what the first one has read.
    assert listings(marked, synchronizer, passes=4) == 2
    before = marked.index.sync_state()
    assert listings(marked, synchronizer, passes=1) == 0
    after = marked.index.sync_state()
    assert (after.synced_at or 0) > (before.synced_at or 0)
    age = marked.index.age()
    assert age is not None
    assert age < 5
    marked.storage.drop("demo-2.0.tar.gz", b"broken")
    marked.backend.mark = "2"  # type: ignore[attr-defined]
    assert listings(marked, synchronizer, passes=3) == 3  # a file that is not shown may be mended
    assert synchronizer.synchronize().removed == 0
    assert listings(marked, synchronizer, passes=1) == 1


def test_a_new_document_is_read_although_the_mark_is_the_same(marked: Server) -> None:
    synchronizer = marked.synchronizer()
    assert listings(marked, synchronizer, passes=3) == 2
    marked.edit(yank={"demo-1.0.tar.gz": "bad"}, files=[make_file("demo-1.0.tar.gz", b"one")])
    synchronizer._pass(hurry=True)
    assert marked.shown() == {"demo-1.0.tar.gz": "bad"}


def test_a_storage_is_listed_from_time_to_time_whatever_its_mark_says(
    marked: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    synchronizer = marked.synchronizer()
    assert listings(marked, synchronizer, passes=3) == 2
    monkeypatch.setattr("private_pypi.index.synchronizing._LIST_EVERY", 0.0)
    assert listings(marked, synchronizer, passes=2) == 2


def test_without_a_mark_a_storage_is_listed_each_time(marked: Server) -> None:
    marked.backend.mark = None  # type: ignore[attr-defined]
    assert listings(marked, marked.synchronizer(), passes=4) == 4
