"""Files of which only the needed parts are fetched."""

from __future__ import annotations

import io
import random
import tarfile
import zipfile
from typing import BinaryIO, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from private_pypi.distributions.core_metadata import read_core_metadata
from private_pypi.errors import BackendUnavailable
from private_pypi.storage.remote_files import RemoteFile
from private_pypi.testing.distributions import make_sdist, make_wheel

KIB = 1 << 10


class Remote:
    """Bytes elsewhere, and what was fetched of them."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.parts: list[tuple[int, int]] = []

    def read_part(self, start: int, length: int) -> bytes:
        self.parts.append((start, length))
        return self.content[start : start + length]

    def open(self) -> BinaryIO:
        return cast(BinaryIO, RemoteFile(len(self.content), self.read_part))

    @property
    def fetched(self) -> int:
        return sum(length for _, length in self.parts)


@given(
    size=st.sampled_from([0, 1, 65_535, 65_536, 65_537, 300_000]),
    moves=st.lists(
        st.tuples(st.integers(0, 310_000), st.integers(-1, 200_000)), min_size=1, max_size=8
    ),
)
def test_it_reads_as_the_whole_file_does(size: int, moves: list[tuple[int, int]]) -> None:
    content = random.Random(size).randbytes(size)
    remote, here = Remote(content).open(), io.BytesIO(content)
    for place, length in moves:
        assert remote.seek(place) == here.seek(place)
        assert remote.read(length) == here.read(length)
        assert remote.tell() == here.tell()
    assert remote.seek(0, io.SEEK_END) == size


def test_of_a_large_wheel_its_end_is_enough() -> None:
    files = {"demo.bin": random.Random(1).randbytes(4 << 20)}
    filename, content = make_wheel("demo", "1.0", requires_python=">=3.8", files=files)
    remote = Remote(content)
    metadata = read_core_metadata(remote.open(), filename)
    assert metadata is not None
    assert b"Requires-Python: >=3.8" in metadata
    assert remote.parts == [(len(content) - 64 * KIB, 64 * KIB)]


def test_of_a_wheel_with_its_metadata_in_front_two_parts_are_enough() -> None:
    filename, content = make_wheel("demo", "1.0")
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(buffer, "w") as new:
        new.writestr("demo-1.0.dist-info/METADATA", old.read("demo-1.0.dist-info/METADATA"))
        new.writestr("demo.bin", random.Random(1).randbytes(4 << 20))
    remote = Remote(buffer.getvalue())
    assert read_core_metadata(remote.open(), filename)
    assert len(remote.parts) == 2
    assert remote.fetched <= 128 * KIB


def test_of_an_sdist_no_more_is_read_than_up_to_its_pkg_info() -> None:
    filename, small = make_sdist("demo", "1.0")
    with tarfile.open(fileobj=io.BytesIO(small)) as archive:
        member = archive.extractfile("demo-1.0/PKG-INFO")
        assert member is not None
        pkg_info = member.read()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in (
            ("demo-1.0/first.bin", random.Random(1).randbytes(200 * KIB)),
            ("demo-1.0/PKG-INFO", pkg_info),
            ("demo-1.0/rest.bin", random.Random(2).randbytes(8 << 20)),
        ):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    remote = Remote(buffer.getvalue())
    assert read_core_metadata(remote.open(), filename) == pkg_info
    assert remote.fetched < 800 * KIB
    # Reading on gets more at a time.
    assert len(remote.parts) <= 4


def test_what_is_read_twice_is_fetched_once() -> None:
    remote = Remote(bytes(100 * KIB))
    file = remote.open()
    for _ in range(3):
        file.seek(0)
        assert len(file.read()) == 100 * KIB
    assert remote.fetched == 100 * KIB


def test_a_short_part_is_trouble_and_no_end() -> None:
    file = RemoteFile(1000, lambda start, length: bytes(length - 1))
    with pytest.raises(BackendUnavailable, match="sent 999 of 1000 bytes"):
        file.read()


def test_trouble_goes_through_the_readers_of_archives() -> None:
    def fail(start: int, length: int) -> bytes:
        raise BackendUnavailable("down")

    for filename in ("demo-1.0-py3-none-any.whl", "demo-1.0.tar.gz", "demo-1.0.zip"):
        with pytest.raises(BackendUnavailable, match="down"):
            read_core_metadata(cast(BinaryIO, RemoteFile(100_000, fail)), filename)
