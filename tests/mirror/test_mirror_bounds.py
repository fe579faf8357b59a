"""What strangers can make a mirror do: fill its disk, or ask its upstream."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from private_pypi.backend import upstream as settings
from private_pypi.index import forgotten
from private_pypi.repositories import mirrored_pages
from private_pypi.storage.token_bucket import TokenBucket
from private_pypi.testing.distributions import make_wheel
from private_pypi_mirror import IndexMirrorSettings
from tests.mirror.mirrors import Asking, Clock, Mirrored, forget_trouble, mirror_table
from tests.mirror.upstream import Project, Published, Upstream
from tests.waiting import eventually
from tests.web.conftest import Deploy

WHEEL = make_wheel("demo", "1.0")


def many(project: str) -> Project:
    """A project with 200 files, which need about 100 kB in the local index."""
    files = {
        filename: Published(
            filename=filename, content=b"", hashes={"sha256": f"{number:064}"}, size=7
        )
        for number in range(200)
        for filename in [f"{project.replace('-', '_')}-{number}.0-py3-none-any.whl"]
    }
    return Project(files=files)


# -- real projects ---------------------------------------------------------------------------------


@pytest.mark.parametrize("servers", [1, 2])
def test_whoever_asks_for_every_real_project_does_not_fill_the_disk(
    index: Upstream,
    deploy: Deploy,
    monkeypatch: pytest.MonkeyPatch,
    clock: Clock,
    servers: int,
) -> None:
    monkeypatch.setattr(settings, "LEAST_INDEX_BYTES", 0)
    monkeypatch.setattr(forgotten, "NEWEST", 2)
    most = 600_000
    index.add(*WHEEL)
    for number in range(20):
        index.projects[f"real-{number}"] = many(f"real-{number}")
    config = mirror_table(
        index.index_url, anonymous_read=True, index_bytes=most, sync_index_interval=1
    )
    asking = [Asking(deploy(config)) for _ in range(servers)]
    for number in range(20):
        clock.go(2)
        assert asking[number % servers].page().status_code == 200  # in use all the time
        assert len(asking[-1].files(f"real-{number}")) == 200
    mirrored = asking[0].mirror.index
    eventually(lambda: not mirrored.is_larger_than(most), "old pages are removed")
    assert mirrored.page("demo") is not None
    assert mirrored.page("real-0") is None
    assert len(asking[0].files("real-0")) == 200  # asked for again


def test_a_page_that_is_removed_while_the_upstream_says_that_it_is_the_same(
    index: Upstream, mirrored: Mirrored, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.add(*WHEEL)
    asking = mirrored()
    assert list(asking.files()) == [WHEEL[0]]
    clock.go(3601)
    of_mirror = asking.mirror.index
    confirm = of_mirror.confirm_page

    def confirm_too_late(project: str, *, asked_at: float) -> None:
        with of_mirror.transaction() as connection:
            forgotten.forget(connection, project)
        confirm(project, asked_at=asked_at)

    monkeypatch.setattr(of_mirror, "confirm_page", confirm_too_late)
    assert list(asking.files()) == [WHEEL[0]]
    assert [each.status for each in index.asked] == [200, 304, 200]


def test_an_index_that_is_too_small_for_the_list_is_refused() -> None:
    with pytest.raises(ValueError, match="index_bytes: must be at least 134217728"):
        IndexMirrorSettings(name="pypi", max_file_bytes=1, index_bytes=2**20)


# -- names that are made up ------------------------------------------------------------------------


@pytest.fixture
def stingy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three names that nobody knows may be asked for, and a fourth one after 1000 seconds."""
    forget_trouble(monkeypatch)
    monkeypatch.setattr(mirrored_pages, "_MOST_UNKNOWN", 3)
    monkeypatch.setattr(mirrored_pages, "_UNKNOWN_PER_SECOND", 0.001)


def exhaust(asking: Asking) -> None:
    for number in range(3):
        assert asking.page(f"made-up-{number}").status_code == 404


@pytest.mark.usefixtures("stingy")
def test_who_makes_up_names_cannot_have_the_upstream_flooded(
    index: Upstream, mirrored: Mirrored, clock: Clock
) -> None:
    index.has_list = False
    for number in range(6):
        index.add(*make_wheel(f"real-{number}", "1.0"))
    asking = mirrored(anonymous_read=True)
    for number in range(5):  # those that are found do not count
        assert list(asking.files(f"real-{number}"))
    exhaust(asking)
    index.forget()
    refused = asking.page("made-up-3")
    assert refused.status_code == 503
    assert 900 < int(refused.headers["Retry-After"]) <= 1000
    assert "is not known to have" in refused.text
    assert "made-up-3" in refused.text
    assert asking.page("made-up-0").status_code == 404  # that is known
    assert index.count("page") == 0
    # What is known is revalidated as before, and so are its files.
    clock.go(3601)
    assert list(asking.files("real-0"))
    assert asking.file("real_0-1.0-py3-none-any.whl", "real-0").status_code == 200
    assert [each.project for each in index.asked if each.kind == "page"] == ["real-0"]
    # An absence that is too old is a question like the others, and not believed for longer.
    assert asking.page("made-up-0").status_code == 503


@pytest.mark.usefixtures("stingy")
def test_the_list_of_projects_tells_real_names_from_those_that_are_made_up(
    index: Upstream, mirrored: Mirrored
) -> None:
    for number in range(6):
        index.add(*make_wheel(f"real-{number}", "1.0"))
    asking = mirrored(anonymous_read=True)
    exhaust(asking)
    assert asking.page("made-up-3").status_code == 503
    eventually(lambda: asking.mirror.index.has_name("real-0"), "the list is read")
    index.forget()
    for number in range(6):
        assert list(asking.files(f"real-{number}"))
    assert asking.page("made-up-3").status_code == 503
    assert index.count("page") == 6


@pytest.mark.usefixtures("stingy")
def test_trouble_counts_as_a_question(index: Upstream, mirrored: Mirrored) -> None:
    index.fail("page", "502")
    asking = mirrored()
    statuses = [asking.page(f"made-up-{number}").status_code for number in range(5)]
    assert statuses[3:] == [503, 503]
    assert index.count("page") == 3


@pytest.mark.parametrize("is_public", [True, False])
def test_a_fresh_list_of_the_public_index_shows_that_a_project_is_absent(
    index: Upstream,
    mirrored: Mirrored,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    is_public: bool,
) -> None:
    """The lists of other indexes, such as caches, may lack projects that they have."""
    monkeypatch.setattr(IndexMirrorSettings, "reads_public_index", property(lambda _: is_public))
    index.add(*WHEEL)
    asking = mirrored(sync_index_interval=600)
    assert asking.projects() == ["demo"]
    index.forget()
    for path in ("simple/missing/", "simple/missing/missing-1.0.tar.gz", "explain/missing"):
        assert asking.get(path).status_code == (200 if path.startswith("explain") else 404)
    assert index.count("page") == (0 if is_public else 1)
    assert list(asking.files()) == [WHEEL[0]]
    # A list that is older than a page may be shows nothing.
    clock.go(601)
    index.add(*make_wheel("missing", "1.0"))
    assert len(asking.files("missing")) == 1


def test_tokens_come_back_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    clock: Callable[[], float] = lambda: now  # noqa: E731
    monkeypatch.setattr(time, "monotonic", clock)
    bucket = TokenBucket(2, per_second=0.5)
    assert [bucket.take() for _ in range(3)] == [0.0, 0.0, pytest.approx(2.0)]
    now += 1.5
    assert bucket.take() == pytest.approx(0.5)
    now += 0.5
    assert [bucket.take() for _ in range(2)] == [0.0, pytest.approx(2.0)]
    bucket.give_back()
    assert bucket.take() == 0.0
    now += 1000
    assert [bucket.take() for _ in range(3)] == [0.0, 0.0, pytest.approx(2.0)]


@pytest.mark.usefixtures("stingy")
def test_a_folder_is_asked_about_any_number_of_names(mirrored: Mirrored, tmp_path: Path) -> None:
    page = tmp_path / "simple" / "demo" / "index.html"
    page.parent.mkdir(parents=True)
    page.write_text('<title>Links for demo</title><a href="demo-1.0.zip">demo-1.0.zip</a></html>')
    asking = mirrored((tmp_path / "simple").as_uri())
    assert {asking.page(f"made-up-{number}").status_code for number in range(6)} == {404}
    assert list(asking.files()) == ["demo-1.0.zip"]
