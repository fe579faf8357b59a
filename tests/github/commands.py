"""Running commands over a fake GitHub."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from private_pypi.backend import Secret
from private_pypi.distributions.core_metadata import offered_core_metadata
from private_pypi.testing.contract.helpers import make_upload, new_folders
from private_pypi_github import GitHubBackend, GitHubSettings
from private_pypi_github.backend import GitHubStorage
from tests.clients.environments import Client, install_client, make_venv, site_packages
from tests.github.fake import FakeGitHub
from tests.pages.test_static_site import served


@dataclass(frozen=True)
class Ran:
    """How a command ended."""

    code: int
    out: str
    err: str


Run = Callable[..., Ran]


def publish(github: FakeGitHub, token: str, tmp_path: Path, filename: str, content: bytes) -> None:
    """As a server does it."""
    settings = GitHubSettings(
        name="acme", max_file_bytes=1 << 30, owner="acme", repo="packages", api_url=github.api_url
    )
    backend = GitHubStorage(GitHubBackend(settings, new_folders(tmp_path)), Secret(token))
    path = tmp_path / filename
    path.write_bytes(content)
    metadata = offered_core_metadata(path, filename)
    backend.put_file(make_upload(tmp_path, filename, content, core_metadata=metadata))


def installed_with_pip(folder: Path, tmp_path: Path, *requirements: str) -> list[str]:
    """What pip installs from the pages in a folder."""
    home, target = tmp_path / "home", make_venv(tmp_path / "target")
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir()
    client = Client("pip", install_client("pip"), home)
    with served(folder) as address:
        outcome = client.run(
            f"--python={target}", "install", f"--index-url={address}/", *requirements
        )
    assert outcome.code == 0, outcome.output
    return sorted(path.name for path in site_packages(target).glob("*.dist-info"))
