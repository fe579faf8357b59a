"""Repositories over storages in memory: what is asked of a storage in trouble, and how they end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from private_pypi.backend import Access, Secret
from private_pypi.configuration.config import Configuration
from private_pypi.errors import BackendUnavailable, WrongSecret
from private_pypi.model import Redirect
from private_pypi.repositories import Credentials, Grant, Repositories, whole
from private_pypi.storage.retrying import retrying
from private_pypi.storage.verdicts import Expiry
from private_pypi.testing import Memory
from private_pypi.testing.contract.helpers import make_upload
from private_pypi.testing.distributions import make_wheel
from tests.tables import memory_table

FILENAME, WHEEL = make_wheel("demo", "1.0")

Open = Callable[..., Repositories]


@pytest.fixture
def open_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Open]:
    """Repositories by name, each over a storage; nothing waits between two tries."""
    monkeypatch.setattr(
        "private_pypi.repositories.stored.retrying",
        lambda backend: retrying(backend, sleep=lambda seconds: None),
    )
    made: list[Repositories] = []

    def make(**storages: Memory) -> Repositories:
        tables = {name: memory_table(storage, name) for name, storage in storages.items()}
        tmp = tmp_path / "tmp"
        tmp.mkdir()
        made.append(
            Repositories(
                Configuration(repositories=tables),
                root=tmp_path,
                tmp=tmp,
                expiry=Expiry(timedelta(hours=1), timedelta(minutes=5)),
                extra_index_url="",
            )
        )
        return made[-1]

    yield make
    for each in made:
        each.close()


def granted(repositories: Repositories, secret: str, need: Access = Access.READ) -> Grant:
    return repositories.authorize(Credentials("mine", Secret(secret)), name=None, need=need)


def test_trouble_with_a_file_is_met_once_and_told_to_others_meanwhile(open_all: Open) -> None:
    """Also where one request leads to the same question twice."""
    storage = Memory()
    storage.drop(FILENAME, WHEEL)
    repositories = open_all(mine=storage)
    (repository,) = repositories
    repository.synchronize()
    file = repository.index.file(FILENAME)
    assert file is not None
    storage.calls.clear()
    storage.fail_next("open_file", BackendUnavailable("down", retry_after=4), times=3)
    told = []
    for _ in range(5):
        with pytest.raises(BackendUnavailable, match="down") as caught:
            whole(granted(repositories, "read").open_file(file))
        told.append(caught.value.retry_after)
    assert (told, storage.calls["open_file"]) == ([4] * 5, 3)  # one round of tries
    # What one secret meets says nothing about another.
    opened = whole(granted(repositories, "write").open_file(file))
    assert not isinstance(opened, Redirect)
    with closing(opened):
        assert opened.read() == WHEEL
    assert storage.calls["open_file"] == 4


@pytest.mark.parametrize(
    ("change", "method"),
    [
        ("open", "open_file"),
        ("publish", "put_file"),
        ("yank", "yank_file"),
        ("yank", "read_index"),
        ("yank", "write_index"),
        ("delete", "read_index"),
        ("delete", "write_index"),
        ("delete", "delete_file"),
    ],
)
def test_a_secret_that_ended_is_forgotten_whatever_it_was_used_for(
    open_all: Open, tmp_path: Path, change: str, method: str
) -> None:
    storage = Memory()
    storage.drop(FILENAME, WHEEL)
    repositories = open_all(mine=storage)
    (repository,) = repositories
    repository.synchronize()
    file = repository.index.file(FILENAME)
    assert file is not None
    grant = granted(repositories, "write", Access.WRITE)
    calls: dict[str, Callable[[], object]] = {
        "open": lambda: whole(grant.open_file(file)),
        "publish": lambda: grant.publish(make_upload(tmp_path, "demo-2.0.tar.gz", b"content")),
        "yank": lambda: grant.yank([file], "broken"),
        "delete": lambda: grant.delete([file]),
    }
    storage.write_secret = "another"
    storage.fail_next(method, WrongSecret())
    with pytest.raises(WrongSecret):
        calls[change]()
    with pytest.raises(WrongSecret):
        granted(repositories, "write")


def test_repositories_whose_storages_hang_are_waited_for_together(
    open_all: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("private_pypi.repositories.choosing.CLOSING_SECONDS", 1.0)
    storages = {f"r{number}": Memory() for number in range(30)}
    held = threading.Event()
    for storage in storages.values():
        storage.held["read_index"] = held
    repositories = open_all(**storages)
    repositories.start()
    while not all(storage.calls["read_index"] for storage in storages.values()):
        time.sleep(0.01)
    begun = time.monotonic()
    repositories.close()
    seconds = time.monotonic() - begun
    held.set()
    assert 1.0 <= seconds < 15.0  # one after the other it would be thirty
