"""The disk cache: checked, bounded, and never the only copy."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from private_pypi.errors import BackendError
from private_pypi.file_cache import FileCache


def make_cache(tmp_path: Path, max_bytes: int = 1000) -> FileCache:
    (tmp_path / "tmp").mkdir()
    return FileCache(tmp_path / "files", tmp_path / "tmp", max_bytes=max_bytes)


def test_what_was_added_is_found(tmp_path: Path) -> None:
    cache = make_cache(tmp_path)
    sha256 = hashlib.sha256(b"content").hexdigest()
    assert cache.find(sha256) is None
    path = cache.add(sha256, iter([b"con", b"tent"]))
    assert path.read_bytes() == b"content"
    assert cache.find(sha256) == path


def test_other_bytes_than_the_index_says_are_trouble_and_leave_nothing(tmp_path: Path) -> None:
    cache = make_cache(tmp_path)
    sha256 = hashlib.sha256(b"content").hexdigest()
    with pytest.raises(BackendError, match="the index says"):
        cache.add(sha256, iter([b"something else"]))
    assert cache.find(sha256) is None
    assert list((tmp_path / "tmp").iterdir()) == []


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
        content = bytes([number]) * 200
        path = cache.add(hashlib.sha256(content).hexdigest(), iter([content]))
        os.utime(path, (number, number))  # nobody has asked for it lately
        found.append(path)
        kept = [path for path in found if path.exists()]
        assert sum(path.stat().st_size for path in kept) <= 1000
        assert kept == found[-len(kept) :]
        assert table.size == cache.size == 200 * len(kept)


def test_a_transfer_that_breaks_leaves_nothing(tmp_path: Path) -> None:
    cache = make_cache(tmp_path)

    def broken():  # type: ignore[no-untyped-def]
        yield b"con"
        raise BackendError("connection reset")

    with pytest.raises(BackendError, match="connection reset"):
        cache.add(hashlib.sha256(b"content").hexdigest(), broken())
    assert list((tmp_path / "tmp").iterdir()) == []


def test_files_that_nobody_asked_for_make_room(tmp_path: Path) -> None:
    cache = make_cache(tmp_path, max_bytes=800)
    names = []
    for number in range(4):
        content = bytes([number]) * 300
        names.append(hashlib.sha256(content).hexdigest())
        path = cache.add(names[-1], iter([content]))
        if number < 3:
            os.utime(path, (number, number))  # asked for long ago, the first one longest
    found = [cache.find(name) is not None for name in names]
    assert found == [False, False, True, True]


def test_it_counts_what_it_finds_and_knows_what_it_keeps(tmp_path: Path) -> None:
    cache = make_cache(tmp_path)
    sha256 = hashlib.sha256(b"content").hexdigest()
    assert (cache.hits, cache.misses, cache.size) == (0, 0, None)
    cache.find(sha256)
    cache.add(sha256, iter([b"content"]))
    cache.find(sha256)
    cache.find(sha256)
    assert (cache.hits, cache.misses, cache.size) == (2, 1, len(b"content"))
