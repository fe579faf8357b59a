"""Files and core metadata that the loop of a server begins to fetch, before any thread is asked."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from private_pypi.testing.distributions import make_sdist, make_wheel
from private_pypi.web import create_app
from private_pypi.web.serving import Answer
from tests.mirror.mirrors import PYPI, Asking, Clock, Mirrored, cached
from tests.mirror.test_mirror_policy import allow, audit
from tests.mirror.upstream import JSON, Upstream
from tests.waiting import eventually
from tests.web.conftest import sent_by_the_loop
from tests.web.serving.servers import Server

WHEEL, METADATA = make_wheel("demo", "1.0"), f"{make_wheel('demo', '1.0')[0]}.metadata"
SDIST = make_sdist("demo", "0.9")
LARGE = make_wheel("demo", "2.0", files={"large": bytes(range(256)) * 2000})


class Watched:
    """A server for a mirror, and what its application was asked: everything but its loop."""

    def __init__(self, asking: Asking, server: Server) -> None:
        self.asking = asking
        self.server = server
        self.asked: list[str] = []
        app = create_app(asking.deployment)

        def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
            self.asked.append(environ["PATH_INFO"].rpartition("/")[2])
            return app(environ, start_response)

        def at_once(environ: dict[str, Any]) -> Answer | None:
            return sent_by_the_loop(app, environ)

        server.start(application, at_once=at_once)

    def get(self, path: str, **headers: str) -> tuple[int, bytes, http.client.HTTPMessage]:
        client = self.server.client()
        client.request("GET", f"/r/pypi/simple/{path}", headers={**PYPI, **headers})
        response = client.getresponse()
        found = response.status, response.read(), response.headers
        client.close()
        return found

    def knows(self, project: str = "demo") -> Watched:
        """Have it know a page, without anything that is fetched ahead."""
        assert self.get(f"{project}/", Accept="text/html")[0] == 200
        self.asked.clear()
        return self


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path)
    yield made
    made.end()


@pytest.fixture
def watched(index: Upstream, mirrored: Mirrored, server: Server) -> Callable[..., Watched]:
    """Makes a server for a mirror of `index`, with these fields."""

    def make(**fields: object) -> Watched:
        for file in (WHEEL, SDIST, LARGE):
            index.add(*file)
        return Watched(mirrored(**fields), server)

    return make


@pytest.mark.parametrize("file", [WHEEL, SDIST, LARGE], ids=["a wheel", "an sdist", "a large one"])
def test_a_file_that_is_not_here_needs_no_thread_of_the_application(
    index: Upstream, watched: Callable[..., Watched], file: tuple[str, bytes]
) -> None:
    mirror = watched().knows()
    status, content, headers = mirror.get(f"demo/{file[0]}")
    assert (status, content) == (200, file[1])
    assert headers["Content-Length"] == str(len(file[1]))
    assert mirror.asked == []
    eventually(lambda: len(cached(mirror.asking.deployment.root)) == 1)
    assert mirror.get(f"demo/{file[0]}")[:2] == (200, file[1])
    assert mirror.asked == [file[0]]  # it is on the disk, which the loop does not read
    assert index.count("file") == 1


def test_core_metadata_that_are_not_here_need_no_thread_either(
    index: Upstream, watched: Callable[..., Watched]
) -> None:
    mirror = watched().knows()
    status, content, _ = mirror.get(f"demo/{METADATA}")
    assert (status, content.startswith(b"Metadata-Version")) == (200, True)
    assert (mirror.asked, index.count("metadata")) == ([], 1)


def test_core_metadata_that_were_fetched_ahead_are_in_memory_once(
    index: Upstream, watched: Callable[..., Watched]
) -> None:
    mirror = watched()
    index.remove(LARGE[0])
    assert mirror.get("demo/", Accept=JSON)[0] == 200
    caches = mirror.asking.mirror.caches()["metadata"]
    eventually(lambda: index.count("metadata") == 1 and caches.fetching == 0)
    mirror.asked.clear()
    first = mirror.get(f"demo/{METADATA}")
    assert mirror.asked == []
    assert mirror.get(f"demo/{METADATA}")[:2] == first[:2]
    assert mirror.asked == [METADATA]
    assert (index.count("metadata"), caches.hits, caches.misses) == (1, 2, 1)


@pytest.mark.parametrize(
    ("path", "headers", "expected"),
    [
        ("file", {"Range": "bytes=1000-1999"}, 206),
        ("file", {"Range": "bytes=100-"}, 206),
        ("file", {"Range": "bytes=99999999-"}, 416),
        ("file", {"If-None-Match": "*"}, 304),
        ("other", {}, 404),
    ],
)
def test_conditions_and_parts_are_what_the_application_answers(
    watched: Callable[..., Watched], path: str, headers: Mapping[str, str], expected: int
) -> None:
    mirror = watched().knows()
    name = LARGE[0] if path == "file" else "demo-9.9-py3-none-any.whl"
    status, content, found = mirror.get(f"demo/{name}", **headers)
    again = mirror.asking.file(name, **{k.replace("-", "_"): v for k, v in headers.items()})
    assert status == again.status_code == expected
    if expected != 404:
        assert content == again.data
        assert found["ETag"] == again.headers.get("ETag")
        assert found["Content-Range"] == again.headers.get("Content-Range")


@pytest.mark.parametrize(
    "table",
    [
        {"deny": ["demo==1.0"]},
        {"cooldown": "9000 days"},
        {"as_of": "2025-01-01"},
        {"only": ["other"]},
        {"except": ["demo"]},
    ],
    ids=lambda table: next(iter(table)),
)
def test_what_is_hidden_is_not_fetched(
    index: Upstream, watched: Callable[..., Watched], table: dict[str, object]
) -> None:
    mirror = watched(**table)
    mirror.get("demo/", Accept="text/html")
    for name in (WHEEL[0], METADATA):
        assert mirror.get(f"demo/{name}")[0] == 404
    assert index.count("file") == index.count("metadata") == 0


def test_an_allowance_that_the_loop_finds_is_audited(watched: Callable[..., Watched]) -> None:
    mirror = watched(cooldown="9000 days")
    allow(mirror.asking, version="1.0")
    mirror.get("demo/", Accept="text/html")
    assert mirror.get(f"demo/{WHEEL[0]}")[:2] == (200, WHEEL[1])
    assert [line["filename"] for line in audit(mirror.asking)] == [WHEEL[0]]


@pytest.mark.parametrize("kind", ["cut", "500", "other bytes"])
def test_trouble_is_answered_as_trouble(
    index: Upstream, watched: Callable[..., Watched], kind: str
) -> None:
    mirror = watched().knows()
    if kind == "other bytes":
        index.change(WHEEL[0], content=make_wheel("demo", "1.0", files={"other": b"x"})[1])
    else:
        index.fail("file", kind)
    try:
        status, content, _ = mirror.get(f"demo/{WHEEL[0]}")
    except (http.client.HTTPException, ConnectionError):
        return  # the transfer broke off
    assert status in (502, 503)
    assert content != WHEEL[1]


def test_a_hundred_who_ask_at_once_are_one_request_upstream(
    index: Upstream, watched: Callable[..., Watched]
) -> None:
    mirror = watched().knows()
    together = threading.Barrier(100)

    def ask(_: int) -> tuple[int, bytes]:
        together.wait()
        return mirror.get(f"demo/{LARGE[0]}")[:2]

    with ThreadPoolExecutor(100) as pool:
        answers = list(pool.map(ask, range(100)))
    assert set(answers) == {(200, LARGE[1])}
    assert index.count("file") == 1


def test_a_page_that_is_too_old_is_asked_for_first(
    index: Upstream, watched: Callable[..., Watched], clock: Clock
) -> None:
    """A file that the upstream has withdrawn meanwhile is not fetched."""
    mirror = watched().knows()
    index.remove(WHEEL[0])
    clock.go(3601)
    assert mirror.get(f"demo/{WHEEL[0]}")[0] == 404
    assert (index.count("page"), index.count("file")) == (2, 0)


def test_the_files_of_a_project_that_is_gone_are_not_fetched(
    index: Upstream, watched: Callable[..., Watched], clock: Clock
) -> None:
    """The local index keeps what it knows of them, in case the project comes back."""
    mirror = watched().knows()
    index.fail("page", "404")
    clock.go(3601)
    assert mirror.get("demo/", Accept="text/html")[0] == 404
    assert mirror.asking.mirror.index.file("demo", WHEEL[0]) is not None
    for name in (WHEEL[0], METADATA):
        assert mirror.get(f"demo/{name}")[0] == 404
    assert index.count("file") == index.count("metadata") == 0


def test_a_file_without_a_hash_is_left_to_the_application(
    index: Upstream, watched: Callable[..., Watched]
) -> None:
    mirror = watched()
    index.add(*SDIST, hashes={})
    mirror.knows()
    assert mirror.get(f"demo/{SDIST[0]}")[:2] == (200, SDIST[1])
    assert mirror.asked[0] == SDIST[0]


def test_an_offline_mirror_fetches_nothing(
    index: Upstream, watched: Callable[..., Watched]
) -> None:
    mirror = watched(offline=True)
    assert mirror.get(f"demo/{WHEEL[0]}")[0] == 503
    assert index.count() == 0
