"""A server with a group of two private repositories and a mirror, and the upstream of that."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from private_pypi.errors import BackendError
from private_pypi.repositories import Repositories, StoredRepository
from private_pypi.testing.distributions import make_wheel
from private_pypi.web import create_app
from private_pypi.web.deployment import Deployment
from tests.clients.conftest import client, target
from tests.mirror.upstream import Upstream, running
from tests.web.conftest import Deploy, basic, deploy, publish

__all__ = ["client", "deploy", "target"]

TABLES = """
[mine]
type = "file_system"
read_secret = ["reader", "boss"]
write_secret = "writer"
claimed = ["acme-*"]
sync_index_interval = 3600
[closed]
type = "file_system"
read_secret = ["boss"]
write_secret = "closed-writer"
sync_index_interval = 3600
[pypi]
type = "mirror"
index_url = "{index_url}"
"""
GROUP = """
[all]
type = "group"
members = ["mine", "closed", "pypi"]
publish_to = "mine"
mix = ["torch"]
"""


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    """It has a public project, and attacks: private names of ours in version 99."""
    with running() as upstream:
        upstream.add(*make_wheel("public", "1.0"))
        for name in ("tool", "plans", "acme-core", "acme-gone", "torch"):
            upstream.add(*make_wheel(name, "99.0"))
        yield upstream


@dataclass(frozen=True)
class Served:
    """The server and a client of it."""

    deployment: Deployment
    client: FlaskClient

    @property
    def repositories(self) -> Repositories:
        return self.deployment.repositories

    def stored(self, name: str) -> StoredRepository:
        (found,) = [each for each in self.repositories if each.name == name]
        assert isinstance(found, StoredRepository)
        return found

    def get(self, path: str, secret: str = "boss", repository: str = "all") -> TestResponse:
        return self.client.get(f"/r/{repository}{path}", headers=basic(repository, secret))

    def status(self, path: str, secret: str = "boss", repository: str = "all") -> int:
        return self.get(path, secret, repository).status_code

    def publish(
        self, name: str, version: str, repository: str = "mine", secret: str = "writer"
    ) -> TestResponse:
        filename, content = make_wheel(name, version)
        return publish(
            self.client,
            filename,
            content,
            path=f"/r/{repository}/",
            headers=basic(repository, secret),
        )

    def versions(self, project: str, secret: str = "boss", repository: str = "all") -> list[str]:
        answer = self.get(f"/simple/v1+json/{project}/", secret, repository)
        assert answer.status_code == 200 and answer.json is not None, answer.text
        return list(answer.json["versions"])

    def names(self, secret: str = "boss", repository: str = "all") -> list[str]:
        answer = self.get("/simple/v1+json/", secret, repository)
        assert answer.status_code == 200 and answer.json is not None, answer.text
        return [each["name"] for each in answer.json["projects"]]

    @contextlib.contextmanager
    def down(self, name: str) -> Iterator[None]:
        """The storage of a repository is not there, as a synchronisation finds out."""
        stored = self.stored(name)
        folder = self.deployment.root / "cache" / name
        aside = folder.with_name("aside")
        folder.rename(aside)
        folder.write_bytes(b"not a folder")
        with contextlib.suppress(BackendError):
            stored.synchronize()
        assert stored.state().stale is not None
        yield
        folder.unlink()
        aside.rename(folder)
        stored.synchronize()


Serve = Callable[..., Served]


@pytest.fixture
def serve(deploy: Deploy, upstream: Upstream) -> Serve:
    """A server with `TABLES` and a group."""

    def make(group: str = GROUP, tables: str = TABLES, **options: Any) -> Served:
        config = tables.format(index_url=upstream.index_url) + group
        deployment = deploy(config, **options)
        return Served(deployment, create_app(deployment).test_client())

    return make


@pytest.fixture
def served(serve: Serve) -> Served:
    """With `tool` in mine, `plans` in closed, `torch` in mine and upstream, `public` upstream.

    `tool-old` was deleted from mine.
    """
    served = serve()
    for name, version, repository, secret in (
        ("tool", "1.0", "mine", "writer"),
        ("torch", "2.0", "mine", "writer"),
        ("acme-core", "1.0", "mine", "writer"),
        ("plans", "1.0", "closed", "closed-writer"),
    ):
        done = served.publish(name, version, repository, secret)
        assert done.status_code == 200, done.text
    return served
