"""Mirrors as a deployment has them, in this process, and what a test asks of them."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any

import pytest
import urllib3
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from private_pypi.repositories import mirror as module
from private_pypi.repositories import mirrored_pages
from private_pypi.repositories.mirror import Mirror
from private_pypi.storage import file_cache, recent_trouble
from private_pypi.web import create_app
from private_pypi.web.deployment import Deployment
from private_pypi.web.http import content
from private_pypi_mirror import backend
from private_pypi_mirror.connection import Connection
from tests.faults.servers import table
from tests.mirror.upstream import JSON
from tests.web.conftest import basic

PYPI = basic("pypi", "r")


def mirror_table(index_url: str, **fields: object) -> str:
    """A table `[pypi]`; by default pages are believed for an hour."""
    known = {"sync_index_interval": 3600, "write_secret": None, "extra_index_url": None}
    fields = {**known, **fields}
    text = table("pypi", type="mirror", index_url=index_url)
    kept = [line for line in text.splitlines() if line.split(" = ")[0] not in fields]
    added = [line for line in table("x", **fields).splitlines()[1:] if _is_of(line, fields)]
    return "\n".join([*filter(None, kept), *added, ""])


def _is_of(line: str, fields: Mapping[str, object]) -> bool:
    name = line.split(" = ")[0]
    return name in fields and fields[name] is not None


class Asking:
    """A client of a deployment with a mirror `pypi`."""

    def __init__(self, deployment: Deployment, name: str = "pypi") -> None:
        self.deployment = deployment
        self.client: FlaskClient = create_app(deployment).test_client()
        self.name = name

    @property
    def mirror(self) -> Mirror:
        (found,) = (each for each in self.deployment.repositories if each.name == self.name)
        assert isinstance(found, Mirror)
        return found

    def get(self, path: str, *, method: str = "GET", **headers: str) -> TestResponse:
        """An answer; `path` is below the address of the mirror."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.client.open(
            f"/r/{self.name}/{path}",
            method=method,
            headers={**basic(self.name, "r"), "Accept": JSON, **sent},
        )

    def page(self, project: str = "demo", **headers: str) -> TestResponse:
        return self.get(f"simple/{project}/", **headers)

    def files(self, project: str = "demo") -> dict[str, Any]:
        """The files of a page by name."""
        answer = self.page(project)
        assert answer.status_code == 200, answer.text
        return {file["filename"]: file for file in answer.get_json(force=True)["files"]}

    def file(self, filename: str, project: str = "demo", **arguments: str) -> TestResponse:
        return self.get(f"simple/{project}/{filename}", **arguments)

    def projects(self) -> list[str]:
        answer = self.get("simple/")
        assert answer.status_code == 200, answer.text
        return [project["name"] for project in answer.get_json(force=True)["projects"]]


class Clock:
    """The time of this process, which a test moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ahead = 0.0  # seconds
        real = time.time
        monkeypatch.setattr(time, "time", lambda: real() + self.ahead)
        clock = self

        class Moved(datetime):
            @classmethod
            def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
                return datetime.now(tz) + timedelta(seconds=clock.ahead)

        monkeypatch.setattr(module, "datetime", Moved)
        monkeypatch.setattr("private_pypi.index.mirrored.datetime", Moved)

    def go(self, seconds: float) -> None:
        self.ahead += seconds

    def now(self) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=self.ahead)


def forget_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a server ask again at once after an error of the upstream."""
    monkeypatch.setattr(recent_trouble, "LEAST", 0.0)
    monkeypatch.setattr(recent_trouble, "MOST", 0.0)
    monkeypatch.setattr(file_cache, "_PAUSE", 0.0)


@contextmanager
def impatience() -> Iterator[None]:
    """Wait for the upstream for a moment only, and accept little of it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mirrored_pages, "_BUDGET", 0.5)
        patch.setattr(content, "_LONGEST_WAIT", 0.5)
        patch.setattr(Connection, "timeout", urllib3.Timeout(connect=0.2, read=0.2))
        patch.setattr(backend, "_PAGE_SECONDS", 0.2)
        patch.setattr(backend, "_LIST_SECONDS", 0.2)
        patch.setattr(backend, "_LARGEST_PAGE", 4 << 20)
        patch.setattr(backend, "_LARGEST_LIST", 4 << 20)
        yield


Mirrored = Callable[..., Asking]


def kept_pages(root: Path) -> list[str]:
    """The projects whose pages are in the local index of the mirror, for every process."""
    (path,) = (root / "index").glob("pypi*/index.sqlite")
    with closing(sqlite3.connect(path)) as connection:
        return [project for (project,) in connection.execute("SELECT project FROM pages")]


def cached(root: Path, kind: str = "files") -> list[Path]:
    """What is in a disk cache of the mirror."""
    return [path for path in (root / "cache" / "pypi" / kind).rglob("*") if path.is_file()]
