"""A package repository on a fake GitHub, and helpers for tests with it."""

from __future__ import annotations

import hashlib
import json
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest

from private_pypi.backend import Folders, Secret
from private_pypi.model import StoredFile
from private_pypi.testing.contract.helpers import outcome
from private_pypi_github import GitHubBackend, GitHubSettings
from private_pypi_github.backend import GitHubStorage
from private_pypi_github.connection import Connection
from tests.github.fake import FakeGitHub

HALF_AN_HOUR = 30 * 60  # seconds; more than the upload of a small file may take
WHEEL = "demo-1.0-py3-none-any.whl"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Storage:
    """A repository on a fake GitHub, as other processes reach it."""

    api_url: str
    tokens: Mapping[str, str]
    settings: Mapping[str, Any]


def make_storage(github: FakeGitHub, *, private: bool = True, **settings: Any) -> Storage:
    """A repository with a reader and a writer."""
    github.make_repo("acme", "pkgs", private=private)
    tokens = {
        "read-secret": github.make_token(user="rita", rights={"acme/pkgs": "read"}),
        "write-secret": github.make_token(user="walter", rights={"acme/pkgs": "write"}),
        "stranger": github.make_token(user="stranger", rights={}),
    }
    return Storage(github.api_url, tokens, settings)


def backend_of(storage: Storage, folders: Folders) -> GitHubBackend:
    settings = GitHubSettings(
        name="mine",
        max_file_bytes=1 << 30,
        owner="acme",
        repo="pkgs",
        **{"api_url": storage.api_url, **storage.settings},
    )
    return GitHubBackend(settings, folders)


def open_github(storage: Storage, secret: str, folders: Folders) -> GitHubStorage:
    token = Secret(storage.tokens.get(secret, secret))
    return GitHubStorage(backend_of(storage, folders), token)


# What may go wrong with a request. With True, the request takes effect nevertheless.
FAULTS = [
    ("timeout", False),
    ("reset", False),
    ("reset", True),
    ("cut", True),
    ("403", False),
    ("404", False),
    ("422", False),
    ("429", False),
    ("500", False),
    ("502", True),
    ("rate-limit", False),
    ("secondary", False),
]


def tried(kind: str, call: Callable[..., Any], *arguments: Any) -> Any:
    """What comes of a call during a fault; no answer at all is not waited for long."""
    if kind != "timeout":
        return outcome(call, *arguments)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Connection, "timeout", (1, 0.4))
        patch.setattr(Connection, "upload_timeout", (1, 0.4))
        return outcome(call, *arguments)


def with_token(backend: GitHubStorage, token: str) -> GitHubStorage:
    """The same repository of the same server, with another secret."""
    return GitHubStorage(backend.backend, Secret(token))


def swept(backend: GitHubStorage) -> list[StoredFile]:
    """What a listing gives, after which leftovers are removed."""
    listed = [each for each in backend.list_files() if isinstance(each, StoredFile)]
    backend.sweep()
    return listed


OLD_NOTES = (
    'name = "demo"\nversion = "1.0"\ndistrib = "demo"\nsha256 = "{}"\n":action" = "file_upload"\n'
)


def call(
    storage: Storage, method: str, url: str, value: object = None, *, raw: bytes | None = None
) -> Any:
    """A request as anybody could make it."""
    request = urllib.request.Request(
        url if url.startswith("http") else f"{storage.api_url}/repos/acme/pkgs{url}",
        method=method,
        data=raw if raw is not None else None if value is None else json.dumps(value).encode(),
        headers={
            "Authorization": f"token {storage.tokens['write-secret']}",
            "Content-Type": "application/json" if raw is None else "application/zip",
        },
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        body = answer.read()
    return json.loads(body) if body else None


def put_as_0_2_did(storage: Storage, name: str, content: bytes, notes: str) -> Any:
    draft = call(
        storage, "POST", "/releases", {"tag_name": name, "name": name, "body": "", "draft": True}
    )
    url = draft["upload_url"].partition("{")[0]
    asset = call(storage, "POST", f"{url}?name={name}", raw=content)
    call(storage, "PATCH", f"/releases/{draft['id']}", {"body": notes, "draft": False})
    return asset


def drafts(github: FakeGitHub) -> list[str]:
    return [r.tag_name for r in github.releases("acme/pkgs", drafts=True) if r.draft]


def names(stored_files: Iterator[StoredFile]) -> list[str]:
    return [stored.filename for stored in stored_files]


def put_releases(github: FakeGitHub, storage: Storage, count: int) -> None:
    """So many releases with a file, one second apart."""
    notes = OLD_NOTES.format(hashlib.sha256(b"content").hexdigest())
    for number in range(count):
        put_as_0_2_did(storage, f"demo-{number}.tar.gz", b"content", notes)
        github.clock.advance(1)


def with_new_memory(backend: GitHubStorage) -> GitHubStorage:
    """The storage of a server that was just started."""
    return GitHubStorage(GitHubBackend(backend.settings, backend.folders), backend.secret)
