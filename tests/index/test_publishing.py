"""Publishing, yanking and deleting: one file has one name, and a refusal changes nothing."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from private_pypi.backend import Backend, Secret, SupportsIndex, can
from private_pypi.errors import (
    BackendError,
    BackendUnavailable,
    FileAlreadyExists,
    FilenameBurnt,
    NotAllowed,
    PrivatePypiError,
    WrongSecret,
)
from private_pypi.index.document import (
    EMPTY,
    IndexDocument,
    IndexEdit,
    write_document,
)
from private_pypi.index.document_reader import read_document
from private_pypi.index.local import LocalIndex
from private_pypi.index.publishing import delete, publish, restore_name, yank
from private_pypi.index.rebuilding import update_index
from private_pypi.index.stored_document import edit_index
from private_pypi.index.synchronizing import Synchronizer
from private_pypi.model import DistributionFile
from private_pypi.testing.contract.helpers import at_once, make_upload, new_folders, outcome
from private_pypi.testing.distributions import make_wheel
from private_pypi.testing.memory import (
    LocalMemoryBackend,
    LookupMemoryBackend,
    Memory,
    MemoryBackend,
    MemorySettings,
)

WHEEL = "demo-1.0-py3-none-any.whl"
SPELLINGS = [
    "Demo-1.0-py3-none-any.whl",
    "demo-1.0.0-py3-none-any.whl",
    "demo-v1-py3-none-any.whl",
    "demo-1.0-PY3-none-any.whl",
    "demo-1.0-py3.py3-none-any.whl",
]
OTHERS = [
    "demo-1.0-1-py3-none-any.whl",
    "demo-1.0-py2.py3-none-any.whl",
    "demo-1.0.tar.gz",
    "demo-1.0.zip",
    "demo-1.0+local-py3-none-any.whl",
    "demo-1.0.post0-py3-none-any.whl",
]


@dataclass
class Server:
    """One ROOT, and a storage that others may share."""

    storage: Memory
    kind: type[Backend[MemorySettings]]
    tmp_path: Path

    def __post_init__(self) -> None:
        self.folders = new_folders(self.tmp_path)
        self.storage.projects.add("demo")
        settings = MemorySettings(name="mine", max_file_bytes=1 << 30, storage=self.storage)
        self.backend: Any = self.kind(settings, self.folders).seen_with(Secret("write"))
        self.has_document = can(self.kind, SupportsIndex)
        self.index = LocalIndex(
            self.folders.cache / "index.sqlite",
            identity="memory",
            always_ready=not self.has_document,
        )
        self.synchronize()

    def another(self) -> Server:
        return Server(self.storage, self.kind, self.tmp_path)

    def synchronize(self) -> None:
        if self.has_document:
            Synchronizer(
                self.backend,
                self.index,
                backend_type="memory",
                name="mine",
                interval=timedelta(seconds=60),
            ).synchronize()

    def publish(self, filename: str, content: bytes = b"content") -> DistributionFile:
        upload = make_upload(self.tmp_path, filename, content)
        return publish(upload, storage=self.backend, index=self.index, backend_type="memory")

    def yank(self, *files: DistributionFile, reason: str | None = "bad") -> None:
        yank(
            files,
            reason,
            storage=self.backend,
            index=self.index,
            backend_type="memory",
        )

    def delete(self, *files: DistributionFile) -> None:
        delete(
            files,
            storage=self.backend,
            index=self.index,
            backend_type="memory",
        )

    def restore_name(self, filename: str) -> list[str]:
        return restore_name(
            filename,
            storage=self.backend,
            index=self.index,
            backend_type="memory",
        )

    def document(self) -> IndexDocument:
        path = self.tmp_path / "read.toml"
        if not self.has_document or not self.backend.read_index(path):
            return EMPTY
        return read_document(path, location_key="location")[0]

    def burnt(self) -> set[str]:
        """The names that are burnt here or in the document."""
        return set(self.index.burnt_names("demo")) | {
            name.filename for name in self.document().deleted
        }

    def shown(self) -> dict[str, str | None]:
        """The files that are shown, each with its yank."""
        return {file.filename: file.yanked for file in self.index.project_files("demo")}

    def stored(self) -> dict[str, str | None]:
        """The files that are stored, each with the yank that the storage knows of."""
        return {name: kept.stored.yanked for name, kept in self.storage._files.items()}


@pytest.fixture(params=[MemoryBackend, LocalMemoryBackend, LookupMemoryBackend])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Server:
    return Server(Memory(), request.param, tmp_path)


@pytest.fixture(params=[MemoryBackend, LocalMemoryBackend])
def documented(request: pytest.FixtureRequest, tmp_path: Path) -> Server:
    """A server of a storage with an index document."""
    return Server(Memory(), request.param, tmp_path)


# -- one file has one name ------------------------------------------------------------------------


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_other_bytes_under_another_spelling_are_refused(server: Server, spelling: str) -> None:
    server.publish(WHEEL)
    with pytest.raises(FileAlreadyExists, match=r"File already exists .*published as") as refused:
        server.publish(spelling, b"other content")
    assert repr(WHEEL) in str(refused.value)
    assert list(server.stored()) == list(server.shown()) == [WHEEL]


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_the_same_bytes_under_another_spelling_store_nothing(server: Server, spelling: str) -> None:
    first = server.publish(WHEEL)
    assert server.publish(spelling) == first
    assert list(server.stored()) == list(server.shown()) == [WHEEL]


@pytest.mark.parametrize("spelling", [WHEEL, *SPELLINGS])
def test_a_deleted_name_is_burnt_in_every_spelling(server: Server, spelling: str) -> None:
    server.delete(server.publish(WHEEL))
    for content in (b"content", b"other content"):
        with pytest.raises(FilenameBurnt, match="was previously used") as refused:
            server.publish(spelling, content)
        assert (repr(WHEEL) in str(refused.value)) and (repr(spelling) in str(refused.value))
    assert server.stored() == server.shown() == {}


@pytest.mark.parametrize("spelling", [WHEEL, *SPELLINGS])
def test_a_burnt_name_is_restored_in_every_spelling(server: Server, spelling: str) -> None:
    others = OTHERS[:2]
    for filename in (WHEEL, *others):
        server.delete(server.publish(filename))
    assert server.restore_name(spelling) == [WHEEL]
    assert server.restore_name(spelling) == []
    assert server.burnt() == set(others)
    for filename in others:
        with pytest.raises(FilenameBurnt):
            server.publish(filename)
    assert server.publish(spelling, b"other content").filename == spelling
    server.synchronize()
    assert list(server.stored()) == list(server.shown()) == [spelling]
    server.delete(server.index.same_files(spelling)[0])
    with pytest.raises(FilenameBurnt):
        server.publish(WHEEL)


def test_a_name_that_only_the_local_index_knows_is_restored_for_good(documented: Server) -> None:
    """The document may have lost it, and other servers may have it still."""
    documented.delete(documented.publish(WHEEL))
    other = documented.another()
    other.synchronize()
    path = documented.tmp_path / "empty.toml"
    write_document(EMPTY, path, backend_type="memory", location_key="location")
    documented.backend.write_index(
        path, documented.backend.read_index(documented.tmp_path / "before.toml")
    )
    assert documented.restore_name(WHEEL) == [WHEEL]
    document = documented.document()
    assert (document.deleted, document.restored) == ((), (WHEEL,))
    assert document.former_projects == ("demo",)
    with pytest.raises(FilenameBurnt):
        other.publish(WHEEL)
    other.synchronize()
    assert other.publish(WHEEL).filename == WHEEL


def test_a_file_that_was_put_back_is_shown_when_its_name_is_restored(documented: Server) -> None:
    documented.delete(documented.publish(WHEEL))
    documented.backend.put_file(make_upload(documented.tmp_path, WHEEL, b"from a backup"))
    documented.synchronize()
    assert documented.shown() == {}
    assert documented.restore_name(WHEEL) == [WHEEL]
    documented.synchronize()
    assert documented.shown() == {WHEEL: None}


def test_files_that_installers_tell_apart_are_others(server: Server) -> None:
    server.delete(server.publish(WHEEL))
    for filename in OTHERS:
        server.publish(filename, filename.encode())
    assert set(server.stored()) == set(server.shown()) == set(OTHERS)


def test_a_name_that_another_server_burnt_is_burnt_in_every_spelling(
    documented: Server, tmp_path: Path
) -> None:
    """A document tells filenames, also one that was written before spellings were compared."""
    other = documented.another()
    documented.delete(documented.publish(WHEEL))
    other.synchronize()
    with pytest.raises(FilenameBurnt):
        other.publish(SPELLINGS[0])


def test_of_sixteen_spellings_at_once_one_is_stored(server: Server, tmp_path: Path) -> None:
    names = list(itertools.islice(itertools.cycle([WHEEL, *SPELLINGS]), 16))
    # As the processes of one ROOT have it: each with objects of its own.
    indexes = [
        LocalIndex(
            server.folders.cache / "index.sqlite",
            identity="memory",
            always_ready=not server.has_document,
        )
        for _ in range(2)
    ]
    calls: list[Callable[[], object]] = []
    for number, name in enumerate(names):
        upload = make_upload(tmp_path, name, f"content {number}".encode())
        calls.append(
            partial(
                outcome,
                partial(
                    publish, storage=server.backend, index=indexes[number % 2],
                    backend_type="memory",
                ),
                upload,
            )
        )  # fmt: skip
    outcomes = at_once(calls)
    [winner] = [each for each in outcomes if isinstance(each, DistributionFile)]
    assert {type(each) for each in outcomes if each is not winner} == {FileAlreadyExists}
    assert list(server.stored()) == list(server.shown()) == [winner.filename]


# -- storages that have several spellings ----------------------------------------------------------


@pytest.fixture
def both(server: Server) -> tuple[DistributionFile, DistributionFile]:
    """Two spellings, published when nobody looked at that."""
    one = server.publish(WHEEL, b"one")
    upload = make_upload(server.tmp_path, SPELLINGS[1], b"two")
    stored = server.backend.put_file(upload)
    two = replace(upload.file, location=stored.location)
    server.index.add_file(two, stored.stamp)
    return one, two


def test_a_storage_that_has_both_goes_on_to_serve_both(
    server: Server, both: tuple[DistributionFile, DistributionFile]
) -> None:
    one, two = both
    expected = {one.filename: None, two.filename: None}
    server.synchronize()
    assert server.shown() == expected
    assert server.publish(one.filename, b"one").sha256 == one.sha256
    assert server.publish(two.filename, b"two").sha256 == two.sha256
    assert server.publish(SPELLINGS[0], b"two").filename == two.filename
    for name in (one.filename, two.filename, SPELLINGS[0]):
        with pytest.raises(FileAlreadyExists):
            server.publish(name, b"three")
    assert server.shown() == server.stored() == expected


def test_deleting_one_of_both_leaves_the_other(
    server: Server, both: tuple[DistributionFile, DistributionFile]
) -> None:
    one, two = both
    server.delete(one)
    server.synchronize()
    assert server.shown() == server.stored() == {two.filename: None}
    assert server.publish(two.filename, b"two").sha256 == two.sha256
    with pytest.raises(FilenameBurnt):
        server.publish(SPELLINGS[0], b"three")
    if server.has_document:  # also where ROOT was lost, and after a rebuilt document
        assert server.another().shown() == {two.filename: None}
        update_index(server.backend, backend_type="memory", name="mine", folder=server.folders.tmp)
        assert server.another().shown() == {two.filename: None}


def test_a_file_that_comes_back_by_another_road_in_another_spelling_is_not_shown(
    documented: Server,
) -> None:
    documented.delete(documented.publish(WHEEL))
    documented.storage.drop(SPELLINGS[0], b"whatever")
    for each in (documented, documented.another()):
        each.synchronize()
        assert each.shown() == {}
        problem = each.index.unshown("demo")[SPELLINGS[0]]
        assert problem.startswith(f"'{SPELLINGS[0]}' is not shown: ")
    update = update_index(
        documented.backend, backend_type="memory", name="mine", folder=documented.folders.tmp
    )
    assert update.skipped == (problem,)
    assert list(documented.stored()) == [SPELLINGS[0]]  # nobody's bytes are removed
    assert documented.document().skipped == (SPELLINGS[0],)


# -- what the storage refuses ----------------------------------------------------------------------

REFUSALS = [NotAllowed("it is immutable"), WrongSecret("it was revoked")]


@pytest.mark.parametrize("refusal", REFUSALS)
def test_a_refused_delete_leaves_the_file_served_and_not_burnt(
    server: Server, refusal: PrivatePypiError
) -> None:
    file = server.publish(WHEEL)
    other = server.another() if server.has_document else None

    def burnt_meanwhile(*_: object) -> None:
        """Another server reads the document before the storage refuses."""
        if other is not None:
            other.synchronize()
            assert other.shown() == {}
        raise type(refusal)(str(refusal))

    server.backend.delete_file = burnt_meanwhile
    with pytest.raises(type(refusal)) as raised:
        server.delete(file)
    assert str(raised.value) == str(refusal)  # nothing else needs to be told
    assert server.index.file(WHEEL) == file
    assert server.burnt() == set()
    assert server.publish(WHEEL) == file
    for each in (server, other):
        if each is not None:
            each.synchronize()
            assert each.shown() == {WHEEL: None}
            assert each.burnt() == set()
    del server.backend.delete_file
    server.delete(file)
    if other is not None:
        other.synchronize()
        assert (other.shown(), other.burnt()) == ({}, {WHEEL})


def test_a_release_that_is_deleted_in_part_is_told_file_by_file(server: Server) -> None:
    names = [WHEEL, "demo-1.0.tar.gz", "demo-1.0.zip"]
    files = [server.publish(name, name.encode()) for name in names]
    delete_file = server.backend.delete_file

    def refuse_one(file: DistributionFile) -> None:
        if file == files[1]:
            raise NotAllowed("it is immutable")
        delete_file(file)

    server.backend.delete_file = refuse_one
    with pytest.raises(NotAllowed) as raised:
        server.delete(*files)
    assert str(raised.value) == f"it is immutable; deleted before that: {WHEEL}"
    assert server.burnt() == {WHEEL}
    assert set(server.stored()) == set(names[1:])
    server.synchronize()
    if server.has_document:  # what is looked up is shown until the next lookup
        assert set(server.shown()) == set(names[1:])
    with pytest.raises(FilenameBurnt):
        server.publish(WHEEL)


def test_a_refusal_that_cannot_be_undone_says_so(documented: Server) -> None:
    file = documented.publish(WHEEL)
    documented.storage.fail_next("delete_file", NotAllowed("it is immutable"))
    write_index, calls = documented.backend.write_index, itertools.count()

    def refuse_the_second(content: Path, replaces: str) -> str:
        if next(calls) == 1:
            raise BackendError("the branch is gone")
        return write_index(content, replaces)

    documented.backend.write_index = refuse_the_second
    with pytest.raises(NotAllowed) as raised:
        documented.delete(file)
    assert str(raised.value) == (
        f"it is immutable; no longer served, and burnt, but still stored: {WHEEL}, because that "
        "could not be undone: the branch is gone"
    )
    assert documented.burnt() == {WHEEL}


def test_after_trouble_the_names_stay_burnt_and_that_is_said(documented: Server) -> None:
    """It is unknown whether the storage has the file: what is burnt stays so."""
    file = documented.publish(*make_wheel())
    documented.storage.fail_next("delete_file", BackendUnavailable("timed out", retry_after=7))
    with pytest.raises(BackendUnavailable) as raised:
        documented.delete(file)
    assert str(raised.value) == (
        f"timed out; no longer served, and burnt, but maybe still stored: {WHEEL}; the next "
        "`update_index` removes what is left"
    )
    assert raised.value.retry_after == 7
    assert (documented.shown(), documented.burnt()) == ({}, {WHEEL})
    update_index(
        documented.backend, backend_type="memory", name="mine", folder=documented.folders.tmp
    )
    assert documented.stored() == {}


def test_a_local_storage_that_could_not_delete_is_asked_what_holds(tmp_path: Path) -> None:
    """A folder that may not be written to is an error of the system, and known to be a refusal."""
    server = Server(Memory(), LocalMemoryBackend, tmp_path)
    file = server.publish(WHEEL)
    server.storage.fail_next("delete_file", BackendError("permission denied"))
    with pytest.raises(BackendError, match=r"^permission denied$"):
        server.delete(file)
    assert (server.shown(), server.burnt()) == ({WHEEL: None}, set())


@pytest.mark.parametrize("before", [None, "old reason"])
def test_a_refused_yank_leaves_everything_as_it_was(server: Server, before: str | None) -> None:
    names = [WHEEL, "demo-1.0.tar.gz"]
    for name in names:
        server.publish(name, name.encode())
    if before is not None:
        server.yank(*server.index.project_files("demo"), reason=before)
    files = server.index.project_files("demo")
    yank_file = server.backend.yank_file

    def refuse_one(file: DistributionFile, reason: str | None) -> None:
        if file == files[1]:
            raise NotAllowed("it is immutable")
        yank_file(file, reason)

    server.backend.yank_file = refuse_one
    with pytest.raises(NotAllowed, match=r"^it is immutable$"):
        server.yank(*files, reason="new reason")
    assert server.shown() == server.stored() == dict.fromkeys(names, before)


def test_a_yank_that_the_document_refuses_is_not_in_the_storage_either(documented: Server) -> None:
    file = documented.publish(WHEEL)
    documented.storage.fail_next("write_index", NotAllowed("the branch is protected"))
    with pytest.raises(NotAllowed, match=r"^the branch is protected$"):
        documented.yank(file)
    assert documented.shown() == documented.stored() == {WHEEL: None}
    documented.storage.fail_next("write_index", NotAllowed("the branch is protected"))
    yank_file, calls = documented.backend.yank_file, itertools.count()

    def refuse_the_second(file: DistributionFile, reason: str | None) -> None:
        if next(calls) == 1:
            raise BackendError("away")
        yank_file(file, reason)

    documented.backend.yank_file = refuse_the_second
    with pytest.raises(NotAllowed) as raised:
        documented.yank(file)
    assert str(raised.value) == (
        f"the branch is protected; it was done for {WHEEL} before that, and could not be undone: "
        "away"
    )


def test_a_name_that_was_restored_may_be_burnt_again(documented: Server) -> None:
    file = documented.publish(WHEEL)
    edit = partial(edit_index, documented.backend, backend_type="memory")
    edit(IndexEdit(delete=[file]))
    edit(IndexEdit(restore=[file]))
    document = documented.document()
    assert (document.deleted, document.restored) == ((), (WHEEL,))
    assert [entry.file.filename for entry in document.entries] == [WHEEL]
    edit(IndexEdit(delete=[file]))
    document = documented.document()
    assert ([name.filename for name in document.deleted], document.restored) == ([WHEEL], ())


def test_a_name_that_is_deleted_again_while_its_restoration_is_read_stays_burnt(
    documented: Server,
) -> None:
    file = documented.publish(WHEEL)
    edit = partial(edit_index, documented.backend, backend_type="memory")
    edit(IndexEdit(delete=[file]))
    edit(IndexEdit(restore=[file]))
    read_index = documented.backend.read_index

    def deleted_meanwhile(into: Path, unless: str | None = None) -> str:
        revision = read_index(into, unless)
        documented.backend.read_index = read_index
        documented.delete(file)
        return revision

    documented.backend.read_index = deleted_meanwhile
    documented.synchronize()
    assert list(documented.index.burnt_names("demo")) == [WHEEL]
    documented.synchronize()
    assert (documented.shown(), documented.burnt()) == ({}, {WHEEL})
