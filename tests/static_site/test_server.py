"""A real server over the folder of a site, and real clients before it."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from private_pypi.testing.distributions import make_wheel
from private_pypi_static_site.folder import SiteFolder
from tests.clients.environments import Client, install_client, make_venv
from tests.clients.installers import install, installed
from tests.clients.publishers import publish
from tests.clients.releases import Release
from tests.clients.serving import Repository, serving
from tests.static_site.sites import (
    clone,
    commit_all,
    git,
    host,
    leftovers,
    make_repository,
    make_site,
    make_upstream,
    messages,
)
from tests.waiting import eventually

pytestmark = pytest.mark.needs("clients", "git")


def table(path: Path, more: str = "") -> str:
    return (
        f'[acme]\ntype = "static_site"\npath = "{path}"\nread_secret = "read"\n'
        f'write_secret = "write"\nsync_index_interval = 1\n{more}'
    )


def at(origin: str) -> Repository:
    return Repository(origin=origin, name="acme", read_secret="read", write_secret="write")


def new_client(name: str, tmp_path: Path) -> Client:
    home = tmp_path / f"home-of-{name}"
    home.mkdir()
    return Client(name, install_client(name), home)


def status_of(repository: Repository, project: str) -> int:
    address = f"{repository.index_url}{project}/"
    return requests.get(address, auth=("acme", "read"), timeout=30).status_code


@pytest.fixture
def upstream(tmp_path: Path) -> Path:
    """Somebody's clone of the upstream of the site that is served."""
    site = make_site(tmp_path / "site")
    host(site, *make_wheel("demo", "1.0"))
    make_repository(site.root)
    make_upstream(site.root, tmp_path / "upstream")
    clone(tmp_path / "upstream", tmp_path / "clone")
    return tmp_path / "clone"


@pytest.fixture
def repository(upstream: Path, tmp_path: Path) -> Iterator[Repository]:
    """A server over the site, which is only read."""
    with serving(tmp_path / "server", table(tmp_path / "site")) as origin:
        yield at(origin)


@pytest.mark.parametrize("name", ["pip", "uv"])
def test_a_client_installs_with_a_secret(name: str, repository: Repository, tmp_path: Path) -> None:
    client = new_client(name, tmp_path)
    target = make_venv(tmp_path / "target")
    outcome = install(client, [repository.readable("wrong")], "demo", target)
    assert outcome.code != 0
    outcome = install(client, [repository.readable()], "demo", target)
    assert outcome.code == 0, outcome.output
    assert installed(target) == {"demo": "1.0"}


def test_what_is_pulled_becomes_visible_and_what_is_wrong_hides_nothing(
    repository: Repository, upstream: Path, tmp_path: Path
) -> None:
    theirs = SiteFolder(upstream)
    filename, content = make_wheel("demo", "2.0")
    host(theirs, filename, content)
    host(theirs, *make_wheel("other", "1.0"))
    commit_all(upstream, "Add demo 2.0")
    git(upstream, "push", "--quiet")
    git(tmp_path / "site", "pull", "--quiet")
    eventually(lambda: len(repository.files()) == 3)
    # A mistake in one project: its files stay as they were, and the others are served.
    wrong = upstream / "projects" / "demo.toml"
    text = wrong.read_text()
    wrong.write_text(text.replace("[[versions]]", "[[versions", 1))
    host(theirs, *make_wheel("other", "2.0"))
    commit_all(upstream, "A mistake")
    git(upstream, "push", "--quiet")
    git(tmp_path / "site", "pull", "--quiet")
    eventually(lambda: len(repository.files()) == 4)
    assert filename in repository.files()
    # It is not known what the wrong file has, so that no name is free for another index.
    assert status_of(repository, "unknown") == 503
    wrong.write_text(text)
    commit_all(upstream, "The mistake is corrected")
    git(upstream, "push", "--quiet")
    git(tmp_path / "site", "pull", "--quiet")
    eventually(lambda: status_of(repository, "unknown") == 404)
    assert len(repository.files()) == 4


def test_a_yank_by_hand_becomes_visible(repository: Repository, tmp_path: Path) -> None:
    path = tmp_path / "site" / "projects" / "demo.toml"
    path.write_text(f'{path.read_text().rstrip()}\nyanked = "broken"\n')
    eventually(
        lambda: (
            "data-yanked"
            in requests.get(f"{repository.index_url}demo/", auth=("acme", "read"), timeout=30).text
        )
    )


def test_by_default_nobody_publishes(repository: Repository, tmp_path: Path) -> None:
    twine = new_client("twine", tmp_path)
    outcome = publish(twine, Release(version="3.0"), repository)
    assert outcome.code != 0
    assert "takes no uploads" in outcome.text
    assert git(tmp_path / "site", "status", "--porcelain") == ""


def test_a_client_publishes_commits_that_are_pushed(upstream: Path, tmp_path: Path) -> None:
    more = 'publish = "commits"\npush = true\n'
    with serving(tmp_path / "server", table(tmp_path / "site", more)) as origin:
        repository = at(origin)
        twine = new_client("twine", tmp_path)
        release = Release(version="3.0")
        for _ in range(2):
            outcome = publish(twine, release, repository)
            assert outcome.code == 0, outcome.output
        outcome = publish(twine, Release(version="3.0", note="other"), repository)
        assert outcome.code != 0
        assert "already exists" in outcome.text
        uv = new_client("uv", tmp_path)
        target = make_venv(tmp_path / "target")
        outcome = install(uv, [repository.readable()], "demo", target)
        assert outcome.code == 0, outcome.output
        assert installed(target) == {"demo": "3.0"}
        wheel = release.wheel()[0]
        repository.run_command("yank", "demo", "3.0", "--reason", "broken")
        repository.run_command("delete", "demo", "3.0", "--yes")
    assert git(tmp_path / "site", "status", "--porcelain") == ""
    told = messages(tmp_path / "upstream")
    assert told[-1] == "Begin"
    assert sorted(told[:-1]) == sorted(
        f"{verb} {name}"
        for verb in ("Add", "Yank", "Delete")
        for name in (wheel, "demo-3.0.tar.gz")
    )


def test_publishers_of_several_servers_at_once(upstream: Path, tmp_path: Path) -> None:
    """Two servers over one folder; every upload that was accepted is there, in one commit each."""
    site = tmp_path / "site"
    config = table(site, 'publish = "commits"\n')
    with (
        serving(tmp_path / "one", config) as one,
        serving(tmp_path / "other", config) as other,
        ThreadPoolExecutor(8) as pool,
    ):
        servers = [at(one), at(other)]
        wheels = [make_wheel(f"p{number % 4}", f"{number}.0") for number in range(24)]
        for done in [
            pool.submit(servers[number % 2].put, *wheel) for number, wheel in enumerate(wheels)
        ]:
            done.result()
        expected = {name for name, _ in wheels} | {make_wheel("demo", "1.0")[0]}
        for server in servers:
            eventually(lambda server=server: set(server.files()) == expected)
    assert sorted(messages(site)) == sorted([*(f"Add {name}" for name, _ in wheels), "Begin"])
    assert git(site, "status", "--porcelain") == ""
    assert leftovers(site) == []
