"""Pages that are removed from the local index of a mirror, and what is kept of them."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from packaging.utils import NormalizedName

from private_pypi.backend import UpstreamFile, UpstreamPage
from private_pypi.index import forgotten
from private_pypi.index.mirrored import MirroredIndex

UPLOADED = datetime(2026, 1, 2, tzinfo=UTC)
PAGE = 100  # files


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MirroredIndex]:
    monkeypatch.setattr(forgotten, "NEWEST", 2)
    made = MirroredIndex(tmp_path / "index.sqlite", identity="mirror")
    yield made
    made.close()


def name(number: int) -> NormalizedName:
    return NormalizedName(f"project-{number:03}")


def page(project: str, *, count: int = PAGE, is_told: bool = True) -> UpstreamPage:
    """A page. `is_told`: the upstream gives hashes and upload times."""
    return UpstreamPage(
        files=[
            UpstreamFile(
                filename=f"{project.replace('-', '_')}-{number}.0-py3-none-any.whl",
                url=f"https://acme.example/files/{project}/{number}.whl",
                hashes={"sha256": f"{number:064}"} if is_told else {},
                uploaded_at=UPLOADED if is_told else None,
            )
            for number in range(count)
        ]
    )


def fill(index: MirroredIndex, count: int, *, is_told: bool = True) -> None:
    now = time.time()
    for number in range(count):
        index.take_page(
            name(number), page(name(number), is_told=is_told), asked_at=now - count + number
        )


def used(index: MirroredIndex) -> int:
    return forgotten.used_bytes(index.connection())


def known(index: MirroredIndex) -> list[str]:
    return [project for (project,) in index._all("SELECT project FROM pages ORDER BY project")]


def facts(index: MirroredIndex) -> int:
    return int(index._first("SELECT count(*) FROM facts")[0])


def test_the_pages_that_were_asked_for_longest_ago_go_first(index: MirroredIndex) -> None:
    index.take_names(["a", "b"], "", asked_at=time.time())
    fill(index, 30)
    index.confirm_page(name(0), asked_at=time.time())  # somebody uses it
    most = used(index) // 2
    before = index.serial()
    index.make_room(most)
    assert used(index) <= most
    left = known(index)
    assert left == [name(0), *(name(number) for number in range(31 - len(left), 30))]
    assert 8 < len(left) < 20
    assert len(index.files(name(29))) == PAGE
    assert index.files(name(1)) == index.others(name(1)) == []
    assert list(index.names()) == ["a", "b"]
    assert facts(index) == 0  # of these files, the upstream tells everything again
    index.take_page(name(1), page(name(1)), asked_at=time.time())
    state = index.page(name(1))
    assert state is not None
    assert state.serial > before  # a page that was rendered before is not taken for this one
    assert len(index.files(name(1))) == PAGE


def test_the_newest_pages_stay_and_a_call_ends_soon(
    index: MirroredIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("private_pypi.index.mirrored._MOST_REMOVED", 3)
    fill(index, 6)
    index.make_room(0)
    assert known(index) == [name(3), name(4), name(5)]
    index.make_room(0)
    assert known(index) == [name(4), name(5)]


def test_what_only_this_server_knew_is_kept(index: MirroredIndex) -> None:
    fill(index, 4, is_told=False)
    file = index.files(name(0))[0]
    index.learn_file(file, "a" * 64, 7)
    index.learn_metadata(file, "b" * 64, 9)
    before = index.files(name(0))
    index.make_room(0)
    assert known(index) == [name(2), name(3)]
    # Another file arrives whole after its page was removed.
    assert index.learn_file(before[1], "c" * 64, 8) == "c" * 64
    assert index.learn_file(file, "d" * 64, 7) == "a" * 64
    again = page(name(0), is_told=False)
    expected = index.files_of(name(0), again)
    assert facts(index) == 2 * PAGE  # nothing was written
    index.take_page(name(0), again, asked_at=time.time())
    after = index.files(name(0))
    assert after == expected
    assert after[0] == before[0]
    assert (after[1].sha256, after[1].size) == ("c" * 64, 8)
    assert [each.first_seen_at for each in after] == [each.first_seen_at for each in before]
    assert facts(index) == PAGE  # those of the other page


def test_other_bytes_count_as_a_new_file_after_a_page_was_removed(index: MirroredIndex) -> None:
    first = UpstreamFile(filename="demo-1.0.tar.gz", url="https://a/1", hashes={"sha256": "a" * 64})
    demo = NormalizedName("demo")
    index.take_page(demo, UpstreamPage(files=[first]), asked_at=1.0)
    (before,) = index.files(demo)
    fill(index, 2)
    index.make_room(0)
    other = UpstreamFile(filename="demo-1.0.tar.gz", url="https://a/1", hashes={"sha256": "b" * 64})
    index.take_page(demo, UpstreamPage(files=[other]), asked_at=2.0)
    (after,) = index.files(demo)
    assert after.first_seen_at > before.first_seen_at


def test_what_is_kept_is_limited_and_learned_hashes_are_not_removed(
    index: MirroredIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forgotten, "MOST_SIGHTS", PAGE)
    fill(index, 5, is_told=False)
    last = index.files(name(2))[5]
    index.learn_file(last, "a" * 64, 7)
    index.make_room(0)
    kept = index._all("SELECT project, filename FROM facts ORDER BY project, filename")
    assert len(kept) == PAGE + 1
    assert kept[-1] == (name(2), last.filename)
    assert {project for project, _ in kept[:-1]} == {name(0)}  # those that were seen first


def test_a_project_that_is_absent_leaves_no_files_behind(
    index: MirroredIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("private_pypi.index.mirrored._MOST_ABSENT", 1)
    fill(index, 3, is_told=False)
    now = time.time()
    for number in range(2):
        index.take_page(name(number), None, asked_at=now + number)
    assert known(index) == [name(1), name(2)]
    assert facts(index) == PAGE
    assert index.files(name(0)) == []
    assert len(index.files(name(1))) == PAGE


def test_a_file_of_an_earlier_version_is_completed(tmp_path: Path) -> None:
    path = tmp_path / "index.sqlite"
    old = MirroredIndex(path, identity="mirror")
    fill(old, 3)
    old.close()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.executescript("DROP TABLE facts; DROP INDEX pages_by_age;")
    new = MirroredIndex(path, identity="mirror")
    assert known(new) == [name(0), name(1), name(2)]
    new.make_room(0)
    assert len(new.files(name(2))) == PAGE
    new.close()


def test_readers_of_another_server_see_whole_pages_or_none(
    index: MirroredIndex, tmp_path: Path
) -> None:
    other = MirroredIndex(tmp_path / "index.sqlite", identity="mirror")
    fill(index, 3)
    is_over = threading.Event()
    seen: set[int] = set()

    def read() -> None:
        while not is_over.is_set():
            seen.update(len(other.files(name(number))) for number in range(3))
        other.close()

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for turn in range(30):
            index.make_room(0)
            number = turn % 3
            index.take_page(name(number), page(name(number)), asked_at=time.time())
    finally:
        is_over.set()
        reader.join()
    assert seen == {0, PAGE}
