"""Server processes over the repositories of an owner: two on one ROOT, and one that is killed."""

from __future__ import annotations

import hashlib
import os
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from private_pypi.testing.distributions import make_wheel
from tests.faults.servers import Server, Servers
from tests.github.fake import FakeGitHub
from tests.github.owner import DAY, leftovers

WHEELS = [make_wheel("demo", f"{number}.0") for number in range(12)]
NAMES = [filename for filename, _ in WHEELS]


@pytest.fixture
def github(github: FakeGitHub) -> FakeGitHub:
    for name in ("demo", "other"):
        github.make_repo("acme", name, private=True)
    return github


@pytest.fixture
def writer(github: FakeGitHub) -> str:
    return github.make_token("walter", {"acme/demo": "write", "acme/other": "write"})


def table(github: FakeGitHub, interval: float = 3600) -> str:
    return (
        '[hub]\ntype = "github_projects"\nany_owner = true\nowners = ["acme"]\n'
        f'api_url = "{github.api_url}"\nsync_index_interval = {interval}\nextra_index_url = ""\n'
    )


def page(server: Server, token: str) -> requests.Response:
    return server.get("/simple/demo/", ("acme", token))


def names(answer: requests.Response) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [file["filename"] for file in answer.json()["files"]]


def assert_whole(answer: requests.Response) -> None:
    """Every file, or the word to come again; nothing between."""
    if answer.status_code == 503:
        assert int(answer.headers["Retry-After"]) > 0
    else:
        assert names(answer) == NAMES


@pytest.mark.needs("a server in a process of its own")
def test_processes_of_a_root_share_what_was_looked_up_and_no_rights(
    github: FakeGitHub, writer: str, servers: Servers, tmp_path: Path
) -> None:
    for number, (filename, content) in enumerate(WHEELS):
        github.make_release("acme/demo", f"v{number}.0", {filename: content})
    root, config = tmp_path / "root", table(github)
    one, other = servers.start(root, config), servers.start(root, config)
    assert names(page(one, writer)) == NAMES
    path = f"/simple/demo/{NAMES[0]}"
    assert one.get(path, ("acme", writer)).content == WHEELS[0][1]
    github.forget_requests()
    assert names(page(other, writer)) == NAMES
    assert other.get(path, ("acme", writer)).content == WHEELS[0][1]
    # Whether this token may is asked by each process; what there is was asked by one.
    assert [r.name for r in github.requests] == ["GET /rate_limit", "GET /repos/acme/demo"]
    partial = github.make_token("paul", {"acme/other": "read"})
    for server in (one, other):
        for each in ("/simple/demo/", path, f"{path}.metadata"):
            assert server.status(each, auth=("acme", partial)) == 404

    new, content = make_wheel("demo", "99.0")
    other.publish(new, content, auth=("acme", writer))
    assert names(page(one, writer)) == [*NAMES, new]
    deleted = requests.delete(f"{one.url}{path}", auth=("acme", writer), timeout=20)
    assert deleted.status_code == 200, deleted.text
    for server in (other, one):
        assert names(page(server, writer)) == [*NAMES[1:], new]
        assert server.status(path, auth=("acme", writer)) == 404


@pytest.mark.needs("a server in a process of its own")
def test_processes_of_a_root_that_look_at_once_never_show_a_part(
    github: FakeGitHub, writer: str, servers: Servers, tmp_path: Path
) -> None:
    for number, (filename, content) in enumerate(WHEELS):
        github.make_release("acme/demo", f"v{number}.0", {filename: content})
    config = table(github, interval=0.001)
    both = [servers.start(tmp_path / "root", config) for _ in range(2)]
    reader = github.make_token("rita", {"acme/demo": "read"})
    barrier = threading.Barrier(8)

    def ask(number: int) -> list[requests.Response]:
        barrier.wait()
        token = (writer, reader)[number // 2 % 2]
        return [page(both[number % 2], token) for _ in range(4)]

    with ThreadPoolExecutor(8) as pool:
        answers = [answer for found in pool.map(ask, range(8)) for answer in found]
    for answer in answers:
        assert_whole(answer)
    assert 200 in Counter(answer.status_code for answer in answers)
    assert [names(page(server, reader)) for server in both] == [NAMES] * 2


@pytest.mark.needs("a server in a process of its own")
@pytest.mark.parametrize("has_release", [True, False])
def test_a_server_that_is_killed_while_it_publishes_leaves_all_or_nothing(
    github: FakeGitHub, writer: str, servers: Servers, tmp_path: Path, has_release: bool
) -> None:
    """At each request that changes something; the first asset is cut in the middle."""
    reader = github.make_token("rita", {"acme/demo": "read"})
    github.make_release("acme/demo", "v0.0", {NAMES[0]: WHEELS[0][1]})
    root, config = tmp_path / "root", table(github, interval=0.001)
    expected = {NAMES[0]: WHEELS[0][1]}
    server = servers.start(root, config)
    for number in range(1, 5):
        version = f"{number}.0"
        if has_release:
            github.make_release("acme/demo", f"v{version}")
        # Half of the file is still to be sent: sockets between the two take a few MiB.
        size = 16 << 20 if number == (1 if has_release else 2) else 1000
        filename, content = make_wheel("demo", version, files={"demo/data": os.urandom(size)})
        changes: list[str] = []

        def kill(
            request: str, server: Server = server, changes: list[str] = changes, at: int = number
        ) -> None:
            if not request.startswith("GET"):
                changes.append(request)
                if len(changes) == at:
                    server.kill()

        github.before_request(kill)
        with pytest.raises(requests.ConnectionError):
            server.put(filename, content, auth=("acme", writer))
        github.before_request(None)
        assert len(changes) == number

        server = servers.start(root, config)
        shown = page(server, reader)
        assert names(shown) in ([*expected], [*expected, filename])
        expected[filename] = content
        for each in names(shown):
            found = server.get(f"/simple/demo/{each}", ("acme", reader))
            assert hashlib.sha256(found.content).digest() == (
                hashlib.sha256(expected[each]).digest()
            )
        server.publish(filename, content, auth=("acme", writer))
        assert names(page(server, reader)) == [*expected]
    stored = [
        asset.name
        for release in github.releases("acme/demo")
        for asset in release.assets.values()
        if asset.name.endswith(".whl")
    ]
    assert sorted(stored) == [*expected]
    github.clock.advance(DAY + 60)
    server.publish(*make_wheel("demo", "9.0"), auth=("acme", writer))
    assert leftovers(github, "acme/demo") == []
