"""Installed clients, a server with repositories to give out, and a proxy before it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .environments import Client, install_client, make_venv
from .serving import RecordingProxy, Repository, running_server

_REPOSITORIES = 200  # more than there are tests that ask for one


@pytest.fixture
def client(tmp_path: Path) -> Callable[[str], Client]:
    """`client("uv")`: installed if it is not yet, and with a new, empty home."""

    def make(name: str) -> Client:
        home = tmp_path / f"home-of-{name}"
        home.mkdir(exist_ok=True)
        return Client(name, install_client(name), home)

    return make


@pytest.fixture(scope="session")
def repositories(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Iterator[Repository]]:
    """Empty repositories of one server; each is given out once."""
    with running_server(tmp_path_factory.mktemp("server"), _REPOSITORIES) as made:
        yield iter(made)


@pytest.fixture
def repository(repositories: Iterator[Repository]) -> Repository:
    """An empty repository."""
    return next(repositories)


@pytest.fixture
def other_repository(repositories: Iterator[Repository]) -> Repository:
    """Another one of the same server."""
    return next(repositories)


@pytest.fixture
def proxy(repository: Repository) -> Iterator[RecordingProxy]:
    """Before the server of `repository`."""
    made = RecordingProxy(repository.origin)
    yield made
    made.close()


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """An empty virtual environment to install into."""
    return make_venv(tmp_path / "target")
