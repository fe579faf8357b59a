"""An owner with three repositories on a fake GitHub, and what tests do with them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pytest

from private_pypi.backend import Folders, Secret
from private_pypi_github import GitHubProjectsBackend, GitHubProjectsSettings
from private_pypi_github.client import Connection
from tests.github.fake import FakeGitHub
from tests.github.fake.state import node_id

DAY = 24 * 60 * 60  # seconds
WHEEL = "demo-1.0-py3-none-any.whl"
PROJECTS = ("demo", "demo-extra", "other")


@dataclass(frozen=True)
class Storage:
    """The repositories of an owner on a fake GitHub, as other processes reach them."""

    api_url: str
    tokens: Mapping[str, str]
    settings: Mapping[str, Any]


def make_storage(github: FakeGitHub, *, private: bool = True, **settings: Any) -> Storage:
    """Three repositories of an organization, with a reader, a writer and a reader of some."""
    for name in PROJECTS:
        github.make_repo("acme", name, private=private)
    names = [f"acme/{name}" for name in PROJECTS]
    tokens = {
        "read-secret": github.make_token(user="rita", rights=dict.fromkeys(names, "read")),
        "write-secret": github.make_token(user="walter", rights=dict.fromkeys(names, "write")),
        "partial-secret": github.make_token(
            user="paul", rights={"acme/demo": "read", "acme/demo-extra": "write"}
        ),
    }
    return Storage(github.api_url, tokens, settings)


def open_projects(storage: Storage, secret: str, folders: Folders) -> GitHubProjectsBackend:
    given = {"api_url": storage.api_url, "owner": "acme", **storage.settings}
    settings = GitHubProjectsSettings(name="mine", max_file_bytes=1 << 30, **given)
    return GitHubProjectsBackend(settings, Secret(storage.tokens.get(secret, secret)), folders)


def leftovers(github: FakeGitHub, name: str) -> list[str]:
    """Drafts, and assets that are no distribution file and no metadata."""
    releases = github.releases(name, drafts=True)
    drafts = [f"draft {release.tag_name}" for release in releases if release.draft]
    assets = [asset for release in releases for asset in release.assets.values()]
    return drafts + [a.name for a in assets if a.name.endswith(".part") or a.state != "uploaded"]


def asset_id(github: FakeGitHub, name: str, filename: str) -> str:
    """The global id that PyPIHub put into its links."""
    (number,) = [
        asset.id
        for release in github.releases(name)
        for asset in release.assets.values()
        if asset.name == filename
    ]
    return node_id("ReleaseAsset", number)


def with_token(backend: GitHubProjectsBackend, token: str) -> GitHubProjectsBackend:
    """The same table of the same server, with another secret."""
    return GitHubProjectsBackend(backend.settings, Secret(token), backend.folders)


def with_settings(backend: GitHubProjectsBackend, **settings: Any) -> GitHubProjectsBackend:
    """The backend of a server that was just started, with other settings."""
    return GitHubProjectsBackend(
        replace(backend.settings, **settings), backend.secret, backend.folders
    )


@contextlib.contextmanager
def impatient(kind: str, seconds: float) -> Iterator[None]:
    """Nobody waits longer for an answer that does not come; for others there is time enough."""
    if kind != "timeout":
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Connection, "timeout", (10, seconds))
        patch.setattr(Connection, "upload_timeout", (10, seconds))
        yield


def restarted(backend: GitHubProjectsBackend) -> GitHubProjectsBackend:
    """The backend of a server that was just started: nothing is known."""
    return with_settings(backend)
