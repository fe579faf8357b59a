"""How a file is checked that arrives, if its SHA-256 is not known before."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from private_pypi.errors import BackendError, BackendUnavailable
from private_pypi.model import Stream
from private_pypi.storage import file_cache
from private_pypi.storage.arriving import WITHHELD, Arriving, Check
from private_pypi.storage.file_cache import CachedFile, FileCache
from private_pypi.storage.remote_files import ReadPart

CONTENT = os.urandom(1 << 18)
SHA256 = hashlib.sha256(CONTENT).hexdigest()

Arrived = Callable[[str, int, ReadPart | None], None]


def accept(sha256: str, size: int, read: ReadPart | None) -> None:
    assert (sha256, size) == (SHA256, len(CONTENT))


def check(
    hashes: Mapping[str, str] | None = None, *, arrived: Arrived = accept, largest: int = 1 << 20
) -> Check:
    return Check(hashes=hashes or {}, arrived=arrived, largest=largest)


def begun(
    tmp_path: Path, check: Check, *, announced: int = len(CONTENT), on_disk: bool = True
) -> Arriving:
    arriving = Arriving("a file", sha256=None, size=None, check=check)
    arriving.begin(announced, tmp_path / ("scratch" if on_disk else "nowhere/scratch"))
    return arriving


@pytest.mark.parametrize("announced", [len(CONTENT), 0])
def test_all_but_the_end_is_read_while_it_arrives_if_the_size_is_announced(
    tmp_path: Path, announced: int
) -> None:
    arriving = begun(tmp_path, check(), announced=announced)
    arriving.feed(CONTENT[:100_000])
    assert arriving.has(99_999) == bool(announced)
    arriving.feed(CONTENT[100_000:])
    assert arriving.has(len(CONTENT) - WITHHELD - 1) == bool(announced)
    assert not arriving.has(len(CONTENT) - WITHHELD)
    arriving.finish()
    assert (arriving.sha256, arriving.size) == (SHA256, len(CONTENT))
    part = arriving.part(0, len(CONTENT))
    assert part.read() == CONTENT
    part.close()


@pytest.mark.parametrize("algorithm", ["sha512", "sha3_256", "blake2s", "sha1", "md5"])
def test_the_strongest_hash_is_compared(tmp_path: Path, algorithm: str) -> None:
    right = {algorithm: hashlib.new(algorithm, CONTENT).hexdigest(), "unknown": "0"}
    wrong = {**right, "md5": "0" * 32, algorithm: right[algorithm][::-1]}
    for number, hashes in enumerate((right, wrong)):
        folder = tmp_path / str(number)
        folder.mkdir()
        arriving = begun(folder, check(hashes))
        assert arriving.is_verifiable
        arriving.feed(CONTENT)
        if hashes is right:
            arriving.finish()
            continue
        with pytest.raises(BackendError, match=f"with {algorithm} .*, the index says"):
            arriving.finish()
        assert not arriving.is_whole
        assert not arriving.has(len(CONTENT) - 1)


def test_unknown_algorithms_are_no_hash(tmp_path: Path) -> None:
    assert not begun(tmp_path, check({"crc32": "0"})).is_verifiable
    assert check({"crc32": "0"}).digest() is None
    assert check({"md5": "1", "sha512": "2"}).digest() == ("sha512", "2")


def test_who_is_told_of_the_end_may_read_and_refuse(tmp_path: Path) -> None:
    def refuse(sha256: str, size: int, read: ReadPart | None) -> None:
        assert read is not None
        assert (read(0, 10), read(size - 5, 100)) == (CONTENT[:10], CONTENT[-5:])
        raise BackendError("it is damaged")

    arriving = begun(tmp_path, check(arrived=refuse))
    arriving.feed(CONTENT)
    with pytest.raises(BackendError, match="it is damaged"):
        arriving.finish()
    assert not arriving.has(len(CONTENT) - WITHHELD)


def test_what_the_disk_did_not_take_cannot_be_read(tmp_path: Path) -> None:
    readers: list[ReadPart | None] = []
    arriving = begun(
        tmp_path, check(arrived=lambda _, __, read: readers.append(read)), on_disk=False
    )
    part = arriving.part(0, len(CONTENT))
    arriving.feed(CONTENT)
    arriving.finish()
    assert readers == [None]
    assert part.read() == CONTENT
    part.close()


def test_a_size_that_is_not_known_has_a_limit(tmp_path: Path) -> None:
    arriving = begun(tmp_path, check(largest=1000), announced=0)
    arriving.feed(CONTENT[:1000])
    with pytest.raises(BackendError, match="more than the 1000 bytes allowed"):
        arriving.feed(b"x")


def test_more_than_was_announced_is_an_error(tmp_path: Path) -> None:
    arriving = begun(tmp_path, check(), announced=1000)
    with pytest.raises(BackendError, match="more than the 1000 bytes"):
        arriving.feed(CONTENT)


# -- in a cache ----------------------------------------------------------------------------------


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FileCache:
    monkeypatch.setattr(file_cache, "_PAUSE", 0.0)
    (tmp_path / "tmp").mkdir()
    return FileCache(tmp_path / "cache", tmp_path / "tmp", max_bytes=1 << 30)


def breaking(content: bytes, after: int) -> Iterator[bytes]:
    yield content[:after]
    raise BackendUnavailable("it breaks off")


@pytest.mark.parametrize("has_hash", [True, False])
def test_a_transfer_that_breaks_off_is_continued_if_the_whole_can_be_verified(
    cache: FileCache, has_hash: bool
) -> None:
    asked = []

    def ask(arriving: Arriving) -> Stream:
        asked.append(arriving)
        chunks = breaking(CONTENT, 100_000) if len(asked) == 1 else iter([CONTENT])
        return Stream(chunks, len(CONTENT))

    hashes = {"md5": hashlib.md5(CONTENT).hexdigest()} if has_hash else {}
    found = cache.fetch("key", ask, sha256=None, size=None, check=check(hashes))
    assert isinstance(found, Arriving)
    found.wait_for_all()
    assert len(asked) == (2 if has_hash else 1)
    assert found.is_whole == has_hash
    assert (found.error is None) == has_hash


def test_nothing_of_a_transfer_without_hash_that_never_began_is_lost(cache: FileCache) -> None:
    asked = []

    def ask(arriving: Arriving) -> Stream:
        asked.append(arriving)
        chunks = breaking(b"", 0) if len(asked) == 1 else iter([CONTENT])
        return Stream(chunks, len(CONTENT))

    found = cache.fetch("key", ask, sha256=None, size=None, check=check())
    assert isinstance(found, Arriving)
    found.wait_for_all()
    assert found.is_whole


def test_who_knows_the_hash_at_once_joins_the_transfer(cache: FileCache) -> None:
    joined: list[CachedFile | Arriving] = []

    def never(arriving: Arriving) -> Stream:
        raise AssertionError("it is here")

    def arrived(sha256: str, size: int, read: ReadPart | None) -> None:
        # As another request that reads the hash from the local index.
        joined.append(cache.fetch(sha256, never, sha256=sha256, size=size))

    found = cache.fetch(
        "key",
        lambda arriving: Stream(iter([CONTENT]), len(CONTENT)),
        sha256=None,
        size=None,
        check=check(arrived=arrived),
    )
    assert isinstance(found, Arriving)
    found.wait_for_all()
    assert joined == [found]
