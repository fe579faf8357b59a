"""`update_index` of very many files: in little memory, and going on after a kill."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.many_objects import ManyObjects, ManyObjectsBackend, folders_of, update
from private_pypi.backend import Secret, object_listing
from private_pypi.index.document import IndexEdit
from private_pypi.index.document_reader import read_document
from private_pypi.index.stored_document import edit_index
from tests.files import make_file

CHECKOUT = Path(__file__).parents[2]
FILES = 400  # 1200 objects

KILLED = """
import os, signal, sys, time
from pathlib import Path
from benchmarks.many_objects import ManyObjects, update
from private_pypi.backend import object_listing
object_listing._SHORT, object_listing._PARTS = 10, 8
root, files, pages = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
store = ManyObjects(files, root.parent / "index.toml")
def after_page():
    if store.pages == pages:
        time.sleep(1)  # the parts are listed at the same time: meanwhile others are finished
        os.kill(os.getpid(), signal.SIGKILL)
store.after_page = after_page
store.delay = 0.05
update(root, store)
"""

MEASURED = """
import resource, sys
from pathlib import Path
from benchmarks.many_objects import ManyObjects, update
root, files = Path(sys.argv[1]), int(sys.argv[2])
for _ in range(2):
    print(update(root, ManyObjects(files, root.parent / "index.toml")))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def run(program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture
def killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a server in which an update was killed in the middle of the listing."""
    monkeypatch.setattr(object_listing, "_SHORT", 10)
    monkeypatch.setattr(object_listing, "_PARTS", 8)
    root = tmp_path / "root"
    root.mkdir()
    ended = run(KILLED, root, FILES, 7)  # one page to divide the listing, and one of each part
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    return root


def many(tmp_path: Path) -> ManyObjects:
    return ManyObjects(FILES, tmp_path / "index.toml")


def pages_of_a_whole_listing(tmp_path: Path) -> int:
    store = many(tmp_path)
    update(tmp_path / "other", store)
    return store.pages


def test_a_killed_listing_goes_on_where_it_was(killed: Path, tmp_path: Path) -> None:
    between = int(time.time())
    time.sleep(1.1)
    store = many(tmp_path)
    assert str(update(killed, store)) == f"many: {FILES} added, 0 removed, 0 unchanged"
    assert 1 <= store.pages < 8
    # The document is as old as the oldest part of its listing: servers look for newer files.
    found, problems = read_document(store.index, location_key="location")
    assert (len(found.entries), problems) == (FILES, ())
    assert found.mtime <= between
    # What is done is not used again.
    again = many(tmp_path)
    assert str(update(killed, again)) == f"many: 0 added, 0 removed, {FILES} unchanged"
    assert again.pages == pages_of_a_whole_listing(tmp_path)


def test_a_listing_that_is_older_than_the_document_is_not_used(
    killed: Path, tmp_path: Path
) -> None:
    whole = pages_of_a_whole_listing(tmp_path)  # this writes the document
    store = many(tmp_path)
    assert str(update(killed, store)) == f"many: 0 added, 0 removed, {FILES} unchanged"
    assert store.pages == whole


def test_what_was_edited_after_the_kill_is_kept(killed: Path, tmp_path: Path) -> None:
    late = make_file("late-1.0.tar.gz")
    store = many(tmp_path)
    storage = ManyObjectsBackend(store, folders_of(tmp_path / "other")).seen_with(Secret("write"))
    edit = IndexEdit(files=[late], yank={late.filename: "bad"})
    edit_index(storage, edit, backend_type="many")
    assert update(killed, store).added == FILES + 1
    found, _ = read_document(store.index, location_key="location")
    assert {e.file.filename: e.file.yanked for e in found.entries if e.file.yanked} == {
        late.filename: "bad"
    }


def test_a_damaged_listing_is_begun_again(killed: Path, tmp_path: Path) -> None:
    [kept] = (killed / "cache").glob("*.sqlite")
    kept.write_bytes(b"no database" * 1000)
    assert update(killed, many(tmp_path)).added == FILES


@pytest.mark.needs("time")
def test_six_times_the_files_do_not_take_more_memory(tmp_path: Path) -> None:
    """Entries in memory would take three kilobytes each, 30 MiB together."""
    taken = {}
    for files in (2_000, 12_000):
        root = tmp_path / str(files) / "root"
        root.mkdir(parents=True)
        ended = run(MEASURED, root, files)
        first, second, memory = ended.stdout.splitlines()
        assert first == f"many: {files} added, 0 removed, 0 unchanged"
        assert second == f"many: 0 added, 0 removed, {files} unchanged"
        taken[files] = int(memory)
    assert taken[12_000] - taken[2_000] < 12
