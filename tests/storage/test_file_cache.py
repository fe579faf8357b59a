"""The disk cache: checked, bounded, and never the only copy."""

from __future__ import annotations

import hashlib
import logging
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from private_pypi.errors import BackendError, BackendUnavailable, PrivatePypiError
from private_pypi.model import LocalFile, Redirect, Stream
from private_pypi.storage.arriving import Arriving
from private_pypi.storage.file_cache import CachedFile, FileCache
from tests.waiting import eventually

CONTENT = b"content" * 10_000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


def make_cache(tmp_path: Path, max_bytes: int = 1_000_000) -> FileCache:
    (tmp_path / "tmp").mkdir()
    return FileCache(tmp_path / "files", tmp_path / "tmp", max_bytes=max_bytes)


def stream(content: bytes, size: int | None = None) -> Stream:
    pieces = [content[start : start + 1000] for start in range(0, len(content), 1000)]
    return Stream(iter(pieces), len(content) if size is None else size)


def fetch(
    cache: FileCache,
    ask: Callable[[], Stream | Redirect | LocalFile],
    size: int | None = len(CONTENT),
) -> bytes | PrivatePypiError:
    """What becomes of a file that is asked for."""
    found = cache.fetch(SHA256, lambda arriving: ask(), sha256=SHA256, size=size)
    if isinstance(found, CachedFile):
        return read(found)
    found.wait_for_all()
    if found.error is not None:
        return found.error
    assert found.size is not None
    return found.peek(0, found.size)


def read(found: CachedFile | None) -> bytes:
    assert found is not None
    with found.file:
        return found.file.read()


def keep(cache: FileCache, content: bytes) -> Path:
    """The entry of a small file."""
    sha256 = hashlib.sha256(content).hexdigest()
    cache.keep(sha256, content)
    return cache._folder / sha256[:2] / sha256


def nothing() -> Stream:
    raise AssertionError("the storage was asked")


def test_what_arrived_is_found(tmp_path: Path) -> None:
    cache = make_cache(tmp_path)
    assert cache.find(SHA256) is None
    assert fetch(cache, lambda: stream(CONTENT)) == CONTENT
    eventually(lambda: cache.size == len(CONTENT), "it is kept")
    assert read(cache.find(SHA256, len(CONTENT))) == CONTENT
    assert fetch(cache, nothing) == CONTENT
    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_file_that_a_remote_storage_has_here_arrives_for_all_who_wait(tmp_path: Path) -> None:
    """An open file has one reader; what is in the cache may have many."""
    (tmp_path / "there").write_bytes(CONTENT)
    cache = make_cache(tmp_path)
    there = (tmp_path / "there").open("rb")
    assert fetch(cache, lambda: LocalFile(there)) == CONTENT
    eventually(lambda: cache.size == len(CONTENT), "it is kept")
    assert there.closed
    assert read(cache.find(SHA256)) == CONTENT


def test_a_file_of_unknown_size_is_found_too(tmp_path: Path) -> None:
    cache = make_cache(tmp_path)
    assert fetch(cache, lambda: stream(CONTENT, size=0), size=None) == CONTENT
    eventually(lambda: cache.size == len(CONTENT), "it is kept")
    assert fetch(cache, nothing, size=None) == CONTENT


def broken() -> Iterator[bytes]:
    yield CONTENT[:1000]
    raise BackendUnavailable("connection reset")


@pytest.mark.parametrize(
    ("send", "error", "said"),
    [
        (lambda: stream(CONTENT[:-1] + b"x"), BackendError, "the index says"),
        (lambda: stream(CONTENT[:-1], len(CONTENT)), BackendUnavailable, "then nothing more"),
        (lambda: stream(CONTENT + b"x", len(CONTENT)), BackendError, "sends more than"),
        (lambda: stream(CONTENT[:-1]), BackendError, "where the index says"),
        (lambda: Stream(broken(), len(CONTENT)), BackendUnavailable, "connection reset"),
    ],
    ids=["other", "cut", "longer", "announced", "broken"],
)
def test_other_bytes_than_the_index_says_are_trouble_and_leave_nothing(
    tmp_path: Path, send: Callable[[], Stream], error: type[PrivatePypiError], said: str
) -> None:
    cache = make_cache(tmp_path)
    found = fetch(cache, send)
    assert type(found) is error
    assert said in str(found)
    assert cache.find(SHA256) is None
    eventually(lambda: list((tmp_path / "tmp").iterdir()) == [], "nothing is left")


def test_a_transfer_that_breaks_off_goes_on_where_it_was(tmp_path: Path) -> None:
    cache = make_cache(tmp_path)
    sent = [Stream(broken(), len(CONTENT)), stream(CONTENT[:40_000], len(CONTENT)), stream(CONTENT)]
    assert fetch(cache, lambda: sent.pop(0)) == CONTENT
    assert sent == []


def test_a_file_that_lies_elsewhere_is_not_kept(tmp_path: Path) -> None:
    cache = make_cache(tmp_path)
    there = Redirect("https://example.com/signed", None)
    found = cache.fetch(SHA256, lambda arriving: there, sha256=SHA256, size=len(CONTENT))
    assert isinstance(found, Arriving)
    assert found.wait(seconds=10)
    assert found.outcome() == there
    assert cache.find(SHA256) is None


def truncate(entry: Path) -> None:
    os.truncate(entry, 0)


def change(entry: Path) -> None:
    entry.write_bytes(b"x" + CONTENT[1:])


def change_and_hide(entry: Path) -> None:
    """As a power cut may leave a file: all zeros, and no trace of a change but its size."""
    stat = entry.stat()
    os.truncate(entry, len(CONTENT) - 1)
    os.utime(entry, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@pytest.mark.parametrize("damage", [truncate, change, change_and_hide])
def test_a_damaged_entry_is_dropped_and_fetched_again(
    tmp_path: Path, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    cache = make_cache(tmp_path)
    entry = keep(cache, CONTENT)
    damage(entry)
    assert cache.find(SHA256, len(CONTENT)) is None
    assert not entry.exists()
    assert fetch(cache, lambda: stream(CONTENT)) == CONTENT
    assert cache.damaged == 1
    assert [each.message for each in caplog.records if "is dropped" in each.message] != []


def test_an_entry_of_an_earlier_version_is_checked_once(tmp_path: Path) -> None:
    cache = make_cache(tmp_path)
    entry = keep(cache, CONTENT)
    os.utime(entry)  # the time of its last use
    assert read(cache.find(SHA256, len(CONTENT))) == CONTENT
    # From now on it is told by its time.
    with entry.open("r+b") as file:
        file.write(b"x")
    os.utime(entry, (0, 1_000_000_000))
    assert read(cache.find(SHA256, len(CONTENT))) != CONTENT


def test_entries_that_cannot_be_read_are_fetched(tmp_path: Path) -> None:
    cache = make_cache(tmp_path)
    entry = keep(cache, CONTENT)
    entry.unlink()
    entry.mkdir()
    (entry / "in the way").touch()
    assert fetch(cache, lambda: stream(CONTENT)) == CONTENT
    eventually(lambda: cache.not_kept == 1, "it cannot be kept")


def test_a_folder_that_takes_nothing_is_no_trouble(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache = FileCache(tmp_path / "files", tmp_path / "nowhere", max_bytes=1000)
    keep(cache, b"small")
    assert fetch(cache, lambda: stream(CONTENT)) == CONTENT
    eventually(lambda: cache.not_kept == 2, "both were noted")
    told = [each.message for each in caplog.records if each.levelno == logging.WARNING]
    assert told == [
        f"files are handed on without being kept: {tmp_path}/nowhere or {tmp_path}/files "
        "cannot be written: No such file or directory"
    ]
    # And again after it was mended in between.
    (tmp_path / "nowhere").mkdir()
    keep(cache, b"small")
    (tmp_path / "nowhere").rmdir()
    keep(cache, b"other")
    assert len([each for each in caplog.records if each.levelno == logging.WARNING]) == 2


def test_caches_below_another_share_its_limit(tmp_path: Path) -> None:
    """Also those that nobody has opened since the start."""
    (tmp_path / "tmp").mkdir()
    table = FileCache(
        tmp_path / "files", tmp_path / "tmp", max_bytes=1000, others="tenants/*/files"
    )
    found = []
    for number in range(12):
        folder = tmp_path / "tenants" / f"owner-{number}" / "files"
        cache = FileCache(folder, tmp_path / "tmp", max_bytes=1000, of=table)
        path = keep(cache, bytes([number]) * 200)
        os.utime(path, (number, path.stat().st_mtime))  # nobody has asked for it lately
        found.append(path)
        kept = [path for path in found if path.exists()]
        assert sum(path.stat().st_size for path in kept) <= 1000
        assert kept == found[-len(kept) :]
        assert table.size == cache.size == 200 * len(kept)


def test_files_that_nobody_asked_for_make_room(tmp_path: Path) -> None:
    cache = make_cache(tmp_path, max_bytes=800)
    paths = []
    for number in range(4):
        paths.append(keep(cache, bytes([number]) * 300))
        if number < 3:
            # Asked for long ago, the first one longest.
            os.utime(paths[-1], (number, paths[-1].stat().st_mtime))
    assert [path.exists() for path in paths] == [False, False, True, True]


def test_it_counts_what_it_finds_and_knows_what_it_keeps(tmp_path: Path) -> None:
    cache = make_cache(tmp_path)
    assert (cache.hits, cache.misses, cache.size) == (0, 0, None)
    cache.find(SHA256)
    keep(cache, CONTENT)
    for _ in range(2):
        read(cache.find(SHA256))
    assert fetch(cache, nothing) == CONTENT
    assert (cache.hits, cache.misses, cache.size) == (3, 1, len(CONTENT))


# -- small files ---------------------------------------------------------------------------------

SMALL = b"Metadata-Version: 2.1\n" * 100
SHA256_OF_SMALL = hashlib.sha256(SMALL).hexdigest()


def test_a_small_file_is_passed_on_before_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[bytes] = []
    read_first = threading.Event()
    keep_it = FileCache.keep

    def keep_later(self: FileCache, sha256: str, content: bytes) -> None:
        assert read_first.wait(10)
        written.append(content)
        keep_it(self, sha256, content)

    monkeypatch.setattr(FileCache, "keep", keep_later)
    cache = make_cache(tmp_path)
    arriving = cache.fetch(
        SHA256_OF_SMALL, lambda _: stream(SMALL), sha256=SHA256_OF_SMALL, size=len(SMALL)
    )
    assert isinstance(arriving, Arriving)
    arriving.wait_for_all()
    assert arriving.peek(0, len(SMALL)) == SMALL
    assert (list((tmp_path / "tmp").iterdir()), written) == ([], [])
    read_first.set()
    eventually(lambda: cache.has(SHA256_OF_SMALL))
    assert read(cache.find(SHA256_OF_SMALL)) == SMALL


@pytest.mark.parametrize("content", [b"", SMALL[:-1], b"x" + SMALL[1:]])
def test_a_small_file_that_a_power_cut_has_damaged_is_dropped(
    tmp_path: Path, content: bytes
) -> None:
    """It was not synced, so neither its time nor that it was used before counts."""
    cache = make_cache(tmp_path)
    entry = keep(cache, SMALL)
    assert read(cache.find(SHA256_OF_SMALL)) == SMALL
    stat = entry.stat()
    entry.write_bytes(content)
    os.utime(entry, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert cache.find(SHA256_OF_SMALL) is None
    assert (entry.exists(), cache.damaged) == (False, 1)


def test_only_what_is_small_is_not_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    sync = os.fsync

    def note(file: int) -> None:
        synced.append(os.fstat(file).st_size)
        sync(file)

    monkeypatch.setattr(os, "fsync", note)
    cache = make_cache(tmp_path)
    keep(cache, SMALL)
    keep(cache, CONTENT)
    cache._drop(cache._path(SHA256), "for this test")
    assert fetch(cache, lambda: stream(CONTENT)) == CONTENT
    eventually(lambda: cache.has(SHA256))
    assert synced == [len(CONTENT)] * 2
