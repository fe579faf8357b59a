"""The memory and the time that any archive can take are limited."""

from __future__ import annotations

import gzip
import io
import random
import struct
import tarfile
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from private_pypi.distributions import archives, tar_members
from private_pypi.distributions.archives import check_archive, most_unpacked, place_to_read
from private_pypi.distributions.core_metadata import parse_core_metadata, read_core_metadata
from private_pypi.distributions.descriptions import parse_description
from private_pypi.distributions.records import one_line
from private_pypi.errors import BackendUnavailable, InvalidUpload
from tests.archives_by_hand import (
    PKG_INFO,
    Zipped,
    make_tar_gz,
    make_zip,
    pax,
    pkg_info,
    tar_member,
    wheel_members,
)

MIB = 2**20
WHEEL = "demo-1.0-py3-none-any.whl"
SDIST = "demo-1.0.tar.gz"
HEAD = b"Metadata-Version: 2.1\nName: demo\nVersion: 1.0\n"


@contextmanager
def at_most(mib: int) -> Iterator[None]:
    """Check that at most this much memory is allocated at a time, in addition to that before."""
    tracemalloc.start()
    try:
        yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < mib * MIB, f"{peak / MIB:.1f} MiB"


def wheel(**changes: bytes) -> tuple[str, bytes]:
    return WHEEL, make_zip(wheel_members(**changes))


def behind_a_deflate_stream() -> tuple[str, bytes]:
    hidden = random.Random(1).randbytes(MIB) * 64
    ends_at_once = Zipped(name=b"big", packed=b"\x03\x00" + hidden)
    return WHEEL, make_zip([ends_at_once, *wheel_members()])


def tar(*members: bytes) -> tuple[str, bytes]:
    return SDIST, make_tar_gz(*members)


LARGE = b"\n" * (16 * MIB)

# Which archive is made, how many MiB its check may take, and the resulting message.
UPLOADS: dict[str, tuple[Callable[[], tuple[str, bytes]], int, str]] = {
    "a RECORD of short rows": (
        lambda: wheel(RECORD=b"a,,\n" * (4 * MIB - 1)),
        24,
        "1000 or more rows of RECORD are wrong: 'a' is not in the wheel",
    ),
    "a RECORD of many different rows": (
        lambda: wheel(RECORD=b"".join(b"%x,,\n" % number for number in range(200_000))),
        24,
        "1000 or more rows of RECORD are wrong: '0' is not in the wheel",
    ),
    "a RECORD of right rows": (
        lambda: wheel(RECORD=b"demo.py,,\n" * 200_000),
        24,
        "1000 or more rows of RECORD are wrong: 'demo.py' is listed twice",
    ),
    "a RECORD of one long row": (
        lambda: wheel(RECORD=b"," * (16 * MIB)),
        8,
        "demo-1.0.dist-info/RECORD cannot be read: a line is longer than 262144 bytes",
    ),
    "METADATA of one long line": (
        lambda: wheel(METADATA=HEAD + b"Summary: " + b"ab " * (5 * MIB)),
        80,
        "",
    ),
    "entry points of many sections": (
        lambda: wheel(entry_points=b"".join(b"[%x]\n" % number for number in range(6_000))),
        16,
        "",
    ),
    "data behind an ended deflate stream": (
        behind_a_deflate_stream,
        8,
        "'big' has data after its end",
    ),
    "many PKG-INFO of other folders": (
        lambda: tar(*(tar_member(b"x%d/PKG-INFO" % number, LARGE) for number in range(4))),
        24,
        "the top folder 'x0' does not fit the filename: "
        "it must be <name>-<version> with project demo and version 1.0",
    ),
    "many PKG-INFO below the top folder": (
        lambda: tar(
            pkg_info(), *(tar_member(b"demo-1.0/%d/PKG-INFO" % n, LARGE) for n in range(3))
        ),
        8,
        "",
    ),
    "PKG-INFO again and again": (
        lambda: tar(*([pkg_info(PKG_INFO + LARGE[:-1000])] * 3)),
        80,
        "the member 'demo-1.0/PKG-INFO' is repeated, with the same content",
    ),
}


@pytest.mark.parametrize(("make", "mib", "expected"), UPLOADS.values(), ids=UPLOADS)
def test_an_upload_is_checked_in_little_memory(
    tmp_path: Path, make: Callable[[], tuple[str, bytes]], mib: int, expected: str
) -> None:
    filename, content = make()
    path = tmp_path / "upload"
    path.write_bytes(content)
    del content
    with at_most(mib):
        try:
            checked = check_archive(path, filename)
        except InvalidUpload as error:
            said = str(error).removeprefix(f"{filename}: ")
        else:
            said = "".join(checked.warnings)
            parse_core_metadata(checked.core_metadata)
    assert said == expected


@pytest.mark.parametrize(
    "content",
    [
        HEAD + b"".join(b"Dynamic: %x\n" % number for number in range(80_000)),
        HEAD + b"Name: demo\n" * 70_000,
        HEAD + b"Summary: " + b"ab " * (MIB // 3),
        HEAD + b"Requires-Python: " + b">=3\n , " * (MIB // 7),
        HEAD + b"Author-email: " + b"a@b.example, " * (MIB // 13),
        HEAD + b"Keywords: " + b"a," * (MIB // 2),
    ],
    ids=["Dynamic", "Name", "Summary", "Requires-Python", "Author-email", "Keywords"],
)
def test_long_metadata_is_read_in_memory_of_a_few_times_its_size(content: bytes) -> None:
    with at_most(8):
        parse_core_metadata(content)
        parse_description(content)


def test_a_long_summary_makes_one_line_in_little_memory() -> None:
    text = "ab " * (3 * MIB)
    with at_most(2):
        line = one_line(text)
    assert line == ("ab " * 171)[:511] + "…"


def test_a_fact_that_is_too_long_is_none_of_what_it_begins_with() -> None:
    found = parse_core_metadata(HEAD + b"Requires-Python: >=3" + b" " * 99_999 + b",<4\n")
    assert found.requires_python is not None
    assert len(found.requires_python) > 1000  # no upload with it is accepted


# -- files that were not uploaded through a server -----------------------------------------------


def directory_of(count: int) -> bytes:
    entry = struct.pack("<4s6H3L5H2L", b"PK\1\2", *[20, 20, 0, 0, 0, 33], *[0] * 10)
    length = len(entry) * count
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, length, 0, 0)
    return entry * count + end


def many_members() -> bytes:
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as archive:
        for number in range(12_000):
            archive.addfile(tarfile.TarInfo(f"demo-1.0/{number}"))
        info = tarfile.TarInfo("demo-1.0/PKG-INFO")
        info.size = len(PKG_INFO)
        archive.addfile(info, io.BytesIO(PKG_INFO))
    return gzip.compress(plain.getvalue())


FOREIGN: dict[str, tuple[str, Callable[[], bytes], int, str]] = {
    "a directory of many members": (
        WHEEL,
        lambda: directory_of(200_001),
        32,
        "the archive cannot be read: it has more than 200000 members",
    ),
    "a directory of many bytes": (
        WHEEL,
        lambda: directory_of(1_500_000),
        8,
        "the archive cannot be read: its central directory has more than 67108864 bytes",
    ),
    "a long pax header": (
        SDIST,
        lambda: make_tar_gz(tar_member(b"x", LARGE, kind=b"x"), pkg_info()),
        8,
        "the archive cannot be read: it has a header of 16777216 bytes",
    ),
    "a long name": (
        SDIST,
        lambda: make_tar_gz(tar_member(b"x", LARGE, kind=b"L"), pkg_info()),
        8,
        "the archive cannot be read: it has a header of 16777216 bytes",
    ),
    "many global pax headers": (
        SDIST,
        lambda: make_tar_gz(
            tar_member(b"demo-1.0/a", kind=b"7"),  # which only the standard library reads
            *(
                pax(*((b"%x" % (n * 999 + m), b"") for m in range(999)), kind=b"g")
                + tar_member(b"demo-1.0/a")
                for n in range(12)
            ),
            pkg_info(),
        ),
        8,
        "the archive cannot be read: its global pax headers have too many records",
    ),
    "many members": (SDIST, many_members, 2, ""),
    "a bomb": (
        SDIST,
        lambda: make_tar_gz(tar_member(b"demo-1.0/a", bytes(65 * MIB)), pkg_info()),
        8,
        "the archive cannot be read: it unpacks to more than 67108864 bytes",
    ),
}


@pytest.mark.parametrize(("filename", "make", "mib", "expected"), FOREIGN.values(), ids=FOREIGN)
@pytest.mark.needs("time")
def test_a_file_that_somebody_dropped_is_read_in_little_memory(
    tmp_path: Path, filename: str, make: Callable[[], bytes], mib: int, expected: str
) -> None:
    path = tmp_path / "dropped"
    path.write_bytes(make())
    with at_most(mib):
        try:
            read = read_core_metadata(path, filename)
        except InvalidUpload as error:
            said = str(error).removeprefix(f"{filename}: ")
        else:
            said = ""
            assert read == PKG_INFO
    assert said == expected


# -- time ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "most"),
    [
        (1, 64 * MIB),
        (2 * MIB, 100 * MIB),
        (100 * MIB, 5000 * MIB),
        (1024 * MIB, 9 * 1024 * MIB),  # not 50 times as much
    ],
)
def test_what_an_archive_may_unpack_to_is_bounded_by_its_size_and_beyond(
    size: int, most: int
) -> None:
    assert most_unpacked(size) == most


def test_headers_and_records_of_a_tar_file_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "upload"
    monkeypatch.setattr(tar_members, "_MAX_HEADERS", 1000)
    monkeypatch.setattr(tar_members, "_MAX_RECORDS", 5000)
    path.write_bytes(make_tar_gz(*[pax(kind=b"g")] * 1001, pkg_info()))
    with pytest.raises(InvalidUpload, match="the tar file has more than 1000 headers"):
        check_archive(path, SDIST)
    records = tar_member(b"x", b"5 a=\n" * 501, kind=b"x")
    path.write_bytes(make_tar_gz(*[records] * 10, pkg_info()))
    with pytest.raises(InvalidUpload, match="have more than 5000 records"):
        check_archive(path, SDIST)


def test_few_archives_are_checked_at_a_time_and_small_ones_never_wait_for_large_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "_WAIT_SECONDS", 0.01)
    path = tmp_path / "upload"
    path.write_bytes(make_zip(wheel_members()))
    with ExitStack() as large:
        for _ in range(2):
            large.enter_context(place_to_read(5 * MIB))
        with pytest.raises(BackendUnavailable, match="send the file again"):
            large.enter_context(place_to_read(5 * MIB))
        assert check_archive(path, WHEEL).core_metadata == HEAD
    with ExitStack() as small:
        for _ in range(4):
            small.enter_context(place_to_read(MIB))
        with pytest.raises(BackendUnavailable):
            check_archive(path, WHEEL)
        small.enter_context(place_to_read(5 * MIB))
    assert check_archive(path, WHEEL).core_metadata == HEAD
