"""An upstream on loopback, and mirrors of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from private_pypi.backend import Folders, Secret
from private_pypi_mirror import IndexMirrorSettings, MirrorBackend
from private_pypi_mirror.backend import MirrorStorage
from tests.mirror.mirrors import Asking, Clock, Mirrored, mirror_table
from tests.mirror.serving import Upstream, running_upstream
from tests.mirror.upstream import Upstream as Index
from tests.mirror.upstream import running
from tests.web.conftest import Deploy, deploy

__all__ = ["deploy"]

MakeMirror = Callable[..., MirrorStorage]


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    """An upstream that answers 404 until the test says something else."""
    with running_upstream() as running:
        yield running


@pytest.fixture
def elsewhere() -> Iterator[Upstream]:
    """Another one, at another origin."""
    with running_upstream() as running:
        yield running


@pytest.fixture
def mirror_of(tmp_path: Path) -> Iterator[MakeMirror]:
    """Makes the view of a mirror of an address, with further settings."""
    made: list[MirrorBackend] = []

    def make(index_url: str, **settings: Any) -> MirrorStorage:
        folders = Folders(cache=tmp_path, lock=tmp_path, tmp=tmp_path)
        backend = MirrorBackend(
            IndexMirrorSettings(
                name="mirror",
                max_file_bytes=2**40,
                index_url=index_url,
                read_secret=(Secret("read"),),
                **settings,
            ),
            folders,
        )
        made.append(backend)
        view = backend.seen_with(Secret("read"))
        assert isinstance(view, MirrorStorage)
        return view

    yield make
    for backend in made:
        backend.close()


@pytest.fixture
def mirror(upstream: Upstream, mirror_of: MakeMirror) -> MirrorStorage:
    """A mirror of `upstream`."""
    return mirror_of(upstream.index_url)


@pytest.fixture
def index() -> Iterator[Index]:
    """An upstream with a table of projects, which can go wrong."""
    with running() as upstream:
        yield upstream


@pytest.fixture
def mirrored(deploy: Deploy, index: Index) -> Mirrored:
    """Makes clients of a mirror `pypi` of `index`, or of another `index_url`, with more fields."""

    def make(index_url: str = "", **fields: object) -> Asking:
        return Asking(deploy(mirror_table(index_url or index.index_url, **fields)))

    return make


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Moves the time of the servers in this process."""
    return Clock(monkeypatch)
