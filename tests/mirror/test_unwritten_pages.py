"""Pages of a mirror that nobody asked for before: answered first, written a moment later."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from private_pypi.errors import StorageFull
from private_pypi.index.mirrored import MirroredIndex, PageState
from private_pypi.repositories import unwritten_pages
from private_pypi.testing.distributions import make_sdist, make_wheel
from private_pypi.web import HOT_PATH, create_app
from tests.mirror.mirrors import PYPI, Asking, Clock, Mirrored, cached
from tests.mirror.upstream import HTML, JSON, Upstream
from tests.waiting import eventually
from tests.web.serving.servers import Server

WHEEL, SDIST = make_wheel("demo", "1.0"), make_sdist("demo", "0.9")


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is written by itself."""
    monkeypatch.setattr(unwritten_pages, "_PAUSE", 3600)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path)
    yield made
    made.end()


def on_disk(asking: Asking, project: str = "demo") -> PageState | None:
    return asking.mirror.index.page(project)


def test_a_page_is_the_same_before_and_after_it_is_written(
    index: Upstream, mirrored: Mirrored
) -> None:
    index.add(*WHEEL)
    index.add(*SDIST)
    asking = mirrored()
    first = asking.page()
    eventually(lambda: on_disk(asking) is not None)
    second = asking.page()
    assert second.data == first.data
    assert second.headers["ETag"] == first.headers["ETag"]
    assert second.headers["X-PyPI-Last-Serial"] == first.headers["X-PyPI-Last-Serial"]
    assert index.count("page") == 1
    assert asking.mirror.serial() >= int(first.headers["X-PyPI-Last-Serial"])


@pytest.mark.usefixtures("slow")
def test_everything_is_answered_before_anything_is_written(
    index: Upstream, mirrored: Mirrored
) -> None:
    index.add(*WHEEL)
    index.add("demo-odd.zip.txt", b"no distribution file", project="demo")
    asking = mirrored()
    assert list(asking.files()) == [WHEEL[0]]
    assert asking.file(WHEEL[0]).data == WHEEL[1]
    assert asking.file(WHEEL[0] + ".metadata").status_code == 200
    assert asking.file("demo-7.0.tar.gz").status_code == 404
    assert asking.page("absent").status_code == 404
    assert (on_disk(asking), on_disk(asking, "absent")) == (None, None)
    assert index.count("page") == 2
    # It is asked for what the page lists besides, so it has to be written before.
    assert WHEEL[0] in asking.get("explain/demo").text
    assert on_disk(asking) is not None


@pytest.mark.usefixtures("slow")
def test_a_hash_that_was_learned_is_on_the_disk_before_the_file_is_whole(
    index: Upstream, mirrored: Mirrored
) -> None:
    """Also if the page was not written before: else other bytes could take the file's name."""
    index.add(*SDIST, hashes={})
    asking = mirrored()
    assert asking.file(SDIST[0]).data == SDIST[1]
    again = MirroredIndex(asking.mirror.index._path, identity=asking.mirror.index._identity)
    learned = again.file("demo", SDIST[0])
    again.close()
    assert learned is not None
    assert learned.sha256 is not None


@pytest.mark.usefixtures("slow")
def test_what_was_not_written_is_written_at_the_end(index: Upstream, mirrored: Mirrored) -> None:
    index.add(*WHEEL)
    asking = mirrored()
    assert asking.page().status_code == 200
    assert on_disk(asking) is None
    asking.mirror.close()
    assert on_disk(asking) is not None


@pytest.mark.usefixtures("slow")
def test_few_pages_wait_to_be_written(
    index: Upstream, mirrored: Mirrored, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unwritten_pages, "_MOST_WAITING", 10)
    for number in range(8):
        index.add(*make_wheel(f"p{number}", "1.0"))
    asking = mirrored()
    for number in range(8):
        assert asking.page(f"p{number}").status_code == 200
    written = [on_disk(asking, f"p{number}") is not None for number in range(8)]
    assert written == [True] * 6 + [False] * 2


@pytest.mark.parametrize("error", [StorageFull("full"), OverflowError("a number too large")])
def test_what_cannot_be_written_stays_in_memory(
    index: Upstream,
    mirrored: Mirrored,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
) -> None:
    index.add(*WHEEL)
    asking = mirrored()

    def fail(*arguments: object, **named: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(MirroredIndex, "take_page", fail)
        first = asking.page()
        asking.mirror._pages.write()
        assert asking.page().data == first.data
        assert index.count("page") == 1
    assert on_disk(asking) is None
    clock.go(3601)
    assert list(asking.files()) == [WHEEL[0]]
    eventually(lambda: on_disk(asking) is not None)


def test_a_page_of_a_file_that_was_known_before_is_not_new(
    index: Upstream, mirrored: Mirrored
) -> None:
    """Its learned hash counts, although the page itself was forgotten."""
    index.add(*SDIST, hashes={})
    asking = mirrored()
    assert asking.file(SDIST[0]).status_code == 200
    known = asking.files()[SDIST[0]]["hashes"]
    assert list(known) == ["sha256"]
    with asking.mirror.index.transaction() as connection:
        connection.execute("DELETE FROM pages")
    assert asking.files()[SDIST[0]]["hashes"] == known
    index.add(SDIST[0], make_sdist("demo", "0.9", files={"other": b"bytes"})[1], hashes={})
    for path in cached(asking.deployment.root):
        path.unlink()
    assert asking.file(SDIST[0]).status_code == 502


# -- through a server ----------------------------------------------------------------------------


def served(asking: Asking, server: Server) -> Server:
    app = create_app(asking.deployment)
    return server.start(app, at_once=app.extensions[HOT_PATH].at_once)


def get(server: Server, path: str, accept: str = JSON) -> tuple[int, bytes]:
    client = server.client()
    client.request("GET", f"/r/pypi/simple/{path}", headers={**PYPI, "Accept": accept})
    response = client.getresponse()
    found = response.status, response.read()
    client.close()
    return found


def names(page: bytes) -> list[str]:
    return [file["filename"] for file in json.loads(page)["files"]]


def test_many_who_wait_for_one_page_get_it(
    index: Upstream, mirrored: Mirrored, server: Server
) -> None:
    index.add(*WHEEL)
    served(mirrored(), server)
    together = threading.Barrier(20)

    def ask(_: int) -> tuple[int, bytes]:
        together.wait()
        return get(server, "demo/")

    with ThreadPoolExecutor(20) as pool:
        answers = set(pool.map(ask, range(20)))
    ((status, page),) = answers
    assert (status, names(page)) == (200, [WHEEL[0]])
    assert index.count("page") == 1


def test_absence_and_trouble_are_answered_after_a_wait_too(
    index: Upstream, mirrored: Mirrored, server: Server
) -> None:
    index.add(*WHEEL)
    served(mirrored(), server)
    assert get(server, "absent/")[0] == 404
    index.fail("page", "502")
    assert get(server, "demo/")[0] == 503
    assert index.count("page") == 2


# -- what is fetched ahead -----------------------------------------------------------------------


def test_the_core_metadata_of_the_newest_release_are_fetched_ahead(
    index: Upstream, mirrored: Mirrored, server: Server
) -> None:
    for version in ("1.0", "2.0", "3.0rc1"):
        index.add(*make_wheel("demo", version))
    served(mirrored(), server)
    assert get(server, "demo/")[0] == 200
    eventually(lambda: index.count("metadata") == 1)
    wanted, _ = make_wheel("demo", "2.0")
    assert index.lines()[-1].endswith(f"{wanted}.metadata")
    assert b"Version: 2.0" in get(server, f"demo/{wanted}.metadata")[1]
    assert get(server, "demo/")[0] == 200
    assert (index.count("page"), index.count("metadata"), index.count("file")) == (1, 1, 0)


@pytest.mark.parametrize(
    ("filename", "facts", "table", "accept"),
    [
        ("demo-1.0-py3-none-any.whl", {}, {}, HTML),
        ("demo-1.0-py3-none-any.whl", {}, {"deny": ["demo"]}, JSON),
        ("demo-1.0-py3-none-any.whl", {}, {"cooldown": "7000 days"}, JSON),
        ("demo-1.0-py3-none-any.whl", {"yanked": "broken"}, {}, JSON),
        ("demo-1.0.tar.gz", {}, {}, JSON),
    ],
    ids=["for a browser", "denied", "too young", "yanked", "an sdist"],
)
def test_nothing_else_is_fetched_ahead(
    index: Upstream,
    mirrored: Mirrored,
    server: Server,
    filename: str,
    facts: dict[str, object],
    table: dict[str, object],
    accept: str,
) -> None:
    make = make_sdist if filename.endswith(".gz") else make_wheel
    index.add(filename, make("demo", "1.0")[1])
    index.change(filename, **facts)
    asking = mirrored(**table)
    served(asking, server)
    assert get(server, "demo/", accept)[0] == 200
    asking.mirror._pages.write()
    assert asking.mirror.caches()["metadata"].fetching == 0
    assert index.count("metadata") == 0
