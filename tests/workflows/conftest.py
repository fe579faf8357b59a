"""A fake GitHub with a repository for packages, and projects whose workflows are run."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.github.fake import FakeGitHub

from .acting import CHECKOUT, Project


@pytest.fixture
def github() -> Iterator[FakeGitHub]:
    """With the private repository acme/pkgs, which has the workflow that updates its index."""
    with FakeGitHub() as github:
        github.make_repo("acme", "pkgs", private=True)
        github.commit("acme/pkgs", ".github/workflows/update-index.yml", b"name: update-index\n")
        github.commit("acme/pkgs", "index.toml", b"mtime = 0\npkgs = []\n")
        yield github


@pytest.fixture
def project(github: FakeGitHub, tmp_path: Path) -> Callable[[str], Project]:
    """`project("acme/demo")`: an empty checkout."""

    def make(origin: str) -> Project:
        folder = tmp_path / "projects" / origin.replace("/", "-")
        return Project(folder / "checkout", origin, github)

    return make


@pytest.fixture(scope="session")
def ourselves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a checkout of this project has, without what tests and tools leave in it."""
    target = tmp_path_factory.mktemp("ourselves")
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=CHECKOUT,
        check=True,
        capture_output=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (CHECKOUT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(CHECKOUT / name, target / name)
    return target


@pytest.fixture
def free_port() -> int:
    """A port on which nobody listens, for a server that a job starts."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
