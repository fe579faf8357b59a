"""An owner with three repositories on a fake GitHub, and helpers for tests with them."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pytest

from private_pypi.backend import Folders, Secret
from private_pypi.distributions.filenames import normalize
from private_pypi.model import DistributionFile, StoredFile
from private_pypi_github import GitHubProjectsBackend, GitHubProjectsSettings
from private_pypi_github.connection import Connection
from private_pypi_github.projects import GitHubProjectsStorage
from tests.github.fake import FakeGitHub
from tests.github.fake.state import node_id

DAY = 24 * 60 * 60  # seconds
WHEEL = "demo-1.0-py3-none-any.whl"
PROJECTS = ("demo", "demo-extra", "other")


@dataclass(frozen=True)
class Storage:
    """The repositories of an owner on a fake GitHub. It can be pickled for child processes."""

    api_url: str
    tokens: Mapping[str, str]
    settings: Mapping[str, Any]


def make_storage(github: FakeGitHub, *, private: bool = True, **settings: Any) -> Storage:
    """Three repositories of an organization, with a reader, a writer, and a reader of some."""
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


def backend_of(storage: Storage, folders: Folders) -> GitHubProjectsBackend:
    given = {"api_url": storage.api_url, "owner": "acme", **storage.settings}
    settings = GitHubProjectsSettings(name="mine", max_file_bytes=1 << 30, **given)
    return GitHubProjectsBackend(settings, folders)


def open_projects(storage: Storage, secret: str, folders: Folders) -> GitHubProjectsStorage:
    return seen(backend_of(storage, folders), Secret(storage.tokens.get(secret, secret)))


def seen(backend: GitHubProjectsBackend, secret: Secret) -> GitHubProjectsStorage:
    return GitHubProjectsStorage(backend, secret)


def leftovers(github: FakeGitHub, name: str) -> list[str]:
    """Drafts, and assets of uploads that were not finished."""
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


def with_token(backend: GitHubProjectsStorage, token: str) -> GitHubProjectsStorage:
    """The same storage of the same server, seen with another token."""
    return seen(backend.backend, Secret(token))


def with_settings(backend: GitHubProjectsStorage, **settings: Any) -> GitHubProjectsStorage:
    """The storage of a server that was just started, with other settings."""
    changed = replace(backend.settings, **settings)
    return seen(GitHubProjectsBackend(changed, backend.backend.folders), backend.secret)


@contextlib.contextmanager
def impatient(kind: str, seconds: float) -> Iterator[None]:
    """Shorten the time-outs for faults of the kind "timeout", where GitHub does not answer."""
    if kind != "timeout":
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Connection, "timeout", (10, seconds))
        patch.setattr(Connection, "upload_timeout", (10, seconds))
        yield


def restarted(backend: GitHubProjectsStorage) -> GitHubProjectsStorage:
    """The storage of a server that was just started, and remembers nothing."""
    return with_settings(backend)


def names(stored: Iterator[StoredFile]) -> list[str]:
    return [file.filename for file in stored]


def file_of(stored: StoredFile, content: bytes, project: str = "demo") -> DistributionFile:
    """What the core makes of a file that somebody attached to a release."""
    return DistributionFile(
        project=normalize(project),
        filename=stored.filename,
        version="1.0",
        size=stored.size,
        sha256=hashlib.sha256(content).hexdigest(),
        uploaded_at=stored.uploaded_at,
        requires_python=None,
        yanked=None,
        core_metadata_sha256=None,
        location=stored.location,
    )
