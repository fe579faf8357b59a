"""One sync for all that wait for one."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from private_pypi.system.shared_sync import SharedSync
from tests.waiting import eventually


class Disk:
    """Takes the place of `os.fsync`: each sync waits for its turn, and may fail."""

    def __init__(self) -> None:
        self.begun = 0
        self.turns = threading.Semaphore(0)
        self.fails: set[int] = set()  # numbers of syncs, from 1

    def fsync(self, _descriptor: int) -> None:
        self.begun += 1
        number = self.begun
        assert self.turns.acquire(timeout=30)
        if number in self.fails:
            raise OSError(errno.EIO, os.strerror(errno.EIO))


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    disk = Disk()
    monkeypatch.setattr(os, "fsync", disk.fsync)
    return disk


@pytest.fixture
def file(tmp_path: Path) -> Iterator[SharedSync]:
    file = SharedSync(os.open(tmp_path / "file", os.O_WRONLY | os.O_CREAT))
    yield file
    file.close()


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as threads:
        yield threads


def sync(file: SharedSync, threads: ThreadPoolExecutor, count: int) -> list[Future[None]]:
    """Let so many threads sync, and return when all of them have begun to wait."""

    def hold_and_sync() -> None:
        file.hold()
        file.sync()

    before = file.users
    waiting = [threads.submit(hold_and_sync) for _ in range(count)]
    eventually(lambda: file.users == before + count, "all threads hold the file")
    return waiting


def test_all_that_came_during_one_sync_share_the_next(
    file: SharedSync, disk: Disk, threads: ThreadPoolExecutor
) -> None:
    first = sync(file, threads, 1)
    eventually(lambda: disk.begun == 1, "the first sync has begun")
    others = sync(file, threads, 7)
    disk.turns.release()
    first[0].result(timeout=30)
    eventually(lambda: disk.begun == 2, "the second sync has begun")
    # What they wrote may have come too late for the first sync.
    assert not any(other.done() for other in others)
    disk.turns.release()
    for other in others:
        other.result(timeout=30)
    assert disk.begun == 2


def test_an_error_is_told_to_all_whom_the_sync_was_for(
    file: SharedSync, disk: Disk, threads: ThreadPoolExecutor
) -> None:
    disk.fails = {2}
    first = sync(file, threads, 1)
    eventually(lambda: disk.begun == 1, "the first sync has begun")
    others = sync(file, threads, 3)
    disk.turns.release(2)
    first[0].result(timeout=30)
    for other in others:
        with pytest.raises(OSError, match="Input/output error"):
            other.result(timeout=30)
    later = sync(file, threads, 1)
    disk.turns.release()
    later[0].result(timeout=30)
    assert disk.begun == 3


def test_a_file_is_open_until_nobody_holds_it(file: SharedSync, tmp_path: Path) -> None:
    file.hold()
    os.write(file.descriptor, b"written before the file was closed")
    descriptor = file.descriptor
    file.close()
    os.fstat(descriptor)
    file.sync()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)
