"""What a download may ask for, whole or in part, of both types and by both roads."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from private_pypi.testing.distributions import make_wheel
from tests.github.engines import Engine, engine
from tests.github.fake import FakeGitHub
from tests.github.places import TYPES, PlaceType, make_place

NAME, CONTENT = make_wheel("demo", "1.0")
SIZE = len(CONTENT)


@pytest.fixture(params=TYPES)
def place_type(request: pytest.FixtureRequest) -> PlaceType:
    value: PlaceType = request.param
    return value


@pytest.fixture(params=["proxy", "redirect"])
def served(
    request: pytest.FixtureRequest, github: FakeGitHub, place_type: PlaceType, tmp_path: Path
) -> Iterator[Engine]:
    place = make_place(github, place_type, "acme", ("demo",))
    with engine(place, tmp_path / "root", download=request.param) as server:
        server.repository.wait_until_ready(30)
        assert server.publish(NAME, CONTENT).status_code == 200
        yield server


def fetch(server: Engine, method: str, **headers: str) -> requests.Response:
    """What a client gets in the end; it sends its secret to us alone."""
    return requests.request(
        method,
        f"{server.url}/r/{server.place.name}/simple/demo/{NAME}",
        auth=(server.place.name, server.place.reader),
        headers={"Accept-Encoding": "identity", **headers},
        allow_redirects=True,
        timeout=30,
    )


@pytest.mark.parametrize("is_known", [False, True], ids=["cold", "warm"])
def test_a_file_is_given_whole_in_part_and_by_its_headers(served: Engine, is_known: bool) -> None:
    if is_known:
        assert fetch(served, "GET").content == CONTENT
    head = fetch(served, "HEAD")
    assert (head.status_code, head.headers["Content-Length"], head.content) == (200, str(SIZE), b"")
    for asked, start, end in (
        ("bytes=0-9", 0, 10),
        (f"bytes={SIZE - 5}-", SIZE - 5, SIZE),
        ("bytes=-22", SIZE - 22, SIZE),
    ):
        part = fetch(served, "GET", Range=asked)
        assert (part.status_code, part.headers["Content-Range"], part.content) == (
            206,
            f"bytes {start}-{end - 1}/{SIZE}",
            CONTENT[start:end],
        )
    beyond = fetch(served, "GET", Range=f"bytes={SIZE}-")
    assert (beyond.status_code, beyond.headers["Content-Range"]) == (416, f"bytes */{SIZE}")
    assert fetch(served, "GET").content == CONTENT


def test_many_who_ask_for_a_file_at_once_cost_one_question_and_one_transfer(
    github: FakeGitHub, served: Engine
) -> None:
    assert served.ask("GET", "demo/", served.place.reader).status_code == 200  # access is known now
    github.forget_requests()
    github.latency = 0.2  # seconds: all have asked before the first has its answer
    with ThreadPoolExecutor(8) as pool:
        answers = [
            pool.submit(served.ask, "GET", f"demo/{NAME}", served.place.reader) for _ in range(8)
        ]
    statuses = {answer.result().status_code for answer in answers}
    hosts = [request.host for request in github.requests]
    assert (statuses, hosts.count("storage")) in (({200}, 1), ({302}, 0))
    # In `github_projects` the address is known since the file was examined.
    assert hosts.count("api") <= 1
