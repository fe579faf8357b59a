"""The local index of a mirror."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from packaging.utils import NormalizedName

from private_pypi.backend import UpstreamFile, UpstreamPage
from private_pypi.errors import BackendUnavailable
from private_pypi.index import mirrored as module
from private_pypi.index.identity import Identity
from private_pypi.index.mirrored import MirroredIndex, names_of_strangers
from private_pypi.model import ProjectStatus

DEMO = NormalizedName("demo")
WHEEL = "demo-1.0-py3-none-any.whl"


@pytest.fixture
def index(tmp_path: Path) -> Iterator[MirroredIndex]:
    made = MirroredIndex(tmp_path / "index.sqlite", identity="mirror")
    yield made
    made.close()


def upstream_file(filename: str = WHEEL, **facts: Any) -> UpstreamFile:
    return UpstreamFile(filename=filename, url=f"https://acme.example/{filename}", **facts)


def page(*files: UpstreamFile, **facts: Any) -> UpstreamPage:
    return UpstreamPage(files=files, **facts)


def serial(index: MirroredIndex) -> int:
    found = index.page(DEMO)
    assert found is not None
    return found.serial


# -- pages ---------------------------------------------------------------------------------------


def test_a_page_comes_back_as_it_was_given(index: MirroredIndex) -> None:
    uploaded = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
    index.take_page(
        DEMO,
        page(
            upstream_file(
                hashes={"sha256": "a" * 64, "md5": "b" * 32},
                size=7,
                uploaded_at=uploaded,
                requires_python=">=3.9",
                yanked="",
                core_metadata={"sha256": "c" * 64},
                provenance="https://acme.example/p",
            ),
            upstream_file("demo-0.9.tar.gz"),
            status=ProjectStatus("archived", "no time"),
            validator="etag",
        ),
        asked_at=5.0,
    )
    state = index.page(DEMO)
    assert state is not None
    assert (state.is_there, state.checked_at, state.validator) == (True, 5.0, "etag")
    assert state.status == ProjectStatus("archived", "no time")
    sdist, wheel = index.files(DEMO)
    assert (wheel.sha256, wheel.hashes, wheel.size) == ("a" * 64, {"md5": "b" * 32}, 7)
    assert (wheel.uploaded_at, wheel.requires_python, wheel.yanked) == (uploaded, ">=3.9", "")
    assert (wheel.core_metadata_sha256, wheel.has_upstream_metadata) == ("c" * 64, True)
    assert wheel.provenance == "https://acme.example/p"
    assert wheel.location == f"https://acme.example/{WHEEL}"
    assert (sdist.sha256, sdist.hashes, sdist.size, sdist.uploaded_at) == (None, {}, None, None)
    assert (sdist.yanked, sdist.offers_core_metadata, sdist.has_upstream_metadata) == (
        None,
        False,
        False,
    )
    assert index.file(DEMO, WHEEL) == wheel
    assert index.file(DEMO, "demo-7.tar.gz") is None
    assert index.page("other") is None


def test_the_serial_grows_with_changes_only(index: MirroredIndex) -> None:
    serials = []
    for files in (
        [upstream_file()],
        [upstream_file()],
        [upstream_file(yanked="")],
        [upstream_file(yanked="why")],
        [],
        [],
        [upstream_file("notes.txt")],
        [upstream_file("notes.txt")],
    ):
        index.take_page(DEMO, page(*files), asked_at=time.time())
        serials.append(serial(index))
    index.take_page(DEMO, page(status=ProjectStatus("archived")), asked_at=time.time())
    serials.append(serial(index))
    index.take_page(DEMO, None, asked_at=time.time())
    serials.append(serial(index))
    index.confirm_page(DEMO, asked_at=time.time())
    serials.append(serial(index))
    steps = [after - before for before, after in itertools.pairwise(serials)]
    assert steps == [0, 1, 1, 1, 0, 1, 0, 1, 1, 0]


def test_an_answer_to_an_earlier_question_is_ignored(index: MirroredIndex) -> None:
    now = time.time()
    index.take_page(DEMO, page(upstream_file()), asked_at=now - 5)
    index.take_page(DEMO, None, asked_at=now - 10)
    assert len(index.files(DEMO)) == 1
    state = index.page(DEMO)
    assert state is not None
    assert state.is_there
    # But not if the last one is of the future, because the clock was set back.
    index.take_page(DEMO, page(upstream_file()), asked_at=now + 1000)
    index.take_page(DEMO, page(), asked_at=now)
    assert index.files(DEMO) == []


def test_a_file_keeps_the_time_of_its_first_sight(index: MirroredIndex) -> None:
    index.take_page(DEMO, page(upstream_file()), asked_at=1)
    (before,) = index.files(DEMO)
    index.take_page(DEMO, page(upstream_file(yanked="")), asked_at=2)
    index.take_page(DEMO, None, asked_at=3)
    index.take_page(DEMO, page(upstream_file()), asked_at=4)
    (after,) = index.files(DEMO)
    assert after == before


def test_what_is_no_file_of_the_project_is_listed_with_the_reason(index: MirroredIndex) -> None:
    index.take_page(
        DEMO,
        page(
            upstream_file(),
            upstream_file(),
            upstream_file("other-1.0.tar.gz"),
            upstream_file("notes.txt"),
            upstream_file("demo-1.0.exe"),
        ),
        asked_at=1,
    )
    assert [file.filename for file in index.files(DEMO)] == [WHEEL]
    others = dict(index.others(DEMO))
    assert others.keys() == {"other-1.0.tar.gz", "notes.txt", "demo-1.0.exe"}
    assert "'other'" in others["other-1.0.tar.gz"]


def test_a_page_with_files_of_other_projects_only() -> None:
    stranger = upstream_file("other-1.0.tar.gz")
    assert names_of_strangers(DEMO, [stranger]) == ["other-1.0.tar.gz"]
    assert names_of_strangers(DEMO, [stranger, upstream_file()]) == []
    assert names_of_strangers(DEMO, [upstream_file("notes.txt")]) == []


def test_files_of_says_what_take_page_would_do_and_writes_nothing(index: MirroredIndex) -> None:
    index.take_page(DEMO, page(upstream_file()), asked_at=1)
    index.learn_file(index.files(DEMO)[0], "a" * 64, 7)
    before = index.serial(), index.files(DEMO)
    said = page(upstream_file("demo-2.0.tar.gz"), upstream_file(yanked="why"))
    expected = index.files_of(DEMO, said)
    assert (index.serial(), index.files(DEMO)) == before
    index.take_page(DEMO, said, asked_at=2)
    found = index.files(DEMO)
    assert found[0] == expected[0]
    assert [file.filename for file in found] == [file.filename for file in expected]
    assert found[0].sha256 == "a" * 64


# -- learning ------------------------------------------------------------------------------------


def test_the_first_hash_that_is_learned_counts(index: MirroredIndex) -> None:
    index.take_page(DEMO, page(upstream_file()), asked_at=1)
    (file,) = index.files(DEMO)
    before = serial(index)
    assert index.learn_file(file, "a" * 64, 7) == "a" * 64
    assert index.learn_file(file, "b" * 64, 8) == "a" * 64
    assert serial(index) > before
    (file,) = index.files(DEMO)
    assert (file.sha256, file.size) == ("a" * 64, 7)
    assert index.learn_metadata(file, "c" * 64, 9) == "c" * 64
    (file,) = index.files(DEMO)
    assert (file.core_metadata_sha256, file.size) == ("c" * 64, 7)


MD5, OTHER_MD5 = {"md5": "1" * 32}, {"md5": "2" * 32}


@pytest.mark.parametrize(
    ("first", "then", "sha256", "metadata"),
    [
        ({}, {}, "a", "c"),
        ({}, {"yanked": "why"}, "a", "c"),
        ({"hashes": MD5}, {"hashes": MD5}, "a", "c"),
        ({"hashes": MD5}, {"hashes": OTHER_MD5}, None, None),
        # If they are left out for a while, what was learned goes on to count.
        ({"hashes": MD5}, {}, "a", None),
        ({}, {"hashes": MD5}, "a", None),
        # The upstream's own word comes first.
        ({}, {"hashes": {"sha256": "d" * 64}}, "d", None),
        ({}, {"core_metadata": {"sha256": "e" * 64}}, "a", "e"),
    ],
)
def test_what_was_learned_of_other_bytes_does_not_count(
    index: MirroredIndex,
    first: dict[str, Any],
    then: dict[str, Any],
    sha256: str | None,
    metadata: str | None,
) -> None:
    index.take_page(DEMO, page(upstream_file(**first)), asked_at=1)
    (file,) = index.files(DEMO)
    index.learn_file(file, "a" * 64, 7)
    index.learn_metadata(file, "c" * 64, 9)
    index.take_page(DEMO, page(upstream_file(**then)), asked_at=2)
    (file,) = index.files(DEMO)
    assert file.sha256 == (None if sha256 is None else sha256 * 64)
    assert file.core_metadata_sha256 == (None if metadata is None else metadata * 64)
    assert file.size == (7 if sha256 == "a" else file.size)
    assert file.offers_core_metadata  # of a wheel always


def test_nothing_is_learned_of_a_file_that_is_gone(index: MirroredIndex) -> None:
    index.take_page(DEMO, page(upstream_file()), asked_at=1)
    (file,) = index.files(DEMO)
    index.take_page(DEMO, page(), asked_at=2)
    assert index.learn_file(file, "a" * 64, 7) == "a" * 64
    assert index.files(DEMO) == []


# -- the list of projects ------------------------------------------------------------------------


def test_names_are_normalised_ordered_and_unique(
    index: MirroredIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_BATCH", 3)
    assert index.names_state().generation is None
    assert list(index.names()) == []
    given = ["b", "A", "a", "Zope.Interface", "-bad", "", "b<", "x" * 90, *"cdefgh"]
    index.take_names(given, "etag", asked_at=5.0)
    names = ["a", "b", *"cdefgh", "x" * 90, "zope-interface"]
    assert list(index.names()) == names
    state = index.names_state()
    assert (state.validator, state.checked_at, state.count) == ("etag", 5.0, len(names))
    assert index.has_name("zope-interface")
    assert not index.has_name("bad")
    assert index.names_among(["a", "q", "h"]) == {"a", "h"}
    index.confirm_names(asked_at=6.0)
    assert index.names_state().checked_at == 6.0
    assert index.names_state().generation == state.generation


def test_a_list_that_breaks_off_leaves_the_old_one(
    index: MirroredIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_BATCH", 3)
    index.take_names("abc", "", asked_at=1.0)

    def broken() -> Iterator[str]:
        yield from "defghi"
        raise BackendUnavailable("cut")

    with pytest.raises(BackendUnavailable, match="cut"):
        index.take_names(broken(), "", asked_at=2.0)
    assert list(index.names()) == ["a", "b", "c"]
    assert index.search(["d"], limit=9, offset=0) == (0, [])
    index.take_names("xyz", "", asked_at=3.0)
    assert index._first("SELECT count(*) FROM names") == (3,)  # what was left of the others is gone


def test_searching(index: MirroredIndex) -> None:
    index.take_names(["demo", "demo-one", "my-demo", "other", "one"], "", asked_at=1.0)

    def search(*words: str, **more: Any) -> tuple[int, list[NormalizedName]]:
        return index.search(words, **{"limit": 9, "offset": 0, **more})

    assert search("demo") == (3, ["demo", "demo-one", "my-demo"])
    assert search("ONE", "demo") == (1, ["demo-one"])
    assert search("demo", limit=1, offset=1) == (3, ["demo-one"])
    assert search() == (5, ["demo", "demo-one", "my-demo", "one", "other"])
    assert search("100%_") == (0, [])
    assert search(only=["demo*", "o[nx]e"]) == (3, ["demo", "demo-one", "one"])
    assert search("demo", without=["*-[!d]*"]) == (2, ["demo", "my-demo"])
    assert search(only=["?*"], without=["*"]) == (0, [])


# -- the file ------------------------------------------------------------------------------------


def test_another_upstream_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "index.sqlite"
    one = MirroredIndex(path, identity=Identity("mirror", {"index_url": "https://one.example/"}))
    one.take_page(DEMO, page(upstream_file()), asked_at=1)
    first = serial(one)
    one.close()
    same = MirroredIndex(path, identity=Identity("mirror", {"index_url": "https://one.example/"}))
    assert len(same.files(DEMO)) == 1
    same.close()
    two = MirroredIndex(path, identity=Identity("mirror", {"index_url": "https://two.example/"}))
    assert two.page(DEMO) is None
    assert two.files(DEMO) == []
    two.take_page(DEMO, page(upstream_file()), asked_at=1)
    assert serial(two) > first
    two.close()
