"""A fake GitHub with a repository for packages, and projects whose workflows are run."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from benchmarks.ports import free_port
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
    # That is what an sdist is made of. git cannot tell: this may be an unpacked archive.
    built = tmp_path_factory.mktemp("sdist")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", built]
    subprocess.run(command, cwd=CHECKOUT, check=True, capture_output=True)
    [sdist] = built.iterdir()
    target = tmp_path_factory.mktemp("ourselves")
    with tarfile.open(sdist) as archive:
        archive.extractall(target)  # our own
    [unpacked] = target.iterdir()
    return unpacked


@pytest.fixture(name="free_port")
def port_for_a_job() -> int:
    """A port on which nobody listens, for a server that a job starts."""
    return free_port()
