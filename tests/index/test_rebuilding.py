"""`update_index` and `edit_index`: the document says what is stored, whoever else writes it."""

from __future__ import annotations

import hashlib
import http.server
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from packaging.utils import canonicalize_name

from private_pypi.backend import NO_INDEX, Folders
from private_pypi.distributions.records import make_record
from private_pypi.errors import (
    BackendError,
    BackendUnavailable,
    FileNotFound,
    InvalidIndex,
    StaleIndex,
)
from private_pypi.index import child as index_child
from private_pypi.index.document import (
    EMPTY,
    IndexDocument,
    IndexEdit,
    UnexaminedEntry,
    new_entry,
    write_document,
)
from private_pypi.index.document_reader import read_document
from private_pypi.index.rebuilding import IndexUpdate, update_index
from private_pypi.index.stored_document import edit_index
from private_pypi.model import (
    Download,
    FileHandle,
    Redirect,
    StoredFile,
    StoredName,
    Stream,
    Unlisted,
)
from private_pypi.testing.distributions import make_sdist, make_wheel
from private_pypi.testing.memory import Memory, MemoryStorage
from tests.files import NOON, make_file

DEMO = canonicalize_name("demo")


@pytest.fixture
def storage() -> Memory:
    return Memory()


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    folders = Folders(cache=tmp_path / "cache", lock=tmp_path / "lock", tmp=tmp_path / "tmp")
    for folder in (folders.cache, folders.lock, folders.tmp):
        folder.mkdir()
    return folders


def publish(storage: Memory, filename: str, content: bytes) -> None:
    """Store a file as the server would: with its record."""
    file = make_file(filename, content)
    storage.drop(filename, content, record=make_record(file, [("name", "Demo")]))


def update(
    storage: Memory, folders: Folders, view: type[MemoryStorage] | None = None
) -> IndexUpdate:
    return update_index(
        storage.open(view=view), backend_type="memory", name="mine", folder=folders.tmp
    )


def test_a_file_that_is_only_known_to_be_there_keeps_its_facts(
    storage: Memory, folders: Folders, tmp_path: Path
) -> None:
    """Where a listing gives names alone, only what is new is asked for."""
    publish(storage, "demo-1.0.tar.gz", b"one")
    publish(storage, "demo-2.0.tar.gz", b"two")
    update(storage, folders)
    before = document(storage, tmp_path)
    publish(storage, "demo-3.0.tar.gz", b"three")
    asked: list[str] = []

    class Confirming(MemoryStorage):
        def list_files(self) -> Iterator[StoredName]:
            return (StoredName(stored.filename) for stored in super().list_files())

        def find_file(self, filename: str) -> StoredFile:
            asked.append(filename)
            return storage._files[filename].stored

    storage.calls.clear()
    report = update(storage, folders, view=Confirming)
    assert (report.added, report.removed, report.changed, report.unchanged) == (1, 0, 0, 2)
    assert asked == ["demo-3.0.tar.gz"]
    assert "open_file" not in storage.calls
    after = {entry.file.filename: entry for entry in document(storage, tmp_path).entries}
    assert {name: after[name] for name in ("demo-1.0.tar.gz", "demo-2.0.tar.gz")} == {
        entry.file.filename: entry for entry in before.entries
    }


def document(storage: Memory, tmp_path: Path) -> IndexDocument:
    path = tmp_path / "read.toml"
    storage.open().read_index(path)
    found, problems = read_document(path, location_key="location")
    assert problems == ()
    return found


def put_document(storage: Memory, tmp_path: Path, document: IndexDocument) -> str:
    path = tmp_path / "written.toml"
    write_document(document, path, backend_type="memory", location_key="location")
    backend = storage.open()
    return backend.write_index(path, backend.read_index(tmp_path / "before.toml"))


def edit(storage: Memory, folders: Folders, **changes: object) -> str:
    return edit_index(
        storage.open(folders=folders),
        IndexEdit(**changes),  # type: ignore[arg-type]
        backend_type="memory",
    )


# -- update_index --------------------------------------------------------------------------------


def test_an_empty_storage_needs_no_document(storage: Memory, folders: Folders) -> None:
    assert str(update(storage, folders)) == "mine: 0 added, 0 removed, 0 unchanged"
    assert storage.calls["write_index"] == 0


def test_what_has_a_record_is_indexed_without_being_opened(
    storage: Memory, folders: Folders, tmp_path: Path
) -> None:
    publish(storage, *make_wheel())
    publish(storage, *make_sdist())
    publish(storage, *make_sdist(format="zip"))
    assert str(update(storage, folders)) == "mine: 3 added, 0 removed, 0 unchanged"
    assert storage.calls["open_file"] == 0
    found = document(storage, tmp_path)
    assert found.mtime > 1_700_000_000
    assert {
        entry.file.filename: entry.file.uploaded_at for entry in found.entries
    } == dict.fromkeys(("demo-1.0-py3-none-any.whl", "demo-1.0.tar.gz", "demo-1.0.zip"), NOON)
    assert found.entries[0].meta["name"] == "Demo"


def test_what_came_by_another_road_is_opened_once(
    storage: Memory, folders: Folders, tmp_path: Path
) -> None:
    filename, content = make_wheel(requires_python=">=3.9")
    storage.drop(filename, content)
    assert str(update(storage, folders)) == "mine: 1 added, 0 removed, 0 unchanged"
    [entry] = document(storage, tmp_path).entries
    assert (entry.file.size, entry.file.sha256, entry.file.requires_python) == (
        len(content),
        hashlib.sha256(content).hexdigest(),
        ">=3.9",
    )
    assert entry.file.core_metadata_sha256 is not None
    assert str(update(storage, folders)) == "mine: 0 added, 0 removed, 1 unchanged"
    assert storage.calls["open_file"] == 1


def test_nothing_is_written_when_nothing_changed(storage: Memory, folders: Folders) -> None:
    publish(storage, *make_wheel())
    update(storage, folders)
    update(storage, folders)
    assert storage.calls["write_index"] == 1


def test_what_is_gone_leaves_and_its_project_is_remembered(
    storage: Memory, folders: Folders, tmp_path: Path
) -> None:
    publish(storage, *make_wheel())
    publish(storage, *make_wheel("other"))
    update(storage, folders)
    storage.remove("demo-1.0-py3-none-any.whl")
    assert str(update(storage, folders)) == "mine: 0 added, 1 removed, 1 unchanged"
    assert document(storage, tmp_path).former_projects == (DEMO,)
    publish(storage, *make_wheel(version="2.0"))
    assert str(update(storage, folders)) == "mine: 1 added, 0 removed, 1 unchanged"
    assert document(storage, tmp_path).former_projects == ()


def test_other_bytes_under_a_name_are_a_change(
    storage: Memory, folders: Folders, tmp_path: Path
) -> None:
    filename, content = make_wheel()
    publish(storage, filename, content)
    update(storage, folders)
    _, other = make_wheel(files={"demo.py": b"other"})
    storage.drop(filename, other)
    assert str(update(storage, folders)) == "mine: 0 added, 0 removed, 1 changed, 0 unchanged"
    [entry] = document(storage, tmp_path).entries
    assert entry.file.sha256 == hashlib.sha256(other).hexdigest()


def test_a_broken_file_is_reported_and_the_others_are_indexed(
    storage: Memory, folders: Folders
) -> None:
    storage.drop("broken-1.0-py3-none-any.whl", b"no zip")
    storage.drop("no-distribution.exe", b"")
    publish(storage, *make_wheel())
    result = update(storage, folders)
    assert str(result) == "mine: 1 added, 0 removed, 0 unchanged"
    assert len(result.skipped) == 2
    assert any("broken-1.0-py3-none-any.whl" in sentence for sentence in result.skipped)
    assert any("no-distribution.exe" in sentence for sentence in result.skipped)


def test_trouble_with_one_file_keeps_its_entry(
    storage: Memory, folders: Folders, tmp_path: Path
) -> None:
    filename, content = make_wheel()
    publish(storage, filename, content)
    update(storage, folders)
    before = document(storage, tmp_path).entries
    storage.drop(filename, content + b"other")
    storage.fail_next("open_file", BackendError("disk error"))
    result = update(storage, folders)
    assert str(result) == "mine: 0 added, 0 removed, 1 unchanged"
    assert result.skipped == ("disk error",)
    assert document(storage, tmp_path).entries == before


def test_a_folder_that_cannot_be_read_keeps_all_entries(
    storage: Memory, folders: Folders, tmp_path: Path
) -> None:
    """Which of them are in it is not known: documents have the paths of other servers, too."""

    class Closed(MemoryStorage):
        def list_files(self) -> Iterator[Any]:
            yield Unlisted(location="/closed/", problem="closed", may_hold_files=True)
            yield Unlisted(location="/linked/", problem="a link", may_hold_files=False)
            for stored in super().list_files():
                if stored.filename != "demo-1.0.tar.gz":
                    yield stored

    publish(storage, "demo-1.0.tar.gz", b"one")
    publish(storage, "demo-2.0.tar.gz", b"two")
    update(storage, folders)
    edit(storage, folders, yank={"demo-1.0.tar.gz": "bad"})
    storage.remove("demo-2.0.tar.gz")
    publish(storage, "demo-3.0.tar.gz", b"three")
    report = update(storage, folders, view=Closed)
    assert (str(report), report.skipped) == (
        "mine: 1 added, 0 removed, 2 unchanged",
        ("closed", "a link"),
    )
    yanked = {e.file.filename: e.file.yanked for e in document(storage, tmp_path).entries}
    assert yanked == {"demo-1.0.tar.gz": "bad", "demo-2.0.tar.gz": None, "demo-3.0.tar.gz": None}
    assert str(update(storage, folders)) == "mine: 0 added, 1 removed, 2 unchanged"


def test_a_file_that_goes_while_it_is_examined_is_passed_over(
    storage: Memory, folders: Folders
) -> None:
    class Vanishing(MemoryStorage):
        def open_file(self, file: FileHandle) -> Download:
            raise FileNotFound(file.filename)

    storage.drop(*make_wheel())
    result = update(storage, folders, view=Vanishing)
    assert (str(result), result.skipped) == ("mine: 0 added, 0 removed, 0 unchanged", ())


def test_a_file_that_arrives_cut_is_no_broken_file(storage: Memory, folders: Folders) -> None:
    class Cutting(MemoryStorage):
        def open_file(self, file: FileHandle) -> Download:
            return Stream(iter([b"PK"]), file.size)

    filename, content = make_wheel()
    storage.drop(filename, content)
    result = update(storage, folders, view=Cutting)
    assert result.skipped == (f"{filename!r} has 2 bytes where {len(content)} were listed",)
    assert str(update(storage, folders)) == "mine: 1 added, 0 removed, 0 unchanged"


def test_a_storage_that_is_down_changes_nothing(
    storage: Memory, folders: Folders, tmp_path: Path
) -> None:
    publish(storage, *make_wheel())
    publish(storage, *make_wheel("other"))
    update(storage, folders)
    before = document(storage, tmp_path)
    storage.fail_next("list_files", BackendUnavailable("down"), after=1)
    with pytest.raises(BackendUnavailable, match="down"):
        update(storage, folders)
    assert document(storage, tmp_path) == before


def test_yanks_stay(storage: Memory, folders: Folders, tmp_path: Path) -> None:
    filename, content = make_wheel()
    publish(storage, filename, content)
    update(storage, folders)
    edit(storage, folders, yank={filename: "bad"})
    publish(storage, *make_wheel(version="2.0"))
    assert str(update(storage, folders)) == "mine: 1 added, 0 removed, 1 unchanged"
    yanked = {
        entry.file.filename: entry.file.yanked for entry in document(storage, tmp_path).entries
    }
    assert yanked == {filename: "bad", "demo-2.0-py3-none-any.whl": None}


def test_a_yank_outlives_an_entry_that_was_never_listed(
    storage: Memory, folders: Folders, tmp_path: Path
) -> None:
    filename, content = make_wheel()
    publish(storage, filename, content)
    shown = replace(make_file(filename, content), published_name="Demo")
    edit(storage, folders, yank={filename: "bad"}, files=[shown])
    assert document(storage, tmp_path).mtime == 0
    assert str(update(storage, folders)) == "mine: 0 added, 0 removed, 1 unchanged"
    [entry] = document(storage, tmp_path).entries
    assert entry.file.yanked == "bad"
    assert entry.stamp is not None
    assert storage.calls["open_file"] == 0


@pytest.mark.parametrize("how", ["known", "recorded", "examined", "of 0.2"])
def test_a_yank_that_the_storage_keeps_is_taken_over(
    storage: Memory, folders: Folders, tmp_path: Path, how: str
) -> None:
    """Wherever the facts of the file come from; the document and the storage need not agree."""
    filename, content = make_wheel()
    file = make_file(filename, content)
    storage.drop(filename, content, record=None if how == "examined" else make_record(file, []))
    if how == "known":
        update(storage, folders)
    if how == "of 0.2":
        old = UnexaminedEntry(filename=filename, location="x", sha256=file.sha256, meta={})
        put_document(storage, tmp_path, IndexDocument(mtime=1, unexamined=(old,)))
    for reason in ("bad", "worse", ""):
        storage.open().yank_file(file, reason)
        update(storage, folders)
        assert [e.file.yanked for e in document(storage, tmp_path).entries] == [reason]
    # Who no longer says that it is yanked, does not say that it is not.
    storage.open().yank_file(file, None)
    update(storage, folders)
    assert [e.file.yanked for e in document(storage, tmp_path).entries] == [""]


@pytest.mark.parametrize("reason", ["worse", None])
def test_what_is_edited_during_an_update_is_younger_than_what_was_listed(
    storage: Memory, folders: Folders, tmp_path: Path, reason: str | None
) -> None:
    """The first editor writes both, the other one knows nothing of yanks in the storage."""
    wheels = [make_wheel(version=f"{number}.0") for number in (1, 2, 3)]
    for wheel in wheels[:2]:
        publish(storage, *wheel)
        storage.open().yank_file(make_file(*wheel), "bad")
    update(storage, folders)
    publish(storage, *wheels[2])

    def meanwhile() -> None:
        storage.open().yank_file(make_file(*wheels[0]), reason)
        edit(storage, folders, yank={wheels[0][0]: reason, wheels[1][0]: reason})

    update(storage, folders, view=interrupting(meanwhile))
    assert [e.file.yanked for e in document(storage, tmp_path).entries] == [reason, reason, None]


def test_a_document_of_0_2_is_completed(storage: Memory, folders: Folders, tmp_path: Path) -> None:
    filename, content = make_wheel()
    storage.drop(filename, content, record={"name": "demo", "sha256": "unchecked"})
    old = UnexaminedEntry(filename=filename, location="memory-1", sha256="unchecked", meta={})
    put_document(storage, tmp_path, IndexDocument(mtime=1, unexamined=(old,)))
    assert str(update(storage, folders)) == "mine: 0 added, 0 removed, 1 changed, 0 unchanged"
    found = document(storage, tmp_path)
    assert found.unexamined == ()
    assert found.entries[0].file.sha256 == hashlib.sha256(content).hexdigest()


def test_a_broken_entry_is_reported_and_mended(
    storage: Memory, folders: Folders, tmp_path: Path
) -> None:
    publish(storage, *make_wheel())
    update(storage, folders)
    path = tmp_path / "index.toml"
    revision = storage.open().read_index(path)
    path.write_text(re.sub("size = .*", "size = 'big'", path.read_text()))
    storage.open().write_index(path, revision)
    result = update(storage, folders)
    assert len(result.skipped) == 1
    assert "`size`" in result.skipped[0]
    assert len(document(storage, tmp_path).entries) == 1


def test_what_a_broken_delete_left_is_removed(
    storage: Memory, folders: Folders, tmp_path: Path
) -> None:
    filename, content = make_wheel()
    publish(storage, filename, content)
    edit(storage, folders, delete=[make_file(filename, content)])
    assert str(update(storage, folders)) == "mine: 0 added, 0 removed, 0 unchanged"
    assert list(storage.open().list_files()) == []
    [name] = document(storage, tmp_path).deleted
    assert (name.filename, name.sha256) == (filename, hashlib.sha256(content).hexdigest())
    assert document(storage, tmp_path).former_projects == (DEMO,)


def test_other_bytes_under_a_burnt_name_are_neither_shown_nor_removed(
    storage: Memory, folders: Folders, tmp_path: Path
) -> None:
    filename, content = make_wheel()
    edit(storage, folders, delete=[make_file(filename, content)])
    storage.drop(filename, make_wheel(files={"demo.py": b"mine"})[1])
    result = update(storage, folders)
    assert result.skipped == (f"{filename!r} is stored under a burnt name: ignored",)
    assert document(storage, tmp_path).entries == ()
    assert [stored.filename for stored in storage.open().list_files()] == [filename]


def test_a_name_that_is_restored_during_a_listing_keeps_its_file(
    storage: Memory, folders: Folders, tmp_path: Path
) -> None:
    filename, content = make_wheel()
    file = make_file(filename, content)

    class Restored(MemoryStorage):
        def list_files(self) -> Iterator[StoredFile | Unlisted]:
            edit(storage, folders, restore=[file])
            return super().list_files()

    publish(storage, filename, content)
    edit(storage, folders, delete=[file])
    update(storage, folders, view=Restored)
    assert [stored.filename for stored in storage.open().list_files()] == [filename]
    assert [entry.file.filename for entry in document(storage, tmp_path).entries] == [filename]


def test_a_killed_import_goes_on_where_it_was(
    storage: Memory, folders: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("private_pypi.index.rebuilding._CHECKPOINT", 0.0)
    monkeypatch.setattr("private_pypi.index.rebuilding._REST", 0)
    monkeypatch.setattr("private_pypi.index.readers._THREADS", 1)

    class DiesAfterTwelve(MemoryStorage):
        def open_file(self, file: FileHandle) -> Download:
            if storage.calls["open_file"] == 12:
                raise BackendUnavailable("killed")
            return super().open_file(file)

    for number in range(20):
        storage.drop(*make_wheel(version=f"{number}.0"))
    with pytest.raises(BackendUnavailable, match="killed"):
        update(storage, folders, view=DiesAfterTwelve)
    partial = document(storage, tmp_path)
    assert partial.mtime == 0  # it is of no whole listing
    assert len(partial.entries) >= 8
    opened = storage.calls["open_file"]
    result = update(storage, folders)
    assert storage.calls["open_file"] - opened == 20 - len(partial.entries)
    assert str(result) == (
        f"mine: {20 - len(partial.entries)} added, 0 removed, {len(partial.entries)} unchanged"
    )
    assert document(storage, tmp_path).mtime > 0


def test_progress_is_told(storage: Memory, folders: Folders) -> None:
    storage.drop(*make_wheel())
    told: list[tuple[int, int | None, str]] = []
    update_index(
        storage.open(),
        backend_type="memory",
        name="mine",
        folder=folders.tmp,
        progress=lambda *step: told.append(step),
    )
    assert told == [(1, None, "listing"), (1, 1, "examining")]


def interrupting(then: Callable[[], object]) -> type[MemoryStorage]:
    """A backend under which somebody does something between our first read and our write."""
    todo = [then]

    class Interrupted(MemoryStorage):
        def write_index(self, content: Path, replaces: str) -> str:
            if todo:
                todo.pop()()
            return super().write_index(content, replaces)

    return Interrupted


def test_a_yank_and_a_delete_during_an_update_are_kept(
    storage: Memory, folders: Folders, tmp_path: Path
) -> None:
    one, two, three = (make_wheel(version=f"{number}.0") for number in (1, 2, 3))
    publish(storage, *one)
    publish(storage, *two)
    update(storage, folders)
    publish(storage, *three)

    def meanwhile() -> None:
        edit(storage, folders, yank={one[0]: "bad"}, delete=[make_file(*two)])

    update(storage, folders, view=interrupting(meanwhile))
    found = document(storage, tmp_path)
    assert {entry.file.filename: entry.file.yanked for entry in found.entries} == {
        one[0]: "bad",
        three[0]: None,
    }
    assert [name.filename for name in found.deleted] == [two[0]]


def test_what_another_writer_added_since_is_kept(
    storage: Memory, folders: Folders, tmp_path: Path
) -> None:
    publish(storage, *make_wheel())
    late = make_wheel(version="2.0")

    def meanwhile() -> None:
        publish(storage, *late)
        edit(storage, folders, yank={late[0]: ""}, files=[make_file(*late)])

    update(storage, folders, view=interrupting(meanwhile))
    assert {
        entry.file.filename: entry.file.yanked for entry in document(storage, tmp_path).entries
    } == {"demo-1.0-py3-none-any.whl": None, late[0]: ""}


def test_who_is_always_too_late_is_told(
    storage: Memory, folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("private_pypi.index.stored_document._ATTEMPTS", 3)
    publish(storage, *make_wheel())
    storage.fail_next("write_index", StaleIndex("too late"), times=3)
    with pytest.raises(StaleIndex):
        update(storage, folders)
    assert storage.calls["write_index"] == 3


# -- fetching ------------------------------------------------------------------------------------


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[tuple[str, list[str | None]]]:
    """A server elsewhere that has one wheel; and the credentials that it was given."""
    seen: list[str | None] = []
    _, content = make_wheel()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.headers["Authorization"])
            self.send_response(200 if "signed=ok" in self.path else 403)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/x", seen
        server.shutdown()
        thread.join()


def elsewhere(url: str) -> type[MemoryStorage]:
    class Elsewhere(MemoryStorage):
        def open_file(self, file: FileHandle) -> Download:
            return Redirect(url, None)

    return Elsewhere


def test_a_file_that_is_elsewhere_is_fetched(
    storage: Memory,
    folders: Folders,
    shop: tuple[str, list[str | None]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password secret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    url, credentials = shop
    filename, content = make_wheel()
    storage.drop(filename, content)
    update(storage, folders, view=elsewhere(f"{url}?signed=ok"))
    [entry] = document(storage, tmp_path).entries
    assert entry.file.sha256 == hashlib.sha256(content).hexdigest()
    assert credentials == [None]
    assert list(folders.tmp.iterdir()) == []


def test_a_refused_fetch_does_not_show_the_signed_address(
    storage: Memory, folders: Folders, shop: tuple[str, list[str | None]]
) -> None:
    storage.drop(*make_wheel())
    with pytest.raises(BackendUnavailable, match="answered 403") as caught:
        update(storage, folders, view=elsewhere(f"{shop[0]}?signed=no"))
    assert "signed" not in str(caught.value)
    with pytest.raises(BackendUnavailable, match="did not arrive") as caught:
        update(storage, folders, view=elsewhere("http://127.0.0.1:1/?signed=no"))
    assert "signed" not in str(caught.value)


# -- edit_index ----------------------------------------------------------------------------------


def test_an_edit_is_no_listing(storage: Memory, folders: Folders, tmp_path: Path) -> None:
    entry = new_entry(make_file("demo-1.0.tar.gz"), stamp="1")
    put_document(storage, tmp_path, IndexDocument(mtime=77, entries=(entry,)))
    edit(storage, folders, yank={"demo-1.0.tar.gz": ""})
    assert document(storage, tmp_path) == IndexDocument(
        mtime=77, entries=(replace(entry, file=replace(entry.file, yanked="")),)
    )


def test_an_edit_that_changes_nothing_writes_nothing(
    storage: Memory, folders: Folders, tmp_path: Path
) -> None:
    entry = new_entry(make_file("demo-1.0.tar.gz", yanked="x"), stamp="1")
    revision = put_document(storage, tmp_path, IndexDocument(mtime=1, entries=(entry,)))
    assert edit(storage, folders, yank={"demo-1.0.tar.gz": "x"}) == revision
    assert storage.calls["write_index"] == 1


def test_eight_editors_at_once_all_have_their_way(
    storage: Memory, folders: Folders, tmp_path: Path
) -> None:
    files = [make_file(f"demo-{number}.0.tar.gz") for number in range(8)]
    # Four share a ROOT and its lock, the others have nothing but the storage in common.
    roots = [folders] * 4
    for number in range(4):
        lock = tmp_path / f"lock{number}"
        lock.mkdir()
        roots.append(replace(folders, lock=lock))
    threads = [
        threading.Thread(
            target=edit,
            args=(storage, root),
            kwargs={"yank": {file.filename: "bad"}, "files": [file]},
        )
        for file, root in zip(files, roots, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {e.file.filename: e.file.yanked for e in document(storage, tmp_path).entries} == {
        file.filename: "bad" for file in files
    }


def test_a_large_document_is_edited_in_a_child_process(
    storage: Memory, folders: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [make_file(f"demo-{number}.0.tar.gz") for number in range(2000)]
    before = IndexDocument(mtime=3, entries=tuple(new_entry(file, stamp="1") for file in files))
    put_document(storage, tmp_path, before)

    def not_here(*_: object, **__: object) -> None:
        raise AssertionError("a large document is edited in the serving process")

    monkeypatch.setattr("private_pypi.index.child.read_document", not_here)
    edit(storage, folders, yank={"demo-7.0.tar.gz": "b\u00e4d"}, delete=[files[8]])
    found = document(storage, tmp_path)
    assert len(found.entries) == 1999
    assert [e.file.filename for e in found.entries if e.file.yanked == "b\u00e4d"] == [
        "demo-7.0.tar.gz"
    ]
    assert [name.filename for name in found.deleted] == ["demo-8.0.tar.gz"]


HOSTILE_DOCUMENTS = {
    "nested too deeply": "mtime = 1\npkgs = []\nx = " + "[" * 3000 + "]" * 3000,
    "a number or a time that is out of range": f"mtime = {'9' * 5000}\npkgs = []\n",
    "is not a time in unix seconds": f"mtime = {2**63}\npkgs = []\n",
    "more than 573 MiB of memory": "mtime = 1\npkgs = []\n"
    + "".join(f"k{number}.{'a.' * 998}a = 1\n" for number in range(1000)),
}


@pytest.mark.parametrize(
    ("sentence", "text"), HOSTILE_DOCUMENTS.items(), ids=range(len(HOSTILE_DOCUMENTS))
)
@pytest.mark.needs("time")
def test_a_hostile_document_is_an_invalid_index_wherever_it_is_read(
    storage: Memory, folders: Folders, tmp_path: Path, sentence: str, text: str
) -> None:
    file = make_file("demo-1.0.tar.gz")
    path = tmp_path / "hostile.toml"
    path.write_text(text)
    storage.open().write_index(path, NO_INDEX)
    with pytest.raises(InvalidIndex, match=sentence):
        edit(storage, folders, yank={file.filename: "bad"}, files=[file])
    if len(text) < 2**20:  # it takes seconds, and commands read it in a process of their own
        with pytest.raises(InvalidIndex, match=sentence):
            index_child.stage(path, tmp_path / "scratch.sqlite", location_key="location")
        with pytest.raises(InvalidIndex, match=sentence):
            edit(storage, folders, delete=[file])
        with pytest.raises(InvalidIndex, match=sentence):
            update(storage, folders)


def test_the_first_edit_makes_the_document(
    storage: Memory, folders: Folders, tmp_path: Path
) -> None:
    edit(storage, folders, delete=[make_file("demo-1.0.tar.gz")])
    found = document(storage, tmp_path)
    assert replace(found, deleted=()) == replace(EMPTY, former_projects=(DEMO,))
    assert found.deleted[0].filename == "demo-1.0.tar.gz"
