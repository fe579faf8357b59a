"""Trouble at every single request: never a wrong answer, never a lost or half-visible file."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from private_pypi.backend import Secret
from private_pypi.errors import BackendError, FileAlreadyExists, NotAllowed, WrongSecret
from private_pypi.model import StoredFile
from private_pypi.testing.contract.helpers import (
    content_of,
    make_upload,
    new_folders,
    outcome,
    published,
)
from private_pypi_oci import OciBackend, OciSettings
from private_pypi_oci.backend import OciStorage
from tests.oci.faults import KINDS, Faults, Kind, before
from tests.oci.registries import registry

pytestmark = pytest.mark.needs("docker-registry")

WHEEL = "demo-1.0-py3-none-any.whl"
MOST = 60  # requests that one call makes


@pytest.fixture(scope="module")
def through(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Faults]]:
    """A registry behind a proxy."""
    folder = tmp_path_factory.mktemp("faults")
    with registry(folder / "registry", bearer=True) as running, before(running.url) as found:
        yield found


def server(url: str, tmp_path: Path, namespace: str) -> OciStorage:
    """A server that was just started."""
    settings = OciSettings(
        name="mine",
        max_file_bytes=1 << 30,
        registry=url,
        namespace=namespace,
        plain_http=True,
    )
    backend = OciBackend(settings, new_folders(tmp_path))
    return OciStorage(backend, Secret("walter:write-secret"))


def files(storage: OciStorage) -> list[StoredFile]:
    return list(storage.project_files("demo"))


@pytest.mark.needs("time")
@pytest.mark.parametrize("kind", ["reset after", "404 of a proxy"])
def test_publishing(through: tuple[str, Faults], tmp_path: Path, kind: Kind) -> None:
    """Success means published; an error means whole or not at all; again makes it whole."""
    url, faults = through
    for at in range(1, MOST):
        namespace = f"acme/{kind.replace(' ', '')}{at}"
        upload = make_upload(tmp_path, WHEEL, b"content")
        writer = server(url, tmp_path, namespace)
        faults.fail(kind, at=at)
        result = outcome(writer.put_file, upload)
        asked = list(faults.asked)
        faults.heal()
        reader = server(url, tmp_path, namespace)
        shown = outcome(lambda reader=reader: files(reader))
        if isinstance(result, StoredFile):
            assert [stored.filename for stored in shown] == [WHEEL], asked[at - 1]
        else:
            assert isinstance(result, (BackendError, NotAllowed, WrongSecret)), (result, asked)
        if isinstance(shown, list) and shown:
            file = published(upload, shown[0])
            assert content_of(reader.open_file(file)) == b"content"
            assert content_of(reader.open_core_metadata(file)) == upload.core_metadata
        assert writer.put_file(upload).sha256 == upload.file.sha256
        [stored] = files(server(url, tmp_path, namespace))
        assert stored.record is not None
        other = make_upload(tmp_path, WHEEL, b"CONTENT")
        with pytest.raises(FileAlreadyExists):
            server(url, tmp_path, namespace).put_file(other)
        if len(asked) < at:
            break  # all of its requests have failed once
        gc.collect()
    else:
        raise AssertionError(f"more than {MOST} requests")
    assert at > 10


@pytest.mark.parametrize("kind", KINDS)
def test_reading(through: tuple[str, Faults], tmp_path: Path, kind: Kind) -> None:
    """Trouble is an error: never a shorter listing, an absence or other bytes."""
    url, faults = through
    faults.heal()
    namespace = f"read/{kind.replace(' ', '')}"
    writer = server(url, tmp_path, namespace)
    uploads = [
        make_upload(tmp_path, name, name.encode() * 1000)
        for name in (WHEEL, "demo-2.0-py3-none-any.whl")
    ]
    stored = [writer.put_file(upload) for upload in uploads]
    file = published(uploads[0], stored[0])
    right: dict[str, tuple[Callable[[OciStorage], Any], Any]] = {
        "files": (
            lambda each: sorted((s.filename, s.sha256) for s in files(each)),
            sorted((s.filename, s.sha256) for s in stored),
        ),
        "open": (lambda each: content_of(each.open_file(file)), WHEEL.encode() * 1000),
        "metadata": (
            lambda each: content_of(each.open_core_metadata(file)),
            uploads[0].core_metadata,
        ),
        "part": (lambda each: each.read_part(stored[0].location, 3, 4), b"o-1."),
        "access": (lambda each: each.access("demo").name, "WRITE"),
    }
    for what, (ask, expected) in right.items():
        faults.heal()
        assert ask(server(url, tmp_path, namespace)) == expected
        count = len(faults.asked)
        for at in range(1, count + 1):
            reader = server(url, tmp_path, namespace)
            faults.fail(kind, at=at)
            result = outcome(ask, reader)
            line = faults.asked[at - 1] if len(faults.asked) >= at else ""
            faults.heal()
            is_trouble = isinstance(result, BackendError | NotAllowed)
            # A registry that refuses to push lets us read.
            may_read = (what, kind, result) == ("access", "403", "READ")
            assert is_trouble or result == expected or may_read, (what, at, line, result)
            assert ask(reader) == expected, (what, at, line)
