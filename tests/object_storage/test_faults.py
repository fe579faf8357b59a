"""Trouble at every single request, and writers that are killed at every step."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from private_pypi.backend import Secret
from private_pypi.errors import BackendError, FileAlreadyExists, FileNotFound, StaleIndex
from private_pypi.index.examining import with_record
from private_pypi.model import StoredFile
from private_pypi.testing.contract import BackendContract
from private_pypi.testing.contract.helpers import (
    MIB,
    content_of,
    document,
    folder,
    make_upload,
    outcome,
    published,
)
from private_pypi.testing.contract.processes import child_process
from private_pypi_object_storage import store as stores
from private_pypi_object_storage.backend import ObjectStorageView
from private_pypi_object_storage.store import CloudStore
from tests.object_storage.running import Running
from tests.object_storage.seaweed import Seaweed
from tests.object_storage.servers import server
from tests.oci.faults import KINDS, Faults, Kind, before

pytestmark = pytest.mark.needs("weed", "azurite")

WHEEL = "demo-1.0-py3-none-any.whl"
COPIES = {"s3": "header:if-none-match:*", "az": "native"}
MOST = 30  # requests that one call makes


Through = tuple[Running, Faults]
"""A store behind a proxy, and what makes this fail."""


@pytest.fixture(scope="module")
def through(seaweed: Seaweed) -> Iterator[Through]:
    with before(seaweed.url) as (url, faults):
        yield replace(seaweed, url=url), faults


@pytest.fixture(scope="module")
def through_each(each_store: Running) -> Iterator[Through]:
    with before(each_store.url) as (url, faults):
        yield replace(each_store, url=url), faults


def ready(store: Running, prefix: str, tmp_path: Path) -> ObjectStorageView:
    """A server that knows already that the store heeds conditions."""
    storage = server(store, prefix, tmp_path)
    assert isinstance(storage.backend.store, CloudStore)
    storage.backend.store.copies = COPIES[store.scheme]
    storage.backend._checked.set()
    return storage


def recent(storage: ObjectStorageView) -> list[str]:
    since = datetime.now(UTC) - timedelta(minutes=1)
    return [each.filename for each in storage.recent_files(since)]


def check_whole(storage: ObjectStorageView, upload: Any) -> None:
    """The file is there with all that belongs to it, also in the journal."""
    [stored] = [with_record(storage, each) for each in storage.list_files()]
    assert (stored.sha256, stored.record) == (upload.file.sha256, upload.record)
    file = published(upload, stored)
    assert content_of(storage.open_file(file)) == upload.content.read_bytes()
    assert content_of(storage.open_core_metadata(file)) == upload.core_metadata
    assert recent(storage) == [upload.file.filename]


@pytest.mark.parametrize("kind", ["reset", "reset after", "502 after", "404 of a proxy", "403"])
def test_publishing(through_each: Through, prefix: str, tmp_path: Path, kind: Kind) -> None:
    """Success means published; an error means whole or not at all; again makes it whole."""
    store, faults = through_each
    for at in range(1, MOST):
        faults.heal()
        writer = ready(store, f"{prefix}/{at}", tmp_path)
        upload = make_upload(tmp_path, WHEEL, b"content")
        faults.fail(kind, at=at)
        result = outcome(writer.put_file, upload)
        asked = list(faults.asked)
        faults.heal()
        reader = server(store, f"{prefix}/{at}", tmp_path)
        shown = list(reader.list_files())
        if isinstance(result, StoredFile):
            check_whole(reader, upload)
        else:
            assert isinstance(result, BackendError), (result, asked)
            assert [each.filename for each in shown] in ([], [WHEEL])
        assert isinstance(writer.put_file(upload), StoredFile)
        check_whole(reader, upload)
        with pytest.raises(FileAlreadyExists):
            reader.put_file(make_upload(tmp_path, WHEEL, b"CONTENT"))
        if len(asked) < at:
            break  # all of its requests have failed once
    else:
        raise AssertionError(f"more than {MOST} requests")
    assert at > 5


@pytest.mark.parametrize("kind", KINDS)
def test_reading(through_each: Through, prefix: str, tmp_path: Path, kind: Kind) -> None:
    """Trouble is an error: never a shorter listing, an absence or other bytes."""
    store, faults = through_each
    faults.heal()
    writer = ready(store, prefix, tmp_path)
    uploads = [
        make_upload(tmp_path, name, name.encode() * 1000)
        for name in (WHEEL, "demo-2.0-py3-none-any.whl")
    ]
    stored = [writer.put_file(upload) for upload in uploads]
    revision = writer.write_index(document(tmp_path, b"mtime = 1\n" * 100), "")
    file = published(uploads[0], stored[0])
    names = sorted(each.filename for each in stored)
    into = tmp_path / "index.toml"
    right: dict[str, tuple[Callable[[], Any], Any]] = {
        "files": (lambda: sorted(each.filename for each in writer.list_files()), names),
        "recent": (lambda: sorted(recent(writer)), names),
        "record": (lambda: writer.read_record(stored[0]), uploads[0].record),
        "open": (lambda: content_of(writer.open_file(file)), WHEEL.encode() * 1000),
        "metadata": (
            lambda: content_of(writer.open_core_metadata(file)),
            uploads[0].core_metadata,
        ),
        "part": (lambda: writer.read_part(stored[0].location, 3, 4), b"o-1."),
        "index": (lambda: writer.read_index(into), revision),
    }
    for what, (ask, expected) in right.items():
        faults.heal()
        assert ask() == expected
        for at in range(1, len(faults.asked) + 1):
            faults.fail(kind, at=at)
            result = outcome(ask)
            line = faults.asked[at - 1] if len(faults.asked) >= at else ""
            count = len(faults.asked)
            faults.heal()
            assert isinstance(result, BackendError) or result == expected, (what, at, line, result)
            assert count <= at + (what == "files"), (what, "is repeated here")
            assert ask() == expected, (what, at, line)


@pytest.mark.parametrize("kind", ["reset", "reset after", "502 after"])
def test_deleting(through_each: Through, prefix: str, tmp_path: Path, kind: Kind) -> None:
    """A deletion that was interrupted is completed by the next one, and leaves nothing."""
    store, faults = through_each
    for at in range(1, MOST):
        faults.heal()
        writer = ready(store, f"{prefix}/{at}", tmp_path)
        upload = make_upload(tmp_path, WHEEL, b"content")
        file = published(upload, writer.put_file(upload))
        faults.fail(kind, at=at)
        result = outcome(writer.delete_file, file)
        asked = list(faults.asked)
        faults.heal()
        assert result is None or isinstance(result, BackendError)
        assert len(asked) < at or result is not None
        writer.delete_file(file)
        assert list(writer.list_files()) == []
        assert recent(writer) == []
        with pytest.raises(FileNotFound):
            content_of(writer.open_file(file))
        if len(asked) < at:
            break
    assert at > 3


def test_an_answer_that_was_lost_writes_no_index_twice(
    through: Through, prefix: str, tmp_path: Path
) -> None:
    """Whoever has not heard that its document was written reads it again."""
    store, faults = through
    faults.heal()
    writer = ready(store, prefix, tmp_path)
    first, second = (document(tmp_path, b"mtime = %d\n" % number) for number in (1, 2))
    revision = writer.write_index(first, "")
    faults.fail("reset after", at=1)
    assert isinstance(outcome(writer.write_index, second, revision), BackendError)
    faults.heal()
    with pytest.raises(StaleIndex):
        writer.write_index(second, revision)
    into = tmp_path / "index.toml"
    writer.read_index(into)
    assert into.read_bytes() == second.read_bytes()


# -- killed writers ------------------------------------------------------------------------------

STEPS = ("list", "put", "delete", "_put", "_copy")
SIZES = {"small": 7, "large": 11 * MIB}


def put_until(
    connection: Any, on: Running, prefix: str, tmp_path: Path, size: str, step: int, after: bool
) -> None:
    """In a child process: publish a file, and be killed before or after a step of that."""
    stores._WHOLE = MIB  # type: ignore[misc]
    stores._PART = 5 * MIB  # type: ignore[misc]
    storage = ready(on, prefix, tmp_path)
    done = 0

    def counting(method: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        nonlocal done
        done += 1
        mine = done
        if mine == step and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        found = method(*arguments, **named)
        if mine == step:
            if isinstance(found, Iterator):
                list(found)
            os.kill(os.getpid(), signal.SIGKILL)
        return found

    store = storage.backend.store
    assert isinstance(store, CloudStore)
    for name in STEPS:
        setattr(store, name, partial(counting, getattr(store, name)))
    storage.put_file(make_upload(tmp_path, WHEEL, b"x" * SIZES[size]))
    connection.send("stored")


# The steps for a small file are the same over both stores. A large one is copied otherwise.
@pytest.mark.parametrize(
    ("store", "size"), [("seaweed", "small"), ("seaweed", "large"), ("azurite", "large")]
)
def test_a_writer_that_is_killed_at_any_step_leaves_a_whole_file_or_none(
    request: pytest.FixtureRequest, prefix: str, tmp_path: Path, store: str, size: str
) -> None:
    """No step hides a file from those who come later, or shows half of one."""
    running: Running = request.getfixturevalue(store)
    upload = make_upload(tmp_path, WHEEL, b"x" * SIZES[size])
    ends = 0
    for step in range(1, MOST):
        after = bool(step % 2)  # with the number of the step, each gap between two is looked at
        at = f"{prefix}/{step}"
        arguments = (running, at, folder(tmp_path), size, step, after)
        with child_process(put_until, *arguments) as child:
            child._process.join(60)
            is_stored = "stored" in child.received()
        reader = server(running, at, tmp_path)
        listed = [with_record(reader, each) for each in reader.list_files()]
        if is_stored:
            check_whole(reader, upload)
        for stored in listed:
            assert (stored.sha256, stored.record) == (upload.file.sha256, upload.record)
            content = content_of(reader.open_file(published(upload, stored)))
            assert content == upload.content.read_bytes()
        other = make_upload(tmp_path, WHEEL, b"other")
        if listed:
            with pytest.raises(FileAlreadyExists):
                reader.put_file(other)
        writer = ObjectStorageView(reader.backend, Secret(BackendContract.write_secret))
        writer.put_file(upload)
        check_whole(writer, upload)
        if is_stored:
            ends = step
            break
    assert ends > 5
